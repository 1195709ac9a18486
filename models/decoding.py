"""Search over a step closure: greedy, sampling, and rollouts from every prefix.

`step(state, token) -> (state, logits)` is all that is known of the model. A caption is int32 `[T]`: words,
the end token if it ended, padding. Shapes: N captions, T steps, K rollouts, P prefixes, Q = P * K rollouts.
Loops are explicit `tf.while_loop`s, so that they work wherever AutoGraph is off.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from models.captioner import END, PAD, START, State

Step = Callable[[State, tf.Tensor], tuple[State, tf.Tensor]]


class Paths(NamedTuple):
    """Sampled captions and the states they went through."""

    words: tf.Tensor  # [N, T]
    hidden: tf.Tensor  # [N, T, H]: the state that chose word t
    cell: tf.Tensor  # [N, T, H]


class Rollouts(NamedTuple):
    """Continuations of every proper prefix of every path."""

    words: tf.Tensor  # [Q, T]: prefix and continuation
    prefix: tf.Tensor  # [Q, 2]: (path, index of the prefix's last word)


def greedy(step: Step, state: State, max_length: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the captions `[N, T]` that take the likeliest word each time, and their log-probabilities `[N]`."""

    def choose(t, logits):
        del t
        return tf.argmax(logits, axis=-1, output_type=tf.int32)

    words, log_prob, _ = _decode(step, state, max_length, choose, keep_states=False)
    return words, log_prob


def sample(step: Step, state: State, max_length: int, seed: tf.Tensor) -> Paths:
    """Returns one caption a row, each word drawn from the model's distribution; `seed` is `[2]`."""

    def choose(t, logits):
        return _draw(logits, 1, tf.random.experimental.stateless_fold_in(seed, t))[:, 0]

    words, _, states = _decode(step, state, max_length, choose, keep_states=True)
    hidden, cell = (tf.transpose(array.stack(), [1, 0, 2]) for array in states)
    return Paths(words, hidden, cell)


def lengths(words: tf.Tensor) -> tf.Tensor:
    """Returns the number of words `[N]` of captions `[N, T]`, the end token counted."""
    return tf.reduce_sum(tf.cast(words != PAD, tf.int32), axis=1)


def roll_out(step: Step, paths: Paths, rollouts: int, seed: tf.Tensor) -> Rollouts:
    """Returns K sampled continuations of every proper prefix g_1..g_t of every path.

    The whole path is no prefix: its value is its own reward. All prefixes advance as one batch, each from its
    own time; a row that ended, or is full, is dropped before the next step, so no step is computed in vain.
    """
    max_length = paths.words.shape[1]
    proper = tf.sequence_mask(lengths(paths.words) - 1, max_length)
    prefix = tf.cast(tf.where(proper), tf.int32)  # [P, 2]
    state = (tf.gather_nd(paths.hidden, prefix), tf.gather_nd(paths.cell, prefix))
    kept = tf.range(max_length) <= prefix[:, 1:]
    words = tf.where(kept, tf.gather(paths.words, prefix[:, 0]), PAD)
    # One step for all K rollouts of a prefix: they part only at the word that is drawn.
    state, logits = step(state, tf.gather_nd(paths.words, prefix))
    token = tf.reshape(_draw(logits, rollouts, tf.random.experimental.stateless_fold_in(seed, 0)), [-1])
    words, prefix, hidden, cell = (tf.repeat(x, rollouts, axis=0) for x in (words, prefix, *state))

    def say(words, row, time, token, hidden, cell):
        """Writes each row's word, and drops the rows whose caption is complete."""
        words = tf.tensor_scatter_nd_update(words, tf.stack([row, time], axis=1), token)
        going = tf.where((token != END) & (time < max_length - 1))[:, 0]
        return words, *(tf.gather(x, going) for x in (row, time, token, hidden, cell))

    def alive(i, words, row, *_):
        return tf.size(row) > 0

    def advance(i, words, row, time, token, hidden, cell):
        (hidden, cell), logits = step((hidden, cell), token)
        token = _draw(logits, 1, tf.random.experimental.stateless_fold_in(seed, i))[:, 0]
        return i + 1, *say(words, row, time + 1, token, hidden, cell)

    some = tf.TensorShape([None])
    units = tf.TensorShape([None, paths.hidden.shape[2]])
    _, words, *_ = tf.while_loop(
        alive,
        advance,
        (1, *say(words, tf.range(tf.shape(words)[0]), prefix[:, 1] + 1, token, hidden, cell)),
        shape_invariants=(
            tf.TensorShape([]),
            tf.TensorShape([None, max_length]),
            some,
            some,
            some,
            units,
            units,
        ),
        maximum_iterations=max_length,
    )
    return Rollouts(words, prefix)


def _draw(logits: tf.Tensor, count: int, seed: tf.Tensor) -> tf.Tensor:
    """Returns `count` words a row, `[N, count]`, from softmax(logits `[N, V]`)."""
    return tf.random.stateless_categorical(logits, count, seed, dtype=tf.int32)


def _decode(step: Step, state: State, max_length: int, choose, keep_states: bool):
    """The loop of greedy and sampling: runs until every row has ended, or is full."""
    rows, units = state[0].shape
    count = tf.shape(state[0])[0]

    def going(t, ended, *_):
        return (t < max_length) & ~tf.reduce_all(ended)

    def advance(t, ended, token, state, words, log_prob, states):
        state, logits = step(state, token)
        token = tf.where(ended, PAD, choose(t, logits))
        chosen = -tf.nn.sparse_softmax_cross_entropy_with_logits(labels=token, logits=logits)
        log_prob += tf.where(ended, 0.0, chosen)
        if keep_states:
            states = tuple(array.write(t, s) for array, s in zip(states, state, strict=True))
        return t + 1, ended | (token == END), token, state, words.write(t, token), log_prob, states

    def array(dtype, shape):
        return tf.TensorArray(dtype, size=max_length, element_shape=shape)

    states = tuple(array(tf.float32, [rows, units]) for _ in range(2 * keep_states))
    start = (
        tf.constant(0),
        tf.zeros([count], tf.bool),
        tf.fill([count], START),
        state,
        array(tf.int32, [rows]),
        tf.zeros([count]),
        states,
    )
    _, _, _, _, words, log_prob, states = tf.while_loop(going, advance, start, maximum_iterations=max_length)
    return tf.ensure_shape(tf.transpose(words.stack()), [rows, max_length]), log_prob, states
