"""What a model server asks of an exported model: every signature, rows with errors, old servers, warm-up requests."""

import base64
import json
import re

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.saved_model.loader_impl import parse_saved_model

from spidercap.export.old_servers import DROPPED_ATTRIBUTES, DROPPED_OPERATION
from spidercap.export.saved_model import KEPT_VOCABULARY, export
from spidercap.export.server import BEAM_WIDTH, MISSING, NO_PARTS, NOT_FINITE, finite_rows
from spidercap.export.warmup import BATCHES, FILE
from spidercap.models.decoder import Decoder
from spidercap.models.images import decode_image, resize_image
from spidercap.models.special_tokens import END
from tests import rest
from tests.conftest import ROOT
from tests.small_exports import small_encoder, unchecked
from tests.test_export import SIDE, WORDS, T, captioner_for, picture

GOOD = [picture(i) for i in range(4)]
PNG = picture(9, 200, 200, tf.io.encode_png)
BAD = {
    b"": "is empty",
    b"words": "is no image",
    GOOD[0][: len(GOOD[0]) // 2]: "is cut off or damaged",
    PNG[: len(PNG) // 2] + bytes(40) + PNG[len(PNG) // 2 + 40 :]: "is cut off or damaged",  # by its pixels alone
    PNG[:16] + b"\0\0\x2e\xe0\0\0\x2e\xe0" + PNG[24:]: "has 12000 x 12000 pixels, more than the 50000000 allowed",
}


@pytest.fixture(scope="module")
def parts():
    """A small encoder and its captioner, some of whose captions end."""
    encoder = small_encoder(SIDE)
    captioner = captioner_for(encoder)
    captioner.words.bias.assign([0, 0, 1, 0, 0, 0, 0, 0, 0])
    return encoder, captioner


@pytest.fixture(scope="module")
def folder(parts, tmp_path_factory):
    with unchecked():
        return export(*parts, WORDS, T, tmp_path_factory.mktemp("export"), [GOOD[0]])


@pytest.fixture(scope="module")
def served(folder):
    return tf.saved_model.load(str(folder)).signatures


def features_of(parts, pictures):
    return parts[0](np.stack([resize_image(decode_image(p), SIDE) for p in pictures]))


@pytest.mark.parametrize("signature", ["serving_default", "greedy", "beam"])
def test_a_bad_picture_hurts_its_row_alone(served, signature):
    serve = served[signature]
    alone = {name: value.numpy() for name, value in serve(image_bytes=tf.constant(GOOD)).items()}
    pictures = [picture for pair in zip(GOOD, BAD, strict=False) for picture in pair] + list(BAD)[4:]
    mixed = {name: value.numpy() for name, value in serve(image_bytes=tf.constant(pictures)).items()}
    good = np.array([picture in GOOD for picture in pictures])
    assert [error.decode() for error in mixed["error"]] == [BAD.get(picture, "") for picture in pictures]
    for name, value in alone.items():
        if value.dtype == np.float32:
            np.testing.assert_allclose(mixed[name][good], value, atol=1e-4)
            assert np.isfinite(mixed[name]).all()
        else:
            np.testing.assert_array_equal(mixed[name][good], value)
        if name != "error":
            assert not mixed[name][~good].any()
    none = serve(image_bytes=tf.constant(list(BAD)))
    assert not any(none["caption"].numpy()) and all(none["error"].numpy())


def test_beam_returns_its_width_and_a_floor_for_what_is_missing(parts, served):
    found = served["beam"](image_bytes=tf.constant(GOOD))
    captions, log_probs = found["captions"].numpy(), found["log_probs"].numpy()
    words, expected = Decoder("beam", BEAM_WIDTH, n_best=BEAM_WIDTH).captions(parts[1], features_of(parts, GOOD), T)
    assert captions.shape == (4, BEAM_WIDTH)
    np.testing.assert_allclose(log_probs, np.maximum(expected, MISSING), atol=2e-3)
    np.testing.assert_array_equal(found["length"], (words[:, 0] != 0).numpy().sum(1))
    np.testing.assert_array_equal(captions[log_probs == MISSING], b"")


def test_score_is_the_log_probability_of_a_caption(served):
    pictures = tf.constant(GOOD)
    beam = served["beam"](image_bytes=pictures)
    compared = 0
    for rank in range(BEAM_WIDTH):
        counted = np.array([len(c.split()) + 1 for c in beam["captions"].numpy()[:, rank]])
        scored = served["score"](image_bytes=pictures, caption=beam["captions"][:, rank])
        # One that was cut has no end token; one with an empty caption may be missing.
        known = (counted < T) & (beam["log_probs"].numpy()[:, rank] > MISSING)
        np.testing.assert_allclose(scored["log_prob"].numpy()[known], beam["log_probs"].numpy()[known, rank], atol=2e-3)
        np.testing.assert_array_equal(scored["length"].numpy()[known], counted[known])
        compared += known.sum()
    assert compared >= 5


def test_score_reads_case_and_punctuation_and_names_what_it_cannot_score(served):
    captions = ["Dog cat.", "dog cat", "dog zebra cat", "dog " * T, "", "<end>"]
    pictures = tf.constant([GOOD[0]] * len(captions))
    found = served["score"](image_bytes=pictures, caption=tf.constant(captions))
    log_prob = found["log_prob"].numpy()
    assert log_prob[0] == pytest.approx(log_prob[1]) and max(log_prob[[0, 1, 4]]) < 0
    assert [error.decode() for error in found["error"].numpy()] == [
        *("", "", 'the captioner has no word "zebra"'),
        f"the caption has more than {T - 1} words",
        *("", 'the captioner has no word "<end>"'),
    ]
    assert log_prob[[2, 3, 5]].tolist() == [0, 0, 0] and found["length"].numpy().tolist() == [3, 3, 0, 0, 1, 0]
    bad = served["score"](image_bytes=tf.constant([b"words", GOOD[0]]), caption=tf.constant(["dog cat"] * 2))
    assert bad["error"].numpy().tolist() == [b"is no image", b""] and bad["log_prob"].numpy()[1] == pytest.approx(
        log_prob[0]
    )


def test_features_go_out_and_in(parts, served):
    rows = served["encode"](image_bytes=tf.constant([GOOD[0], b"words", GOOD[1]]))
    np.testing.assert_allclose(rows["features"].numpy()[[0, 2]], features_of(parts, GOOD[:2]), atol=1e-4)
    assert rows["error"].numpy().tolist() == [b"", b"is no image", b""]
    features = rows["features"].numpy()
    features[1, 0] = np.nan
    found = served["features"](features=tf.constant(features))
    expected = served["greedy"](image_bytes=tf.constant(GOOD[:2]))
    assert found["caption"].numpy()[[0, 2]].tolist() == expected["caption"].numpy().tolist()
    assert found["error"].numpy().tolist() == [b"", NOT_FINITE.encode(), b""]
    assert found["caption"].numpy()[1] == b"" and np.isfinite(found["log_prob"]).all()


@pytest.mark.parametrize("parts", [0, 3])
def test_rows_without_a_part_say_so(parts):
    """Rows of zeros are no parts; an image that has none cannot be attended to."""
    rows = np.zeros([3, parts, 2], np.float32)
    if parts:
        rows[1, 2, 0], rows[2, 0, 1] = 1, np.nan
    found = finite_rows(tf.constant(rows))
    expected = [NO_PARTS, "", NOT_FINITE] if parts else [NO_PARTS] * 3
    assert [error.decode() for error in found.error.numpy()] == expected
    assert np.isfinite(found.features).all()


def test_pixels_give_the_ids_of_greedy_captions(served):
    said = served["greedy"](image_bytes=tf.constant(GOOD))
    pixels = np.stack([resize_image(decode_image(p), SIDE) for p in GOOD])
    found = served["pixels"](pixels=tf.constant(pixels))
    words = [" ".join(WORDS[i] for i in row if i not in (0, END)) for row in found["ids"].numpy()]
    assert words == [caption.decode() for caption in said["caption"].numpy()] and len(set(words)) > 1
    np.testing.assert_allclose(found["log_prob"], said["log_prob"], atol=1e-4)


@pytest.mark.parametrize("signature", ["serving_default", "encode", "pixels"])
def test_no_image_gives_no_rows(served, signature):
    """The encoder has a convolution and a normalisation, which fail together when they get no images."""
    specs = served[signature].structured_input_signature[1]
    found = served[signature](**{name: tf.zeros([0, *spec.shape[1:]], spec.dtype) for name, spec in specs.items()})
    expected = {name: [0, *value.shape[1:]] for name, value in served[signature].structured_outputs.items()}
    assert {name: value.shape.as_list() for name, value in found.items()} == expected


def test_nothing_that_older_servers_refuse_is_in_the_file(folder):
    graphs = [meta.graph_def for meta in parse_saved_model(str(folder)).meta_graphs]
    nodes = [
        node
        for graph in graphs
        for part in (graph.node, *(f.node_def for f in graph.library.function))
        for node in part
    ]
    assert "VarHandleOp" in {node.op for node in nodes}
    assert not [node for node in nodes if node.op == DROPPED_OPERATION]
    assert not [node for node in nodes for name in DROPPED_ATTRIBUTES.get(node.op, ()) if name in node.attr]
    adding = [node for node in nodes if node.op in ("Add", "AddV2", "Sub")]
    assert tf.int32.as_datatype_enum in {node.attr["T"].type for node in adding}
    assert not [node.name for node in adding if node.attr["T"].type == tf.uint16.as_datatype_enum]  # TensorFlow 2.4


def test_warm_up_requests_are_those_of_the_default_signature(folder):
    records = list(tf.data.TFRecordDataset(str(folder / "assets.extra" / FILE)).as_numpy_iterator())
    assert len(records) == len(BATCHES)
    for record, batch in zip(records, BATCHES, strict=True):
        log = fields(record)
        request = fields(fields(log[6])[1])
        assert fields(request[1])[3] == b"serving_default"
        name, tensor = (fields(request[2])[number] for number in (1, 2))
        proto = tf.make_tensor_proto([b"x"]).FromString(tensor)
        assert name == b"image_bytes" and tf.make_ndarray(proto).tolist() == [GOOD[0]] * batch


def fields(message):
    """The last value of each field of bytes in a message of such fields alone."""
    found, at = {}, 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        tag = number()
        assert tag & 7 == 2
        size = number()
        found[tag >> 3] = message[at : at + size]
        at += size
    return found


def test_the_vocabulary_is_beside_the_model(folder):
    lines = (folder / KEPT_VOCABULARY).read_text(encoding="utf-8").splitlines()
    assert lines == list(WORDS) and lines[END] == "<end>"


@pytest.fixture(scope="module")
def asked_and_answered():
    """(body, answer) of each curl command in docs/serving.md, with GOOD[0] in base64 as a shell inserts it"""
    pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed")
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    found = re.findall(r'^ +echo "(.*)" \|\n +curl -d @- .*:predict\n\n +(\{.*\})$', page, re.MULTILINE)
    image = base64.b64encode(GOOD[0]).decode()
    return [(body.replace('\\"', '"').replace("$(base64 -w0 photo.jpg)", image), answer) for body, answer in found]


def test_rest_bodies_of_the_page_get_answers_of_the_same_form(served, asked_and_answered):
    assert ["instances" in body for body, _ in asked_and_answered] == [True, False]
    expected = served["serving_default"](image_bytes=tf.constant(GOOD[:1]))
    for body, shown in asked_and_answered:
        shown, by_rows = json.loads(shown), "instances" in body
        found = json.loads(rest.body_of(rest.answered(rest.request_of(body), served), by_rows))
        assert found.keys() == shown.keys()
        row = found["predictions"][0] if by_rows else {name: rows[0] for name, rows in found["outputs"].items()}
        other = shown["predictions"][0] if by_rows else {name: rows[0] for name, rows in shown["outputs"].items()}
        assert {name: type(value) for name, value in row.items()} == {n: type(v) for n, v in other.items()}
        assert row["caption"] == expected["caption"].numpy()[0].decode() != ""
        assert row["log_prob"] == pytest.approx(expected["log_prob"].numpy()[0]) and row["error"] == ""


def test_rest_answers_hold_the_rows_of_bad_images_and_of_beams(served, asked_and_answered):
    images = [*BAD, GOOD[0]]
    rows = [{"image_bytes": {"b64": base64.b64encode(one).decode()}} for one in images]
    for signature in ("serving_default", "beam"):
        request = rest.request_of(json.dumps({"signature_name": signature, "instances": rows}))
        found = json.loads(rest.body_of(rest.answered(request, served), by_rows=True))["predictions"]
        assert [row["error"] for row in found] == [*BAD.values(), ""] and found[-1]["caption"]
    assert [len(row["captions"]) for row in found] == [BEAM_WIDTH] * len(images)
    with pytest.raises(ValueError, match="NaN is no JSON"):
        rest.request_of('{"inputs": {"features": [[NaN]]}}')


def test_warm_up_requests_are_messages_of_the_server(folder, served):
    prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    records = tf.data.TFRecordDataset(str(folder / "assets.extra" / FILE)).as_numpy_iterator()
    requests = [prediction_log_pb2.PredictionLog.FromString(one).predict_log.request for one in records]
    assert [len(rest.answered(request, served).outputs["caption"].string_val) for request in requests] == [*BATCHES]
