"""Losses and estimates as pure functions of arrays; every gradient that must not flow is stopped here.

Shapes: B images, M paths an image, N = B * M paths, T steps, Q rollouts, n packed words (models/packing.py).
"""

import tensorflow as tf

from spidercap.models.special_tokens import PAD, UNKNOWN


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


def given_mask(words: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
    """Returns bool `[N, T]`: the first s = `steps` words of each caption, which MIXER takes from a reference.

    words  7  4  5  2  0
    s = 2  1  1  0  0  0
    s = 5  1  1  1  1  0
    """
    return path_mask(words) & (tf.range(words.shape[1]) < steps)


def mixer_steps(epoch: float, max_length: int, mixer_step: int, mixer_epochs: float) -> int:
    """Returns s, the number of words learned by likelihood: T, less `mixer_step` every `mixer_epochs`, down to 0.

    Source: Ranzato et al. 2016, algorithm 1.
    """
    return max(0, max_length - mixer_step * _changes(epoch, mixer_epochs))


def mixer_weight(steps: tf.Tensor, max_length: int, weight: float) -> tf.Tensor:
    """Returns how much the likelihood of the first s = `steps` words counts; the reward of the others counts the rest.

    `weight` where there are words of both kinds; all where there are those of one kind only.
    """
    return tf.where(steps >= max_length, 1.0, tf.where(steps <= 0, 0.0, weight))


def sampling_probability(epoch: float, most: float, step: float, epochs: float) -> float:
    """Returns scheduled sampling's probability of reading a word of one's own: 0, and `step` more every `epochs`.

    It stays at `most`. Source: Bengio et al. 2015, section 2.4, in steps as self-critical.pytorch takes them.
    """
    return min(most, step * _changes(epoch, epochs))


def _changes(epoch: float, epochs: float) -> int:
    """How often something that changes every so many epochs has changed; 1.2 / 0.2 is 6, whatever floats make of it."""
    return int(epoch / epochs + 1e-9)


def likelihood_weights(mask: tf.Tensor) -> tf.Tensor:
    """Returns the weights `[n]` of log-likelihoods whose weighted sum is their mean over the words of the mask `[n]`.

    Source: Liu et al. 2017, eq. 2, a word instead of a caption.
    """
    counted = tf.cast(mask, tf.float32)
    return tf.math.divide_no_nan(counted, tf.reduce_sum(counted))


def path_values(words: tf.Tensor, path_reward: tf.Tensor) -> tf.Tensor:
    """Returns each path's reward `[N]` as the value of each of its words `[N, T]`, zero after the end (REINFORCE)."""
    return tf.where(path_mask(words), path_reward[:, None], 0.0)


def prefix_leaders(words: tf.Tensor, samples: int) -> tf.Tensor:
    """Returns int32 `[N, T]`: of the paths of the same image that begin with the same words up to t, the first one.

    M = 3 paths of one image:

        words    7  4  2         leader   0  0  0
                 7  5  2                  0  1  1
                 7  4  2                  0  0  0
    """
    of_image = tf.reshape(words, [-1, samples, words.shape[1]])
    equal = tf.cast(of_image[:, :, None] == of_image[:, None], tf.float32)  # [B, M, M, T]
    first = tf.argmax(tf.math.cumprod(equal, axis=3), axis=2, output_type=tf.int32)  # [B, M, T]
    leaders = first + samples * tf.range(tf.shape(of_image)[0])[:, None, None]
    return tf.ensure_shape(tf.reshape(leaders, tf.shape(words)), words.shape)


def action_values(
    words: tf.Tensor,
    path_reward: tf.Tensor,
    prefix: tf.Tensor,
    rollout_reward: tf.Tensor,
    leaders: tf.Tensor | None = None,
) -> tf.Tensor:
    """Returns Q(g_<t, g_t) `[N, T]`, zero after the end (Liu et al. 2017, eq. 7).

    The mean reward of the rollouts from g_1..g_t; at the last word the reward of the path itself.

        words    7    4    2    0
        Q       q_0  q_1   r    0     (q_t: mean over the rollouts whose prefix ends at t; r: path's reward)

    Args:
      words: int32 `[N, T]`.
      path_reward: float32 `[N]`.
      prefix: int32 `[Q, 2]`, the (path, last step) of each rollout's prefix.
      rollout_reward: float32 `[Q]`.
      leaders: int32 `[N, T]`, the path whose rollouts stand for this one's, where paths share them.
    """
    shape = tf.shape(words)
    total = tf.scatter_nd(prefix, rollout_reward, shape)
    count = tf.scatter_nd(prefix, tf.ones_like(rollout_reward), shape)
    means = tf.math.divide_no_nan(total, count)
    if leaders is not None:
        steps = tf.broadcast_to(tf.range(shape[1]), shape)
        means = tf.gather_nd(means, tf.stack([leaders, steps], axis=2))
    mask = path_mask(words)
    last = mask & ~tf.pad(mask[:, 1:], [[0, 0], [0, 1]])
    return tf.where(last, path_reward[:, None], tf.where(mask, means, 0.0))


def leave_one_out(path_reward: tf.Tensor, samples: int) -> tf.Tensor:
    """Returns for each path `[N]` the mean reward of the other M - 1 paths of its image (Kool et al. 2019, eq. 8)."""
    of_image = tf.reshape(path_reward, [-1, samples])
    others = (tf.reduce_sum(of_image, axis=1, keepdims=True) - of_image) / (samples - 1)
    return tf.reshape(others, [-1])


def reinforce_weights(values: tf.Tensor, baseline: tf.Tensor, paths: tf.Tensor) -> tf.Tensor:
    """Returns the weights `[n]` of log pi whose weighted sum has the policy gradient, averaged over paths.

    These are advantages, and constants (Liu et al. 2017, eq. 8).

    Args:
      values: `[n]`, Q of the sampled words.
      baseline: `[n]`, B_phi of the states that chose them.
      paths: N, as float32.
    """
    return tf.stop_gradient(values - baseline) / paths


def baseline_loss(values: tf.Tensor, baseline: tf.Tensor, paths: tf.Tensor) -> tf.Tensor:
    """Returns the squared error of B_phi `[n]` against Q `[n]`, averaged over paths (Liu et al. 2017, alg. 1)."""
    return tf.reduce_sum((tf.stop_gradient(values) - baseline) ** 2) / paths


def explained_variance(values: tf.Tensor, baseline: tf.Tensor) -> tf.Tensor:
    """Returns 1 - Var(Q - B) / Var(Q): 1 is a perfect baseline, 0 one no better than a constant.

    0 also where all values are equal, or there are none, and there is nothing to explain.
    """
    variance = _variance(values)
    return tf.math.divide_no_nan(variance - _variance(values - baseline), variance)


def mean(values: tf.Tensor) -> tf.Tensor:
    """Returns the mean of packed `[n]`, 0 of none."""
    return tf.math.divide_no_nan(tf.reduce_sum(values), tf.cast(tf.size(values), values.dtype))


def spread(values: tf.Tensor) -> tf.Tensor:
    """Returns the standard deviation of packed `[n]`, 0 of none."""
    return tf.sqrt(_variance(values))


def _variance(values: tf.Tensor) -> tf.Tensor:
    return mean((values - mean(values)) ** 2)
