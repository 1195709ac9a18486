"""From encoded images to pixels, as graph operations, so that training and exported models see the same."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from spidercap.models.bitmaps import decode_bitmap
from spidercap.models.exif import upright
from spidercap.models.image_bytes import fault, first_fault
from spidercap.models.image_headers import ANY_SIZE, BMP, CUT_OFF, GIF, PNG, WEBP, Header, read_header

LEAST_SEEN = 0.75  # of an image's height and of its width, in a random crop


def image_fault(image_bytes: tf.Tensor, max_pixels: int | tf.Tensor = ANY_SIZE) -> tf.Tensor:
    """Returns why an encoded image cannot be read, as the end of a sentence about it, or '' (scalar string).

    This reads the header alone: the format and the size. Damage to the pixels is found by `read_image`.

    Args:
      image_bytes: scalar string.
      max_pixels: the limit of width x height.
    """
    return read_header(image_bytes, max_pixels).fault


class ReadImage(NamedTuple):
    """An image that was decoded, or why it was not."""

    fault: tf.Tensor  # scalar string, as of `image_fault`
    pixels: tf.Tensor  # scalar int64, width x height as its header tells
    image: tf.Tensor  # uint8 [height, width, 3]; [0, 0, 3] if it was not decoded


def read_image(
    image_bytes: tf.Tensor, max_pixels: int | tf.Tensor = ANY_SIZE, most: int | tf.Tensor = ANY_SIZE
) -> ReadImage:
    """Decodes one JPEG, PNG, BMP, WebP or GIF (first frame), and turns it as its Exif tells.

    What is transparent in PNG and WebP shows white. Of 16-bit samples the upper 8 bits remain.

    Args:
      image_bytes: scalar string.
      max_pixels: more pixels, width x height, are a fault.
      most: images of more pixels have no fault, but are not decoded.

    Raises:
      tf.errors.InvalidArgumentError: the pixels are damaged.
    """
    return _read(image_bytes, tf.cast(max_pixels, tf.int64), tf.cast(most, tf.int64))


def decode_image(image_bytes: tf.Tensor, max_pixels: int | tf.Tensor = ANY_SIZE) -> tf.Tensor:
    """Returns the image of `read_image`, uint8 `[height, width, 3]`.

    Raises:
      tf.errors.InvalidArgumentError: what `image_fault` returns, or damage to the pixels.
    """
    read = read_image(image_bytes, max_pixels)
    with tf.control_dependencies([tf.debugging.Assert(read.fault == "", [read.fault])]):
        return tf.identity(read.image)


def decode_or_fault(image_bytes: tf.Tensor, max_pixels: int | tf.Tensor = ANY_SIZE) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns what `decode_image` returns, and '' (scalar string); or one black pixel, and why it cannot be read.

    It raises nothing, whatever the bytes are, so that one image cannot hurt those that are decoded with it.
    """
    return _decode_or_fault(image_bytes, tf.cast(max_pixels, tf.int64))


_SIGNATURE = [tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int64)]


# One function for all callers, as it takes seconds to trace and to set up.
@tf.function(input_signature=[*_SIGNATURE, tf.TensorSpec([], tf.int64)], autograph=False)
def _read(image_bytes: tf.Tensor, max_pixels: tf.Tensor, most: tf.Tensor) -> ReadImage:
    header = read_header(image_bytes, max_pixels)
    with tf.device("CPU"):

        def decoded() -> tf.Tensor:
            return upright(_pixels(image_bytes, header, lambda decode, data: decode(data)), header.orientation)

        is_decoded = (header.fault == "") & (header.pixels <= most)
        image = tf.cond(is_decoded, decoded, lambda: tf.zeros([0, 0, 3], tf.uint8))
        return ReadImage(header.fault, header.pixels, tf.ensure_shape(image, [None, None, 3]))


@tf.function(input_signature=_SIGNATURE, autograph=False)
def _decode_or_fault(image_bytes: tf.Tensor, max_pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    header = read_header(image_bytes, max_pixels)
    with tf.device("CPU"):
        nothing = tf.zeros([0, 0, 3], tf.uint8)
        image = tf.cond(header.fault == "", lambda: _pixels(image_bytes, header, _or_nothing), lambda: nothing)
        failed = tf.size(image) == 0
        image = tf.cond(failed, lambda: tf.zeros([1, 1, 3], tf.uint8), lambda: upright(image, header.orientation))
        return tf.ensure_shape(image, [None, None, 3]), first_fault(header.fault, fault(failed, CUT_OFF))


def _pixels(image_bytes: tf.Tensor, header: Header, call: Callable) -> tf.Tensor:
    """Uint8 `[height, width, 3]` as it is stored; `call(decode, data)` calls what fails if the pixels are damaged."""

    def by_tensorflow(data: tf.Tensor, channels: int = 3) -> tf.Tensor:
        return call(functools.partial(_by_tensorflow, channels=channels), data)

    decoders: list[Callable] = [by_tensorflow] * 5
    decoders[BMP] = functools.partial(call, decode_bitmap)
    # As they are stored: WebP cannot be decoded to 4 channels, and PNG of less than 8 bits comes out wrong.
    decoders[PNG] = decoders[WEBP] = lambda data: _on_white(by_tensorflow(data, channels=0))
    decoders[GIF] = lambda data: by_tensorflow(_first_frame(data, header.end))
    image = tf.switch_case(header.kind, [lambda d=d: d(image_bytes) for d in decoders])
    return tf.ensure_shape(image, [None, None, 3])


def _or_nothing(decode: Callable, data: tf.Tensor) -> tf.Tensor:
    """decode(data), or an image `[0, 0, 3]` if that fails. Data sets are what can go on after an error in a graph."""
    decoded = tf.data.Dataset.from_tensors(data).map(decode).ignore_errors()
    nothing = tf.data.Dataset.from_tensors(tf.zeros([0, 0, 3], tf.uint8))
    return decoded.concatenate(nothing).take(1).get_single_element()


def _first_frame(image_bytes: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    """A GIF that ends, with a trailer, after its first frame, so that no other is unpacked."""
    return tf.strings.substr(image_bytes, tf.constant(0, tf.int64), end) + ";"


def _on_white(image: tf.Tensor) -> tf.Tensor:
    """Uint8 `[height, width, 3]` of an image as it is stored, over white: grey or colour, with alpha or without.

    Pixels that cannot be seen hold anything, mostly black, on which a drawing in black would vanish.
    """
    channels = tf.shape(image)[2]
    has_alpha = channels % 2 == 0
    colour = image[..., : channels - tf.cast(has_alpha, tf.int32)]
    colour = tf.cond(channels < 3, lambda: tf.repeat(colour, 3, axis=2), lambda: colour)

    def blended() -> tf.Tensor:
        # At most 255 * 255, which uint16 would hold, but TensorFlow 2.4 cannot add numbers of that type.
        alpha = tf.cast(image[..., channels - 1 :], tf.int32)
        total = tf.cast(colour, tf.int32) * alpha + 255 * (255 - alpha)
        return tf.cast((total + 127) // 255, tf.uint8)

    return tf.cond(has_alpha, blended, lambda: colour)


def _by_tensorflow(image_bytes: tf.Tensor, channels: int = 3) -> tf.Tensor:
    image = tf.io.decode_image(image_bytes, channels=channels, expand_animations=False)
    return tf.ensure_shape(image, [None, None, channels or None])


def resize_image(image: tf.Tensor, image_size: int | tf.Tensor) -> tf.Tensor:
    """Returns `[height, width, 3]` as float32 `[image_size, image_size, 3]` in 0..255, squeezed, not cropped.

    Antialiasing matters: without it, a large photograph and its small copy have different features.
    """
    image = tf.image.resize(image, [image_size, image_size], antialias=True)
    known = image_size if isinstance(image_size, int) else None
    return tf.ensure_shape(image, [known, known, 3])


def draw_view(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Returns a random crop of uint8 `[height, width, 3]`, flipped left to right or not; `seed` is `[2]`.

    At least LEAST_SEEN of each side remains, so that most of what captions mention is still visible.
    """
    whole = tf.shape(image)[:2]
    seeds = tf.random.experimental.stateless_split(seed, 3)
    kept = tf.random.stateless_uniform([2], seeds[0], LEAST_SEEN, 1.0)
    size = tf.maximum(1, tf.cast(tf.round(kept * tf.cast(whole, tf.float32)), tf.int32))
    spare = tf.cast(whole - size + 1, tf.float32)
    corner = tf.cast(tf.random.stateless_uniform([2], seeds[1]) * spare, tf.int32)
    part = tf.slice(image, tf.pad(corner, [[0, 1]]), tf.pad(size, [[0, 1]], constant_values=3))
    return tf.image.stateless_random_flip_left_right(part, seeds[2])
