"""The records of a split, the same for every data set."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple, Protocol

import tensorflow as tf

from spidercap.pipeline.data.image_files import reason_of
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.text.coco_json import ImageId

SPLITS = ("train", "val", "test")
TITLES = {"train": "training", "val": "validation", "test": "test"}
NEEDED = ("train", "val")  # splits that a run cannot do without


class Images(Protocol):
    """Where the encoded images of a split are read from."""

    in_sequence: ClassVar[bool]  # whether those between two images are read with them

    def encoded(self, rows: Sequence[int]) -> tf.data.Dataset:
        """Returns the encoded images (scalar strings) of ascending rows of the split, in that order."""

    def of(self, rows: Sequence[int]) -> "Images":
        """Returns the images of ascending rows alone; small, as it is sent to other processes."""

    def where(self) -> str:
        """Returns where the images are, and what to do if they cannot be read, as the end of a message."""


@dataclasses.dataclass(frozen=True)
class Split:
    """The images of a split with their captions, in the order of its records."""

    image_ids: tuple[ImageId, ...]  # [I]
    file_names: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]  # as written, one or more per image
    # Hex digits that name the contents of each image: equal keys, equal features.
    keys: tuple[str, ...]
    images: Images | None  # None: there are features alone
    # What --skip_bad_images and --skip_bad_captions left out, with the reason as the last text.
    images_left_out: tuple[tuple[str, str], ...] = ()  # the name of the image
    captions_left_out: tuple[tuple[str, str, str], ...] = ()  # the name of the image, the caption
    rows_left_out: tuple[tuple[str, str], ...] = ()  # a place in a captions file, of whatever split it may be

    def __len__(self) -> int:
        return len(self.image_ids)


class Source(NamedTuple):
    """The splits of a data set that were asked for and exist."""

    fingerprints: Mapping[str, str]  # by split, each changes with the split's contents
    load: Callable[[], dict[str, Split]]


@contextlib.contextmanager
def reading(images: Images) -> Iterator[None]:
    """Raises TensorFlow's errors within the block, in which these images are read, as UserErrors."""
    try:
        yield
    except tf.errors.OpError as error:
        raise UserError(f"images cannot be read ({reason_of(error)}); {images.where()}") from error


def read_images(split: Split, rows: Sequence[int]) -> dict[int, bytes]:
    """Returns the encoded images of some rows of a split; none if it has features alone."""
    if split.images is None:
        return {}
    rows = sorted(set(rows))
    with reading(split.images):
        return dict(zip(rows, split.images.encoded(rows).as_numpy_iterator(), strict=True))


def digest_of(parts: Iterable[object]) -> str:
    """Returns 16 hex digits that change with any of the parts, which JSON can hold."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(json.dumps(part).encode() + b"\n")
    return digest.hexdigest()[:16]


def id_of(stored: bytes | int) -> ImageId:
    """Returns the id of a record of TensorFlow Datasets."""
    return stored.decode() if isinstance(stored, bytes) else int(stored)
