"""Models that are exported within a second: what tests of exports need of a network, and no more."""

import contextlib
from collections.abc import Iterator

import keras
import numpy as np
import pytest

from spidercap.export import saved_model


def small_encoder(side: int) -> keras.Model:
    """Returns a frozen network of [B, side, side, 3] pixels -> [B, 16]; its normalisation has moved, as a trained one.

    Real networks are exported by the run of test_end_to_end; their hundreds of layers take most of an export's time.
    """
    layers = keras.layers
    keras.utils.set_random_seed(2)
    normalisation = layers.BatchNormalization()
    convolution = layers.Conv2D(16, 5, strides=4, activation="relu")
    scale = layers.Rescaling(1 / 127.5, offset=-1)
    pooling = layers.GlobalAveragePooling2D()
    encoder = keras.Sequential([keras.Input([side, side, 3]), scale, convolution, normalisation, pooling])
    rng = np.random.default_rng(2)
    normalisation.moving_mean.assign(rng.normal(0, 1, 16))
    normalisation.moving_variance.assign(rng.uniform(0.5, 2, 16))
    encoder.trainable = False
    return encoder


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """Exports without the fresh process that checks them: for tests of something else, as it takes seven seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saved_model, "_check", lambda *_: None)
        yield
