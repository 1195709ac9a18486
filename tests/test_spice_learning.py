"""Learning the scene-graph parser: from captions with tuples to a file, interrupted or not."""

import collections
import gzip
import itertools
import json

import numpy as np
import pytest
import tensorflow as tf

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.metrics.spice_fast.parser import parsed
from spidercap.pipeline.metrics.spice_fast.parser_file import PACKAGED, load_parser
from spidercap.pipeline.metrics.spice_fast.version import read_version
from spidercap.pipeline.parser_training import learner as learner_module
from spidercap.pipeline.parser_training import main
from spidercap.pipeline.parser_training.alignment import OPEN
from spidercap.pipeline.parser_training.examples import Batches, read_captions, read_texts


@pytest.fixture(scope="module")
def parser():
    """The one that comes with the package."""
    return load_parser()


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
    @pytest.mark.long
    def test_a_toy_language_is_learned_and_an_interruption_changes_nothing(self, tuples, tmp_path, monkeypatch, capsys):
        arguments = ["--epochs=40", "--learning_rate=0.02", "--dropout=0.1"]
        assert main.main(command(tuples, tmp_path / "a.npz", *arguments)) == 0
        said = json.loads((tmp_path / "a.npz.json").read_text())
        assert said["held_out"]["tuple_f1"] > 0.97 and said["held_out"]["captions"] == 40
        toy = load_parser(tmp_path / "a.npz")
        caption = "a wet dog runs near a tree"
        assert set(parsed(toy, [caption.split()])[0]) == {
            tuple(one) for one in [["dog", "tree", "run near"], ["dog", "wet"], ["dog"], ["tree"]]
        }

        monkeypatch.setattr(main, "SAVED_EVERY", 0.0)
        train = main.Learner.train

        def until_step_90(self, batch):
            if int(self.step) == 90:
                raise KeyboardInterrupt
            return train(self, batch)

        monkeypatch.setattr(main.Learner, "train", until_step_90)
        with pytest.raises(KeyboardInterrupt):
            main.main(command(tuples, tmp_path / "b.npz", *arguments))
        assert not (tmp_path / "b.npz").exists()
        monkeypatch.setattr(main, "SAVED_EVERY", 1e9)
        monkeypatch.setattr(main.Learner, "train", train)
        assert main.main(command(tuples, tmp_path / "b.npz", *arguments)) == 0
        assert "resuming after step 90" in capsys.readouterr().out
        one, other = np.load(tmp_path / "a.npz"), np.load(tmp_path / "b.npz")
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)

    def test_another_command_does_not_go_on_from_what_one_has_begun(self, tuples, tmp_path, capsys):
        """Or it would score captions as held out that the other one has learned."""
        output = tmp_path / "a.npz"
        assert main.main(command(tuples, output, "--epochs=1")) == 0
        moved = tuples.rename(tmp_path / "moved.jsonl")
        assert main.main(command(moved, output, "--epochs=1")) == 0
        assert "resuming after step" in capsys.readouterr().out
        written = output.read_bytes()
        for other in ("--seed=1", "--epochs=2", "--units=16", "--learning_rate=0.1"):
            assert main.main(command(moved, output, "--epochs=1", other)) == 1
            assert f"other {other[2:].split('=')[0]};" in capsys.readouterr().err
        with moved.open("a") as more:
            more.write('{"caption": "a zebra", "tuples": [["zebra"]]}\n')
        assert main.main(command(moved, output, "--epochs=1")) == 1
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
        assert main.main(command(tuples, tmp_path / "a.npz", flag)) == 1
        assert capsys.readouterr().err.startswith(f"error: {flag.split('=')[0]}=")

    def test_an_output_that_cannot_be_written_is_refused_before_anything_is_read(self, tmp_path, capsys):
        (tmp_path / "file").write_text("")
        for output, message in ((tmp_path, "is a folder"), (tmp_path / "file" / "a.npz", "cannot be written")):
            assert main.main(command("none", output)) == 1
            assert f"--output={output} {message}" in capsys.readouterr().err

    def test_going_on_from_a_parser_keeps_its_words(self, tuples, tmp_path, capsys):
        assert main.main(command(tuples, tmp_path / "a.npz", "--epochs=1")) == 0
        more = tmp_path / "more.jsonl"
        more.write_text(
            "".join(json.dumps({"caption": f"a zebra {k}", "tuples": [["zebra"]]}) + "\n" for k in range(60))
        )
        going_on = [
            f"--tuples={more}",
            f"--output={tmp_path / 'b.npz'}",
            f"--start={tmp_path / 'a.npz'}",
            "--held_out=40",
        ]
        assert main.main([*going_on, "--epochs=1"]) == 0
        assert load_parser(tmp_path / "b.npz").words == load_parser(tmp_path / "a.npz").words
        versions = [read_version(tmp_path / name) for name in ("a.npz", "b.npz")]
        assert [version.partition(".")[0] for version in versions] == ["1", "2"] and versions[0][2:] != versions[1][2:]
        assert json.loads((tmp_path / "b.npz.json").read_text())["version"] == versions[1]
        assert f"version of the parser: {versions[1]}" in capsys.readouterr().out
        assert main.main([*going_on, "--units=128"]) == 1
        assert "--units=128 with --start" in capsys.readouterr().err

    def test_what_is_left_out_is_not_learned(self, tuples, tmp_path, capsys):
        left = [{"image_id": k, "caption": f"{caption.capitalize()}."} for k, caption in enumerate(toy_captions(240))]
        (tmp_path / "left.json").write_text(json.dumps(left[:150]))
        assert len(read_texts(str(tmp_path / "left.json"))) == 150
        out = f"--leave_out={tmp_path / 'left.json'}"
        assert main.main(command(tuples, tmp_path / "a.npz", "--epochs=1", out)) == 0
        assert "50 captions, " in capsys.readouterr().out  # of 240, 150 left out and 40 held out

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "leaves none to train on"),
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
        assert main.main(command(path, tmp_path / "a.npz")) == 1
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error

    def test_packed_tuples_are_read_and_half_a_file_is_refused(self, tuples, tmp_path, capsys):
        packed = gzip.compress(tuples.read_bytes())
        path = tmp_path / "tuples.jsonl.gz"
        path.write_bytes(packed)
        assert read_captions([path]) == read_captions([tuples])
        for damaged in (packed[: len(packed) // 2], packed[:99] + bytes(20) + packed[119:]):
            path.write_bytes(damaged)
            assert main.main(command(path, tmp_path / "a.npz")) == 1
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
        parser = main.new_parser(captions, counts, 6)
        aligner, vocabulary = main.Aligner(parser.lemmas, parser.labels), ["", *sorted(counts)]
        examples = [aligner(*caption) for caption in captions]
        batches = Batches(examples, {word: k for k, word in enumerate(vocabulary)}, 64)
        learner = main.Learner(parser, vocabulary, counts, 0.01, 10)
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
        loss = learner_module._binary(logits, tf.constant([1, 0, OPEN], tf.int8))
        assert float(loss) == pytest.approx(np.log1p(np.exp(-2.0)) + np.log1p(np.exp(-1.0)))

    def test_an_epoch_holds_every_caption_once_in_an_order_of_its_own(self, tuples):
        captions = read_captions([tuples])
        parser, counts = load_parser(), {}
        aligner = main.Aligner(parser.lemmas, parser.labels)
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
