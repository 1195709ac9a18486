"""That the benchmarks run, on what they say, and fail where scores are not the reference's."""

import gzip
import json
import math
import pathlib
import shutil
import subprocess
import sys

import pytest

from benchmarks import Report, fresh_process, largest_difference, metrics, spice_fast_process
from benchmarks.corpus import DATA, REFERENCES, read_corpus
from spidercap.pipeline.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]


def write_captions_file(path: pathlib.Path, images: int, captions: int = REFERENCES) -> pathlib.Path:
    annotations = [
        {"image_id": i, "caption": f"A dog number {i} {'sits ' * k}in the grass."}
        for i in range(images)
        for k in range(captions)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"annotations": annotations}).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def test_quick_run_writes_a_rate_for_every_compiled_metric(tmp_path, monkeypatch):
    monkeypatch.delenv(DATA, raising=False)
    command = [sys.executable, "-m", "benchmarks.metrics", "--quick", "--no-java", f"--json={tmp_path / 'out.json'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "64 images of synthetic scenes" in done.stderr and "skipped: --no-java" in done.stdout
    rows = json.loads((tmp_path / "out.json").read_text())
    assert all(set(row) == {"name", "value", "unit", "ratio"} and row["name"] in done.stdout for row in rows)
    assert all(math.isfinite(row["value"]) and row["value"] > 0 for row in rows)
    ratios = {row["name"]: row["ratio"] for row in rows}
    assert len(ratios) == len(rows)
    for metric in ("BLEU-1..4", "ROUGE-L", "CIDEr-D"):
        assert ratios[f"{metric}, pycocoevalcap"] is None and ratios[f"{metric}, compiled, 128 captions"] is None
        assert ratios[f"{metric}, compiled, float32"] > 0 and ratios[f"{metric}, from words, float64"] > 0
    assert {"matrix product, float32", "tokenizer, Python"} < set(ratios)


def test_a_bad_file_is_the_users_mistake(tmp_path):
    (tmp_path / "bad.json").write_text("[]")
    command = [sys.executable, "-m", "benchmarks.metrics", "--quick", f"--references={tmp_path / 'bad.json'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and f"{tmp_path / 'bad.json'} has no list 'annotations'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("difference", "code"), [(1e-7, 0), (1e-5, 1)])
def test_run_fails_where_scores_are_not_the_references(monkeypatch, capsys, difference, code):
    monkeypatch.setenv("LC_ALL", "C.UTF-8")  # set by the run; this way it is put back
    monkeypatch.setattr(metrics, "measure_machine", lambda report, sizes: None)
    monkeypatch.setattr(metrics, "measure_tokenizer", lambda report, corpus: None)

    def measure(report, corpus, sizes):
        report.add("CIDEr-D", 1.0, "captions/s", 1.0, difference, 1e-6)

    monkeypatch.setattr(metrics, "measure_compiled", measure)
    assert metrics.main(["--quick", "--no-java"]) == code
    printed = capsys.readouterr()
    assert f"{difference:.0e}" in printed.out
    assert ("scores differ from the reference's: CIDEr-D" in printed.err) == bool(code)


@pytest.mark.parametrize("difference", [2e-6, math.nan])
def test_scores_that_are_not_the_references_are_told(difference):
    report = Report()
    report.add("right", 1.0, "captions/s", 1.0, 1e-6, 1e-6)
    report.add("shown", 1.0, "captions/s", 1.0, difference)
    report.add("wrong", 1.0, "captions/s", 1.0, difference, 1e-6)
    assert report.wrong() == ["wrong"]


def test_largest_difference_counts_a_score_that_only_one_has():
    assert largest_difference([1.0, math.nan, 3.0], [1.5, math.nan, 2.0]) == 1.0
    assert math.isnan(largest_difference([1.0, math.nan, 5.0], [1.5, 2.0, 1.0]))
    with pytest.raises(ValueError):
        largest_difference([1.0], [1.0, 2.0])


class TestCorpus:
    @pytest.mark.parametrize("name", ["captions_a.json", "captions_a.json.gz"])
    def test_named_file_and_folder_of_data_are_the_same(self, tmp_path, monkeypatch, name):
        path = write_captions_file(tmp_path / "coco" / name, images=4, captions=6)
        named = read_corpus(str(path), 3)
        monkeypatch.setenv(DATA, str(tmp_path))
        assert read_corpus("", 3) == named
        assert named.source == name and len(named.references) == 3
        assert named.raw[1][:2] == ("A dog number 1 in the grass.", "A dog number 1 sits in the grass.")
        assert named.references[1][1] == "a dog number 1 sits in the grass" and len(named.references[1]) == REFERENCES

    def test_too_small_a_file_and_an_empty_folder_are_refused(self, tmp_path, monkeypatch):
        path = write_captions_file(tmp_path / "captions.json", images=2)
        with pytest.raises(UserError, match="has 2 images of 5 captions, 3 are needed"):
            read_corpus(str(path), 3)
        with pytest.raises(UserError, match="has 0 images of 5 captions, 1 are needed"):
            read_corpus(str(write_captions_file(path, images=2, captions=REFERENCES - 1)), 1)
        monkeypatch.setenv(DATA, str(tmp_path / "none"))
        with pytest.raises(UserError, match=f"{DATA}=.* has no coco/captions_"):
            read_corpus("", 3)

    def test_candidates_are_different_and_share_words_with_their_image(self, monkeypatch):
        monkeypatch.delenv(DATA, raising=False)
        corpus = read_corpus("", 50)
        captions = corpus.candidates(100)
        assert corpus.candidates(50) == captions[:50] and len(set(captions)) > 90
        for row, caption in enumerate(captions):
            own = set(corpus.references[row % 50])
            assert any(reference.split()[:2] == caption.split()[:2] for reference in own)

    def test_ids_stand_for_the_same_words_everywhere(self, monkeypatch):
        monkeypatch.delenv(DATA, raising=False)
        corpus = read_corpus("", 20)
        captions = corpus.candidates(40)
        references, said, base = corpus.ids(captions)
        assert references.shape[:2] == (20, REFERENCES) and len(said) == 40
        words = {}
        rows = [r for of_image in references for r in of_image] + list(said)
        texts = [c for of_image in corpus.references for c in of_image] + captions
        for row, text in zip(rows, texts, strict=True):
            ids = row[row != 0].tolist()
            assert len(ids) == len(text.split()) and max(ids) < base
            for word, number in zip(text.split(), ids, strict=True):
                assert words.setdefault(word, number) == number
        assert len(set(words.values())) == len(words) == base - 1


def test_a_new_process_is_timed_on_scores_that_agree(java, tmp_path, capsys):
    if shutil.which("java") is None:
        pytest.skip("pycocoevalcap needs java on PATH")
    path = write_captions_file(tmp_path / "captions.json", 8)
    assert fresh_process.main(["--images=8", "--pairs=1", f"--references={path}"]) == 0
    assert "new process, spidercap.score" in capsys.readouterr().out


def test_a_new_process_that_scores_by_spice_fast_is_timed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(spice_fast_process, "java_found", lambda: False)
    path = write_captions_file(tmp_path / "captions.json", 8)
    assert spice_fast_process.write_files(str(path), 6, tmp_path) == (6, 36)
    results = json.loads((tmp_path / "results.json").read_text())
    references = json.loads((tmp_path / "references.json").read_text())
    assert results["0"] in references["1"] and results["5"] in references["0"]
    assert spice_fast_process.main(["--images=6", "--times=1", f"--references={path}"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "without Java" in line]
    wall, core = map(float, row.split()[-3:-1])
    assert wall > 1 and core > 1 and " 6 " in row and " 36 " in row
    assert spice_fast_process.main([f"--references={tmp_path / 'none.json'}"]) == 1
