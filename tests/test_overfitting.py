"""Remedies against learning the training pictures by heart."""

import numpy as np
import pytest
import tensorflow as tf

from spidercap.pipeline.errors import Interrupted
from spidercap.pipeline.training.kept import build_models, load_kept
from spidercap.pipeline.training.optimizer import averaged
from spidercap.pipeline.training.stages import build_stage
from spidercap.pipeline.training.steps import update
from tests.tiny_runs import VOCABULARY, assert_same_end, cider_of, config_of, make_arrays, poison, run
from tests.variants import adam


def built(tmp_path, stages, **changes):
    """(captioner, baseline, the first stage) of a tiny run."""
    arrays, config = make_arrays(), config_of(tmp_path, stages=stages, **changes)
    captioner, baseline = build_models(config, VOCABULARY, 5)
    captioner.adapt(arrays.features[:, 0])
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
    """Over ten updates with a rate that falls by half over the stage, which has 27 steps in mle and 14 elsewhere."""
    captioner, _baseline, stage = built(
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
        assert apply(tf.constant(np.nan), *map(tf.constant, found)).skipped == 1
        assert_same(values_of(captioner.weights), kept)
        assert apply(tf.constant(1.0), *map(tf.constant, found)).skipped == 0
    rates = [1e-2 * 0.5 ** (i / (27 if name == "mle" else 14)) for i in range(10)]
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


@pytest.mark.parametrize("momentum", [0.05, 0.3, 0.999])  # never warmed up, after three updates, never reached
def test_averages_begin_with_the_first_weights_and_forget_them(toy, momentum):
    captioner = toy[0]
    optimizer = adam(captioner, 0.1, use_ema=True, ema_momentum=momentum)
    weights = captioner.trainable_variables
    trained = [values_of(weights)]
    with averaged(captioner, optimizer):
        assert_same(values_of(weights), trained[0])
    apply = tf.function(lambda loss, *found: update([(optimizer, list(found))], [loss]))
    rng, average = np.random.default_rng(0), trained[0]
    for n in range(12):
        gradients = [tf.constant(rng.normal(0, 1, w.shape), tf.float32) for w in weights]
        apply(tf.constant(np.nan), *gradients)
        assert_same(values_of(weights), trained[-1])
        apply(tf.constant(1.0), *gradients)
        trained.append(values_of(weights))
        kept = min(momentum, (1 + n) / (10 + n))
        average = [kept * old + (1 - kept) * new for old, new in zip(average, trained[-1], strict=True)]
        with averaged(captioner, optimizer):
            for weight, expected in zip(weights, average, strict=True):
                np.testing.assert_allclose(weight.numpy(), expected, atol=1e-6)
        assert_same(values_of(weights), trained[-1])  # training goes on with these
    assert max(np.abs(a - b).max() for a, b in zip(average, trained[-1], strict=True)) > (1e-3 if momentum > 0.1 else 0)


def test_a_validation_that_fails_leaves_the_trained_weights(toy):
    captioner = toy[0]
    optimizer = adam(captioner, 0.1, use_ema=True, ema_momentum=0.9)
    optimizer.apply([tf.ones(w.shape) for w in captioner.trainable_variables])
    trained = values_of(captioner.weights)
    with pytest.raises(KeyboardInterrupt), averaged(captioner, optimizer):
        assert any((w.numpy() != t).any() for w, t in zip(captioner.weights, trained, strict=True))
        raise KeyboardInterrupt
    assert_same(values_of(captioner.weights), trained)


def test_averages_are_validated_kept_and_handed_on_while_training_is_the_same(tmp_path):
    """What was kept at a step is the average, until then, of the weights that an ordinary run has."""
    settings = {"stages": "mle:2", "learning_rate": "mle:3e-2"}
    captioner, _, stage = built(tmp_path, **settings)
    trained = [values_of(captioner.trainable_variables)]
    averages = trained[:]
    for n, batch in enumerate(stage.batches(0)):
        seed = tf.random.experimental.stateless_fold_in(tf.constant([0, 0]), n)
        stage.step(batch, seed, tf.constant(0.0))
        trained.append(values_of(captioner.trainable_variables))
        kept = (1 + n) / (10 + n)
        averages.append([kept * old + (1 - kept) * new for old, new in zip(averages[-1], trained[-1], strict=True)])
    handed_on, progress = run(config_of(tmp_path / "averaged", weight_average=0.999, **settings), make_arrays())
    captioner, baseline = build_models(config_of(tmp_path), VOCABULARY, 5)
    load_kept(tmp_path / "averaged", "mle", captioner, baseline)
    assert_same(handed_on, values_of(captioner.weights + baseline.weights))
    best = progress.finished[0].best_step
    for weight, average, raw in zip(captioner.trainable_variables, averages[best], trained[best], strict=True):
        np.testing.assert_allclose(weight.numpy(), average, atol=1e-5)
        assert np.abs(weight.numpy() - raw).max() > 1e-3
    validated = next(row.metrics["all weights"] for row in progress.history if row.step == best)
    assert validated == pytest.approx(sum(np.abs(w).sum() for w in handed_on), rel=1e-6)


@pytest.mark.long
def test_resumed_equals_uninterrupted_with_all_remedies(tmp_path, monkeypatch):
    """Stopped within mle and within leave_one_out, after averages had been validated; the first updates are skipped."""
    poison(monkeypatch, [0])
    settings = {
        "stages": "mle:1,leave_one_out:2",
        "samples": 2,
        "weight_decay": 0.5,
        "weight_average": 0.9,
        "likelihood_weight": 0.2,
        "learning_rate": "mle:1e-2,leave_one_out:1e-2",
    }
    arrays = make_arrays()
    whole = run(config_of(tmp_path / "whole", **settings), arrays)
    config = config_of(tmp_path / "stopped", **settings)
    for validation in (1, 3):
        with pytest.raises(Interrupted):
            run(config, arrays, validation)
    assert_same_end(run(config, arrays), whole)
    assert all(np.isfinite(w).all() for w in whole[0])
