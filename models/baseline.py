"""The learned baseline B_phi(s): what reward to expect before the next word is chosen."""

import keras
import tensorflow as tf


class Baseline(keras.Model):
    """A small MLP on the decoder's hidden state (Liu et al. 2017, section 3.3)."""

    def __init__(self, state_units: int, units: int):
        super().__init__(name="baseline")
        self.hidden_layer = keras.layers.Dense(units, activation="relu", name="hidden")
        # Expects 0 at first: random expectations would only add to the variance that they are to lower.
        self.value = keras.layers.Dense(1, kernel_initializer="zeros", name="value")
        self.hidden_layer.build((None, state_units))
        self.value.build((None, units))
        self.built = True

    def call(self, hidden: tf.Tensor) -> tf.Tensor:
        """Returns values `[n]` of hidden states `[n, H]`; no gradient ever reaches the decoder from here."""
        return tf.squeeze(self.value(self.hidden_layer(tf.stop_gradient(hidden))), axis=-1)
