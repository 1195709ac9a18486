"""Adam as one operation a weight."""

import keras
import tensorflow as tf


class Adam(keras.optimizers.Adam):
    """keras.optimizers.Adam with TensorFlow's fused update: one pass over memory, the same to rounding.

    But for gradients of rows: one that occurs twice counts as the sum, where Keras 3.15 takes the sum of squares for
    the square.

    Source: Kingma, Ba, "Adam: a method for stochastic optimization" (2015), with epsilon as Keras has it.
    """

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

    def _clip_gradients(self, grads: list[tf.Tensor]) -> list[tf.Tensor]:
        """As Keras clips, but weights are not gone over where nothing is to be clipped."""
        if not self.global_clipnorm:
            return super()._clip_gradients(grads)
        grads = [tf.convert_to_tensor(g) for g in grads]
        norm = tf.linalg.global_norm(grads)
        scale = self.global_clipnorm / norm
        return tf.cond(norm > self.global_clipnorm, lambda: [scale * g for g in grads], lambda: grads)
