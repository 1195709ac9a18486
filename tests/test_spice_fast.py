"""SPICE-fast: the metric on ids and on text, as a reward, its parser's training, and the benchmark against SPICE."""

import collections
import contextlib
import gzip
import itertools
import json
import types
import xml.etree.ElementTree

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import spice_fast as benchmark
from benchmarks import spice_gap
from models.special_tokens import END, SPECIAL_TOKENS
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.metric_names import parse_metrics, parse_reward, single_terms
from pipeline.metrics.spice import f_score
from pipeline.metrics.spice_fast import learn, learning
from pipeline.metrics.spice_fast.agreement import TupleScore, parsed
from pipeline.metrics.spice_fast.alignment import OPEN
from pipeline.metrics.spice_fast.examples import Batches, read_captions, read_texts
from pipeline.metrics.spice_fast.metric import MOST_WORDS, SpiceFast, TextSpiceFast
from pipeline.metrics.spice_fast.parser import PACKAGED, load_parser
from pipeline.metrics.text_metrics import TextMetrics, open_text_metrics
from pipeline.progress import Progress
from pipeline.rewards import ReferenceTexts, build_reward, reward_frequencies
from pipeline.score import Captioned, score_files
from pipeline.scores import score_captions
from pipeline.vocabulary import Vocabulary, pad
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

    def test_words_beyond_the_most_are_not_read_as_text_or_as_ids(self, parser, metric):
        """Pairs of words take the square of a caption's length in memory."""
        ahead, said = " ".join(["a"] * (MOST_WORDS - 1)), "dog runs through the grass"
        text = TextSpiceFast(parser)
        expected = np.nan_to_num(f_score(text.score([f"{ahead} {said}"], REFERENCES[:1])))
        np.testing.assert_allclose(
            metric(rows([f"{ahead} {said}"], MOST_WORDS + 9), tf.constant([0])), expected, atol=1e-6
        )
        assert text.tuples([f"{ahead} {said}"]) == text.tuples([f"{ahead} dog"]) != text.tuples([said])

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
        encoder = vocabulary.encoder()
        table = np.zeros([3, 3, 12], np.int32)
        for i, of_image in enumerate(REFERENCES):
            for r, caption in enumerate(of_image):
                ids = encoder.encode_reference(caption.split())
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
        plain = Config(mode="train", workdir="x", stages="mle:1")
        assert not {"spice_fast", "spider_fast", "spice"} & set(plain.terms())
        fast = Config(mode="train", workdir="x", stages="mle:1,pg:1", reward="spider_fast")
        assert {"spice_fast", "spider_fast"} <= set(fast.terms()) and "spice" not in fast.terms()

    def test_tables_say_what_it_is(self, tmp_path, capsys):
        annotations = [{"image_id": i, "caption": c} for i, of in enumerate(REFERENCES) for c in of]
        (tmp_path / "references.json").write_text(json.dumps({"annotations": annotations}))
        (tmp_path / "said.json").write_text(json.dumps([{"image_id": 0, "caption": "A dog on grass."}]))
        files = {"references": str(tmp_path / "references.json"), "results": str(tmp_path / "said.json")}
        for metrics, told in (("cider,spice_fast", True), ("cider", False)):
            score_files(Config(mode="score", metrics=metrics, **files))
            said = capsys.readouterr().out
            assert ("SPICE-fast" in said) == ("an approximation" in said) == told

    def test_tables_call_it_by_its_name(self, parser):
        metrics = TextMetrics(spice_fast=TextSpiceFast(parser))
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

        monkeypatch.setattr("pipeline.metrics.text_metrics.find_jvm", absent)
        settings = {"metric_workers": 1, "metric_timeout": 1.0, "metric_cache_dir": "", "corenlp": ""}
        with open_text_metrics(["cider", "spice_fast"], **settings) as metrics:
            assert metrics.spice_fast is not None and metrics.spice is None
        with pytest.raises(UserError, match="no Java"), open_text_metrics(["spice"], **settings):
            pass


def toy_captions(count):
    """Captions of one grammar, with their tuples."""
    rng = np.random.default_rng(0)
    things, likes = ["dog", "bench", "bus", "man", "tree", "hat"], ["red", "big", "old", "wet"]
    verbs = [("sits", "sit"), ("runs", "run"), ("stands", "stand")]
    made = {}
    while len(made) < count:
        a, b = rng.choice(things, 2, replace=False).tolist()
        like, (does, verb) = likes[rng.integers(4)], verbs[rng.integers(3)]
        made[f"a {like} {a} {does} near a {b}"] = [[a, b, f"{verb} near"], [a, like], [a], [b]]
        made[f"a {a} and a {like} {b}"] = [[b, like], [a], [b]]
    return made


@pytest.fixture
def tuples(tmp_path):
    path = tmp_path / "tuples.jsonl"
    lines = [json.dumps({"caption": caption, "tuples": made}) for caption, made in toy_captions(240).items()]
    path.write_text("\n".join(lines) + "\n")
    return path


def command(tuples, output, *more):
    return [f"--tuples={tuples}", f"--output={output}", "--units=24", "--batch_size=32", "--held_out=40", *more]


class TestLearning:
    def test_a_toy_language_is_learned_and_an_interruption_changes_nothing(self, tuples, tmp_path, monkeypatch, capsys):
        arguments = ["--epochs=40", "--learning_rate=0.02", "--dropout=0.1"]
        assert learn.main(command(tuples, tmp_path / "a.npz", *arguments)) == 0
        said = json.loads((tmp_path / "a.npz.json").read_text())
        assert said["held_out"]["tuple_f1"] > 0.97 and said["held_out"]["captions"] == 40
        toy = load_parser(tmp_path / "a.npz")
        caption = "a wet dog runs near a tree"
        assert set(parsed(toy, [caption.split()])[0]) == {
            tuple(one) for one in [["dog", "tree", "run near"], ["dog", "wet"], ["dog"], ["tree"]]
        }

        monkeypatch.setattr(learn, "SAVED_EVERY", 0.0)
        train = learn.Learner.train

        def until_step_90(self, batch):
            if int(self.step) == 90:
                raise KeyboardInterrupt
            return train(self, batch)

        monkeypatch.setattr(learn.Learner, "train", until_step_90)
        with pytest.raises(KeyboardInterrupt):
            learn.main(command(tuples, tmp_path / "b.npz", *arguments))
        assert not (tmp_path / "b.npz").exists()
        monkeypatch.setattr(learn, "SAVED_EVERY", 1e9)
        monkeypatch.setattr(learn.Learner, "train", train)
        assert learn.main(command(tuples, tmp_path / "b.npz", *arguments)) == 0
        assert "goes on after step 90" in capsys.readouterr().out
        one, other = np.load(tmp_path / "a.npz"), np.load(tmp_path / "b.npz")
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)

    def test_another_command_does_not_go_on_from_what_one_has_begun(self, tuples, tmp_path, capsys):
        """Or it would score captions as held out that the other one has learned."""
        output = tmp_path / "a.npz"
        assert learn.main(command(tuples, output, "--epochs=1")) == 0
        moved = tuples.rename(tmp_path / "moved.jsonl")
        assert learn.main(command(moved, output, "--epochs=1")) == 0
        assert "goes on after step" in capsys.readouterr().out
        written = output.read_bytes()
        for other in ("--seed=1", "--epochs=2", "--units=16", "--learning_rate=0.1"):
            assert learn.main(command(moved, output, "--epochs=1", other)) == 1
            assert f"other {other[2:].split('=')[0]};" in capsys.readouterr().err
        with moved.open("a") as more:
            more.write('{"caption": "a zebra", "tuples": [["zebra"]]}\n')
        assert learn.main(command(moved, output, "--epochs=1")) == 1
        assert "other captions;" in capsys.readouterr().err
        assert output.read_bytes() == written

    @pytest.mark.parametrize(
        "flag",
        [
            *("--seed=-1", f"--seed={2**32}", "--epochs=0", "--epochs=nan", "--batch_size=0", "--units=-3"),
            *("--dropout=1", "--dropout=-0.1", "--learning_rate=inf", "--learning_rate=0", "--held_out=-1"),
        ],
    )
    def test_numbers_that_nothing_is_learned_with_are_refused(self, tuples, tmp_path, capsys, flag):
        assert learn.main(command(tuples, tmp_path / "a.npz", flag)) == 1
        assert capsys.readouterr().err.startswith(f"error: {flag.split('=')[0]}=")

    def test_an_output_that_cannot_be_written_is_refused_before_anything_is_read(self, tmp_path, capsys):
        (tmp_path / "file").write_text("")
        for output, message in ((tmp_path, "is a folder"), (tmp_path / "file" / "a.npz", "cannot be written")):
            assert learn.main(command("none", output)) == 1
            assert f"--output={output} {message}" in capsys.readouterr().err

    def test_going_on_from_a_parser_keeps_its_words(self, tuples, tmp_path):
        assert learn.main(command(tuples, tmp_path / "a.npz", "--epochs=1")) == 0
        more = tmp_path / "more.jsonl"
        more.write_text(
            "".join(json.dumps({"caption": f"a zebra {k}", "tuples": [["zebra"]]}) + "\n" for k in range(60))
        )
        assert learn.main(command(more, tmp_path / "b.npz", "--epochs=1", f"--start={tmp_path / 'a.npz'}")) == 0
        assert load_parser(tmp_path / "b.npz").words == load_parser(tmp_path / "a.npz").words

    def test_what_is_left_out_is_not_learned(self, tuples, tmp_path, capsys):
        left = [{"image_id": k, "caption": f"{caption.capitalize()}."} for k, caption in enumerate(toy_captions(240))]
        (tmp_path / "left.json").write_text(json.dumps(left[:150]))
        assert len(read_texts(str(tmp_path / "left.json"))) == 150
        out = f"--leave_out={tmp_path / 'left.json'}"
        assert learn.main(command(tuples, tmp_path / "a.npz", "--epochs=1", out)) == 0
        assert "50 captions, " in capsys.readouterr().out  # of 240, 150 left out and 40 held out

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "leaves none to learn from"),
            ('{"caption": "a dog"}\n', "line 1 is not a caption with tuples"),
            ('{"caption": "a dog", "tuples": [["dog"]]}\nnothing\n', "line 2 is not a caption with tuples"),
            ('{"caption": "a dog", "tuples": [["a", "b", "c", "d"]]}\n', "one to three strings"),
            ('{"caption": "a dog", "tuples": [[3]]}\n', "one to three strings"),
            ('{"caption": "a dog", "tuples": [["dog", " "]]}\n', "a string without a word"),
            ('{"caption": "a \\ud800 dog", "tuples": [["dog"]]}\n', "line 1 is not a caption with tuples"),
        ],
    )
    def test_bad_tuples_are_refused_in_one_line(self, tmp_path, capsys, content, message):
        path = tmp_path / "bad.jsonl"
        path.write_text(content)
        assert learn.main(command(path, tmp_path / "a.npz")) == 1
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error

    def test_packed_tuples_are_read_and_half_a_file_is_refused(self, tuples, tmp_path, capsys):
        packed = gzip.compress(tuples.read_bytes())
        path = tmp_path / "tuples.jsonl.gz"
        path.write_bytes(packed)
        assert read_captions([path]) == read_captions([tuples])
        for damaged in (packed[: len(packed) // 2], packed[:99] + bytes(20) + packed[119:]):
            path.write_bytes(damaged)
            assert learn.main(command(path, tmp_path / "a.npz")) == 1
            assert "tuples.jsonl.gz cannot be read" in capsys.readouterr().err

    def test_lines_within_a_tuple_are_spaces(self, tmp_path):
        """A parser's file has a lemma a line."""
        path = tmp_path / "tuples.jsonl"
        path.write_text(json.dumps({"caption": "a\ndog", "tuples": [["dog\n", " hot \u2028dog"]]}))
        assert read_captions([path]) == [(["a", "dog"], [["dog", "hot dog"]])]

    @pytest.mark.parametrize("content", [b"", b"no parser", b"PK\x03\x04"])
    def test_a_file_that_is_no_parser_is_refused(self, tmp_path, content):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(UserError, match="cannot be read as a parser"):
            load_parser(tmp_path / "a.npz")

    def test_a_damaged_parser_is_refused(self, tmp_path):
        """Wherever the damage is: in what is packed it shows as it is unpacked."""
        whole = PACKAGED.read_bytes()
        for place in range(200, len(whole), len(whole) // 7):
            (tmp_path / "a.npz").write_bytes(whole[:place] + bytes(40) + whole[place + 40 :])
            with pytest.raises(UserError, match="cannot be read as a parser"):
                load_parser(tmp_path / "a.npz")

    @pytest.mark.parametrize(
        ("name", "text"), [("words", "a\nb"), ("labels", "~\non"), ("labels", "on"), ("nouns", "men")]
    )
    def test_a_parser_of_parts_that_do_not_fit_is_refused(self, tmp_path, name, text):
        with np.load(PACKAGED) as saved:
            np.savez(tmp_path / "a.npz", **{**saved, name: np.frombuffer(text.encode(), np.uint8)})
        with pytest.raises(UserError, match="cannot be read as a parser"):
            load_parser(tmp_path / "a.npz")

    def test_averages_are_of_the_weights_learned_and_stand_in_for_a_while(self, tuples):
        captions = read_captions([tuples])
        counts = collections.Counter(word for words, _ in captions for word in words)
        parser = learn.new_parser(captions, counts, 6)
        aligner, vocabulary = learn.Aligner(parser.lemmas, parser.labels), ["", *sorted(counts)]
        examples = [aligner(*caption) for caption in captions]
        batches = Batches(examples, {word: k for k, word in enumerate(vocabulary)}, 64)
        learner = learn.Learner(parser, vocabulary, counts, 0.01, 10)
        begin = [weight.numpy() for weight in parser.network.trainable_variables]
        seen = []
        for batch in itertools.islice(batches.epoch(0, 0), 2):
            learner.train(batch)
            seen.append([weight.numpy() for weight in parser.network.trainable_variables])
        with learner.averaged():
            means = [weight.numpy() for weight in parser.network.trainable_variables]
        for one, two, mean, now in zip(*seen, means, parser.network.trainable_variables, strict=True):
            np.testing.assert_allclose(mean, one / 21 + two * 20 / 21, atol=1e-6)  # of step n, n / (n + 20) is kept
            np.testing.assert_array_equal(now, two)
        assert any((first != two).any() for first, two in zip(begin, seen[1], strict=True))

    def test_what_is_left_open_costs_nothing(self):
        logits = tf.constant([2.0, -1.0, 5.0])
        loss = learning._binary(logits, tf.constant([1, 0, OPEN], tf.int8))
        assert float(loss) == pytest.approx(np.log1p(np.exp(-2.0)) + np.log1p(np.exp(-1.0)))

    def test_an_epoch_holds_every_caption_once_in_an_order_of_its_own(self, tuples):
        captions = read_captions([tuples])
        parser, counts = load_parser(), {}
        aligner = learn.Aligner(parser.lemmas, parser.labels)
        for words, _ in captions:
            counts |= dict.fromkeys(words)
        ids = {word: k for k, word in enumerate(["", *counts])}
        batches = Batches([aligner(words, made) for words, made in captions], ids, 32)
        seen = []
        for epoch in range(2):
            batch_rows = [[tuple(row[row > 0]) for row in batch.words] for batch in batches.epoch(0, epoch)]
            assert len(batch_rows) == batches.steps
            seen.append([row for of_batch in batch_rows for row in of_batch])
        assert sorted(seen[0]) == sorted(seen[1]) == sorted(tuple(ids[w] for w in words) for words, _ in captions)
        assert seen[0] != seen[1]
        for batch in batches.epoch(0, 0):
            for caption, subject, other, _, _ in batch.named:
                assert batch.relations[caption, subject, other] == 1
            assert (batch.relations == 1).sum() == len(batch.named)


class TestBenchmark:
    def test_correlations(self):
        a, b = np.array([1.0, 2, 3, 4, 4]), np.array([1.0, 3, 2, 4, 5])
        assert benchmark.pearson(a, 2 * a + 1) == pytest.approx(1)
        # Of ten pairs eight agree, one does not, one is tied in a alone.
        assert benchmark.kendall(a, b) == pytest.approx((8 - 1) / (9 * 10) ** 0.5)
        assert benchmark.kendall(a, -a) == pytest.approx(-1)
        assert np.isnan(benchmark.kendall(a, np.ones(5)))

    def test_pairs_that_are_apart(self):
        exact = np.array([[0.50, 0.10, 0.30], [0.40, 0.10, 0.36], [0.30, 0.20, 0.30]])
        fast = np.array([[0.45, 0.10, 0.30], [0.40, 0.30, 0.20], [0.50, 0.30, 0.30]])
        # Right: (0, 1) of the first image, (0, 2) of the second; a tie, as (1, 2) there, is wrong.
        assert benchmark.better_alike(exact, fast) == (2, 7)

    def test_files_of_one_name_are_told_apart(self):
        assert benchmark.named(["a/greedy.json", "a/beam.json"]) == {"greedy": "a/greedy.json", "beam": "a/beam.json"}
        assert list(benchmark.named(["a/beam.json", "b/beam.json"])) == ["a/beam.json", "b/beam.json"]

    def test_one_image_is_no_correlation_and_json_says_so(self, parser, tmp_path, monkeypatch):
        fast = TextSpiceFast(parser)
        exact = types.SimpleNamespace(score=lambda *some: fast.score(*some)[:, None], tuples=fast.tuples)
        opened = contextlib.nullcontext(TextMetrics(spice=exact))
        monkeypatch.setattr(benchmark, "open_text_metrics", lambda terms, **settings: opened)
        (tmp_path / "said.json").write_text(json.dumps([{"image_id": 1, "caption": "a dog"}]))
        annotations = {"annotations": [{"image_id": 1, "caption": "a dog on a bench"}]}
        (tmp_path / "references.json").write_text(json.dumps(annotations))
        arguments = [f"--references={tmp_path / 'references.json'}", f"--results={tmp_path / 'said.json'}"]
        assert benchmark.main([*arguments, f"--json={tmp_path / 'out.json'}"]) == 0
        found = json.loads((tmp_path / "out.json").read_text(), parse_constant=pytest.fail)
        assert found["systems"]["said"]["pearson"] is None and found["pair_agreement"] is None

    def test_captions_that_are_timed_differ(self, parser, monkeypatch):
        """Results that repeat themselves would be timed as the few captions that they are."""
        timed = []
        call = SpiceFast.__call__
        monkeypatch.setattr(SpiceFast, "__call__", lambda *some: timed.append(some[1:]) or call(*some))
        monkeypatch.setattr(tf, "function", lambda function, **_: function)
        monkeypatch.setattr(benchmark, "TIMES", 1)
        monkeypatch.setattr(benchmark, "BATCH", 5)
        captioned = Captioned((7, 9), ("a dog", "a dog"), (("a cat", "a dog runs"), ("a bus", "a red bus")))
        assert benchmark._rate(parser, captioned) > 0
        captions, images = timed[-1]
        assert len(np.unique(captions, axis=0)) == 5
        assert sorted(images.numpy().tolist()) == [0, 0, 1, 1, 1]

    def test_runs_against_java(self, spice, parser, tmp_path, monkeypatch, capsys):
        """On captions whose tuples are known, so that nothing has to be parsed."""
        demo = list(demo_tuples())
        captions = [caption for caption in demo if len(caption.split()) < 14][:36]
        images = [{"image_id": k, "caption": captions[k]} for k in range(6)]
        annotations = [{"image_id": k, "caption": captions[6 + 5 * k + r]} for k in range(6) for r in range(5)]
        (tmp_path / "references.json").write_text(json.dumps({"annotations": annotations}))
        (tmp_path / "said.json").write_text(json.dumps(images))

        @contextlib.contextmanager
        def opened(terms, **settings):
            yield TextMetrics(spice=spice)

        monkeypatch.setattr(benchmark, "open_text_metrics", opened)
        arguments = [f"--references={tmp_path / 'references.json'}", f"--results={tmp_path / 'said.json'}"]
        assert benchmark.main([*arguments, f"--json={tmp_path / 'out.json'}"]) == 0
        found = json.loads((tmp_path / "out.json").read_text())
        row = found["systems"]["said"]
        expected = TupleScore.of(
            parsed(parser, [c["caption"].split() for c in images]), spice.tuples([c["caption"] for c in images])
        )
        assert row["tuple_f1"] == pytest.approx(expected.f1) and row["images"] == 6
        assert row["corpus_difference"] == pytest.approx(row["corpus_spice_fast"] - row["corpus_spice"])
        assert found["captions_per_second"] > 0 and "pair_agreement" in capsys.readouterr().out
        assert benchmark.main([f"--references={tmp_path / 'none.json'}", "--results=x"]) == 1


class TestGap:
    def write(self, folder, rows):
        """A run's checkpoint, of which progress alone is read."""
        progress = Progress(history=rows)
        variable = tf.Variable("", dtype=tf.string)
        progress.store(variable)
        checkpoint = tf.train.Checkpoint(progress=variable)
        tf.train.CheckpointManager(checkpoint, folder / "checkpoints", max_to_keep=2).save()

    def test_draws_what_runs_reported(self, tmp_path, capsys):
        rows = [
            {"stage": "mle", "epoch": 1.0, "SPICE": 0.9, "SPICE-fast": 0.9},
            {"stage": "pg", "epoch": 0.5, "SPICE": 0.10, "SPICE-fast": 0.11},
            {"stage": "pg", "epoch": 1.0, "SPICE": 0.12, "SPICE-fast": 0.15},
        ]
        for name in ("one", "two"):
            self.write(tmp_path / name, rows)
        out = tmp_path / "gap.svg"
        assert spice_gap.main([f"--workdirs={tmp_path / 'one'},{tmp_path / 'two'}", f"--output={out}"]) == 0
        said = capsys.readouterr().out
        assert "+0.0100" in said and "+0.0300" in said and "0.9" not in said
        drawn = xml.etree.ElementTree.fromstring(out.read_text())
        assert len(drawn.findall(".//{http://www.w3.org/2000/svg}circle")) == 2 * 2 * 2

    def test_a_run_that_reported_both_later_and_earned_nothing(self, tmp_path, capsys):
        self.write(
            tmp_path / "one",
            [
                {"stage": "pg", "epoch": 0.5, "SPICE-fast": 0.3},
                {"stage": "pg", "epoch": 1.0, "SPICE": 0.0, "SPICE-fast": 0.0},
            ],
        )
        assert spice_gap.main([f"--workdirs={tmp_path / 'one'}", f"--output={tmp_path / 'gap.svg'}"]) == 0
        assert "0.50" not in capsys.readouterr().out and "nan" not in (tmp_path / "gap.svg").read_text()

    def test_runs_without_both_are_refused(self, tmp_path, capsys):
        self.write(tmp_path / "one", [{"stage": "pg", "epoch": 0.5, "SPICE": 0.10}])
        for folder in ("one", "none"):
            assert spice_gap.main([f"--workdirs={tmp_path / folder}", f"--output={tmp_path / 'x.svg'}"]) == 1
            assert "--metrics=spice,spice_fast" in capsys.readouterr().err
        assert not (tmp_path / "x.svg").exists()
