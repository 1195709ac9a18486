"""Matrix products at a chosen precision; everything between them stays float32."""

import tensorflow as tf

PRECISIONS = {"float32": tf.float32, "bfloat16": tf.bfloat16}


def product(
    left: tf.Tensor, right: tf.Tensor, precision: tf.DType, transpose_a: bool = False, transpose_b: bool = False
) -> tf.Tensor:
    """Returns the product of two matrices as float32; operands and result are rounded to `precision`."""
    if precision == tf.float32:
        return tf.matmul(left, right, transpose_a=transpose_a, transpose_b=transpose_b)
    left, right = tf.cast(left, precision), tf.cast(right, precision)
    return tf.cast(tf.matmul(left, right, transpose_a=transpose_a, transpose_b=transpose_b), tf.float32)
