"""A reward is the weighted sum of its metrics, wherever they are computed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from spidercap.models.special_tokens import END, SPECIAL_TOKENS
from spidercap.pipeline.data.batches import Batch
from spidercap.pipeline.metrics import spice
from spidercap.pipeline.metrics.long_captions import LongCaptions
from spidercap.pipeline.metrics.registry import SPICE_PARTS, parse_reward
from spidercap.pipeline.text.vocabulary import Vocabulary
from spidercap.pipeline.training.logs import as_floats, named_scalars
from spidercap.pipeline.training.objectives import policy_gradient
from spidercap.pipeline.training.rewards import ReferenceTexts, Reward, build_reward, reward_frequencies
from spidercap.pipeline.training.steps import policy_gradient_step
from tests import oracles

VOCABULARY = Vocabulary((*SPECIAL_TOKENS, "a", "red", "dog"), ("zebra",))
A, RED, DOG, ZEBRA = 4, 5, 6, 7
REFERENCES = np.array([[[A, RED, DOG, END], [A, DOG, END, 0]], [[A, ZEBRA, END, 0], [DOG, END, 0, 0]]], np.int32)
CAPTIONS = np.array(
    [[A, RED, DOG, END], [A, RED, DOG, 0], [A, DOG, END, 0], [DOG, END, 0, 0], [A, DOG, END, 0]], np.int32
)
IMAGES = np.array([0, 0, 0, 1, 0], np.int32)


class Meteor:
    """Pays a caption's number of words, and keeps what it was given."""

    def rewards(self, candidates, references):
        self.asked = list(zip(candidates, references, strict=True))
        return np.array([float(len(c.split())) for c in candidates])


class Spice(spice.Spice):
    """Half of the tuples match in captions with a dog; others hold none, like their references."""

    def __init__(self):
        super().__init__(None, None, None, LongCaptions(None, None, 60.0))

    def score(self, candidates, references):
        counts = np.zeros([len(candidates), 1 + len(SPICE_PARTS), 3], np.int64)
        counts[["dog" in c for c in candidates], 0] = [1, 2, 2]
        return counts


def reward_of(text, end_token_in_reward=True):
    meteor = Meteor()
    texts = ReferenceTexts(VOCABULARY, [["a red dog", "a dog"], ["a zebra", "dog"]])
    frequencies = reward_frequencies(REFERENCES, VOCABULARY.reference_size, end_token_in_reward)
    java = {"meteor": meteor, "spice": Spice()}
    reward = build_reward(parse_reward(text), REFERENCES, frequencies, end_token_in_reward, texts, java)
    return reward, meteor


def words_of(row, end):
    return [int(w) for w in row if w and (end or w != END)]


@pytest.mark.parametrize("end", [True, False], ids=["end token counts", "end token left out"])
def test_compiled_terms_equal_their_equations(end):
    reward, _ = reward_of("cider:1,rouge:2,bleu1:0.5,bleu4:0.25", end)
    assert reward.is_compiled
    scores = reward.scores(tf.constant(CAPTIONS), tf.constant(IMAGES))
    corpus = [[words_of(r, end) for r in of_image] for of_image in REFERENCES]
    for i, (caption, image) in enumerate(zip(CAPTIONS, IMAGES, strict=True)):
        said, true = words_of(caption, end), corpus[image]
        assert float(scores["cider"][i]) == pytest.approx(oracles.cider_d(said, true, corpus), abs=1e-5)
        assert float(scores["rouge"][i]) == pytest.approx(oracles.rouge_l(said, true), abs=1e-5)
        bleu = oracles.bleu([said], [true], tiny=1e-15, small=1e-9)
        assert float(scores["bleu1"][i]) == pytest.approx(bleu[0], abs=1e-5)
        assert float(scores["bleu4"][i]) == pytest.approx(bleu[3], abs=1e-5)
    total = scores["cider"] + 2 * scores["rouge"] + 0.5 * scores["bleu1"] + 0.25 * scores["bleu4"]
    np.testing.assert_allclose(reward.total(scores), total, atol=1e-6)


def test_stopping_pays_only_where_the_end_counts():
    """The same words with and without the end token."""
    for end, pays in ((True, True), (False, False)):
        scores = reward_of("cider", end)[0].scores(tf.constant(CAPTIONS[:2]), tf.constant([0, 0]))["cider"].numpy()
        assert (scores[0] > scores[1] + 0.1) == pays


def test_java_metrics_see_text_without_end_and_without_duplicates():
    reward, meteor = reward_of("meteor:1,spice:2,cider:1")
    assert not reward.is_compiled
    scores = reward.scores(tf.constant(CAPTIONS), tf.constant(IMAGES))
    np.testing.assert_array_equal(scores["meteor"], [3, 3, 2, 1, 2])
    np.testing.assert_array_equal(scores["spice"], [0.5] * 5)
    assert sorted(c for c, _ in meteor.asked) == ["a dog", "a red dog", "a red dog", "dog"]
    assert dict(meteor.asked)["dog"] == ["a zebra", "dog"]
    np.testing.assert_allclose(reward.total(scores), scores["cider"] + scores["meteor"] + 2 * scores["spice"])


def test_spice_of_nothing_pays_nothing():
    reward, _ = reward_of("spice")
    scores = reward.scores(tf.constant([[RED, END, 0, 0]]), tf.constant([0]))
    np.testing.assert_array_equal(scores["spice"], [0.0])


def test_a_rare_word_is_matched_by_nothing():
    """UNKNOWN said against a reference with a rare word: no metric on ids pays for it."""
    reward, _ = reward_of("cider:1,rouge:1,bleu1:1", False)
    scores = reward.scores(tf.constant([[3, 3, END, 0]]), tf.constant([1]))
    assert max(float(s[0]) for s in scores.values()) < 1e-6


def test_scoring_on_the_host_learns_the_same(toy):
    """One step with CIDEr in the compiled step, and one with CIDEr between two compiled halves: the same weights."""
    captioner, baseline, features = toy
    references = np.minimum(REFERENCES, 6)  # the toy's words
    reward = build_reward({"cider": 2.0}, references, reward_frequencies(references, 8, True), True)

    def on_host(captions, image_index):
        return reward.scores(tf.constant(captions), tf.constant(image_index))["cider"].numpy()

    models = captioner, baseline
    before = [w.numpy() for model in models for w in model.trainable_variables]
    results = []
    for kind in (reward, Reward({"cider": 2.0}, lambda captions, image_index: {}, {"cider": on_host})):
        for weight, value in zip((w for m in models for w in m.trainable_variables), before, strict=True):
            weight.assign(value)
        optimizers = [keras.optimizers.SGD(0.1) for _ in models]
        for optimizer, model in zip(optimizers, models, strict=True):
            optimizer.build(model.trainable_variables)
        objective = policy_gradient(captioner, 4, samples=2, rollouts=2)
        step = policy_gradient_step(captioner, baseline, kind, objective, *optimizers, feature_dropout=0.1)
        batch = Batch(tf.constant(features), tf.constant([0, 1]), None)
        logs = [step(batch, tf.constant([1, i]), tf.constant(0.0)) for i in range(3)]
        weights = [w.numpy() for model in models for w in model.trainable_variables]
        results.append((weights, [named_scalars(as_floats(log)) for log in logs]))
    assert max(np.abs(a - b).max() for a, b in zip(results[0][0], before, strict=True)) > 1e-3
    for a, b in zip(*(weights for weights, _ in results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    for a, b in zip(*(logs for _, logs in results), strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6)
        assert a["reward"] == pytest.approx(2 * a["reward CIDEr"], rel=1e-5)
