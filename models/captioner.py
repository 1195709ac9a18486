"""The captioner: an LSTM that starts from the features of an image and generates one token per step."""

import math
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from spidercap.models import row_random
from spidercap.models.categorical import WIDTH
from spidercap.models.decoding import State, Step, take_rows
from spidercap.models.packed_lstm import gated, packed_lstm
from spidercap.models.packing import Packing
from spidercap.models.precision import product
from spidercap.models.row_random import Seed
from spidercap.models.special_tokens import FORBIDDEN, FORBIDDEN_LOGIT, START
from spidercap.models.word_loss import Projection

LstmState = tuple[tf.Tensor, tf.Tensor]  # hidden and cell state, [N, H] each
PART = 4096  # vectors that are in memory at once


class Captioner(keras.Model):
    """Normalised features -> LSTM -> tokens (Vinyals et al. 2015; Liu et al. 2017, section 3).

    Shapes: B images, N captions, n packed tokens, T steps, F features, H units, V tokens of the vocabulary.
    """

    takes_parts = False  # whether features are [P, F] for each image, not [F]

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
        """Builds all weights in float32. `precision` is that of the decoder's matrix products, `jit` asks for XLA."""
        super().__init__(name="captioner")
        self.dropout, self.precision, self.jit = dropout, precision, jit
        # Not keras.layers.Normalization: it computes with a copy that tf.train.Checkpoint does not restore.
        # These attributes' names, and those of the layers, are keys of checkpoints.
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
        """Sets mean and std of the normalisation from training features `[I, F]`, which are read in parts.

        A feature that hardly varies in training would be huge in other images. So the std has a floor:
          std_f = max(std_f, 0.1 mean_f(std_f)).
        If the images are alike, mean_f(std_f) <= 0.01 mean_f(|mean_f|), the floor is mean_f(|mean_f|) instead.
        """
        images = max(1, PART // math.prod(features.shape[1:-1]))
        parts = [slice(i, i + images) for i in range(0, len(features), images)]
        count = sum(len(self._vectors(features[part])) for part in parts)
        mean = sum(self._vectors(features[part]).sum(axis=0, dtype=np.float64) for part in parts) / count
        std = np.sqrt(sum(np.square(self._vectors(features[part]) - mean).sum(axis=0) for part in parts) / count)
        size = np.abs(mean).mean()
        alike = std.mean() <= 0.01 * size
        floor = (size if alike else 0.1 * std.mean()) or 1.0
        self.feature_mean.assign(mean)
        self.feature_deviation.assign(np.maximum(std, floor))

    def apply_temperature(self, temperature: float) -> None:
        """Divides the weights of the logits by `temperature`, for good; below 1 the policy becomes sharper.

        The likeliest token stays the likeliest, so greedy captions stay the same and samples come nearer to them.
        """
        for weight in (self.words.kernel, self.words.bias):
            weight.assign(weight / temperature)

    def drop_features(self, features: tf.Tensor, rate: float, seed: Seed) -> tf.Tensor:
        """Returns features `[B, F]` after dropout around the training mean.

        A share `rate` is set to the mean, and the distance of the others from it is scaled up. Sampling and update
        read the same dropped features, so they use one policy, unlike with dropout inside the decoder.
        """
        if rate == 0:
            return features
        return self.feature_mean + row_random.dropout(features - self.feature_mean, rate, seed)

    def begin(self, features: tf.Tensor, copies: int = 1) -> tuple[Step, State]:
        """Returns what decodes captions of images: a step function and its initial state.

        step(state, tokens `[N]`) -> (state after them, logits `[N, V']` of the next token). V' is V or a little more;
        ids from V on are forbidden. Call this inside the function that is compiled and outside its loops: it lays out
        the weights once for all steps.

        Args:
          features: `[B, F]`.
          copies: rows of the state for each image, one after the other; N = B * copies at first.
        """
        advance, words = self._advance(), self._wide_projection()

        def step(state: State, tokens: tf.Tensor) -> tuple[State, tf.Tensor]:
            state = advance(state, tokens)
            return state, words.logits(state[0])

        return step, copied(self._start(features), copies)

    def hidden(
        self,
        features: tf.Tensor,
        tokens: tf.Tensor,
        packing: Packing,
        dropout_seed: Seed | None = None,
        feature_row: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Returns the hidden states `[n, H]` that predict the packed tokens, each after the tokens before it.

        Args:
          features: `[B, F]`.
          tokens: `[N, T]`, the true or sampled captions (teacher forcing).
          packing: of these captions.
          feature_row: int32 `[N]`, the row of `features` that each caption is of; None: its own, and N = B.
          dropout_seed: of the captions; None: no dropout. It is explicit so that a resumed run draws the same masks.
        """
        hidden = self._read(features, tokens, packing, dropout_seed, feature_row)
        return self._drop(hidden, packing, tokens.shape[1], dropout_seed, 1)

    def projection(self) -> Projection:
        """Returns the projection from hidden states to logits, with -1e9 added to those of forbidden tokens."""
        forbidden = tf.reduce_sum(tf.one_hot(FORBIDDEN, self.words.units), axis=0) * FORBIDDEN_LOGIT
        return Projection(
            tf.convert_to_tensor(self.words.kernel), self.words.bias + forbidden, self.precision, self.jit
        )

    def _vectors(self, features: np.ndarray) -> np.ndarray:
        """The vectors `[n, F]` that features of some images are made of."""
        return features

    def _start(self, features: tf.Tensor) -> LstmState:
        """The state `[B, H]` before the first token."""
        cell = self.image((features - self.feature_mean) / self.feature_deviation)
        return tf.tanh(cell), cell

    def _advance(self) -> Callable[[LstmState, tf.Tensor], LstmState]:
        """The LSTM's step: (state, tokens `[N]`) -> state after them."""
        embeddings = tf.convert_to_tensor(self.embedding.embeddings)
        kernels = [tf.cast(k, self.precision) for k in (self.lstm.cell.kernel, self.lstm.cell.recurrent_kernel)]
        gates, bias = tf.concat(kernels, axis=0), tf.convert_to_tensor(self.lstm.cell.bias)

        def advance(state: LstmState, tokens: tf.Tensor) -> LstmState:
            hidden, cell = state
            read = tf.gather(embeddings, tokens)
            if self.precision == tf.float32:
                sums = tf.nn.bias_add(product(tf.concat([read, hidden], axis=1), gates, self.precision), bias)
            else:  # rounded where `hidden` rounds, so that what is sampled from is what is differentiated
                sums = tf.nn.bias_add(product(read, kernels[0], self.precision), bias)
                sums += product(hidden, kernels[1], self.precision)
            hidden, cell, _ = gated(sums, cell)
            return hidden, cell

        return advance

    def _wide_projection(self) -> Projection:
        """The projection for many steps: to V' tokens, a number that is fast to draw from."""
        wide, spare = self.projection(), -self.words.units % WIDTH
        wide = wide._replace(kernel=tf.cast(wide.kernel, self.precision))
        if not spare:
            return wide
        return wide._replace(
            kernel=tf.pad(wide.kernel, [[0, 0], [0, spare]]),
            bias=tf.pad(wide.bias, [[0, spare]], constant_values=FORBIDDEN_LOGIT),
        )

    def _read(
        self, features: tf.Tensor, tokens: tf.Tensor, packing: Packing, seed: Seed | None, feature_row: tf.Tensor | None
    ) -> tf.Tensor:
        """The LSTM's hidden states `[n, H]`, with dropout of what it reads alone; the arguments are `hidden`'s."""
        read = tf.concat([tf.fill([tf.shape(tokens)[0], 1], START), tokens[:, :-1]], axis=1)
        read = tf.gather(self.embedding.embeddings, packing.of(read))
        read = self._drop(read, packing, tokens.shape[1], seed, 0)
        inputs = tf.nn.bias_add(product(read, self.lstm.cell.kernel, self.precision), self.lstm.cell.bias)
        recurrent = tf.convert_to_tensor(self.lstm.cell.recurrent_kernel)
        start = self._start(features)
        if feature_row is not None:
            start = take_rows(start, feature_row)
        return packed_lstm(inputs, *start, recurrent, packing, self.precision)

    def _drop(self, values: tf.Tensor, packing: Packing, max_length: int, seed: Seed | None, place: int) -> tf.Tensor:
        if seed is None or self.dropout == 0:
            return values
        return row_random.dropout(values, self.dropout, row_random.fold_in(seed, place), packing.index, max_length)


def copied(state: State, copies: int) -> State:
    """Returns a state in which each row stands so many times, one after the other."""
    return state if copies == 1 else tf.nest.map_structure(lambda leaf: tf.repeat(leaf, copies, axis=0), state)
