"""The exported model in processes that know nothing of this package, and loads of callers with bad images."""

import json
import subprocess
import sys

import pytest
import tensorflow as tf

from benchmarks import serving
from spidercap.export.saved_model import CHECK
from tests import served_model

NAMES = ("caption", "log_prob")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return served_model.make_model(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def images():
    return [served_model.image(i) for i in range(6)] + [served_model.image(6, encode=tf.io.encode_png)]


@pytest.fixture(scope="module")
def expected(model, images):
    serve = tf.saved_model.load(str(model)).signatures["serving_default"]
    found = serve(image_bytes=tf.constant(images))
    captions = [caption.decode() for caption in found["caption"].numpy()]
    assert len(set(captions)) > 2
    return captions, found["log_prob"].numpy().tolist()


@pytest.mark.skipif(not served_model.LIBRARY.is_file(), reason=f"this TensorFlow has no {served_model.LIBRARY.name}")
def test_the_c_library_alone_serves_it(model, images, expected, tmp_path):
    found = served_model.by_c_library(model, images, NAMES, tmp_path)
    assert found["caption"] == expected[0]
    assert found["log_prob"] == pytest.approx(expected[1], abs=1e-4)


def test_the_loader_of_the_first_version_serves_it(model, images, expected):
    assert served_model.by_first_version(model, images) == expected[0]


def test_a_fresh_process_serves_it_by_tensorflow_alone(model, images, expected, tmp_path):
    (tmp_path / "in").mkdir()
    served_model.written(images, tmp_path / "in")
    command = [sys.executable, "-I", str(CHECK), str(model), str(tmp_path / "in"), str(tmp_path / "out.json")]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert json.loads((tmp_path / "out.json").read_text())["caption"] == expected[0]


def test_the_benchmark_measures_every_part(tmp_path, capsys):
    assert serving.main(["--quick", f"--json={tmp_path / 'out.json'}"]) == 0
    rows = {row["name"].strip(): row for row in json.loads((tmp_path / "out.json").read_text())}
    printed = capsys.readouterr().out
    assert all(name in printed and row["value"] > 0 for name, row in rows.items())
    parts = {"weights", "exported model", "cold start to the first caption", "batch 1, 99th percentile"}
    assert parts | {"batch 1, throughput", "batch 2, throughput", "2 at once, batch 1, throughput"} <= set(rows)
    assert rows["exported model"]["ratio"] >= 1 and rows["batch 1, median"]["ratio"] > 0


def test_the_benchmark_reports_a_folder_without_a_model(tmp_path, capsys):
    assert serving.main(["--quick", f"--model={tmp_path}"]) == 1
    assert "holds no exported model" in capsys.readouterr().err
