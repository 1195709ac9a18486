"""Weighted log-likelihoods of tokens together with their gradients, in one pass over the vocabulary.

The weights are known in advance, so the gradient of sum_i w_i log pi(g_i | h_i) is computed right after the logits, and
neither logits nor probabilities outlive their block of rows. Automatic differentiation would keep several `[n, V]`.

Shapes: n packed tokens, H units, V tokens of the vocabulary.
"""

from typing import NamedTuple

import tensorflow as tf

from spidercap.models.blocks import in_blocks
from spidercap.models.precision import product
from spidercap.models.special_tokens import FORBIDDEN_BELOW

_SCALAR = tf.TensorSpec([], tf.float32)


class Projection(NamedTuple):
    """The last layer, from hidden states to logits."""

    kernel: tf.Tensor  # [H, V]
    bias: tf.Tensor  # [V]; -1e9 for forbidden tokens
    precision: tf.DType = tf.float32  # of the matrix products
    jit: bool = False

    def logits(self, hidden: tf.Tensor) -> tf.Tensor:
        """Returns logits `[n, V]` of hidden states `[n, H]`."""
        return tf.nn.bias_add(product(hidden, self.kernel, self.precision), self.bias)

    def logits_of(self, hidden: tf.Tensor, tokens: tf.Tensor) -> tf.Tensor:
        """Returns the logit `[W]` of one token `[W]` for each of hidden states `[W, H]`; differentiable."""
        columns = tf.gather(tf.transpose(self.kernel), tokens)  # rows of a copy: columns lie apart in memory
        return tf.reduce_sum(hidden * columns, axis=1) + tf.gather(self.bias, tokens)

    def without_gradient(self) -> "Projection":
        """Returns the same values as constants: loops that use them are not differentiated by a tape that watches."""
        return self._replace(kernel=tf.stop_gradient(self.kernel), bias=tf.stop_gradient(self.bias))


def log_probs(projection: Projection, hidden: tf.Tensor, tokens: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """Returns log pi(token | hidden) `[n]` of hidden states `[n, H]` and tokens `[n]`, without a gradient."""
    projection, hidden = projection.without_gradient(), tf.stop_gradient(hidden)

    def block(hidden, tokens):
        return (_scored(projection, hidden, tokens, smoothing)[0],), ()

    (scores,), _ = in_blocks(block, (hidden, tokens), (_SCALAR,), jit=projection.jit)
    return scores


def weighted_log_likelihood(
    projection: Projection, hidden: tf.Tensor, tokens: tf.Tensor, weights: tf.Tensor, smoothing: float = 0.0
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns sum_i w_i log pi(token_i | hidden_i), which has a gradient, and the terms log pi `[n]`, which have none.

    Args:
      hidden: `[n, H]`.
      tokens: int32 `[n]`.
      weights: `[n]`; no gradient flows into them.
      smoothing: label smoothing: the share of each term that is the mean over all allowed tokens (Szegedy et al. 2016).
    """
    # Or a tape that watches would build the loop's own gradient too, which nobody asks for.
    fixed, weights = projection.without_gradient(), tf.stop_gradient(weights)

    def block(hidden, tokens, weights, kernel_gradient, bias_gradient):
        scores, probabilities = _scored(fixed, hidden, tokens, smoothing)
        # The gradient of w log pi(g) by the logits is w (target - pi); -w goes to the narrower factor of each product.
        with tf.control_dependencies([scores]):  # then nothing else reads them, and they are changed in place
            slopes = _less_targets(fixed, probabilities, tokens, smoothing)
        weights = -weights[:, None]
        hidden_gradient = weights * product(slopes, fixed.kernel, fixed.precision, transpose_b=True)
        with tf.control_dependencies([hidden_gradient]):  # two large products at once take longer than in turn
            kernel_gradient += product(weights * hidden, slopes, fixed.precision, transpose_a=True)
        bias_gradient += tf.squeeze(tf.matmul(weights, slopes, transpose_a=True), axis=0)
        return (scores, hidden_gradient), (kernel_gradient, bias_gradient)

    @tf.custom_gradient
    def run(hidden, kernel, bias):
        del kernel, bias  # `fixed` has their values
        results = (_SCALAR, tf.TensorSpec([hidden.shape[1]], tf.float32))
        start = (tf.zeros_like(fixed.kernel), tf.zeros_like(fixed.bias))
        rows = (tf.stop_gradient(hidden), tokens, weights)
        (scores, hidden_gradient), gradients = in_blocks(block, rows, results, start, fixed.jit)

        def gradient(upstream, _):
            found = [hidden_gradient, *gradients]
            # If the loss is this sum alone, nothing has to be scaled, which saves a pass over all weights.
            return tf.cond(upstream == 1.0, lambda: found, lambda: [upstream * g for g in found])

        return (tf.reduce_sum(weights * scores), scores), gradient

    total, scores = run(hidden, projection.kernel, projection.bias)
    return total, tf.stop_gradient(scores)


def _scored(
    projection: Projection, hidden: tf.Tensor, tokens: tf.Tensor, smoothing: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Terms log pi `[n]` and probabilities `[n, V]`."""
    logits = projection.logits(hidden)
    probabilities = tf.nn.softmax(logits)
    chosen, probability = (tf.gather(x, tokens, batch_dims=1) for x in (logits, probabilities))
    # log sum exp of the logits, from a token's logit and probability: the target's, or the largest if too small.
    total = tf.cond(
        tf.reduce_all(probability > 1e-30),
        lambda: chosen - tf.math.log(probability),
        lambda: tf.reduce_max(logits, axis=1) - tf.math.log(tf.reduce_max(probabilities, axis=1)),
    )
    scores = chosen - total
    if smoothing:
        allowed = _allowed(projection)
        means = tf.linalg.matvec(logits, allowed / tf.reduce_sum(allowed)) - total
        scores = (1 - smoothing) * scores + smoothing * means
    return scores, probabilities


def _less_targets(projection: Projection, probabilities: tf.Tensor, tokens: tf.Tensor, smoothing: float) -> tf.Tensor:
    """Probabilities `[n, V]` minus their targets."""
    if smoothing:
        allowed = _allowed(projection)
        probabilities -= allowed * (smoothing / tf.reduce_sum(allowed))
    place = tf.stack([tf.range(tf.shape(tokens)[0]), tokens], axis=1)
    return tf.tensor_scatter_nd_sub(probabilities, place, tf.fill(tf.shape(tokens), 1 - smoothing))


def _allowed(projection: Projection) -> tf.Tensor:
    return tf.cast(projection.bias > FORBIDDEN_BELOW, tf.float32)
