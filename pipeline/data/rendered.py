"""Data sets that are built here, once; later runs read them from the cache folder."""

import contextlib
import pathlib
import shutil
import sys
from collections.abc import Callable

import tensorflow_datasets as tfds

from spidercap.pipeline import digests
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import disk_errors, held, open_lock, sync_tree


def rendered(
    folder: pathlib.Path, build: Callable[[pathlib.Path], tfds.core.DatasetBuilder]
) -> tfds.core.DatasetBuilder:
    """Returns the data set in `folder` of the cache; builds it there if it is not whole.

    Raises:
      UserError: it cannot be written.
    """
    if _fault(folder):
        with _held(folder):  # two runs may share a cache
            wrong = _fault(folder)  # the other run may have prepared it
            if wrong:
                _write(build, folder, wrong)
    return tfds.builder_from_directory(_root(folder))


def _root(folder: pathlib.Path) -> pathlib.Path | None:
    """The folder in `folder` that TFDS wrote the data set to; None before it is whole."""
    return next((path.parent for path in sorted(folder.glob(f"**/{digests.NAME}"))), None)


def _fault(folder: pathlib.Path) -> str:
    """What is wrong with a prepared data set; '' if it is whole."""
    root = _root(folder)
    if root is None:
        return "is not whole"
    try:
        known = digests.recorded(root)
        return digests.listed(digests.faults(root, known)) if known else f"its {digests.NAME} is empty"
    except UserError as error:
        return str(error)


def _write(build: Callable[[pathlib.Path], tfds.core.DatasetBuilder], folder: pathlib.Path, wrong: str) -> None:
    """Builds the data set; what an earlier attempt left is deleted."""
    if folder.exists():
        print(f"warning: {folder}: {wrong}; the data set is prepared again", file=sys.stderr)
        shutil.rmtree(folder)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    builder = build(folder)
    root = pathlib.Path(builder.data_dir)
    with disk_errors(root):
        builder.download_and_prepare()
        sync_tree(folder)
    digests.record(root, [path.name for path in root.iterdir()])


def _held(folder: pathlib.Path) -> contextlib.AbstractContextManager[None]:
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        return held(open_lock(folder.with_name(f".{folder.name}.lock")))
