"""An exported model behind Triton's dynamic batching, by PyTriton: `python triton_server.py MODEL PORT`.

It is started by `tests.http_check` in an environment of its own. An answer is the caption and the error of one image,
the size of its batch, and how many images of the batch were bad.
"""

import base64
import os
import sys

import numpy as np
import tensorflow as tf
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

BATCH, WAIT = 8, 50_000  # images, microseconds


def serve(model: str, port: int) -> None:
    """Serves the model until the process is ended."""
    signature = tf.saved_model.load(model).signatures["serving_default"]

    @batch
    def answers(b64: np.ndarray) -> dict[str, np.ndarray]:
        found = signature(image_bytes=tf.constant([base64.b64decode(one) for one in b64[:, 0]]))
        bad = sum(map(bool, found["error"].numpy()))
        texts = {name: found[name].numpy()[:, None] for name in ("caption", "error")}
        return texts | {name: np.full([len(b64), 1], n, np.int32) for name, n in (("batch", len(b64)), ("bad", bad))}

    text, number = [{"dtype": bytes, "shape": (1,)}, {"dtype": np.int32, "shape": (1,)}]
    outputs = [Tensor(name=name, **text) for name in ("caption", "error")]
    outputs += [Tensor(name=name, **number) for name in ("batch", "bad")]
    config = ModelConfig(max_batch_size=BATCH, batcher=DynamicBatcher(max_queue_delay_microseconds=WAIT))
    ways = TritonConfig(http_address="127.0.0.1", http_port=port, allow_grpc=False, allow_metrics=False)
    with Triton(config=ways) as triton:
        triton.bind("captions", answers, inputs=[Tensor(name="b64", **text)], outputs=outputs, config=config)
        triton.serve()


if __name__ == "__main__":
    # Triton's own Python is found on PATH.
    os.environ["PATH"] = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    serve(sys.argv[1], int(sys.argv[2]))
