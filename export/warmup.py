"""Requests that a model server replays when it loads a model, so that no user waits for the first compilation.

The file holds TFRecords of tensorflow.serving.PredictionLog. Its messages are written here by their field numbers
(tensorflow_serving/apis/prediction_log.proto, predict.proto, model.proto), because their package is not needed for
anything else.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

FILE = "tf_serving_warmup_requests"
BATCHES = (1, 8)
_PREDICT_LOG, _REQUEST, _MODEL, _INPUTS, _NAME, _SIGNATURE, _KEY, _VALUE = 6, 1, 1, 2, 1, 3, 1, 2


def write_warmup(path: pathlib.Path, name: str, signature: str, examples: Sequence[bytes] | np.ndarray) -> None:
    """Writes one request for each of BATCHES.

    Args:
      path: of the new file.
      name: of the signature's input.
      signature: the one that is asked.
      examples: one or more encoded images, or features `[n, F]`; they are repeated.
    """
    with tf.io.TFRecordWriter(str(path)) as writer:
        for batch in BATCHES:
            rows = [examples[i % len(examples)] for i in range(batch)]
            writer.write(_field(_PREDICT_LOG, _field(_REQUEST, _request(name, signature, rows))))


def _request(name: str, signature: str, rows: list) -> bytes:
    """A PredictRequest. Servers take the model that they are loading, whatever its name here."""
    tensor = tf.make_tensor_proto(np.stack(rows) if isinstance(rows[0], np.ndarray) else rows).SerializeToString()
    model = _field(_NAME, b"captioner") + _field(_SIGNATURE, signature.encode())
    return _field(_MODEL, model) + _field(_INPUTS, _field(_KEY, name.encode()) + _field(_VALUE, tensor))


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes, a text or a message in protobuf's encoding."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    low = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([part | 0x80 for part in low[:-1]] + low[-1:])
