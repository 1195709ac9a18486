"""Adam as one operation a weight."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf


class Adam(keras.optimizers.Adam):
    """keras.optimizers.Adam with TensorFlow's fused update: one pass over memory, the same to rounding.

    But for gradients of rows: one that occurs twice counts as the sum, where Keras 3.15 takes the sum of squares for
    the square.

    Source: Kingma, Ba, "Adam: a method for stochastic optimization" (2015), with epsilon as Keras has it.

    With `use_ema` the average begins with the weights as they are when this is built (Keras: with zeros, then those
    after the first update), and forgets faster at first: after n updates it keeps (1 + n) / (10 + n) of itself, until
    that is `ema_momentum`. So it stands for the last tenth of the updates, however few they are, and for the last
    1 / (1 - momentum) once they are many. Source: tf.train.ExponentialMovingAverage's `num_updates`.
    """

    def build(self, variables: list[keras.Variable]) -> None:
        """Makes moments, and averages if there are to be any, of these weights."""
        super().build(variables)
        if self.use_ema:
            for variable, average in zip(variables, self._model_variables_moving_average, strict=True):
                average.assign(variable)

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Moves a weight and its two moments by a gradient, dense or of some rows."""
        place = self._get_variable_index(variable)
        done = tf.cast(self.iterations + 1, variable.dtype)
        beta_1, beta_2 = tf.cast(self.beta_1, variable.dtype), tf.cast(self.beta_2, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[place].value.handle,
            v=self._velocities[place].value.handle,
            beta1_power=tf.pow(beta_1, done),
            beta2_power=tf.pow(beta_2, done),
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.cast(self.epsilon, variable.dtype),
            grad=tf.cast(tf.convert_to_tensor(gradient), variable.dtype),
        )

    def _update_model_variables_moving_average(self, trainable_variables: list[keras.Variable]) -> None:
        share = tf.maximum(1 - self.ema_momentum, 9 / (10 + tf.cast(self.iterations, tf.float32)))
        for variable, average in zip(trainable_variables, self._model_variables_moving_average, strict=True):
            average.assign_add(share * (variable - average))

    def _clip_gradients(self, grads: list[tf.Tensor]) -> list[tf.Tensor]:
        """As Keras clips, but weights are not gone over where nothing is to be clipped."""
        if not self.global_clipnorm:
            return super()._clip_gradients(grads)
        grads = [tf.convert_to_tensor(g) for g in grads]
        norm = tf.linalg.global_norm(grads)
        scale = self.global_clipnorm / norm
        return tf.cond(norm > self.global_clipnorm, lambda: [scale * g for g in grads], lambda: grads)


@contextlib.contextmanager
def averaged(model: keras.Model, optimizer: keras.Optimizer) -> Iterator[None]:
    """While it lasts, the model's weights are the averages that its optimizer keeps; then they are the same again."""
    weights = model.trainable_variables
    trained = [tf.convert_to_tensor(w) for w in weights]
    try:
        optimizer.finalize_variable_values(weights)
        yield
    finally:
        for weight, value in zip(weights, trained, strict=True):
            weight.assign(value)
