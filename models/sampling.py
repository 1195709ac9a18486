"""Sampled captions of images: from all words, from the k likeliest, or from the nucleus of the distribution.

Sources: Fan et al., "Hierarchical Neural Story Generation" (2018): top-k. Holtzman et al., "The Curious Case of Neural
Text Degeneration" (2020): the nucleus, or top-p.

Shapes: N images, n samples per image, T steps, r rows that are computed, V tokens of the vocabulary, S tokens drawn per
row.
"""

import tensorflow as tf

from spidercap.models import row_random
from spidercap.models.beam import top_k
from spidercap.models.categorical import draw
from spidercap.models.decoding import Choice, State, Step, batch_size, decode, one_step, take_rows
from spidercap.models.row_random import Seed
from spidercap.models.special_tokens import END

FEW = 128  # tokens that nearly always hold the nucleus; to sort 9,487 takes nine times as long as to find these
INT32 = tf.int32.limits


def sampled(
    step: Step,
    state: State,
    max_length: int,
    uniform: tf.Tensor,
    choose: Choice = draw,
    temperature: float = 1.0,
    jit: bool = False,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns n captions of each image, int32 `[N, n, T]`, and their log-probabilities, float32 `[N, n]`, best first.

    The log-probability is that of the model: the sum of log pi over the tokens, the end token counted, where pi is the
    softmax of the logits as they are. Temperature and truncation change what is drawn, not this number. Of equal
    log-probabilities the one drawn first stands first. Equal captions are all kept, so that the n captions are n
    independent samples. Non-finite logits end the caption, whose log-probability is NaN then, as in greedy decoding.

    Args:
      step: of the model.
      state: the initial state, one row per image.
      max_length: T.
      uniform: `[N, n, T, 2]` in [0, 1), by which the tokens are drawn; that of an image alone decides on its captions.
      choose: (logits / temperature, uniform numbers) -> tokens.
      temperature: below 1 the likely words become likelier, above 1 less likely.
      jit: whether XLA compiles the steps.
    """
    images, most = batch_size(state)
    samples = uniform.shape[1]
    count, most = images * samples, None if most is None else most * samples
    state = take_rows(state, tf.repeat(tf.range(images), samples))
    uniform = tf.reshape(uniform, [count, max_length, 2])
    results = (tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.float32))

    def scored(logits, uniform):
        tokens = choose(logits / temperature, uniform)[:, 0]
        return tokens, tf.gather(tf.nn.log_softmax(logits), tokens, batch_dims=1)

    def advance(t, row, state, tokens, log_prob):
        numbers = tf.gather(uniform[:, t], row)[:, None]
        state, drawn, score = one_step(step, state, tokens, numbers, scored, results, jit, most)
        return state, drawn, tf.tensor_scatter_nd_add(log_prob, row[:, None], score)

    tokens, log_prob = decode(advance, state, max_length, tf.zeros([count]))
    return _best_first(tf.reshape(tokens, [-1, samples, max_length]), tf.reshape(log_prob, [-1, samples]))


def uniforms(seed: Seed, images: tf.Tensor | int, samples: int, max_length: int) -> tf.Tensor:
    """Returns the numbers `[N, n, T, 2]` to sample by; those of an image depend on the seed and on its place."""
    return row_random.uniforms(seed, images, samples, max_length, 2)


def uniforms_of_each(seeds: tf.Tensor, samples: int, max_length: int) -> tf.Tensor:
    """Returns the numbers `[N, n, T, 2]` to sample by, of seeds int64 `[N]`; those of an image depend on its seed."""
    spec = tf.TensorSpec([samples, max_length, 2], tf.float32)

    def of_one(seed):
        return uniforms(tf.stack([seed, 0]), 1, samples, max_length)[0]

    return tf.map_fn(of_one, seeds, fn_output_signature=spec)


def fresh_seed() -> tf.Tensor:
    """Returns a seed `[2]` that is another one at each call, also of an exported graph.

    The operation itself, as `tf.random.uniform` would write a seed that was set for training into the graph, and each
    server would then draw the same captions.
    """
    return tf.raw_ops.RandomUniformInt(shape=[2], minval=INT32[0], maxval=INT32[1], seed=0, seed2=0)


def draw_top_k(logits: tf.Tensor, uniform: tf.Tensor, k: int) -> tf.Tensor:
    """Returns tokens int32 `[r, S]` drawn among the k likeliest of logits `[r, V]`, of equals the lower ids.

    Args:
      logits: `[r, V]`; non-finite ones give the end token.
      uniform: `[r, S, 2]` in [0, 1).
      k: 1 or more; those from V on keep all.
    """
    best, tokens = top_k(logits, min(k, logits.shape[1]))
    return _drawn(tokens, best, uniform, tf.reduce_sum(tf.nn.softmax(logits), axis=1))


def draw_nucleus(logits: tf.Tensor, uniform: tf.Tensor, p: float) -> tf.Tensor:
    """Returns tokens int32 `[r, S]` drawn from the smallest set of likeliest tokens that has probability p or more.

    The token by which the set reaches p belongs to it, so there is always one. Of equals the lower ids come first.

    Args:
      logits: `[r, V]`; non-finite ones give the end token.
      uniform: `[r, S, 2]` in [0, 1).
      p: above 0, to 1, which keeps all.
    """
    if p >= 1:
        return draw(logits, uniform)
    vocabulary = logits.shape[1]
    probabilities = tf.nn.softmax(logits)

    def among(k):
        best, tokens = top_k(logits, k)
        likely = tf.gather(probabilities, tokens, batch_dims=1)
        kept = tf.cumsum(likely, axis=1, exclusive=True) < p
        drawn = _drawn(tokens, tf.where(kept, best, -float("inf")), uniform, tf.reduce_sum(probabilities, axis=1))
        return drawn, tf.reduce_all(tf.reduce_sum(likely, axis=1) >= p)

    if vocabulary <= FEW:
        return among(vocabulary)[0]
    drawn, are_enough = among(FEW)
    return tf.cond(are_enough, lambda: drawn, lambda: among(vocabulary)[0])


def _drawn(tokens: tf.Tensor, logits: tf.Tensor, uniform: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
    """Tokens `[r, S]` drawn from candidates `[r, k]` by their logits; the end where `total` `[r]` is NaN."""
    places = tf.minimum(draw(logits, uniform), tokens.shape[1] - 1)
    return tf.where(tf.math.is_nan(total)[:, None], END, tf.gather(tokens, places, batch_dims=1))


def _best_first(tokens: tf.Tensor, log_prob: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The captions `[N, n, T]` and `[N, n]` of each image in the order of their log-probability, NaN last."""
    known = tf.where(tf.math.is_nan(log_prob), -float("inf"), log_prob)
    _, order = tf.math.top_k(known, log_prob.shape[1])
    return tf.gather(tokens, order, batch_dims=1), tf.gather(log_prob, order, batch_dims=1)
