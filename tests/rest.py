"""The REST interface of TensorFlow Serving over its own messages: JSON -> PredictRequest, PredictResponse -> JSON.

It follows the rules of the interface's documentation. `instances` hold an object per row, `inputs` a list per input.
Bytes are {"b64": ...}. Texts are UTF-8; only outputs whose names end in "_bytes" are base64. NaN and infinity are no
JSON.
"""

import base64
import json
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf


def request_of(body: str):
    """Returns the PredictRequest of a JSON body."""
    from tensorflow_serving.apis import predict_pb2

    asked = json.loads(body, parse_constant=_refused)
    (form,) = {"instances", "inputs"} & asked.keys()
    columns = asked["inputs"] if form == "inputs" else _columns(asked["instances"])
    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = asked.get("signature_name", "serving_default")
    for name, values in columns.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto([_value(value) for value in values]))
    return request


def answered(request, signatures: Mapping[str, Callable]):
    """Returns the PredictResponse by the signatures of a loaded model."""
    from tensorflow_serving.apis import predict_pb2

    inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
    response = predict_pb2.PredictResponse()
    for name, value in signatures[request.model_spec.signature_name](**inputs).items():
        response.outputs[name].CopyFrom(tf.make_tensor_proto(value.numpy()))
    return response


def body_of(response, by_rows: bool) -> str:
    """Returns the JSON of a PredictResponse of several outputs."""
    columns = {name: _listed(name, tf.make_ndarray(value)) for name, value in response.outputs.items()}
    if not by_rows:
        return json.dumps({"outputs": columns}, allow_nan=False)
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return json.dumps({"predictions": rows}, allow_nan=False)


def _columns(rows: list[dict]) -> dict[str, list]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _value(value):
    return base64.b64decode(value["b64"], validate=True) if isinstance(value, dict) else value


def _listed(name: str, values: np.ndarray) -> list:
    if values.dtype != object:
        return values.tolist()
    code = (lambda one: {"b64": base64.b64encode(one).decode()}) if name.endswith("_bytes") else bytes.decode
    return np.vectorize(code, otypes=[object])(values).tolist() if values.size else values.tolist()


def _refused(constant: str):
    raise ValueError(f"{constant} is no JSON")
