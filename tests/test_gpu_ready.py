"""Without a GPU: every operation of the compiled steps has a kernel for one, so nothing goes back to the host."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import kernels

from spidercap.pipeline.data.batches import Batch
from spidercap.pipeline.metrics.registry import parse_reward
from spidercap.pipeline.training.rewards import build_reward, reward_frequencies
from spidercap.pipeline.training.steps import likelihood_step, policy_gradient_step
from tests.variants import OBJECTIVES, adam, learned_baseline

# Placed by the runtime itself, wherever their values are.
RUNTIME = {"Placeholder", "NoOp", "PartitionedCall", "StatefulPartitionedCall"}


def nodes(function):
    """Returns every node of a concrete function, those of loops and branches too, but not calls of functions."""
    graph = function.graph.as_graph_def()
    called = {f.signature.name for f in graph.library.function}
    found = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    return [node for node in found if node.op not in called]


def operations(function):
    """Returns the names of the operations in a concrete function."""
    return {node.op for node in nodes(function)}


def host_only(function):
    """Returns the operations for whose types of numbers no GPU kernel, and none for any device, is registered."""

    def fits(node, kernel):
        return all(
            node.attr[c.name].type in c.allowed_values.list.type
            for c in kernel.constraint
            if c.name in node.attr and c.allowed_values.list.type
        )

    def runs_on_gpu(node):
        registered = kernels.get_registered_kernels_for_op(node.op).kernel
        return any(k.device_type in ("GPU", "DEFAULT") and fits(node, k) for k in registered)

    return {node.op for node in nodes(function) if node.op not in RUNTIME and not runs_on_gpu(node)}


REFERENCES = np.array([[[4, 5, 2], [6, 2, 0]], [[5, 2, 0], [4, 2, 0]]], np.int32)
SEED, LEVEL = tf.constant([1, 2]), tf.constant(1.0)


@pytest.mark.parametrize("scheduled_sampling", [False, True])
def test_likelihood_step_stays_on_the_device(toy, scheduled_sampling):
    captioner, _, features = toy
    step = likelihood_step(
        captioner,
        adam(captioner, weight_decay=0.1, use_ema=True, ema_momentum=0.9),
        feature_dropout=0.1,
        label_smoothing=0.1,
        scheduled_sampling=scheduled_sampling,
    )
    batch = Batch(tf.constant(features), tf.constant([0, 1]), tf.constant([[4, 2, 0], [5, 6, 2]]))
    function = step.get_concrete_function(batch, SEED, LEVEL)
    assert "MatMul" in operations(function)
    assert host_only(function) == set()


@pytest.mark.parametrize(
    ("name", "precision", "jit", "likelihood_weight"),
    [
        *((name, tf.float32, False, 0.0) for name in OBJECTIVES),
        ("pg", tf.bfloat16, False, 0.0),
        ("pg", tf.float32, True, 0.0),
        ("leave_one_out", tf.float32, False, 0.5),
    ],
)
def test_policy_gradient_step_stays_on_the_device(toy, name, precision, jit, likelihood_weight):
    captioner, baseline, features = toy
    captioner.precision, captioner.jit = precision, jit
    weights = parse_reward("cider:1,rouge:2,bleu1:1,bleu4:1")
    reward = build_reward(weights, REFERENCES, reward_frequencies(REFERENCES, 8, True), True)
    learned = learned_baseline(name, baseline, 3)
    step = policy_gradient_step(
        captioner,
        learned,
        reward,
        OBJECTIVES[name](captioner, 3),
        adam(captioner),
        adam(learned),
        feature_dropout=0.1,
        likelihood_weight=likelihood_weight,
    )
    words = tf.constant([[4, 2, 0], [5, 6, 2]]) if name == "mixer" or likelihood_weight else None
    function = step.get_concrete_function(Batch(tf.constant(features), tf.constant([0, 1]), words), SEED, LEVEL)
    assert {"Softmax", "PopulationCount"} <= operations(function)
    assert host_only(function) == set()


def test_a_host_operation_would_be_seen():
    @tf.function
    def decode(data):
        return tf.io.decode_jpeg(data)

    assert host_only(decode.get_concrete_function(tf.TensorSpec([], tf.string))) == {"DecodeJpeg"}


def test_a_type_without_a_kernel_would_be_seen():
    """Padding has a GPU kernel, but none for int64."""

    @tf.function
    def pad(x):
        return tf.pad(x, [[1, 1]])

    assert host_only(pad.get_concrete_function(tf.TensorSpec([3], tf.float32))) == set()
    assert host_only(pad.get_concrete_function(tf.TensorSpec([3], tf.int64))) == {"Pad"}
