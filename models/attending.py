"""What queries see of values, by scaled products (Vaswani et al. 2017, eq. 1).

Shapes: N captions, S queries of each, K keys and values, H units in heads of d; B images, n rows, G rows of one image.
"""

from typing import NamedTuple

import tensorflow as tf

from spidercap.models.packing import Packing, steps_of

ABSENT = -1e9  # added to the score of what cannot be seen


class Values(NamedTuple):
    """What can be seen, in heads."""

    keys: tf.Tensor  # [N, heads, K, d]
    values: tf.Tensor  # [N, heads, K, d]
    added: tf.Tensor  # to the scores, broadcast to [N, heads, S, K]: ABSENT for what cannot be seen


def attend(queries: tf.Tensor, seen: Values, scale: float | None = None) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns `[N, S, H]`, what queries `[N, S, H]` see, and the weights `[N, heads, S, K]` of the values in it.

    The weights of a query sum to 1.

    Args:
      scale: of the products of queries and keys; None: 1 / sqrt(d).
    """
    heads, size = seen.keys.shape[1], seen.keys.shape[3]
    scores = tf.matmul(in_heads(queries, heads), seen.keys, transpose_b=True) * (scale or size**-0.5)
    weights = tf.nn.softmax(scores + seen.added)
    found = tf.transpose(tf.matmul(weights, seen.values), [0, 2, 1, 3])
    return tf.reshape(found, [tf.shape(found)[0], tf.shape(found)[1], heads * found.shape[3]]), weights


def attend_by_image(queries: tf.Tensor, seen: Values, image: tf.Tensor, fixed_shapes: bool = False) -> tf.Tensor:
    """Returns `[n, H]`, what queries `[n, H]` see of the values of their image, a row `[n]` of those of B images.

    Queries of one image share one product with its keys and one with its values, which are not copied.

    Args:
      fixed_shapes: copy them all the same, as XLA needs shapes that do not depend on numbers.
    """
    if fixed_shapes:
        return attend(queries[:, None], Values(*(tf.gather(part, image) for part in seen)))[0][:, 0]
    place = by_image(image, tf.shape(seen.keys)[0])
    return tf.gather_nd(attend(placed(queries, place), seen)[0], place.index)


class Places(NamedTuple):
    """Where rows are in an array `[B, G, ...]`, in which the rows of each image stand together."""

    index: tf.Tensor  # int32 [n, 2]: (image, number among its rows)
    shape: tf.Tensor  # int32 [2]: B, G


def by_image(image: tf.Tensor, images: int | tf.Tensor) -> Places:
    """Returns the places of rows of images `[n]`, in any order; G is the largest number of rows of an image."""
    order = tf.argsort(image, stable=True)
    before = tf.cumsum(tf.math.unsorted_segment_sum(tf.ones_like(image), image, images), exclusive=True)
    count = tf.range(tf.shape(image)[0])
    number = tf.scatter_nd(order[:, None], count, tf.shape(image)) - tf.gather(before, image)
    most = tf.maximum(tf.reduce_max(number), 0) + 1  # of no rows the maximum is the least integer
    return Places(tf.stack([image, number], axis=1), tf.stack([images, most]))


def of_forced(packing: Packing, tokens: tf.Tensor, feature_row: tf.Tensor | None, images: tf.Tensor) -> Places:
    """Returns the places of the packed tokens of captions `[N, T]`, by image; the arguments are Captioner.hidden's."""
    if feature_row is None:
        return Places(packing.index, tf.shape(tokens))
    return by_image(tf.gather(feature_row, packing.index[:, 0]), images)


def placed(rows: tf.Tensor, place: Places) -> tf.Tensor:
    """Returns `[B, G, ...]` of rows `[n, ...]`, with zeros where an image has fewer rows than G."""
    return tf.scatter_nd(place.index, rows, tf.concat([place.shape, tf.shape(rows)[1:]], axis=0))


def only(there: tf.Tensor) -> tf.Tensor:
    """Returns what is added to scores so that only the values that are `there`, bool `[N, K]`, are seen."""
    return tf.where(there, 0.0, ABSENT)[:, None, None]


def in_heads(values: tf.Tensor, heads: int) -> tf.Tensor:
    """Returns `[N, heads, S, d]` of `[N, S, H]`."""
    if heads == 1:
        return values[:, None]
    shape = [-1, steps_of(values), heads, values.shape[2] // heads]
    return tf.transpose(tf.reshape(values, shape), [0, 2, 1, 3])
