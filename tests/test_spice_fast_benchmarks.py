"""What the benchmarks of SPICE-fast measure and draw."""

import contextlib
import json
import types
import xml.etree.ElementTree

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import spice_fast as benchmark
from benchmarks import spice_gap
from spidercap.pipeline.evaluation.score_files import Captioned
from spidercap.pipeline.metrics.spice_fast.metric import SpiceFast, TextSpiceFast
from spidercap.pipeline.metrics.spice_fast.parser import parsed
from spidercap.pipeline.metrics.spice_fast.parser_file import load_parser
from spidercap.pipeline.parser_training.agreement import TupleScore
from spidercap.pipeline.training.checkpoint_files import write_checkpoint
from spidercap.pipeline.training.progress import Progress
from tests.conftest import demo_tuples
from tests.finished_runs import row


@pytest.fixture(scope="module")
def parser():
    """The one that comes with the package."""
    return load_parser()


class TestBenchmark:
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
        exact = types.SimpleNamespace(rewards=fast.rewards, tuples=fast.tuples)
        opened = contextlib.nullcontext({"spice": exact})
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
            yield {"spice": spice}

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
        progress = Progress(history=[row(1, **r) for r in rows]).to_json()
        write_checkpoint(folder / "checkpoints", tf.train.Checkpoint(), keep=2, progress=progress)

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
