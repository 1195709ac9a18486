"""Where the first frame of a GIF ends, as graph operations (GIF89a specification)."""

from typing import NamedTuple

import tensorflow as tf

from spidercap.models.image_bytes import choose, length, little_endian, read, walk

_BETWEEN, _EXTENSION, _FRAME, _DONE, _BAD = range(5)
_AHEAD = 64  # full sub-blocks, the usual ones, that one step passes
_FULL = 255  # bytes
_TRAILER = 0x3B


class Frame(NamedTuple):
    """All are scalars."""

    whole: tf.Tensor  # bool: neither the frame nor the file is cut off
    width: tf.Tensor  # int64, of the frame or of the screen, whichever is larger
    height: tf.Tensor
    covers: tf.Tensor  # bool: the frame covers the screen
    end: tf.Tensor  # int64: position after the first frame


def first_frame(image_bytes: tf.Tensor) -> Frame:
    """Returns the first frame of a GIF; TensorFlow would unpack all that follow, too."""
    last = length(image_bytes)
    head = read(image_bytes, 6, 5)

    def step(at, state, corner, width, height):
        found = read(image_bytes, at, 10)
        begins, frame = state == _BETWEEN, (state == _BETWEEN) & (found[0] == 0x2C)
        opened = choose(frame, _FRAME, choose(found[0] == 0x21, _EXTENSION, _BAD))
        closed = choose(found[0] > 0, state, choose(state == _FRAME, _DONE, _BETWEEN))
        # A frame's descriptor is followed by its colours and by the size of a code.
        beginning = choose(frame, 11 + _colours(found[9]), 2)
        corner = choose(frame, little_endian(found[1:5]), corner)
        width = choose(frame, little_endian(found[5:7]), width)
        height = choose(frame, little_endian(found[7:9]), height)
        moved = at + choose(begins, beginning, _sub_blocks(image_bytes, at))
        return moved, choose(begins, opened, closed), corner, width, height

    end, state, corner, width, height = walk(
        lambda at, state, *_: (state < _DONE) & (at < last), step, 13 + _colours(head[4]), _BETWEEN, 0, 0, 0
    )
    # What follows the first frame is not walked through. The end of the file is looked at instead.
    tail = tf.concat([[0], read(image_bytes, last - 64, 64)], 0)
    ending = tf.gather(tail, tf.reduce_max(choose(tail > 0, tf.range(65), 0)))
    whole = (state == _DONE) & ((read(image_bytes, end, 1)[0] == _TRAILER) | (ending == _TRAILER))
    screen = little_endian(head[:2]), little_endian(head[2:4])
    covers = (corner == 0) & (width >= screen[0]) & (height >= screen[1])
    return Frame(whole, tf.maximum(width, screen[0]), tf.maximum(height, screen[1]), covers, end)


def _colours(packed: tf.Tensor) -> tf.Tensor:
    """Bytes of a table of colours."""
    return choose(packed >= 0x80, 3 * 2 ** (packed % 8 + 1), 0)


def _sub_blocks(image_bytes: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
    """Bytes of the full sub-blocks from here on, or of one that is not full."""
    sizes = read(image_bytes, at, (_FULL + 1) * _AHEAD, every=_FULL + 1)
    full = tf.reduce_sum(tf.math.cumprod(tf.cast(sizes == _FULL, tf.int64)))
    return choose(full > 0, full * (_FULL + 1), sizes[0] + 1)
