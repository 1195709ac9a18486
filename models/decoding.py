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
    hidden: tf.Tensor | None  # [N, T, H]: the state that chose word t; None where nobody rolls out
    cell: tf.Tensor | None  # [N, T, H]


class Rollouts(NamedTuple):
    """Other captions of the paths' images, each of which begins like a path."""

    words: tf.Tensor  # [Q, T]: prefix and continuation
    prefix: tf.Tensor  # [Q, 2]: (path, index of the prefix's last word)


class Given(NamedTuple):
    """Captions whose beginning is not for the policy to choose."""

    words: tf.Tensor  # [N, T]
    steps: tf.Tensor  # scalar int32, s: how many words of each are said as they stand


def greedy(step: Step, state: State, max_length: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the captions `[N, T]` that take the likeliest word each time, and their log-probabilities `[N]`."""

    def choose(t, logits):
        del t
        return tf.argmax(logits, axis=-1, output_type=tf.int32)

    words, log_prob, _ = _decode(step, state, max_length, choose, keep_states=False)
    return words, log_prob


def sample(
    step: Step, state: State, max_length: int, seed: tf.Tensor, given: Given | None = None, keep_states: bool = True
) -> Paths:
    """Returns one caption a row, each word that is not given drawn from the model's distribution; `seed` is `[2]`."""

    def choose(t, logits):
        drawn = _draw(logits, 1, tf.random.experimental.stateless_fold_in(seed, t))[:, 0]
        return drawn if given is None else tf.where(t < given.steps, given.words[:, t], drawn)

    words, _, states = _decode(step, state, max_length, choose, keep_states)
    if not keep_states:
        return Paths(words, None, None)
    hidden, cell = (tf.transpose(array.stack(), [1, 0, 2]) for array in states)
    return Paths(words, hidden, cell)


def lengths(words: tf.Tensor) -> tf.Tensor:
    """Returns the number of words `[N]` of captions `[N, T]`, the end token counted."""
    return tf.reduce_sum(tf.cast(words != PAD, tf.int32), axis=1)


def read_own_words(step: Step, state: State, words: tf.Tensor, probability: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Returns `words` `[N, T]` with words of the model's own in place of some, for scheduled sampling.

    Each word is, with `probability`, one that the model says after what it has read so far (Bengio et al. 2015).
    """
    count, max_length = tf.shape(words)[0], words.shape[1]
    draw_seed, coin_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))

    def going(t, *_):
        return (t < max_length - 1) & tf.reduce_any(words[:, t] != PAD)

    def advance(t, token, state, read):
        state, logits = step(state, token)
        drawn = _draw(logits, 1, tf.random.experimental.stateless_fold_in(draw_seed, t))[:, 0]
        coins = tf.random.stateless_uniform([count], tf.random.experimental.stateless_fold_in(coin_seed, t))
        token = tf.where(coins < probability, drawn, words[:, t])
        return t + 1, token, state, read.write(t, token)

    read = tf.TensorArray(tf.int32, size=max_length, element_shape=[words.shape[0]])
    start = (tf.constant(0), tf.fill([count], START), state, read)
    *_, read = tf.while_loop(going, advance, start, maximum_iterations=max_length)
    return tf.ensure_shape(tf.transpose(read.stack()), words.shape)


def proper_prefixes(words: tf.Tensor) -> tf.Tensor:
    """Returns bool `[N, T]`: whether g_1..g_t is less than the whole path; the value of a whole path is its reward."""
    return tf.sequence_mask(lengths(words) - 1, words.shape[1])


def no_rollouts(max_length: int) -> Rollouts:
    """Returns none."""
    return Rollouts(tf.zeros([0, max_length], tf.int32), tf.zeros([0, 2], tf.int32))


def roll_out(
    step: Step, paths: Paths, which: tf.Tensor, rollouts: int, seed: tf.Tensor, greedily: bool = False
) -> Rollouts:
    """Returns K continuations of the prefixes g_1..g_t of paths at which `which` `[N, T]` is true.

    They are sampled, or `greedily` the likeliest word is taken each time, K times the same. All prefixes advance as one
    batch, each from its own time; a row that ended, or is full, is dropped before the next step, so no step is
    computed in vain.
    """
    draw = _likeliest if greedily else _draw
    max_length = paths.words.shape[1]
    prefix = tf.cast(tf.where(which), tf.int32)  # [P, 2]
    state = (tf.gather_nd(paths.hidden, prefix), tf.gather_nd(paths.cell, prefix))
    kept = tf.range(max_length) <= prefix[:, 1:]
    words = tf.where(kept, tf.gather(paths.words, prefix[:, 0]), PAD)
    # One step for all K rollouts of a prefix: they part only at the word that is drawn.
    state, logits = step(state, tf.gather_nd(paths.words, prefix))
    token = tf.reshape(draw(logits, rollouts, tf.random.experimental.stateless_fold_in(seed, 0)), [-1])
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
        token = draw(logits, 1, tf.random.experimental.stateless_fold_in(seed, i))[:, 0]
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
    drawn = tf.random.stateless_categorical(logits, count, seed, dtype=tf.int32)
    # Of logits that are no numbers it draws V, which is no word: whoever reads it would fail before such a step,
    # whose loss is no number either, can be skipped.
    return tf.minimum(drawn, tf.shape(logits)[1] - 1)


def _likeliest(logits: tf.Tensor, count: int, seed: tf.Tensor) -> tf.Tensor:
    """Returns the likeliest word of each row, `count` times, `[N, count]`."""
    del seed
    return tf.repeat(tf.argmax(logits, axis=-1, output_type=tf.int32)[:, None], count, axis=1)


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
