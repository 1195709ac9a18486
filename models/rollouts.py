"""Monte-Carlo rollouts: other captions that begin like a path.

All rollouts of all prefixes of all paths advance as one batch, each from its own time.

Shapes: N paths, T steps, P prefixes, K rollouts of each, Q = P * K.
"""

from typing import NamedTuple

import tensorflow as tf

from spidercap.models.categorical import uniforms
from spidercap.models.decoding import Choice, Forks, Step, fold_in, next_words
from spidercap.models.special_tokens import END, PAD


class Rollouts(NamedTuple):
    """Other captions of the paths' images, each of which begins like a path."""

    words: tf.Tensor  # [Q, T]: prefix and continuation
    prefix: tf.Tensor  # [Q, 2]: (path, index of the prefix's last word)


def no_rollouts(max_length: int) -> Rollouts:
    """Returns none."""
    return Rollouts(tf.zeros([0, max_length], tf.int32), tf.zeros([0, 2], tf.int32))


def roll_out(
    step: Step, paths: tf.Tensor, forks: Forks, seed: tf.Tensor, choose: Choice, jit: bool = False
) -> Rollouts:
    """Returns the captions that go on from the forks of `paths` `[N, T]`, K of each prefix, by what `choose` says.

    A row that ended, or is full, is dropped before the next step, so no step is computed in vain.
    """
    max_length, count = paths.shape[1], forks.words.shape[1]
    kept = tf.range(max_length) <= forks.prefix[:, 1:]
    words = tf.where(kept, tf.gather(paths, forks.prefix[:, 0]), PAD)
    # They part at the forks' words only.
    begun = (words, forks.prefix, forks.hidden, forks.cell)
    words, prefix, hidden, cell = (tf.repeat(x, count, axis=0) for x in begun)
    rows = tf.shape(words)[0]

    def say(words, row, time, said, hidden, cell):
        """Writes each row's word, and drops the rows whose caption is complete."""
        words = tf.tensor_scatter_nd_update(words, tf.stack([row, time], axis=1), said)
        going = tf.where((said != END) & (time < max_length - 1))[:, 0]
        return words, *(tf.gather(x, going) for x in (row, time, said, hidden, cell))

    def advance(i, words, row, time, said, hidden, cell):
        uniform = tf.gather(uniforms(rows, 1, fold_in(seed, i)), row)
        (hidden, cell), chosen = next_words(step, (hidden, cell), said, uniform, choose, jit)
        return i + 1, *say(words, row, time + 1, chosen[:, 0], hidden, cell)

    some, units = tf.TensorShape([None]), tf.TensorShape([None, forks.hidden.shape[1]])
    start = say(words, tf.range(rows), prefix[:, 1] + 1, tf.reshape(forks.words, [-1]), hidden, cell)
    _, words, *_ = tf.while_loop(
        lambda i, words, row, *_: tf.size(row) > 0,
        advance,
        (0, *start),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, max_length]), some, some, some, units, units),
    )
    return Rollouts(words, prefix)
