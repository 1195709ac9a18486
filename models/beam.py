"""Beam search over a step closure: the likeliest captions that can be found, instead of the likeliest word each time.

`step(state, token) -> (state, logits)` is all that is known of the model, as in decoding. Shapes: B images, W
hypotheses of each (the width), T steps, R rows that are computed, V words, k words looked at after each row.
"""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from spidercap.models.blocks import in_blocks
from spidercap.models.captioner import State
from spidercap.models.categorical import WIDTH
from spidercap.models.decoding import Step
from spidercap.models.special_tokens import END, PAD, START, UNSAID


class Beams(NamedTuple):
    """Captions of each image, the best first; where there are fewer than W: padding, at -inf."""

    words: tf.Tensor  # int32 [B, W, T]
    log_prob: tf.Tensor  # float32 [B, W]: sum of log pi over the words, the end counted
    score: tf.Tensor  # float32 [B, W]: what they are ranked by


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
    jit: bool = False,
) -> Beams:
    """Returns the best captions that beam search finds, ranked by log pi / length ** length_penalty (Wu et al. 2016,
    section 7, in its simplest form); the end token counts in both.

    Of the words that can follow an image's W unfinished hypotheses, the W best that go on make the next W, and an end
    finishes a hypothesis if it is among the W best of all. So `width=1` without options is greedy search, and every
    caption is compared where W is their number. Captions cut at T are ranked as they stand. Of equals, the earlier
    finished, the better hypothesis and the lower word id come first. Logits that are no numbers are not followed.

    An image costs nothing more once no hypothesis can get among its `n_best`: these are what a search that never stops
    finds. The others are what was found by then.

    Args:
      state: the images' start.
      no_repeat_ngram: no caption holds n words in a row twice; 0: it may.
      bad_endings: ids of words after which no caption ends, unless it is cut or nothing else can be said.
    """
    images = tf.shape(state[0])[0]
    most = None if state[0].shape[0] is None else state[0].shape[0] * width
    one = tf.minimum(images, 1)
    vocabulary = step(tuple(s[:one] for s in state), tf.fill([one], START))[1].shape[1]
    k = min(width + 1, vocabulary)  # W that go on and an end

    def score(log_prob, length):
        return log_prob / tf.pow(tf.cast(length, tf.float32), length_penalty)

    def expand(t, said, *state):
        token = tf.where(t > 0, said[:, tf.maximum(t - 1, 0)], START)
        state, logits = step(state, token)
        words, log_prob = _best_words(logits, k, *_repeats(said, t, no_repeat_ngram))
        return words, _forbid_ends(words, log_prob, token, bad_endings), *state

    def advance(t, rows, state, live, ended):
        """Says one more word. A hypothesis at -inf is none, and no row is computed for it."""
        said = tf.gather(tf.reshape(live.words, [-1, max_length]), rows)
        kinds = [tf.TensorSpec([k], tf.int32), tf.TensorSpec([k], tf.float32)]
        kinds += [tf.TensorSpec(s.shape[1:], s.dtype) for s in state]
        (words, log_prob, *state), _ = in_blocks(
            lambda *here: (expand(t, *here), ()), (said, *state), kinds, (), jit, most
        )
        log_prob += tf.gather(tf.reshape(live.log_prob, [-1]), rows)[:, None]
        slots, shape = rows[:, None], [images * width, k]  # slot: image * W + hypothesis
        words = tf.reshape(tf.scatter_nd(slots, words, shape), [images, width * k])
        nothing = tf.fill(shape, -float("inf"))
        log_prob = tf.reshape(tf.tensor_scatter_nd_update(nothing, slots, log_prob), [images, width * k])
        computed = tf.reshape(tf.scatter_nd(slots, tf.range(tf.size(rows)), [images * width]), [images, width])

        now, _, ends = _extend(live, words, log_prob, t, k)
        now = now._replace(log_prob=tf.where(ends, now.log_prob, -float("inf")))
        ended = _best_of(ended, now._replace(score=score(now.log_prob, t + 1)))
        going = tf.where(words == END, -float("inf"), log_prob)
        live, parents, _ = _extend(live, words, going, t, k)
        lost = score(live.log_prob[:, :1], max_length) <= ended.score[:, n_best - 1 : n_best]
        live = live._replace(log_prob=tf.where(lost, -float("inf"), live.log_prob))
        rows = _numbers(tf.reshape(live.log_prob, [-1]))
        origin = tf.gather(tf.reshape(tf.gather(computed, parents, batch_dims=1), [-1]), rows)
        return t + 1, rows, tuple(tf.gather(s, origin) for s in state), live, ended

    none = tf.fill([images, width], -float("inf"))
    ended = Beams(tf.fill([images, width, max_length], PAD), none, none)
    begun = tf.concat([tf.zeros([images, 1]), none[:, 1:]], axis=1)
    rows = tf.range(images) * width  # one for each image, as its hypotheses are the same so far
    start = (tf.constant(0), rows, tuple(state), ended._replace(log_prob=begun), ended)
    *_, live, ended = tf.while_loop(
        lambda t, rows, *_: tf.size(rows) > 0,
        advance,
        start,
        shape_invariants=tf.nest.map_structure(lambda x: tf.TensorShape([None, *x.shape[1:]][: x.shape.rank]), start),
        maximum_iterations=max_length,
    )
    best = _best_of(ended, live._replace(score=score(live.log_prob, max_length)))
    said = tf.where(best.log_prob[..., None] > -float("inf"), best.words, PAD)
    return Beams(tf.ensure_shape(said, [None, width, max_length]), *best[1:])


def _extend(live: Beams, words: tf.Tensor, log_prob: tf.Tensor, t: tf.Tensor, k: int):
    """The W best of the continuations `[B, W * k]`, the hypotheses `[B, W]` that they continue, and if by an end."""
    width, max_length = live.words.shape[1:]
    best, which = tf.math.top_k(log_prob, width)
    words = tf.gather(words, which, batch_dims=1)
    parents = which // k
    said = tf.gather(live.words, parents, batch_dims=1)
    said = tf.where(tf.range(max_length) == t, words[..., None], said)
    return live._replace(words=said, log_prob=best), parents, words == END


def _best_of(one: Beams, other: Beams) -> Beams:
    """The W best by score of two times W; of equals, those of `one`."""
    both = Beams(*(tf.concat(pair, axis=1) for pair in zip(one, other, strict=True)))
    _, which = tf.math.top_k(both.score, one.score.shape[1])
    return Beams(*(tf.gather(values, which, batch_dims=1) for values in both))


def _numbers(log_prob: tf.Tensor) -> tf.Tensor:
    """The places in `[n]` where there is a hypothesis."""
    return tf.cast(tf.where(log_prob > -float("inf"))[:, 0], tf.int32)


def _best_words(logits: tf.Tensor, k: int, repeats: tf.Tensor | None, repeated: tf.Tensor | None):
    """The k likeliest words of logits `[R, V]`, best first, and their log pi `[R, k]`; -inf where never said."""
    best, words = top_k(logits, k)
    # Normalised logits would be one more [R, V]; the likeliest word's softmax holds the sum that is needed.
    total = best[:, 0] - tf.math.log(tf.gather(tf.nn.softmax(logits), words[:, 0], batch_dims=1))
    if repeats is not None:
        best, words = top_k(tf.tensor_scatter_nd_add(logits, repeats, tf.where(repeated, 10 * UNSAID, 0.0)), k)
    log_prob = tf.minimum(best - total[:, None], 0.0)
    return words, tf.where(log_prob > UNSAID, log_prob, -float("inf"))


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


def _repeats(said: tf.Tensor, t: tf.Tensor, n: int) -> tuple[tf.Tensor | None, tf.Tensor | None]:
    """(row, word) `[R, T - n + 1, 2]` of each n-gram's last word in `said` `[R, T]`, and if it would come again."""
    starts = said.shape[1] - n + 1
    if n == 0 or starts < 1:
        return None, None
    again = tf.range(starts) + n <= t
    for i in range(n - 1):
        last = said[:, tf.maximum(t - n + 1 + i, 0)]
        again &= said[:, i : i + starts] == last[:, None]
    row = tf.broadcast_to(tf.range(tf.shape(said)[0])[:, None], [tf.shape(said)[0], starts])
    return tf.stack([row, said[:, n - 1 :]], axis=2), tf.broadcast_to(again, tf.shape(row))


def _forbid_ends(words: tf.Tensor, log_prob: tf.Tensor, token: tf.Tensor, bad_endings: Sequence[int]) -> tf.Tensor:
    """`log_prob` `[R, k]` without ends after bad endings, unless nothing else can be said."""
    if not bad_endings:
        return log_prob
    bad = tf.reduce_any(token[:, None] == tf.constant(list(bad_endings), tf.int32), axis=1)
    other = tf.reduce_any((words != END) & (log_prob > -float("inf")), axis=1)
    return tf.where((bad & other)[:, None] & (words == END), -float("inf"), log_prob)
