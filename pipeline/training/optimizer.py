"""Adam as one operation per weight."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf


class Adam(keras.optimizers.Adam):
    """keras.optimizers.Adam with TensorFlow's fused update, in one pass over memory; equal up to rounding.

    `apply` takes the gradients of the whole batch: it neither sums over replicas nor clips before the sum, as Keras
    does. Each replica updates its own copy of the weights, all in the same way.

    Sparse gradients differ: the gradients of a row that occurs twice are summed before they are squared, where Keras
    3.15 sums their squares.

    Source: Kingma, Ba, "Adam: a method for stochastic optimization" (2015), with epsilon as in Keras.

    With `use_ema` the average starts from the weights when this is built. (In Keras it starts from zeros, then from the
    weights after the first update.) Its momentum grows: after n updates it is (1 + n) / (10 + n), up to `ema_momentum`.
    So the average covers about the last tenth of the updates while they are few, and the last 1 / (1 - momentum) once
    they are many. Source: tf.train.ExponentialMovingAverage's `num_updates`.
    """

    def __init__(
        self,
        learning_rate: Any,
        *,
        slow: Sequence[keras.Variable] = (),
        slowness: float = 1.0,
        **more: Any,
    ):
        """Takes the arguments of keras.optimizers.Adam.

        Args:
          learning_rate: a number or a schedule.
          slow: weights with a rate of their own, in updates and weight decay; all are clipped together.
          slowness: that rate, as a multiple of `learning_rate`.
          **more: as of keras.optimizers.Adam.
        """
        super().__init__(learning_rate, **more)
        self._slow, self._slowness = frozenset(map(id, slow)), slowness

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates the moments of these weights, and their averages with `use_ema`."""
        super().build(variables)
        if self.use_ema:
            for variable, average in zip(variables, self._model_variables_moving_average, strict=True):
                average.assign(variable)

    def apply(self, grads: list[tf.Tensor], trainable_variables: list[keras.Variable] | None = None) -> None:
        """Updates the weights, by default those that this was built with, by gradients of the same order."""
        weights = self._trainable_variables if trainable_variables is None else list(trainable_variables)
        rate = self._get_current_learning_rate()
        self._apply_weight_decay(weights)
        for gradient, weight in zip(self._clip_gradients(list(grads)), weights, strict=True):
            self.update_step(gradient, weight.value, self._of_weight(rate, weight))
        if self.use_ema:
            self._update_model_variables_moving_average(weights)
        tf.raw_ops.AssignAddVariableOp(
            resource=self._iterations.value.handle, value=tf.constant(1, self._iterations.dtype)
        )

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Updates a weight and its two moments by a gradient, dense or sparse (some rows)."""
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
            change = share * (tf.convert_to_tensor(variable) - tf.convert_to_tensor(average))
            tf.raw_ops.AssignAddVariableOp(resource=average.value.handle, value=change)

    def _apply_weight_decay(self, variables: list[keras.Variable]) -> None:
        if self.weight_decay is None:
            return
        share = tf.cast(self.learning_rate, tf.float32) * self.weight_decay
        for variable in filter(self._use_weight_decay, variables):
            decay = self._of_weight(share, variable) * tf.convert_to_tensor(variable)
            tf.raw_ops.AssignSubVariableOp(resource=variable.value.handle, value=decay)

    def _of_weight(self, rate: tf.Tensor, weight: keras.Variable) -> tf.Tensor:
        return rate * self._slowness if id(weight) in self._slow else rate

    def _clip_gradients(self, grads: list[tf.Tensor]) -> list[tf.Tensor]:
        """Clips like Keras, but makes no pass over the gradients if their norm is small enough."""
        if not self.global_clipnorm:
            return super()._clip_gradients(grads)
        grads = [tf.convert_to_tensor(g) for g in grads]
        norm = tf.linalg.global_norm(grads)
        scale = self.global_clipnorm / norm
        return tf.cond(norm > self.global_clipnorm, lambda: [scale * g for g in grads], lambda: grads)


@contextlib.contextmanager
def averaged(model: keras.Model, optimizer: keras.Optimizer) -> Iterator[None]:
    """Within the block, the model has the optimizer's averaged weights; afterwards its own again."""
    weights = model.trainable_variables
    trained = [tf.convert_to_tensor(w) for w in weights]
    try:
        optimizer.finalize_variable_values(weights)
        yield
    finally:
        for weight, value in zip(weights, trained, strict=True):
            weight.assign(value)
