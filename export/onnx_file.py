"""ONNX files: ONNX Runtime, and what reads its format. Operations of the standard set only, any batch."""

import pathlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from spidercap.export.pixels_graph import PixelsGraph

OPSET = 18
OUTPUTS = ("ids", "log_prob")


def convert(graph: PixelsGraph, path: pathlib.Path) -> None:
    """Writes the graph to a file, with its names for input and outputs and N for the batch."""
    import onnx  # with tf2onnx of the extra onnx
    import tf2onnx

    signature = graph.pixels.input_signature

    @tf.function(input_signature=signature, autograph=False)
    def ordered(pixels: tf.Tensor) -> tuple[tf.Tensor, ...]:
        found = graph.pixels(pixels)
        return tuple(tf.identity(found[name]) for name in OUTPUTS)

    # A table of the process leaves a None there, of which TensorFlow would tell that it cannot be stored.
    tf.compat.v1.get_default_graph().clear_collection(tf.compat.v1.GraphKeys.TABLE_INITIALIZERS)
    model, _ = tf2onnx.convert.from_function(ordered, signature, opset=OPSET)
    # Constants from outside the function, as EfficientNet has, are stored, and left over as inputs that no node reads.
    for value in [value for value in model.graph.input if value.name != "pixels"]:
        model.graph.input.remove(value)
    _rename(model.graph)
    _copy_unchanged(model.graph)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _rename(graph) -> None:
    """Gives the outputs of an onnx.GraphProto their names, and the batch one name."""
    names = {output.name: name for output, name in zip(graph.output, OUTPUTS, strict=True)}
    for node in graph.node:
        node.output[:] = [names.get(name, name) for name in node.output]
        node.input[:] = [names.get(name, name) for name in node.input]
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)
        value.type.tensor_type.shape.dim[0].dim_param = "N"


def _copy_unchanged(graph) -> None:
    """Copies what loops return as they took it: OpenVINO cannot read a body whose input is its output, too."""
    import onnx

    for node in graph.node:
        for body in (attribute.g for attribute in node.attribute if attribute.name == "body"):
            inputs = {value.name for value in body.input}
            for output in (value for value in body.output if value.name in inputs):
                copied = f"{output.name}_unchanged"
                body.node.append(onnx.helper.make_node("Identity", [output.name], [copied]))
                output.name = copied


def load(path: pathlib.Path) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Returns run(pixels) -> (ids, log_prob), by ONNX Runtime."""
    import onnxruntime  # of the extra onnx

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda pixels: tuple(session.run(list(OUTPUTS), {"pixels": pixels}))
