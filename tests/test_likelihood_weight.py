"""Likelihood of true captions beside the reward of sampled ones, in one step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from spidercap.models.special_tokens import END, UNKNOWN
from spidercap.pipeline.data.batches import Batch, image_batches
from spidercap.pipeline.training import estimators, objectives
from spidercap.pipeline.training.experience import References
from spidercap.pipeline.training.gradients import policy_gradients
from spidercap.pipeline.training.rewards import Reward
from spidercap.pipeline.training.steps import (
    likelihood_step,
    policy_gradient_step,
    scored_captions,
    split_rewards,
)
from tests import plain
from tests.conftest import make_toy
from tests.enumeration import (
    CAPTIONS,
    REWARDS,
    T,
    distribution,
    exact_gradient,
    expected_gradient,
    experience_of,
    features_of,
    flat,
    table_reward,
)
from tests.oracles import padded
from tests.tiny_runs import IMAGES, make_arrays
from tests.variants import OBJECTIVES, learned_baseline

SEED, LEVEL = tf.constant([3, 4]), tf.constant(0.0)
TRUE = padded([[4, UNKNOWN, END], [6, END]], T)  # an unknown word is read, never predicted
ONE_PASS = ["pg", "reinforce", "scst", "leave_one_out"]
MIXED = [*ONE_PASS, "vine"]


def batch_of(features):
    return Batch(tf.constant(features), tf.constant([0, 1]), tf.constant(TRUE))


def mean_log_likelihood(captioner, features, words):
    """Gradient and value of the mean log-probability of the words that may be predicted, by hand."""
    mask = estimators.likelihood_mask(tf.constant(words))
    with tf.GradientTape() as tape:
        hidden = tf.boolean_mask(plain.hidden(captioner, tf.constant(features), tf.constant(words)), mask)
        mean = tf.reduce_mean(plain.log_probs(captioner, hidden, tf.boolean_mask(words, mask)))
    return flat(tape.gradient(mean, captioner.trainable_variables)), float(mean)


def step_of(captioner, baseline, name, weight, reward=None):
    """Returns a step with plain descent at a rate of 0.5, for both that learn, and its logs."""
    reward = reward or Reward({"cider": 1.0}, lambda words, image: {"cider": table_reward(words, image)}, {})
    learned = learned_baseline(name, baseline, T)
    optimizers = [keras.optimizers.SGD(0.5), learned and keras.optimizers.SGD(0.5)]
    for optimizer, model in zip(optimizers, (captioner, learned), strict=True):
        if model is not None:
            optimizer.build(model.trainable_variables)
    objective = OBJECTIVES[name](captioner, T)
    return policy_gradient_step(
        captioner, learned, reward, objective, *optimizers, feature_dropout=0.2, likelihood_weight=weight
    )


def restarted(captioner, baseline, build):
    """Returns a step's logs and the captioner's weights after it; the models are then as before."""
    weights = captioner.weights + baseline.weights
    before = [w.numpy() for w in weights]
    logs = build()
    after = flat(captioner.trainable_variables)
    for weight, value in zip(weights, before, strict=True):
        weight.assign(value)
    return logs, after


@pytest.fixture(scope="module")
def by_likelihood():
    """Loss and weights after the likelihood step."""
    captioner, _, features = make_toy()
    optimizer = keras.optimizers.SGD(0.5)
    optimizer.build(captioner.trainable_variables)
    logs = likelihood_step(captioner, optimizer, feature_dropout=0.2)(batch_of(features), SEED, LEVEL)
    return float(logs.loss), flat(captioner.trainable_variables)


@pytest.mark.parametrize("name", MIXED)
def test_all_weight_on_likelihood_is_the_likelihood_step_without_dropout(toy, by_likelihood, name):
    captioner, baseline, features = toy
    loss, weights = by_likelihood
    captioner.dropout = 0.5
    step = step_of(captioner, baseline, name, 1.0)
    logs, mixed = restarted(captioner, baseline, lambda: step(batch_of(features), SEED, LEVEL))
    np.testing.assert_allclose(mixed, weights, atol=1e-7)
    assert float(logs.policy.likelihood_loss) == pytest.approx(loss, abs=1e-6)
    assert float(logs.loss) == pytest.approx(loss, abs=1e-6)
    assert np.abs(weights - flat(captioner.trainable_variables)).max() > 1e-3


@pytest.mark.parametrize("name", MIXED)
def test_both_parts_count_as_weighted(toy, name):
    """Of the same sampled captions: gradient and loss are the weighted sums; the baseline and other logs stay."""
    captioner, baseline, features = toy
    learned, objective = learned_baseline(name, baseline, T), OBJECTIVES[name](captioner, T)
    experience = objective.sample(batch_of(features), SEED, LEVEL)
    credit = objective.credit(experience, *split_rewards(experience, table_reward(*scored_captions(experience))))
    references = References(tf.constant(TRUE), tf.constant(0.3))
    alone = policy_gradients(captioner, learned, experience, credit)
    mixed = policy_gradients(captioner, learned, experience._replace(references=references), credit)
    gradient, likelihood = mean_log_likelihood(captioner, features, TRUE)
    np.testing.assert_allclose(flat(mixed[0]), 0.7 * flat(alone[0]) - 0.3 * gradient, atol=1e-6)
    assert float(mixed[2][0]) == pytest.approx(0.7 * float(alone[2][0]) - 0.3 * likelihood, abs=1e-5)
    assert [float(x) for x in mixed[2][1:]] == pytest.approx([float(x) for x in alone[2][1:]], abs=1e-6)
    if learned is not None:
        np.testing.assert_allclose(flat(mixed[1]), flat(alone[1]), atol=1e-6)
    # No caption begins with given words, as mixer's do: the watch must go on looking.
    with_likelihood, without = (
        {name: float(value) for name, value in found.logs._asdict().items() if value is not None}
        for found in (mixed, alone)
    )
    assert with_likelihood.pop("likelihood_loss") == pytest.approx(-likelihood, abs=1e-5)
    assert with_likelihood == pytest.approx(without, abs=1e-5)


@pytest.mark.parametrize("name", ONE_PASS)
def test_one_pass_is_the_mix_of_both_losses(toy, name):
    """Loss and gradient are those of (1 - w) policy_loss + w likelihood_loss, differentiated as they are written."""
    captioner, baseline, features = toy
    learned, objective = learned_baseline(name, baseline, T), OBJECTIVES[name](captioner, T)
    experience = objective.sample(batch_of(features), SEED, LEVEL)
    credit = objective.credit(experience, *split_rewards(experience, table_reward(*scored_captions(experience))))
    references = References(tf.constant(TRUE), tf.constant(0.3))
    found = policy_gradients(captioner, learned, experience._replace(references=references), credit)

    def packed(features, tokens):
        mask = estimators.token_mask(tokens)
        hidden = tf.boolean_mask(plain.hidden(captioner, features, tokens), mask)
        return hidden, plain.log_probs(captioner, hidden, tf.boolean_mask(tokens, mask)), mask

    with tf.GradientTape() as tape:
        hidden, log_probs, mask = packed(features_of(experience), experience.tokens)
        step = tf.cast(tf.where(mask)[:, 1], tf.int32)
        expected = learned(hidden, step) if credit.baseline is None else tf.boolean_mask(credit.baseline, mask)
        values, sampled = tf.boolean_mask(credit.values, mask), tf.ones_like(step, tf.bool)
        count = tf.cast(len(experience.tokens), tf.float32)
        policy = estimators.policy_loss(log_probs, values, expected, sampled, count)
        _, log_probs, mask = packed(experience.features, references.tokens)
        predicted = tf.boolean_mask(estimators.likelihood_mask(references.tokens), mask)
        loss = 0.7 * policy + 0.3 * estimators.likelihood_loss(log_probs, predicted)
    np.testing.assert_allclose(float(found.losses[0]), float(loss), atol=1e-5)
    gradient = flat(tape.gradient(loss, captioner.trainable_variables))
    np.testing.assert_allclose(flat(found.captioner), gradient, atol=1e-6)


def test_expectation(toy):
    """Exact, over all captions: (1 - w) of the expected reward's gradient and w of the true caption's likelihood."""
    captioner, baseline, features = toy
    features, weight = features[:1], 0.4
    probability = distribution(captioner, features)
    experience = experience_of(features, [(c,) for c in CAPTIONS])
    experience = experience._replace(references=References(tf.constant(TRUE[:1]), tf.constant(weight)))
    objective = objectives.policy_gradient(captioner, T, samples=1, rollouts=0)
    credit = objective.credit(experience, tf.constant([REWARDS[c] for c in CAPTIONS], tf.float32), tf.zeros([0]))
    # The truth is given beside each outcome, and outcomes are weighed by hand: theirs sum to one, as its own does.
    total = expected_gradient(captioner, baseline, experience, credit, np.array([probability[c] for c in CAPTIONS]))
    exact = (1 - weight) * exact_gradient(captioner, features)
    exact += weight * mean_log_likelihood(captioner, features, TRUE[:1])[0]
    np.testing.assert_allclose(total, exact, atol=1e-5)


def test_a_reward_on_the_host_learns_the_same(toy):
    captioner, baseline, features = toy
    host = Reward({"meteor": 1.0}, lambda c, i: {}, {"meteor": lambda c, i: table_reward(c, i).numpy()})
    found = [
        restarted(captioner, baseline, lambda s=step: s(batch_of(features), SEED, LEVEL))
        for step in (step_of(captioner, baseline, "leave_one_out", 0.3, r) for r in (None, host))
    ]
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-7)
    assert float(found[0][0].loss) == pytest.approx(float(found[1][0].loss), abs=1e-6)


def test_captions_are_drawn_by_the_step_each_of_an_image_alike():
    """Same pictures as without captions; from step 30 on the same captions; 24 images with two captions each."""
    arrays = make_arrays()
    # The first image has one caption more: counts and beginnings are each image's own.
    words = np.concatenate([padded([[4, 4, 4, END]], arrays.tokens.shape[1]), arrays.tokens])
    image_index = np.concatenate([[0], arrays.image_index]).astype(np.int32)
    arrays = type(arrays)(arrays.features, words, image_index, arrays.references)

    def drawn(first, with_captions=True):
        return list(image_batches(arrays, 5, first, 200, (1, 0), with_captions))

    whole = drawn(0)
    for batch, again in zip(whole[30:], drawn(30), strict=True):
        np.testing.assert_array_equal(batch.tokens, again.tokens)
    for batch, other in zip(whole, drawn(0, with_captions=False), strict=True):
        np.testing.assert_array_equal(batch.image_index, other.image_index)
        np.testing.assert_array_equal(batch.features, other.features)
        assert other.tokens is None
    images, drawn_tokens = (np.concatenate([getattr(b, name) for b in whole]) for name in ("image_index", "tokens"))
    for image in range(IMAGES):
        own = words[image_index == image]
        seen = [(drawn_tokens[images == image] == caption).all(axis=1).sum() for caption in own]
        assert sum(seen) == np.sum(images == image) > 40
        assert min(seen) > 0.5 * sum(seen) / len(own)
