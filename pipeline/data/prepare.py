"""Prepares a data set once; later runs read it from the cache folder."""

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import pkgutil
import shutil
import sys
from collections.abc import Callable, Iterator

import tensorflow as tf
import tensorflow_datasets as tfds

from spidercap.pipeline import digests
from spidercap.pipeline.data.records import Source, id_of
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import disk_errors, open_lock, sync_tree
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.settings.datasets import DATASETS
from spidercap.pipeline.text.coco_json import ImageId


@dataclasses.dataclass(frozen=True)
class Data:
    """A prepared data set and a name that changes with its contents."""

    builder: tfds.core.DatasetBuilder
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class Captions:
    """Ids, file names and captions of a split, in the order of its records."""

    image_ids: tuple[ImageId, ...]  # [I]
    file_names: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]  # as written, one or more per image


def prepare_data(config: Config, accept: Callable[[str], None] = lambda fingerprint: None) -> Data:
    """Returns the data set; prepares it if the cache does not hold it.

    Args:
      config: the settings.
      accept: called with the fingerprint before anything is prepared; raises to reject it.

    Raises:
      UserError: captions or images cannot be used.
    """
    source: Source = pkgutil.resolve_name(DATASETS[config.data.dataset].source)(config.data)
    accept(source.fingerprint)
    return _made(source.build(config.cache_path() / "data" / source.fingerprint), source.fingerprint)


def read_captions(data: Data, split: str) -> Captions:
    """Returns ids, file names and captions of a split; decodes no image."""
    # Without the images, or a whole split of them would be in memory.
    texts = _records(data, split).map(lambda e: {name: value for name, value in e.items() if name != "image"})
    examples = list(tfds.as_numpy(texts))
    return Captions(
        tuple(id_of(e["image_id"]) for e in examples),
        tuple(e["file_name"].decode() for e in examples),
        tuple(tuple(c.decode() for c in e["captions"]) for e in examples),
    )


def image_records(data: Data, split: str) -> tf.data.Dataset:
    """Returns the encoded images (scalar strings) of a split, in the order of `read_captions`."""
    return _records(data, split).map(lambda e: e["image"])


def read_images(data: Data, split: str, image_ids: set[ImageId]) -> Iterator[tuple[ImageId, bytes]]:
    """Yields (image id, encoded image) for those images of a split."""
    for example in tfds.as_numpy(_records(data, split)):
        image_id = id_of(example["image_id"])
        if image_id in image_ids:
            yield image_id, example["image"]


def _records(data: Data, split: str) -> tf.data.Dataset:
    # One file at a time, so that the order of the records is always the same.
    read = tfds.ReadConfig(interleave_cycle_length=1)
    decoders = {"image": tfds.decode.SkipDecoding()}
    return data.builder.as_dataset(split=split, decoders=decoders, read_config=read)


def _made(builder: tfds.core.DatasetBuilder, fingerprint: str) -> Data:
    root = pathlib.Path(builder.data_dir)
    if _fault(root):
        with _locked(root.parent):  # two runs may share a cache
            wrong = _fault(root)  # the other run may have prepared it
            if wrong:
                _write(builder, root, wrong)
    return Data(tfds.builder_from_directory(builder.data_dir), fingerprint)


def _fault(root: pathlib.Path) -> str:
    """What is wrong with a prepared data set; '' if it is whole."""
    try:
        if not digests.recorded(root):
            return "is not whole"
        return ", ".join(f"{name} {wrong}" for name, wrong in digests.faults(root).items())
    except UserError as error:
        return str(error)


def _write(builder: tfds.core.DatasetBuilder, root: pathlib.Path, wrong: str) -> None:
    if root.exists():
        print(f"warning: {root}: {wrong}; the data set is prepared again", file=sys.stderr)
        shutil.rmtree(root)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    with disk_errors(root):
        builder.download_and_prepare()
        sync_tree(root)
    digests.record(root, [path.name for path in root.iterdir()])


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = open_lock(folder / ".lock")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
