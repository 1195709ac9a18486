"""SPICE-fast: the metric on ids and on text, and as a reward."""

import json

import numpy as np
import pytest
import tensorflow as tf

from spidercap.models.special_tokens import END, SPECIAL_TOKENS
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.evaluation.score_files import score_files
from spidercap.pipeline.metrics.registry import parse_metrics, parse_reward, single_terms
from spidercap.pipeline.metrics.scores import score_captions
from spidercap.pipeline.metrics.spice import f_score
from spidercap.pipeline.metrics.spice_fast.metric import SpiceFast, TextSpiceFast
from spidercap.pipeline.metrics.spice_fast.parser import parsed
from spidercap.pipeline.metrics.spice_fast.parser_file import PACKAGED, load_parser
from spidercap.pipeline.metrics.text_metrics import open_text_metrics
from spidercap.pipeline.parser_training.agreement import TupleScore
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.text.flat_tokens import flat_tokens
from spidercap.pipeline.text.vocabulary import Vocabulary, pad
from spidercap.pipeline.training.rewards import ReferenceTexts, build_reward, reward_frequencies
from tests.conftest import demo_tuples
from tests.test_gpu_ready import host_only

REFERENCES = [
    ["a black dog runs through the grass", "a dog is running on green grass", "the dog has a red collar"],
    ["two men in orange hats sit on a bench", "men sitting on a wooden bench"],
    ["a zebra"],
]
WORDS = (
    *SPECIAL_TOKENS,
    *dict.fromkeys(" ".join(c for of in REFERENCES for c in of).split()),
    "cat",
    "hound",
    "unseenword",
)


@pytest.fixture(scope="module")
def parser():
    """The one that comes with the package."""
    return load_parser()


@pytest.fixture(scope="module")
def metric(parser):
    return SpiceFast(parser, WORDS, REFERENCES)


def rows(captions, steps=12, end=END):
    ids = {word: place for place, word in enumerate(WORDS)}
    table = np.zeros([len(captions), steps], np.int32)
    for row, caption in enumerate(captions):
        said = [*(ids[word] for word in caption.split()), end][:steps]
        table[row, : len(said)] = said
    return tf.constant(table)


SAID = [
    ("a black dog runs through the grass", 0),
    ("a dog on grass", 0),
    ("a hound in the grass", 0),
    ("two men sit on a bench", 1),
    ("two men sit on a bench", 0),
    ("a dog a dog a dog a dog on a", 0),
    ("", 1),
    ("unseenword", 2),
    ("a zebra", 2),
    ("a cat", 2),
    ("the grass runs through a black dog", 0),
]


def test_tables_of_the_cache_score_the_same_and_nothing_is_parsed_again(parser, metric, tmp_path, monkeypatch, capsys):
    captions, images = zip(*SAID, strict=True)
    expected = metric(rows(captions), np.array(images))
    SpiceFast(parser, WORDS, REFERENCES, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(type(parser), "parse", lambda *args: pytest.fail("parsed again"))
        again = SpiceFast(parser, WORDS, REFERENCES, tmp_path)
    np.testing.assert_array_equal(again(rows(captions), np.array(images)), expected)
    (path,) = tmp_path.glob("spice_fast/*/class0/last.npy")
    path.write_bytes(path.read_bytes()[:-8])
    np.testing.assert_array_equal(
        SpiceFast(parser, WORDS, REFERENCES, tmp_path)(rows(captions), np.array(images)), expected
    )
    assert "last.npy is damaged or was changed; computed again" in capsys.readouterr().err


class TestMetric:
    def test_what_it_says_of_captions_that_anyone_can_judge(self, parser):
        said = TextSpiceFast(parser).tuples(["a black dog sits on a red bench", "two men in hats", ""])
        expected = [("dog", "bench", "sit on"), ("dog", "black"), ("bench", "red"), ("dog",), ("bench",)]
        assert set(said[0]) == set(expected)
        assert set(said[1]) == {("man", "hat", "in"), ("man", "two"), ("man",), ("hat",)}
        assert said[2] == []

    def test_ids_and_text_score_alike(self, parser, metric):
        captions, images = zip(*SAID, strict=True)
        text = TextSpiceFast(parser)
        expected = np.nan_to_num(f_score(text.score(captions, [REFERENCES[i] for i in images])))
        for steps in (12, 20):
            scores = tf.function(metric, autograph=False)(rows(captions, steps), tf.constant(images))
            np.testing.assert_allclose(scores, expected, atol=1e-6)
        assert expected[8] == 1 and expected[6] == 0 and expected[9] == 0
        assert expected[2] > 0.1  # a hound is a dog
        assert expected[3] > 0.5 and expected[4] == 0  # another image
        assert expected[10] < expected[0]  # the same words in another order

    @pytest.mark.parametrize("also", [(), ("<pad>", "<unk>")])  # seldom, and so often that they are words
    def test_captions_may_hold_words_spelt_as_special_tokens(self, parser, also):
        references = [["a black dog <pad> runs through the <unk> grass"], ["a zebra"]]
        words = [*SPECIAL_TOKENS, *also, "a", "dog", "zebra", "grass", "runs", "through", "the"]
        said = ["a zebra", "a dog runs through the grass"]
        captions = [[len(words) - 1 - words[::-1].index(word) for word in caption.split()] for caption in said]
        scores = SpiceFast(parser, words, references)(pad(captions, 8), np.array([1, 0]))
        expected = f_score(TextSpiceFast(parser).score(said, [references[1], references[0]]))
        np.testing.assert_allclose(scores, expected, atol=1e-6)
        assert scores[0] == 1 and 0 < scores[1] < 1

    def test_long_captions_are_read_to_their_end_as_text_and_as_ids(self, parser, metric):
        ahead, said = " ".join(["a"] * 80), "dog runs through the grass"
        text = TextSpiceFast(parser)
        expected = np.nan_to_num(f_score(text.score([f"{ahead} {said}"], REFERENCES[:1])))
        assert expected > 0 and ("grass",) in text.tuples([f"{ahead} {said}"])[0]
        np.testing.assert_allclose(metric(rows([f"{ahead} {said}"], 96), tf.constant([0])), expected, atol=1e-6)

    def test_long_references_are_read_to_their_end(self, parser):
        words = [*SPECIAL_TOKENS, "a", "dog", "runs", "through", "the", "grass"]
        long = f"{'a ' * 80}dog runs through the grass"
        score = SpiceFast(parser, words, [[long, "a dog"], ["a dog"]])
        captions = tf.constant([[words.index("grass"), 0]] * 2)
        text = TextSpiceFast(parser).score(["grass"] * 2, [[long, "a dog"], ["a dog"]])
        np.testing.assert_allclose(score(captions, tf.constant([0, 1])), np.nan_to_num(f_score(text)), atol=1e-6)
        assert score(captions, tf.constant([0, 1]))[0] > 0

    def test_a_long_caption_takes_no_memory_from_others(self, parser, monkeypatch):
        lexicon = parser.lexicon(["", "dog", "a"])
        captions = [[2, 1], [2, 1] * 100, [2], [1, 1] * 100]
        together = parser.parse(flat_tokens([captions]), lexicon)
        assert [len(tuples) for tuples in together] == [24, 200, 24, 200]
        monkeypatch.setattr("spidercap.pipeline.metrics.spice_fast.parser.PAIRS", 1)
        for one, other in zip(parser.parse(flat_tokens([captions]), lexicon), together, strict=True):
            np.testing.assert_array_equal(one, other)

    def test_the_end_token_is_no_word(self, metric):
        captions, images = zip(*SAID[:4], strict=True)
        np.testing.assert_array_equal(
            metric(rows(captions), tf.constant(images)), metric(rows(captions, end=0), tf.constant(images))
        )

    def test_what_is_said_often_is_parsed_once(self, metric, monkeypatch):
        captions, images = zip(*SAID, strict=True)
        asked = []
        parser = metric._parser
        monkeypatch.setattr(metric, "_parser", lambda block, tables: asked.append(len(block)) or parser(block, tables))
        once = metric(rows(captions), tf.constant(images)).numpy()
        often = metric(tf.repeat(rows(captions), 50, axis=0), tf.repeat(tf.constant(images), 50))
        np.testing.assert_array_equal(often, np.repeat(once, 50))
        assert asked == [len(set(captions))] * 2

    def test_it_is_compiled_for_the_device(self, metric):
        function = tf.function(metric, autograph=False)
        specs = tf.TensorSpec([None, 12], tf.int32), tf.TensorSpec([None], tf.int32)
        assert host_only(function.get_concrete_function(*specs)) == set()

    def test_agrees_with_spice_on_the_demo(self, parser):
        """Floors well below what is measured: they catch a parser that does not fit its code."""
        demo = demo_tuples()
        captions = list(demo)[::4]
        score = TupleScore.of(parsed(parser, [c.split() for c in captions]), [demo[c] for c in captions])
        assert score.f1 > 0.87 and score.objects > 0.93 and score.relations > 0.75

    def test_the_parser_is_small(self):
        assert PACKAGED.stat().st_size < 10e6


class TestReward:
    def test_spider_fast_is_the_mean_of_its_parts(self):
        vocabulary = Vocabulary(WORDS, ())
        table = np.zeros([3, 3, 12], np.int32)
        for i, of_image in enumerate(REFERENCES):
            for r, caption in enumerate(of_image):
                ids = [*vocabulary.reference_ids(caption.split()), END]
                table[i, r, : len(ids)] = ids
        frequencies = reward_frequencies(table, vocabulary.reference_size, True)
        weights = parse_reward("spider_fast")
        assert weights == {"spice_fast": 0.5, "cider": 0.5}
        reward = build_reward(weights, table, frequencies, True, ReferenceTexts(vocabulary, REFERENCES))
        assert reward.is_compiled
        captions, images = zip(*SAID, strict=True)
        scores = reward.scores(rows(captions), tf.constant(images))
        np.testing.assert_allclose(reward.total(scores), 0.5 * scores["spice_fast"] + 0.5 * scores["cider"], atol=1e-6)
        assert float(scores["spice_fast"][8]) == 1

    def test_it_is_reported_where_it_is_asked_for_and_nowhere_else(self):
        assert not {"spice_fast", "spider_fast"} & set(parse_metrics("all"))
        assert parse_metrics("spider_fast") == ("spider_fast",)
        assert single_terms(("spider_fast",)) == ("cider", "spice_fast")
        plain = Config.of(mode="train", workdir="x", stages="mle:1")
        assert not {"spice_fast", "spider_fast", "spice"} & set(plain.terms())
        fast = Config.of(mode="train", workdir="x", stages="mle:1,pg:1", reward="spider_fast")
        assert {"spice_fast", "spider_fast"} <= set(fast.terms()) and "spice" not in fast.terms()

    def test_tables_say_what_it_is(self, tmp_path, capsys):
        annotations = [{"image_id": i, "caption": c} for i, of in enumerate(REFERENCES) for c in of]
        (tmp_path / "references.json").write_text(json.dumps({"annotations": annotations}))
        (tmp_path / "said.json").write_text(json.dumps([{"image_id": 0, "caption": "A dog on grass."}]))
        files = {"references": str(tmp_path / "references.json"), "results": str(tmp_path / "said.json")}
        for metrics, told in (("cider,spice_fast", True), ("cider", False)):
            score_files(Config.of(mode="score", metrics=metrics, **files))
            said = capsys.readouterr().out
            assert ("SPICE-fast" in said) == ("an approximation" in said) == told

    def test_tables_call_it_by_its_name(self, parser):
        metrics = {"spice_fast": TextSpiceFast(parser)}
        captions, images = zip(*SAID[:4], strict=True)
        scores = score_captions(
            [REFERENCES[i] for i in images], captions, ("cider", "spice_fast", "spider_fast"), metrics
        )
        assert list(scores.corpus) == ["CIDEr", "SPICE-fast", "SPIDEr-fast"]
        assert scores.images[0]["SPICE-fast"] > scores.images[1]["SPICE-fast"] > 0
        mean = np.mean([image["SPICE-fast"] for image in scores.images])
        assert scores.corpus["SPICE-fast"] == pytest.approx(mean)
        assert scores.corpus["SPIDEr-fast"] == pytest.approx((mean + scores.corpus["CIDEr"]) / 2)

    def test_it_needs_no_java(self, monkeypatch):
        def absent():
            raise UserError("no Java")

        monkeypatch.setattr("spidercap.pipeline.metrics.text_metrics.find_jvm", absent)
        settings = {"metric_workers": 1, "metric_timeout": 1.0, "metric_cache_dir": "", "corenlp": ""}
        with open_text_metrics(["cider", "spice_fast"], **settings) as metrics:
            assert list(metrics) == ["spice_fast"]
        with pytest.raises(UserError, match="no Java"), open_text_metrics(["spice"], **settings):
            pass
