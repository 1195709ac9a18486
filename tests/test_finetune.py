"""Steps that train layers of the encoder: what moves, and what stays as it is to the bit."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from spidercap.models.baseline import Baseline
from spidercap.models.captioners import CAPTIONERS
from spidercap.models.encoder_cut import cut_encoder
from spidercap.models.packing import pack
from spidercap.models.word_loss import weighted_log_likelihood
from spidercap.pipeline.data.batches import Batch
from spidercap.pipeline.evaluation.evaluate import build_decoder
from spidercap.pipeline.training import estimators, replicas
from spidercap.pipeline.training.optimizer import Adam
from spidercap.pipeline.training.steps import likelihood_step, policy_gradient_step
from spidercap.pipeline.training.strategies import mirrored
from tests.toy_training import REFERENCES, REWARDS, T
from tests.variants import OBJECTIVES, adam, learned_baseline

SIDE, IMAGES = 8, 5
KINDS = ("lstm", "attention")


def make_encoder(grid):
    """Pixels [B, 8, 8, 3] -> [B, 3] or [B, 16, 3]: two convolutions, each with normalisation that has moved."""
    keras.utils.set_random_seed(4)
    layers = keras.layers
    inner = keras.Input((SIDE, SIDE, 3))
    values = layers.Conv2D(4, 3, strides=2, padding="same", name="first")(inner)
    values = layers.ReLU()(layers.BatchNormalization(name="first_bn")(values))
    values = layers.BatchNormalization(name="second_bn")(layers.Conv2D(3, 3, padding="same", name="second")(values))
    network = keras.Model(inner, values if grid else layers.GlobalAveragePooling2D()(values))
    for name in ("first_bn", "second_bn"):
        network.get_layer(name).moving_variance.assign(np.linspace(0.3, 0.6, 4 - (name == "second_bn")))
    network.trainable = False
    pixels = keras.Input((SIDE, SIDE, 3))
    features = network(pixels / 255.0, training=False)
    return keras.Model(pixels, layers.Reshape((-1, 3))(features) if grid else features)


def make_world(kind):
    """(captioner that tunes from `second` on, encoder, batch of what is stored)."""
    encoder = make_encoder(kind != "lstm")
    cut = cut_encoder(encoder, "second")
    captioner = CAPTIONERS[kind](vocabulary_size=7, feature_size=3, units=5, embedding_size=4, dropout=0.0)
    rng = np.random.default_rng(5)
    for weight in captioner.trainable_variables:
        weight.assign(rng.normal(0, 0.8, weight.shape))
    captioner.tuned = cut.tuned
    stored = cut.frozen(rng.uniform(0, 255, (IMAGES, SIDE, SIDE, 3)).astype(np.float32)).numpy()
    captioner.adapt(stored)
    return captioner, encoder, Batch(tf.constant(stored), tf.range(IMAGES), tf.constant(REFERENCES[:IMAGES]))


def test_the_normalisation_is_that_of_the_encoders_features():
    captioner, _, batch = make_world("lstm")
    features = captioner.encoded(batch.features).numpy()
    np.testing.assert_allclose(captioner.feature_mean, features.mean(axis=0), rtol=1e-5)
    plain = CAPTIONERS["lstm"](vocabulary_size=7, feature_size=3, units=5, embedding_size=4, dropout=0.0)
    plain.adapt(features)
    np.testing.assert_allclose(captioner.feature_deviation, plain.feature_deviation, rtol=1e-5)
    assert len(captioner.own_weights) == len(plain.weights) < len(captioner.weights)


def moves(name, captioner, parts):
    """Takes three steps, each on the parts of a batch; returns whether none was skipped."""
    optimizer, more = adam(captioner, 0.05), {"feature_dropout": 0.3}
    if name == "mle":
        step = likelihood_step(captioner, optimizer, scheduled_sampling=True, **more)
    else:
        baseline = learned_baseline(name, Baseline(5, 6), T)
        objective = OBJECTIVES[name](captioner, T)
        step = policy_gradient_step(
            captioner, baseline, REWARDS["host"](), objective, optimizer, adam(baseline), **more
        )
    batch = replicas.of_each_local(parts)
    logs = [replicas.local(step(batch, tf.constant([2, i]), tf.constant(1.0)))[0] for i in range(3)]
    return all(float(of_step.skipped) == 0 for of_step in logs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["mle", "vine", "pg", "scst", "mixer"])
def test_only_weights_of_the_tuned_layers_move(kind, name):
    captioner, encoder, batch = make_world(kind)
    before = {weight.path: weight.numpy() for weight in encoder.weights}
    assert moves(name, captioner, [batch])
    moved = {path for path, value in before.items() if not np.array_equal(value, _by_path(encoder)[path].numpy())}
    assert {path.split("/")[-2] + "/" + path.split("/")[-1] for path in moved} == {"second/kernel", "second/bias"}


def _by_path(model):
    return {weight.path: weight for weight in model.weights}


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_the_likelihood(kind):
    """By finite differences of the loss, as a function of the tuned kernel."""
    captioner, _, batch = make_world(kind)
    kernel = next(weight for weight in captioner.tuned.trainable_variables if weight.name == "kernel")
    packing = pack(batch.tokens)
    weights = packing.of(tf.cast(estimators.likelihood_mask(batch.tokens), tf.float32))

    def loss():
        hidden = captioner.hidden(captioner.encoded(batch.features), batch.tokens, packing)
        return weighted_log_likelihood(captioner.projection(), hidden, packing.of(batch.tokens), -weights)[0]

    with tf.GradientTape() as tape:
        value = loss()
    gradient = tape.gradient(value, kernel.value)
    direction = np.random.default_rng(1).normal(size=kernel.shape).astype(np.float32)
    start, found = kernel.numpy(), []
    for distance in (-1e-3, 1e-3):
        kernel.assign(start + distance * direction)
        found.append(float(loss()))
    expected = float(tf.reduce_sum(gradient * direction))
    assert (found[1] - found[0]) / 2e-3 == pytest.approx(expected, rel=0.02) and abs(expected) > 0.05


def test_validation_decodes_from_what_is_stored():
    captioner, _, batch = make_world("lstm")
    found = build_decoder(captioner, T)(batch.features.numpy())
    features = captioner.encoded(batch.features).numpy()
    captioner.tuned.trainable = False
    plain = CAPTIONERS["lstm"](vocabulary_size=7, feature_size=3, units=5, embedding_size=4, dropout=0.0)
    for weight, value in zip(plain.weights, captioner.own_weights, strict=True):
        weight.assign(value)
    expected = build_decoder(plain, T)(features)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_allclose(found.log_prob, expected.log_prob, rtol=1e-5)


def test_tuned_layers_have_their_own_rate_and_weight_decay():
    weights = [keras.Variable(np.ones([3], np.float32)) for _ in range(2)]
    optimizer = Adam(0.1, slow=weights[1:], slowness=0.01, weight_decay=0.5, global_clipnorm=1.0)
    optimizer.build(weights)
    optimizer.apply([tf.constant([1.0, -2.0, 0.5])] * 2)
    ordinary, slow = (weight.numpy() - 1 for weight in weights)
    np.testing.assert_allclose(slow, 0.01 * ordinary, rtol=1e-3)
    assert np.abs(ordinary).min() > 0.04


@pytest.mark.parametrize("name", ["mle", "vine"])
@pytest.mark.long
def test_two_devices_are_one(name):
    weights = []
    for strategy in (None, mirrored()):
        with strategy.scope() if strategy else contextlib.nullcontext():
            captioner, _, batch = make_world("lstm")
            rows = [(0, 2), (2, IMAGES)] if strategy else []
            parts = [Batch(*(x[i:j] for x in batch[:3]), tf.constant(i, tf.int64)) for i, j in rows]
            assert moves(name, captioner, parts or [batch])
            weights.append([np.array(weight) for weight in captioner.weights])
    for one, several in zip(*weights, strict=True):
        np.testing.assert_allclose(one, several, rtol=2e-4, atol=2e-5)
