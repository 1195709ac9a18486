"""The variants of one train step: how a batch becomes an update of the weights.

A policy-gradient step is experience -> scores -> update, called one after the other: inside one tf.function if all
of the reward is compiled, else with scoring on the host between two compiled halves.

Shapes: B images, N = B * M paths, T steps, Q rollouts, n packed words.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf

from models import decoding
from models.baseline import Baseline
from models.captioner import END, Captioner
from pipeline import estimators
from pipeline.metric_names import COLUMNS
from pipeline.rewards import Reward

BLUR = 7  # sets the seed of the features' dropout apart from those of words

Logs = dict[str, tf.Tensor]
# (features, words or image_index, seed [2]) -> scalars to log
TrainStep = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], Logs]


class Experience(NamedTuple):
    """What the policy said, before anything is scored."""

    features: tf.Tensor  # [N, F]
    image_index: tf.Tensor  # [N]
    words: tf.Tensor  # [N, T]
    rollouts: decoding.Rollouts  # words [Q, T], prefix [Q, 2]


def likelihood_step(captioner: Captioner, optimizer: keras.Optimizer, *, feature_dropout: float) -> TrainStep:
    """Returns the step that maximises the likelihood of the references (teacher forcing)."""

    @tf.function
    def step(features: tf.Tensor, words: tf.Tensor, seed: tf.Tensor) -> Logs:
        features = captioner.blur(features, feature_dropout, tf.random.experimental.stateless_fold_in(seed, BLUR))
        mask = estimators.likelihood_mask(words)
        with tf.GradientTape() as tape:
            hidden = tf.boolean_mask(captioner.hidden(features, words, dropout_seed=seed), mask)
            log_probs = captioner.log_probs(hidden, tf.boolean_mask(words, mask))
            loss = estimators.likelihood_loss(log_probs)
        norm = _apply(optimizer, tape.gradient(loss, captioner.trainable_variables))
        return {"loss": loss, "gradient norm": norm, "learning rate": optimizer.learning_rate}

    return step


def policy_gradient_step(
    captioner: Captioner,
    baseline: Baseline,
    reward: Reward,
    optimizer: keras.Optimizer | None,
    baseline_optimizer: keras.Optimizer,
    *,
    samples: int,
    rollouts: int,
    max_length: int,
    feature_dropout: float,
) -> TrainStep:
    """Returns the step of Liu et al. (2017, algorithm 1); without `optimizer` only the baseline learns.

    It is one compiled function if all of the reward is compiled, else two, with scoring between them.
    """

    def sample(features: tf.Tensor, image_index: tf.Tensor, seed: tf.Tensor) -> Experience:
        features = captioner.blur(features, feature_dropout, tf.random.experimental.stateless_fold_in(seed, BLUR))
        return sample_experience(captioner, features, image_index, samples, rollouts, max_length, seed)

    def learn(experience: Experience, scores: dict[str, tf.Tensor]) -> Logs:
        path_reward, values = action_rewards(experience, reward.total(scores))
        gradients, baseline_gradients, logs = policy_gradients(captioner, baseline, experience, values)
        if optimizer is not None:
            logs["gradient norm"] = _apply(optimizer, gradients)
            logs["learning rate"] = optimizer.learning_rate
        _apply(baseline_optimizer, baseline_gradients)
        return logs | path_logs(experience.words, path_reward, scores)

    if reward.is_compiled:

        @tf.function
        def step(features: tf.Tensor, image_index: tf.Tensor, seed: tf.Tensor) -> Logs:
            experience = sample(features, image_index, seed)
            return learn(experience, reward.compiled_scores(*scored_captions(experience)))

    else:
        first_half, second_half = tf.function(sample), tf.function(learn, reduce_retracing=True)

        def step(features: tf.Tensor, image_index: tf.Tensor, seed: tf.Tensor) -> Logs:
            experience = first_half(features, image_index, seed)
            return second_half(experience, reward.scores(*scored_captions(experience)))

    return step


def sample_experience(
    captioner: Captioner,
    features: tf.Tensor,
    image_index: tf.Tensor,
    samples: int,
    rollouts: int,
    max_length: int,
    seed: tf.Tensor,
) -> Experience:
    """Returns M paths for each of B images, and K rollouts from every prefix of every path."""
    features = tf.repeat(features, samples, axis=0)
    path_seed, rollout_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    paths = decoding.sample(captioner.step, captioner.start(features), max_length, path_seed)
    rolled = decoding.roll_out(captioner.step, paths, rollouts, rollout_seed)
    return Experience(features, tf.repeat(image_index, samples), paths.words, rolled)


def scored_captions(experience: Experience) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns all that is to be scored: the paths, then the rollouts, `[N + Q, T]`, and their images `[N + Q]`."""
    path, rollouts = experience.words, experience.rollouts
    owner = tf.gather(experience.image_index, rollouts.prefix[:, 0])
    return tf.concat([path, rollouts.words], axis=0), tf.concat([experience.image_index, owner], axis=0)


def action_rewards(experience: Experience, rewards: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the reward of each path `[N]` and the value Q of each of its words `[N, T]`.

    `rewards` are those of `scored_captions`, `[N + Q]`.
    """
    path, rollouts = experience.words, experience.rollouts
    path_reward, rollout_reward = tf.split(rewards, [tf.shape(path)[0], tf.shape(rollouts.words)[0]])
    return path_reward, estimators.action_values(path, path_reward, rollouts.prefix, rollout_reward)


def policy_gradients(
    captioner: Captioner, baseline: Baseline, experience: Experience, values: tf.Tensor
) -> tuple[list[tf.Tensor], list[tf.Tensor], Logs]:
    """Returns the gradients of the captioner's and of the baseline's loss, and what to log.

    Without dropout: the probabilities that are differentiated are those that were sampled from.
    """
    words = experience.words
    paths = tf.cast(tf.shape(words)[0], tf.float32)
    mask = estimators.path_mask(words)
    packed = tf.boolean_mask(values, mask)
    with tf.GradientTape(persistent=True) as tape:
        hidden = tf.boolean_mask(captioner.hidden(experience.features, words), mask)
        log_probs = captioner.log_probs(hidden, tf.boolean_mask(words, mask))
        expected = baseline(hidden)
        loss = estimators.reinforce_loss(log_probs, packed, expected, paths)
        baseline_loss = estimators.baseline_loss(packed, expected, paths)
    gradients = tape.gradient(loss, captioner.trainable_variables)
    baseline_gradients = tape.gradient(baseline_loss, baseline.trainable_variables)
    logs = {
        "loss": loss,
        "baseline loss": baseline_loss,
        "explained variance": estimators.explained_variance(packed, expected),
        "advantage spread": tf.math.reduce_std(packed - expected),
        # The mean of -log pi over words that were sampled estimates the policy's entropy without bias.
        "entropy": -tf.reduce_mean(log_probs),
    }
    return gradients, baseline_gradients, logs


def path_logs(words: tf.Tensor, path_reward: tf.Tensor, scores: dict[str, tf.Tensor]) -> Logs:
    """Returns what is worth watching in sampled captions `[N, T]` and their rewards `[N]`.

    `scores` are the metrics that the reward is made of, `[N]` or longer: each is logged by itself, without its weight.
    """
    ended = tf.reduce_any(words == END, axis=1)
    paths = tf.shape(words)[0]
    return {
        "reward": tf.reduce_mean(path_reward),
        "best reward": tf.reduce_max(path_reward),
        **{f"reward {COLUMNS[term]}": tf.reduce_mean(score[:paths]) for term, score in scores.items()},
        "caption length": tf.reduce_mean(tf.cast(decoding.lengths(words), tf.float32)),
        "never ended": 1.0 - tf.reduce_mean(tf.cast(ended, tf.float32)),
    }


def _apply(optimizer: keras.Optimizer, gradients: list[tf.Tensor]) -> tf.Tensor:
    """Updates the variables the optimizer was built for; returns the gradients' norm before clipping."""
    optimizer.apply(gradients)
    return tf.linalg.global_norm(gradients)
