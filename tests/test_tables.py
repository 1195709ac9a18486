"""A new way of doing something is one row of its table."""

import pkgutil

import numpy as np
import pytest
import tensorflow as tf

from spidercap.models.special_tokens import END, SPECIAL_TOKENS
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.metrics import references as module
from spidercap.pipeline.metrics.compiled import Family, families, family_of_one
from spidercap.pipeline.metrics.registry import METRICS, Metric, parse_metrics, parse_reward, remarks, single_terms
from spidercap.pipeline.metrics.scores import score_captions
from spidercap.pipeline.metrics.text_metrics import Evaluated, open_text_metrics
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.text.vocabulary import Vocabulary
from spidercap.pipeline.training.rewards import ReferenceTexts, build_reward, reward_frequencies

VOCABULARY = Vocabulary((*SPECIAL_TOKENS, "a", "red", "dog"), ())
A, RED, DOG = 4, 5, 6
IDS = np.array([[[A, RED, DOG, END], [A, DOG, END, 0]], [[DOG, END, 0, 0], [0, 0, 0, 0]]], np.int32)
TEXTS = ReferenceTexts(VOCABULARY, [["a red dog", "a dog"], ["dog"]])
CAPTIONS = tf.constant([[A, RED, DOG, END], [A, DOG, END, 0], [RED, RED, END, 0]])
IMAGES = tf.constant([0, 0, 1])
SETTINGS = {"metric_workers": 1, "metric_timeout": 1.0, "metric_cache_dir": "", "corenlp": ""}

LENGTH = family_of_one("length", lambda inputs: lambda captions, _: lengths(captions, inputs.dtype))


def lengths(captions, dtype):
    return tf.reduce_sum(tf.cast(captions != 0, dtype), 1)


class Echo:
    """1 for a caption that is one of its references; shows the share of words that begin with 'a'."""

    def rewards(self, captions, references):
        return np.array([float(c in of_image) for c, of_image in zip(captions, references, strict=True)])

    def evaluate(self, captions, references, bar):
        each = self.rewards(captions, references)
        begins = np.array([np.mean([w[0] == "a" for w in c.split()]) if c else np.nan for c in captions])
        return Evaluated(float(each.max()), each, {"Echo of a": begins})


def open_echo(stack, settings):
    stack.callback(closed.append, settings.metric_workers)
    return Echo()


closed = []


def reward_of(text, text_metrics=None, end=True):
    frequencies = reward_frequencies(IDS, VOCABULARY.reference_size, end)
    return build_reward(parse_reward(text), IDS, frequencies, end, TEXTS, text_metrics)


class TestMetrics:
    @pytest.fixture(autouse=True)
    def toys(self, monkeypatch):
        monkeypatch.setitem(METRICS, "length", Metric("Length", compiled=f"{__name__}:LENGTH"))
        row = Metric("Echo", text=f"{__name__}:open_echo", exact=False, remark="Echo only repeats.")
        monkeypatch.setitem(METRICS, "echo", row)
        monkeypatch.setitem(METRICS, "both", Metric("Both", mix={"length": 1.0, "echo": 2.0}, exact=False))
        closed.clear()

    def test_flags_know_them(self):
        assert parse_reward("length:2,both") == {"length": 3.0, "echo": 2.0}
        assert parse_metrics("both,cider") == ("cider", "both")
        assert parse_metrics("all")[-1] == "length" and "echo" not in parse_metrics("all")
        assert single_terms(["both"]) == ("length", "echo")
        config = Config.of(workdir="x", stages="mle:1", metrics="echo")
        assert config.terms()[-3:] == ("length", "echo", "both")
        assert remarks(["Both"]) == remarks(["Echo"]) == ["Echo only repeats."] and remarks(["Length"]) == []
        with pytest.raises(UserError, match="did you mean length"):
            parse_reward("lenght")

    @pytest.mark.parametrize(("end", "words"), [(True, [4, 3, 3]), (False, [3, 2, 2])])
    def test_a_compiled_one_is_a_reward_in_the_graph(self, end, words):
        reward = reward_of("length:0.5,cider:1", end=end)
        assert reward.is_compiled
        scores = tf.function(reward.compiled_scores)(CAPTIONS, IMAGES)
        np.testing.assert_array_equal(scores["length"], words)
        np.testing.assert_allclose(reward.total(scores), 0.5 * np.array(words) + scores["cider"], rtol=1e-6)

    def test_one_on_text_is_a_reward_on_the_host(self):
        with open_text_metrics(["echo", "length"], **SETTINGS) as metrics:
            assert list(metrics) == ["echo"]
            reward = reward_of("both", metrics)
            assert not reward.is_compiled
            scores = reward.scores(CAPTIONS, IMAGES)
            assert closed == []
        assert closed == [1]
        np.testing.assert_array_equal(scores["echo"], [1, 1, 0])
        np.testing.assert_array_equal(reward.total(scores), [6, 5, 3])

    def test_both_are_evaluated(self):
        captions = ["a dog", "", "red red dog"]
        references = [["a dog"], ["dog"], ["dog"]]
        with open_text_metrics(single_terms(["both", "echo"]), **SETTINGS) as metrics:
            scores = score_captions(references, captions, ["both", "echo"], metrics)
            alone = score_captions(references, captions, ["both"], metrics)
        assert scores.corpus == {"Echo": 1.0, "Both": pytest.approx(5 / 3 + 2), "Echo of a": 0.25}
        assert [image["Both"] for image in scores.images] == [4, 0, 3]
        assert [image["Echo of a"] for image in scores.images] == [0.5, None, 0]
        assert list(alone.corpus) == ["Both"]

    def test_a_compiled_one_is_in_tables_with_those_on_words(self):
        """An image without references, and a caption far longer than the others."""
        captions, references = ["a dog", "", "red dog " * 40], [["a dog"], [], ["dog", "red dog"]]
        scores = score_captions(references, captions, ["bleu1", "length"], {})
        assert scores.corpus == {"BLEU-1": pytest.approx(4 / 82), "Length": pytest.approx(82 / 3)}
        assert [image["Length"] for image in scores.images] == [2, 0, 80]

    def test_every_row_can_be_resolved_and_gives_its_term(self):
        for term, metric in METRICS.items():
            assert bool(metric.mix) != bool(metric.compiled or metric.text)
            assert metric.compiled or not metric.words  # or it could not be a reward
            assert not metric.words or callable(pkgutil.resolve_name(metric.words))
            for family in families([term]):
                assert isinstance(family, Family) and term in family.terms
            assert metric.mix.keys() <= METRICS.keys()

    @pytest.mark.parametrize("text", ["bleu1:1,bleu4:1,rouge:1,cider:1", "rouge", "length"])
    def test_references_are_prepared_once(self, text, monkeypatch):
        made = []

        class Positions(module.ReferencePositions):
            def __init__(self, references, cache):
                made.append(references)
                super().__init__(references, cache)

        monkeypatch.setattr(module, "ReferencePositions", Positions)
        scores = reward_of(text).scores(CAPTIONS, IMAGES)
        assert len(scores) == text.count(",") + 1
        assert len(made) == (text != "length")
