"""LiteRT files (formerly TensorFlow Lite): phones and small machines. Built-in operations only, any batch."""

import pathlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from spidercap.export.pixels_graph import PixelsGraph


def convert(graph: PixelsGraph, path: pathlib.Path) -> None:
    """Writes the graph to a file."""
    path.write_bytes(converter_of(graph).convert())


def converter_of(graph: PixelsGraph) -> tf.lite.TFLiteConverter:
    """Returns the converter of the graph, with float32 weights."""
    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph.pixels.get_concrete_function()], graph)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    return converter


def load(path: pathlib.Path) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Returns run(pixels) -> (ids, log_prob), by the runtime of LiteRT."""
    from ai_edge_litert.interpreter import Interpreter  # of the extra litert

    signature = Interpreter(model_path=str(path)).get_signature_runner()

    def run(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = signature(pixels=pixels)
        return found["ids"], found["log_prob"]

    return run
