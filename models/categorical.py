"""Words drawn from logits.

Shapes: n rows, V words, S draws a row.
"""

import tensorflow as tf

from spidercap.models.special_tokens import END

WIDTH = 128  # words of a group


def uniforms(rows: tf.Tensor, draws: int, seed: tf.Tensor) -> tf.Tensor:
    """Returns what S = `draws` words of each row are drawn by, `[n, S, 2]`; `seed` is `[2]`."""
    return tf.random.stateless_uniform([rows, draws, 2], seed)


def draw(logits: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
    """Returns words int32 `[n, S]` from softmax(logits `[n, V]`), by `uniform` `[n, S, 2]` in [0, 1).

    A group of words by the first number, a word of it by the second: exact, and after the softmax only one of V / 128
    is searched. A word without probability is never drawn. Logits that are no numbers give the end token: a word, so
    that the loss sees that they are none, and its step is skipped.
    """
    words = logits.shape[1]
    probabilities = tf.nn.softmax(logits)
    spare = -words % WIDTH
    if spare:
        probabilities = tf.pad(probabilities, [[0, 0], [0, spare]])
    groups = tf.reshape(probabilities, [-1, (words + spare) // WIDTH, WIDTH])
    shares = tf.reduce_sum(groups, axis=2)
    group = _invert(shares[:, None], uniform[:, :, 0])
    word = group * WIDTH + _invert(tf.gather(groups, group, batch_dims=1), uniform[:, :, 1])
    return tf.where(tf.math.is_nan(tf.reduce_sum(shares, axis=1, keepdims=True)), END, word)


def likeliest(logits: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
    """Returns the likeliest word of each row, S times, `[n, S]`."""
    return tf.repeat(best_word(logits)[0][:, None], uniform.shape[1], axis=1)


def best_word(logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the likeliest word of each row `[n]` and its probability `[n]`; the end where logits are no numbers."""
    words = tf.argmax(logits, axis=1, output_type=tf.int32)
    probabilities = tf.nn.softmax(logits)
    # Not the largest one alone: it may be that of padding, a number where no word's is.
    total = tf.reduce_sum(probabilities, axis=1)
    words = tf.where(tf.math.is_nan(total), END, words)
    return words, tf.gather(probabilities, words, batch_dims=1) / total


def _invert(shares: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
    """Returns the places `[n, S]` where the running sum of shares `[n, S or 1, k]` passes `uniform` of their total."""
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
