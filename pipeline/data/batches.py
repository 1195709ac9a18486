"""The training data as arrays in memory, and resumable streams of batches over them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from spidercap.pipeline.data.feature_store import Features
from spidercap.pipeline.data.streams import CALLS, untuned
from spidercap.pipeline.metrics.size_classes import SizeClass

CAPTION = 2**20 + 2  # separates the seed of reference captions from those of a train step's samples


@dataclasses.dataclass(frozen=True)
class TrainingArrays:
    """I images, N views of each, C captions in all."""

    features: Features | np.ndarray  # float32 [I, N, F] or [I, N, P, F]; what tuned layers read: [I, N, h, w, C]
    tokens: np.ndarray  # int32 [C, T], for likelihood: unknown words as UNKNOWN
    image_index: np.ndarray  # int32 [C], row of `features`, ascending
    # For rewards: unknown words with ids of their own. One array of all images is one class.
    references: Sequence[SizeClass] | np.ndarray  # int32 [I, R, L]


class Batch(NamedTuple):
    """B images, or B captions with their images."""

    features: tf.Tensor  # float32 [B, F] or [B, P, F]; what `Captioner.encoded` makes these of: [B, h, w, C]
    image_index: tf.Tensor  # int32 [B], row of the references
    tokens: tf.Tensor | None  # int32 [B, T], a reference caption; None in batches of images without captions
    first: tf.Tensor | None = None  # int64, place of its first row in the whole batch; None: this is the whole batch


class Parts(NamedTuple):
    """Each batch is cut in `count` parts of almost equal size, of which some are read here, in their order."""

    first: int = 0
    here: int = 1
    count: int = 1

    def bounds(self, part: tf.Tensor | int, batch_size: int) -> tuple:
        """Returns the first row of a part, and the row after its last one."""
        return part * batch_size // self.count, (part + 1) * batch_size // self.count


WHOLE = Parts()


def caption_batches(
    arrays: TrainingArrays,
    batch_size: int,
    first_step: int,
    steps: int,
    seed: tuple[int, int],
    parts: Parts = WHOLE,
) -> tf.data.Dataset:
    """Yields a Batch of captions for each of the steps first_step..steps - 1, captions in random order.

    With `parts` it yields as many for each step as there are parts to be read here.
    """

    def batch(rows: _Rows) -> Batch:
        image = tf.gather(image_index, rows.index)
        return Batch(_seen(features, image, rows, seed), image, tf.gather(tokens, rows.index), rows.first)

    features, tokens, image_index = Features.of(arrays.features), _held(arrays.tokens), _held(arrays.image_index)
    return _batches(batch, len(arrays.tokens), batch_size, first_step, steps, seed, parts)


def image_batches(
    arrays: TrainingArrays,
    batch_size: int,
    first_step: int,
    steps: int,
    seed: tuple[int, int],
    with_captions: bool = False,
    parts: Parts = WHOLE,
) -> tf.data.Dataset:
    """Yields a Batch of images for each of the steps first_step..steps - 1, images in random order.

    With `with_captions` each image has one of its reference captions, drawn by the step's number. With `parts` it
    yields as many for each step as there are parts to be read here.
    """

    def batch(rows: _Rows) -> Batch:
        tokens = caption_of(rows) if caption_of else None
        return Batch(_seen(features, rows.index, rows, seed), tf.cast(rows.index, tf.int32), tokens, rows.first)

    features = Features.of(arrays.features)
    caption_of = _drawn_captions(arrays, seed) if with_captions else None
    return _batches(batch, len(arrays.features), batch_size, first_step, steps, seed, parts)


class _Rows(NamedTuple):
    """Rows `begin..end - 1` of a step's batch."""

    step: tf.Tensor
    begin: tf.Tensor | int
    end: tf.Tensor | int
    size: int  # of the whole batch
    index: tf.Tensor  # int64 [B], of the captions or images
    first: tf.Tensor | None  # of Batch

    def drawn(self, seed: tf.Tensor, least: int | None = None, most: int | None = None) -> tf.Tensor:
        """Returns random int64 `[B]`, those of these rows among those of the whole batch."""
        whole = tf.random.stateless_uniform([self.size], seed, least, most, tf.int64)
        return whole[self.begin : self.end]


def _drawn_captions(arrays: TrainingArrays, seed: tuple[int, int]) -> Callable[[_Rows], tf.Tensor]:
    """Returns rows of images -> one reference caption of each `[B, T]`, drawn uniformly."""
    images = np.arange(len(arrays.features))
    tokens, first = _held(arrays.tokens), _held(np.searchsorted(arrays.image_index, images))
    counts = _held(np.bincount(arrays.image_index, minlength=len(images)))

    def draw(rows: _Rows) -> tf.Tensor:
        of_step = tf.random.experimental.stateless_fold_in(seed, rows.step)
        number = rows.drawn(tf.random.experimental.stateless_fold_in(of_step, CAPTION))
        return tf.gather(tokens, tf.gather(first, rows.index) + number % tf.gather(counts, rows.index))

    return draw


def _held(array: np.ndarray) -> tf.Tensor:
    """The array as a tensor in the host's memory, where tf.data reads it.

    Tensors are captured by reference. Arrays used in a dataset's functions would be copied into the graph.
    """
    with tf.device("CPU:0"):
        return tf.constant(array)


def _seen(features: Features, image: tf.Tensor, rows: _Rows, seed: tuple[int, int]) -> tf.Tensor:
    """Features, as of Batch, of the images `[B]`, of one view each, drawn by the step."""
    of_step = tf.random.experimental.stateless_fold_in(tf.constant(seed, tf.int64), rows.step)
    view = rows.drawn(of_step, 0, features.shape[1])
    # Read by NumPy from the mapped files: as a tensor, the features of all images would be in memory.
    found = tf.numpy_function(features.gather, [image, view], tf.float32, stateful=False)
    return tf.ensure_shape(found, [image.shape[0], *features.shape[2:]])


def _batches(
    batch: Callable[[_Rows], Batch],
    size: int,
    batch_size: int,
    first_step: int,
    steps: int,
    seed: tuple[int, int],
    parts: Parts,
) -> tf.data.Dataset:
    """Yields `batch` of the rows of each step, in a new order each epoch.

    Batches cross the ends of epochs, so that all are full. A batch depends on the number of its step alone, so a
    resumed run sees the same batches.
    """

    def rows(number: tf.Tensor) -> _Rows:
        step = number // parts.here
        begin, end = (
            (0, batch_size) if parts.count == 1 else parts.bounds(parts.first + number % parts.here, batch_size)
        )
        place = tf.range(begin, end, dtype=tf.int64)
        if batch_size % parts.count == 0:
            place = tf.ensure_shape(place, [batch_size // parts.count])  # which compiled steps are faster with
        position = step * batch_size + place
        epoch = position // size
        seeds = tf.stack([tf.fill(tf.shape(place), tf.constant(s, tf.int64)) for s in seed] + [epoch], axis=1)
        # The raw operation takes a seed per index; its wrapper in tf.random does not (2.21).
        last = tf.constant(size - 1, tf.int64)
        index = tf.raw_ops.RandomIndexShuffle(index=position % size, seed=seeds, max_index=last, rounds=4)
        index = tf.ensure_shape(index, place.shape)
        return _Rows(step, begin, end, batch_size, index, None if parts.count == 1 else tf.cast(begin, tf.int64))

    numbers = tf.data.Dataset.range(first_step * parts.here, steps * parts.here)
    made = numbers.map(lambda number: batch(rows(number)), num_parallel_calls=CALLS)  # in order all the same
    return untuned(made.prefetch(4 * parts.here))
