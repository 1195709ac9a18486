"""Random numbers by row: a row's numbers depend on the seed and on its place in the whole batch alone.

So a batch may be spread over devices in any way, and padding may be left out, and every caption is drawn as before.

The generator is Philox, which makes four numbers at a time of a key (the seed) and a counter (their place). Source:
Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011).
"""

import math
from typing import NamedTuple

import tensorflow as tf

PHILOX = 1  # number of the algorithm in TensorFlow's operations
GROUP = 4  # numbers of one counter
LEVELS = 2**16  # of dropout's rate


class RowSeed(NamedTuple):
    """The seed of the rows of a batch that are here."""

    seed: tf.Tensor  # [2]
    first: tf.Tensor  # int64 scalar: place of the first one in the whole batch


Seed = tf.Tensor | RowSeed  # `[2]`: the whole batch is here


def row_seed(seed: Seed) -> RowSeed:
    """Returns the seed of a batch whose rows are all here, or the one that was given."""
    return seed if isinstance(seed, RowSeed) else RowSeed(tf.convert_to_tensor(seed), tf.constant(0, tf.int64))


def fold_in(seed: Seed, number: tf.Tensor | int) -> RowSeed:
    """Returns another seed of the same rows, by a number."""
    rows = row_seed(seed)
    return rows._replace(seed=tf.random.experimental.stateless_fold_in(rows.seed, number))


def split(seed: Seed) -> tuple[RowSeed, RowSeed]:
    """Returns two other seeds of the same rows."""
    rows = row_seed(seed)
    one, two = tf.unstack(tf.random.experimental.stateless_split(rows.seed, 2))
    return rows._replace(seed=one), rows._replace(seed=two)


def repeated(seed: Seed, times: int) -> RowSeed:
    """Returns the seed of rows that each stand here so many times, one after the other."""
    rows = row_seed(seed)
    return rows._replace(first=rows.first * times)


def uniforms(seed: Seed, rows: tf.Tensor | int, *shape: int) -> tf.Tensor:
    """Returns float32 in [0, 1) of so many rows, `[rows, *shape]`."""
    width = math.prod(shape)
    numbers = tf.raw_ops.StatelessRandomUniformV2(**_drawn(seed, rows, width), dtype=tf.float32)
    return tf.reshape(numbers[:, :width], [rows, *shape])


def dropout(
    values: tf.Tensor, rate: float, seed: Seed, index: tf.Tensor | None = None, max_length: int = 1
) -> tf.Tensor:
    """Returns values `[n, F]` with a share `rate` of them set to 0, and the others scaled up to keep the mean.

    Args:
      values: the rows; with `index`, tokens of the rows, each of which has its own numbers.
      rate: from 0 to below 1; it counts in steps of 1 / 65,536.
      seed: of the rows.
      index: `[n, 2]`, (row, step) of each value; by default one per row.
      max_length: steps of a row.
    """
    size, level = values.shape[1], round(rate * LEVELS)
    rows = tf.shape(values)[0] if index is None else tf.reduce_max(index[:, 0]) + 1
    pairs = -(-size // 2)  # of a value's row: two numbers of 16 bits are drawn at once
    width = max_length * pairs
    bits = tf.raw_ops.StatelessRandomUniformFullIntV2(**_drawn(seed, rows, width), dtype=tf.uint32)
    bits = tf.reshape(bits[:, :width], [rows * max_length, pairs])
    if index is not None:
        bits = tf.gather(bits, index[:, 0] * max_length + index[:, 1])
    halves = tf.reshape(tf.bitcast(bits, tf.uint16), [tf.shape(values)[0], 2 * pairs])[:, :size]
    return tf.where(halves >= tf.constant(level, tf.uint16), values * (LEVELS / (LEVELS - level)), 0)


def _drawn(seed: Seed, rows: tf.Tensor | int, width: int) -> dict:
    """What Philox makes `[rows, width]` of, or a little wider: whole groups, from the first row's counter on."""
    here, groups = row_seed(seed), -(-width // GROUP)
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=here.seed)
    skipped = tf.stack([tf.bitcast(here.first * groups, tf.uint64), tf.constant(0, tf.uint64)])
    return {"shape": [rows, GROUP * groups], "key": key, "counter": counter + skipped, "alg": PHILOX}
