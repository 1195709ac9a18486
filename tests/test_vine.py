"""Leave-one-out among the words of a state: expectation by enumeration, the tree by hand, the update by softmax."""

import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf

from spidercap.models.captioners import CAPTIONERS
from spidercap.models.packing import pack
from spidercap.models.rollouts import Rollouts
from spidercap.models.special_tokens import END, PAD
from spidercap.models.word_loss import log_probs
from spidercap.pipeline.data.batches import Batch
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.flags import parse
from spidercap.pipeline.training import objectives, siblings
from spidercap.pipeline.training.experience import References, WordsDrawn
from spidercap.pipeline.training.gradients import policy_gradients
from spidercap.pipeline.training.steps import scored_captions, split_rewards
from tests.enumeration import (
    CAPTIONS,
    REWARDS,
    SAYABLE,
    T,
    continuations,
    distribution,
    exact_gradient,
    expected_gradient,
    experience_of,
    features_of,
    flat,
    table_reward,
    value,
)
from tests.oracles import padded

LEVEL = tf.constant(0.0)
MAN, DOG, SITS = 4, 5, 6


def without_padding(words):
    return tuple(int(w) for w in words if w != PAD)


def next_word(probability, prefix):
    """P(word | prefix) of every word."""
    return {w: sum(p for c, p in continuations(probability, prefix).items() if c[len(prefix)] == w) for w in SAYABLE}


def drawn_words(prefix, tokens):
    return WordsDrawn(tf.constant(prefix, tf.int32), tf.constant(tokens, tf.int32), tf.zeros([len(prefix)]))


def sampled(captioner, features):
    """Two captions of each of two images, with their trees, and the credit of every word."""
    objective = objectives.vine(captioner, T, samples=2, rollouts=2)
    experience = objective.sample(Batch(tf.constant(features), tf.range(2), None), tf.constant([5, 2]), LEVEL)
    rewards = split_rewards(experience, table_reward(*scored_captions(experience)))
    return experience, objective.credit(experience, *rewards)


class TestByEnumeration:
    @pytest.mark.parametrize(("toy", "words"), [("lstm", 2), *((kind, 1) for kind in CAPTIONERS)], indirect=["toy"])
    def test_the_expectation_is_the_gradient_of_the_expected_reward(self, toy, words):
        """Every caption with all that can be drawn from its states; rollouts count linearly, so their mean will do."""
        captioner, baseline, features = toy
        features = features[:1]
        probability = distribution(captioner, features)
        value_of = functools.cache(functools.partial(value, probability))
        state_of = functools.cache(functools.partial(next_word, probability))
        outcomes, weights, prefix, drawn, rolled, rollout_prefix, rewards = [], [], [], [], [], [], []
        for caption in CAPTIONS:
            states = [state_of(caption[:t]) for t in range(len(caption))]
            each = [list(itertools.product(SAYABLE, repeat=words))] * len(caption)
            for draws in itertools.product(*each):
                chances = [np.prod([state[w] for w in row]) for state, row in zip(states, draws, strict=True)]
                for t, row in enumerate(draws):
                    prefix.append([len(outcomes), t - 1])
                    drawn.append(row)
                    for word in dict.fromkeys(row):
                        if word != caption[t]:
                            rolled.append((*caption[:t], word))
                            rollout_prefix.append([len(outcomes), t - 1])
                            rewards.append(value_of((*caption[:t], word)))
                outcomes.append((caption,))
                weights.append(probability[caption] * np.prod(chances))
        assert sum(weights) == pytest.approx(1, abs=1e-5)
        rollouts = Rollouts(tf.constant(padded(rolled, T)), tf.constant(rollout_prefix, tf.int32))
        experience = experience_of(features, outcomes, rollouts)._replace(drawn=drawn_words(prefix, drawn))
        objective = objectives.vine(captioner, T, samples=1, rollouts=words)
        sample_rewards = tf.constant([REWARDS[c] for (c,) in outcomes], tf.float32)
        credit = objective.credit(experience, sample_rewards, tf.constant(rewards, tf.float32))
        exact = exact_gradient(captioner, features)
        assert np.abs(exact).max() > 0.01
        found = expected_gradient(captioner, baseline, experience, credit, np.array(weights))
        np.testing.assert_allclose(found, exact, atol=1e-5)


class TestTree:
    def test_values_are_backed_up(self):
        """
        a man END     reward 0.7    before "a": a a           nothing new
                                    before "man": dog, dog    one rollout of "a dog": 0.4
                                    before END: man, END      one rollout of "a man man": 0.1
        """
        tokens = tf.constant([[7, MAN, END, PAD]])
        drawn = drawn_words([[0, -1], [0, 0], [0, 1]], [[7, 7], [DOG, DOG], [MAN, END]])
        credit = siblings.leave_one_out(tokens, drawn, tf.constant([0.7]), tf.constant([0.4, 0.1]))
        at_end = (2 * 0.7 + 0.1) / 3
        at_man = (at_end + 2 * 0.4) / 3
        np.testing.assert_allclose(credit.values, [[at_man, at_end, 0.7, 0]], rtol=1e-6)
        np.testing.assert_allclose(credit.baseline, [[at_man, 0.4, (0.7 + 0.1) / 2, 0]], rtol=1e-6)
        np.testing.assert_array_equal(credit.siblings.state, [[0, 1], [0, 2], [0, 1], [0, 2]])
        np.testing.assert_array_equal(credit.siblings.token, [MAN, END, DOG, MAN])
        expected = [(at_end - at_man) / 2, 2 * (0.7 - at_end) / 2, 2 * (0.4 - at_man) / 2, (0.1 - at_end) / 2]
        np.testing.assert_allclose(credit.siblings.advantage, expected, rtol=1e-5)

    def test_every_draw_against_the_mean_of_the_others(self):
        """As the definition says it, a draw at a time, equal words with the value of their first."""
        rng = np.random.default_rng(3)
        tokens = tf.constant(padded([c for c in CAPTIONS for _ in range(3)], T))
        states = [[n, t - 1] for n, row in enumerate(tokens.numpy()) for t in range(len(without_padding(row)))]
        words = rng.choice(SAYABLE, [len(states), 3])
        drawn, own = drawn_words(states, words), [tokens.numpy()[n, t + 1] for n, t in states]
        new = siblings.new_words(tf.constant(own), drawn.tokens).numpy()
        rewards, rolled = rng.uniform(size=len(tokens)), rng.uniform(size=new.sum())
        credit = siblings.leave_one_out(
            tokens, drawn, tf.constant(rewards, tf.float32), tf.constant(rolled, tf.float32)
        )
        of_new = dict(zip([(p, words[p, s]) for p, s in np.argwhere(new)], rolled, strict=True))
        expected, own_value = {}, {}
        for p in sorted(range(len(states)), key=lambda p: -states[p][1]):
            n, t = states[p][0], states[p][1] + 1
            mine = own_value.get((n, t), rewards[n])
            draws = [own[p], *words[p]]
            values = [mine if w == own[p] else of_new[p, w] for w in draws]
            own_value[n, t - 1] = np.mean(values)
            for i, (word, v) in enumerate(zip(draws, values, strict=True)):
                others = np.mean(np.delete(values, i))
                expected[n, t, word] = expected.get((n, t, word), 0) + (v - others) / len(draws)
        found = {
            (int(n), int(t), int(w)): float(a)
            for (n, t), w, a in zip(*(x.numpy() for x in credit.siblings), strict=True)
        }
        assert len(found) == len(credit.siblings.token)
        for key, advantage in expected.items():
            assert found.get(key, 0) == pytest.approx(advantage, abs=1e-6)
        assert found.keys() <= expected.keys()

    def test_new_words_drawn(self):
        new = siblings.new_words(tf.constant([7, 4]), tf.constant([[7, 5, 5, 4], [6, 6, 4, 2]]))
        np.testing.assert_array_equal(new, [[0, 1, 0, 1], [1, 0, 0, 1]])

    def test_a_caption_of_the_end_alone(self):
        drawn = drawn_words([[0, -1]], [[END, MAN]])
        credit = siblings.leave_one_out(tf.constant([[END, PAD]]), drawn, tf.constant([0.2]), tf.constant([0.8]))
        np.testing.assert_allclose(credit.values, [[0.2, 0]])
        np.testing.assert_allclose(credit.siblings.advantage, [2 * (0.2 - 0.4) / 2, (0.8 - 0.4) / 2], rtol=1e-6)

    def test_where_all_words_are_equal_nothing_learns(self, toy):
        captioner, _, features = toy
        drawn = drawn_words([[0, -1], [0, 0]], [[MAN], [END]])
        credit = siblings.leave_one_out(tf.constant([[MAN, END, PAD]]), drawn, tf.constant([0.2]), tf.zeros([0]))
        experience = experience_of(features[:1], [((MAN, END),)])._replace(drawn=drawn)
        gradients = policy_gradients(captioner, None, experience, credit)[0]
        assert not flat(gradients).any()


class TestSampled:
    def test_only_new_words_are_rolled_out(self, toy):
        captioner, _, features = toy
        batch = Batch(tf.constant(np.repeat(features, 20, axis=0)), tf.range(40), None)
        experience = objectives.vine(captioner, T, samples=2, rollouts=3).sample(batch, tf.constant([1, 2]), LEVEL)
        tokens, drawn, rollouts = experience.tokens.numpy(), experience.drawn, experience.rollouts
        assert len(drawn.prefix) == sum(len(without_padding(row)) for row in tokens)  # the empty prefix, too
        expected = []
        for (n, last), words in zip(drawn.prefix.numpy(), drawn.tokens.numpy(), strict=True):
            for word in dict.fromkeys(words):
                if word != tokens[n, last + 1]:
                    expected.append((n, last, *tokens[n, : last + 1], word))
        found = [
            (n, last, *row[: last + 2])
            for (n, last), row in zip(rollouts.prefix.numpy(), rollouts.tokens.numpy(), strict=True)
        ]
        assert found == expected
        hidden = captioner.hidden(features_of(experience), experience.tokens, packing := pack(experience.tokens))
        terms = log_probs(captioner.projection(), hidden, packing.of(experience.tokens))
        place = tf.gather_nd(packing.places(T), siblings.next_step(drawn.prefix))
        np.testing.assert_allclose(drawn.log_prob, tf.gather(terms, place), atol=1e-5)

    def test_the_update_is_that_of_log_probabilities(self, toy):
        """Logits in place of log pi: the same gradient, as the advantages of a state sum to 0."""
        captioner, _, features = toy
        experience, credit = sampled(captioner, features)
        words = credit.siblings
        np.testing.assert_allclose(
            tf.scatter_nd(words.state, words.advantage, experience.tokens.shape), np.zeros([4, T]), atol=1e-6
        )
        found = policy_gradients(captioner, None, experience, credit)[0]
        with tf.GradientTape() as tape:
            packing = pack(experience.tokens)
            hidden = captioner.hidden(features_of(experience), experience.tokens, packing)
            place = tf.gather_nd(packing.places(T), words.state)
            log_pi = tf.nn.log_softmax(captioner.projection().logits(tf.gather(hidden, place)))
            loss = -tf.reduce_sum(words.advantage * tf.gather(log_pi, words.token, batch_dims=1)) / 4
        expected = tape.gradient(loss, captioner.trainable_variables)
        assert np.abs(flat(expected)).max() > 1e-3
        np.testing.assert_allclose(flat(found), flat(expected), atol=1e-6)

    def test_a_share_of_likelihood(self, toy):
        """The gradient is the mix of both, and what is logged is of each."""
        captioner, _, features = toy
        experience, credit = sampled(captioner, features)
        truth = tf.constant(padded([[MAN, END], [DOG, SITS, END]], T))
        alone = policy_gradients(captioner, None, experience, credit)
        found = {
            w: policy_gradients(
                captioner,
                None,
                experience._replace(references=References(truth, tf.constant(w))),
                credit,
            )
            for w in (0.3, 1.0)
        }
        mixed = 0.7 * flat(alone.captioner) + 0.3 * flat(found[1.0].captioner)
        np.testing.assert_allclose(flat(found[0.3].captioner), mixed, atol=1e-6)
        with tf.GradientTape() as tape:
            packing = pack(truth)
            hidden = captioner.hidden(tf.constant(features), truth, packing)
            log_pi = tf.nn.log_softmax(captioner.projection().logits(hidden))
            loss = -tf.reduce_mean(tf.gather(log_pi, packing.of(truth), batch_dims=1))
        np.testing.assert_allclose(
            flat(found[1.0].captioner), flat(tape.gradient(loss, captioner.trainable_variables)), atol=1e-6
        )
        assert float(found[0.3].logs.likelihood_loss) == pytest.approx(float(loss), rel=1e-5)
        for name in ("entropy", "advantage_std"):
            assert float(getattr(found[0.3].logs, name)) == pytest.approx(float(getattr(alone.logs, name)), rel=1e-5)
        surprise = -np.mean(experience.drawn.log_prob)
        assert float(alone.logs.entropy) == pytest.approx(surprise, rel=1e-5)


def test_no_gradient_flows_through_advantages():
    logits, advantage = tf.constant([1.0, 2.0]), tf.constant([0.5, -0.5])
    with tf.GradientTape() as tape:
        tape.watch([logits, advantage])
        loss = siblings.siblings_loss(logits, advantage, tf.constant(2.0))
    found = tape.gradient(loss, [logits, advantage])
    np.testing.assert_allclose(found[0], [-0.25, 0.25])
    assert found[1] is None


def test_a_stage_without_words_to_compare_with_is_refused():
    parse(["main", "--workdir=w", "--stages=mle:1,vine:1", "--rollouts=1"])
    with pytest.raises(UserError, match="--rollouts=0 draws no word to compare with in the stage vine"):
        parse(["main", "--workdir=w", "--stages=mle:1,vine:1", "--rollouts=0"])
