"""The moving average of a model's weights in the place of those that training goes on with."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf


@contextlib.contextmanager
def averaged(model: keras.Model, optimizer: keras.Optimizer) -> Iterator[None]:
    """While it lasts, the model's weights are the averages that its optimizer keeps; then they are the same again."""
    weights = model.trainable_variables
    trained = [tf.convert_to_tensor(w) for w in weights]
    try:
        optimizer.finalize_variable_values(weights)
        yield
    finally:
        for weight, value in zip(weights, trained, strict=True):
            weight.assign(value)
