"""What a beam search keeps of the continuations of its hypotheses, group by group.

Plain beam search has one group. In diverse beam search (Vijayakumar et al. 2018) the groups of an image choose one
after the other, and each avoids the tokens that those before it chose at the same time step.

Shapes: B images, W hypotheses per image, G groups, W' = W / G hypotheses per group, T steps, k next tokens considered
per hypothesis.
"""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from spidercap.models.special_tokens import END, PAD

NONE = -float("inf")  # log-probability where there is no hypothesis


class Beams(NamedTuple):
    """Captions of each image, the best first; where there are fewer than W: padding, at -inf."""

    tokens: tf.Tensor  # int32 [B, W, T]
    log_prob: tf.Tensor  # float32 [B, W]: sum of log pi over the tokens, the end token counted
    score: tf.Tensor  # float32 [B, W]: what they are ranked by


class Continuations(NamedTuple):
    """Next tokens of the W hypotheses of each image, k of each hypothesis side by side."""

    tokens: tf.Tensor  # int32 [B, W * k]
    log_prob: tf.Tensor  # float32 [B, W * k]: of the hypothesis with this token; -inf where there is none


class Chosen(NamedTuple):
    """What W hypotheses become by one more token."""

    live: Beams  # the next open hypotheses
    parents: tf.Tensor  # int32 [B, W]: the hypotheses that they continue
    ended: Beams  # those that end now; -inf elsewhere


def choose(live: Beams, found: Continuations, t: tf.Tensor, groups: int, diversity: float) -> Chosen:
    """Returns what becomes of the hypotheses of each group.

    With Theta the log-probability of a continuation and y its token, a group chooses by
      Theta - diversity * #{tokens equal to y that earlier groups chose at this time step}
    (Vijayakumar et al. 2018, equation 7 with the Hamming diversity of section 4.1). Tokens are chosen by the hypotheses
    that go on and by those that end. A penalty counts at its own step alone: log-probabilities are the model's own.

    Args:
      live: the open hypotheses `[B, W]`, those of a group side by side.
      found: their continuations.
      t: the step, from 0.
      groups: G, a divisor of W.
      diversity: lambda, the penalty for each equal token.
    """
    width = live.log_prob.shape[1] // groups
    parts: list[Chosen] = []
    taken: list[tf.Tensor] = []
    for hypotheses, continuations in zip(split(live, groups), split(found, groups), strict=True):
        rank = continuations.log_prob
        if taken and diversity:
            rank -= diversity * _times_taken(continuations.tokens, tf.concat(taken, axis=1))
        part = _choose(hypotheses, continuations, rank, t)
        taken += [_last_tokens(part.live, t), _last_tokens(part.ended, t)]
        parts.append(part._replace(parents=part.parents + len(parts) * width))
    return joined(parts)


def best_of(one: Beams, other: Beams, groups: int) -> Beams:
    """Returns the W' best by score of two times W' of each group; ties go to `one`."""
    pairs = zip(split(one, groups), split(other, groups), strict=True)
    return joined([_best(joined(pair), pair[0].score.shape[1]) for pair in pairs])


def ranked(beams: Beams) -> Beams:
    """Returns the captions of all groups, best first; one that several groups found stands there once."""
    score = beams.score
    width = score.shape[1]
    order = tf.range(width)
    same = tf.reduce_all(beams.tokens[:, :, None] == beams.tokens[:, None], axis=3)  # [B, W, W]
    # Not by order alone: of equal captions, rounding may tell those of two groups apart.
    ahead = (score[:, None] > score[:, :, None]) | ((score[:, None] == score[:, :, None]) & (order < order[:, None]))
    again = tf.reduce_any(same & ahead, axis=2)
    return _best(
        beams._replace(log_prob=tf.where(again, NONE, beams.log_prob), score=tf.where(again, NONE, score)), width
    )


def without_lost(live: Beams, possible: tf.Tensor, ended: Beams, groups: int, n_best: int) -> Beams:
    """Returns the open hypotheses without those that can change none of the n best captions.

    A group is lost if no open hypothesis of it can enter the n best of the group. Its hypotheses go on as long as a
    later group is not lost, because that one avoids what they choose.

    Args:
      live: `[B, W]`.
      possible: `[B, W]`, the best score that each of them can still get.
      ended: `[B, W]`, captions of each group, best first.
      groups: G.
      n_best: n; a group has at most W' of them.
    """
    width = live.log_prob.shape[1] // groups
    last = tf.reshape(ended.score, [-1, groups, width])[:, :, min(n_best, width) - 1]
    lost = tf.reduce_max(tf.reshape(possible, [-1, groups, width]), axis=2) <= last
    if groups > 1:
        lost = tf.cumsum(tf.cast(~lost, tf.int32), axis=1, reverse=True) == 0
    return live._replace(log_prob=tf.where(tf.repeat(lost, width, axis=1), NONE, live.log_prob))


def split(parts: NamedTuple, groups: int) -> list:
    """Returns a tuple of tensors `[B, n, ...]` as G tuples of `[B, n / G, ...]`."""
    if groups == 1:
        return [parts]

    def of_group(part: tf.Tensor, group: int) -> tf.Tensor:
        size = part.shape[1] // groups
        return part[:, group * size : (group + 1) * size]

    return [type(parts)(*(of_group(part, group) for part in parts)) for group in range(groups)]


def joined(parts: Sequence) -> NamedTuple:
    """Returns equal nests of tensors `[B, n, ...]` as one, side by side."""
    if len(parts) == 1:
        return parts[0]
    return tf.nest.map_structure(lambda *tensors: tf.concat(tensors, axis=1), *parts)


def _choose(live: Beams, found: Continuations, rank: tf.Tensor, t: tf.Tensor) -> Chosen:
    """What becomes of the hypotheses of one group: W' that go on, and those that end among the W' best of all."""
    now, _, ends = _extend(live, found, rank, t)
    ended = now._replace(log_prob=tf.where(ends, now.log_prob, NONE))
    live, parents, _ = _extend(live, found, tf.where(found.tokens == END, NONE, rank), t)
    return Chosen(live, parents, ended)


def _extend(live: Beams, found: Continuations, rank: tf.Tensor, t: tf.Tensor) -> tuple[Beams, tf.Tensor, tf.Tensor]:
    """The W' best by rank `[B, W' * k]`, the hypotheses `[B, W']` that they continue, and which are ends."""
    width, max_length = live.tokens.shape[1:]
    best, which = tf.math.top_k(rank, width)
    tokens, log_prob = (tf.gather(part, which, batch_dims=1) for part in found)
    parents = which // (rank.shape[1] // width)
    begun = tf.gather(live.tokens, parents, batch_dims=1)
    begun = tf.where(tf.range(max_length) == t, tokens[..., None], begun)
    return live._replace(tokens=begun, log_prob=tf.where(best > NONE, log_prob, NONE)), parents, tokens == END


def _times_taken(tokens: tf.Tensor, taken: tf.Tensor) -> tf.Tensor:
    """How often each of the tokens `[B, n]` is among `taken` `[B, m]`, float32 `[B, n]`."""
    return tf.reduce_sum(tf.cast(tokens[:, :, None] == taken[:, None], tf.float32), axis=2)


def _last_tokens(beams: Beams, t: tf.Tensor) -> tf.Tensor:
    """The tokens `[B, n]` at step t; padding, which is never chosen, where there is no caption."""
    return tf.where(beams.log_prob > NONE, beams.tokens[:, :, t], PAD)


def _best(beams: Beams, count: int) -> Beams:
    """The `count` best by score."""
    _, which = tf.math.top_k(beams.score, count)
    return Beams(*(tf.gather(values, which, batch_dims=1) for values in beams))
