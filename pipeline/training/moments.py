"""Mean and spread of numbers that are spread over replicas: each replica's own, merged without loss of digits.

Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979).
"""

from typing import NamedTuple

import tensorflow as tf

from spidercap.pipeline.training.shapes import check_shapes


class Moments(NamedTuple):
    """Of numbers: scalars, or `[R]` of those of R replicas."""

    count: tf.Tensor
    mean: tf.Tensor  # 0 of none
    squares: tf.Tensor  # sum of the squared distances from the mean

    def std(self) -> tf.Tensor:
        """Returns the standard deviation, 0 of none."""
        return tf.sqrt(self.variance())

    def variance(self) -> tf.Tensor:
        """Returns the mean of the squared distances from the mean, 0 of none."""
        return tf.math.divide_no_nan(self.squares, self.count)


def moments(values: tf.Tensor) -> Moments:
    """Returns the moments of packed `[n]`."""
    check_shapes("moments", values=(values, "n"))
    values = tf.cast(values, tf.float32)
    count = tf.cast(tf.size(values), tf.float32)
    mean = tf.math.divide_no_nan(tf.reduce_sum(values), count)
    return Moments(count, mean, tf.reduce_sum((values - mean) ** 2))


def merged(parts: Moments) -> Moments:
    """Returns the moments of all numbers, of those `[R]` of parts of them."""
    count = tf.reduce_sum(parts.count)
    mean = tf.math.divide_no_nan(tf.reduce_sum(parts.count * parts.mean), count)
    return Moments(count, mean, tf.reduce_sum(parts.squares + parts.count * (parts.mean - mean) ** 2))


def explained_variance(values: Moments, residuals: Moments) -> tf.Tensor:
    """Returns 1 - Var(Q - b) / Var(Q): 1 is a perfect baseline, 0 one no better than a constant.

    0 also where all values are equal, or there are none, and there is nothing to explain.
    """
    return tf.math.divide_no_nan(values.variance() - residuals.variance(), values.variance())
