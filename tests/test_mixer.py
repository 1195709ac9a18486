"""MIXER: likelihood at one end of its schedule, REINFORCE at the other, and biased between."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from spidercap.models import decoding
from spidercap.models.baseline import StepBaseline
from spidercap.models.special_tokens import END, PAD, UNKNOWN
from spidercap.pipeline.data.batches import Batch
from spidercap.pipeline.training import estimators, objectives, schedules
from spidercap.pipeline.training.experience import Likelihood
from spidercap.pipeline.training.gradients import policy_gradients
from spidercap.pipeline.training.rewards import Reward
from spidercap.pipeline.training.steps import (
    likelihood_step,
    policy_gradient_step,
    scored_captions,
    split_rewards,
)
from tests import plain
from tests.enumeration import (
    CAPTIONS,
    REWARDS,
    T,
    continuations,
    distribution,
    exact_gradient,
    expected_gradient,
    experience_of,
    flat,
    table_reward,
)
from tests.oracles import padded

REFERENCES = [[4, 5, END], [6, END]]


def test_schedule_drawn():
    """
    T = 8, 3 less every 2 epochs:
    epoch  0  1  1.9  2  3.9  4  5.9  6  100
    s      8  8   8   5   5   2   2   0   0
    """
    epochs = [0, 1, 1.9, 2, 3.9, 4, 5.9, 6, 100]
    assert [schedules.mixer_steps(e, 8, 3, 2) for e in epochs] == [8, 8, 8, 5, 5, 2, 2, 0, 0]
    assert schedules.mixer_steps(1.2, 20, 3, 0.2) == 2  # six times, though 1.2 / 0.2 is 5.999 to a float
    # The authors': 3 less every 5 epochs.
    assert [schedules.mixer_steps(e, 20, 3, 5) for e in (0, 5, 10, 29, 30, 34.9, 35)] == [20, 17, 14, 5, 2, 2, 0]


def test_mask_drawn():
    """
    words   7 3 4 2 0   (3 unknown, 2 ends)
    s = 0   . . . . .
    s = 2   1 1 . . .
    s = 5   1 1 1 1 .   nothing after the end
    """
    words = tf.constant([[7, 3, 4, 2, 0]])
    for steps, mask in ((0, [0, 0, 0, 0, 0]), (2, [1, 1, 0, 0, 0]), (5, [1, 1, 1, 1, 0])):
        np.testing.assert_array_equal(estimators.given_mask(words, tf.constant(steps)), [mask])


def test_weight_drawn():
    """Likelihood counts half between the ends of the schedule, all at s = T, nothing at s = 0."""
    assert [float(estimators.mixer_weight(tf.constant(s), 3, 0.5)) for s in (3, 2, 1, 0)] == [1, 0.5, 0.5, 0]


@pytest.fixture
def mixer(toy):
    """(captioner, step baseline that says something, features, objective)."""
    captioner, _, features = toy
    baseline = StepBaseline(5, T)
    rng = np.random.default_rng(2)
    for weight in baseline.trainable_variables:
        weight.assign(rng.normal(0, 0.3, weight.shape))
    return captioner, baseline, features, objectives.mixer(captioner, T, mixer_likelihood_weight=0.5)


def batch_of(features):
    return Batch(tf.constant(features), tf.constant([0, 1]), tf.constant(padded(REFERENCES, T)))


def learned(experience, objective, captioner, baseline):
    credit = objective.credit(experience, *split_rewards(experience, table_reward(*scored_captions(experience))))
    gradients, baseline_gradients, losses, logs = policy_gradients(captioner, baseline, experience, credit)
    return flat(gradients), flat(baseline_gradients), float(losses[0]), logs


@pytest.mark.parametrize("s", [0, 1, 2, 3])
def test_words_are_given_up_to_s_and_sampled_from_there(mixer, s):
    captioner, _, features, objective = mixer
    many = Batch(*(tf.repeat(x, 300, axis=0) for x in batch_of(features)[:3]))
    experience = objective.sample(many, tf.constant([1, 2]), tf.constant(float(s)))
    np.testing.assert_array_equal(experience.tokens[:, :s], many.tokens[:, :s])
    mask = estimators.token_mask(experience.tokens).numpy()
    np.testing.assert_array_equal(experience.likelihood.mask, mask & (np.arange(T) < s))
    for row, reference in enumerate(REFERENCES):
        rest = experience.tokens.numpy()[300 * row : 300 * (row + 1)]
        if s < len(reference):
            probability = distribution(captioner, features[row : row + 1])
            possible = continuations(probability, reference[:s])
            seen = {c: (rest == padded([c], T)).all(axis=1).sum() for c in possible}
            assert sum(seen.values()) == 300
            likeliest = max(possible, key=possible.get)
            assert abs(seen[likeliest] / 300 - possible[likeliest]) < 4 * 0.5 / 300**0.5
        else:
            np.testing.assert_array_equal(rest, padded([reference] * 300, T))


def test_at_T_it_is_likelihood_number_for_number(mixer):
    """The same loss, and after a step the same weights, as the likelihood step without dropout; no baseline moves."""
    captioner, baseline, features, objective = mixer
    references = [[4, UNKNOWN, END], [6, END]]  # an unknown word is read, never predicted
    batch = batch_of(features)._replace(tokens=tf.constant(padded(references, T)))
    reward = Reward({"cider": 1.0}, lambda words, image: {"cider": tf.cast(image, tf.float32)}, {})
    before = [w.numpy() for w in captioner.trainable_variables + baseline.trainable_variables]
    results = []
    for kind in ("mle", "mixer"):
        for weight, value in zip(captioner.trainable_variables + baseline.trainable_variables, before, strict=True):
            weight.assign(value)
        optimizers = [keras.optimizers.SGD(0.5), keras.optimizers.SGD(0.5)]
        optimizers[0].build(captioner.trainable_variables)
        optimizers[1].build(baseline.trainable_variables)
        step = (
            likelihood_step(captioner, optimizers[0], feature_dropout=0.2)
            if kind == "mle"
            else policy_gradient_step(captioner, baseline, reward, objective, *optimizers, feature_dropout=0.2)
        )
        logs = step(batch, tf.constant([3, 4]), tf.constant(float(T)))
        results.append((float(logs.loss), flat(captioner.trainable_variables), flat(baseline.trainable_variables)))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-7)
    np.testing.assert_allclose(results[0][1], results[1][1], atol=1e-7)
    np.testing.assert_array_equal(results[0][2], results[1][2])
    assert np.abs(results[0][1] - flat(before[: len(captioner.trainable_variables)])).max() > 1e-3


def test_at_0_it_is_reinforce_number_for_number(mixer):
    """Of the same sampled captions: K = 0 with the same baseline."""
    captioner, baseline, features, objective = mixer
    experience = objective.sample(batch_of(features), tf.constant([5, 6]), tf.constant(0.0))
    reinforce = objectives.policy_gradient(captioner, T, samples=1, rollouts=0)
    unmixed = experience._replace(likelihood=None)
    for a, b in zip(
        learned(experience, objective, captioner, baseline)[:3],
        learned(unmixed, reinforce, captioner, baseline)[:3],
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-7)


def test_between_both_halves_count_as_weighted(mixer):
    """0 < s < T: half the likelihood of given words, half the loss of sampled ones, each packed by hand."""
    captioner, baseline, features, objective = mixer
    experience = objective.sample(batch_of(features), tf.constant([1, 4]), tf.constant(1.0))
    sample_rewards, _ = split_rewards(experience, table_reward(*scored_captions(experience)))
    hidden = plain.hidden(captioner, experience.features, experience.tokens).numpy()
    given, sampled = [], []
    for row, words in enumerate(experience.tokens.numpy()):
        for t in range(int(np.sum(words != PAD))):
            here = tf.constant(hidden[row, t : t + 1])
            log_prob = float(plain.log_probs(captioner, here, tf.constant(words[t : t + 1]))[0])
            expected = float(baseline(tf.constant(hidden[row, t : t + 1]), tf.constant([t]))[0])
            if t < 1:
                given.append(-log_prob)
            else:
                sampled.append(-(float(sample_rewards[row]) - expected) * log_prob)
    assert len(given) == 2 and len(sampled) > 0
    loss = learned(experience, objective, captioner, baseline)[2]
    assert loss == pytest.approx(0.5 * np.mean(given) + 0.5 * np.sum(sampled) / 2, abs=1e-5)


def test_the_baseline_of_each_step_is_its_own():
    baseline = StepBaseline(4, 3)
    baseline.value.kernel.assign(tf.constant(np.arange(12).reshape(4, 3), tf.float32))
    baseline.value.bias.assign([100, 200, 300])
    hidden = tf.constant([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    np.testing.assert_allclose(baseline(hidden, tf.constant([2, 0, 1])), [302, 103, 210])


@pytest.mark.parametrize("s", [0, 1, 2])
def test_bias(mixer, s):
    """The reward's part, exact by enumeration, for one picture and one reference.

    At s = 0 it is the gradient of the expected reward. For 0 < s < T captions begin with the reference's words, which
    the policy might never say, and nothing is learned about the first s words: another direction.
    """
    captioner, baseline, features, objective = mixer
    features, reference = features[:1], REFERENCES[0]
    probability = distribution(captioner, features)
    possible = continuations(probability, reference[:s])
    captions = list(possible)
    given = decoding.Given(tf.constant(padded([reference] * len(captions), T)), tf.constant(s))
    experience = experience_of(features, [(c,) for c in captions])
    mask = estimators.given_mask(experience.tokens, given.steps)
    experience = experience._replace(likelihood=Likelihood(mask, tf.constant(0.0)))  # the reward's part alone
    reward = tf.constant([REWARDS[c] for c in captions], tf.float32)
    credit = objective.credit(experience, reward, tf.zeros([0]))
    total = expected_gradient(captioner, baseline, experience, credit, np.array([possible[c] for c in captions]))
    exact = exact_gradient(captioner, features)
    if s == 0:
        assert len(captions) == len(CAPTIONS)
        np.testing.assert_allclose(total, exact, atol=1e-5)
    else:
        assert np.linalg.norm(total - exact) > 0.3 * np.linalg.norm(exact)
