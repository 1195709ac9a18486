"""Remedies against learning the training pictures by heart."""

import numpy as np
import pytest
import tensorflow as tf

from pipeline.stages import build_stage
from pipeline.steps import update
from pipeline.workdir import build_models
from tests.tiny_runs import VOCABULARY, cider_of, config_of, make_arrays


def built(tmp_path, stages, **changes):
    """(captioner, baseline, the first stage) of a tiny run."""
    arrays, config = make_arrays(), config_of(tmp_path, stages=stages, **changes)
    captioner, baseline = build_models(config, VOCABULARY, 5)
    captioner.adapt(arrays.features)
    return captioner, baseline, build_stage(config, 0, captioner, baseline, arrays, cider_of(arrays))


def values_of(weights):
    return [w.numpy() for w in weights]


def assert_same(some, others):
    for a, b in zip(some, others, strict=True):
        np.testing.assert_array_equal(a, b)


def decayed_adam(weight, gradients, rates, decay):
    """Loshchilov, Hutter, "Decoupled weight decay regularization" (2019), algorithm 2, with Keras' epsilon."""
    weight, m, v = weight.astype(np.float64), 0.0, 0.0
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        root = np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        weight = weight - rate * decay * weight - rate * root * m / (np.sqrt(v) + 1e-7)
    return weight


@pytest.mark.parametrize("name", ["mle", "pg", "scst"])
def test_weights_decay_once_an_update_times_the_rate_and_biases_do_not(tmp_path, name):
    """Over ten updates with a rate that falls by half an epoch, which has 7 steps in mle and 3 elsewhere."""
    captioner, baseline, stage = built(
        tmp_path, f"{name}:4", weight_decay=3.0, clip_norm=0.0, decay=f"{name}:0.5", learning_rate=f"{name}:1e-2"
    )
    rng, weights = np.random.default_rng(1), captioner.trainable_variables
    for weight in captioner.weights:
        weight.assign(rng.normal(1, 0.5, weight.shape))
    begun, everything = values_of(weights), values_of(captioner.weights)
    gradients = [[rng.normal(0, 1, w.shape).astype(np.float32) for w in weights] for _ in range(10)]
    apply = tf.function(lambda loss, *found: update([(stage.state["optimizer"], list(found))], [loss]))
    for found in gradients:
        kept = values_of(captioner.weights)
        assert apply(tf.constant(np.nan), *map(tf.constant, found))["skipped updates"] == 1
        assert_same(values_of(captioner.weights), kept)
        assert apply(tf.constant(1.0), *map(tf.constant, found))["skipped updates"] == 0
    rates = [1e-2 * 0.5 ** (i // (7 if name == "mle" else 3)) for i in range(10)]
    for place, weight in enumerate(weights):
        decay = 0.0 if weight.path.endswith("bias") else 3.0
        expected = decayed_adam(begun[place], [found[place] for found in gradients], rates, decay)
        np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert sum(w.path.endswith("bias") for w in weights) == 3
    fixed = [i for i, w in enumerate(captioner.weights) if not w.trainable]
    assert len(fixed) == 2
    assert_same([captioner.weights[i].numpy() for i in fixed], [everything[i] for i in fixed])


@pytest.mark.parametrize("name", ["pg", "mixer"])
def test_baselines_do_not_decay(tmp_path, name):
    _, baseline, stage = built(tmp_path, f"{name}:1", weight_decay=3.0)
    learned = stage.state.get("step_baseline", baseline)
    for weight in learned.weights:
        weight.assign(tf.ones_like(weight))
    update([(stage.state["baseline_optimizer"], [tf.zeros(w.shape) for w in learned.weights])], [])
    assert all((w.numpy() == 1).all() for w in learned.weights)
