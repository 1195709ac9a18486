"""Weighted log-likelihoods of words together with their gradients, in one pass over the vocabulary.

As weights are known before, the gradient of sum_i w_i log pi(g_i | h_i) is computed as soon as the logits are there,
and neither logits nor probabilities outlive their block of rows. Differentiation would keep several times `[n, V]`.

Shapes: n packed words, H units, V words.
"""

from typing import NamedTuple

import tensorflow as tf

from spidercap.models.blocks import in_blocks
from spidercap.models.precision import product
from spidercap.models.special_tokens import UNSAID

_SCALAR = tf.TensorSpec([], tf.float32)


class Projection(NamedTuple):
    """From hidden states to logits."""

    kernel: tf.Tensor  # [H, V]
    bias: tf.Tensor  # [V]; -1e9 for what may not be said
    precision: tf.DType = tf.float32  # of the products
    jit: bool = False

    def logits(self, hidden: tf.Tensor) -> tf.Tensor:
        """Returns `[n, V]` of `[n, H]`."""
        return tf.nn.bias_add(product(hidden, self.kernel, self.precision), self.bias)


def log_probs(projection: Projection, hidden: tf.Tensor, words: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """Returns log pi(word | hidden) `[n]` of hidden states `[n, H]` and words `[n]`; nothing is differentiated."""

    def block(hidden, words):
        return (_scored(projection, hidden, words, smoothing)[0],), ()

    (scores,), _ = in_blocks(block, (hidden, words), (_SCALAR,), jit=projection.jit)
    return tf.stop_gradient(scores)


def weighted_log_likelihood(
    projection: Projection, hidden: tf.Tensor, words: tf.Tensor, weights: tf.Tensor, smoothing: float = 0.0
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns sum_i w_i log pi(word_i | hidden_i), to be differentiated, and the terms log pi `[n]`, which are not.

    Args:
      hidden: `[n, H]`.
      words: int32 `[n]`.
      weights: `[n]`; no gradient flows into them.
      smoothing: share of each term that is the mean over all words that may be said (Szegedy et al. 2016).
    """

    def block(hidden, words, weights, kernel_gradient, bias_gradient):
        scores, probabilities = _scored(projection, hidden, words, smoothing)
        # For the logits it is w (target - pi) of w log pi(g); -w goes to the narrower side of each product.
        with tf.control_dependencies([scores]):  # then nobody else reads them, and they are changed where they lie
            slopes = _less_targets(projection, probabilities, words, smoothing)
        weights = -weights[:, None]
        hidden_gradient = weights * product(slopes, projection.kernel, projection.precision, transpose_b=True)
        with tf.control_dependencies([hidden_gradient]):  # two large products at once take longer than one by one
            kernel_gradient += product(weights * hidden, slopes, projection.precision, transpose_a=True)
        bias_gradient += tf.squeeze(tf.matmul(weights, slopes, transpose_a=True), axis=0)
        return (scores, hidden_gradient), (kernel_gradient, bias_gradient)

    @tf.custom_gradient
    def run(hidden, kernel, bias):
        results = (_SCALAR, tf.TensorSpec([hidden.shape[1]], tf.float32))
        start = (tf.zeros_like(kernel), tf.zeros_like(bias))
        (scores, hidden_gradient), gradients = in_blocks(
            block, (hidden, words, weights), results, start, projection.jit
        )

        def gradient(upstream, _):
            found = [hidden_gradient, *gradients]
            # Of a loss that is this sum alone they are done: a pass over all weights is spared.
            return tf.cond(upstream == 1.0, lambda: found, lambda: [upstream * g for g in found])

        return (tf.reduce_sum(weights * scores), scores), gradient

    total, scores = run(hidden, projection.kernel, projection.bias)
    return total, tf.stop_gradient(scores)


def _scored(
    projection: Projection, hidden: tf.Tensor, words: tf.Tensor, smoothing: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Terms log pi `[n]` and probabilities `[n, V]`."""
    logits = projection.logits(hidden)
    probabilities = tf.nn.softmax(logits)
    chosen, probability = (tf.gather(x, words, batch_dims=1) for x in (logits, probabilities))
    # log sum exp of the logits, from a word's logit and probability: its own, or the largest if its own is too small.
    total = tf.cond(
        tf.reduce_all(probability > 1e-30),
        lambda: chosen - tf.math.log(probability),
        lambda: tf.reduce_max(logits, axis=1) - tf.math.log(tf.reduce_max(probabilities, axis=1)),
    )
    scores = chosen - total
    if smoothing:
        sayable = _sayable(projection)
        means = tf.linalg.matvec(logits, sayable / tf.reduce_sum(sayable)) - total
        scores = (1 - smoothing) * scores + smoothing * means
    return scores, probabilities


def _less_targets(projection: Projection, probabilities: tf.Tensor, words: tf.Tensor, smoothing: float) -> tf.Tensor:
    """Probabilities `[n, V]` less what they are drawn to."""
    if smoothing:
        sayable = _sayable(projection)
        probabilities -= sayable * (smoothing / tf.reduce_sum(sayable))
    place = tf.stack([tf.range(tf.shape(words)[0]), words], axis=1)
    return tf.tensor_scatter_nd_sub(probabilities, place, tf.fill(tf.shape(words), 1 - smoothing))


def _sayable(projection: Projection) -> tf.Tensor:
    return tf.cast(projection.bias > UNSAID, tf.float32)
