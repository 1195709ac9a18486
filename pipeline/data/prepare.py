"""Prepares a data set once; later runs read it from the cache folder."""

import contextlib
import dataclasses
import pathlib
import pkgutil
import shutil
import sys
from collections.abc import Callable, Iterator

import tensorflow as tf
import tensorflow_datasets as tfds

from spidercap.pipeline import digests
from spidercap.pipeline.data.image_files import reason_of
from spidercap.pipeline.data.records import Source, id_of
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import disk_errors, held, open_lock, sync_tree
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
    source: Source = pkgutil.resolve_name(DATASETS[config.data.dataset].source)(config.data, config.cache_path())
    accept(source.fingerprint)
    folder = config.cache_path() / "data" / source.fingerprint
    if _fault(folder):
        with _held(folder):  # two runs may share a cache
            wrong = _fault(folder)  # the other run may have prepared it
            if wrong:
                _write(source, folder, wrong)
    return Data(tfds.builder_from_directory(_root(folder)), source.fingerprint)


def read_captions(data: Data, split: str) -> Captions:
    """Returns ids, file names and captions of a split; decodes no image."""
    # Without the images, or a whole split of them would be in memory.
    texts = _records(data, split).map(lambda e: {name: value for name, value in e.items() if name != "image"})
    with reading(data):
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
    with reading(data):
        for example in tfds.as_numpy(_records(data, split)):
            image_id = id_of(example["image_id"])
            if image_id in image_ids:
                yield image_id, example["image"]


@contextlib.contextmanager
def reading(data: Data) -> Iterator[None]:
    """Raises TensorFlow's errors within the block, in which records are read, as UserErrors that name their folder."""
    try:
        yield
    except tf.errors.OpError as error:
        raise UserError(
            f"the images in {data.builder.data_dir} cannot be read ({reason_of(error)}); delete that folder, then run "
            "the same command again, which prepares them again"
        ) from error


def _records(data: Data, split: str) -> tf.data.Dataset:
    # One file at a time, so that the order of the records is always the same.
    read = tfds.ReadConfig(interleave_cycle_length=1)
    decoders = {"image": tfds.decode.SkipDecoding()}
    return data.builder.as_dataset(split=split, decoders=decoders, read_config=read)


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


def _write(source: Source, folder: pathlib.Path, wrong: str) -> None:
    """Prepares the data set; what an earlier attempt left is deleted."""
    if folder.exists():
        print(f"warning: {folder}: {wrong}; the data set is prepared again", file=sys.stderr)
        shutil.rmtree(folder)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    builder = source.build(folder)
    root = pathlib.Path(builder.data_dir)
    with disk_errors(root):
        builder.download_and_prepare()
        sync_tree(folder)
    digests.record(root, [path.name for path in root.iterdir()])


def _held(folder: pathlib.Path) -> contextlib.AbstractContextManager[None]:
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        return held(open_lock(folder.with_name(f".{folder.name}.lock")))
