"""Every estimator's expectation is the gradient of the expected reward: by enumeration on a toy, and sampled."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from spidercap.models import decoding
from spidercap.models.baseline import StepBaseline
from spidercap.models.captioners import CAPTIONERS
from spidercap.models.categorical import likeliest
from spidercap.models.decoding import Forks, take_rows
from spidercap.models.rollouts import Rollouts, roll_out
from spidercap.models.special_tokens import PAD, START
from spidercap.pipeline.data.batches import Batch
from spidercap.pipeline.training import estimators, objectives
from spidercap.pipeline.training.gradients import policy_gradients
from spidercap.pipeline.training.steps import scored_captions, split_rewards
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
    outcomes_of,
    table_reward,
    value,
)
from tests.oracles import padded, proper_prefixes

LEVEL = tf.constant(0.0)


@pytest.fixture
def policy(toy):
    """(captioner, baseline with random weights, features [1, 3], probability of every caption)."""
    captioner, baseline, features = toy
    rng = np.random.default_rng(8)
    for weight in baseline.trainable_variables:
        weight.assign(rng.normal(0, 0.3, weight.shape))
    # Around the mean reward, as a trained one: it takes a third of the samples to see a bias.
    baseline.value.bias.assign_add([np.mean(list(REWARDS.values()))])
    return captioner, baseline, features[:1], distribution(captioner, features[:1])


def rewards_of(captions):
    return tf.constant([REWARDS[c] for c in captions], tf.float32)


def check_expectation(policy, objective, outcomes, weights, experience, other_rewards):
    captioner, baseline, features, _ = policy
    samples = len(outcomes[0])
    sample_rewards = rewards_of([c for outcome in outcomes for c in outcome])
    credit = objective.credit(experience, sample_rewards, other_rewards)
    total = expected_gradient(captioner, baseline, experience, credit, np.repeat(weights, samples) / samples)
    exact = exact_gradient(captioner, features)
    assert np.abs(exact).max() > 0.01
    np.testing.assert_allclose(total, exact, atol=1e-5)


def test_every_caption_has_one_probability_and_they_sum_to_one(policy):
    probability = policy[3]
    assert len(CAPTIONS) == 1 + 3 + 9 + 27
    assert sum(probability.values()) == pytest.approx(1, abs=1e-5)
    assert min(probability.values()) > 1e-4  # or the tests below would not see some captions


@pytest.mark.parametrize("toy", CAPTIONERS, indirect=True)
def test_expectation_of_reinforce_with_a_baseline(policy):
    """K = 0: the value of every word is the sample's reward, less the baseline."""
    captioner, _, features, probability = policy
    outcomes, weights = outcomes_of(probability, 1)
    objective = objectives.policy_gradient(captioner, T, samples=1, rollouts=0)
    check_expectation(policy, objective, outcomes, weights, experience_of(features, outcomes), tf.zeros([0]))


@pytest.mark.parametrize("toy", CAPTIONERS, indirect=True)
def test_expectation_of_rollouts(policy):
    """K = 1: every sample, with every way its rollouts can turn out."""
    captioner, _, features, probability = policy
    outcomes, weights, words, prefixes, rewards = [], [], [], [], []

    def add(caption, t, chosen, weight):
        if t == len(caption) - 1:
            for last, rolled_out in enumerate(chosen):
                words.append(rolled_out)
                prefixes.append([len(outcomes), last])
                rewards.append(REWARDS[rolled_out])
            outcomes.append((caption,))
            weights.append(weight)
            return
        for rolled_out, p in continuations(probability, caption[: t + 1]).items():
            add(caption, t + 1, [*chosen, rolled_out], weight * p)

    for caption in CAPTIONS:
        add(caption, 0, [], probability[caption])
    assert sum(weights) == pytest.approx(1, abs=1e-5)
    rolled = Rollouts(tf.constant(padded(words, T)), tf.constant(prefixes, tf.int32))
    objective = objectives.policy_gradient(captioner, T, samples=1, rollouts=1)
    experience = experience_of(features, outcomes, rolled)
    check_expectation(policy, objective, outcomes, np.array(weights), experience, tf.constant(rewards, tf.float32))


def test_expectation_of_shared_rollouts(policy):
    """Both samples of an image, in every way; rollouts, which count linearly, have their prefix's expected reward."""
    captioner, _, features, probability = policy
    outcomes, weights = outcomes_of(probability, 2)
    words = tf.constant(padded([c for outcome in outcomes for c in outcome], T))
    leaders = estimators.prefix_leaders(words, 2)
    prefix = tf.where(proper_prefixes(words) & (leaders.numpy() == np.arange(len(words))[:, None]))
    assert len(prefix) < tf.reduce_sum(tf.cast(proper_prefixes(words), tf.int32))  # some are shared
    beginnings = [tuple(int(w) for w in words[n, : t + 1]) for n, t in prefix.numpy()]
    expected = tf.constant([value(probability, b) for b in beginnings], tf.float32)
    rolled = Rollouts(tf.gather(words, prefix[:, 0]), tf.cast(prefix, tf.int32))
    objective = objectives.policy_gradient(captioner, T, samples=2, rollouts=1, share_rollouts=True)
    check_expectation(
        policy, objective, outcomes, weights, experience_of(features, outcomes, rolled, leaders), expected
    )


@pytest.mark.parametrize("samples", [1, 2])
def test_expectation_of_self_critical(policy, samples):
    captioner, _, features, probability = policy
    outcomes, weights = outcomes_of(probability, samples)
    greedy, _ = decoding.greedy(*captioner.begin(tf.constant(features)), T)
    objective = objectives.self_critical(captioner, T, samples=samples)
    first = samples * np.arange(len(outcomes), dtype=np.int32)
    compared = Rollouts(
        tf.repeat(greedy, len(outcomes), axis=0), tf.constant(np.stack([first, -np.ones_like(first)], 1))
    )
    other = tf.fill([len(outcomes)], REWARDS[tuple(int(w) for w in greedy[0] if w != PAD)])
    check_expectation(policy, objective, outcomes, weights, experience_of(features, outcomes, compared), other)


@pytest.mark.parametrize(("toy", "samples"), [("lstm", 3), *((kind, 2) for kind in CAPTIONERS)], indirect=["toy"])
def test_expectation_of_leave_one_out(policy, samples):
    captioner, _, features, probability = policy
    outcomes, weights = outcomes_of(probability, samples)
    objective = objectives.leave_one_out(captioner, T, samples=samples)
    check_expectation(policy, objective, outcomes, weights, experience_of(features, outcomes), tf.zeros([0]))


def test_greedy_rollouts_are_biased(policy):
    """The price of the cheaper variant, so that nobody takes it for the paper's: the expectation is another."""
    captioner, baseline, features, probability = policy
    experience = experience_of(features, [(c,) for c in CAPTIONS])
    step, start = captioner.begin(tf.constant(features))
    objective = objectives.policy_gradient(captioner, T, samples=1, rollouts=1, rollout_policy="greedy")
    forks = forks_of(step, start, experience.tokens)
    rolled = roll_out(step, experience.tokens, forks, tf.constant([0, 0]), likeliest)
    assert sorted(rolled.prefix.numpy().tolist()) == tf.where(proper_prefixes(experience.tokens)).numpy().tolist()
    credit = objective.credit(
        experience._replace(rollouts=rolled),
        rewards_of(CAPTIONS),
        table_reward(rolled.tokens, tf.zeros([len(rolled.prefix)], tf.int32)),
    )
    weights = np.array([probability[c] for c in CAPTIONS])
    total = expected_gradient(captioner, baseline, experience, credit, weights)
    exact = exact_gradient(captioner, features)
    assert np.linalg.norm(total - exact) > 0.05 * np.linalg.norm(exact)


def forks_of(step, start, words):
    """Every proper prefix of captions `[N, T]`, and the likeliest word after it, by the step closure."""
    proper = proper_prefixes(words)
    state, token = tuple(tf.repeat(s, len(words), axis=0) for s in start), tf.fill([len(words)], START)
    state, _ = step(state, token)
    found = []
    for t in range(words.shape[1] - 1):
        state, logits = step(state, words[:, t])
        rows = tf.cast(tf.where(proper[:, t])[:, 0], tf.int32)
        prefix = tf.stack([rows, tf.fill(tf.shape(rows), t)], axis=1)
        tokens = likeliest(logits, tf.zeros([len(words), 1, 2]))
        own = tf.gather(tf.nn.log_softmax(logits), words[:, t + 1], batch_dims=1)
        found.append(Forks(prefix, *take_rows((tokens, own, state), rows)))
    return tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), *found)


def test_a_baseline_keeps_the_expectation_and_lowers_the_variance(policy):
    """Exact, over all captions: trace of the covariance of REINFORCE's gradient, without a baseline and with one."""
    captioner, baseline, features, probability = policy
    objective = objectives.policy_gradient(captioner, T, samples=1, rollouts=0)
    fitted = fit(captioner, baseline, features, objective)
    found = {}
    for name, scale in (("none", 0.0), ("fitted", 1.0)):
        for weight, value_ in zip(baseline.trainable_variables, fitted, strict=True):
            weight.assign(scale * value_)
        each = []
        for caption in CAPTIONS:
            experience = experience_of(features, [(caption,)])
            credit = objective.credit(experience, rewards_of([caption]), tf.zeros([0]))
            each.append(-flat(policy_gradients(captioner, baseline, experience, credit)[0]))
        each, p = np.stack(each), np.array([probability[c] for c in CAPTIONS])
        mean = p @ each
        found[name] = mean, float(p @ np.sum((each - mean) ** 2, axis=1))
    np.testing.assert_allclose(found["none"][0], found["fitted"][0], atol=1e-5)
    assert found["fitted"][1] < 0.8 * found["none"][1]


def fit(captioner, baseline, features, objective):
    """The weights of the baseline after a warm-up: the policy stays as it is."""
    optimizer = keras.optimizers.Adam(1e-2)
    batch = Batch(tf.constant(np.repeat(features, 100, axis=0)), tf.zeros([100], tf.int32), None)

    @tf.function(autograph=False)
    def step(seed):
        experience = objective.sample(batch, seed, LEVEL)
        credit = objective.credit(experience, *split_rewards(experience, table_reward(*scored_captions(experience))))
        optimizer.apply(policy_gradients(captioner, baseline, experience, credit)[1], baseline.trainable_variables)

    for i in range(150):
        step(tf.constant([4, i]))
    return [w.numpy() for w in baseline.trainable_variables]


@pytest.mark.parametrize(
    ("kind", "options", "copies"),  # as many copies of the image as the standard errors need
    [
        ("policy_gradient", {"samples": 1, "rollouts": 0}, 9500),
        ("policy_gradient", {"samples": 1, "rollouts": 3}, 5600),
        ("policy_gradient", {"samples": 2, "rollouts": 2}, 2900),
        ("policy_gradient", {"samples": 3, "rollouts": 1, "share_rollouts": True}, 3900),
        ("self_critical", {"samples": 2}, 2000),
        ("leave_one_out", {"samples": 5}, 520),
        ("vine", {"samples": 1, "rollouts": 1}, 1500),
        ("vine", {"samples": 2, "rollouts": 3}, 240),
    ],
)
@pytest.mark.long
def test_sampled_gradient_is_unbiased(policy, kind, options, copies):
    """The whole sampled estimator within 4 standard errors, and these small enough to see a bias of 5%."""
    captioner, baseline, features, _ = policy
    repeats = 80
    batch = Batch(tf.constant(np.repeat(features, copies, axis=0)), tf.zeros([copies], tf.int32), None)
    objective = getattr(objectives, kind)(captioner, T, **options)

    @tf.function(autograph=False)
    def estimate(seed):
        experience = objective.sample(batch, seed, LEVEL)
        credit = objective.credit(experience, *split_rewards(experience, table_reward(*scored_captions(experience))))
        return policy_gradients(captioner, baseline, experience, credit)[0]

    estimates = np.stack([-flat(estimate(tf.constant([7, i]))) for i in range(repeats)])
    exact = exact_gradient(captioner, features)
    error = estimates.std(axis=0, ddof=1) / np.sqrt(repeats)
    # A common factor on the gradient, the usual mistake, is the best seen along the gradient itself.
    along = estimates @ exact / (exact @ exact)
    along_error = along.std(ddof=1) / np.sqrt(repeats)
    assert along_error < 0.0125
    assert abs(along.mean() - 1) < 4 * along_error
    moved = error > 0
    assert np.mean(np.abs(estimates.mean(axis=0) - exact)[moved] > 4 * error[moved]) < 0.01
    np.testing.assert_allclose(estimates.mean(axis=0)[~moved], exact[~moved], atol=1e-6)


def test_baselines_leave_the_decoder_alone(toy):
    """Not a single weight of the decoder, nor the picture's features, through which alone it would reach an encoder."""
    captioner, baseline, features = toy
    features = tf.constant(features)
    for learned in (baseline, StepBaseline(5, 3)):
        for weight in learned.trainable_variables:
            weight.assign(tf.ones_like(weight))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([features, *(w.value for w in captioner.weights)])
            hidden = plain.hidden(captioner, features, tf.constant([[4, 2, 0], [5, 6, 4]]))
            loss = tf.reduce_sum(learned(tf.reshape(hidden, [-1, 5]), tf.constant([0, 1, 2] * 2)) ** 2)
        assert float(loss) > 0
        assert all(g is None for g in tape.gradient(loss, [features, *(w.value for w in captioner.weights)]))


def test_values_are_those_of_each_image(toy):
    """Rewards reach the image that was captioned: image 1 pays double in table_reward."""
    captioner, _, features = toy
    objective = objectives.policy_gradient(captioner, T, samples=3, rollouts=2)
    experience = objective.sample(Batch(tf.constant(features), tf.constant([0, 1]), None), tf.constant([1, 1]), LEVEL)
    np.testing.assert_array_equal(experience.image_index, [0, 0, 0, 1, 1, 1])
    sample_rewards, rollout_rewards = split_rewards(experience, table_reward(*scored_captions(experience)))
    values = objective.credit(experience, sample_rewards, rollout_rewards).values
    for row, words in enumerate(experience.tokens.numpy()):
        caption = tuple(int(w) for w in words if w != PAD)
        image = int(experience.image_index[row])
        assert float(sample_rewards[row]) == pytest.approx(REWARDS[caption] * (image + 1))
        for t in range(len(caption) - 1):
            mine = (experience.rollouts.prefix.numpy() == [row, t]).all(axis=1)
            assert mine.sum() == 2
            rolled = [tuple(int(w) for w in r if w != PAD) for r in experience.rollouts.tokens.numpy()[mine]]
            assert float(values[row, t]) == pytest.approx(np.mean([REWARDS[c] for c in rolled]) * (image + 1))
        assert float(values[row, len(caption) - 1]) == pytest.approx(REWARDS[caption] * (image + 1))
        assert not values[row, len(caption) :].numpy().any()
