"""From pixels to the features of any keras.applications network."""

import types

import keras


def encoder_names() -> list[str]:
    """Returns the names that `build_encoder` takes: every network of keras.applications."""
    return sorted(_constructors())


def default_image_size(name: str) -> int:
    """Returns the side in pixels that the network was trained on (299 for the Inception family, else 224)."""
    return 299 if name in ("InceptionV3", "InceptionResNetV2", "Xception") else 224


def build_encoder(name: str, weights: str, image_size: int, seed: int = 0, grid: bool = False) -> keras.Model:
    """Returns a frozen network: float32 `[B, image_size, image_size, 3]` in 0..255 -> `[B, F]`, average-pooled.

    With `grid` it gives the P cells of the network's last map, one row after the other: `[B, P, F]`.

    Args:
      name: one of `encoder_names()`.
      weights: "imagenet" (downloaded by Keras), "random", or the path of a `.weights.h5` file of this network
        without its top.
      image_size: side of the input in pixels.
      seed: for random weights.
      grid: cells, not their mean.

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
        pooling=None if grid else "avg",
    )
    network.trainable = False
    pixels = keras.Input((image_size, image_size, 3), name="pixels")
    features = network(module.preprocess_input(pixels), training=False)
    if grid:
        features = keras.layers.Reshape((-1, features.shape[-1]), name="cells")(features)
    return keras.Model(pixels, features, name="encoder")


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
