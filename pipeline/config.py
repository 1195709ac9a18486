"""Every setting with its default and help, and every refusal that needs no data."""

import dataclasses
import difflib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from models.encoder import default_image_size, encoder_names
from pipeline.errors import UserError
from pipeline.metric_names import METRICS
from pipeline.rewards import REWARDS

MODES = ("prepare", "train", "evaluate", "caption", "export")
DATASETS = ("scenes", "folder")
STAGES = ("mle", "baseline", "pg")
MAY_BE_ZERO = ("seed", "image_size", "dropout", "clip_norm", "patience", "val_images", "checkpoint_every")


@dataclasses.dataclass(frozen=True)
class Stage:
    """One part of a run: `name` of STAGES for `epochs` passes over the training data."""

    name: str
    epochs: float


def _setting(default: Any, group: str, text: str, *, fixed: bool = True, choices: Sequence[str] = ()) -> Any:
    """A field of Config and its flag. `fixed`: part of what a workdir is; False: may change from call to call."""
    metadata = {"group": group, "help": text, "fixed": fixed, "choices": tuple(choices)}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a call. Field, flag and function argument share one name."""

    mode: str = _setting("train", "run", "What to do.", fixed=False, choices=MODES)
    workdir: str = _setting("", "run", "Folder of the run: settings, checkpoints, logs, results.", fixed=False)
    seed: int = _setting(0, "run", "Of everything random in training: weights, order, dropout, samples.")

    dataset: str = _setting("scenes", "data", "scenes: drawn, nothing to download; folder: yours.", choices=DATASETS)
    images: str = _setting(
        "", "data", "folder: where the pictures are; mode=caption: files or folders, by comma.", fixed=False
    )
    train_captions: str = _setting("", "data", "folder: COCO-format JSON to train on.", fixed=False)
    val_captions: str = _setting("", "data", "folder: COCO-format JSON to validate on.", fixed=False)
    skip_bad_images: bool = _setting(False, "data", "folder: leave out pictures that cannot be read.")
    scenes_train: int = _setting(3000, "data", "scenes: number of training pictures.")
    scenes_val: int = _setting(500, "data", "scenes: number of validation pictures.")
    min_word_count: int = _setting(5, "data", "A word seen less often in training cannot be said.")
    max_length: int = _setting(20, "data", "Most words of a caption, the end token counted (T).")
    cache_dir: str = _setting(
        "",
        "data",
        "Where prepared pictures and features lie; by default 'cache' beside the workdir.",
        fixed=False,
    )

    encoder: str = _setting("InceptionV3", "model", "Any network of keras.applications.", choices=encoder_names())
    encoder_weights: str = _setting("imagenet", "model", "imagenet (downloaded), random, or a .weights.h5 file.")
    image_size: int = _setting(0, "model", "Side in pixels that the encoder sees; 0: the network's own.")
    units: int = _setting(512, "model", "LSTM units (H).")
    embedding_size: int = _setting(512, "model", "Size of a word's embedding.")
    baseline_units: int = _setting(512, "model", "Hidden units of the baseline MLP.")
    dropout: float = _setting(0.3, "model", "On words read and hidden states, in mle only.")

    stages: str = _setting("mle:20,baseline:1,pg:10", "training", "name:epochs in their order; fractions allowed.")
    learning_rate: str = _setting(
        "mle:1e-3,baseline:1e-3,pg:5e-5", "training", "Adam's, name:rate; the baseline keeps its own in pg."
    )
    decay: str = _setting("mle:0.85,baseline:1,pg:1", "training", "Learning rate's factor an epoch, name:factor.")
    batch_size: int = _setting(64, "training", "mle: captions a step; baseline and pg: images a step (B).")
    clip_norm: float = _setting(5.0, "training", "Global norm at which gradients are clipped; 0: never.")
    patience: int = _setting(0, "training", "End mle or pg after so many validations without a new best; 0: never.")
    warm_start: str = _setting("", "training", "Workdir whose best weights this run begins with.")

    reward: str = _setting("cider", "policy gradient", "What captions are trained on.", choices=REWARDS)
    samples: int = _setting(1, "policy gradient", "Paths sampled an image (M).")
    rollouts: int = _setting(3, "policy gradient", "Monte-Carlo rollouts from every prefix (K).")
    end_token_in_reward: bool = _setting(
        True, "policy gradient", "The end counts as a word, or captions learn to end in 'with a'."
    )

    evaluate_every: float = _setting(1.0, "evaluation", "Epochs between two validations.")
    val_images: int = _setting(0, "evaluation", "Validation pictures used while training; 0: all.")
    best_metric: str = _setting("CIDEr", "evaluation", "Decides which weights are kept as best.", choices=METRICS)
    log_every: int = _setting(20, "evaluation", "Steps between two log lines.", fixed=False)
    checkpoint_every: float = _setting(5.0, "evaluation", "Minutes between two checkpoints.", fixed=False)
    export_dir: str = _setting("", "evaluation", "Where models are exported; by default <workdir>/export.", fixed=False)

    def __post_init__(self):
        _check(self)
        if not self.image_size:
            object.__setattr__(self, "image_size", default_image_size(self.encoder))

    def parsed_stages(self) -> tuple[Stage, ...]:
        """Returns the stages in their order."""
        return tuple(Stage(name, epochs) for name, epochs in _pairs("stages", self.stages))

    def of_stage(self, field: str, stage: str) -> float:
        """Returns the stage's value in a name:value setting, else that of the setting's default."""
        return dict(_pairs(field, fields()[field].default) + _pairs(field, getattr(self, field)))[stage]

    def workdir_path(self) -> pathlib.Path:
        """Returns the run's folder."""
        return pathlib.Path(self.workdir)

    def cache_path(self) -> pathlib.Path:
        """Returns the folder of prepared data, shared by the runs of a folder."""
        return pathlib.Path(self.cache_dir) if self.cache_dir else self.workdir_path().parent / "cache"

    def export_path(self) -> pathlib.Path:
        """Returns the folder that holds a numbered folder for each exported model."""
        return pathlib.Path(self.export_dir) if self.export_dir else self.workdir_path() / "export"

    def fixed(self) -> dict[str, Any]:
        """Returns the settings that make a workdir what it is."""
        return {name: getattr(self, name) for name, f in fields().items() if f.metadata["fixed"]}

    def to_json(self) -> str:
        """Returns all settings but the mode, for `<workdir>/config.json`."""
        return json.dumps({k: v for k, v in dataclasses.asdict(self).items() if k != "mode"}, indent=2) + "\n"


def differences(saved: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns 'name: saved -> new' for every setting that differs."""
    names = [n for n in {**saved, **new} if saved.get(n) != new.get(n)]
    return [f"{n}: {saved.get(n)!r} -> {new.get(n)!r}" for n in names]


def fields() -> dict[str, dataclasses.Field]:
    """Returns the settings by name; the metadata hold group, help, fixed and choices."""
    return {f.name: f for f in dataclasses.fields(Config)}


def _pairs(field: str, text: str) -> list[tuple[str, float]]:
    """'mle:20,pg:1.5' -> [('mle', 20.0), ('pg', 1.5)]."""
    pairs = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, number = part.partition(":")
        if name not in STAGES:
            raise UserError(f"--{field}: unknown stage {name!r}; allowed: {', '.join(STAGES)}")
        try:
            value = float(number)
        except ValueError:
            raise UserError(f"--{field}: {part!r} is not name:number, for example mle:20") from None
        if not 0 < value < 1e9:
            raise UserError(f"--{field}: {part!r} must be above 0")
        pairs.append((name, value))
    return pairs


def _check(config: Config) -> None:
    """Refuses what no data is needed to refuse."""
    for name, field in fields().items():
        value, choices = getattr(config, name), field.metadata["choices"]
        if choices and value not in choices:
            close = difflib.get_close_matches(str(value), choices, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise UserError(f"--{name}: unknown {value!r}{hint}; allowed: {', '.join(choices)}")
        if isinstance(field.default, (int, float)) and not isinstance(field.default, bool):
            _check_number(name, value)
    for field in ("stages", "learning_rate", "decay"):
        _pairs(field, getattr(config, field))
    if not config.parsed_stages():
        raise UserError("--stages is empty; for example --stages=mle:20,baseline:1,pg:10")
    needed = [n for n in ("images", "train_captions", "val_captions") if not getattr(config, n)]
    if config.dataset == "folder" and config.mode in ("prepare", "train") and needed:
        raise UserError(f"--dataset=folder needs {', '.join('--' + n for n in needed)}")
    if config.mode == "caption" and not config.images:
        raise UserError("--mode=caption needs --images: picture files or folders, separated by commas")


def _check_number(name: str, value: float) -> None:
    least, allowed = (1, "at least 1") if isinstance(value, int) else (1e-12, "above 0")
    if name in MAY_BE_ZERO:
        least, allowed = 0, "0 or more"
    if not least <= value < 2**31:
        raise UserError(f"--{name}={value:g} is out of range; it must be {allowed}")
    if name == "dropout" and value >= 1:
        raise UserError(f"--dropout={value:g} would drop everything; allowed: 0 to below 1")
