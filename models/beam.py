"""Beam search over a step function: captions of high probability as a whole, not token by token.

Like the other decoders it knows `step(state, tokens) -> (state, logits)` and an initial state, any nest of tensors
(models/decoding.py). Shapes: B images, W hypotheses per image (the width), T steps, R rows that are computed, V tokens
of the vocabulary, k next tokens considered per row.
"""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from spidercap.models.beam_groups import Beams, Continuations, best_of, choose, ranked, without_lost
from spidercap.models.blocks import in_blocks
from spidercap.models.categorical import WIDTH
from spidercap.models.decoding import State, Step, any_rows, batch_size, state_after, take_rows
from spidercap.models.special_tokens import END, FORBIDDEN_BELOW, PAD, START


def beam_search(
    step: Step,
    state: State,
    max_length: int,
    *,
    width: int,
    length_penalty: float = 0.0,
    no_repeat_ngram: int = 0,
    bad_endings: Sequence[int] = (),
    n_best: int = 1,
    groups: int = 1,
    diversity: float = 0.0,
    jit: bool = False,
) -> Beams:
    """Returns the best captions that beam search finds, ranked by log pi / length ** length_penalty.

    The end token counts in both. Source: Wu et al. 2016, section 7, in its simplest form. With several groups it is
    diverse beam search (Vijayakumar et al. 2018): each group is a search of W / groups hypotheses, which avoids the
    tokens that earlier groups chose at the same step (beam_groups.py). A caption that several groups find is returned
    once.

    Of the continuations of an image's W open hypotheses, the W best that do not end are the next W. A hypothesis that
    ends is finished if it is among the W best of all continuations. So `width=1` without options is greedy search, and
    with W at least the number of captions the search is exhaustive. Captions cut at T are ranked as they stand. Ties go
    to the caption that finished earlier, then to the better hypothesis, then to the lower token id. Hypotheses whose
    logits are non-finite are dropped.

    The search of an image stops once no open hypothesis can enter its `n_best`, which are therefore those of a search
    that never stops. The other captions are the best that were found by then.

    Args:
      state: the initial state, one row per image.
      no_repeat_ngram: no n-gram of this length comes twice in a caption; 0: no limit.
      bad_endings: token ids after which no caption ends, unless it is cut or no other token is possible.
      groups: a divisor of `width`.
      diversity: what an equal token of an earlier group costs.
    """
    images, rows = batch_size(state)
    one = tf.minimum(images, 1)
    first = tf.nest.map_structure(lambda leaf: leaf[:one], state)
    vocabulary = step(first, tf.fill([one], START))[1].shape[1]
    search = _Search(
        step=step,
        images=images,
        max_length=max_length,
        width=width,
        k=min(width + 1, vocabulary),
        length_penalty=length_penalty,
        no_repeat_ngram=no_repeat_ngram,
        bad_endings=bad_endings,
        n_best=n_best,
        groups=groups,
        diversity=diversity,
        jit=jit,
        most=None if rows is None else rows * width,
    )
    none = tf.fill([images, width], -float("inf"))
    ended = Beams(tf.fill([images, width, max_length], PAD), none, none)
    of_group = tf.concat([tf.zeros([images, 1]), none[:, 1 : width // groups]], axis=1)
    begun = tf.tile(of_group, [1, groups])
    # One row per group, as its hypotheses are the same at first.
    rows = tf.range(images * groups) * (width // groups)
    state = state if groups == 1 else take_rows(state, tf.repeat(tf.range(images), groups))
    start = (tf.constant(0), rows, state, ended._replace(log_prob=begun), ended)
    *_, live, ended = tf.while_loop(
        lambda t, rows, *_: tf.size(rows) > 0,
        search.advance,
        start,
        shape_invariants=(tf.TensorShape([]), *any_rows(start[1:])),
        maximum_iterations=max_length,
    )
    best = best_of(ended, live._replace(score=search.score(live.log_prob, max_length)), groups)
    best = ranked(best) if groups > 1 else best
    tokens = tf.where(best.log_prob[..., None] > -float("inf"), best.tokens, PAD)
    return Beams(tf.ensure_shape(tokens, [None, width, max_length]), *best[1:])


class _Search(NamedTuple):
    """The steps of a search; the settings are those of beam_search."""

    step: Step
    images: tf.Tensor  # B
    max_length: int
    width: int
    k: int  # W that go on and an end; of a group W', and W - W' that it avoids
    length_penalty: float
    no_repeat_ngram: int
    bad_endings: Sequence[int]
    n_best: int
    groups: int
    diversity: float
    jit: bool
    most: int | None  # rows, if it is known

    def score(self, log_prob: tf.Tensor, length: int | tf.Tensor) -> tf.Tensor:
        """Returns by what hypotheses of a length are ranked."""
        return log_prob / tf.pow(tf.cast(length, tf.float32), self.length_penalty)

    def advance(self, t: tf.Tensor, rows: tf.Tensor, state: State, live: Beams, ended: Beams) -> tuple:
        """Extends all hypotheses by one token. At -inf there is none, and no row is computed for it."""
        found, computed, leaves = self._continued(t, rows, state, live)
        live, parents, now = choose(live, found, t, self.groups, self.diversity)
        ended = best_of(ended, now._replace(score=self.score(now.log_prob, t + 1)), self.groups)
        live = without_lost(live, self.score(live.log_prob, self.max_length), ended, self.groups, self.n_best)
        rows = _open_slots(tf.reshape(live.log_prob, [-1]))
        origin = tf.gather(tf.reshape(tf.gather(computed, parents, batch_dims=1), [-1]), rows)
        return t + 1, rows, tf.nest.pack_sequence_as(state, take_rows(leaves, origin)), live, ended

    def _continued(
        self, t: tf.Tensor, rows: tf.Tensor, state: State, live: Beams
    ) -> tuple[Continuations, tf.Tensor, list[tf.Tensor]]:
        """The k best next tokens of each hypothesis; the row `[B, W]` that computed it; the leaves after its token."""
        begun, leaves = tf.gather(tf.reshape(live.tokens, [-1, self.max_length]), rows), tf.nest.flatten(state)
        kinds = [tf.TensorSpec([self.k], tf.int32), tf.TensorSpec([self.k], tf.float32)]
        kinds += [tf.TensorSpec(leaf.shape[1:], leaf.dtype) for leaf in leaves]
        (tokens, log_prob, *leaves), _ = in_blocks(
            lambda *here: (self._expand(t, state, *here), ()), (begun, *leaves), kinds, (), self.jit, self.most
        )
        log_prob += tf.gather(tf.reshape(live.log_prob, [-1]), rows)[:, None]
        slots, count = rows[:, None], self.images * self.width  # slot: image * W + hypothesis
        shape, of_image = [count, self.k], [self.images, self.width * self.k]
        nothing = tf.fill(shape, -float("inf"))
        log_prob = tf.reshape(tf.tensor_scatter_nd_update(nothing, slots, log_prob), of_image)
        tokens = tf.reshape(tf.scatter_nd(slots, tokens, shape), of_image)
        computed = tf.scatter_nd(slots, tf.range(tf.size(rows)), [count])
        return Continuations(tokens, log_prob), tf.reshape(computed, [self.images, self.width]), leaves

    def _expand(self, t: tf.Tensor, state: State, begun: tf.Tensor, *leaves: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The k best tokens after `begun` `[r, T]`, their log pi, and the leaves; `state` has their structure."""
        token = tf.where(t > 0, begun[:, tf.maximum(t - 1, 0)], START)
        leaves, logits = state_after(self.step, state, leaves, token)
        tokens, log_prob = _best_tokens(logits, self.k, *_repeats(begun, t, self.no_repeat_ngram))
        return tokens, _forbid_ends(tokens, log_prob, token, self.bad_endings), *leaves


def _open_slots(log_prob: tf.Tensor) -> tf.Tensor:
    """The indices in `[n]` where there is a hypothesis."""
    return tf.cast(tf.where(log_prob > -float("inf"))[:, 0], tf.int32)


def _best_tokens(logits: tf.Tensor, k: int, repeats: tf.Tensor | None, repeated: tf.Tensor | None):
    """The k likeliest tokens of logits `[R, V]`, best first, and their log pi `[R, k]`; -inf where forbidden."""
    best, tokens = top_k(logits, k)
    # Normalised logits would be one more [R, V]; the likeliest token's softmax holds the sum that is needed.
    total = best[:, 0] - tf.math.log(tf.gather(tf.nn.softmax(logits), tokens[:, 0], batch_dims=1))
    if repeats is not None:
        penalties = tf.where(repeated, 10 * FORBIDDEN_BELOW, 0.0)
        best, tokens = top_k(tf.tensor_scatter_nd_add(logits, repeats, penalties), k)
    log_prob = tf.minimum(best - total[:, None], 0.0)
    return tokens, tf.where(log_prob > FORBIDDEN_BELOW, log_prob, -float("inf"))


def top_k(logits: tf.Tensor, k: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns what tf.math.top_k does for `[R, V]`, several times faster for few of many.

    The k largest, and of equals the first, lie within the k blocks whose largest are largest.
    """
    vocabulary = logits.shape[1]
    count = -(-vocabulary // WIDTH)
    if count <= 2 * k:
        return tf.math.top_k(logits, k)
    if vocabulary % WIDTH:
        logits = tf.pad(logits, [[0, 0], [0, count * WIDTH - vocabulary]], constant_values=-float("inf"))
    blocks = tf.reshape(logits, [-1, count, WIDTH])
    _, chosen = tf.math.top_k(tf.reduce_max(blocks, axis=2), k)
    chosen = tf.sort(chosen, axis=1)  # or equals would not be in their order
    best, which = tf.math.top_k(tf.reshape(tf.gather(blocks, chosen, batch_dims=1), [-1, k * WIDTH]), k)
    return best, tf.gather(chosen, which // WIDTH, batch_dims=1) * WIDTH + which % WIDTH


def _repeats(begun: tf.Tensor, t: tf.Tensor, n: int) -> tuple[tf.Tensor | None, tf.Tensor | None]:
    """(row, token) `[R, T - n + 1, 2]` of the last token of each n-gram in `begun` `[R, T]`, and if it would repeat."""
    starts = begun.shape[1] - n + 1
    if n == 0 or starts < 1:
        return None, None
    again = tf.range(starts) + n <= t
    for i in range(n - 1):
        last = begun[:, tf.maximum(t - n + 1 + i, 0)]
        again &= begun[:, i : i + starts] == last[:, None]
    row = tf.broadcast_to(tf.range(tf.shape(begun)[0])[:, None], [tf.shape(begun)[0], starts])
    return tf.stack([row, begun[:, n - 1 :]], axis=2), tf.broadcast_to(again, tf.shape(row))


def _forbid_ends(tokens: tf.Tensor, log_prob: tf.Tensor, token: tf.Tensor, bad_endings: Sequence[int]) -> tf.Tensor:
    """`log_prob` `[R, k]` without ends after bad endings, unless no other token is possible."""
    if not bad_endings:
        return log_prob
    bad = tf.reduce_any(token[:, None] == tf.constant(list(bad_endings), tf.int32), axis=1)
    other = tf.reduce_any((tokens != END) & (log_prob > -float("inf")), axis=1)
    return tf.where((bad & other)[:, None] & (tokens == END), -float("inf"), log_prob)
