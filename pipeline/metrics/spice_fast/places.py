"""Places for the tuples of captions: the surest ones, in their order.

Shapes: N captions, R tuples of a kind, P places for a caption's tuples.
"""

from collections.abc import Sequence

import tensorflow as tf

from spidercap.pipeline.metrics.spice_fast.levels import LEVELS


def in_places(
    found: Sequence[tuple[tf.Tensor, list[tf.Tensor], tf.Tensor]], most: tf.Tensor, width: int | tf.Tensor
) -> tf.Tensor:
    """Returns tuples and levels `[N, P, 4]` of those found, at most `most` `[N]` of a caption; `width` is P.

    They come kind by kind: captions `[R]`, ascending, up to three terms `[R]`, and levels `[R]`.
    """
    captions = tf.shape(most)[0]
    lowest, room = _lowest_levels([(caption, levels) for caption, _, levels in found], most)
    of_lowest = before = tf.zeros_like(most)
    places, rows = [], []
    for caption, terms, levels in found:
        above = levels - tf.gather(lowest, caption)
        rank, of_lowest = _ranks(above == 0, caption, of_lowest)
        kept = tf.logical_or(above > 0, tf.logical_and(above == 0, rank < tf.gather(room, caption)))
        place, before = _ranks(kept, caption, before)
        # Tuples without a place go to a last row, which is cut off.
        places.append(tf.where(kept, caption * width + place, captions * width))
        none = [tf.zeros_like(caption)] * (3 - len(terms))
        rows.append(tf.stack([*terms, *none, levels], axis=1))
    table = tf.scatter_nd(tf.concat(places, 0)[:, None], tf.concat(rows, 0), [captions * width + 1, 4])
    return tf.reshape(table[:-1], [captions, width, 4])


def _lowest_levels(found: Sequence[tuple[tf.Tensor, tf.Tensor]], most: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The lowest level int32 `[N]` that has places if a caption has `most` `[N]`, at least 1; and how many it has."""
    captions = tf.shape(most)[0]
    caption, levels = (tf.concat(parts, 0) for parts in zip(*found, strict=True))
    counts = tf.math.unsorted_segment_sum(tf.ones_like(levels), caption * LEVELS + levels - 1, captions * LEVELS)
    above = tf.cumsum(tf.reshape(counts, [captions, LEVELS]), axis=1, reverse=True, exclusive=True)
    level = tf.reduce_sum(tf.cast(above >= most[:, None], tf.int32), axis=1)  # as many levels have no place at all
    return 1 + level, most - tf.gather(above, level, batch_dims=1)


def _ranks(flags: tf.Tensor, caption: tf.Tensor, before: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The number int32 `[R]` of flags ahead of each in its caption, after `before` `[N]`; and that of all so far."""
    ones = tf.cast(flags, tf.int32)
    count = tf.math.unsorted_segment_sum(ones, caption, tf.shape(before)[0])
    begin = tf.cumsum(count, exclusive=True) - before
    return tf.cumsum(ones, exclusive=True) - tf.gather(begin, caption), before + count
