"""The policy gradient is the gradient of the expected reward: enumerated on a toy, then sampled."""

import numpy as np
import pytest
import tensorflow as tf

from models import decoding
from models.captioner import END, PAD
from pipeline.steps import Experience, action_rewards, policy_gradients, sample_experience, scored_captions
from tests.oracles import captions_of, padded, word_probabilities

T = 3
SAYABLE = (END, 4, 5, 6)
CAPTIONS = [tuple(c) for c in captions_of(SAYABLE, T)]
RNG = np.random.default_rng(0)
REWARDS = {caption: float(r) for caption, r in zip(CAPTIONS, RNG.uniform(0, 1, len(CAPTIONS)) ** 2, strict=True)}


def table_reward(captions, image_index):
    """A reward that is an arbitrary number for each caption, and twice that for image 1."""
    keys = tf.constant([sum(w * 10**i for i, w in enumerate(c)) for c in CAPTIONS], tf.int64)
    values = tf.constant([REWARDS[c] for c in CAPTIONS], tf.float32)
    asked = tf.reduce_sum(tf.cast(captions, tf.int64) * [1, 10, 100], axis=1)
    same = asked[:, None] == keys[None]
    tf.debugging.assert_equal(tf.reduce_sum(tf.cast(same, tf.int32), axis=1), 1, "a caption that cannot be")
    return tf.linalg.matvec(tf.cast(same, tf.float32), values) * tf.cast(image_index + 1, tf.float32)


def distribution(captioner, features):
    """P(caption) for every caption, word by word through the step closure."""
    start = captioner.start(tf.constant(features))
    return {c: float(np.prod(word_probabilities(captioner.step, start, c))) for c in CAPTIONS}


def value(probability, caption, t):
    """Q(g_<t, g_t): the expected reward of captions that begin with g_1..g_t."""
    prefix = caption[: t + 1]
    if len(prefix) == len(caption):
        return REWARDS[caption]
    same = [c for c in CAPTIONS if c[: t + 1] == prefix]
    return sum(probability[c] * REWARDS[c] for c in same) / sum(probability[c] for c in same)


def exact_gradient(captioner, features):
    """d/d theta of sum_c P(c) r(c), by differentiating the enumerated sum."""
    words = tf.constant(padded(CAPTIONS, T))
    rewards = tf.constant([REWARDS[c] for c in CAPTIONS], tf.float32)
    mask = words != PAD
    with tf.GradientTape() as tape:
        hidden = captioner.hidden(tf.repeat(tf.constant(features), len(CAPTIONS), axis=0), words)
        logits = captioner.logits(tf.reshape(hidden, [-1, hidden.shape[2]]))
        log_probs = tf.gather(tf.nn.log_softmax(logits), tf.reshape(words, [-1]), batch_dims=1)
        log_probs = tf.where(mask, tf.reshape(log_probs, words.shape), 0.0)
        expected = tf.reduce_sum(tf.exp(tf.reduce_sum(log_probs, axis=1)) * rewards)
    return tape.gradient(expected, captioner.trainable_variables)


def flat(gradients):
    return np.concatenate([np.asarray(tf.convert_to_tensor(g), np.float64).ravel() for g in gradients])


def test_every_caption_has_one_probability_and_they_sum_to_one(toy):
    captioner, _, features = toy
    probability = distribution(captioner, features[:1])
    assert sum(probability.values()) == pytest.approx(1, abs=1e-5)
    assert min(probability.values()) > 1e-4  # or the test below would not see some captions


def test_expected_gradient_is_the_gradient_of_the_expected_reward(toy):
    """Exact: all captions as paths, weighted by their probability, with their true values Q."""
    captioner, baseline, features = toy
    probability = distribution(captioner, features[:1])
    total = 0.0
    for caption in CAPTIONS:
        values = np.zeros([1, T], np.float32)
        values[0, : len(caption)] = [value(probability, caption, t) for t in range(len(caption))]
        experience = Experience(tf.constant(features[:1]), tf.constant([0]), tf.constant(padded([caption], T)), None)
        gradients, _, _ = policy_gradients(captioner, baseline, experience, tf.constant(values))
        total = total + probability[caption] * -flat(gradients)  # the loss is minus what is to rise
    exact = flat(exact_gradient(captioner, features[:1]))
    assert np.abs(exact).max() > 0.01
    np.testing.assert_allclose(total, exact, atol=1e-5)


@pytest.mark.parametrize(("samples", "rollouts"), [(1, 1), (1, 3), (2, 2)])
def test_sampled_gradient_is_unbiased(toy, samples, rollouts):
    """The whole sampled estimator within 4 standard errors, and these small enough to see a bias of 5%."""
    captioner, baseline, features = toy
    copies, repeats = 4000, 80
    batch = tf.constant(np.repeat(features[:1], copies, axis=0))
    index = tf.zeros([copies], tf.int32)

    @tf.function
    def estimate(seed):
        experience = sample_experience(captioner, batch, index, samples, rollouts, T, seed)
        _, values = action_rewards(experience, table_reward(*scored_captions(experience)))
        return policy_gradients(captioner, baseline, experience, values)[0]

    estimates = np.stack([-flat(estimate(tf.constant([7, i]))) for i in range(repeats)])
    exact = flat(exact_gradient(captioner, features[:1]))
    error = estimates.std(axis=0, ddof=1) / np.sqrt(repeats)
    # A common factor on the gradient, the usual mistake, is the best seen along the gradient itself.
    along = estimates @ exact / (exact @ exact)
    along_error = along.std(ddof=1) / np.sqrt(repeats)
    assert along_error < 0.0125
    assert abs(along.mean() - 1) < 4 * along_error
    moved = error > 0
    assert np.mean(np.abs(estimates.mean(axis=0) - exact)[moved] > 4 * error[moved]) < 0.01
    np.testing.assert_allclose(estimates.mean(axis=0)[~moved], exact[~moved], atol=1e-6)


def test_baseline_leaves_the_decoder_alone(toy):
    captioner, baseline, features = toy
    with tf.GradientTape() as tape:
        hidden = captioner.hidden(tf.constant(features), tf.constant([[4, 2, 0], [5, 6, 4]]))
        loss = tf.reduce_sum(baseline(tf.reshape(hidden, [-1, 5])) ** 2)
    assert all(g is None for g in tape.gradient(loss, captioner.trainable_variables))


def test_values_are_those_of_each_image(toy):
    """Rewards reach the image that was captioned: image 1 pays double in table_reward."""
    captioner, _, features = toy
    experience = sample_experience(captioner, tf.constant(features), tf.constant([0, 1]), 3, 2, T, tf.constant([1, 1]))
    np.testing.assert_array_equal(experience.image_index, [0, 0, 0, 1, 1, 1])
    path_reward, values = action_rewards(experience, table_reward(*scored_captions(experience)))
    for row, words in enumerate(experience.words.numpy()):
        caption = tuple(int(w) for w in words if w != PAD)
        image = int(experience.image_index[row])
        assert float(path_reward[row]) == pytest.approx(REWARDS[caption] * (image + 1))
        for t in range(len(caption) - 1):
            mine = (experience.rollouts.prefix.numpy() == [row, t]).all(axis=1)
            assert mine.sum() == 2
            said = [tuple(int(w) for w in r if w != PAD) for r in experience.rollouts.words.numpy()[mine]]
            assert float(values[row, t]) == pytest.approx(np.mean([REWARDS[c] for c in said]) * (image + 1))
        assert float(values[row, len(caption) - 1]) == pytest.approx(REWARDS[caption] * (image + 1))
        assert not values[row, len(caption) :].numpy().any()


def test_rollouts_keep_their_prefix_and_follow_the_policy(toy):
    """Continuations of one prefix come as often as their probability says (chi-square, 99.9% quantile)."""
    captioner, _, features = toy
    probability = distribution(captioner, features[:1])
    state = captioner.start(tf.constant(features[:1]))
    path = decoding.sample(captioner.step, state, T, tf.constant([0, 5]))
    # The path is made to be 4 5 6, with the states that lead there.
    hidden, cell, token = [], [], tf.constant([1])
    for word in (4, 5, 6):
        state, _ = captioner.step(state, token)
        hidden.append(state[0])
        cell.append(state[1])
        token = tf.constant([word])
    path = decoding.Paths(tf.constant([[4, 5, 6]]), tf.stack(hidden, 1), tf.stack(cell, 1))
    rolled = decoding.roll_out(captioner.step, path, 4000, tf.constant([2, 3]))
    np.testing.assert_array_equal(np.unique(rolled.prefix, axis=0), [[0, 0], [0, 1]])
    for last in (0, 1):
        words = rolled.words.numpy()[rolled.prefix.numpy()[:, 1] == last]
        assert (words[:, : last + 1] == [4, 5][: last + 1]).all()
        possible = [c for c in CAPTIONS if c[: last + 1] == (4, 5)[: last + 1]]
        mass = sum(probability[c] for c in possible)
        seen = [(words == padded([c], T)).all(axis=1).sum() for c in possible]
        assert sum(seen) == 4000
        chi_square = sum(
            (n - 4000 * probability[c] / mass) ** 2 / (4000 * probability[c] / mass)
            for n, c in zip(seen, possible, strict=True)
        )
        freedom = len(possible) - 1
        # Wilson-Hilferty: the 99.9% quantile of chi-square, to a few percent.
        assert chi_square < freedom * (1 - 2 / (9 * freedom) + 3.09 * (2 / (9 * freedom)) ** 0.5) ** 3
