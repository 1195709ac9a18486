"""From image bytes to pixels to the pooled features of any keras.applications network."""

import types

import keras
import tensorflow as tf

LEAST_SEEN = 0.75  # of an image's height and of its width, in a random crop


def encoder_names() -> list[str]:
    """Returns the names that `build_encoder` takes: every network of keras.applications."""
    return sorted(_constructors())


def default_image_size(name: str) -> int:
    """Returns the side in pixels that the network was trained on (299 for the Inception family, else 224)."""
    return 299 if name in ("InceptionV3", "InceptionResNetV2", "Xception") else 224


def decode_image(image_bytes: tf.Tensor) -> tf.Tensor:
    """Returns one JPEG, PNG, BMP or GIF (first frame) as uint8 `[height, width, 3]`.

    Raises:
      tf.errors.InvalidArgumentError: the bytes are of no such image, or truncated.
    """
    return tf.io.decode_image(image_bytes, channels=3, expand_animations=False)


def resize_image(image: tf.Tensor, image_size: int) -> tf.Tensor:
    """Returns `[height, width, 3]` as float32 `[image_size, image_size, 3]` in 0..255, squeezed, not cropped.

    Antialiasing matters: without it, a large photograph and its small copy have different features.
    """
    image = tf.image.resize(image, [image_size, image_size], antialias=True)
    return tf.ensure_shape(image, [image_size, image_size, 3])


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


def build_encoder(name: str, weights: str, image_size: int, seed: int = 0) -> keras.Model:
    """Returns a frozen network: float32 `[B, image_size, image_size, 3]` in 0..255 -> `[B, F]`, average-pooled.

    Args:
      name: one of `encoder_names()`.
      weights: "imagenet" (downloaded by Keras), "random", or the path of a `.weights.h5` file of this network
        without its top.
      image_size: side of the input in pixels.
      seed: for random weights.

    Raises:
      ValueError: unknown name, weights of another network, a size the network does not accept.
      OSError: no such file, or the download failed.
    """
    constructors = _constructors()
    if name not in constructors:
        raise ValueError(f"unknown encoder {name!r}; allowed: {', '.join(encoder_names())}")
    constructor, module = constructors[name]
    keras.utils.set_random_seed(seed)
    network = constructor(
        include_top=False,
        weights=None if weights == "random" else weights,
        input_shape=(image_size, image_size, 3),
        pooling="avg",
    )
    network.trainable = False
    pixels = keras.Input((image_size, image_size, 3), name="pixels")
    return keras.Model(pixels, network(module.preprocess_input(pixels), training=False), name="encoder")


def _constructors() -> dict[str, tuple]:
    """Network name -> (constructor, the module whose `preprocess_input` belongs to it)."""
    found = {}
    for module in vars(keras.applications).values():
        if isinstance(module, types.ModuleType) and hasattr(module, "preprocess_input"):
            names = [n for n, value in vars(module).items() if n[0].isupper() and callable(value)]
            found.update({n: (getattr(module, n), module) for n in names})
    # The only constructors that their module does not hold.
    v3 = keras.applications.mobilenet_v3
    return found | {n: (getattr(keras.applications, n), v3) for n in ("MobileNetV3Large", "MobileNetV3Small")}
