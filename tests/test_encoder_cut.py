"""An encoder in two parts is the same encoder; it is cut only where all flows through one layer."""

import keras
import numpy as np
import pytest

from spidercap.models.encoder import build_encoder
from spidercap.models.encoder_cut import CutError, EncodedView, cut_encoder, whole_encoder
from tests.lively_networks import enliven

SIDE = 64
AT = {"MobileNetV2": "block_15_expand", "ResNet50": "conv5_block2_1_conv"}


@pytest.fixture(scope="module", params=[(name, grid) for name in AT for grid in (False, True)])
def network(request):
    """(name, an encoder whose batch normalisation has moved, pixels that are no whole numbers)."""
    name, grid = request.param
    encoder = build_encoder(name, "random", SIDE, grid=grid)
    rng = np.random.default_rng(0)
    enliven(encoder.layers[-2 if grid else -1])
    return name, encoder, rng.uniform(0, 255, (3, SIDE, SIDE, 3)).astype(np.float32)


def test_both_parts_together_are_the_encoder(network):
    name, encoder, pixels = network
    expected = encoder(pixels, training=False).numpy()
    assert expected.std() > 1e-3
    cut = cut_encoder(encoder, AT[name])
    stored = cut.frozen(pixels).numpy()
    assert stored.ndim == 4 and stored.shape[1:3] == (2, 2)
    close = {"rtol": 1e-5, "atol": 1e-5 * np.abs(expected).max()}
    np.testing.assert_allclose(cut.tuned(stored, training=False), expected, **close)
    np.testing.assert_allclose(whole_encoder(cut)(pixels), expected, **close)
    np.testing.assert_allclose(EncodedView(cut.tuned, stored)[1:3], expected[1:], **close)


def test_without_a_layer_the_pixels_are_what_is_stored(network):
    _, encoder, pixels = network
    cut = cut_encoder(encoder)
    stored = cut.frozen(pixels).numpy()
    assert stored.dtype == np.uint8
    np.testing.assert_array_equal(stored, np.round(pixels))
    expected = encoder(np.round(pixels), training=False).numpy()
    np.testing.assert_array_equal(cut.tuned(stored.astype(np.float32), training=False), expected)
    np.testing.assert_array_equal(whole_encoder(cut)(pixels), expected)


def test_what_is_trained_are_weights_from_the_layer_on_without_batch_normalisation(network):
    name, encoder, _ = network
    cut = cut_encoder(encoder, AT[name])
    inner = [layer for layer in cut.tuned.layers if layer.weights]
    assert inner[0].name == AT[name]
    normalised = {id(w) for layer in inner if isinstance(layer, keras.layers.BatchNormalization) for w in layer.weights}
    assert normalised
    expected = [id(w) for w in cut.tuned.weights if id(w) not in normalised]
    assert sorted(map(id, cut.tuned.trainable_variables)) == sorted(expected)


@pytest.mark.parametrize(
    ("name", "layer", "problem", "allowed"),
    [
        ("ResNet50", "conv5_block2_2_conv", "other connections pass by", "conv5_block2_1_conv"),
        ("ResNet50", "conv5_block2_add", "joins several branches", "conv5_block3_1_conv"),
        ("ResNet50", "conv5_block9", "has no layer", "conv5_block1_1_conv"),
        ("MobileNetV2", "block_15_project", "other connections pass by", "block_15_expand"),
        ("MobileNetV2", "out_relu", "nothing to train", "Conv_1"),
    ],
)
def test_other_layers_are_refused_and_allowed_ones_are_named(name, layer, problem, allowed):
    encoder = build_encoder(name, "random", SIDE)
    with pytest.raises(CutError, match=problem) as raised:
        cut_encoder(encoder, layer)
    assert allowed in raised.value.allowed and layer not in raised.value.allowed
    for one in raised.value.allowed[-3:]:
        cut_encoder(encoder, one)
