"""Checkpoints on disk: numbered folders, each written aside, synced and renamed, with the digests of its files.

`ckpt-<number>` holds the weights, progress.json and digests.json. An older checkpoint is deleted only when the next one
is on disk. One that is damaged gives way to the one before it.
"""

import contextlib
import pathlib
import re
import shutil
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from spidercap.pipeline import digests
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import aside_of, disk_errors, sync, written_aside

if TYPE_CHECKING:  # it takes seconds, and where a run stands is read without it
    import keras
    import tensorflow as tf

PROGRESS = "progress.json"
_WEIGHTS = "weights"
_NAME = re.compile(r"ckpt-(\d+)")


def write_checkpoint(
    parent: pathlib.Path, weights: "tf.train.Checkpoint", keep: int, progress: str | None = None
) -> pathlib.Path:
    """Writes the next checkpoint in `parent`, then deletes all but the newest `keep`; returns its path.

    Args:
      parent: the folder.
      weights: what is saved.
      keep: how many checkpoints to keep.
      progress: text of its progress.json.

    Raises:
      UserError: it cannot be written.
    """
    older = checkpoints(parent)
    path = parent / f"ckpt-{number_of(older[-1]) + 1 if older else 1}"
    with written_aside(path, _size(parent)) as aside:
        aside.mkdir()
        weights.write(str(aside / _WEIGHTS))
        if progress is not None:
            (aside / PROGRESS).write_text(progress, encoding="utf-8")
        names = sorted(file.name for file in aside.iterdir())
        content = digests.to_json({name: digests.digest(aside / name) for name in names})
        (aside / digests.NAME).write_text(content, encoding="utf-8")
    for outdated in checkpoints(parent)[:-keep]:
        _delete(outdated)
    return path


def checkpoint_of(models: Mapping[str, "keras.Model"], **state: Any) -> "tf.train.Checkpoint":
    """Returns what a checkpoint of models, by name, and of other state saves and restores.

    Raises:
      TypeError: a weight would be left out. TensorFlow does not follow the lists of a Keras model: each layer and each
        weight must be an attribute.
    """
    import tensorflow as tf

    checkpoint = tf.train.Checkpoint(**models, **state)
    followed = {id(one) for one in tf.train.TrackableView(checkpoint).descendants()}
    lost = [weight.path for model in models.values() for weight in model.weights if id(weight) not in followed]
    if lost:
        raise TypeError(f"checkpoints would not hold {', '.join(lost)}; make the layers attributes of their model")
    return checkpoint


def read_checkpoint(path: pathlib.Path, weights: "tf.train.Checkpoint") -> Any:
    """Restores what the checkpoint holds; returns TensorFlow's status, to assert what must be matched."""
    return weights.read(str(path / _WEIGHTS))


def checkpoints(parent: pathlib.Path) -> list[pathlib.Path]:
    """Returns the checkpoints in `parent`, damaged ones too, oldest first."""
    found = parent.iterdir() if parent.is_dir() else ()
    return sorted((path for path in found if _NAME.fullmatch(path.name)), key=number_of)


def number_of(path: pathlib.Path) -> int:
    """Returns the number of a checkpoint."""
    return int(_NAME.fullmatch(path.name)[1])


def newest_checkpoint(parent: pathlib.Path, tell: bool = False) -> pathlib.Path | None:
    """Returns the newest sound checkpoint in `parent`; None if there is no checkpoint.

    Args:
      parent: the folder.
      tell: print a warning for each damaged checkpoint that is passed over.

    Raises:
      UserError: all checkpoints are damaged.
    """
    damaged = []
    for path in reversed(checkpoints(parent)):
        wrong = checkpoint_fault(path)
        if not wrong:
            if tell:
                for line in damaged:
                    print(f"warning: {line}; going on from {path}", file=sys.stderr)
            return path
        damaged.append(f"{path} is damaged: {wrong}")
    if damaged:
        raise UserError(
            f"{damaged[0]}, and no other checkpoint is whole; restore it from a copy, or name a new --workdir "
            "(--warm_start takes over the weights of finished stages)"
        )
    return None


def checkpoint_fault(path: pathlib.Path) -> str:
    """Returns what is wrong with a checkpoint; '' if all its files are those that were written."""
    try:
        known = digests.recorded(path)
    except UserError as error:
        return str(error)
    if not any(name.startswith(_WEIGHTS) for name in known):
        return f"its {digests.NAME} is lost"
    return digests.listed(digests.faults(path, known))


def _delete(path: pathlib.Path) -> None:
    """Deletes a checkpoint; renamed first, so that half of one never has a checkpoint's name."""
    aside = aside_of(path)
    with disk_errors(path):
        path.rename(aside)
        sync(path.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _size(parent: pathlib.Path) -> int:
    """The bytes that the next checkpoint will need: as many as the last one."""
    last = checkpoints(parent)[-1:]
    with contextlib.suppress(OSError):
        return sum(file.stat().st_size for path in last for file in path.iterdir())
    return 0
