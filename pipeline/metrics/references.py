"""The references of images, prepared once for all compiled metrics."""

import functools

import numpy as np
import tensorflow as tf

from spidercap.models.special_tokens import PAD
from spidercap.pipeline.metrics.ngrams import BITS, KeyTable, limbs_of


class References:
    """Reference captions of I images, at most R each, at most L words long."""

    def __init__(self, ids: np.ndarray, counts: np.ndarray | None = None):
        """Takes int ids `[I, R, L]`, padded; an image may have fewer than R references, followed by rows of padding.

        Args:
          counts: int `[I]`, the number of references of each image, if some may be empty. By default a row without
            words is not a reference.

        Raises:
          ValueError: something else than whole numbers of that shape, none negative.
        """
        ids = np.asarray(ids)
        if ids.ndim != 3 or ids.dtype.kind not in "iu" or ids.min(initial=0) < 0:
            raise ValueError(f"references are {ids.dtype} {list(ids.shape)}; needed: ids from 0, int [I, R, L]")
        self.ids = ids
        self._counts = counts

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
        return ReferencePositions(self.ids)

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

    def __init__(self, references: np.ndarray):
        """Takes int references `[I, R, L]`, padded."""
        self._base = int(references.max(initial=0)) + 1
        image, reference, position = np.nonzero(references != PAD)
        keys, row = np.unique(image * self._base + references[image, reference, position], return_inverse=True)
        self.limbs = limbs_of(references.shape[2])
        bits = np.zeros([self.limbs, len(keys) + 1, references.shape[1]], np.int64)  # the last row is empty
        np.add.at(bits, (position // BITS, row, reference), np.left_shift(np.int64(1), position % BITS))
        self._table = KeyTable(keys)
        rows = np.full(self._table.size + 1, len(keys), np.int64)
        rows[self._table.places] = np.arange(len(keys))
        self._rows = tf.constant(rows)
        self._bits = [tf.constant(limb) for limb in bits]

    def __call__(self, words: tf.Tensor, image_index: tf.Tensor) -> list[tf.Tensor]:
        """Returns limbs `[T, N, R]` with the positions of words int64 `[T, N]` in the references of images `[N]`."""
        known = tf.where(words < self._base, words, PAD)  # no reference holds PAD
        row = tf.gather(self._rows, self._table.find(image_index * self._base + known))
        return [tf.gather(limb, row) for limb in self._bits]


def prepared(references: References | np.ndarray) -> References:
    """Returns ids `[I, R, L]` as References; References unchanged."""
    return references if isinstance(references, References) else References(references)
