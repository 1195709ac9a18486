"""The variants of one train step: how a batch becomes an update of the weights.

A step on a reward is experience -> scores -> update, called one after the other: inside one tf.function if all of the
reward is compiled, else with scoring on the host between two compiled halves. What it samples and how it gives credit
is its objective's.

Shapes: B images, N = B * M paths, T steps, Q other captions, n packed words.
"""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from spidercap.models import decoding
from spidercap.models.captioner import Captioner
from spidercap.models.packing import Packing, pack
from spidercap.models.word_loss import log_probs, weighted_log_likelihood
from spidercap.pipeline.data.batches import Batch
from spidercap.pipeline.training import estimators
from spidercap.pipeline.training.objectives import Credit, Experience, Likelihood, Objective, Truth
from spidercap.pipeline.training.path_logs import path_logs
from spidercap.pipeline.training.ragged import ragged
from spidercap.pipeline.training.rewards import Reward

BLUR, READ = 2**20, 2**20 + 1  # set these seeds apart from those of words, which are folded in by their number

Logs = dict[str, tf.Tensor]
Gradients = list[tf.Tensor]
# (batch, seed [2], level: scalar float32, what the stage anneals) -> scalars to log
TrainStep = Callable[[Batch, tf.Tensor, tf.Tensor], Logs]


def likelihood_step(
    captioner: Captioner,
    optimizer: keras.Optimizer,
    *,
    feature_dropout: float,
    label_smoothing: float = 0.0,
    scheduled_sampling: bool = False,
) -> TrainStep:
    """Returns the step that maximises the likelihood of the references.

    It reads the true words (teacher forcing); with `scheduled_sampling` it reads, with the level as probability, words
    of its own instead, said without dropout.
    """

    @tf.function
    def step(batch: Batch, seed: tf.Tensor, level: tf.Tensor) -> Logs:
        features = _blurred(captioner, batch, feature_dropout, seed).features
        words = read = batch.words
        if scheduled_sampling:
            read_seed = tf.random.experimental.stateless_fold_in(seed, READ)
            read = decoding.read_own_words(
                captioner.make_step(), captioner.initial_state(features), words, level, read_seed, captioner.jit
            )
        packing = pack(words)
        weights = estimators.likelihood_weights(packing.of(estimators.likelihood_mask(words)))
        with tf.GradientTape() as tape:
            hidden = captioner.hidden(features, read, packing, dropout_seed=seed)
            loss, _ = weighted_log_likelihood(
                captioner.projection(), hidden, packing.of(words), -weights, label_smoothing
            )
        gradients = tape.gradient(loss, captioner.trainable_variables)
        logs = {"loss": loss, "learning rate": optimizer.learning_rate}
        if scheduled_sampling:
            logs["own words read"] = level
        return logs | update([(optimizer, gradients)], [loss])

    return step


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
      baseline: what the objective's credit leaves to a learned baseline; None where it does not.
      likelihood_weight: if not 0, batches have true captions, whose likelihood has this weight in the captioner's loss.
    """

    def sample(batch: Batch, seed: tf.Tensor, level: tf.Tensor) -> Experience:
        blurred = _blurred(captioner, batch, feature_dropout, seed)
        said = objective.sample(blurred, seed, level)
        if likelihood_weight == 0:
            return said
        return said._replace(truth=Truth(blurred.features, blurred.words, tf.constant(likelihood_weight)))

    def learn(said: Experience, scores: dict[str, tf.Tensor]) -> Logs:
        scored = tf.shape(said.words)[0] + tf.shape(said.rollouts.tokens)[0]
        path_reward, other_reward = parted(said, reward.total(scores))
        credit = objective.credit(said, path_reward, other_reward)
        gradients, baseline_gradients, losses, logs = policy_gradients(
            captioner, baseline, said, credit, moves_policy=optimizer is not None
        )
        logs["captions scored"] = tf.cast(scored, tf.float32)
        updates = []
        if optimizer is not None:
            logs["learning rate"] = optimizer.learning_rate
            updates.append((optimizer, gradients))
        if baseline is not None:
            updates.append((baseline_optimizer, baseline_gradients))
        return logs | path_logs(said.words, path_reward, scores) | update(updates, losses)

    if reward.is_compiled:

        @tf.function
        def step(batch: Batch, seed: tf.Tensor, level: tf.Tensor) -> Logs:
            said = sample(batch, seed, level)
            return learn(said, reward.compiled_scores(*scored_captions(said)))

    else:
        first_half, second_half = tf.function(sample), ragged(learn)

        def step(batch: Batch, seed: tf.Tensor, level: tf.Tensor) -> Logs:
            said = first_half(batch, seed, level)
            return second_half(said, reward.scores(*scored_captions(said)))

    return step


def scored_captions(said: Experience) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns all that is to be scored, the paths first, then the other captions, `[N + Q, T]`, and their images."""
    owner = tf.gather(said.image_index, said.rollouts.prefix[:, 0])
    return tf.concat([said.words, said.rollouts.tokens], axis=0), tf.concat([said.image_index, owner], axis=0)


def parted(said: Experience, rewards: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the rewards of the paths `[N]` and of the other captions `[Q]`, of those of `scored_captions`."""
    return tf.split(rewards, [tf.shape(said.words)[0], tf.shape(said.rollouts.tokens)[0]])


def policy_gradients(
    captioner: Captioner, baseline: keras.Model | None, said: Experience, credit: Credit, moves_policy: bool = True
) -> tuple[Gradients, Gradients, list[tf.Tensor], Logs]:
    """Returns the gradients of the captioner's and of the baseline's loss, the losses, and what to log.

    Without dropout: the probabilities that are differentiated are those that were sampled from. The captioner has no
    gradients if it is not `moves_policy`; then the loss is the baseline's.
    """
    paths, taught = tf.cast(tf.shape(said.words)[0], tf.float32), said.truth is not None
    if taught:
        said, credit = _with_truth(said, credit)
    packing = pack(said.words)
    words, values = packing.of(said.words), packing.of(credit.values)
    sampled, likelihood_weights = _parts(said, packing)
    with tf.GradientTape(persistent=True) as tape:
        projection = captioner.projection()
        hidden = captioner.hidden(said.features, said.words, packing)
        learned = credit.expected is None
        expected = baseline(hidden, packing.index[:, 1]) if learned else packing.of(credit.expected)
        baseline_loss = estimators.baseline_loss(
            tf.boolean_mask(values, sampled), tf.boolean_mask(expected, sampled), paths
        )
        weights = tf.where(sampled, estimators.reinforce_weights(values, expected, paths), 0.0)
        if said.likelihood is not None:
            weights = (1 - said.likelihood.weight) * weights + said.likelihood.weight * likelihood_weights
        if moves_policy:
            loss, log_pi = weighted_log_likelihood(projection, hidden, words, -weights)
        else:
            loss, log_pi = baseline_loss, log_probs(projection, hidden, words)
    gradients = tape.gradient(loss, captioner.trainable_variables) if moves_policy else []
    losses, logs = [loss], {"loss": loss} | _word_logs(log_pi, values, expected, sampled)
    if said.likelihood is not None:
        logs["likelihood loss"] = -tf.reduce_sum(likelihood_weights * log_pi)
        if not taught:
            logs["words given"] = tf.reduce_sum(tf.cast(said.likelihood.mask, tf.float32)) / paths
    if not learned:
        return gradients, [], losses, logs
    explained = estimators.explained_variance(tf.boolean_mask(values, sampled), tf.boolean_mask(expected, sampled))
    logs |= {"baseline loss": baseline_loss, "explained variance": explained}
    return gradients, tape.gradient(baseline_loss, baseline.trainable_variables), [*losses, baseline_loss], logs


def _with_truth(said: Experience, credit: Credit) -> tuple[Experience, Credit]:
    """True captions as further rows, all of whose words were given: one pass through the decoder does for both."""
    truth = said.truth
    nothing = tf.zeros_like(truth.words, tf.float32)
    mask = tf.concat([tf.zeros_like(said.words, tf.bool), estimators.path_mask(truth.words)], axis=0)
    rows = said._replace(
        features=tf.concat([said.features, truth.features], axis=0),
        words=tf.concat([said.words, truth.words], axis=0),
        likelihood=Likelihood(mask, truth.weight),
    )
    return rows, Credit(*(None if x is None else tf.concat([x, nothing], axis=0) for x in credit))


def _parts(said: Experience, packing: Packing) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Which packed words were sampled `[n]`, and the weights `[n]` of those that are learned by likelihood."""
    if said.likelihood is None:
        return tf.ones(tf.shape(packing.index)[:1], tf.bool), None
    given = packing.of(said.likelihood.mask)
    learned = given & packing.of(estimators.likelihood_mask(said.words))
    return ~given, estimators.likelihood_weights(learned)


def _word_logs(log_pi: tf.Tensor, values: tf.Tensor, expected: tf.Tensor, sampled: tf.Tensor) -> Logs:
    log_pi, advantages = tf.boolean_mask(log_pi, sampled), tf.boolean_mask(values - expected, sampled)
    return {
        "advantage spread": estimators.spread(advantages),
        # The mean of -log pi over words that were sampled estimates the policy's entropy without bias.
        "entropy": estimators.mean(-log_pi),
    }


def update(updates: Sequence[tuple[keras.Optimizer, Gradients]], losses: Sequence[tf.Tensor]) -> Logs:
    """Applies each optimizer's gradients, or none of them if any, or a loss, is no number.

    Returns the first gradients' norm before clipping, and 1 for an update that was skipped, else 0.
    """
    # Rows of the embedding that are met twice would not count as their sum in the norm.
    updates = [(optimizer, [tf.convert_to_tensor(g) for g in gradients]) for optimizer, gradients in updates]
    norms = [tf.linalg.global_norm(gradients) for _, gradients in updates]
    finite = tf.reduce_all(tf.math.is_finite(tf.stack([*norms, *losses])))

    def apply() -> tf.Tensor:
        for optimizer, gradients in updates:
            optimizer.apply(gradients)
        return tf.constant(0.0)

    skipped = tf.cond(finite, apply, lambda: tf.constant(1.0))
    return {"gradient norm": norms[0], "skipped updates": skipped}


def _blurred(captioner: Captioner, batch: Batch, rate: float, seed: tf.Tensor) -> Batch:
    blur_seed = tf.random.experimental.stateless_fold_in(seed, BLUR)
    return batch._replace(features=captioner.drop_features(batch.features, rate, blur_seed))
