"""The references of images, prepared once for all compiled metrics."""

import functools
import pathlib

import numpy as np
import tensorflow as tf

from spidercap.models.special_tokens import PAD
from spidercap.pipeline.cached_arrays import cached_arrays, entry, key_of
from spidercap.pipeline.metrics import key_table
from spidercap.pipeline.metrics.key_table import KeyTable, settled
from spidercap.pipeline.metrics.mapped import as_tensor
from spidercap.pipeline.metrics.ngrams import BITS, limbs_of

PART = 10_000  # images whose words are sorted at once, which bounds temporary arrays
TABLES = ("base", "bits", "rows", "slots", "factors")  # of ReferencePositions


class References:
    """Reference captions of I images, at most R each, at most L words long."""

    def __init__(self, ids: np.ndarray, counts: np.ndarray | None = None, cache: pathlib.Path | None = None):
        """Takes int ids `[I, R, L]`, padded; an image may have fewer than R references, followed by rows of padding.

        Args:
          counts: int `[I]`, the number of references of each image, if some may be empty. By default a row without
            words is not a reference.
          cache: folder that keeps what takes long to make.

        Raises:
          ValueError: something else than whole numbers of that shape, none negative.
        """
        ids = np.asarray(ids)
        if ids.ndim != 3 or ids.dtype.kind not in "iu" or ids.min(initial=0) < 0:
            raise ValueError(f"references are {ids.dtype} {list(ids.shape)}; needed: ids from 0, int [I, R, L]")
        self.ids = ids
        self._counts, self._cache = counts, cache

    @property
    def longest(self) -> int:
        """L."""
        return self.ids.shape[2]

    @property
    def most(self) -> int:
        """R."""
        return self.ids.shape[1]

    @functools.cached_property
    def positions(self) -> "ReferencePositions":
        """The positions of each word."""
        return ReferencePositions(self.ids, self._cache)

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """The number of words, int64 `[I, R]`."""
        return (self.ids != PAD).sum(-1)

    @functools.cached_property
    def present(self) -> np.ndarray:
        """Which rows are references, bool `[I, R]`."""
        if self._counts is None:
            return self.lengths > 0
        return np.arange(self.most) < np.asarray(self._counts)[:, None]


class ReferencePositions:
    """The positions of words in each image's references."""

    def __init__(self, references: np.ndarray, cache: pathlib.Path | None = None):
        """Takes int references `[I, R, L]`, padded; the folder `cache` keeps what is made of them."""
        folder = cache and entry(
            cache, "positions", key_of(*map(pathlib.Path, (__file__, key_table.__file__)), references)
        )
        tables = cached_arrays(folder, TABLES, lambda: _tables(references))
        self.limbs = len(tables["bits"])
        self._base = int(tables["base"])
        self._table = KeyTable(tables["slots"], tables["factors"])
        self._rows = as_tensor(tables["rows"])
        self._bits = [as_tensor(limb) for limb in tables["bits"]]

    def __call__(self, words: tf.Tensor, image_index: tf.Tensor) -> list[tf.Tensor]:
        """Returns limbs `[T, N, R]` with the positions of words int64 `[T, N]` in the references of images `[N]`."""
        known = tf.where(words < self._base, words, PAD)  # no reference holds PAD
        row = tf.gather(self._rows, self._table.find(image_index * self._base + known))
        return [tf.gather(limb, row) for limb in self._bits]


def _tables(references: np.ndarray) -> dict[str, np.ndarray]:
    """Returns TABLES: bits `[limbs, G + 1, R]` of the G words of all images, the last of none, and where they are."""
    base = int(references.max(initial=0)) + 1
    parts = [_positions(references, first, base) for first in range(0, len(references), PART)]
    keys = np.concatenate([np.zeros(0, np.int64), *(keys for keys, _ in parts)])
    bits = np.zeros([limbs_of(references.shape[2]), len(keys) + 1, references.shape[1]], np.int64)
    end = 0
    while parts:  # each is freed, or there would be two of all
        of_part = parts.pop(0)[1]
        begin, end = end, end + of_part.shape[1]
        bits[:, begin:end] = of_part
    slots, factors, places = settled(keys)
    rows = np.full(len(slots) + 1, len(keys), np.int64)
    rows[places] = np.arange(len(keys))
    return {"base": np.array(base), "bits": bits, "rows": rows, "slots": slots, "factors": factors}


def _positions(references: np.ndarray, first: int, base: int) -> tuple[np.ndarray, np.ndarray]:
    """The keys `[g]` of the words of PART images from `first` on, ascending, and their bits `[limbs, g, R]`."""
    part = references[first : first + PART]
    image, reference, position = np.nonzero(part != PAD)
    keys, row = np.unique((image + first) * base + part[image, reference, position], return_inverse=True)
    bits = np.zeros([limbs_of(part.shape[2]), len(keys), part.shape[1]], np.int64)
    np.add.at(bits, (position // BITS, row, reference), np.left_shift(np.int64(1), position % BITS))
    return keys, bits


def prepared(references: References | np.ndarray) -> References:
    """Returns ids `[I, R, L]` as References; References unchanged."""
    return references if isinstance(references, References) else References(references)
