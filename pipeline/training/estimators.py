"""Losses and estimates as pure functions of arrays; every gradient that must not flow is stopped here.

The captioner's losses are weighted sums of log-probabilities, L = -sum_i w_i log pi(g_i), in which the weights are
constants. Each has two functions: its weights, which the train step mixes and gives to one pass over the vocabulary
(models/word_loss.py), and the loss itself.

Shapes: B images, M samples an image, N = B * M samples, T steps, Q rollouts, n packed tokens (models/packing.py).
Every function raises ValueError for other shapes.
"""

import tensorflow as tf

from spidercap.models.special_tokens import PAD, UNKNOWN
from spidercap.pipeline.training.shapes import check_shapes


def token_mask(tokens: tf.Tensor) -> tf.Tensor:
    """Returns bool `[N, T]`: true up to and with the end token.

    tokens  7  4  2  0  0     (2 ends, 0 pads)
    mask    1  1  1  0  0
    """
    check_shapes("token_mask", tokens=(tokens, "N T"))
    return tokens != PAD


def likelihood_mask(tokens: tf.Tensor) -> tf.Tensor:
    """Returns bool `[N, T]`: the tokens that likelihood training predicts.

    An unknown word is read, but never predicted: it has no probability, as it may not be generated.

        tokens  7  3  4  2  0     (3 is unknown)
        mask    1  0  1  1  0
    """
    check_shapes("likelihood_mask", tokens=(tokens, "N T"))
    return token_mask(tokens) & (tokens != UNKNOWN)


def given_mask(tokens: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
    """Returns bool `[N, T]`: the first s = `steps` tokens of each caption, which MIXER takes from a reference.

    tokens  7  4  5  2  0
    s = 2   1  1  0  0  0
    s = 5   1  1  1  1  0
    """
    check_shapes("given_mask", tokens=(tokens, "N T"), steps=(steps, ""))
    return token_mask(tokens) & (tf.range(tokens.shape[1]) < steps)


def mixer_weight(steps: tf.Tensor, max_length: int, weight: float) -> tf.Tensor:
    """Returns the share of the likelihood of the first s = `steps` tokens in the loss; the reward has the rest.

    `weight` where there are tokens of both kinds; 1 or 0 where all are of one kind.
    """
    check_shapes("mixer_weight", steps=(steps, ""), weight=(weight, ""))
    return tf.where(steps >= max_length, 1.0, tf.where(steps <= 0, 0.0, weight))


def policy_weights(values: tf.Tensor, baseline: tf.Tensor, sampled: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Returns the weights `[n]` of the policy loss: (Q_i - b_i) / N for sampled tokens, 0 for others.

    Args:
      values: `[n]`, Q of the tokens.
      baseline: `[n]`, b of the states that chose them.
      sampled: bool `[n]`, the tokens that the policy chose.
      count: scalar float32, N.
    """
    _check_packed("policy_weights", count, values=values, baseline=baseline, sampled=sampled)
    return tf.where(sampled, tf.stop_gradient(values - baseline) / count, 0.0)


def policy_loss(
    log_probs: tf.Tensor, values: tf.Tensor, baseline: tf.Tensor, sampled: tf.Tensor, count: tf.Tensor
) -> tf.Tensor:
    """Returns -1/N sum_i (Q_i - b_i) log pi(g_i) over sampled tokens; its gradient is the policy gradient's estimate.

    Source: Liu et al. 2017, eq. 8. `log_probs` are `[n]`, the others those of `policy_weights`.
    """
    _check_packed("policy_loss", count, log_probs=log_probs, values=values, baseline=baseline, sampled=sampled)
    return -tf.reduce_sum(policy_weights(values, baseline, sampled, count) * log_probs)


def baseline_loss(values: tf.Tensor, baseline: tf.Tensor, sampled: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Returns 1/N sum_i (Q_i - b_i)^2 over sampled tokens; the gradient flows into b alone (Liu et al. 2017, alg. 1).

    Shapes are those of `policy_weights`.
    """
    _check_packed("baseline_loss", count, values=values, baseline=baseline, sampled=sampled)
    values, baseline = tf.boolean_mask(values, sampled), tf.boolean_mask(baseline, sampled)
    return tf.reduce_sum((tf.stop_gradient(values) - baseline) ** 2) / count


def likelihood_weights(mask: tf.Tensor, count: tf.Tensor | None = None) -> tf.Tensor:
    """Returns the weights `[n]` of the likelihood loss: 1 / `count` for tokens in the mask `[n]`, 0 elsewhere.

    `count` is the number of such tokens in the whole batch, by default that of the mask.
    """
    check_shapes("likelihood_weights", mask=(mask, "n"))
    counted = tf.cast(mask, tf.float32)
    count = tf.reduce_sum(counted) if count is None else count
    check_shapes("likelihood_weights", count=(count, ""))
    return tf.math.divide_no_nan(counted, count)


def likelihood_loss(log_probs: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Returns the mean of -log pi(g_i) `[n]` over the tokens of the mask `[n]`, 0 of none.

    Source: Liu et al. 2017, eq. 2, averaged over tokens instead of captions.
    """
    check_shapes("likelihood_loss", log_probs=(log_probs, "n"), mask=(mask, "n"))
    return -tf.reduce_sum(likelihood_weights(mask) * log_probs)


def mixed_weights(policy: tf.Tensor, likelihood: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Returns the weights `[n]` of (1 - w) policy loss + w likelihood loss, of those of each `[n]` and a scalar w."""
    check_shapes("mixed_weights", policy=(policy, "n"), likelihood=(likelihood, "n"), weight=(weight, ""))
    return (1 - weight) * policy + weight * likelihood


def sample_values(tokens: tf.Tensor, sample_rewards: tf.Tensor) -> tf.Tensor:
    """Returns each sample's reward `[N]` as the value of its tokens `[N, T]`, zero after the end (REINFORCE)."""
    check_shapes("sample_values", tokens=(tokens, "N T"), sample_rewards=(sample_rewards, "N"))
    return tf.where(token_mask(tokens), sample_rewards[:, None], 0.0)


def prefix_leaders(tokens: tf.Tensor, samples: int) -> tf.Tensor:
    """Returns int32 `[N, T]`: of the samples of the same image with the same tokens up to t, the first one.

    M = 3 samples of one image:

        tokens   7  4  2         leader   0  0  0
                 7  5  2                  0  1  1
                 7  4  2                  0  0  0
    """
    check_shapes("prefix_leaders", tokens=(tokens, "N T"))
    _check_samples("prefix_leaders", tokens, samples, least=1)
    of_image = tf.reshape(tokens, [-1, samples, tokens.shape[1]])
    equal = tf.cast(of_image[:, :, None] == of_image[:, None], tf.float32)  # [B, M, M, T]
    first = tf.argmax(tf.math.cumprod(equal, axis=3), axis=2, output_type=tf.int32)  # [B, M, T]
    leaders = first + samples * tf.range(tf.shape(of_image)[0])[:, None, None]
    return tf.ensure_shape(tf.reshape(leaders, tf.shape(tokens)), tokens.shape)


def action_values(
    tokens: tf.Tensor,
    sample_rewards: tf.Tensor,
    prefix: tf.Tensor,
    rollout_rewards: tf.Tensor,
    leaders: tf.Tensor | None = None,
) -> tf.Tensor:
    """Returns Q(g_<t, g_t) `[N, T]`, zero after the end (Liu et al. 2017, eq. 7).

    The mean reward of the rollouts from g_1..g_t; at the last token the reward of the sample itself.

        tokens   7    4    2    0
        Q       q_0  q_1   r    0     (q_t: mean over the rollouts whose prefix ends at t; r: the sample's reward)

    Args:
      tokens: int32 `[N, T]`.
      sample_rewards: float32 `[N]`.
      prefix: int32 `[Q, 2]`, the (sample, last step) of each rollout's prefix.
      rollout_rewards: float32 `[Q]`.
      leaders: int32 `[N, T]`, the sample whose rollouts stand for this one's, where samples share them.
    """
    check_shapes(
        "action_values",
        tokens=(tokens, "N T"),
        sample_rewards=(sample_rewards, "N"),
        prefix=(prefix, "Q 2"),
        rollout_rewards=(rollout_rewards, "Q"),
        **({} if leaders is None else {"leaders": (leaders, "N T")}),
    )
    shape = tf.shape(tokens)
    total = tf.scatter_nd(prefix, rollout_rewards, shape)
    count = tf.scatter_nd(prefix, tf.ones_like(rollout_rewards), shape)
    means = tf.math.divide_no_nan(total, count)
    if leaders is not None:
        steps = tf.broadcast_to(tf.range(shape[1]), shape)
        means = tf.gather_nd(means, tf.stack([leaders, steps], axis=2))
    mask = token_mask(tokens)
    last = mask & ~tf.pad(mask[:, 1:], [[0, 0], [0, 1]])
    return tf.where(last, sample_rewards[:, None], tf.where(mask, means, 0.0))


def leave_one_out(sample_rewards: tf.Tensor, samples: int) -> tf.Tensor:
    """Returns for each sample `[N]` the mean reward of the other M - 1 of its image (Kool et al. 2019, eq. 8)."""
    check_shapes("leave_one_out", sample_rewards=(sample_rewards, "N"))
    _check_samples("leave_one_out", sample_rewards, samples, least=2)
    of_image = tf.reshape(sample_rewards, [-1, samples])
    others = (tf.reduce_sum(of_image, axis=1, keepdims=True) - of_image) / (samples - 1)
    return tf.reshape(others, [-1])


def _check_packed(function: str, count: tf.Tensor, **packed: tf.Tensor) -> None:
    """All of them are `[n]`, and `count` is a scalar."""
    check_shapes(function, count=(count, ""), **{name: (values, "n") for name, values in packed.items()})


def _check_samples(function: str, rows: tf.Tensor, samples: int, least: int) -> None:
    if samples < least:
        raise ValueError(f"{function}: samples must be {least} or more, got {samples}")
    if (rows.shape[0] or 0) % samples:
        raise ValueError(f"{function}: N must be a multiple of samples = {samples}, got {rows.shape[0]}")
