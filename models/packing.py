"""Captions of different lengths as one list of tokens without padding.

Packed tokens are ordered by step, and within a step the longest captions come first. So the tokens of a step are one
slice, and the captions that have a token at a step are the first ones of those that had one at the step before.

    tokens   7 4 2 0     packed (row, step)   (1,0) (0,0) (2,0)  (1,1) (0,1) (2,1)  (1,2) (0,2)  (1,3)
             5 6 4 2     counts               3 3 2 1
             8 2 0 0     order                1 0 2

Shapes: N captions, T steps, n packed tokens.
"""

from typing import NamedTuple

import tensorflow as tf

from spidercap.models.special_tokens import PAD


class Packing(NamedTuple):
    """Which token of which caption each packed token is."""

    order: tf.Tensor  # int32 [N]: captions, longest first
    counts: tf.Tensor  # int32 [T]: captions that have a token at the step
    index: tf.Tensor  # int32 [n, 2]: (caption, step) of each packed token

    def of(self, values: tf.Tensor) -> tf.Tensor:
        """Returns the values `[n, ...]` of packed tokens, out of `[N, T, ...]`."""
        flat = tf.reshape(values, tf.concat([[-1], tf.shape(values)[2:]], axis=0))
        return tf.gather(flat, self.index[:, 0] * steps_of(values) + self.index[:, 1])

    def places(self, max_length: int) -> tf.Tensor:
        """Returns the index `[N, T]` of each token among packed tokens, 0 for padding."""
        shape = [tf.shape(self.order)[0], max_length]
        return tf.scatter_nd(self.index, tf.range(tf.shape(self.index)[0]), shape)


def steps_of(values: tf.Tensor) -> int | tf.Tensor:
    """Returns T of values `[N, T, ...]`: a number where the shape has it, else a tensor."""
    return tf.shape(values)[1] if values.shape[1] is None else values.shape[1]


def pack(tokens: tf.Tensor) -> Packing:
    """Returns the packing of captions `[N, T]`, whose tokens end where padding begins."""
    mask = tf.cast(tokens != PAD, tf.int32)
    order = tf.argsort(tf.reduce_sum(mask, axis=1), direction="DESCENDING", stable=True)
    counts = tf.reduce_sum(mask, axis=0)
    place = tf.cast(tf.where(tf.sequence_mask(counts, tf.shape(tokens)[0])), tf.int32)  # (step, place in order)
    return Packing(order, counts, tf.stack([tf.gather(order, place[:, 1]), place[:, 0]], axis=1))
