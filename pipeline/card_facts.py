"""What a run knows of its model, for the model card: from the files in its folder, nothing else."""

import dataclasses
import datetime
import importlib.metadata
import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from spidercap.export.model_card import UNKNOWN, Facts, Scores
from spidercap.pipeline.data.records import SPLITS
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.metrics.registry import remarks
from spidercap.pipeline.metrics.versions import split_versions
from spidercap.pipeline.report.results import TEST_NOTE
from spidercap.pipeline.settings.config import Config, fields
from spidercap.pipeline.settings.data_settings import DataSettings
from spidercap.pipeline.settings.decoding_settings import told_of
from spidercap.pipeline.settings.saved import read_settings
from spidercap.pipeline.text.vocabulary import Vocabulary
from spidercap.pipeline.training import identity, kept
from spidercap.pipeline.training.run_files import kept_sizes

# Of these only the last part is told, as a card is published and folders are private.
PATHS = (
    *("images", "features", "captions", "train_captions", "val_captions", "test_captions", "data_dir"),
    *("encoder_weights", "warm_start", "reward_functions"),
)
# Settings of the data that change how it is read, but not what is read.
WORKING = ("download", "workers", "beam_options", "cache_dir", "max_pixels")
OF_EVALUATION = ("decode_seed",)  # exported models draw anew for each call
PACKAGES = ("spidercap", "tensorflow", "keras", "numpy")


def facts_of(config: Config, vocabulary: Vocabulary) -> Facts:
    """Returns the facts of the model that the run exports now, that of its last stage."""
    # Not those of this command, which may caption other images.
    saved = read_settings(config.workdir_path() / "config.json")
    label = kept.last_kept(config)
    finished = kept.saved_progress(config).finished
    scores = list(_scores(config.workdir_path(), label))
    columns = {column for of in scores for column in of.metrics}
    return Facts(
        name=config.workdir_path().absolute().name,
        date=_day(datetime.datetime.now(datetime.UTC)),
        data_set=saved["dataset"],
        splits=_splits(config),
        model=_model(config, vocabulary),
        recipe=_recipe(saved),
        stages=[
            {key: stage.to_dict()[key] for key in ("name", "steps", "images_seen", "seconds")} for stage in finished
        ],
        decoding={k: v for k, v in told_of(dataclasses.asdict(config.decoding)).items() if k not in OF_EVALUATION},
        scores=scores,
        notes=[TEST_NOTE, *remarks(columns, *(of.versions for of in scores))] if scores else [],
        limits=[*_limits(config, vocabulary), *(f"{s.name} {warning}" for s in finished for warning in s.warnings)],
        versions={name: _version(name) for name in PACKAGES},
    )


def _splits(config: Config) -> dict[str, dict[str, int | None]]:
    """Images and captions of each split; an earlier version stored no captions, and images of train and val alone."""
    sizes = kept_sizes(config)
    images = {name: len(images.names) for name, images in identity.kept_images(config).items()}
    return sizes or {name: {"images": count, "captions": None} for name, count in images.items()}


def _model(config: Config, vocabulary: Vocabulary) -> dict[str, Any]:
    if identity.takes_features(config):
        encoder = {"encoder": "none, it takes features"}
    else:
        weights = _without_folders(config.model.encoder_weights)
        encoder = {"encoder": f"{config.model.encoder}, weights {weights}", "image size": config.model.image_size}
        if config.model.finetune_encoder:
            encoder["trained layers of the encoder"] = f"from {config.model.finetune_from or 'the first'} on"
    return encoder | {
        "features of an image": identity.kept_feature_size(config),
        "decoder": config.model.decoder,
        "hidden units": config.model.units,
        "size of the word embeddings": config.model.embedding_size,
        "tokens of the vocabulary": len(vocabulary.words),
        "maximum tokens of a caption": config.data.max_length,
    }


def _recipe(saved: Mapping[str, Any]) -> list[str]:
    """The saved settings that are not the default and that matter for what is learned, as flags."""
    data = {field.name for field in dataclasses.fields(DataSettings)}.difference(WORKING)
    told = [name for name, field in fields().items() if field.metadata["fixed"] or name in data]
    changed = [name for name in told if name in saved and name != "workdir" and saved[name] != fields()[name].default]
    texts = {name: str(saved[name]).lower() if isinstance(saved[name], bool) else saved[name] for name in changed}
    return [f"--{name}={_without_folders(text) if name in PATHS else text}" for name, text in texts.items()]


def _without_folders(paths: str) -> str:
    return re.sub(r"[^,=]*/(?=[^,=/])", "", paths)


def _scores(workdir: pathlib.Path, label: str) -> Iterator[Scores]:
    """The stored scores of a stage, in the order of the splits."""
    summary = _stored(workdir / "summary.json") or {}
    order = {name: i for i, name in enumerate(SPLITS)}
    folders = [path for path in (workdir / "results").glob("*") if path.is_dir()]
    for folder in sorted(folders, key=lambda path: (order.get(path.name, len(order)), path.name)):
        path = folder / f"{label}.metrics.json"
        metrics, captions = _stored(path), _stored(folder / f"{label}.json")
        if metrics is None or captions is None:
            continue
        metrics, versions = split_versions(metrics)
        # A split that was scored alone, with other settings, is not in the summary.
        summarised = summary.get("splits", {}).get(folder.name, {}).get("metrics", {}).get(label)
        how = told_of(summary["decoding"]) if summarised == metrics else None
        date = _day(datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC))
        yield Scores(folder.name, label, len(captions), date, how, metrics, versions)


def _stored(path: pathlib.Path) -> Any:
    """The JSON of a file; None if there is no such file.

    Raises:
      UserError: it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); run --mode=evaluate again") from error


def _limits(config: Config, vocabulary: Vocabulary) -> list[str]:
    return [
        f"It has {len(vocabulary.words):,} tokens. Words that come less than {config.data.min_word_count} times in the "
        "training captions are never generated.",
        f"A caption has at most {config.data.max_length} tokens, the end token included.",
        "It captions every image, also one unlike the training data, and does not tell when it is wrong. The "
        "log-probability of a caption is no measure of its truth.",
        "Errors and biases of the training captions are learned, such as what they say of people. They were not "
        "measured.",
    ]


def _day(moment: datetime.datetime) -> str:
    return moment.date().isoformat()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
        return UNKNOWN
