"""An exported model behind LitServe, with dynamic batching: `python lit_server.py MODEL PORT`.

It is started by `tests.http_check` in an environment of its own. An answer is the caption and the error of one image,
the size of its batch, and how many images of the batch were bad.
"""

import base64
import sys

import litserve
import tensorflow as tf

BATCH, WAIT = 8, 0.05  # images, seconds


class Captions(litserve.LitAPI):
    """Requests {"b64": ...}; requests that arrive together are one call of the model."""

    def __init__(self, model: str):
        """`model` is the folder of one exported version."""
        super().__init__(max_batch_size=BATCH, batch_timeout=WAIT)
        self._model = model

    def setup(self, device: str) -> None:
        """Loads the model, in the process that serves it."""
        self._serve = tf.saved_model.load(self._model).signatures["serving_default"]

    def decode_request(self, request: dict) -> bytes:
        """Returns the encoded image."""
        return base64.b64decode(request["b64"])

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """Returns the images as they are; they have different sizes."""
        return inputs

    def predict(self, images: list[bytes]) -> list[dict]:
        """Returns an answer for each image."""
        found = self._serve(image_bytes=tf.constant(images))
        captions, errors = ([text.decode() for text in found[name].numpy()] for name in ("caption", "error"))
        batch = {"batch": len(images), "bad": sum(map(bool, errors))}
        return [{"caption": a, "error": b, **batch} for a, b in zip(captions, errors, strict=True)]

    def unbatch(self, output: list[dict]) -> list[dict]:
        """Returns the answers one by one."""
        return output


if __name__ == "__main__":
    server = litserve.LitServer(Captions(sys.argv[1]), accelerator="cpu", timeout=60)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), num_api_servers=1, generate_client_file=False)
