"""Captions images with a SavedModel and TensorFlow alone: `python check.py MODEL INPUTS ANSWERS.json`.

INPUTS is a folder of images, or an .npy file of features [N, F].
"""

import json
import pathlib
import sys

import numpy as np
import tensorflow as tf


def main(model: str, inputs: str, answers: str) -> None:
    """Writes {"caption": [...], "log_prob": [...], ...} of the files of a folder, sorted by name, or of features."""
    loaded = tf.saved_model.load(model)  # its signatures stop working without it
    path = pathlib.Path(inputs)
    if path.is_dir():
        given = {"image_bytes": tf.constant([f.read_bytes() for f in sorted(path.iterdir())])}
    else:
        given = {"features": tf.constant(np.load(path))}
    outputs = loaded.signatures["serving_default"](**given)
    if "seeded" in loaded.signatures:  # the others are drawn anew
        (rows,) = given.values()
        outputs = loaded.signatures["seeded"](**given, seed=tf.range(len(rows), dtype=tf.int64))
    plain = {name: _text(value.numpy().tolist()) for name, value in outputs.items()}
    pathlib.Path(answers).write_text(json.dumps(plain), encoding="utf-8")


def _text(value):
    """The value with bytes decoded as UTF-8, for JSON."""
    if isinstance(value, list):
        return [_text(v) for v in value]
    return value.decode("utf-8") if isinstance(value, bytes) else value


if __name__ == "__main__":
    main(*sys.argv[1:])
