"""The version of SPICE-fast's parser: its file has it, and every place that shows a number names it."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

import spidercap
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.evaluation import scoring
from spidercap.pipeline.main import main
from spidercap.pipeline.metrics.registry import remarks
from spidercap.pipeline.metrics.spice_fast.parser_file import load_parser, save_parser
from spidercap.pipeline.metrics.spice_fast.version import PACKAGED, number_of, read_version, version_of
from spidercap.pipeline.metrics.versions import split_versions
from spidercap.pipeline.training.checkpoint_files import newest_checkpoint
from spidercap.pipeline.training.loop import tell_of_versions
from spidercap.pipeline.training.progress import Progress, read_progress
from spidercap.pipeline.training.scalar_texts import step_text, validation_text
from tests.conftest import ROOT
from tests.finished_runs import row

SHIPPED = "3.7cf94b"
SENTENCE = f"SPICE-fast is an approximation of SPICE by a learned parser, version {SHIPPED}; --metrics=spice computes"
VERSIONS = {"SPICE-fast parser": SHIPPED}
REFERENCES = {7: ["A black dog runs on the grass.", "A dog is running."], 9: ["Two men sit on a bench."]}
CANDIDATES = {7: "a dog runs on grass", 9: "a man on a bench"}


@pytest.fixture
def arrays():
    with np.load(PACKAGED) as saved:
        return dict(saved)


class TestFile:
    def test_the_packaged_one(self, arrays):
        assert read_version() == version_of(arrays) == load_parser().version == SHIPPED

    @pytest.mark.parametrize("name", ["weight scene_parser/roles", "words", "nouns", "sizes"])
    def test_whatever_a_score_depends_on_changes_it(self, arrays, name):
        changed = arrays[name].copy()
        changed.flat[-1] += 1
        other = version_of({**arrays, name: changed})
        assert other != SHIPPED and number_of(other) == 3

    def test_another_number_keeps_the_digest(self, arrays):
        assert version_of({**arrays, "version": np.array(12)}) == SHIPPED.replace("3.", "12.")
        del arrays["version"]  # a file of a training that stored none
        assert version_of(arrays) == SHIPPED.replace("3.", "0.") and number_of("") == 0

    def test_a_parser_that_is_stored_again_has_the_same_digest(self, tmp_path):
        parser = load_parser()
        made = save_parser(tmp_path / "parser.npz", parser, 4)
        assert made == read_version(tmp_path / "parser.npz") == SHIPPED.replace("3.", "4.")
        bias = parser.network.roles_bias
        bias.assign_add(np.full(bias.shape, 0.5, np.float32))
        assert save_parser(tmp_path / "parser.npz", parser, 4) != made
        assert load_parser(tmp_path / "parser.npz").version.startswith("4.")

    def test_it_is_read_without_tensorflow(self):
        code = (
            "import sys\nfrom spidercap.pipeline.metrics.spice_fast.version import read_version\n"
            "print(read_version(), {'tensorflow', 'keras'} & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
        assert done.stdout == f"{SHIPPED} set()\n"

    def test_a_file_that_is_none_is_refused(self, tmp_path):
        (tmp_path / "parser.npz").write_bytes(b"none")
        with pytest.raises(UserError, match="cannot be read as a parser"):
            read_version(tmp_path / "parser.npz")


class TestSentence:
    def test_versions_that_differ_or_are_not_known(self):
        assert "parser, version not known;" in remarks(["SPICE-fast"])[0]
        assert remarks(["SPIDEr-fast"], VERSIONS, VERSIONS)[0].startswith(SENTENCE)
        other = {"SPICE-fast parser": "4.0123ab"}
        assert (
            f"versions {SHIPPED} and 4.0123ab and an unknown one, which differ;"
            in (remarks(["SPICE-fast"], VERSIONS, other, {})[0])
        )
        assert remarks(["CIDEr", "SPICE"], VERSIONS) == []

    def test_stored_scores_and_versions_are_told_apart(self):
        scores = {"SPICE-fast": 0.1, "SPICE Color": None}
        assert split_versions({**scores, **VERSIONS}) == (scores, VERSIONS)
        wrong = {"SPICE-fast parser": 3, "CIDEr": "high"}
        assert split_versions(wrong) == (wrong, {})

    def test_scalars(self):
        for text in (validation_text("SPICE-fast"), validation_text("SPIDEr-fast"), step_text("reward SPICE-fast")):
            assert SENTENCE in text
        assert "approximation" not in validation_text("SPICE") + step_text("reward CIDEr") + step_text("loss")


class TestScores:
    def test_from_python_in_two_lines_without_java(self, monkeypatch):
        monkeypatch.setattr(scoring, "java_found", lambda: False)
        monkeypatch.setattr("spidercap.pipeline.metrics.text_metrics.find_jvm", lambda: pytest.fail("Java"))
        scores = spidercap.score(REFERENCES, CANDIDATES, metrics="spice_fast")
        assert scores.corpus == {"SPICE-fast": pytest.approx(np.mean([2 * 3 / 8, 2 * 2 / 7]))}
        assert scores.versions == VERSIONS and [note.startswith(SENTENCE) for note in scores.notes] == [True]
        exact = spidercap.score(REFERENCES, CANDIDATES, metrics="cider")
        assert exact.versions == {} and exact.notes == ()

    def test_of_files(self, tmp_path, capsys):
        (tmp_path / "references.json").write_text(json.dumps({str(i): of for i, of in REFERENCES.items()}))
        (tmp_path / "results.json").write_text(json.dumps(CANDIDATES))
        flags = [f"--{name}={tmp_path / name}.json" for name in ("references", "results", "output")]
        assert main(["main", "--mode=score", "--metrics=spider_fast,spice_fast,cider", *flags]) == 0
        assert capsys.readouterr().out.count(SENTENCE) == 1
        assert json.loads((tmp_path / "output.json").read_text())["versions"] == VERSIONS
        assert main(["main", "--mode=score", "--metrics=cider", *flags]) == 0
        assert "approximation" not in capsys.readouterr().out
        assert set(json.loads((tmp_path / "output.json").read_text())) == {"corpus", "images"}


class TestResumed:
    def told(self, capsys, progress, versions):
        tell_of_versions(progress, versions)
        assert progress.versions == versions
        return capsys.readouterr().err

    def test_another_version_is_told_once(self, capsys):
        progress = Progress()
        assert self.told(capsys, progress, VERSIONS) == ""
        progress.step = 3
        assert self.told(capsys, progress, VERSIONS) == ""
        other = {"SPICE-fast parser": "4.0123ab"}
        assert f"version {SHIPPED} of the SPICE-fast parser, from here on it uses 4.0123ab" in self.told(
            capsys, progress, other
        )
        progress.next_stage()
        assert self.told(capsys, progress, other) == ""

    def test_a_run_of_before_versions_were_stored(self, capsys):
        old = Progress(history=[row(1, **{"SPICE-fast": 0.1}, stage="mle", epoch=1.0)])
        assert "used an unknown version of" in self.told(capsys, old, VERSIONS)
        without = Progress(history=[row(1, CIDEr=0.1, stage="mle", epoch=1.0)])
        assert self.told(capsys, without, VERSIONS) == ""  # it had no such metric
        assert self.told(capsys, Progress(history=old.history), {}) == ""

    def test_a_version_is_not_forgotten_while_the_metric_is_left_out(self, capsys):
        progress = Progress(versions=dict(VERSIONS))
        tell_of_versions(progress, {})
        assert f"used version {SHIPPED}" in self.told(capsys, progress, {"SPICE-fast parser": "4.0123ab"})

    @pytest.mark.long
    def test_a_run_that_is_stopped_keeps_it(self, tmp_path, capsys, monkeypatch):
        flags = [f"--flagfile={ROOT / 'tests' / 'tiny.flags'}", "--stages=mle:1", f"--workdir={tmp_path / 'run'}"]
        assert main(["main", *flags, "--metrics=spice_fast"]) == 0
        assert read_progress(newest_checkpoint(tmp_path / "run" / "checkpoints")).versions == VERSIONS
        monkeypatch.setattr("spidercap.pipeline.metrics.spice_fast.version.read_version", lambda: "4.0123ab")
        capsys.readouterr()
        assert main(["main", *flags, "--metrics=spice_fast"]) == 0
        assert "used version" not in capsys.readouterr().err  # nothing is left to train
        longer = [flag.replace("mle:1", "mle:1,mle:1") for flag in flags]
        assert main(["main", *longer, "--metrics=spice_fast"]) == 0
        assert capsys.readouterr().err.count(f"used version {SHIPPED}") == 1


@pytest.mark.long
def test_a_run_names_it_wherever_its_scores_are(tmp_path, capsys):
    run = tmp_path / "run"
    flags = ["--stages=mle:1", "--metrics=spice_fast", f"--workdir={run}"]
    assert main(["main", f"--flagfile={ROOT / 'tests' / 'tiny.flags'}", *flags]) == 0
    printed = capsys.readouterr().out
    assert SENTENCE in printed and printed.count(SENTENCE) <= 2  # below the table of each split
    for split in ("val", "test"):
        metrics = json.loads((run / "results" / split / "mle.metrics.json").read_text())
        assert metrics["SPICE-fast parser"] == SHIPPED and 0 <= metrics["SPICE-fast"] <= 1
        images = json.loads((run / "results" / split / "mle.scores.json").read_text())
        assert images and all(image["versions"] == VERSIONS and "SPICE-fast" in image["scores"] for image in images)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["versions"] == VERSIONS and "SPICE-fast parser" not in summary["stages"][0]["metrics"]
    assert (run / "report.html").read_text().count(SENTENCE) == 1
    card = next(run.glob("export/*/assets.extra/model_card.md")).read_text()
    assert card.count(SENTENCE) == 1 and "| SPICE-fast parser" not in card
    facts = json.loads(next(run.glob("export/*/assets.extra/model_card.json")).read_text())
    assert [of["versions"] for of in facts["scores"]] == [VERSIONS] * 2
    status = ["--mode=status", f"--workdir={run}"]
    other = shutil.copytree(run, tmp_path / "other")
    compare = ["--mode=compare", f"--workdirs={run},{other}"]
    for mode in (compare, status, [*status, "--json"]):
        assert main(["main", *mode]) == 0
        assert capsys.readouterr().out.count(SHIPPED) == 1
    for path in other.glob("results/*/mle.metrics.json"):
        path.write_text(path.read_text().replace(SHIPPED, "4.0123ab"))
    assert main(["main", *compare]) == 0
    assert f"versions {SHIPPED} and 4.0123ab, which differ" in capsys.readouterr().out
