"""Features stored by the contents of their image, in shards that are read where they lie on the disk."""

import hashlib
import math
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from spidercap.pipeline import digests
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import written_aside

FILE = "features.npy"
KEY = 32  # hex digits by which an image is known
SHARD = 1024  # images; computing them takes minutes, which is what a kill may cost


class FeatureStore:
    """The features of one encoder, one view: a folder of shards.

    A shard is a folder with an .npy file of rows (key, features), which may lie in any order. Equal keys have equal
    features, so any data set finds those of its images, whichever data set they were computed for. Shards share no
    file, so several processes and machines may write to one store without locks.
    """

    def __init__(self, folder: pathlib.Path):
        """Opens the folder, which need not exist; damaged shards are named on stderr and left out."""
        self.folder = folder
        self._shards: list[np.ndarray] = []
        self._keys: list[np.ndarray] = []
        for path in sorted(folder.glob(f"*/{FILE}")):
            self.open(path)

    def missing(self, keys: Sequence[str]) -> list[int]:
        """Returns the rows of `keys` that are not stored, of equal keys the first."""
        asked = _short(keys)
        first = np.sort(np.unique(asked, return_index=True)[1])
        return first[~np.isin(asked[first], np.concatenate([_short([]), *self._keys]))].tolist()

    def add(self, keys: Sequence[str], features: np.ndarray) -> None:
        """Stores float32 `[n, F]` or `[n, P, F]` of n keys as one shard, or as `write_shard`."""
        self.open(write_shard(self.folder, keys, features))

    def open(self, path: pathlib.Path) -> bool:
        """Adds a shard that was written; returns whether it is whole, else it is named on stderr."""
        wrong = digests.fault(path)
        if wrong:
            print(f"warning: {path} {wrong}; its features are computed again", file=sys.stderr)
            return False
        rows = np.load(path, mmap_mode="r")
        self._keys.append(np.array(rows["key"]))
        self._shards.append(rows["features"])
        return True

    def places(self, keys: Sequence[str]) -> np.ndarray:
        """Returns int32 `[I, 2]`: shard and row of each key; raises KeyError for one that is not stored."""
        stored = np.concatenate([_short([]), *self._keys])
        sizes = [len(of_shard) for of_shard in self._keys]
        shard = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        row = np.concatenate([np.zeros(0, np.int32), *(np.arange(size, dtype=np.int32) for size in sizes)])
        order, asked = np.argsort(stored, kind="stable"), _short(keys)
        at = np.searchsorted(stored, asked, sorter=order)
        found = order[np.minimum(at, len(order) - 1)] if len(order) else np.zeros(len(asked), np.int64)
        if len(asked) and (not len(order) or (stored[found] != asked).any()):
            raise KeyError("features that are not stored")
        return np.stack([shard[found], row[found]], axis=1) if len(asked) else np.zeros((0, 2), np.int32)

    @property
    def shards(self) -> list[np.ndarray]:
        """The features of each shard, float32 `[n, F]`, float16 `[n, P, F]` or `[n, h, w, C]`, mapped into memory."""
        return self._shards


def write_shard(folder: pathlib.Path, keys: Sequence[str], features: np.ndarray) -> pathlib.Path:
    """Writes float32 `[n, F]`, or `[n, P, F]` as float16, of n keys as a shard of the store in `folder`.

    Maps `[n, h, w, C]` are float16, too, and pixels uint8 `[n, S, S, 3]` as they are.

    Returns:
      Its file.

    Raises:
      UserError: it cannot be written, or numbers of parts or maps are too large for float16.
    """
    rows = np.empty(len(keys), [("key", f"S{KEY}"), ("features", _dtype(features), features.shape[1:])])
    with np.errstate(over="ignore"):
        rows["key"], rows["features"] = _short(keys), features
    if not np.isfinite(rows["features"]).all():
        what, remedy = "parts", "scale them down to at most 65,504"
        if features.ndim == 4:
            what, remedy = "maps", "name another layer by --finetune_from"
        raise UserError(
            f"features of {what} are stored as float16, and {np.abs(features).max():,.0f} is too large; {remedy}"
        )
    path = shard_path(folder, keys)
    with written_aside(path, rows.nbytes) as aside:
        np.save(aside, rows)
    digests.record(path.parent, [path.name])
    return path


def as_stored(features: np.ndarray) -> np.ndarray:
    """Returns float32 `[n, F]` or `[n, P, F]` as they are read once they were stored: parts are rounded to float16."""
    with np.errstate(over="ignore"):
        return features.astype(_dtype(features)).astype(np.float32)


def shard_path(folder: pathlib.Path, keys: Sequence[str]) -> pathlib.Path:
    """Returns the file of the shard of these keys in the store in `folder`."""
    return folder / hashlib.sha256(_short(keys).tobytes()).hexdigest()[:16] / FILE


class Features:
    """Features of I images in N views each, read from the disk when they are asked for."""

    def __init__(self, shards: Sequence[np.ndarray], places: np.ndarray):
        """Takes arrays, and int `[I, N, 2]`: array and row of each view of each image.

        The arrays are `[n, F]`, `[n, P, F]`, or `[n, h, w, C]`, which are all of one size. Those with a smaller P are
        read as if rows of zeros followed.
        """
        self._shards, self._places = list(shards), places
        shapes = [shard.shape[1:] for shard in self._shards]
        self.shape = (*places.shape[:2], *(max(sizes) for sizes in zip(*shapes, strict=True))) if shapes else (0, 0, 0)

    @classmethod
    def of(cls, features: "np.ndarray | Features") -> "Features":
        """Returns an array `[I, N, F]` or `[I, N, P, F]` as Features; Features unchanged."""
        if isinstance(features, Features):
            return features
        images, views, *size = features.shape
        rows = np.arange(images * views, dtype=np.int32).reshape(images, views)
        return cls([features.reshape(-1, *size)], np.stack([np.zeros_like(rows), rows], axis=-1))

    def __len__(self) -> int:
        return self.shape[0]

    def gather(self, images: np.ndarray, views: np.ndarray | int = 0) -> np.ndarray:
        """Returns float32 `[n, F]`, `[n, P, F]` or `[n, h, w, C]` of images `[n]`, of one view each."""
        shard, row = np.moveaxis(self._places[images, views], -1, 0)
        found = np.zeros((len(shard), *self.shape[2:]), np.float32)
        for number in np.unique(shard):
            here = np.flatnonzero(shard == number)
            values = self._shards[number][row[here]]
            found[(here, slice(values.shape[1])) if values.ndim == 3 else here] = values
        return found

    def view(self, number: int = 0, images: int | None = None) -> "View":
        """Returns one view of the first `images` images, by default of all."""
        return View(self, number, min(images or len(self), len(self)))


class View:
    """One view of the features of some images: like an array `[I, F]`, or with more axes, that can be sliced."""

    def __init__(self, features: Features, number: int, images: int):
        self._features, self._number = features, number
        self.shape = (images, *features.shape[2:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self._features.gather(np.arange(self.shape[0])[rows], self._number)


def stored_bytes(shape: Sequence[int], dtype: str) -> int:
    """Returns the bytes that the features of an image take on the disk, of its shape (F), (P, F) or (h, w, C)."""
    return KEY + np.dtype(_stored_as(dtype, len(shape))).itemsize * math.prod(shape)


def _dtype(features: np.ndarray) -> str:
    return _stored_as(features.dtype.name, features.ndim - 1)


def _stored_as(dtype: str, dimensions: int) -> str:
    if dtype == "uint8":
        return "|u1"
    return "<f4" if dimensions == 1 else "<f2"  # parts take fifty times the room


def _short(keys: Sequence[str]) -> np.ndarray:
    return np.array([key[:KEY] for key in keys], f"S{KEY}")
