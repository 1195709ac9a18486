"""The losses of a policy on samples and their credit, and the gradients of these losses.

Three losses, each defined in estimators.py: the policy's and the likelihood's, which are mixed into the captioner's,
and that of a learned baseline. The captioner's takes one pass over the vocabulary.

Shapes: N samples, T steps, n packed tokens.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf

from spidercap.models.captioner import Captioner
from spidercap.models.packing import Packing, pack
from spidercap.models.word_loss import log_probs, weighted_log_likelihood
from spidercap.pipeline.training import estimators, replicas
from spidercap.pipeline.training.experience import Credit, Experience, Likelihood
from spidercap.pipeline.training.logs import PolicyLogs, PolicyStatistics, policy_logs
from spidercap.pipeline.training.moments import moments
from spidercap.pipeline.training.siblings import next_step, siblings_loss

Gradients = list[tf.Tensor]


class PolicyGradients(NamedTuple):
    """Gradients of both models; none for one that is not to learn."""

    captioner: Gradients
    baseline: Gradients
    losses: list[tf.Tensor]  # the captioner's, or the baseline's if the policy is not moved; then a learned baseline's
    statistics: PolicyStatistics

    @property
    def logs(self) -> PolicyLogs:
        """What is logged of them, where this is the only replica."""
        return policy_logs(self.statistics, self.losses)


def policy_gradients(
    captioner: Captioner,
    baseline: keras.Model | None,
    experience: Experience,
    credit: Credit,
    moves_policy: bool = True,
    encode: Callable[[], tf.Tensor] | None = None,
) -> PolicyGradients:
    """Returns the gradients of the captioner's and of the baseline's loss; not `moves_policy`: of the latter alone.

    Without dropout: the probabilities that are differentiated are those that were sampled from. Losses and gradients
    are this replica's share of those of the whole batch: their sum over replicas is that of one replica alone.

    Args:
      captioner: the policy.
      baseline: a learned baseline, if credit has none.
      experience: the samples.
      credit: theirs.
      moves_policy: whether the captioner learns.
      encode: makes the features of the experience again, so that the gradient reaches the encoder's tuned layers; None:
        they are not differentiated.
    """
    count = replicas.total(tf.cast(tf.shape(experience.tokens)[0], tf.float32))
    given = None
    if experience.likelihood is not None:
        given = moments(tf.reduce_sum(tf.cast(experience.likelihood.mask, tf.float32), axis=1))
    if experience.references is not None:
        experience, credit = _with_references(experience, credit)
    packing = pack(experience.tokens)
    values = packing.of(credit.values)
    sampled, predicted = _masks(experience, packing)
    with tf.GradientTape(persistent=True) as tape:
        projection = captioner.projection()
        features = experience.features if encode is None else encode()
        hidden = captioner.hidden(features, experience.tokens, packing, feature_row=experience.feature_row)
        learned = credit.baseline is None
        expected = baseline(hidden, packing.index[:, 1]) if learned else packing.of(credit.baseline)
        baseline_loss = estimators.baseline_loss(values, expected, sampled, count)
        if not moves_policy:
            loss, log_pi = baseline_loss, log_probs(projection, hidden, packing.of(experience.tokens))
        elif credit.siblings is None:
            weights = estimators.policy_weights(values, expected, sampled, count)
            loss, log_pi = _loss(projection, hidden, packing.of(experience.tokens), weights, experience, predicted)
        else:
            loss, log_pi = _loss_of_siblings(projection, hidden, packing, experience, credit.siblings, predicted, count)
    gradients = tape.gradient(loss, captioner.trainable_variables) if moves_policy else []
    statistics = PolicyStatistics(
        surprise=moments(-tf.boolean_mask(log_pi, sampled)),
        advantage=moments(tf.boolean_mask(values - expected, sampled)),
        values=moments(tf.boolean_mask(values, sampled)) if learned else None,
        likelihood=None if predicted is None else moments(-tf.boolean_mask(log_pi, predicted)),
        given=given,
    )
    if not learned:
        return PolicyGradients(gradients, [], [loss], statistics)
    baseline_gradients = tape.gradient(baseline_loss, baseline.trainable_variables)
    return PolicyGradients(gradients, baseline_gradients, [loss, baseline_loss], statistics)


def _loss(projection, hidden, tokens, weights, experience, predicted):
    """The policy's loss, mixed with the likelihood's if tokens are `predicted`, and log pi `[n]` of all tokens."""
    if predicted is not None:
        likelihood = estimators.likelihood_weights(predicted, replicas.count(predicted))
        weights = estimators.mixed_weights(weights, likelihood, experience.likelihood.weight)
    return weighted_log_likelihood(projection, hidden, tokens, -weights)


def _loss_of_siblings(projection, hidden, packing, experience, siblings, predicted, count):
    """The same where the words that learn are siblings: only `predicted` tokens take a pass over the vocabulary."""
    tokens, drawn = experience.tokens, experience.drawn
    place = tf.gather_nd(packing.places(tokens.shape[1]), siblings.state)
    loss = siblings_loss(projection.logits_of(tf.gather(hidden, place), siblings.token), siblings.advantage, count)
    log_pi = packing.of(tf.scatter_nd(next_step(drawn.prefix), drawn.log_prob, tf.shape(tokens)))
    # Weights that are no numbers make every word the end: nothing is left to compare, and the loss would be 0.
    loss += tf.where(tf.reduce_all(tf.math.is_finite(log_pi)), 0.0, float("nan"))
    if predicted is None:
        return loss, log_pi
    rows, weight = tf.where(predicted), experience.likelihood.weight
    weights = tf.gather_nd(estimators.likelihood_weights(predicted, replicas.count(predicted)), rows)
    learned = (tf.gather_nd(x, rows) for x in (hidden, packing.of(tokens)))
    likelihood, terms = weighted_log_likelihood(projection, *learned, -weights)
    return (1 - weight) * loss + weight * likelihood, tf.tensor_scatter_nd_update(log_pi, rows, terms)


def _with_references(experience: Experience, credit: Credit) -> tuple[Experience, Credit]:
    """Reference captions as further rows of given tokens: one pass through the decoder does for both."""
    references = experience.references
    zeros = tf.zeros_like(references.tokens, tf.float32)
    not_given = tf.zeros_like(experience.tokens, tf.bool)
    images = tf.range(tf.shape(references.tokens)[0])
    row = images if experience.feature_row is None else experience.feature_row
    rows = experience._replace(
        feature_row=tf.concat([row, images], axis=0),
        tokens=tf.concat([experience.tokens, references.tokens], axis=0),
        likelihood=Likelihood(
            tf.concat([not_given, estimators.token_mask(references.tokens)], axis=0), references.weight
        ),
    )
    baseline = None if credit.baseline is None else tf.concat([credit.baseline, zeros], axis=0)
    return rows, credit._replace(values=tf.concat([credit.values, zeros], axis=0), baseline=baseline)


def _masks(experience: Experience, packing: Packing) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Masks `[n]` of the packed tokens that were sampled, and of those that are learned by likelihood."""
    if experience.likelihood is None:
        return tf.ones(tf.shape(packing.index)[:1], tf.bool), None
    given = packing.of(experience.likelihood.mask)
    return ~given, given & packing.of(estimators.likelihood_mask(experience.tokens))
