"""An encoder in two parts: the lower one is frozen and runs once for each image, the upper one is trained.

Between them lies one tensor, that of all that flows from the image to the features. So no skip connection may pass by
the layer at which a network is cut.

Shapes: B images, S the side of an image in pixels, h x w cells of a map, C its channels, P cells of the last map, F
features.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

ENCODED = 32  # images that `EncodedView` encodes at once


class CutError(ValueError):
    """A network cannot be cut at a layer; `allowed` are names of layers at which it can, in their order."""

    def __init__(self, problem: str, allowed: Sequence[str]):
        super().__init__(problem)
        self.allowed = tuple(allowed)


class Cut(NamedTuple):
    """The two parts of an encoder; they share its layers."""

    frozen: keras.Model  # float32 pixels [B, S, S, 3] in 0..255 -> what is stored: [B, h, w, C], or uint8 [B, S, S, 3]
    tuned: keras.Model  # what is stored, as float32 -> the encoder's features [B, F] or [B, P, F]


def cut_encoder(encoder: keras.Model, layer: str = "") -> Cut:
    """Returns the parts of an encoder of `build_encoder`, of which the upper one can be trained.

    Batch normalisation is frozen: neither its statistics nor its scale and offset are trained. Call `tuned` with
    training=False, by which it normalises with its statistics, and drops nothing.

    Args:
      encoder: float32 pixels `[B, S, S, 3]` -> `[B, F]` or `[B, P, F]`.
      layer: name of the first layer that is trained, as in the network of keras.applications; '': all are trained, and
        the lower part only rounds the pixels.

    Raises:
      CutError: there is no such layer, a connection passes by it, or nothing from it on can be trained.
    """
    if layer:
        frozen, tuned = _cut(encoder, layer)
    else:
        pixels = keras.Input(encoder.input_shape[1:], name="pixels")
        rounded = keras.ops.cast(keras.ops.round(pixels), "uint8")
        frozen, tuned = keras.Model(pixels, rounded, name="rounded_pixels"), encoder
    _thaw(tuned)
    return Cut(frozen, tuned)


def whole_encoder(cut: Cut) -> keras.Model:
    """Returns both parts as one network: float32 pixels `[B, S, S, 3]` -> `[B, F]` or `[B, P, F]`."""
    pixels = keras.Input(cut.frozen.input_shape[1:], name="pixels")
    stored = keras.ops.cast(cut.frozen(pixels, training=False), "float32")
    return keras.Model(pixels, cut.tuned(stored, training=False), name="encoder")


class EncodedView:
    """Features of stored maps: like an array `[I, F]` or `[I, P, F]` that can be sliced, encoded when it is."""

    def __init__(self, tuned: keras.Model, stored: np.ndarray):
        """Takes `Cut.tuned`, and what it reads of I images: an array, or what can be sliced like one."""
        self._tuned, self._stored = tuned, stored
        self.shape = (len(stored), *tuned.output_shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, last, _ = rows.indices(len(self))
        parts = [self._stored[i : min(i + ENCODED, last)] for i in range(first, last, ENCODED)]
        encoded = [self._tuned(tf.constant(part, tf.float32), training=False).numpy() for part in parts]
        return np.concatenate(encoded) if encoded else np.zeros((0, *self.shape[1:]), np.float32)


def _cut(encoder: keras.Model, layer: str) -> tuple[keras.Model, keras.Model]:
    call = next(op for op in _calls(encoder) if isinstance(op.operation, keras.Model))  # of the network in the encoder
    network, preprocessed = call.operation, call.input_tensors[0]
    at = {reader.name: tensor for tensor, readers in _passages(network) for reader in readers}
    if layer not in at:
        raise CutError(_problem(network, layer), _first_trained(network))
    lower = keras.Model(network.input, at[layer])
    frozen = keras.Model(encoder.input, lower(preprocessed, training=False), name="frozen_layers")
    upper = keras.Model(at[layer], network.output)
    features = upper.output
    if len(encoder.output_shape) == 3:
        features = keras.layers.Reshape((-1, features.shape[-1]), name="cells")(features)
    tuned = keras.Model(upper.input, features, name="tuned_layers")
    if not _trainable(tuned.layers):
        raise CutError(f"from the layer {layer} on, there is nothing to train", _first_trained(network))
    return frozen, tuned


def _thaw(tuned: keras.Model) -> None:
    """Lets all layers be trained, but batch normalisation: its statistics are of far more images than a batch has."""
    # One by one: to assign the value that a model has already does not reach its layers.
    for layer in _inner([tuned]):
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)


def _passages(network: keras.Model) -> Iterator[tuple[keras.KerasTensor, list[keras.layers.Layer]]]:
    """Yields the tensors through which all flows, but the image, and the layers that read each and nothing else."""
    calls = _calls(network)
    place = {id(tensor): i for i, call in enumerate(calls) for tensor in call.output_tensors}
    last = list(range(len(calls)))  # the last call that reads what each one returns
    for i, call in enumerate(calls):
        for tensor in call.input_tensors:
            last[place[id(tensor)]] = i
    reached = -1  # by what the calls before have returned
    for i, call in enumerate(calls):
        outputs = call.output_tensors
        if not call.is_input and reached <= i and len(outputs) == 1 and last[i] > i:
            reading = [c.operation for c in calls[i + 1 :] if [id(t) for t in c.input_tensors] == [id(outputs[0])]]
            yield outputs[0], [reader for reader in reading if isinstance(reader, keras.layers.Layer)]
        reached = max(reached, last[i])


def _calls(network: keras.Model) -> list:
    """The nodes of a network's graph, each after those that it reads."""
    by_depth = network._nodes_by_depth  # of the output it is 0
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def _first_trained(network: keras.Model) -> list[str]:
    """Names of layers at which the network can be cut, and that have weights to train; one for each place."""
    trained = [[reader.name for reader in readers if _trainable([reader])] for _, readers in _passages(network)]
    return [names[0] for names in trained if names]


def _problem(network: keras.Model, layer: str) -> str:
    """Why a network cannot be cut at a layer."""
    if layer not in [one.name for one in network.layers]:
        return f"{network.name} has no layer {layer}"
    if len(next(call for call in _calls(network) if call.operation.name == layer).input_tensors) != 1:
        return f"the layer {layer} joins several branches"
    return f"the layer {layer} is in a branch that other connections pass by, or reads the image itself"


def _trainable(layers: Sequence[keras.layers.Layer]) -> bool:
    """Whether layers have weights that `_thaw` would let train."""
    normalisation = keras.layers.BatchNormalization
    return any(layer._trainable_variables for layer in _inner(layers) if not isinstance(layer, normalisation))


def _inner(layers: Sequence[keras.layers.Layer]) -> Iterator[keras.layers.Layer]:
    """Layers, and those inside of them."""
    for layer in layers:
        yield layer
        yield from _inner(layer._layers)
