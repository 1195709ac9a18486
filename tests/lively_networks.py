"""Networks with random weights whose features differ from image to image, as those of trained ones do."""

import keras
import numpy as np


def enliven(network):
    """Moves the statistics of batch normalisation, as training does; at first they let values shrink to nothing."""
    rng = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_variance.assign(rng.uniform(0.1, 0.4, layer.moving_variance.shape))
            layer.moving_mean.assign(rng.normal(0, 0.1, layer.moving_mean.shape))
