"""Functions compiled once for any number of rows."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def ragged(function: Callable) -> Callable:
    """Returns `function` compiled at its first call, for tensors with any number of rows.

    tf.function would trace once for the first number of rows, and once more for any number. All other sizes, and which
    arguments are None, must be the same at every call.
    """
    compiled: list[Callable] = []

    def call(*args: Any) -> Any:
        if not compiled:
            compiled.append(
                tf.function(function, autograph=False).get_concrete_function(*tf.nest.map_structure(_any_rows, args))
            )
        return compiled[0](*args)

    return call


def _any_rows(value: tf.Tensor | None) -> tf.TensorSpec | None:
    if value is None:
        return None
    return tf.TensorSpec(value.shape if value.shape.rank == 0 else [None, *value.shape[1:]], value.dtype)
