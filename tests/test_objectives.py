"""What an objective samples and how it gives credit: small tables, and numbers that nothing else may change."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from spidercap.models import decoding
from spidercap.models.lstm_captioner import LstmCaptioner
from spidercap.models.special_tokens import END, PAD
from spidercap.pipeline.data.batches import Batch
from spidercap.pipeline.training import estimators, objectives
from spidercap.pipeline.training.rewards import Reward
from spidercap.pipeline.training.steps import FEATURE_DROPOUT, policy_gradient_step, scored_captions, split_rewards
from tests.enumeration import CAPTIONS, REWARDS, T, continuations, distribution, features_of, table_reward
from tests.oracles import padded, word_probabilities
from tests.variants import OBJECTIVES, adam, learned_baseline

LEVEL = tf.constant(0.0)


def batch_of(features):
    return Batch(tf.constant(features), tf.range(len(features)), None)


def without_padding(words):
    return tuple(int(w) for w in words if w != PAD)


def test_prefix_leaders_drawn():
    """
    image 0   7 4 2 .     leader  0 0 0 0
              7 5 2 .             0 1 1 1
              7 4 2 .             0 0 0 0
    image 1   7 4 4 4             3 3 3 3     another image's words are not shared
              7 4 2 .             3 3 4 4
              5 4 4 4             5 5 5 5     the same words after another beginning are not either
    """
    words = tf.constant([[7, 4, 2, 0], [7, 5, 2, 0], [7, 4, 2, 0], [7, 4, 4, 4], [7, 4, 2, 0], [5, 4, 4, 4]])
    leaders = estimators.prefix_leaders(words, 3)
    expected = [[0, 0, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0], [3, 3, 3, 3], [3, 3, 4, 4], [5, 5, 5, 5]]
    np.testing.assert_array_equal(leaders, expected)


def test_shared_values_are_those_of_the_leader():
    """
    7 4 2     Q  .5 .3 r0       rollouts: from 7 (sample 0): .5, from 7 4 (sample 0): .3, from 7 5 (sample 1): .1
    7 5 2        .5 .1 r1
    """
    words = tf.constant([[7, 4, 2], [7, 5, 2]])
    leaders = estimators.prefix_leaders(words, 2)
    prefix = tf.constant([[0, 0], [0, 1], [1, 1]])
    values = estimators.action_values(words, tf.constant([0.9, 0.8]), prefix, tf.constant([0.5, 0.3, 0.1]), leaders)
    np.testing.assert_allclose(values, [[0.5, 0.3, 0.9], [0.5, 0.1, 0.8]], atol=1e-6)


def test_sharing_rolls_out_each_beginning_once(toy):
    captioner, _, features = toy
    options = {"samples": 6, "rollouts": 2}
    found = {
        shared: objectives.policy_gradient(captioner, T, share_rollouts=shared, **options).sample(
            batch_of(features), tf.constant([3, 1]), LEVEL
        )
        for shared in (False, True)
    }
    np.testing.assert_array_equal(found[False].tokens, found[True].tokens)
    beginnings = [
        (row // 6, without_padding(words[: t + 1]))
        for row, words in enumerate(found[True].tokens.numpy())
        for t in range(len(without_padding(words)) - 1)
    ]
    assert len(found[False].rollouts.prefix) == 2 * len(beginnings)
    assert len(found[True].rollouts.prefix) == 2 * len(set(beginnings)) < 2 * len(beginnings)
    rolled = [
        (row // 6, without_padding(found[True].tokens.numpy()[row, : t + 1]))
        for row, t in found[True].rollouts.prefix.numpy()
    ]
    assert sorted(rolled) == sorted([*set(beginnings)] * 2)


def test_leave_one_out_drawn():
    """Rewards 1 2 6 of one image: what is expected is 4 3.5 1.5; and of 0 0 3: 1.5 1.5 0."""
    others = estimators.leave_one_out(tf.constant([1.0, 2.0, 6.0, 0.0, 0.0, 3.0]), 3)
    np.testing.assert_allclose(others, [4, 3.5, 1.5, 1.5, 1.5, 0], atol=1e-6)


def test_self_critical_compares_with_the_image_s_own_greedy_caption(toy):
    captioner, _, features = toy
    objective = objectives.self_critical(captioner, T, samples=3)
    experience = objective.sample(batch_of(features), tf.constant([1, 1]), LEVEL)
    captions, image_index = scored_captions(experience)
    np.testing.assert_array_equal(image_index, [0, 0, 0, 1, 1, 1, 0, 1])
    sample_rewards, greedy_rewards = split_rewards(experience, table_reward(captions, image_index))
    greedy, _ = decoding.greedy(*captioner.begin(tf.constant(features)), T)
    np.testing.assert_array_equal(experience.rollouts.tokens, greedy)
    credit = objective.credit(experience, sample_rewards, greedy_rewards)
    for row, words in enumerate(experience.tokens.numpy()):
        image, length = row // 3, len(without_padding(words))
        expected = REWARDS[without_padding(greedy.numpy()[image])] * (image + 1)
        np.testing.assert_allclose(credit.baseline[row, :length], [expected] * length, rtol=1e-5)
        np.testing.assert_allclose(credit.values[row, :length], [float(sample_rewards[row])] * length, rtol=1e-5)
        assert not credit.values[row, length:].numpy().any()


def test_greedy_rollouts_are_what_greedy_decoding_says(toy):
    captioner, _, features = toy
    objective = objectives.policy_gradient(captioner, T, samples=2, rollouts=1, rollout_policy="greedy")
    experience = objective.sample(batch_of(features), tf.constant([1, 5]), LEVEL)
    assert len(experience.rollouts.tokens) > 0
    for words, (row, last) in zip(experience.rollouts.tokens.numpy(), experience.rollouts.prefix.numpy(), strict=True):
        caption = list(experience.tokens.numpy()[row, : last + 1])
        step, start = captioner.begin(features_of(experience)[row : row + 1])
        while len(caption) < T and caption[-1] != END:
            options = {w: word_probabilities(step, start, [*caption, w])[-1] for w in (END, 4, 5, 6)}
            caption.append(max(options, key=options.get))
        assert without_padding(words) == tuple(caption)


def test_samples_and_rollouts_follow_the_policy(toy):
    """Chi-square of whole captions, and of rollouts given their beginning (99.9% quantile), on a fixed seed."""
    captioner, _, features = toy
    probability = distribution(captioner, features[:1])
    count = 20000
    objective = objectives.policy_gradient(captioner, T, samples=count, rollouts=1)
    experience = objective.sample(batch_of(features[:1]), tf.constant([11, 4]), LEVEL)
    assert chi_square_is_small(experience.tokens.numpy(), probability)
    rolled, prefix = experience.rollouts.tokens.numpy(), experience.rollouts.prefix.numpy()
    for beginning in ((4,), (5, 6)):
        own = experience.tokens.numpy()[prefix[:, 0], : len(beginning)]
        mine = rolled[(prefix[:, 1] == len(beginning) - 1) & (own == beginning).all(axis=1)]
        assert len(mine) > 300
        assert (mine[:, : len(beginning)] == beginning).all()  # rollouts keep their prefix
        assert chi_square_is_small(mine, continuations(probability, beginning))


def chi_square_is_small(words, probability):
    seen = {c: int((words == padded([c], T)).all(axis=1).sum()) for c in probability}
    assert sum(seen.values()) == len(words)
    expected = {c: len(words) * p for c, p in probability.items()}
    common = [c for c in expected if expected[c] >= 5]
    rare = [c for c in expected if expected[c] < 5]
    pairs = [(seen[c], expected[c]) for c in common]
    pairs += [(sum(seen[c] for c in rare), sum(expected[c] for c in rare))] * bool(rare)
    freedom = len(pairs) - 1
    # Wilson-Hilferty: the 99.9% quantile of chi-square, to a few percent.
    quantile = freedom * (1 - 2 / (9 * freedom) + 3.09 * (2 / (9 * freedom)) ** 0.5) ** 3
    return sum((n - e) ** 2 / e for n, e in pairs) < quantile


def test_differentiated_probabilities_are_those_sampled_from(toy):
    """With dropout in the decoder and dropped features, the step's entropy is that of the words as they were drawn."""
    _, baseline, features = toy
    keras.utils.set_random_seed(3)
    captioner = LstmCaptioner(vocabulary_size=7, feature_size=3, units=5, embedding_size=4, dropout=0.5)
    rng = np.random.default_rng(5)
    for weight in captioner.trainable_variables:
        weight.assign(rng.normal(0, 0.8, weight.shape))
    objective = objectives.policy_gradient(captioner, T, samples=2, rollouts=1)
    seed = tf.constant([3, 8])
    reward = Reward({"cider": 1.0}, lambda words, image: {"cider": table_reward(words, image)}, {})
    optimizers = [keras.optimizers.SGD(0.0) for _ in range(2)]
    for optimizer, model in zip(optimizers, (captioner, baseline), strict=True):
        optimizer.build(model.trainable_variables)
    step = policy_gradient_step(captioner, baseline, reward, objective, *optimizers, feature_dropout=0.4)
    logs = step(batch_of(features), seed, LEVEL)
    dropout_seed = tf.random.experimental.stateless_fold_in(seed, FEATURE_DROPOUT)
    dropped = captioner.drop_features(tf.constant(features), 0.4, dropout_seed)
    assert np.abs(dropped - features).max() > 0.1
    experience = objective.sample(Batch(dropped, tf.range(2), None), seed, LEVEL)
    surprise = []
    for row, words in enumerate(experience.tokens.numpy()):
        step, start = captioner.begin(features_of(experience)[row : row + 1])
        surprise += [-np.log(p) for p in word_probabilities(step, start, without_padding(words))]
    assert float(logs.policy.entropy) == pytest.approx(np.mean(surprise), abs=1e-5)


@pytest.mark.parametrize("name", ["pg", "reinforce", "mixer", "scst", "leave_one_out", "vine"])
def test_the_expected_reward_rises(toy, name):
    """Exact, by enumeration, before and after 60 steps of the whole train step; mixer's s falls from T to 0 in half."""
    captioner, baseline, features = toy
    reward = Reward({"cider": 1.0}, lambda words, image: {"cider": table_reward(words, 0 * image)}, {})
    learned = learned_baseline(name, baseline, T)
    optimizers = [adam(captioner, 2e-2), adam(learned, 2e-2)]
    objective = OBJECTIVES[name](captioner, T)
    step = policy_gradient_step(captioner, learned, reward, objective, *optimizers, feature_dropout=0.0)
    words = tf.constant(padded([[5, END], [6, 4, END]] * 8, T))  # true captions, which mixer begins with
    batch = Batch(tf.constant(np.tile(features, [8, 1])), tf.range(16), words)

    def expected_reward():
        return [sum(p * REWARDS[c] for c, p in distribution(captioner, f[None]).items()) for f in features]

    before = expected_reward()
    for i in range(60):
        logs = step(batch, tf.constant([9, i]), tf.constant(float(max(0, T - i // 10))))
        assert float(logs.skipped) == 0
    assert np.mean(expected_reward()) > 1.5 * np.mean(before)


def test_every_caption_of_the_table_is_scored_as_itself():
    captions = tf.constant(padded(CAPTIONS, T))
    np.testing.assert_allclose(table_reward(captions, tf.zeros([len(CAPTIONS)], tf.int32)), list(REWARDS.values()))


def test_no_gradient_flows_through_advantages():
    values, expected, log_probs = tf.constant([1.0, 2.0]), tf.constant([0.5, 0.1]), tf.constant([-1.0, -3.0])
    sampled = tf.constant([True, True])
    with tf.GradientTape() as tape:
        tape.watch([values, expected, log_probs])
        loss = estimators.policy_loss(log_probs, values, expected, sampled, tf.constant(2.0))
    gradients = tape.gradient(loss, [values, expected, log_probs])
    assert gradients[:2] == [None, None]
    np.testing.assert_allclose(gradients[2], [-0.25, -0.95])
