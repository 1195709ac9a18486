"""What the first bytes of an encoded image tell, as graph operations: format, size, orientation, faults.

Nothing is decoded here, so that an image of enormous size, or of an unknown format, costs nothing. Sources: ITU-T T.81
(JPEG), W3C PNG 3, the GIF89a specification, RFC 9649 (WebP), CIPA DC-008 (Exif).
"""

from typing import NamedTuple

import tensorflow as tf

from spidercap.models.bitmaps import bitmap_fault, bitmap_layout
from spidercap.models.exif import orientation
from spidercap.models.gif_frames import first_frame
from spidercap.models.image_bytes import big_endian, choose, fault, first_fault, length, little_endian, read, same, walk

JPEG, PNG, GIF, BMP, WEBP, OTHER = range(6)
FORMATS = "JPEG, PNG, GIF, BMP and WebP"
LARGE = 2**24  # pixels; of larger images, few should be in memory at the same time
ANY_SIZE = 2**62  # pixels: no limit
CUT_OFF = "is cut off or damaged"
# Bytes -> where they stand, and what has them there.
_OTHERS = (
    (b"II*\0", 0, "a TIFF"),
    (b"MM\0*", 0, "a TIFF"),
    (b"ftypavi", 4, "an AVIF"),
    (b"ftyphei", 4, "a HEIC"),
    (b"ftyphev", 4, "a HEIC"),
    (b"ftypmif1", 4, "a HEIC or AVIF"),
    (b"ftypmsf1", 4, "a HEIC or AVIF"),
    (b"\0\0\1\0", 0, "an ICO"),
    *((b"P%d\n" % i, 0, "a PNM") for i in range(1, 8)),
)
# What to do at a JPEG marker: go to the next byte, pass a marker alone, pass a segment, read the size, stop.
_NEXT, _ALONE, _SEGMENT, _SIZE, _STOP = range(5)
_MARKERS = {0xFF: _NEXT, 0xD9: _STOP, 0xDA: _STOP}
_MARKERS |= dict.fromkeys((0x00, 0x01, *range(0xD0, 0xD9)), _ALONE)
_MARKERS |= dict.fromkeys((m for m in range(0xC0, 0xD0) if m not in (0xC4, 0xC8, 0xCC)), _SIZE)
_AT_MARKER = [_MARKERS.get(m, _SEGMENT) for m in range(256)]


class Header(NamedTuple):
    """Of one encoded image; all are scalars."""

    fault: tf.Tensor  # string: why it cannot be read, as the end of a sentence about it; '' if nothing is wrong
    kind: tf.Tensor  # int32, JPEG to OTHER
    pixels: tf.Tensor  # int64, width x height
    orientation: tf.Tensor  # int64, 1 to 8 as in Exif
    end: tf.Tensor  # int64: bytes from here on are not needed


def read_header(image_bytes: tf.Tensor, max_pixels: int | tf.Tensor = ANY_SIZE) -> Header:
    """Returns the header of one encoded image; more than `max_pixels` are a fault.

    Exif that is damaged means orientation 1. Damage to the pixels is found by decoding alone.
    """
    return _header(image_bytes, tf.cast(max_pixels, tf.int64))


# A function of its own, because tracing so many operations takes a second; they are traced once for all callers.
@tf.function(input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int64)], autograph=False)
def _header(image_bytes: tf.Tensor, max_pixels: tf.Tensor) -> Header:
    with tf.device("CPU"):  # of an exported model, too; a GPU would take long for many small operations
        kind = _kind(image_bytes)
        readers = (_jpeg, _png, _gif, _bmp, _webp, _other)
        wrong, width, height, turned, end = tf.switch_case(kind, [lambda f=f: _typed(f(image_bytes)) for f in readers])
        # Within int64, whatever a header claims.
        pixels = tf.clip_by_value(width, 0, 2**31) * tf.clip_by_value(height, 0, 2**31)
        too_many = tf.strings.format("has {} x {} pixels, more than the {} allowed", (width, height, max_pixels))
        wrong = first_fault(wrong, fault(pixels < 1, CUT_OFF), fault(pixels > max_pixels, too_many))
        return Header(wrong, kind, pixels, turned, end)


def _typed(values: tuple) -> list[tf.Tensor]:
    wrong, *numbers = values
    return [tf.convert_to_tensor(wrong, tf.string), *(tf.cast(n, tf.int64) for n in numbers)]


def _kind(image_bytes: tf.Tensor) -> tf.Tensor:
    """Returns JPEG to OTHER, int32, by the first bytes of an image."""
    head = read(image_bytes, 0, 12)
    known = [
        same(head, b"\xff\xd8\xff"),
        same(head, b"\x89PNG\r\n\x1a\n"),
        same(head, b"GIF87a") | same(head, b"GIF89a"),
        same(head, b"BM"),
        same(head, b"RIFF") & same(head[8:], b"WEBP"),
        tf.constant(True),
    ]
    return tf.argmax(tf.stack(known), output_type=tf.int32)


def _jpeg(image_bytes: tf.Tensor) -> tuple:
    """The walk ends at the size, before which Exif stands."""
    last = length(image_bytes)

    def step(at, width, height, start, size, samples, adobe, _):
        found = read(image_bytes, at, 10)
        segment = found[2] * 256 + found[3]
        does = choose(found[0] == 0xFF, tf.gather(tf.constant(_AT_MARKER, tf.int64), found[1]), _NEXT)
        sized, exif = does == _SIZE, (start < 0) & same(found, b"\xff\xe1") & same(found[4:], b"Exif\0\0")
        moved = at + tf.gather(tf.stack([1, 2, 2 + segment, 1, 1]), does)
        start, size = choose(exif, at + 10, start), choose(exif, segment - 8, size)
        width = choose(sized, found[7] * 256 + found[8], width)
        height = choose(sized, found[5] * 256 + found[6], height)
        samples = choose(sized, found[4] * 256 + found[9], samples)  # bits of a sample, components of a pixel
        adobe += tf.cast(same(found, b"\xff\xee") & same(found[4:], b"Adobe"), tf.int64)
        return moved, width, height, start, size, samples, adobe, does >= _SIZE

    state = 2, 0, 0, -1, 0, 8 * 256 + 3, 0, 0
    found = walk(lambda at, *state: (state[-1] == 0) & (at < last), step, *state)
    _, width, height, start, size, samples, adobe, _ = found
    deep = fault(samples // 256 != 8, "is a JPEG of other than 8 bits per sample, which cannot be read")
    # With the marker, which nearly all have, the inks are stored inverted. TensorFlow takes it for granted.
    inks = fault((samples % 256 == 4) & (adobe == 0), "is a CMYK JPEG without an Adobe marker, which cannot be read")
    return first_fault(deep, inks), width, height, orientation(image_bytes, start, size), last


def _png(image_bytes: tf.Tensor) -> tuple:
    last = length(image_bytes)

    def step(at, start, size):
        found = read(image_bytes, at, 8)
        chunk, exif = big_endian(found[:4]), same(found[4:], b"eXIf")
        moved = choose(same(found[4:], b"IEND"), last, at + 12 + chunk)
        return moved, choose(exif, at + 8, start), choose(exif, chunk, size)

    _, start, size = walk(lambda at, *_: at < last, step, 8, -1, 0)
    head = read(image_bytes, 12, 12)
    sized = tf.cast(same(head, b"IHDR"), tf.int64)
    return "", big_endian(head[4:8]) * sized, big_endian(head[8:]), orientation(image_bytes, start, size), last


def _webp(image_bytes: tf.Tensor) -> tuple:
    last = length(image_bytes)
    head = read(image_bytes, 12, 20)  # name of the first chunk, its size, its first 12 bytes
    extended, lossless = same(head, b"VP8X"), same(head, b"VP8L")
    packed = little_endian(head[9:13])  # of VP8L: 14 bits of width - 1, 14 of height - 1
    width = choose(extended, little_endian(head[12:15]) + 1, little_endian(head[14:16]) % 2**14)
    height = choose(extended, little_endian(head[15:18]) + 1, little_endian(head[16:18]) % 2**14)
    width = choose(lossless, packed % 2**14 + 1, width)
    height = choose(lossless, packed // 2**14 % 2**14 + 1, height)

    def step(at, start, size):
        found = read(image_bytes, at, 14)
        chunk, exif = little_endian(found[4:8]), same(found, b"EXIF")
        prefix = 6 * tf.cast(same(found[8:], b"Exif\0\0"), tf.int64)
        moved = at + 8 + chunk + chunk % 2
        return moved, choose(exif, at + 8 + prefix, start), choose(exif, chunk - prefix, size)

    _, start, size = walk(lambda at, *_: extended & (at < last), step, 12, -1, 0)
    animated = fault(extended & (head[8] // 2 % 2 == 1), "is an animated WebP, which cannot be read")
    return animated, width, height, orientation(image_bytes, start, size), last


def _gif(image_bytes: tf.Tensor) -> tuple:
    frame = first_frame(image_bytes)
    part = fault(~frame.covers, "is a GIF whose first frame covers a part of it, which cannot be read")
    return first_fault(fault(~frame.whole, CUT_OFF), part), frame.width, frame.height, 1, frame.end


def _bmp(image_bytes: tf.Tensor) -> tuple:
    layout = bitmap_layout(image_bytes)
    return bitmap_fault(image_bytes, layout, CUT_OFF), layout.width, layout.height, 1, length(image_bytes)


def _other(image_bytes: tf.Tensor) -> tuple:
    head = read(image_bytes, 0, 12)
    named = [fault(same(head[at:], text), f"is {name}, which cannot be read") for text, at, name in _OTHERS]
    wrong = first_fault(fault(length(image_bytes) == 0, "is empty"), *named, tf.constant("is no image"))
    return wrong, 1, 1, 1, 0
