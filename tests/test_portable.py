"""Exports that run without TensorFlow: LiteRT and ONNX files, by their own runtimes."""

import configparser
import dataclasses
import importlib
import json
import logging.handlers
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks.portable import caption_of, script_of
from spidercap.export.formats import PORTABLE, spelled_formats
from spidercap.export.portable import kept_source, write_portable
from spidercap.export.saved_model import CheckFailed
from spidercap.models.captioners import CAPTIONERS
from spidercap.models.decoding import greedy, lengths
from spidercap.models.images import decode_image, resize_image
from spidercap.models.special_tokens import END, SPECIAL_TOKENS
from spidercap.pipeline import portable_exports
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.main import main
from spidercap.pipeline.portable_exports import Exported, write_formats
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.text.vocabulary import Vocabulary
from tests.conftest import ROOT

SIDE, T = 32, 6
WORDS = (*SPECIAL_TOKENS, "ein", "rød", "二", "dog", "cat")


@pytest.fixture(scope="module")
def parts():
    return made_of("lstm")


def made_of(kind):
    """(encoder, captioner): small, with different captions for different images."""
    layers = keras.layers
    keras.utils.set_random_seed(1)
    encoder = keras.Sequential([keras.Input([SIDE, SIDE, 3]), layers.Rescaling(1 / 255)])
    # Its constants are not variables, as those of EfficientNet.
    encoder.add(layers.Normalization(mean=[0.5, 0.4, 0.3], variance=[0.2, 0.3, 0.4]))
    last = layers.Reshape([9, 4]) if CAPTIONERS[kind].takes_parts else layers.Flatten()
    for layer in (layers.Conv2D(4, 3), layers.AveragePooling2D(10), last):
        encoder.add(layer)
    units = 128 if kind == "transformer" else 6  # two heads
    captioner = CAPTIONERS[kind](len(WORDS), encoder.output_shape[-1], units, embedding_size=5, dropout=0.0)
    captioner.adapt(encoder(images(30)).numpy())
    rng = np.random.default_rng(4)
    for weight in captioner.trainable_variables:
        weight.assign(rng.normal(0, 1.5, weight.shape))
    if kind == "transformer":  # or no caption would end
        captioner.words.bias.assign_add(tf.one_hot(END, len(WORDS)) * 25)
    return encoder, captioner


def images(count):
    return np.random.default_rng(7).uniform(0, 255, (count, SIDE, SIDE, 3)).astype(np.float32)


@pytest.fixture(scope="module", params=list(PORTABLE))
def written(request, parts, tmp_path_factory):
    """(format, folder)"""
    return written_as(request.param, parts, tmp_path_factory.mktemp("export"))


def written_as(name, parts, folder):
    """(format, folder) of a file that was written, if that can be."""
    missing = PORTABLE[name].missing()
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed; pip install '.[{name}]'")
    path = folder / name / "3"
    write_portable(*parts, WORDS, T, name, path, "made of this")
    return name, path


def load(name, path):
    return importlib.import_module(PORTABLE[name].module).load(path / PORTABLE[name].file)


def assert_says_the_same(parts, written):
    """Captions and log-probabilities of the file are the model's, in batches of any size."""
    encoder, captioner = parts
    pixels = images(30)
    tokens, log_prob = greedy(*captioner.begin(encoder(pixels)), T)
    assert len({tuple(row) for row in tokens.numpy()}) > 3 and len(set(lengths(tokens).numpy())) > 1
    run = load(*written)
    for first, last in ((0, 30), (4, 5), (10, 17)):
        ids, found = run(pixels[first:last])
        assert ids.dtype == np.int32 and found.dtype == np.float32
        np.testing.assert_array_equal(ids, tokens[first:last])
        np.testing.assert_allclose(found, log_prob[first:last], atol=1e-4)


def test_file_says_what_the_model_says(parts, written):
    assert_says_the_same(parts, written)


@pytest.mark.parametrize("kind", ["attention", "transformer"])
@pytest.mark.parametrize("name", PORTABLE)
def test_captioners_that_attend_say_the_same(kind, name, tmp_path):
    parts = made_of(kind)
    assert_says_the_same(parts, written_as(name, parts, tmp_path))


def test_files_beside_tell_how_to_call_it(written):
    name, path = written
    words = (path / "vocabulary.txt").read_text(encoding="utf-8").split("\n")
    assert words == [*WORDS, ""]
    described = json.loads((path / "captioner.json").read_text(encoding="utf-8"))
    assert (described["model"], described["image_size"], described["max_length"]) == (PORTABLE[name].file, SIDE, T)
    assert described["special_tokens"]["end"] == END and described["pixels"]["range"] == [0, 255]
    assert {p.name for p in path.parent.iterdir()} == {"3"}  # nothing half written


def test_script_of_the_page_captions_a_png(parts, written, tmp_path):
    """A larger image, which is reduced as in training; PNG, as JPEG decoders differ."""
    pytest.importorskip("PIL", reason="Pillow not installed; pip install pillow")
    encoder, captioner = parts
    for seed in range(4):
        image = np.random.default_rng(seed).integers(0, 255, (7, 5, 3)).repeat(9, axis=0).repeat(11, axis=1)
        encoded = tf.io.encode_png(tf.constant(image, tf.uint8)).numpy()
        (tmp_path / "image.png").write_bytes(encoded)
        pixels = resize_image(decode_image(encoded), SIDE)[None]
        tokens, _ = greedy(*captioner.begin(encoder(pixels)), T)
        expected = " ".join(WORDS[i] for i in tokens[0].numpy() if i not in (0, END))
        name, folder = written
        assert caption_of(script_of(name), folder, tmp_path / "image.png") == expected


def test_damage_is_seen(written, tmp_path):
    _, path = written
    assert kept_source(path) == "made of this" and kept_source(tmp_path) is None
    copy = tmp_path / "3"
    copy.mkdir()
    for file in path.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "vocabulary.txt").write_text("other\n")
    assert kept_source(copy) is None


def test_tables_of_the_process_are_not_told_of(parts, tmp_path):
    """The model in memory has one, of its words, when the file is written."""
    tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a"], [1]), 0)
    told = logging.handlers.BufferingHandler(1000)
    tf.get_logger().addHandler(told)
    try:
        written_as("onnx", parts, tmp_path)
    finally:
        tf.get_logger().removeHandler(told)
    assert [record.getMessage() for record in told.buffer] == []


def test_standard_operations_only(written):
    name, path = written
    if name == "onnx":
        import onnx

        model = onnx.load(path / "captioner.onnx")
        assert {node.domain for node in model.graph.node} == {""}
        assert {o.domain: o.version for o in model.opset_import}[""] == 18
        assert [o.name for o in model.graph.output] == ["ids", "log_prob"]
        (loop,) = [node for node in model.graph.node if node.op_type == "Loop"]
        (body,) = [attribute.g for attribute in loop.attribute if attribute.name == "body"]
        # Or OpenVINO cannot read it.
        assert not {value.name for value in body.input} & {value.name for value in body.output}
    else:
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_path=str(path / "captioner.tflite"))
        assert interpreter.get_signature_list() == {
            "serving_default": {"inputs": ["pixels"], "outputs": ["ids", "log_prob"]}
        }
        assert not [op for op in interpreter._get_ops_details() if op["op_name"].startswith(("Flex", "CUSTOM"))]


class Fake:
    """A format whose file holds nothing, and whose answers are given."""

    def __init__(self, monkeypatch, answer):
        row = dataclasses.replace(PORTABLE["onnx"], module="fake_format", packages=())
        monkeypatch.setitem(PORTABLE, "onnx", row)
        monkeypatch.setitem(sys.modules, "fake_format", self)
        self.answer, self.graph = answer, None

    def convert(self, graph, path):
        self.graph = graph
        path.write_bytes(b"model")

    def load(self, path):
        def run(pixels):
            found = self.graph.pixels(pixels)
            return self.answer(found["ids"].numpy(), found["log_prob"].numpy())

        return run


@pytest.mark.parametrize(
    "answer",
    [
        lambda ids, log_prob: (ids[:, ::-1], log_prob),
        lambda ids, log_prob: (ids, log_prob + 1e-2),
        lambda ids, log_prob: (ids.astype(np.int64), log_prob),
    ],
    ids=["other ids", "other log-probability", "other type"],
)
def test_a_file_that_says_something_else_is_not_left(parts, tmp_path, monkeypatch, answer):
    Fake(monkeypatch, answer)
    with pytest.raises(CheckFailed, match="onnx returns"):
        write_portable(*parts, WORDS, T, "onnx", tmp_path / "onnx" / "1")
    assert not list((tmp_path / "onnx").iterdir())


def test_a_converter_that_fails_is_named(parts, tmp_path, monkeypatch):
    fake = Fake(monkeypatch, None)
    fake.load = lambda path: {}["no such layer"]
    with pytest.raises(CheckFailed, match=r"onnx cannot hold this model .*no such layer"):
        write_portable(*parts, WORDS, T, "onnx", tmp_path / "onnx" / "1")
    assert not list((tmp_path / "onnx").iterdir())


def test_formats_of_a_version_are_written_once(parts, tmp_path, monkeypatch, capsys):
    Fake(monkeypatch, lambda ids, log_prob: (ids, log_prob))
    models = Exported(*parts, Vocabulary(WORDS[len(SPECIAL_TOKENS) :], ()))
    config = Config.of(workdir=str(tmp_path), mode="train", max_length=T, export_format="onnx", encoder="VGG16")
    write_formats(config, "2", "source", models)
    path = tmp_path / "export" / "onnx" / "2"
    assert f"onnx:        {path}" in capsys.readouterr().out
    before = path.stat().st_mtime_ns, sorted(p.name for p in path.iterdir())
    monkeypatch.setattr(portable_exports, "load_exported", lambda config: 1 / 0)
    write_formats(config, "2", "source")  # as it is there, nothing is loaded
    assert before == (path.stat().st_mtime_ns, sorted(p.name for p in path.iterdir()))
    with pytest.raises(UserError, match="move it away"):
        write_formats(config, "2", "another source", models)
    write_formats(config.with_values(mode="caption", images="a.jpg"), "9", "source")  # exports no other formats
    assert [p.name for p in path.parent.iterdir()] == ["2"]


def test_formats_are_spelled_one_way():
    assert spelled_formats(" ONNX, saved_model,onnx") == "saved_model,onnx"
    assert spelled_formats("") == Config.of(workdir="w").run.export_format == "saved_model"


@pytest.mark.parametrize("mode", ["train", "export"])
def test_missing_packages_are_reported_before_anything_is_done(mode, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PORTABLE, "onnx", dataclasses.replace(PORTABLE["onnx"], packages=("json", "no_such_module")))
    workdir = tmp_path / "run"
    if mode == "export":
        workdir.mkdir()
        (workdir / "config.json").write_text(
            Config.of(workdir=str(workdir), mode="prepare", export_format="litert").to_json()
        )
    before = list(tmp_path.rglob("*"))
    assert main(["spidercap", f"--mode={mode}", f"--workdir={workdir}", "--export_format=onnx"]) == 1
    error = capsys.readouterr().err
    assert "not installed (no_such_module)" in error and "pip install '.[onnx]'" in error and error.count("\n") == 1
    assert list(tmp_path.rglob("*")) == before


def test_modes_that_export_nothing_need_no_packages(monkeypatch):
    monkeypatch.setitem(PORTABLE, "onnx", dataclasses.replace(PORTABLE["onnx"], packages=("no_such_module",)))
    for mode in ("prepare", "evaluate"):
        assert Config.of(workdir="w", mode=mode, export_format="onnx").run.portable_formats() == []


def test_what_cannot_be_exported_is_rejected_at_the_door(monkeypatch):
    monkeypatch.setitem(PORTABLE, "onnx", dataclasses.replace(PORTABLE["onnx"], packages=()))
    with pytest.raises(UserError, match="did you mean onnx"):
        Config.of(workdir="w", export_format="onx")
    files = {"dataset": "files", "features": "f.npz", "captions": "c.json", "val_fraction": 0.1}
    with pytest.raises(UserError, match="has no encoder for pixels"):
        Config.of(workdir="w", mode="train", export_format="onnx", **files)


def test_rows_name_what_setup_cfg_brings():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    for name, row in PORTABLE.items():
        extra = setup["options.extras_require"][name].replace("-", "_")
        assert all(f"\n{package}>=" in extra and ",<" in extra for package in row.packages)
