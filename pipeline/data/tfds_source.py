"""Data sets of TensorFlow Datasets: COCO, and any other with images and captions."""

import dataclasses
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow_datasets as tfds

from spidercap.pipeline.data.records import SPLITS, Source
from spidercap.pipeline.data.tfds_splits import Columns, read_split
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.data_settings import DataSettings
from spidercap.pipeline.settings.datasets import kind_of
from spidercap.pipeline.text.coco_json import first

COCO = "coco_captions/2014"
COCO_COLUMNS = Columns("image", "captions/text", "image/id", "image/filename")
HELD_OUT = 1665  # validation images of COCO that Liu et al. (2017) keep from training
_NAMES = {"train": ("train",), "val": ("val", "validation"), "test": ("test",)}
# Of COCO 2014 in TFDS, by --coco_split. The official validation images are its val, test and restval together.
_COCO_SPLITS = {"karpathy": {"train": "train+restval", "val": "val", "test": "test"}}


def coco_source(settings: DataSettings, cache: pathlib.Path, wanted: Iterable[str]) -> Source:
    """Returns COCO 2014 with Karpathy's splits, or with the paper's.

    Raises:
      UserError: it is not prepared in --data_dir, and --download is not given.
    """
    builder = _prepared(COCO, settings)
    splits = _COCO_SPLITS.get(settings.coco_split) or _paper_splits(builder)
    return _source(builder, splits, COCO_COLUMNS, settings, cache, wanted)


def tfds_source(settings: DataSettings, cache: pathlib.Path, wanted: Iterable[str]) -> Source:
    """Returns a data set by its name in TensorFlow Datasets.

    Raises:
      UserError: it does not exist, is not prepared in --data_dir, or lacks a split or a feature.
    """
    builder = _prepared(kind_of(settings.dataset)[1], settings)
    columns = Columns(settings.tfds_image, settings.tfds_captions, settings.tfds_id, "")
    _check_columns(builder, columns)
    return _source(builder, _splits_of(builder, settings), columns, settings, cache, wanted)


def _source(
    builder: tfds.core.DatasetBuilder,
    splits: Mapping[str, str],
    columns: Columns,
    settings: DataSettings,
    cache: pathlib.Path,
    wanted: Iterable[str],
) -> Source:
    wanted = [name for name in wanted if name in splits]
    for name in wanted:
        _check_split(builder, splits[name])
    found = {name: read_split(builder, splits[name], columns, settings, cache) for name in wanted}
    return Source(
        {name: key for name, (key, _) in found.items()}, lambda: {n: split for n, (_, split) in found.items()}
    )


def _prepared(name: str, settings: DataSettings) -> tfds.core.DatasetBuilder:
    """The builder of a data set that is prepared; it is downloaded only on request."""
    folder = settings.data_dir or None
    try:
        builder = tfds.builder(name, data_dir=folder)
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as error:
        reason = re.sub(r"\s+", " ", str(error)).strip()[:200]
        raise UserError(
            f"--dataset={settings.dataset}: TensorFlow Datasets has no {name} ({reason}); allowed: NAME, "
            "NAME/CONFIG, NAME:VERSION, and what is prepared in --data_dir"
        ) from error
    if builder.is_prepared():
        return builder
    if not settings.download:
        raise UserError(
            f"--dataset={settings.dataset}: {builder.info.full_name} is not prepared in {builder.data_dir}; name the "
            "folder of a prepared one by --data_dir, or add --download"
        )
    try:
        builder.download_and_prepare()
    except Exception as error:  # of the network, the disk and every data set's own code
        raise UserError(
            f"--dataset={settings.dataset} cannot be prepared ({type(error).__name__}: {str(error).strip()[:200]}); "
            "prepare it on another machine and name its folder by --data_dir"
        ) from error
    return builder


def _splits_of(builder: tfds.core.DatasetBuilder, settings: DataSettings) -> dict[str, str]:
    """The expressions of TFDS's splits by our names."""
    known = list(builder.info.splits)
    if settings.tfds_splits:
        given = [part.strip() for part in settings.tfds_splits.split(";")]
        if not 2 <= len(given) <= len(SPLITS) or not all(given):
            raise UserError(
                f"--tfds_splits={settings.tfds_splits} names {len(given)} splits; needed: two or three, for train, val "
                "and test, such as train[:90%];train[90%:]"
            )
        return dict(zip(SPLITS, given, strict=False))
    found = {name: next((one for one in _NAMES[name] if one in known), "") for name in SPLITS}
    missing = [name for name in ("train", "val") if not found[name]]
    if missing:
        raise UserError(
            f"--dataset={settings.dataset} has no split {missing[0]}, but {first(known)}; name them by --tfds_splits, "
            "such as train[:90%];train[90%:]"
        )
    return {name: one for name, one in found.items() if one}


def _check_split(builder: tfds.core.DatasetBuilder, split: str) -> None:
    """Raises UserError for an expression that is not one of the data set's splits."""
    try:
        builder.info.splits[split]
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{builder.info.full_name} has no split {split!r}; allowed: {', '.join(builder.info.splits)}, and parts of "
            "them such as train[:90%]"
        ) from error


def _check_columns(builder: tfds.core.DatasetBuilder, columns: Columns) -> None:
    """Raises UserError for a name that is not a feature of the data set."""
    names = _feature_names(builder.info.features)
    for flag, name in dataclasses.asdict(columns).items():
        if name and name not in names:
            raise UserError(
                f"--tfds_{flag}={name} is not a feature of {builder.info.full_name}; allowed: {', '.join(names)}"
            )


def _feature_names(features: Any, above: str = "") -> list[str]:
    """The names of all features, those of nested ones with their parents' before a /."""
    inside = getattr(features, "feature", features)  # of a sequence
    if not isinstance(inside, tfds.features.FeaturesDict):
        return [above]
    return [full for name in inside for full in _feature_names(inside[name], f"{above}/{name}" if above else name)]


def _paper_splits(builder: tfds.core.DatasetBuilder) -> dict[str, str]:
    """All of train and the official validation images but the last HELD_OUT of TFDS's restval, which validate."""
    rest = builder.info.splits["restval"].num_examples
    return {"train": f"train+val+test+restval[:{rest - HELD_OUT}]", "val": f"restval[{rest - HELD_OUT}:]"}
