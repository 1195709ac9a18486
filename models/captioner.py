"""The captioner: features of a picture start an LSTM, which says one word after the other."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from spidercap.models.categorical import WIDTH
from spidercap.models.packed_lstm import gated, packed_lstm
from spidercap.models.packing import Packing
from spidercap.models.precision import product
from spidercap.models.special_tokens import NEVER, START, UNSAYABLE
from spidercap.models.word_loss import Projection

State = tuple[tf.Tensor, tf.Tensor]


class Captioner(keras.Model):
    """Normalised features -> LSTM -> words (Vinyals et al. 2015; Liu et al. 2017, section 3).

    Shapes: B images, N captions, n packed words, T steps, F features, H units, V words.
    """

    def __init__(
        self,
        vocabulary_size: int,
        feature_size: int,
        units: int,
        embedding_size: int,
        dropout: float,
        precision: tf.DType = tf.float32,
        jit: bool = False,
    ):
        """Builds all weights, which are float32; `precision` is that of the decoder's products, `jit` asks for XLA."""
        super().__init__(name="captioner")
        self.dropout, self.precision, self.jit = dropout, precision, jit
        # Not keras.layers.Normalization: it computes with a copy that tf.train.Checkpoint does not restore.
        self.feature_mean = self.add_weight(
            name="feature_mean", shape=(feature_size,), initializer="zeros", trainable=False
        )
        self.feature_deviation = self.add_weight(
            name="feature_deviation", shape=(feature_size,), initializer="ones", trainable=False
        )
        self.image = keras.layers.Dense(units, name="image")
        self.embedding = keras.layers.Embedding(vocabulary_size, embedding_size, name="embedding")
        self.lstm = keras.layers.LSTM(units, return_sequences=True, name="lstm")
        self.words = keras.layers.Dense(vocabulary_size, name="words")
        self.image.build((None, feature_size))
        self.embedding.build((None,))
        self.lstm.build((None, None, embedding_size))
        self.words.build((None, units))
        self.built = True

    def adapt(self, features: np.ndarray) -> None:
        """Learns mean and deviation of training features `[I, F]`, so that all of them count alike."""
        self.feature_mean.assign(features.mean(axis=0, dtype=np.float64))
        deviation = features.std(axis=0, dtype=np.float64)
        self.feature_deviation.assign(np.where(deviation > 0, deviation, 1.0))

    def sharpen(self, temperature: float) -> None:
        """Divides the logits of words by `temperature`, for good: below 1 likely words become likelier still.

        Which word is likeliest stays, and so does what greedy search says; samples come nearer to it.
        """
        for weight in (self.words.kernel, self.words.bias):
            weight.assign(weight / temperature)

    def blur(self, features: tf.Tensor, rate: float, seed: tf.Tensor) -> tf.Tensor:
        """Returns features `[B, F]` of which a share `rate` is set to the training mean, the others spread to make up.

        Whoever samples and learns from one blurred picture stays on one policy, unlike with dropout inside the
        decoder: the picture is another, the words' distribution given it is the same in both.
        """
        if rate == 0:
            return features
        return self.feature_mean + tf.nn.experimental.stateless_dropout(features - self.feature_mean, rate, seed)

    def start(self, features: tf.Tensor) -> State:
        """Returns the decoder's start for features `[B, F]`: hidden and cell state, `[B, H]` each."""
        cell = self.image((features - self.feature_mean) / self.feature_deviation)
        return tf.tanh(cell), cell

    def stepper(self) -> Callable[[State, tf.Tensor], tuple[State, tf.Tensor]]:
        """Returns step(state, words `[N]`) -> (state after them, logits `[N, V']` of the next word).

        V' is V or a little more; what is beyond V may not be said. To be called inside the function that is compiled
        and outside its loops: the weights are laid out once for all steps.
        """
        spare = -self.words.units % WIDTH
        embeddings = tf.convert_to_tensor(self.embedding.embeddings)
        kernels = [tf.cast(k, self.precision) for k in (self.lstm.cell.kernel, self.lstm.cell.recurrent_kernel)]
        gates, bias = tf.concat(kernels, axis=0), tf.convert_to_tensor(self.lstm.cell.bias)
        wide = self.projection()
        wide = wide._replace(kernel=tf.cast(wide.kernel, self.precision))
        if spare:
            wide = wide._replace(
                kernel=tf.pad(wide.kernel, [[0, 0], [0, spare]]),
                bias=tf.pad(wide.bias, [[0, spare]], constant_values=NEVER),
            )

        def step(state: State, words: tf.Tensor) -> tuple[State, tf.Tensor]:
            hidden, memory = state
            read = tf.gather(embeddings, words)
            if self.precision == tf.float32:
                sums = tf.nn.bias_add(product(tf.concat([read, hidden], axis=1), gates, self.precision), bias)
            else:  # rounded where `hidden` rounds, so that what is sampled from is what is differentiated
                sums = tf.nn.bias_add(product(read, kernels[0], self.precision), bias)
                sums += product(hidden, kernels[1], self.precision)
            hidden, memory, _ = gated(sums, memory)
            return (hidden, memory), wide.logits(hidden)

        return step

    def hidden(
        self, features: tf.Tensor, words: tf.Tensor, packing: Packing, dropout_seed: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns hidden states `[n, H]`: for each packed word the one that has read the words before it.

        Args:
          features: `[N, F]`.
          words: `[N, T]`, the true or sampled captions (teacher forcing).
          packing: of these captions.
          dropout_seed: `[2]`; None switches dropout off. Explicit, so that a resumed run draws the same masks.
        """
        read = tf.concat([tf.fill([tf.shape(words)[0], 1], START), words[:, :-1]], axis=1)
        read = tf.gather(self.embedding.embeddings, packing.of(read))
        read = self._drop(read, dropout_seed, 0)
        inputs = tf.nn.bias_add(product(read, self.lstm.cell.kernel, self.precision), self.lstm.cell.bias)
        recurrent = tf.convert_to_tensor(self.lstm.cell.recurrent_kernel)
        hidden = packed_lstm(inputs, *self.start(features), recurrent, packing, self.precision)
        return self._drop(hidden, dropout_seed, 1)

    def projection(self) -> Projection:
        """Returns the way from hidden states to logits; words that may not be said are at -1e9."""
        unsayable = tf.reduce_sum(tf.one_hot(UNSAYABLE, self.words.units), axis=0) * NEVER
        return Projection(
            tf.convert_to_tensor(self.words.kernel), self.words.bias + unsayable, self.precision, self.jit
        )

    def _drop(self, values: tf.Tensor, seed: tf.Tensor | None, place: int) -> tf.Tensor:
        if seed is None or self.dropout == 0:
            return values
        seed = tf.random.experimental.stateless_fold_in(seed, place)
        return tf.nn.experimental.stateless_dropout(values, self.dropout, seed)
