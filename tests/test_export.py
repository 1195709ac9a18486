"""The exported thing is tested as exported: reloaded, compared, with other batch sizes and pictures."""

import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.saved_model.loader_impl import parse_saved_model

from spidercap.export import saved_model
from spidercap.export.saved_model import KEPT_DIGESTS, CheckFailed, export, faults, kept_decoder
from spidercap.export.server import BEAM_WIDTH
from spidercap.export.versions import versions
from spidercap.models import decoding
from spidercap.models.decoder import Decoder
from spidercap.models.encoder import build_encoder
from spidercap.models.images import decode_image, resize_image
from spidercap.models.lstm_captioner import LstmCaptioner
from spidercap.models.special_tokens import END, SPECIAL_TOKENS
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.evaluation.caption_files import ExportedCaptioner
from tests.small_exports import small_encoder, unchecked

SIDE, T = 32, 5
BEST = {
    "caption": (tf.string, [None]),
    "log_prob": (tf.float32, [None]),
    "length": (tf.int32, [None]),
    "error": (tf.string, [None]),
}
WORDS = (*SPECIAL_TOKENS, "ein", "rød", "二", "dog", "cat")


def picture(seed, height=40, width=50, encode=tf.io.encode_jpeg):
    image = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3))
    return encode(tf.constant(np.repeat(np.repeat(image, 8, 0), 8, 1), tf.uint8)).numpy()


def captioner_for(encoder):
    """A captioner with weights wild enough for pictures to get different captions."""
    keras.utils.set_random_seed(1)
    captioner = LstmCaptioner(len(WORDS), encoder.output_shape[1], units=6, embedding_size=5, dropout=0.0)
    features = encoder(np.stack([resize_image(decode_image(picture(i)), SIDE) for i in range(8)]))
    captioner.adapt(features.numpy())
    rng = np.random.default_rng(4)
    for weight in captioner.trainable_variables:
        weight.assign(rng.normal(0, 2, weight.shape))
    captioner.words.bias.assign([0, 0, -3, 0, 0, 0, 0, 0, 0])  # or they would say nothing
    return captioner


@pytest.fixture(scope="module")
def parts():
    """(encoder, captioner)"""
    encoder = small_encoder(SIDE)
    return encoder, captioner_for(encoder)


# What checks an export, and then tells which packages it has imported.
TELLING = """import json, pathlib, runpy, sys
runpy.run_path({check!r}, run_name="__main__")
pathlib.Path({told!r}).write_text(json.dumps(sorted({{name.split(".")[0] for name in sys.modules}})))
"""


@pytest.fixture(scope="module")
def checked(parts, tmp_path_factory):
    """(an exported model, the packages that the process which checked it has imported)"""
    folder = tmp_path_factory.mktemp("export")
    script, told = folder / "check.py", folder / "told.json"
    script.write_text(TELLING.format(check=str(saved_model.CHECK), told=str(told)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saved_model, "CHECK", script)
        beside = {"model_card.md": "A card."}
        path = export(*parts, WORDS, T, folder / "models", [picture(0), picture(1)], beside=beside)
    assert (path / "assets.extra" / "model_card.md").read_text() == "A card."
    return path, json.loads(told.read_text())


@pytest.fixture(scope="module")
def exported(checked):
    return checked[0]


@pytest.fixture(scope="module")
def serve(exported):
    """What an exported model serves."""
    return tf.saved_model.load(str(exported)).signatures["serving_default"]


def test_reloaded_says_what_memory_says(parts, serve):
    encoder, captioner = parts
    pictures = [picture(i) for i in range(5)] + [picture(5, 96, 40, tf.io.encode_png)]
    pixels = np.stack([resize_image(decode_image(p), SIDE) for p in pictures])
    words, log_prob = decoding.greedy(*captioner.begin(encoder(pixels)), T)
    expected = [" ".join(WORDS[w] for w in row if w not in (0, END)) for row in words.numpy()]
    assert len(set(expected)) > 1 and any(w in " ".join(expected) for w in ("rød", "二"))
    for batch in (pictures, pictures[:1], pictures[2:5]):
        said = serve(image_bytes=tf.constant(batch))
        at = pictures.index(batch[0])
        assert [c.decode() for c in said["caption"].numpy()] == expected[at : at + len(batch)]
        np.testing.assert_allclose(said["log_prob"], log_prob[at : at + len(batch)], atol=2e-3)


def test_signature_is_what_a_server_expects(serve):
    (name, spec), *more = serve.structured_input_signature[1].items()
    assert (name, spec.dtype, spec.shape.as_list(), more) == ("image_bytes", tf.string, [None], [])
    outputs = {k: (v.dtype, v.shape.as_list()) for k, v in serve.structured_outputs.items()}
    assert outputs == BEST


def test_beam_search_is_exported_with_its_settings(parts, tmp_path):
    """Every picture's captions, best first, of any batch; the export itself compares them with a fresh process's."""
    encoder, captioner = parts
    decoder = Decoder("beam", 4, length_penalty=0.5, no_repeat_ngram=2, bad_endings=(4,), n_best=3)
    pictures = [picture(i) for i in range(5)]
    path = export(encoder, captioner, WORDS, T, tmp_path, pictures[:2], decoder)
    assert kept_decoder(path) == decoder.to_json() != Decoder().to_json()
    assert kept_decoder(tmp_path) == Decoder().to_json()  # of a model that says nothing
    pixels = np.stack([resize_image(decode_image(p), SIDE) for p in pictures])
    words, log_prob = decoder.captions(captioner, encoder(pixels), T)
    expected = [[" ".join(WORDS[w] for w in c if w not in (0, END)) for c in image] for image in words.numpy()]
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    outputs = {k: (v.dtype, v.shape.as_list()) for k, v in serve.structured_outputs.items()}
    several = {"captions": (tf.string, [None, 3]), "log_probs": (tf.float32, [None, 3])}
    assert outputs == BEST | several
    for first, last in ((0, 5), (0, 1), (2, 5)):
        said = serve(image_bytes=tf.constant(pictures[first:last]))
        captions = [[c.decode() for c in image] for image in said["captions"].numpy()]
        assert captions == expected[first:last]
        assert [c.decode() for c in said["caption"].numpy()] == [c[0] for c in captions]
        np.testing.assert_allclose(said["log_probs"], log_prob[first:last], atol=2e-3)
        np.testing.assert_array_equal(said["log_prob"], said["log_probs"][:, 0])
    assert len({image[0] for image in captions}) > 1
    nodes = {
        n.op for m in parse_saved_model(str(path)).meta_graphs for f in m.graph_def.library.function for n in f.node_def
    }
    assert "TopKV2" in nodes and not {n for n in nodes if "PyFunc" in n}


def captions_in(outputs):
    return [[caption.decode() for caption in image] for image in outputs["captions"].numpy()]


@pytest.mark.long
def test_a_model_that_samples_draws_anew_or_by_a_seed_of_each_row(tmp_path):
    """The export itself compares what is drawn by seeds with a fresh process's."""
    encoder = small_encoder(SIDE)
    captioner = captioner_for(encoder)
    captioner.words.kernel.assign(captioner.words.kernel / 3)
    decoder = Decoder("nucleus", n_best=3, temperature=2.0, top_p=0.95)
    tf.random.set_seed(1)  # as in training; it is not what servers draw by
    pictures = [picture(i) for i in range(4)] + [b"no image"]
    path = export(encoder, captioner, WORDS, T, tmp_path, pictures[:2], decoder)
    assert kept_decoder(path) == decoder.to_json()
    first, second = (tf.saved_model.load(str(path)).signatures for _ in range(2))
    found = [signatures["serving_default"](image_bytes=tf.constant(pictures)) for signatures in (first, first, second)]
    assert len({str(captions_in(outputs)) for outputs in found}) == 3
    for outputs in found:
        log_probs = outputs["log_probs"].numpy()
        assert np.isfinite(log_probs).all() and (np.diff(log_probs) <= 0).all()
        np.testing.assert_array_equal(outputs["log_prob"], log_probs[:, 0])
        assert [c.decode() for c in outputs["caption"].numpy()] == [image[0] for image in captions_in(outputs)]
        assert captions_in(outputs)[4] == [""] * 3 and outputs["error"].numpy()[4] and not any(log_probs[4])

    seeds = tf.constant([7, 8, 7, 9, 7], tf.int64)
    whole = first["seeded"](image_bytes=tf.constant(pictures), seed=seeds)
    for rows in ([0, 1, 2, 3, 4], [3], [2, 0]):
        part = {"image_bytes": tf.constant([pictures[i] for i in rows]), "seed": tf.gather(seeds, rows)}
        assert captions_in(second["seeded"](**part)) == [captions_in(whole)[i] for i in rows]
    scored = first["score"](image_bytes=tf.constant(pictures[:4]), caption=whole["caption"][:4])
    ended = whole["length"].numpy()[:4] < T
    assert ended.any()
    np.testing.assert_allclose(scored["log_prob"].numpy()[ended], whole["log_prob"].numpy()[:4][ended], atol=2e-3)
    beam = first["beam"].structured_outputs["captions"]
    assert beam.shape.as_list() == [None, BEAM_WIDTH] and "captions" not in first["greedy"].structured_outputs
    nodes = [
        n.op for m in parse_saved_model(str(path)).meta_graphs for f in m.graph_def.library.function for n in f.node_def
    ]
    assert "RandomUniformInt" in nodes and not {n for n in nodes if "PyFunc" in n}


def test_a_captioner_that_samples_takes_a_seed(parts, tmp_path):
    encoder, captioner = parts
    pictures = [picture(i) for i in range(3)]
    with unchecked():
        loaded = ExportedCaptioner(export(encoder, captioner, WORDS, T, tmp_path, pictures[:1], Decoder("sample")))
        with_features = export(
            None, captioner, WORDS, T, tmp_path / "f", np.zeros([1, 16], np.float32), Decoder("sample")
        )
    words = lambda found: [[caption for caption, _ in image] for image in found]  # noqa: E731
    found = words(loaded.caption(pictures, seed=3))
    assert words(loaded.caption(pictures[::-1], seed=3)) == found[::-1]
    assert words(loaded.caption_bytes(pictures[1:2], 3)) == found[1:2]
    assert words(loaded.caption(pictures, seed=4)) != found
    assert len({str(loaded.caption(pictures * 4)) for _ in range(3)}) == 3
    features = np.random.default_rng(0).normal(0, 1, (4, 16)).astype(np.float32)
    with pytest.raises(UserError, match="takes a seed with images alone"):
        loaded.caption_features(features, seed=3)
    assert len(loaded.caption_features(features)) == 4
    loaded = ExportedCaptioner(with_features)
    found = words(loaded.caption_features(features, seed=3))
    assert words(loaded.caption_features(features[2:], seed=3)) == found[2:]
    assert words(loaded.caption_features(features, seed=4)) != found


def test_each_graph_is_in_the_file_once(exported):
    """Twice, and export, file and loading would take twice as long."""
    model = parse_saved_model(str(exported))
    names = [f.signature.name.rstrip("0123456789") for m in model.meta_graphs for f in m.graph_def.library.function]
    wanted = ("rows", "decode_or_fault", "header", "pixels")
    assert [sum(name.endswith(f"_{of}_") for name in names) for of in wanted] == [1] * 4
    signatures = [s for s in model.meta_graphs[0].signature_def if not s.startswith("__")]
    assert names.count("__inference_signature_wrapper_") == len(signatures)
    kept = [n for node in model.meta_graphs[0].object_graph_def.nodes for n in node.function.concrete_functions]
    # Of the table of words alone; those that are served would be traced and saved once more.
    assert sorted(n.rstrip("0123456789") for n in kept) == [
        f"__inference__{of}_" for of in ("creator", "destroyer", "initializer")
    ]


def test_graph_holds_no_python_and_no_custom_operation(exported):
    """What a model server cannot run: a call back into this process."""
    model = parse_saved_model(str(exported))
    nodes = [n.op for m in model.meta_graphs for f in m.graph_def.library.function for n in f.node_def]
    nodes += [n.op for m in model.meta_graphs for n in m.graph_def.node]
    assert "DecodeImage" in nodes or "DecodeJpeg" in nodes
    assert not {n for n in nodes if "PyFunc" in n}
    assert all(tf.raw_ops.__dict__.get(op) for op in set(nodes))


def test_loads_in_a_session_of_the_first_version(exported, serve):
    """Model servers load by this path."""
    pictures = [picture(0), picture(1)]
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(exported))
        signature = meta.signature_def["serving_default"]
        feed = {signature.inputs["image_bytes"].name: pictures}
        captions = session.run(signature.outputs["caption"].name, feed)
    assert list(captions) == list(serve(image_bytes=tf.constant(pictures))["caption"].numpy())


def test_a_fresh_process_needs_tensorflow_alone(checked):
    _, packages = checked
    assert "tensorflow" in packages
    assert not {"spidercap", "models", "pipeline", "export"} & set(packages)


def test_versions_count_up_and_nothing_half_written_stays(parts, exported, monkeypatch):
    folder = exported.parent
    assert exported.name == "1"
    with unchecked():
        second = export(*parts, WORDS, T, folder, [picture(0)])
    assert [v.name for v in versions(folder)] == ["1", "2"] and second.name == "2"
    # A model whose words are shuffled while it is written: the fresh process says other things than memory.
    save = tf.saved_model.save

    def spoil(server, *args, **kwargs):
        server.words.assign(server.words.value()[::-1])
        save(server, *args, **kwargs)
        server.words.assign(server.words.value()[::-1])

    monkeypatch.setattr(tf.saved_model, "save", spoil)
    with pytest.raises(CheckFailed, match="the one in memory"):
        export(*parts, WORDS, T, folder, [picture(0)])
    assert sorted(p.name for p in folder.iterdir()) == ["1", "2"]


def test_a_damaged_model_is_not_loaded(exported, tmp_path):
    model = shutil.copytree(exported, tmp_path / "1")
    recorded = json.loads((model / KEPT_DIGESTS).read_text())
    there = {str(path.relative_to(model)) for path in model.rglob("*") if path.is_file()}
    assert set(recorded) == there - {str(KEPT_DIGESTS)} and not faults(model)
    index = model / "variables" / "variables.index"
    whole = index.read_bytes()
    index.write_bytes(whole[:-1])
    assert faults(model) == {"variables/variables.index": "is damaged or was changed"}
    with pytest.raises(
        UserError, match=r"1 is not what was exported \(variables/variables.index is .*; export it again"
    ):
        ExportedCaptioner(model)
    index.write_bytes(whole)
    (model / KEPT_DIGESTS).write_text("{")
    assert faults(model) == {str(KEPT_DIGESTS): "is damaged or was changed"}
    (model / KEPT_DIGESTS).unlink()
    assert not faults(model)  # nothing is known of it
    assert faults(model, needs_digests=True) == {str(KEPT_DIGESTS): "is lost"}


def test_a_file_in_the_way_is_refused(parts, tmp_path):
    (tmp_path / "export").write_text("not a folder")
    with pytest.raises(UserError, match="cannot be written"):
        export(*parts, WORDS, T, tmp_path / "export", [picture(0)])


@pytest.fixture(scope="module")
def mobile():
    return build_encoder("MobileNetV2", "random", SIDE)


def test_preprocessing_is_the_networks_own(mobile):
    """InceptionV3 and MobileNetV2 take x / 127.5 - 1; a wrong range would only show as bad captions."""
    pixels = np.random.default_rng(0).uniform(0, 255, (2, SIDE, SIDE, 3)).astype(np.float32)
    inner = mobile.layers[-1]
    np.testing.assert_allclose(mobile(pixels), inner(pixels / 127.5 - 1, training=False), atol=1e-5)


def test_weights_of_another_network_are_refused(mobile, tmp_path):
    path = str(tmp_path / "mobile.weights.h5")
    mobile.layers[-1].save_weights(path)
    again = build_encoder("MobileNetV2", path, SIDE, seed=9)
    for a, b in zip(mobile.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError):
        build_encoder("VGG16", path, SIDE)
    with pytest.raises(ValueError, match="unknown encoder 'Mobile'; allowed: ConvNeXt"):
        build_encoder("Mobile", "random", SIDE)
