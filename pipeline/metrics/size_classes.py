"""References in size classes, so that one long caption, or one image with many, does not pad all others."""

import functools
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from spidercap.models.special_tokens import PAD
from spidercap.pipeline.metrics.ngrams import BITS
from spidercap.pipeline.text.flat_tokens import FlatTokens

FEW = 8  # references of an image; images up to here are in one class


class SizeClass(NamedTuple):
    """Images whose references are about equally many and long; n of them, at most R references of at most L words."""

    images: np.ndarray  # int64 [n], rows of the data set, ascending
    ids: np.ndarray  # int32 [n, R, L], padded


def size_classes(references: FlatTokens) -> list[SizeClass]:
    """Returns the references of images in size classes.

    Ordinary data are one class: at most 8 references per image, of at most 62 words. Every further class has at most
    twice as many references, or twice as long ones, as its smallest image. So the arrays grow with the references of
    their own images, and the number of classes with the logarithm of the largest.
    """
    counts, lengths = references.counts, references.lengths
    image_of = np.repeat(np.arange(len(counts)), counts)
    longest = np.zeros(len(counts), np.int64)
    np.maximum.at(longest, image_of, lengths)
    sizes = np.stack([doublings_of(counts, FEW), doublings_of(longest, BITS)], 1)
    _, first, group = np.unique(sizes, axis=0, return_index=True, return_inverse=True)
    return [_size_class(references, np.flatnonzero(group.ravel() == number)) for number in np.argsort(first)]


def _size_class(references: FlatTokens, images: np.ndarray) -> SizeClass:
    counts = references.counts[images]
    most = max(int(counts.max(initial=0)), 1)
    there = np.arange(most) < counts[:, None]
    chosen = (references.images[images][:, None] + np.arange(most))[there]
    length = max(int(references.lengths[chosen].max(initial=0)), 1)
    ids = np.full([len(images), most, length], PAD, np.int32)
    ids[there] = references.padded(length, chosen)
    return SizeClass(images, ids)


def classes_of(references: Sequence[SizeClass] | np.ndarray) -> Sequence[SizeClass]:
    """Returns references `[I, R, L]` as one class; size classes unchanged."""
    if isinstance(references, np.ndarray):
        return [SizeClass(np.arange(len(references)), references)]
    return references


def by_class(
    classes: Sequence[tuple[np.ndarray, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]]], width: int, dtype: tf.DType
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns a function (rows `[N, ...]`, image_index `[N]`) -> dtype `[N, width]`, to be traced.

    Args:
      classes: the images int `[n]` of each class, all images once, and its function; image_index counts these images.
        A class to which no row belongs is not computed.
      width: results per row.
      dtype: of the results.
    """
    if len(classes) == 1:
        return classes[0][1]
    number_of = np.zeros(sum(len(images) for images, _ in classes), np.int32)
    place_of = np.zeros_like(number_of)
    for number, (images, _) in enumerate(classes):
        number_of[images], place_of[images] = number, np.arange(len(images))
    number_of, place_of = tf.constant(number_of), tf.constant(place_of)

    def compute(rows: tf.Tensor, image_index: tf.Tensor) -> tf.Tensor:
        numbers, images = tf.gather(number_of, image_index), tf.gather(place_of, image_index)
        chosen = [tf.cast(tf.where(numbers == number)[:, 0], tf.int32) for number in range(len(classes))]
        none = tf.zeros([0, width], dtype)

        def of_class(number: int) -> tf.Tensor:
            which, function = chosen[number], classes[number][1]
            return function(tf.gather(rows, which), tf.cast(tf.gather(images, which), image_index.dtype))

        found = [
            tf.cond(tf.size(which) > 0, functools.partial(of_class, number), lambda: none)
            for number, which in enumerate(chosen)
        ]
        return tf.dynamic_stitch(chosen, found)

    return compute


def alike(items: Iterable[int], size: Callable[[int], Hashable]) -> list[list[int]]:
    """Returns the items in groups of equal size, in order within a group."""
    groups: dict[Hashable, list[int]] = {}
    for item in items:
        groups.setdefault(size(item), []).append(item)
    return list(groups.values())


def reference_size(of_image: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Returns the size class of an image's references."""
    return doublings(len(of_image), FEW), doublings(max(map(len, of_image), default=0), BITS)


def doublings(size: int, least: int) -> int:
    """Returns how often `least` must be doubled to reach `size`."""
    return (max(size - 1, 0) // least).bit_length()


def doublings_of(sizes: np.ndarray, least: int) -> np.ndarray:
    """Returns `doublings` of each of several sizes."""
    different, place = np.unique(sizes, return_inverse=True)
    return np.array([doublings(int(size), least) for size in different], np.int64)[place.ravel()]


def reference_array(references: Sequence[Sequence[Sequence[int]]]) -> tuple[np.ndarray, np.ndarray]:
    """Returns ids int32 `[I, R, L]` and the numbers of references `[I]`."""
    counts = np.array([len(of_image) for of_image in references])
    longest = max((len(caption) for of_image in references for caption in of_image), default=0)
    array = np.full([len(references), max(counts.max(), 1), max(longest, 1)], PAD, np.int32)
    for rows, of_image in zip(array, references, strict=True):
        for row, caption in zip(rows, of_image, strict=False):
            row[: len(caption)] = caption
    return array, counts
