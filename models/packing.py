"""Captions of different lengths as one list of words without padding.

Packed words stand time by time, and within a step the longest captions come first: then the words of a step are one
slice, and the captions that have a word at a step are the first ones of those that had one before.

    words    7 4 2 0     packed (row, step)   (1,0) (0,0) (2,0)  (1,1) (0,1) (2,1)  (1,2) (0,2)  (1,3)
             5 6 4 2     counts               3 3 2 1
             8 2 0 0     order                1 0 2

Shapes: N captions, T steps, n packed words.
"""

from typing import NamedTuple

import tensorflow as tf

from spidercap.models.special_tokens import PAD


class Packing(NamedTuple):
    """Where packed words come from."""

    order: tf.Tensor  # int32 [N]: captions, longest first
    counts: tf.Tensor  # int32 [T]: captions that have a word at the step
    index: tf.Tensor  # int32 [n, 2]: (caption, step) of each packed word

    def of(self, values: tf.Tensor) -> tf.Tensor:
        """Returns the packed ones `[n, ...]` of `[N, T, ...]`."""
        flat = tf.reshape(values, tf.concat([[-1], tf.shape(values)[2:]], axis=0))
        return tf.gather(flat, self.index[:, 0] * values.shape[1] + self.index[:, 1])


def pack(words: tf.Tensor) -> Packing:
    """Returns the packing of captions `[N, T]`, whose words end where padding begins."""
    said = tf.cast(words != PAD, tf.int32)
    order = tf.argsort(tf.reduce_sum(said, axis=1), direction="DESCENDING", stable=True)
    counts = tf.reduce_sum(said, axis=0)
    place = tf.cast(tf.where(tf.sequence_mask(counts, tf.shape(words)[0])), tf.int32)  # (step, place in order)
    return Packing(order, counts, tf.stack([tf.gather(order, place[:, 1]), place[:, 0]], axis=1))
