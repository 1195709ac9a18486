"""BLEU on token ids, compiled: sentence scores of the COCO caption evaluation, and statistics to sum.

Papineni, Roukos, Ward, Zhu, "BLEU: a Method for Automatic Evaluation of Machine Translation" (ACL 2002), with the
closest reference length and the tiny constants of the COCO evaluation, which keep a score without matches defined.
"""

import functools

import numpy as np
import tensorflow as tf

from spidercap.models.special_tokens import PAD
from spidercap.pipeline.metrics.compiled import Family
from spidercap.pipeline.metrics.ngrams import (
    ORDERS,
    counted,
    ends,
    in_chunks,
    limbs_of,
    repeats,
)
from spidercap.pipeline.metrics.references import References, prepared
from spidercap.pipeline.metrics.size_classes import FEW

TINY, SMALL = 1e-15, 1e-9


class Bleu:
    """BLEU-1 to BLEU-4 of captions against prepared references."""

    def __init__(self, references: References | np.ndarray, dtype: tf.DType = tf.float32):
        """Takes references, or their ids int `[I, R, L]`."""
        references = prepared(references)
        self._dtype = dtype
        self._longest = references.longest
        self._positions = references.positions
        self._lengths = tf.constant(references.lengths, tf.int64)  # [I, R]
        self._present = tf.constant(references.present)

    def __call__(self, candidates: tf.Tensor, image_index: tf.Tensor) -> tf.Tensor:
        """Returns dtype `[N, 4]`, orders 1 to 4, for captions int `[N, T]`, padded, of images `[N]`."""
        return sentence_bleu(self.statistics(candidates, image_index))

    def statistics(self, candidates: tf.Tensor, image_index: tf.Tensor) -> tf.Tensor:
        """Returns dtype `[N, 10]`: matches of each order, n-grams of each order, length, closest reference length.

        The score of a corpus is that of their sum over captions.
        """
        width = self._positions.limbs * self._lengths.shape[1] + limbs_of(candidates.shape[1])
        return in_chunks(self._statistics, width, candidates, image_index, self._dtype)

    def _statistics(self, words: tf.Tensor, image_index: tf.Tensor) -> tf.Tensor:
        length = tf.reduce_sum(tf.cast(words != PAD, tf.int64), 0)
        # References before candidates, so that the maximum over references takes a few large operations.
        limbs = [tf.transpose(limb, [0, 2, 1]) for limb in self._positions(words, image_index)]
        most = max(self._longest, words.shape[0])
        matches = []
        for places, earlier in zip(ends(limbs), repeats(words), strict=True):
            count = counted(places, most)
            best = _most(count)  # [T', N]
            # An n-gram matches at most as often as it occurs in any one reference.
            matches.append(tf.reduce_sum(tf.cast(counted(earlier, most) < best, self._dtype), 0))
        guesses = [tf.maximum(length - order + 1, 0) for order in ORDERS]
        numbers = [*guesses, length, self._closest(length, image_index)]
        return tf.stack(matches + [tf.cast(n, self._dtype) for n in numbers], 1)

    def _closest(self, length: tf.Tensor, image_index: tf.Tensor) -> tf.Tensor:
        """The reference length `[N]` nearest to the caption's, the shorter of two; 0 without references."""
        base = self._longest + 1
        lengths = tf.gather(self._lengths, image_index)
        rank = tf.abs(length[:, None] - lengths) * base + lengths
        rank = tf.where(tf.gather(self._present, image_index), rank, base * 2**32)
        return -tf.reduce_max(-rank, 1) % base


def _most(count: tf.Tensor) -> tf.Tensor:
    """Returns the maximum over references `[T, N]` of `[T, R, N]`; many are halved first, to keep the graph small."""
    while count.shape[1] > FEW:
        half = count.shape[1] // 2
        count = tf.concat([tf.maximum(count[:, :half], count[:, half : 2 * half]), count[:, 2 * half :]], 1)
    return functools.reduce(tf.maximum, [count[:, r] for r in range(count.shape[1])])


def corpus_bleu(statistics: tf.Tensor) -> tf.Tensor:
    """Returns float64 `[4]`, BLEU-1 to BLEU-4 of the captions whose `Bleu.statistics` `[N, 10]` are given."""
    return sentence_bleu(tf.reduce_sum(tf.cast(statistics, tf.float64), 0))


def sentence_bleu(statistics: tf.Tensor) -> tf.Tensor:
    """Returns `[..., 4]`, BLEU-1 to BLEU-4 of each caption, for `Bleu.statistics` `[..., 10]`."""
    matches, guesses, length, closest = tf.split(statistics, [4, 4, 1, 1], -1)
    precision = (matches + TINY) / (guesses + SMALL)
    product, scores = 1.0, []
    for order, one in zip(ORDERS, tf.split(precision, 4, -1), strict=True):
        product = product * one
        scores.append(product ** (1 / order))
    ratio = (length + TINY) / (closest + SMALL)
    penalty = tf.where(ratio < 1, tf.exp(1 - 1 / ratio), tf.ones_like(ratio))
    return tf.concat(scores, -1) * penalty


BLEU = Family(
    ("bleu1", "bleu2", "bleu3", "bleu4"),
    10,
    lambda inputs: Bleu(inputs.references, inputs.dtype).statistics,
    sentence_bleu,
    corpus_bleu,
)
