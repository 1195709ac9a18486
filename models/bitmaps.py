"""BMP images, decoded by graph operations (BITMAPINFOHEADER, what came before and after it, and OS/2's header).

TensorFlow's decoder takes indices of a palette for grey values, and reads no 1-, 4- and 16-bit images.
"""

from typing import NamedTuple

import tensorflow as tf

from spidercap.models.image_bytes import choose, fault, first_fault, length, little_endian, read

_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # bytes; those of OS/2 are 12 and 64
_BITS = (1, 4, 8, 16, 24, 32)  # per pixel
_RLE = (1, 2)
_MASKED = (3, 6)
# Masks of red, green and blue without a table of them.
_MASKS_16 = (0x7C00, 0x03E0, 0x001F)
_MASKS_32 = (0xFF0000, 0x00FF00, 0x0000FF)


class Layout(NamedTuple):
    """What the header tells; all are int64."""

    header: tf.Tensor  # its bytes
    width: tf.Tensor
    height: tf.Tensor
    upward: tf.Tensor  # bool: the first row is the lowest
    bits: tf.Tensor  # per pixel
    compression: tf.Tensor
    colours: tf.Tensor  # of the palette
    start: tf.Tensor  # position of the pixels
    stride: tf.Tensor  # bytes of a row
    masks: tf.Tensor  # [3] of red, green and blue


def bitmap_layout(image_bytes: tf.Tensor) -> Layout:
    """Returns the layout of a BMP, which may have faults."""
    head = read(image_bytes, 0, 66)
    start, header = little_endian(head[10:14]), little_endian(head[14:18])
    old = header == 12
    width = choose(old, little_endian(head[18:20]), _signed(little_endian(head[18:22])))
    height = choose(old, little_endian(head[20:22]), _signed(little_endian(head[22:26])))
    bits = choose(old, little_endian(head[24:26]), little_endian(head[28:30]))
    compression = choose(old, 0, little_endian(head[30:34]))
    colours = choose(old, 0, little_endian(head[46:50]))
    colours = choose(colours > 0, colours, 2 ** tf.minimum(bits, 8))
    stored = tf.stack([little_endian(head[a : a + 4]) for a in (54, 58, 62)])
    usual = choose(bits == 16, _MASKS_16, _MASKS_32)
    masks = choose(_one_of(compression, _MASKED), stored, usual)
    stride = (width * bits + 31) // 32 * 4
    return Layout(header, width, tf.abs(height), height > 0, bits, compression, colours, start, stride, masks)


def bitmap_fault(image_bytes: tf.Tensor, layout: Layout, cut_off: str) -> tf.Tensor:
    """Returns why a BMP cannot be read, as the end of a sentence; '' if it can; `cut_off` if bytes are missing."""
    there = length(image_bytes)
    compression = layout.compression
    masked = _one_of(compression, _MASKED) & _one_of(layout.bits, (16, 32)) & (layout.header != 64)
    plain = (compression == 0) | (masked & tf.reduce_all(_levels(layout.masks) < 256))
    known = _one_of(layout.header, _HEADERS) & _one_of(layout.bits, _BITS) & plain
    needed = layout.start + layout.stride * (layout.height - 1) + (layout.width * layout.bits + 7) // 8
    return first_fault(
        fault(there < 30, cut_off),
        fault(_one_of(compression, _RLE), "is a run-length encoded BMP, which cannot be read"),
        fault(~known, "is a BMP of a rare kind, which cannot be read"),
        fault(there < needed, cut_off),
    )


def decode_bitmap(image_bytes: tf.Tensor) -> tf.Tensor:
    """Returns uint8 `[height, width, 3]` of a BMP without faults; alpha is left out."""
    layout = bitmap_layout(image_bytes)
    part = tf.strings.substr(image_bytes, layout.start, layout.stride * layout.height)
    size = tf.cast(layout.stride * layout.height, tf.int32)
    rows = tf.reshape(tf.io.decode_raw(part, tf.uint8, fixed_length=size), [layout.height, layout.stride])
    usual = tf.reduce_all(layout.masks == _MASKS_32) & (layout.bits >= 24)
    branch = choose(usual, 0, choose(layout.bits > 8, 1, 2))
    decoders = (_whole_bytes, _masked, _by_palette)
    return tf.switch_case(tf.cast(branch, tf.int32), [lambda d=d: d(image_bytes, layout, rows) for d in decoders])


def _whole_bytes(image_bytes: tf.Tensor, layout: Layout, rows: tf.Tensor) -> tf.Tensor:
    """One byte for each of blue, green and red; TensorFlow reads these faster, but not those of OS/2."""
    size = layout.bits // 8

    def of_rows():
        pixels = tf.reshape(rows[:, : layout.width * size], [layout.height, layout.width, size])
        return _turned(layout, pixels[..., 2::-1])

    return tf.cond(layout.header == 12, of_rows, lambda: tf.io.decode_image(image_bytes, 3, expand_animations=False))


def _masked(image_bytes: tf.Tensor, layout: Layout, rows: tf.Tensor) -> tf.Tensor:
    """A few bits of one number for each colour, scaled to 0..255."""
    del image_bytes
    size = layout.bits // 8
    pixels = tf.reshape(rows[:, : layout.width * size], [layout.height, layout.width, size])
    numbers = tf.cond(
        size == 2,
        lambda: tf.cast(tf.bitcast(tf.ensure_shape(pixels, [None, None, 2]), tf.uint16), tf.int32),
        lambda: tf.bitcast(tf.ensure_shape(pixels, [None, None, 4]), tf.int32),
    )
    levels, lowest = tf.cast(_levels(layout.masks), tf.int32), layout.masks & -layout.masks
    shifts = tf.cast(tf.raw_ops.PopulationCount(x=tf.maximum(lowest, 1) - 1), tf.int32)

    def channel(c):
        values = tf.bitwise.bitwise_and(tf.bitwise.right_shift(numbers, shifts[c]), levels[c])
        return tf.gather(tf.cast(tf.range(256) * 255 // tf.maximum(levels[c], 1), tf.uint8), values)

    return _turned(layout, tf.stack([channel(c) for c in range(3)], -1))


def _by_palette(image_bytes: tf.Tensor, layout: Layout, rows: tf.Tensor) -> tf.Tensor:
    """Indices of 1, 4 or 8 bits, the leftmost pixel in the highest bits; those without a colour are black."""
    old = layout.header == 12
    entries = read(image_bytes, 14 + layout.header, 4 * 256)
    places = tf.range(256, dtype=tf.int64) * choose(old, 3, 4)
    palette = tf.gather(entries, places[:, None] + [2, 1, 0])
    palette = choose(tf.range(256, dtype=tf.int64)[:, None] < layout.colours, palette, 0)
    bits = tf.cast(tf.minimum(layout.bits, 8), tf.uint8)
    shifts = tf.cast(tf.range(8, dtype=tf.int32) * tf.cast(bits, tf.int32), tf.uint8)
    shifts = tf.reverse(shifts[: 8 // tf.cast(bits, tf.int32)], [0])
    lowest = tf.cast(2 ** tf.cast(bits, tf.int32) - 1, tf.uint8)
    indices = tf.bitwise.bitwise_and(tf.bitwise.right_shift(rows[..., None], shifts), lowest)
    indices = tf.reshape(indices, [layout.height, -1])[:, : layout.width]
    return _turned(layout, tf.gather(tf.cast(palette, tf.uint8), tf.cast(indices, tf.int32)))


def _turned(layout: Layout, image: tf.Tensor) -> tf.Tensor:
    """The image with its highest row first."""
    return tf.cond(layout.upward, lambda: tf.reverse(image, [0]), lambda: image)


def _one_of(value: tf.Tensor, values: tuple[int, ...]) -> tf.Tensor:
    return tf.reduce_any(value == list(values))


def _levels(masks: tf.Tensor) -> tf.Tensor:
    """The largest number that fits each mask, moved to the lowest bit."""
    return masks // tf.maximum(masks & -masks, 1)


def _signed(number: tf.Tensor) -> tf.Tensor:
    return choose(number >= 2**31, number - 2**32, number)
