"""The fused Adam is Keras' own, to rounding."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from spidercap.pipeline.training.optimizer import Adam


@pytest.mark.parametrize("clip", [None, 0.5, 3.0])  # never, always, at times
def test_it_moves_weights_as_keras_does(clip):
    """Dense gradients and some rows', a falling rate, clipping; weights and both moments, over twenty steps."""
    rng = np.random.default_rng(0)
    moved = {}
    gradients = [(rng.normal(size=[3, 2]), rng.normal(size=[2, 4]), rng.permutation(5)[:2]) for _ in range(20)]
    for kind in (keras.optimizers.Adam, Adam):
        weights = [keras.Variable(np.ones([3, 2], np.float32)), keras.Variable(np.ones([5, 4], np.float32))]
        rate = keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.5, staircase=True)
        optimizer = kind(rate, global_clipnorm=clip)
        optimizer.build(weights)

        @tf.function(autograph=False)
        def apply(dense, rows, index, optimizer=optimizer):
            optimizer.apply([dense, tf.IndexedSlices(rows, index, tf.constant([5, 4]))])

        for dense, rows, index in gradients:
            apply(tf.constant(dense, tf.float32), tf.constant(rows, tf.float32), tf.constant(index, tf.int32))
        moved[kind] = [v.numpy() for v in [*weights, *optimizer.variables]]
    for ours, theirs in zip(moved[Adam], moved[keras.optimizers.Adam], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-7)
    assert np.abs(moved[Adam][0] - 1).max() > 0.1


def test_a_row_met_twice_counts_as_the_sum():
    """As with the dense gradient; Keras 3.15 adds the squares of the two to the second moment instead."""
    moved = []
    rows, index = tf.constant([[1.0, 2.0], [3.0, -1.0], [0.5, 0.5]]), tf.constant([2, 2, 0])
    slices = tf.IndexedSlices(rows, index, tf.constant([4, 2]))
    for gradient in (slices, tf.convert_to_tensor(slices)):
        weight = keras.Variable(np.ones([4, 2], np.float32))
        optimizer = Adam(0.1)
        optimizer.build([weight])
        for _ in range(3):
            optimizer.apply([gradient])
        moved.append([v.numpy() for v in [weight, *optimizer.variables]])
    for sparse, dense in zip(*moved, strict=True):
        np.testing.assert_allclose(sparse, dense, rtol=1e-6)
