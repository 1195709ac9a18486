"""Greedy decoding and sampling over a step function. Rollouts, beam search and sampled captions have their own files.

A decoder knows two things of a model: an initial state with one row per caption, and
`step(state, tokens [n]) -> (state, logits [n, V])`, which reads one token per caption. The state is any nest of tensors
`[n, ...]` (tf.nest): a tuple, a dict, a NamedTuple or a single tensor, of any dtypes.

A caption is int32 `[T]`: its tokens, the end token unless it was cut at T, then padding. Captions that have ended leave
the batch before the next step, so nothing is computed for them. Loops are explicit `tf.while_loop`s and work where
AutoGraph is off.

Shapes: N captions, T steps, n captions that go on, S tokens chosen per row, P proper prefixes of all captions together.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from spidercap.models import row_random
from spidercap.models.blocks import in_blocks
from spidercap.models.categorical import best_token, draw, uniforms
from spidercap.models.row_random import Seed, fold_in
from spidercap.models.special_tokens import END, PAD, START

State = Any  # a nest of tensors [n, ...]
Step = Callable[[State, tf.Tensor], tuple[State, tf.Tensor]]
# (logits [n, V], uniform numbers [n, S, 2]) -> tokens [n, S]
Choice = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class Given(NamedTuple):
    """Captions whose first tokens are given, not sampled."""

    tokens: tf.Tensor  # [N, T]
    steps: tf.Tensor  # scalar int32, s: how many tokens of each caption are given


class Forks(NamedTuple):
    """How prefixes of the captions, none of them a whole caption, could go on: S tokens in place of its own."""

    prefix: tf.Tensor  # [P, 2]: (caption, index of the prefix's last token, -1 of the empty prefix)
    tokens: tf.Tensor  # [P, S]
    log_prob: tf.Tensor  # [P], of the caption's own next token
    state: State  # after the prefix, leaves [P, ...]


def greedy(step: Step, state: State, max_length: int, jit: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the captions `[N, T]` that take the likeliest token each time, and their log-probabilities `[N]`."""
    count, most = batch_size(state)

    def choose(logits, uniform):
        del uniform
        tokens, probability = best_token(logits)
        return tokens, tf.math.log(probability)

    def advance(t, row, state, tokens, log_prob):
        del t
        none = tf.zeros([tf.shape(row)[0], 0, 2])
        results = (tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.float32))
        state, chosen, score = one_step(step, state, tokens, none, choose, results, jit, most)
        return state, chosen, tf.tensor_scatter_nd_add(log_prob, row[:, None], score)

    return decode(advance, state, max_length, tf.zeros([count]))


def sample(
    step: Step, state: State, max_length: int, seed: Seed, given: Given | None = None, jit: bool = False
) -> tf.Tensor:
    """Returns one caption per row, `[N, T]`, each token that is not given sampled from the model."""
    count, most = batch_size(state)

    def advance(t, row, state, tokens, nothing):
        uniform = tf.gather(uniforms(count, 1, fold_in(seed, t)), row)
        state, drawn = next_tokens(step, state, tokens, uniform, draw, jit, most)
        drawn = drawn[:, 0]
        if given is not None:
            drawn = tf.where(t < given.steps, tf.gather(given.tokens[:, t], row), drawn)
        return state, drawn, nothing

    return decode(advance, state, max_length, ())[0]


def sample_with_forks(
    step: Step,
    state: State,
    max_length: int,
    seed: Seed,
    forks: int,
    choose: Choice,
    jit: bool = False,
    from_start: bool = False,
) -> tuple[tf.Tensor, Forks]:
    """Returns sampled captions `[N, T]`, and S = `forks` tokens that `choose` takes after each proper prefix.

    The forks of a prefix and the caption's own next token come from one distribution, which is computed once.
    `from_start`: the empty prefix forks, too.
    """
    count, most = batch_size(state)
    results = [tf.TensorSpec([1 + forks], tf.int32), tf.TensorSpec([], tf.float32)]

    def either(logits, uniform):
        drawn = tf.concat([draw(logits, uniform[:, :1]), choose(logits, uniform[:, 1:])], axis=1)
        return drawn, tf.math.log(tf.gather(tf.nn.softmax(logits), drawn[:, 0], batch_dims=1))

    def advance(t, row, state, tokens, arrays):
        uniform = tf.gather(uniforms(count, 1 + forks, fold_in(seed, t)), row)
        state, drawn, log_prob = one_step(step, state, tokens, uniform, either, results, jit, most)
        prefix = tf.stack([row, tf.fill(tf.shape(row), t - 1)], axis=1)
        seen = (prefix, drawn[:, 1:], log_prob, *tf.nest.flatten(state))
        return state, drawn[:, 0], [array.write(t, part) for array, part in zip(arrays, seen, strict=True)]

    specs = [tf.TensorSpec([2], tf.int32), tf.TensorSpec([forks], tf.int32), results[1], *_row_specs(state)]
    arrays = [
        tf.TensorArray(s.dtype, size=0, dynamic_size=True, element_shape=[None, *s.shape], infer_shape=False)
        for s in specs
    ]
    tokens, arrays = decode(advance, state, max_length, arrays)
    first = 0 if from_start else count  # the empty prefixes come first
    prefix, forked, log_prob, *states = (array.concat()[first:] for array in arrays)
    return tokens, Forks(prefix, forked, log_prob, tf.nest.pack_sequence_as(state, states))


def lengths(tokens: tf.Tensor) -> tf.Tensor:
    """Returns the number of tokens `[N]` of captions `[N, T]`, the end token counted, padding not."""
    return tf.reduce_sum(tf.cast(tokens != PAD, tf.int32), axis=1)


def read_own_words(
    step: Step, state: State, tokens: tf.Tensor, probability: tf.Tensor, seed: Seed, jit: bool = False
) -> tf.Tensor:
    """Returns captions `[N, T]` with sampled tokens in place of some of their own, for scheduled sampling.

    Each token is replaced with `probability` by one sampled from the model, given the tokens read so far (Bengio et al.
    2015).
    """
    draw_seed, coin_seed = row_random.split(seed)
    count, most = tf.shape(tokens)[0], tokens.shape[0]
    ends = lengths(tokens)

    def advance(t, row, state, read, nothing):
        uniform = tf.gather(uniforms(count, 1, fold_in(draw_seed, t)), row)
        state, drawn = next_tokens(step, state, read, uniform, draw, jit, most)
        coins = tf.gather(row_random.uniforms(fold_in(coin_seed, t), count), row)
        return state, tf.where(coins < probability, drawn[:, 0], tf.gather(tokens[:, t], row)), nothing

    def goes_on(t, row, read):
        del read  # a sampled end token ends nothing: the tokens after it are learned all the same
        return t + 1 < tf.gather(ends, row)

    return decode(advance, state, tokens.shape[1], (), goes_on)[0]


def next_tokens(
    step: Step,
    state: State,
    tokens: tf.Tensor,
    uniform: tf.Tensor,
    choose: Choice,
    jit: bool = False,
    most: int | None = None,
) -> tuple[State, tf.Tensor]:
    """Returns the state after `tokens` `[n]`, and S next tokens `[n, S]` that `choose` takes by `uniform` `[n, S, 2]`.

    Args:
      most: the largest n, if it is known.
    """
    results = [tf.TensorSpec(uniform.shape[1:2], tf.int32)]
    return one_step(step, state, tokens, uniform, lambda *args: (choose(*args),), results, jit, most)


def batch_size(state: State) -> tuple[tf.Tensor, int | None]:
    """Returns the number of a state's rows, and the same as a Python number where it is static, else None."""
    first = tf.nest.flatten(state)[0]
    return tf.shape(first)[0], first.shape[0]


def take_rows(state: State, rows: tf.Tensor) -> State:
    """Returns the rows `[n]` of every leaf of a state, or of any nest of tensors."""
    return tf.nest.map_structure(lambda leaf: tf.gather(leaf, rows), state)


def state_after(step: Step, like: State, leaves: list[tf.Tensor], tokens: tf.Tensor) -> tuple[list, tf.Tensor]:
    """Returns the leaves of the state after `tokens` `[n]`, and the logits `[n, V]`; `like` has the state's structure.

    Raises:
      ValueError: the step returns a state of another structure.
    """
    state, logits = step(tf.nest.pack_sequence_as(like, leaves), tokens)
    tf.nest.assert_same_structure(like, state, check_types=False)
    return tf.nest.flatten(state), logits


def _row_specs(state: State) -> list[tf.TensorSpec]:
    """Shape and dtype of one row of each leaf."""
    return [tf.TensorSpec(leaf.shape[1:], leaf.dtype) for leaf in tf.nest.flatten(state)]


def one_step(step, state, tokens, uniform, choose, results, jit, most) -> tuple:
    """Returns the state after `tokens`, and what `choose` returns, with the shapes and dtypes of `results`."""

    def block(*rows):
        *leaves, tokens, uniform = rows
        leaves, logits = state_after(step, state, leaves, tokens)
        return (*leaves, *choose(logits, uniform)), ()

    specs = _row_specs(state)
    made, _ = in_blocks(block, (*tf.nest.flatten(state), tokens, uniform), [*specs, *results], (), jit, most)
    return tf.nest.pack_sequence_as(state, made[: len(specs)]), *made[len(specs) :]


def decode(
    advance: Callable, state: State, max_length: int, kept: Any, goes_on: Callable | None = None
) -> tuple[tf.Tensor, Any]:
    """Returns captions `[N, T]` and the last `kept`: runs until every caption has ended, or is full.

    advance(t, row [n], state, last tokens [n], kept) -> (state, next tokens [n], kept), for the captions that go on;
    goes_on(t, row, tokens) -> bool [n], by default whether it is not the end token.
    """
    count, rows = batch_size(state)
    goes_on = goes_on or (lambda t, row, tokens: tokens != END)

    def body(t, row, state, tokens, captions, kept):
        state, tokens, kept = advance(t, row, state, tokens, kept)
        captions = tf.tensor_scatter_nd_update(captions, tf.stack([row, tf.fill(tf.shape(row), t)], axis=1), tokens)
        going = tf.where(goes_on(t, row, tokens))[:, 0]
        row, tokens, state = take_rows((row, tokens, state), going)
        return t + 1, row, state, tokens, captions, kept

    some, states = tf.TensorShape([None]), any_rows(state)
    start = (0, tf.range(count), state, tf.fill([count], START), tf.fill([count, max_length], PAD), kept)
    fixed = tf.nest.map_structure(lambda x: tf.TensorShape(None) if isinstance(x, tf.TensorArray) else x.shape, kept)
    *_, captions, kept = tf.while_loop(
        lambda t, row, *_: (t < max_length) & (tf.size(row) > 0),
        body,
        start,
        shape_invariants=(tf.TensorShape([]), some, states, some, tf.TensorShape([rows, max_length]), fixed),
    )
    return tf.ensure_shape(captions, [rows, max_length]), kept


def any_rows(state: State) -> Any:
    """Returns the shapes of a state's leaves with any number of rows, as a loop's shape invariants."""
    return tf.nest.map_structure(lambda leaf: tf.TensorShape([None, *leaf.shape[1:]]), state)
