"""The benchmark of serving measures every part, and reports what it cannot measure."""

import json

import pytest

from benchmarks import serving
from tests import served_model
from tests.small_exports import unchecked


@pytest.mark.long
def test_the_benchmark_measures_every_part(tmp_path, capsys):
    with unchecked():
        assert serving.main(["--quick", f"--json={tmp_path / 'out.json'}"]) == 0
    rows = {row["name"].strip(): row for row in json.loads((tmp_path / "out.json").read_text())}
    printed = capsys.readouterr().out
    assert all(name in printed and row["value"] > 0 for name, row in rows.items())
    parts = {"weights", "exported model", "cold start to the first caption", "batch 1, 99th percentile"}
    assert parts | {"batch 1, throughput", "batch 2, throughput", "2 at once, batch 1, throughput"} <= set(rows)
    assert 1 <= rows["exported model"]["ratio"] < 1.1 and rows["batch 1, median"]["ratio"] > 0


@pytest.mark.long
def test_the_benchmark_measures_a_given_model(tmp_path, capsys):
    with unchecked():
        model = served_model.make_model(tmp_path / "export")
    assert serving.main(["--quick", f"--model={model}", f"--json={tmp_path / 'out.json'}"]) == 0
    rows = {row["name"].strip(): row for row in json.loads((tmp_path / "out.json").read_text())}
    assert rows["batch 2, throughput"]["value"] > 0 and f"{model}, images of" in capsys.readouterr().err


def test_the_benchmark_reports_a_folder_without_a_model(tmp_path, capsys):
    assert serving.main(["--quick", f"--model={tmp_path}"]) == 1
    assert "holds no exported model" in capsys.readouterr().err
