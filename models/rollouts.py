"""Monte-Carlo rollouts: sampled captions that share a prefix with another sampled caption.

All rollouts of all prefixes of all captions advance as one batch, each from its own step.

Shapes: N sampled captions, T steps, P prefixes, K rollouts of each, Q = P * K.
"""

from typing import NamedTuple

import tensorflow as tf

from spidercap.models.decoding import Choice, Forks, Step, any_rows, next_tokens, take_rows
from spidercap.models.row_random import Seed, fold_in, uniforms
from spidercap.models.special_tokens import END, PAD


class Rollouts(NamedTuple):
    """Captions of the same images, each of which begins like a sampled caption."""

    tokens: tf.Tensor  # [Q, T]: prefix and continuation
    prefix: tf.Tensor  # [Q, 2]: (sampled caption, index of the prefix's last token)


def no_rollouts(max_length: int) -> Rollouts:
    """Returns rollouts with Q = 0."""
    return Rollouts(tf.zeros([0, max_length], tf.int32), tf.zeros([0, 2], tf.int32))


def roll_out(
    step: Step,
    captions: tf.Tensor,
    forks: Forks,
    seed: Seed,
    choose: Choice,
    jit: bool = False,
    wanted: tf.Tensor | None = None,
) -> Rollouts:
    """Returns the captions that go on from the forks of `captions` `[N, T]`, K of each prefix, by `choose`.

    `wanted`, bool `[P, K]`: the forks to go on from, instead of all. A row that ended, or is full, leaves the batch
    before the next step, so nothing is computed for it. The rows of the seed are the captions.
    """
    count, max_length, number = tf.shape(captions)[0], captions.shape[1], forks.tokens.shape[1]
    places = tf.cast(tf.where(tf.ones_like(forks.tokens, tf.bool) if wanted is None else wanted), tf.int32)
    # The rollouts of a prefix part at the forks' tokens.
    prefix, state = take_rows((forks.prefix, forks.state), places[:, 0])
    kept = tf.range(max_length) <= prefix[:, 1:]
    begun = tf.where(kept, tf.gather(captions, prefix[:, 0]), PAD)
    # What a rollout is drawn by depends on its place, not on which other rollouts there are.
    place = tf.stack([prefix[:, 0], prefix[:, 1] + 1, places[:, 1]], axis=1)

    def write(captions, row, time, tokens, state):
        """Writes each row's token, and drops the rows whose caption is complete."""
        captions = tf.tensor_scatter_nd_update(captions, tf.stack([row, time], axis=1), tokens)
        going = tf.where((tokens != END) & (time < max_length - 1))[:, 0]
        return captions, *take_rows((row, time, tokens, state), going)

    def advance(i, captions, row, time, tokens, state):
        uniform = uniforms(fold_in(seed, i), count, max_length, number, 1, 2)
        uniform = tf.gather_nd(uniform, tf.gather(place, row))
        state, chosen = next_tokens(step, state, tokens, uniform, choose, jit)
        return i + 1, *write(captions, row, time + 1, chosen[:, 0], state)

    some = tf.TensorShape([None])
    start = write(begun, tf.range(tf.shape(begun)[0]), prefix[:, 1] + 1, tf.gather_nd(forks.tokens, places), state)
    _, tokens, *_ = tf.while_loop(
        lambda i, captions, row, *_: tf.size(row) > 0,
        advance,
        (0, *start),
        shape_invariants=(
            tf.TensorShape([]),
            tf.TensorShape([None, max_length]),
            some,
            some,
            some,
            any_rows(forks.state),
        ),
    )
    return Rollouts(tokens, prefix)
