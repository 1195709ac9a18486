"""Numbers and text in a string of bytes, as graph operations."""

from collections.abc import Callable

import tensorflow as tf

MOST_STEPS = 20_000  # of a walk through a file; more are hostile, and would take seconds


def length(image_bytes: tf.Tensor) -> tf.Tensor:
    """Returns the number of bytes as int64."""
    return tf.cast(tf.strings.length(image_bytes), tf.int64)


def read(image_bytes: tf.Tensor, start: tf.Tensor | int, count: tf.Tensor | int, every: int = 1) -> tf.Tensor:
    """Returns one byte of `every`, of `count` bytes from `start` on, as int64; zeros beyond the end."""
    start, count = tf.clip_by_value(tf.cast(start, tf.int64), 0, length(image_bytes)), tf.cast(count, tf.int64)
    part = tf.strings.substr(image_bytes, start, count)
    raw = tf.io.decode_raw(part, tf.uint8, fixed_length=tf.cast(count, tf.int32))
    return tf.cast(raw[::every], tf.int64)


def little_endian(values: tf.Tensor) -> tf.Tensor:
    """Returns the number in the bytes `[..., n]`, the lowest first."""
    return tf.reduce_sum(values * 256 ** tf.range(values.shape[-1], dtype=tf.int64), -1)


def big_endian(values: tf.Tensor) -> tf.Tensor:
    """Returns the number in the bytes `[..., n]`, the highest first."""
    return little_endian(values[..., ::-1])


def same(values: tf.Tensor, expected: bytes) -> tf.Tensor:
    """Returns whether the first bytes are the expected ones."""
    return tf.reduce_all(values[: len(expected)] == list(expected))


def choose(condition: tf.Tensor, yes: tf.Tensor | int, no: tf.Tensor | int) -> tf.Tensor:
    """Returns `yes` where the condition holds, else `no`, as int64."""
    return tf.where(condition, tf.cast(yes, tf.int64), tf.cast(no, tf.int64))


def fault(wrong: tf.Tensor, text: str | tf.Tensor) -> tf.Tensor:
    """Returns the text where something is wrong, else ''."""
    return tf.where(wrong, text, "")


def first_fault(*faults: tf.Tensor) -> tf.Tensor:
    """Returns the first of the texts that is not empty; '' if all are."""
    found = tf.constant("")
    for one in faults:
        found = tf.where(found == "", one, found)
    return found


def walk(more: Callable, step: Callable, start: tf.Tensor | int, *state: int) -> list[tf.Tensor]:
    """Returns [position, *state] after steps through a file, as int64.

    `more(position, *state)` tells whether to go on, `step(position, *state)` returns the next ones. A position that
    does not advance, and more than MOST_STEPS steps, end the walk.
    """

    def goes_on(steps, before, at, *values):
        return (steps < MOST_STEPS) & (at > before) & more(at, *values)

    def advance(steps, _, at, *values):
        return [steps + 1, at, *(tf.cast(value, tf.int64) for value in step(at, *values))]

    start = tf.cast(start, tf.int64)
    values = [tf.constant(0, tf.int64), start - 1, start, *(tf.constant(value, tf.int64) for value in state)]
    return tf.while_loop(goes_on, advance, values, parallel_iterations=1)[2:]
