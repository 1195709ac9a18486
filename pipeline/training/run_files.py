"""Where a run keeps what, and how far it has come, told by its files alone. Without TensorFlow."""

import json
import pathlib

from spidercap.pipeline import digests
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.config import Config, stage_labels
from spidercap.pipeline.training.checkpoint_files import checkpoints

SIZES = "splits.json"
NO_COPY = "restore it from a copy, or name a new --workdir"


def checkpoint_folder(workdir: pathlib.Path) -> pathlib.Path:
    """Returns the folder of the run's checkpoints."""
    return workdir / "checkpoints"


def kept_folder(workdir: pathlib.Path, label: str) -> pathlib.Path:
    """Returns the folder of the checkpoint of the weights that a stage kept."""
    return workdir / "kept" / label


def kept_sizes(config: Config) -> dict[str, dict[str, int]]:
    """Returns how many images and captions each split holds.

    It is empty if their file is damaged, or an earlier version prepared the run.
    """
    try:
        return json.loads((config.workdir_path() / SIZES).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def is_prepared(config: Config) -> bool:
    """Returns whether the data are prepared. Until then the workdir's settings and data may change."""
    return "encoder.txt" in digests.recorded(config.workdir_path())


def has_trained(workdir: pathlib.Path) -> bool:
    """Returns whether training has begun in this workdir."""
    return any((workdir / name).exists() for name in ("checkpoints", "kept"))


def check_not_lost(config: Config) -> None:
    """Raises UserError for a run without checkpoints whose stages have kept weights."""
    workdir = config.workdir_path()
    if any(checkpoints(kept_folder(workdir, label)) for label in stage_labels(config)):
        raise UserError(f"{workdir} has kept weights, but {checkpoint_folder(workdir)} is lost; {NO_COPY}")
