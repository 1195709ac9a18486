"""Moments of numbers that lie in several parts are those of all of them."""

import numpy as np
import pytest
import tensorflow as tf

from spidercap.pipeline.training.moments import Moments, explained_variance, merged, moments


def of_parts(parts):
    found = [moments(tf.constant(part, tf.float32)) for part in parts]
    return merged(Moments(*(tf.stack(field) for field in zip(*found, strict=True))))


@pytest.mark.parametrize("sizes", [(5,), (1, 4), (0, 5), (2, 0, 3), (0, 0)])
def test_parts_are_the_whole(sizes):
    values = np.random.default_rng(sum(sizes)).normal(3, 2, sum(sizes))
    found = of_parts(np.split(values, np.cumsum(sizes)[:-1]))
    assert float(found.count) == len(values)
    assert float(found.mean) == pytest.approx(values.mean() if len(values) else 0, rel=1e-6)
    assert float(found.std()) == pytest.approx(values.std() if len(values) else 0, rel=1e-6)


def test_equal_numbers_far_from_zero_have_no_spread():
    """A sum of squares would lose all digits here."""
    found = of_parts([[1000.25] * 7, [1000.25] * 2])
    assert float(found.std()) == 0
    assert float(found.mean) == 1000.25


def test_one_replica_alone_is_its_own_moments():
    alone = moments(tf.constant([1.0, 4.0]))
    assert [float(x) for x in merged(alone)] == [float(x) for x in alone] == [2, 2.5, 4.5]


def test_explained_variance():
    values = np.array([1.0, 2.0, 3.0], np.float32)

    def explained(baseline):
        return float(explained_variance(moments(tf.constant(values)), moments(tf.constant(values - baseline))))

    assert explained(values) == pytest.approx(1)
    assert explained(np.float32(7)) == pytest.approx(0)
    assert explained(2 * values) == pytest.approx(0)
    nothing = moments(tf.zeros([0]))
    assert float(explained_variance(nothing, nothing)) == 0
