"""The orientation in Exif data, as graph operations (CIPA DC-008)."""

import tensorflow as tf

from spidercap.models.image_bytes import choose, length, little_endian, read, same

_TAG, _SHORT = 0x0112, 3
_ENTRY = 12  # bytes: tag 2, type 2, count 4, value 4


def orientation(image_bytes: tf.Tensor, start: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Returns 1 to 8, int64, of Exif data of `size` bytes that begin at `start`; 1 if `start` is negative.

    1 is returned, too, for data in which something is wrong: the byte order, an offset, the type or the value.
    """
    size = tf.minimum(size, length(image_bytes) - start)
    none = tf.constant(1, tf.int64)
    return tf.cond((start >= 0) & (size > 8), lambda: _in_directory(image_bytes, start, size), lambda: none)


def _in_directory(image_bytes: tf.Tensor, start: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    head = read(image_bytes, start, 8)
    lowest_first, highest_first = same(head, b"II*\0"), same(head, b"MM\0*")

    def number(values):
        return little_endian(choose(lowest_first, values, values[..., ::-1]))

    directory = number(head[4:])
    allowed = choose((lowest_first | highest_first) & (directory >= 8), (size - directory - 2) // _ENTRY, 0)
    count = tf.clip_by_value(number(read(image_bytes, start + directory, 2)), 0, tf.maximum(allowed, 0))
    # At least one entry is read, as a count of 0 bytes would mean any number of them.
    entries = tf.reshape(read(image_bytes, start + directory + 2, _ENTRY * tf.maximum(count, 1)), [-1, _ENTRY])
    tag, kind, values, value = (number(entries[:, a:b]) for a, b in ((0, 2), (2, 4), (4, 8), (8, 10)))
    fits = (tag == _TAG) & (kind == _SHORT) & (values == 1) & (value >= 1) & (value <= 8) & (count > 0)
    return tf.concat([tf.boolean_mask(value, fits), [1]], 0)[0]


def upright(image: tf.Tensor, turned: tf.Tensor) -> tf.Tensor:
    """Returns an image `[height, width, 3]`, stored with an orientation of 1 to 8, as it is to be seen."""

    def turn():
        swapped = tf.cond(turned >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
        axes = [tf.reduce_any(turned == [3, 4, 7, 8]), tf.reduce_any(turned == [2, 3, 6, 7]), tf.constant(False)]
        return tf.raw_ops.Reverse(tensor=swapped, dims=tf.stack(axes))

    return tf.cond(turned == 1, lambda: image, turn)
