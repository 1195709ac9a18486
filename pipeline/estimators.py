"""Losses and estimates as pure functions of arrays; every gradient that must not flow is stopped here.

Shapes: N paths, T steps, Q rollouts, n packed words (the positions of a mask, row by row).
"""

import tensorflow as tf

from models.captioner import PAD, UNKNOWN


def path_mask(words: tf.Tensor) -> tf.Tensor:
    """Returns bool `[N, T]`: true up to and with the end token.

    words  7  4  2  0  0     (2 ends, 0 pads)
    mask   1  1  1  0  0
    """
    return words != PAD


def likelihood_mask(words: tf.Tensor) -> tf.Tensor:
    """Returns bool `[N, T]`: the words that likelihood training predicts.

    An unknown word is read, but never predicted: it has no probability, as it may never be said.

        words  7  3  4  2  0     (3 is unknown)
        mask   1  0  1  1  0
    """
    return path_mask(words) & (words != UNKNOWN)


def likelihood_loss(log_probs: tf.Tensor) -> tf.Tensor:
    """Returns the mean negative log-likelihood a word, in nats, of packed `[n]` (Liu et al. 2017, eq. 2)."""
    return -tf.reduce_sum(log_probs) / tf.maximum(tf.cast(tf.size(log_probs), tf.float32), 1.0)


def action_values(words: tf.Tensor, path_reward: tf.Tensor, prefix: tf.Tensor, rollout_reward: tf.Tensor) -> tf.Tensor:
    """Returns Q(g_<t, g_t) `[N, T]`, zero after the end (Liu et al. 2017, eq. 7).

    The mean reward of the rollouts from g_1..g_t; at the last word the reward of the path itself.

        words    7    4    2    0
        Q       q_0  q_1   r    0     (q_t: mean over the rollouts whose prefix ends at t; r: path's reward)

    Args:
      words: int32 `[N, T]`.
      path_reward: float32 `[N]`.
      prefix: int32 `[Q, 2]`, the (path, last step) of each rollout's prefix.
      rollout_reward: float32 `[Q]`.
    """
    shape = tf.shape(words)
    total = tf.scatter_nd(prefix, rollout_reward, shape)
    count = tf.scatter_nd(prefix, tf.ones_like(rollout_reward), shape)
    mask = path_mask(words)
    last = mask & ~tf.pad(mask[:, 1:], [[0, 0], [0, 1]])
    return tf.where(last, path_reward[:, None], tf.math.divide_no_nan(total, count))


def reinforce_loss(log_probs: tf.Tensor, values: tf.Tensor, baseline: tf.Tensor, paths: tf.Tensor) -> tf.Tensor:
    """Returns the loss whose gradient is minus the policy gradient, averaged over paths (Liu et al. 2017, eq. 8).

    Args:
      log_probs: `[n]`, of the sampled words.
      values: `[n]`, Q of those words.
      baseline: `[n]`, B_phi of the states that chose them.
      paths: N, as float32.
    """
    advantages = tf.stop_gradient(values - baseline)
    return -tf.reduce_sum(advantages * log_probs) / paths


def baseline_loss(values: tf.Tensor, baseline: tf.Tensor, paths: tf.Tensor) -> tf.Tensor:
    """Returns the squared error of B_phi `[n]` against Q `[n]`, averaged over paths (Liu et al. 2017, alg. 1)."""
    return tf.reduce_sum((tf.stop_gradient(values) - baseline) ** 2) / paths


def explained_variance(values: tf.Tensor, baseline: tf.Tensor) -> tf.Tensor:
    """Returns 1 - Var(Q - B) / Var(Q): 1 is a perfect baseline, 0 one no better than a constant.

    0 also where all values are equal, and there is nothing to explain.
    """
    variance = tf.math.reduce_variance(values)
    return tf.math.divide_no_nan(variance - tf.math.reduce_variance(values - baseline), variance)
