"""Learned baselines: the return expected of a state, before the next token is chosen.

Shapes: n packed tokens, H units of the decoder, T steps. No gradient reaches the decoder from here.
"""

import keras
import tensorflow as tf


class Baseline(keras.Model):
    """B_phi(s), a small MLP on the decoder's hidden state (Liu et al. 2017, section 3.3)."""

    def __init__(self, state_units: int, units: int):
        super().__init__(name="baseline")
        self.hidden_layer = keras.layers.Dense(units, activation="relu", name="hidden")
        # Zero at first: random values would add to the variance that the baseline is there to lower.
        self.value = keras.layers.Dense(1, kernel_initializer="zeros", name="value")
        self.hidden_layer.build((None, state_units))
        self.value.build((None, units))
        self.built = True

    def call(self, hidden: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Returns values `[n]` of hidden states `[n, H]`, the same at every step `[n]`."""
        del step
        return tf.squeeze(self.value(self.hidden_layer(tf.stop_gradient(hidden))), axis=-1)


class StepBaseline(keras.Model):
    """MIXER's baseline: a linear function of the hidden state for each step (Ranzato et al. 2016, section 3.2.2)."""

    def __init__(self, state_units: int, max_length: int):
        super().__init__(name="step_baseline")
        self.value = keras.layers.Dense(max_length, kernel_initializer="zeros", name="value")
        self.value.build((None, state_units))
        self.built = True

    def call(self, hidden: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Returns values `[n]` of hidden states `[n, H]` that predict the tokens at `step` `[n]`, counted from 0."""
        return tf.gather(self.value(tf.stop_gradient(hidden)), step, batch_dims=1)
