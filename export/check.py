"""Captions pictures with a SavedModel and TensorFlow alone: `python check.py MODEL PICTURE_FOLDER ANSWERS.json`."""

import json
import pathlib
import sys

import tensorflow as tf


def main(model: str, pictures: str, answers: str) -> None:
    """Writes {"caption": [...], "log_prob": [...]} for the files of a folder in the order of their names."""
    serve = tf.saved_model.load(model).signatures["serving_default"]
    files = sorted(pathlib.Path(pictures).iterdir())
    said = serve(image_bytes=tf.constant([f.read_bytes() for f in files]))
    captions = [c.decode("utf-8") for c in said["caption"].numpy()]
    pathlib.Path(answers).write_text(
        json.dumps({"caption": captions, "log_prob": said["log_prob"].numpy().tolist()}), encoding="utf-8"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
