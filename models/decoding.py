"""Search over a step closure: greedy and sampling. Rollouts and beam search stand in files of their own.

`step(state, words [n]) -> (state, logits [n, V])` is all that is known of the model. A caption is int32 `[T]`: words,
the end token if it ended, padding. Captions that have ended are dropped before the next step, so no step is computed in
vain. Loops are explicit `tf.while_loop`s, so that they work wherever AutoGraph is off.

Shapes: N captions, T steps, n captions that go on, S words chosen a row, P proper prefixes of all captions together.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from spidercap.models.blocks import in_blocks
from spidercap.models.captioner import State
from spidercap.models.categorical import best_word, draw, uniforms
from spidercap.models.special_tokens import END, PAD, START

Step = Callable[[State, tf.Tensor], tuple[State, tf.Tensor]]
# (logits [n, V], uniform numbers [n, S, 2]) -> words [n, S]
Choice = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

fold_in = tf.random.experimental.stateless_fold_in


class Given(NamedTuple):
    """Captions whose beginning is not for the policy to choose."""

    words: tf.Tensor  # [N, T]
    steps: tf.Tensor  # scalar int32, s: how many words of each are said as they stand


class Forks(NamedTuple):
    """How each proper prefix of the captions could go on: S words instead of the caption's own."""

    prefix: tf.Tensor  # [P, 2]: (caption, index of the prefix's last word)
    words: tf.Tensor  # [P, S]
    hidden: tf.Tensor  # [P, H], after the prefix
    cell: tf.Tensor  # [P, H]


def greedy(step: Step, state: State, max_length: int, jit: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the captions `[N, T]` that take the likeliest word each time, and their log-probabilities `[N]`."""
    most = state[0].shape[0]

    def choose(logits, uniform):
        del uniform
        words, probability = best_word(logits)
        return words, tf.math.log(probability)

    def advance(t, row, state, words, log_prob):
        del t
        none = tf.zeros([tf.shape(row)[0], 0, 2])
        results = (tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.float32))
        state, chosen, score = _one_step(step, state, words, none, choose, results, jit, most)
        return state, chosen, tf.tensor_scatter_nd_add(log_prob, row[:, None], score)

    return _decode(advance, state, max_length, tf.zeros(tf.shape(state[0])[:1]))


def sample(
    step: Step, state: State, max_length: int, seed: tf.Tensor, given: Given | None = None, jit: bool = False
) -> tf.Tensor:
    """Returns one caption a row, `[N, T]`, each word that is not given drawn from the model; `seed` is `[2]`."""
    rows, most = tf.shape(state[0])[0], state[0].shape[0]

    def advance(t, row, state, words, nothing):
        uniform = tf.gather(uniforms(rows, 1, fold_in(seed, t)), row)
        state, drawn = next_words(step, state, words, uniform, draw, jit, most)
        drawn = drawn[:, 0]
        if given is not None:
            drawn = tf.where(t < given.steps, tf.gather(given.words[:, t], row), drawn)
        return state, drawn, nothing

    return _decode(advance, state, max_length, ())[0]


def sample_with_forks(
    step: Step, state: State, max_length: int, seed: tf.Tensor, forks: int, choose: Choice, jit: bool = False
) -> tuple[tf.Tensor, Forks]:
    """Returns sampled captions `[N, T]`, and S = `forks` words that `choose` says after each of their proper prefixes.

    A prefix's forks and the caption's own next word come from one distribution, so it is computed once for all.
    """
    rows, most, units = tf.shape(state[0])[0], state[0].shape[0], state[0].shape[1]

    def either(logits, uniform):
        return tf.concat([draw(logits, uniform[:, :1]), choose(logits, uniform[:, 1:])], axis=1)

    def advance(t, row, state, words, arrays):
        uniform = tf.gather(uniforms(rows, 1 + forks, fold_in(seed, t)), row)
        state, drawn = next_words(step, state, words, uniform, either, jit, most)
        seen = (tf.stack([row, tf.fill(tf.shape(row), t - 1)], axis=1), drawn[:, 1:], *state)
        return state, drawn[:, 0], [array.write(t, part) for array, part in zip(arrays, seen, strict=True)]

    shapes = [(tf.int32, 2), (tf.int32, forks), (tf.float32, units), (tf.float32, units)]
    arrays = [
        tf.TensorArray(kind, size=0, dynamic_size=True, element_shape=[None, width], infer_shape=False)
        for kind, width in shapes
    ]
    words, arrays = _decode(advance, state, max_length, arrays)
    # Before the first word there is no prefix.
    return words, Forks(*(array.concat()[rows:] for array in arrays))


def lengths(words: tf.Tensor) -> tf.Tensor:
    """Returns the number of words `[N]` of captions `[N, T]`, the end token counted."""
    return tf.reduce_sum(tf.cast(words != PAD, tf.int32), axis=1)


def read_own_words(
    step: Step, state: State, words: tf.Tensor, probability: tf.Tensor, seed: tf.Tensor, jit: bool = False
) -> tf.Tensor:
    """Returns `words` `[N, T]` with words of the model's own in place of some, for scheduled sampling.

    Each word is, with `probability`, one that the model says after what it has read so far (Bengio et al. 2015).
    """
    draw_seed, coin_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    rows, most = tf.shape(words)[0], words.shape[0]
    ends = lengths(words)

    def advance(t, row, state, said, nothing):
        uniform = tf.gather(uniforms(rows, 1, fold_in(draw_seed, t)), row)
        state, drawn = next_words(step, state, said, uniform, draw, jit, most)
        coins = tf.gather(tf.random.stateless_uniform([rows], fold_in(coin_seed, t)), row)
        return state, tf.where(coins < probability, drawn[:, 0], tf.gather(words[:, t], row)), nothing

    def goes_on(t, row, said):
        del said  # an end of the model's own ends nothing: what comes after it is learned all the same
        return t + 1 < tf.gather(ends, row)

    return _decode(advance, state, words.shape[1], (), goes_on)[0]


def next_words(
    step: Step,
    state: State,
    words: tf.Tensor,
    uniform: tf.Tensor,
    choose: Choice,
    jit: bool = False,
    most: int | None = None,
) -> tuple[State, tf.Tensor]:
    """Returns the state after `words` `[n]`, and S words `[n, S]` that `choose` says next by `uniform` `[n, S, 2]`.

    Args:
      most: rows there can be, if that is known.
    """
    results = [tf.TensorSpec(uniform.shape[1:2], tf.int32)]
    return _one_step(step, state, words, uniform, lambda *args: (choose(*args),), results, jit, most)


def _one_step(step, state, words, uniform, choose, results, jit, most) -> tuple:
    """The state after `words`, and what `choose` returns, of the shapes and types `results`."""

    def block(hidden, cell, words, uniform):
        state, logits = step((hidden, cell), words)
        return (*state, *choose(logits, uniform)), ()

    states = [tf.TensorSpec(s.shape[1:], s.dtype) for s in state]
    (hidden, cell, *chosen), _ = in_blocks(block, (*state, words, uniform), [*states, *results], (), jit, most)
    return (hidden, cell), *chosen


def _decode(
    advance: Callable, state: State, max_length: int, kept: Any, goes_on: Callable | None = None
) -> tuple[tf.Tensor, Any]:
    """Captions `[N, T]` and the last `kept`: runs until every caption has ended, or is full.

    advance(t, row [n], state, words said before [n], kept) -> (state, words [n], kept), for the rows that go on;
    goes_on(t, row, words) -> bool [n], by default whether it was not the end.
    """
    rows, count = state[0].shape[0], tf.shape(state[0])[0]
    goes_on = goes_on or (lambda t, row, words: words != END)

    def body(t, row, state, words, said, kept):
        state, words, kept = advance(t, row, state, words, kept)
        said = tf.tensor_scatter_nd_update(said, tf.stack([row, tf.fill(tf.shape(row), t)], axis=1), words)
        going = tf.where(goes_on(t, row, words))[:, 0]
        row, words, *state = (tf.gather(x, going) for x in (row, words, *state))
        return t + 1, row, tuple(state), words, said, kept

    some, states = tf.TensorShape([None]), tuple(tf.TensorShape([None, *s.shape[1:]]) for s in state)
    start = (0, tf.range(count), state, tf.fill([count], START), tf.fill([count, max_length], PAD), kept)
    fixed = tf.nest.map_structure(lambda x: tf.TensorShape(None) if isinstance(x, tf.TensorArray) else x.shape, kept)
    *_, said, kept = tf.while_loop(
        lambda t, row, *_: (t < max_length) & (tf.size(row) > 0),
        body,
        start,
        shape_invariants=(tf.TensorShape([]), some, states, some, tf.TensorShape([rows, max_length]), fixed),
    )
    return tf.ensure_shape(said, [rows, max_length]), kept
