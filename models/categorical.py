"""Categorical distributions over tokens: sampling from logits, and their likeliest token.

Shapes: n rows, V tokens of the vocabulary, S samples per row.
"""

import tensorflow as tf

from spidercap.models import row_random
from spidercap.models.row_random import Seed
from spidercap.models.special_tokens import END

WIDTH = 128  # tokens of a group


def uniforms(rows: tf.Tensor | int, draws: int, seed: Seed) -> tf.Tensor:
    """Returns the uniform numbers `[n, S, 2]` that S = `draws` tokens per row are drawn by."""
    return row_random.uniforms(seed, rows, draws, 2)


def draw(logits: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
    """Returns tokens int32 `[n, S]` sampled from softmax(logits `[n, V]`), by `uniform` `[n, S, 2]` in [0, 1).

    The first number chooses a group of tokens, the second a token of the group. This is exact, and after the softmax
    only one group of V / 128 is searched. A token of probability 0 is never drawn. Non-finite logits give the end
    token: it counts in the loss, which is then non-finite too, and the update is skipped.
    """
    vocabulary = logits.shape[1]
    probabilities = tf.nn.softmax(logits)
    spare = -vocabulary % WIDTH
    if spare:
        probabilities = tf.pad(probabilities, [[0, 0], [0, spare]])
    groups = tf.reshape(probabilities, [-1, (vocabulary + spare) // WIDTH, WIDTH])
    shares = tf.reduce_sum(groups, axis=2)
    group = _invert(shares[:, None], uniform[:, :, 0])
    token = group * WIDTH + _invert(tf.gather(groups, group, batch_dims=1), uniform[:, :, 1])
    return tf.where(tf.math.is_nan(tf.reduce_sum(shares, axis=1, keepdims=True)), END, token)


def likeliest(logits: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
    """Returns the likeliest token of each row, S times, `[n, S]`."""
    return tf.repeat(best_token(logits)[0][:, None], uniform.shape[1], axis=1)


def best_token(logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the likeliest token of each row `[n]` and its probability `[n]`; the end where logits are non-finite."""
    tokens = tf.argmax(logits, axis=1, output_type=tf.int32)
    probabilities = tf.nn.softmax(logits)
    # The sum, not the largest one alone: that may be of the padding beyond V, finite where no token's is.
    total = tf.reduce_sum(probabilities, axis=1)
    tokens = tf.where(tf.math.is_nan(total), END, tokens)
    return tokens, tf.gather(probabilities, tokens, batch_dims=1) / total


def _invert(shares: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
    """Returns the indices `[n, S]` where the running sum of shares `[n, S or 1, k]` passes `uniform` of their total."""
    sums = tf.cumsum(shares, axis=2)
    place = tf.math.count_nonzero(sums <= uniform[:, :, None] * sums[:, :, -1:], axis=2, dtype=tf.int32)
    last = shares.shape[2] - 1
    every = tf.broadcast_to(shares, tf.concat([tf.shape(place), [last + 1]], axis=0))
    # Rounding may leave the last sum behind, or raise it where nothing is added: then the largest share is taken.
    missed = ~(tf.gather(every, tf.minimum(place, last), batch_dims=2) > 0) | (place > last)
    return tf.cond(
        tf.reduce_any(missed),
        lambda: tf.where(missed, tf.argmax(shares, axis=2, output_type=tf.int32), place),
        lambda: place,
    )
