"""The work of computing features: shard by shard, in this process, in several, or on many machines (shard_beam.py).

All of them end in `compute_shards`, so that they write the same shards.
"""

import concurrent.futures
import concurrent.futures.process
import contextlib
import dataclasses
import functools
import itertools
import multiprocessing
import os
import pathlib
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from spidercap.models.images import draw_view, resize_image
from spidercap.pipeline.data.feature_store import write_shard
from spidercap.pipeline.data.image_files import decoded
from spidercap.pipeline.data.records import Images, reading
from spidercap.pipeline.data.streams import ahead
from spidercap.pipeline.errors import UserError

BATCH = 64  # images; more is not faster, and may not fit into the memory of small GPUs

Encode = Callable[[tf.Tensor], tf.Tensor]  # pixels [B, S, S, 3] -> features [B, F]


@dataclasses.dataclass(frozen=True)
class Shard:
    """What one shard is made of; small enough to be sent to another machine."""

    folder: pathlib.Path  # of the store
    images: Images  # of this shard alone
    keys: tuple[str, ...]
    view: int
    image_size: int
    title: str  # of the split and the view, for messages


class Done(NamedTuple):
    """A shard that was written."""

    path: pathlib.Path
    images: int


def compute_shards(encode: Encode, images: Images, shards: Sequence[Shard]) -> Iterator[Done]:
    """Reads, decodes and encodes images, and yields each shard when it is written.

    Args:
      encode: the encoder.
      images: those of all shards, one after the other. They are one stream: the next shard's images are decoded while
        one is written.
      shards: of one view; whole shards hold whole batches, so that their features do not depend on the others.

    Raises:
      UserError: an image cannot be read any more, features are NaN or infinite, or the disk is full.
    """
    keys = [key for shard in shards for key in shard.keys]
    seen = pixels(images.encoded(range(len(keys))), keys, shards[0].image_size, shards[0].view)
    parts: list[np.ndarray] = []
    with contextlib.closing(_read(images, seen)) as batches:
        for shard in shards:
            while sum(map(len, parts)) < len(shard.keys):
                parts.append(encode(next(batches)).numpy())
            features = np.concatenate(parts)
            features, parts = features[: len(shard.keys)], [features[len(shard.keys) :]]
            if not np.isfinite(features).all():
                raise UserError(f"features of {shard.title} are NaN or infinite; check --encoder_weights")
            yield Done(write_shard(shard.folder, shard.keys, features), len(shard.keys))


def compute_shard(encode: Encode, shard: Shard) -> Done:
    """Returns a shard that was computed alone."""
    return next(compute_shards(encode, shard.images, [shard]))


def in_processes(encoder: pathlib.Path, shards: Sequence[Shard], workers: int) -> Iterator[Done]:
    """Yields each shard when it is written, by several processes that share the cores.

    Args:
      encoder: a .keras file.
      shards: the work.
      workers: processes.

    Raises:
      UserError: a process was killed.
    """
    threads = max(1, (os.cpu_count() or 1) // workers)
    # New processes, not copies of this one: TensorFlow's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(shards)), context, _begin, (threads,)) as pool:
        waiting = [pool.submit(_in_process, encoder, shard) for shard in shards]
        try:
            for done in concurrent.futures.as_completed(waiting):
                yield done.result()
        except concurrent.futures.process.BrokenProcessPool as error:
            raise UserError(
                "a process of --workers was killed, mostly for lack of memory; what it had finished is kept; run the "
                "same command again, or lower --workers"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
                process.join()


def pixels(records: Iterable[tf.Tensor], keys: Sequence[str], image_size: int, view: int = 0) -> Iterator[np.ndarray]:
    """Yields batches float32 `[<=BATCH, image_size, image_size, 3]` of encoded images, decoded in threads.

    View 0 is the whole image; other views are drawn by their number and the image's key.
    """
    # Not a map of tf.data: it sets up its graph for each stream anew, which takes seconds where formats are so many.
    seen = ahead(lambda one: _seen(*one, image_size, view), zip(keys, records, strict=True), count=2 * BATCH)
    with contextlib.closing(seen):
        while batch := list(itertools.islice(seen, BATCH)):
            yield np.stack(batch)


def view_seed(key: str) -> int:
    """Returns the seed of an image's views."""
    return int(key[:15], 16)


def _seen(key: str, record: tf.Tensor, image_size: int, view: int) -> np.ndarray:
    """The pixels of one encoded image, float32 `[image_size, image_size, 3]`."""
    with tf.device("CPU"), decoded(record) as read:
        if read.fault != "":  # a file that has changed since it was checked
            raise tf.errors.InvalidArgumentError(None, None, f"one {read.fault.numpy().decode()}")
        return _of_image(read.image, np.array([view, view_seed(key)], np.int64), image_size).numpy()


@tf.function(
    input_signature=[
        tf.TensorSpec([None, None, 3], tf.uint8),
        tf.TensorSpec([2], tf.int64),
        tf.TensorSpec([], tf.int32),
    ],
    autograph=False,
)
def _of_image(image: tf.Tensor, place: tf.Tensor, image_size: tf.Tensor) -> tf.Tensor:
    """Pixels of an image; `place` is the view and its seed."""
    return resize_image(tf.cond(place[0] > 0, lambda: draw_view(image, place), lambda: image), image_size)


def _read(images: Images, batches: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    # Errors of the encoder, such as a full memory, are not those of reading.
    with reading(images), contextlib.closing(batches):
        yield from batches


def _begin(threads: int) -> None:
    """Prepares a process: Ctrl-C is for the one that waits for it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def _in_process(encoder: pathlib.Path, shard: Shard) -> Done:
    return compute_shard(loaded(encoder, shard.image_size), shard)


@functools.cache  # once per process
def loaded(encoder: pathlib.Path, image_size: int) -> Encode:
    """Returns the function of an encoder stored as a .keras file."""
    return encode_by(keras.models.load_model(encoder, compile=False), image_size)


def encode_by(encoder: keras.Model, image_size: int) -> Encode:
    """Returns the compiled function of an encoder; it is traced if it is called."""
    shape = [None, image_size, image_size, 3]
    return tf.function(lambda images: encoder(images, training=False), input_signature=[tf.TensorSpec(shape)])
