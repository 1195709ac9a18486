"""Every setting with its default and help."""

import dataclasses
import json
import pathlib
from typing import Any

from spidercap.pipeline.errors import UserError, check_choice
from spidercap.pipeline.metrics.registry import (
    column_names,
    parse_metrics,
    parse_reward,
    term_of,
    terms_without_java,
    with_mixes,
)
from spidercap.pipeline.metrics.reward_functions import parse_reward_functions
from spidercap.pipeline.settings.fields import check_value, parse_pairs, setting
from spidercap.pipeline.settings.refusals import refuse_data_flags, refuse_decoding, refuse_objectives

MODES = ("prepare", "train", "evaluate", "score", "caption", "export")
DATASETS = ("scenes", "folder")
DECODERS = ("greedy", "beam")
STAGES = ("mle", "baseline", "pg", "mixer", "scst", "leave_one_out")


@dataclasses.dataclass(frozen=True)
class Stage:
    """One part of a run: `name` of STAGES for `epochs` passes over the training data."""

    name: str
    epochs: float


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a call. Field, flag and function argument share one name."""

    mode: str = setting("train", "run", "What to do.", fixed=False, choices=MODES)
    workdir: str = setting("", "run", "Folder of the run: settings, checkpoints, logs, results.", fixed=False)
    seed: int = setting(0, "run", "Of everything random in training: weights, order, dropout, samples.", least=0)

    dataset: str = setting("scenes", "data", "scenes: drawn, nothing to download; folder: yours.", choices=DATASETS)
    images: str = setting(
        "", "data", "folder: where the pictures are; mode=caption: files or folders, by comma.", fixed=False
    )
    train_captions: str = setting("", "data", "folder: COCO-format JSON to train on.", fixed=False)
    val_captions: str = setting("", "data", "folder: COCO-format JSON to validate on.", fixed=False)
    skip_bad_images: bool = setting(False, "data", "Leave out pictures that cannot be read.", fixed=False)
    scenes_train: int = setting(3000, "data", "scenes: number of training pictures.")
    scenes_val: int = setting(500, "data", "scenes: number of validation pictures.")
    min_word_count: int = setting(5, "data", "A word seen less often in training cannot be said.")
    views: int = setting(
        1,
        "data",
        "Views of each training picture, of which every step draws one: the whole, then parts of it, some mirrored. "
        "Each is seen by the encoder once; more keep few pictures from being learned by heart.",
        added=True,
        most=100,
    )
    max_length: int = setting(20, "data", "Most words of a caption, the end token counted (T).", least=2, most=1000)
    cache_dir: str = setting(
        "",
        "data",
        "Where prepared pictures and features lie; by default 'cache' beside the workdir.",
        fixed=False,
    )

    encoder: str = setting("InceptionV3", "model", "A network of keras.applications, such as EfficientNetB0.")
    encoder_weights: str = setting("imagenet", "model", "imagenet (downloaded), random, or a .weights.h5 file.")
    image_size: int = setting(
        0, "model", "Side in pixels that the encoder sees; 0: the network's own.", least=0, most=4096
    )
    units: int = setting(512, "model", "LSTM units (H).", most=2**16)
    embedding_size: int = setting(512, "model", "Size of a word's embedding.", most=2**16)
    baseline_units: int = setting(512, "model", "Hidden units of the baseline MLP.", most=2**16)
    feature_dropout: float = setting(
        0.0, "model", "Of the picture's features in training, all stages alike.", least=0, most=0.99
    )
    precision: str = setting(
        "float32",
        "model",
        "bfloat16, for GPUs: the decoder's matrix products are rounded to it, in training and validation; softmax, "
        "losses and rewards stay float32.",
        added=True,
        choices=("float32", "bfloat16"),
    )
    jit: bool = setting(False, "model", "XLA compiles the steps over the vocabulary; see BUILD.md.", fixed=False)
    dropout: float = setting(0.3, "model", "On words read and hidden states, in mle only.", least=0, most=0.99)

    stages: str = setting(
        "mle:20,baseline:1,pg:10",
        "training",
        "name:epochs, in order; fractions allowed. mle learns from true captions, baseline warms up pg's baseline; "
        "pg, mixer, scst, leave_one_out learn from rewards.",
    )
    learning_rate: str = setting(
        "mle:1e-3,baseline:1e-3,pg:5e-5,mixer:5e-5,scst:5e-5,leave_one_out:5e-5",
        "training",
        "Adam's, name:rate; learned baselines keep that of baseline in pg and mixer.",
    )
    decay: str = setting(
        "mle:0.85,baseline:1,pg:1,mixer:1,scst:1,leave_one_out:1",
        "training",
        "Learning rate's factor an epoch, name:factor.",
    )
    batch_size: int = setting(64, "training", "mle, mixer: captions a step; others: images a step (B).", most=2**20)
    clip_norm: float = setting(5.0, "training", "Global norm at which gradients are clipped; 0: never.", least=0)
    weight_decay: float = setting(
        0.0,
        "training",
        "Share of the captioner's weights, biases apart, taken off an update, times the learning rate; 0: none.",
        added=True,
        least=0,
        most=100,
    )
    weight_average: float = setting(
        0.0,
        "training",
        "What is validated, kept and handed on: a moving average of the weights, of this momentum (0.999); 0: none.",
        added=True,
        least=0,
        most=0.99999,
    )
    patience: int = setting(
        0, "training", "End a stage after so many validations without a new best; 0: never.", least=0
    )
    max_skipped: int = setting(
        10, "training", "Stop when so many updates of a stage, or all, had gradients that were no numbers.", fixed=False
    )
    warm_start: str = setting("", "training", "Workdir whose last kept weights this run begins with.")

    label_smoothing: float = setting(
        0.0,
        "likelihood",
        "mle: share of each true word's probability given to all that may be said.",
        least=0,
        most=0.99,
    )
    scheduled_sampling: float = setting(
        0.0,
        "likelihood",
        "mle: largest probability of reading a word of the model's own; 0: true words.",
        least=0,
        most=1,
    )
    scheduled_sampling_step: float = setting(
        0.05, "likelihood", "mle: by how much it rises, from 0.", least=1e-3, most=1
    )
    scheduled_sampling_epochs: float = setting(
        5.0, "likelihood", "mle: epochs between two rises, the first one too.", least=1e-3
    )

    reward: str = setting(
        "cider",
        "rewards",
        "What captions are trained on: a metric, spider, spider_fast (SPICE by a learned parser: compiled, no Java), "
        "bcmr, or a mix such as cider:1,spice_fast:2,bleu4:0.5.",
    )
    reward_functions: str = setting(
        "",
        "rewards",
        "Rewards of your own, name=file.py:function by comma, for --reward=cider:1,name:0.3. A function gets the lists "
        "of captions, of their references and of image ids, and returns a number for each caption. Only this text is "
        "compared when a run goes on, not the file.",
        added=True,
    )
    temperature: float = setting(
        1.0,
        "rewards",
        "What logits of words are divided by where rewards, or the baseline's warm-up, take over from likelihood; "
        "0.5 makes samples more like greedy captions, which rewards then improve sooner.",
        added=True,
        least=0.05,
        most=10,
    )
    end_token_in_reward: bool = setting(
        True, "rewards", "The end counts as a word, or captions learn to end in 'with a'."
    )
    samples: int = setting(
        1, "rewards", "Paths sampled an image (M); leave_one_out needs 2 or more, mixer samples 1 a caption.", most=1000
    )
    rollouts: int = setting(
        3, "rewards", "pg: rollouts from every prefix (K); 0: every word earns its path's reward.", least=0, most=1000
    )
    rollout_policy: str = setting(
        "sample", "rewards", "pg: greedy needs --rollouts=1, is cheaper, and biased.", choices=("sample", "greedy")
    )
    share_rollouts: bool = setting(
        False, "rewards", "pg: an image's paths that begin alike share rollouts; needs --samples above 1."
    )
    likelihood_weight: float = setting(
        0.0,
        "rewards",
        "pg, scst, leave_one_out: weight of the likelihood of a true caption of each picture; the reward has the rest.",
        added=True,
        least=0,
        most=1,
    )
    mixer_step: int = setting(3, "rewards", "mixer: by how much s falls, the words learned by likelihood.", most=1000)
    mixer_epochs: float = setting(5.0, "rewards", "mixer: epochs between two falls, from T to 0.", least=1e-3)
    mixer_likelihood_weight: float = setting(
        0.5, "rewards", "mixer: likelihood's weight while 0 < s < T; the reward has the rest.", least=0, most=1
    )

    evaluate_every: float = setting(1.0, "evaluation", "Epochs between two validations.", least=1e-3)
    val_images: int = setting(0, "evaluation", "Validation pictures used while training; 0: all.", least=0)
    best_metric: str = setting("CIDEr", "evaluation", "Decides which weights are kept as best.", choices=column_names())
    decode: str = setting(
        "greedy", "decoding", "How captions are searched for.", fixed=False, added=True, choices=DECODERS
    )
    beam_width: int = setting(5, "decoding", "beam: captions followed at once (W).", fixed=False, added=True, most=100)
    length_penalty: float = setting(
        0.0,
        "decoding",
        "beam: captions rank by log-probability / length ** this.",
        fixed=False,
        added=True,
        least=0,
        most=10,
    )
    no_repeat_ngram: int = setting(
        0,
        "decoding",
        "beam: no so many words in a row come twice; 0: they may.",
        fixed=False,
        added=True,
        least=0,
        most=1000,
    )
    no_bad_endings: bool = setting(
        False, "decoding", "beam: no caption ends after words such as 'a' or 'with'.", fixed=False, added=True
    )
    n_best: int = setting(
        1, "decoding", "beam: captions given for each picture, best first.", fixed=False, added=True, most=100
    )
    metrics: str = setting(
        "",
        "metrics",
        "Metrics to report: all, or some by comma (bleu, meteor, rouge, cider, spice, bcmr, spider; spice_fast and "
        "spider_fast, approximations, only by name). Default: all in mode=score; else those without Java, and what "
        "reward and best_metric are made of.",
        fixed=False,
    )
    references: str = setting("", "metrics", "mode=score: COCO captions file.", fixed=False)
    results: str = setting("", "metrics", "mode=score: COCO results file, whose captions are scored.", fixed=False)
    output: str = setting("", "metrics", "mode=score: JSON file for the scores of corpus and images.", fixed=False)
    metric_workers: int = setting(
        2,
        "metrics",
        "Java processes for METEOR, and for SPICE; 1.1 GB each for METEOR, 1.5 to 3 GB for SPICE.",
        fixed=False,
        most=256,
    )
    metric_timeout: float = setting(60.0, "metrics", "Seconds a Java process may take for one caption.", fixed=False)
    metric_cache_dir: str = setting(
        "",
        "metrics",
        "Folder for CoreNLP (385 MB) and the captions that SPICE has parsed; by default "
        "$SPIDERCAP_METRIC_CACHE, else spidercap in the user's cache folder.",
        fixed=False,
    )
    corenlp: str = setting(
        "", "metrics", "Folder that holds CoreNLP 3.6.0's two jars; by default they are downloaded.", fixed=False
    )
    log_every: int = setting(20, "evaluation", "Steps between two log lines.", fixed=False)
    checkpoint_every: float = setting(5.0, "evaluation", "Minutes between two checkpoints.", fixed=False, least=0)
    export_dir: str = setting("", "evaluation", "Where models are exported; by default <workdir>/export.", fixed=False)

    def __post_init__(self):
        _check(self)
        # Imports TensorFlow, which takes seconds: a mistake in another flag is told without.
        from spidercap.models.encoder import default_image_size, encoder_names

        check_choice("encoder", self.encoder, encoder_names())
        if not self.image_size:
            object.__setattr__(self, "image_size", default_image_size(self.encoder))

    def parsed_stages(self) -> tuple[Stage, ...]:
        """Returns the stages in their order."""
        return tuple(Stage(name, epochs) for name, epochs in _pairs("stages", self.stages))

    def of_stage(self, field: str, stage: str) -> float:
        """Returns the stage's value in a name:value setting, else that of the setting's default."""
        return dict(_pairs(field, fields()[field].default) + _pairs(field, getattr(self, field)))[stage]

    def reward_weights(self) -> dict[str, float]:
        """Returns the weight of each single metric, and of each function of one's own, in the reward."""
        return parse_reward(self.reward, parse_reward_functions(self.reward_functions))

    def terms(self) -> tuple[str, ...]:
        """Returns the metrics to report, of registry.METRICS and in its order."""
        if self.mode == "score":
            return parse_metrics(self.metrics or "all")
        asked = parse_metrics(self.metrics) if self.metrics else ()
        return with_mixes([*terms_without_java(), *asked, *self.reward_weights(), term_of(self.best_metric)])

    def decoding(self) -> dict[str, Any]:
        """Returns how captions are searched for."""
        return {name: getattr(self, name) for name, f in fields().items() if f.metadata["group"] == "decoding"}

    def metric_settings(self) -> dict[str, Any]:
        """Returns what the Java metrics want to know."""
        names = ("metric_workers", "metric_timeout", "metric_cache_dir", "corenlp")
        return {name: getattr(self, name) for name in names}

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
        """Returns the settings that make a workdir what it is.

        In training these are also how captions are searched for: validations are compared with each other.
        """
        fixed = {name: getattr(self, name) for name, f in fields().items() if f.metadata["fixed"]}
        return fixed | (self.decoding() if self.mode == "train" else {})

    def to_json(self) -> str:
        """Returns all settings but the mode, for `<workdir>/config.json`."""
        return json.dumps({k: v for k, v in dataclasses.asdict(self).items() if k != "mode"}, indent=2) + "\n"


def fields() -> dict[str, dataclasses.Field]:
    """Returns the settings by name; the metadata hold what `setting` takes."""
    return {f.name: f for f in dataclasses.fields(Config)}


def stage_labels(config: Config) -> list[str]:
    """Returns a name for each stage: 'mle', 'pg', and where a stage comes twice 'pg-2'."""
    names = [stage.name for stage in config.parsed_stages()]
    earlier = [names[:i].count(name) for i, name in enumerate(names)]
    return [name if not count else f"{name}-{count + 1}" for name, count in zip(names, earlier, strict=True)]


def _pairs(name: str, text: str) -> list[tuple[str, float]]:
    stages = name == "stages"
    return parse_pairs(name, text, STAGES, most=1e6 if stages else 1.0, repeated=stages, example=fields()[name].default)


def _check(config: Config) -> None:
    """Refuses what no data is needed to refuse."""
    for name, field in fields().items():
        check_value(field, getattr(config, name))
    for field in ("stages", "learning_rate", "decay"):
        _pairs(field, getattr(config, field))
    if not config.parsed_stages():
        raise UserError("--stages is empty; for example --stages=mle:20,baseline:1,pg:10")
    refuse_objectives(config)
    refuse_decoding(config)
    config.reward_weights()
    config.terms()
    if config.mode in ("prepare", "train"):
        refuse_data_flags(config)
    if config.mode == "score" and not (config.references and config.results):
        raise UserError("--mode=score needs --references and --results: a COCO captions file and a COCO results file")
    if config.mode == "caption" and not config.images:
        raise UserError("--mode=caption needs --images: picture files or folders, separated by commas")
