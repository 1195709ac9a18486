"""The variants of one train step: how a batch becomes an update of the weights.

A step on a reward samples, scores and updates, one after the other: inside one tf.function if all of the reward is
compiled, else with scoring on the host between two compiled halves. What it samples and how it gives credit is its
objective's.

Shapes: B images, M samples an image, N = B * M samples, T steps, Q other captions.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from spidercap.models import decoding
from spidercap.models.captioner import Captioner
from spidercap.models.packing import pack
from spidercap.models.row_random import RowSeed, Seed, fold_in
from spidercap.models.word_loss import weighted_log_likelihood
from spidercap.pipeline.data.batches import Batch
from spidercap.pipeline.training import estimators, replicas
from spidercap.pipeline.training.experience import Experience, Objective, References, Source
from spidercap.pipeline.training.gradients import Gradients, policy_gradients
from spidercap.pipeline.training.logs import StepLogs, policy_logs
from spidercap.pipeline.training.rewards import Reward
from spidercap.pipeline.training.sample_logs import sample_logs, sample_statistics

# They set these seeds apart from those of tokens, which are folded in by their number.
FEATURE_DROPOUT, READING = 2**20, 2**20 + 1

# (batch, seed [2], level: scalar float32, what the stage anneals) -> scalars to log
TrainStep = Callable[[Batch, tf.Tensor, tf.Tensor], StepLogs]
Sampling = Callable[[Batch, tf.Tensor, tf.Tensor], Experience]  # its first half, of the same arguments
Learning = Callable[[Experience, dict[str, tf.Tensor]], StepLogs]  # its second half: what was sampled, and its scores


class Update(NamedTuple):
    """What became of an update, and what all replicas know of the batch."""

    losses: list[tf.Tensor]
    gradient_norm: tf.Tensor  # of the first gradients, before clipping
    skipped: tf.Tensor  # 1.0 or 0.0
    statistics: Any  # with [R] in place of scalars


def likelihood_step(
    captioner: Captioner,
    optimizer: keras.Optimizer,
    *,
    feature_dropout: float,
    label_smoothing: float = 0.0,
    scheduled_sampling: bool = False,
) -> TrainStep:
    """Returns the step that maximises the likelihood of the references.

    It reads the references' tokens (teacher forcing); with `scheduled_sampling` it reads sampled tokens instead, with
    the level as probability, sampled without dropout.
    """

    def step(batch: Batch, seed: tf.Tensor, level: tf.Tensor) -> StepLogs:
        seed = _seed_of(batch, seed)
        tokens = read = batch.tokens
        packing = pack(tokens)
        predicted = packing.of(estimators.likelihood_mask(tokens))
        weights = estimators.likelihood_weights(predicted, replicas.count(predicted))
        with tf.GradientTape() as tape:
            features = _features(captioner, _source(batch, seed), feature_dropout)
            if scheduled_sampling:
                read_seed = fold_in(seed, READING)
                with tape.stop_recording():
                    read = decoding.read_own_words(*captioner.begin(features), tokens, level, read_seed, captioner.jit)
            hidden = captioner.hidden(features, read, packing, dropout_seed=seed)
            loss, _ = weighted_log_likelihood(
                captioner.projection(), hidden, packing.of(tokens), -weights, label_smoothing
            )
        gradients = tape.gradient(loss, captioner.trainable_variables)
        learning_rate = optimizer.learning_rate
        updated = update([(optimizer, gradients)], [loss])
        return StepLogs(
            loss=updated.losses[0],
            gradient_norm=updated.gradient_norm,
            skipped=updated.skipped,
            learning_rate=learning_rate,
            sampling_probability=level if scheduled_sampling else None,
        )

    return replicas.on_replicas(step)


def policy_gradient_step(
    captioner: Captioner,
    baseline: keras.Model | None,
    reward: Reward,
    objective: Objective,
    optimizer: keras.Optimizer | None,
    baseline_optimizer: keras.Optimizer | None,
    *,
    feature_dropout: float,
    likelihood_weight: float = 0.0,
) -> TrainStep:
    """Returns the step that follows an objective's gradient; without `optimizer` only the baseline learns.

    It is one compiled function if all of the reward is compiled, else two, with scoring between them.

    Args:
      baseline: the learned baseline; None where the objective's credit has a baseline of its own.
      likelihood_weight: if not 0, batches have reference captions, whose likelihood loss has this weight in the
        captioner's loss.
    """
    sample = _sampling(captioner, objective, feature_dropout, likelihood_weight)
    learn = _learning(captioner, baseline, reward, objective, optimizer, baseline_optimizer, feature_dropout)
    if reward.is_compiled:

        def step(batch: Batch, seed: tf.Tensor, level: tf.Tensor) -> StepLogs:
            experience = sample(batch, seed, level)
            return learn(experience, reward.compiled_scores(*scored_captions(experience)))

        return replicas.on_replicas(step)
    first_half, second_half = replicas.on_replicas(sample), replicas.on_replicas(learn, any_rows=True)

    def two_halves(batch: Batch, seed: tf.Tensor, level: tf.Tensor) -> StepLogs:
        experience = first_half(batch, seed, level)
        scores = replicas.each_local(lambda one: reward.scores(*scored_captions(one)), experience)
        return second_half(experience, scores)

    return two_halves


def _sampling(captioner: Captioner, objective: Objective, feature_dropout: float, likelihood_weight: float) -> Sampling:
    """Returns what makes captions of a batch's images, for which the arguments are those of `policy_gradient_step`."""

    def sample(batch: Batch, seed: tf.Tensor, level: tf.Tensor) -> Experience:
        seed = _seed_of(batch, seed)
        source = _source(batch, seed)
        batch = batch._replace(features=_features(captioner, source, feature_dropout))
        experience = objective.sample(batch, seed, level)
        if captioner.tuned is not None:
            experience = experience._replace(source=source)
        if likelihood_weight == 0:
            return experience
        references = References(batch.tokens, tf.constant(likelihood_weight))
        return experience._replace(references=references)

    return sample


def _learning(
    captioner: Captioner,
    baseline: keras.Model | None,
    reward: Reward,
    objective: Objective,
    optimizer: keras.Optimizer | None,
    baseline_optimizer: keras.Optimizer | None,
    feature_dropout: float,
) -> Learning:
    """Returns what follows the gradient of captions that were scored, with the arguments of `policy_gradient_step`."""

    def learn(experience: Experience, scores: dict[str, tf.Tensor]) -> StepLogs:
        scored = tf.cast(tf.shape(experience.tokens)[0] + tf.shape(experience.rollouts.tokens)[0], tf.float32)
        sample_rewards, other_rewards = split_rewards(experience, reward.total(scores))
        credit = objective.credit(experience, sample_rewards, other_rewards)
        moves_policy = optimizer is not None
        encode = None
        if experience.source is not None and moves_policy:
            encode = functools.partial(_features, captioner, experience.source, feature_dropout)
        found = policy_gradients(captioner, baseline, experience, credit, moves_policy, encode)
        learning_rate = None if optimizer is None else optimizer.learning_rate
        updates = [] if optimizer is None else [(optimizer, found.captioner)]
        if baseline is not None:
            updates.append((baseline_optimizer, found.baseline))
        statistics = scored, found.statistics, sample_statistics(experience.tokens, sample_rewards, scores)
        updated = update(updates, found.losses, statistics)
        scored, of_policy, of_samples = updated.statistics
        return StepLogs(
            loss=updated.losses[0],
            gradient_norm=updated.gradient_norm,
            skipped=updated.skipped,
            learning_rate=learning_rate,
            scored=tf.reduce_sum(scored),
            policy=policy_logs(of_policy, updated.losses),
            samples=sample_logs(of_samples, experience.tokens),
        )

    return learn


def _seed_of(batch: Batch, seed: tf.Tensor) -> Seed:
    """Returns the seed of a batch's rows, of that of the step `[2]`."""
    return seed if batch.first is None else RowSeed(seed, batch.first)


def scored_captions(experience: Experience) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns all captions to be scored, `[N + Q, T]`, samples first, then the other ones, and their images."""
    image_index = tf.gather(experience.image_index, experience.rollouts.prefix[:, 0])
    tokens = tf.concat([experience.tokens, experience.rollouts.tokens], axis=0)
    return tokens, tf.concat([experience.image_index, image_index], axis=0)


def split_rewards(experience: Experience, rewards: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the rewards of the samples `[N]` and of the other captions `[Q]`, of those of `scored_captions`."""
    return tf.split(rewards, [tf.shape(experience.tokens)[0], tf.shape(experience.rollouts.tokens)[0]])


def update(
    updates: Sequence[tuple[keras.Optimizer, Gradients]], losses: Sequence[tf.Tensor], statistics: Any = ()
) -> Update:
    """Applies each optimizer's gradients, or none of them if a gradient or loss is NaN or infinite.

    Gradients and losses are those of this replica; what is applied, or not, is their sum over replicas.
    """
    # Rows of the embedding that occur twice would not count as their sum in the norm.
    own = [tf.convert_to_tensor(g) for _, gradients in updates for g in gradients]
    summed, statistics = replicas.exchange([*losses, *own], statistics)
    losses, rest = summed[: len(losses)], iter(summed[len(losses) :])
    updates = [(optimizer, list(itertools.islice(rest, len(gradients)))) for optimizer, gradients in updates]
    norms = [tf.linalg.global_norm(gradients) for _, gradients in updates]
    finite = tf.reduce_all(tf.math.is_finite(tf.stack([*norms, *losses])))

    def apply() -> tf.Tensor:
        for optimizer, gradients in updates:
            optimizer.apply(gradients)
        return tf.constant(0.0)

    return Update(losses, norms[0], tf.cond(finite, apply, lambda: tf.constant(1.0)), statistics)


def _source(batch: Batch, seed: Seed) -> Source:
    return Source(batch.features, fold_in(seed, FEATURE_DROPOUT))


def _features(captioner: Captioner, source: Source, rate: float) -> tf.Tensor:
    """The features of a batch, after dropout; the same each time, so that the update reads those of the sampling."""
    return captioner.drop_features(captioner.encoded(source.stored), rate, source.seed)
