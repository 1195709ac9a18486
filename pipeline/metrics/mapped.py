"""Tensors of arrays that are mapped into memory."""

import numpy as np
import tensorflow as tf

ALIGNED = 64  # bytes, as TensorFlow aligns its own tensors


def as_tensor(array: np.ndarray) -> tf.Tensor:
    """Returns a tensor of an array; on a CPU without a copy if the array is mapped from a file.

    So only those parts are resident that are read. The array must not be changed later.
    """
    if not array.flags.writeable or not array.size or array.ctypes.data % ALIGNED or not array.flags.c_contiguous:
        return tf.constant(array)
    shared = tf.experimental.dlpack.from_dlpack(np.asarray(array).__dlpack__())
    return tf.identity(shared)  # on a GPU, if that is the device here
