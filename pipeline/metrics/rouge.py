"""ROUGE-L on token ids, compiled.

Lin, "ROUGE: A Package for Automatic Evaluation of Summaries" (2004), as in the COCO caption evaluation: beta 1.2, the
best precision and the best recall over the references. The longest common subsequence of a caption and a reference is
computed for all positions of the reference at once, as in Hyyrö, "Bit-parallel LCS-length computation revisited"
(2004): one word of the caption takes four integer operations.
"""

import numpy as np
import tensorflow as tf

from spidercap.models.special_tokens import PAD
from spidercap.pipeline.metrics.compiled import family_of_one
from spidercap.pipeline.metrics.ngrams import (
    BITS,
    FULL,
    counted,
    in_chunks,
    repeat,
)
from spidercap.pipeline.metrics.references import References, prepared

BETA = 1.2


class Rouge:
    """ROUGE-L of captions against prepared references."""

    def __init__(self, references: References | np.ndarray, dtype: tf.DType = tf.float32):
        """Takes references, or their ids int `[I, R, L]`."""
        references = prepared(references)
        self._dtype = dtype
        self._longest = references.longest
        self._positions = references.positions
        self._empty = tf.constant(references.present & (references.lengths == 0))
        self._lengths = tf.constant(np.maximum(references.lengths, 1), dtype)

    def __call__(self, candidates: tf.Tensor, image_index: tf.Tensor) -> tf.Tensor:
        """Returns dtype `[N]` for captions int `[N, T]`, padded, of images `[N]` (rows of the references).

        An empty caption counts as one empty word, as in the COCO evaluation, so that it matches an empty reference.
        """
        width = self._positions.limbs * self._lengths.shape[1]
        return in_chunks(self._score, width, candidates, image_index, self._dtype)

    def _score(self, words: tf.Tensor, image_index: tf.Tensor) -> tf.Tensor:
        length = tf.reduce_sum(tf.cast(words != PAD, self._dtype), 0)[:, None]
        common = _common_subsequence(self._positions(words, image_index), self._longest)
        both_empty = tf.gather(self._empty, image_index) & (length == 0)
        common = tf.where(both_empty, tf.ones([], self._dtype), tf.cast(common, self._dtype))
        precision = tf.reduce_max(common / tf.maximum(length, 1), 1)
        recall = tf.reduce_max(common / tf.gather(self._lengths, image_index), 1)
        return tf.math.divide_no_nan((1 + BETA**2) * precision * recall, recall + BETA**2 * precision)


def _common_subsequence(limbs: list[tf.Tensor], longest: int) -> tf.Tensor:
    """Returns the lengths `[N, R]` for limbs `[T, N, R]`: the number of bits that become zero, word by word."""
    bitwise, full = tf.bitwise, tf.constant(FULL, tf.int64)

    def read(t, rows):
        after, carry = [], None
        for row, limb in zip(rows, limbs, strict=True):
            hits = bitwise.bitwise_and(row, limb[t])
            total = row + hits if carry is None else row + hits + carry
            row = bitwise.bitwise_or(total, row - hits)
            if len(limbs) > 1:  # a single limb may overflow, as no bits above it are read
                carry = bitwise.right_shift(total, tf.constant(BITS, tf.int64))
                row = bitwise.bitwise_and(row, full)
            after.append(row)
        return after

    ones = tf.fill(tf.shape(limbs[0])[1:], full)
    rows = repeat(limbs[0].shape[0], read, [ones] * len(limbs))
    return counted([bitwise.bitwise_and(bitwise.invert(row), full) for row in rows], longest)


ROUGE = family_of_one("rouge", lambda inputs: Rouge(inputs.references, inputs.dtype))
