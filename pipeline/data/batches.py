"""The training data as arrays in memory, and resumable streams of batches over them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from spidercap.pipeline.data.feature_store import Features
from spidercap.pipeline.metrics.size_classes import SizeClass

CAPTION = 2**20 + 2  # separates the seed of reference captions from those of a train step's samples


@dataclasses.dataclass(frozen=True)
class TrainingArrays:
    """I images, N views of each, C captions in all."""

    features: Features | np.ndarray  # float32 [I, N, F]
    tokens: np.ndarray  # int32 [C, T], for likelihood: unknown words as UNKNOWN
    image_index: np.ndarray  # int32 [C], row of `features`, ascending
    # For rewards: unknown words with ids of their own. One array of all images is one class.
    references: Sequence[SizeClass] | np.ndarray  # int32 [I, R, L]


class Batch(NamedTuple):
    """B images, or B captions with their images."""

    features: tf.Tensor  # float32 [B, F]
    image_index: tf.Tensor  # int32 [B], row of the references
    tokens: tf.Tensor | None  # int32 [B, T], a reference caption; None in batches of images without captions


def caption_batches(
    arrays: TrainingArrays, batch_size: int, first_step: int, steps: int, seed: tuple[int, int]
) -> tf.data.Dataset:
    """Yields a Batch of captions for each of the steps first_step..steps - 1, captions in random order."""

    def batch(step, index):
        image = tf.gather(image_index, index)
        return Batch(_seen(features, image, step, seed), image, tf.gather(tokens, index))

    features, tokens, image_index = Features.of(arrays.features), _held(arrays.tokens), _held(arrays.image_index)
    return _batches(len(arrays.tokens), batch_size, first_step, steps, seed).map(batch).prefetch(4)


def image_batches(
    arrays: TrainingArrays,
    batch_size: int,
    first_step: int,
    steps: int,
    seed: tuple[int, int],
    with_captions: bool = False,
) -> tf.data.Dataset:
    """Yields a Batch of images for each of the steps first_step..steps - 1, images in random order.

    With `with_captions` each image has one of its reference captions, drawn by the step's number.
    """

    def batch(step, index):
        tokens = caption_of(step, index) if caption_of else None
        return Batch(_seen(features, index, step, seed), tf.cast(index, tf.int32), tokens)

    features = Features.of(arrays.features)
    caption_of = _drawn_captions(arrays, seed) if with_captions else None
    return _batches(len(arrays.features), batch_size, first_step, steps, seed).map(batch).prefetch(4)


def _drawn_captions(arrays: TrainingArrays, seed: tuple[int, int]) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns (step, images `[B]`) -> one reference caption per image `[B, T]`, drawn uniformly."""
    images = np.arange(len(arrays.features))
    tokens, first = _held(arrays.tokens), _held(np.searchsorted(arrays.image_index, images))
    counts = _held(np.bincount(arrays.image_index, minlength=len(images)))

    def draw(step, index):
        drawn = tf.random.experimental.stateless_fold_in(tf.random.experimental.stateless_fold_in(seed, step), CAPTION)
        number = tf.random.stateless_uniform(tf.shape(index), drawn, None, None, tf.int64)
        return tf.gather(tokens, tf.gather(first, index) + number % tf.gather(counts, index))

    return draw


def _held(array: np.ndarray) -> tf.Tensor:
    """The array as a tensor in the host's memory, where tf.data reads it.

    Tensors are captured by reference. Arrays used in a dataset's functions would be copied into the graph.
    """
    with tf.device("CPU:0"):
        return tf.constant(array)


def _seen(features: Features, image: tf.Tensor, step: tf.Tensor, seed: tuple[int, int]) -> tf.Tensor:
    """Features `[B, F]` of the images `[B]`, of one view each, drawn by the step."""
    of_step = tf.random.experimental.stateless_fold_in(tf.constant(seed, tf.int64), step)
    view = tf.random.stateless_uniform(tf.shape(image), of_step, 0, features.shape[1], image.dtype)
    # Read by NumPy from the mapped files: as a tensor, the features of all images would be in memory.
    found = tf.numpy_function(features.gather, [image, view], tf.float32, stateful=False)
    return tf.ensure_shape(found, [image.shape[0], features.shape[2]])


def _batches(size: int, batch_size: int, first_step: int, steps: int, seed: tuple[int, int]) -> tf.data.Dataset:
    """Yields (step, int64 `[B]`): a new order each epoch. Batches cross the ends of epochs, so that all are full.

    A batch depends on the number of its step alone, so a resumed run sees the same batches.
    """

    def indices(step):
        position = step * batch_size + tf.range(batch_size, dtype=tf.int64)
        epoch = position // size
        seeds = tf.stack([tf.fill([batch_size], tf.constant(s, tf.int64)) for s in seed] + [epoch], axis=1)
        # The raw operation takes a seed per index; its wrapper in tf.random does not (2.21).
        last = tf.constant(size - 1, tf.int64)
        return step, tf.raw_ops.RandomIndexShuffle(index=position % size, seed=seeds, max_index=last, rounds=4)

    return tf.data.Dataset.range(first_step, steps).map(indices)
