"""The paper's captioner: an LSTM that starts from the features of an image."""

from collections.abc import Callable

import keras
import tensorflow as tf

from spidercap.models.captioner import Captioner, copied, read_tokens
from spidercap.models.decoding import State, Step, take_rows
from spidercap.models.packed_lstm import gated, packed_lstm
from spidercap.models.packing import Packing
from spidercap.models.precision import product
from spidercap.models.row_random import Seed

LstmState = tuple[tf.Tensor, tf.Tensor]  # hidden and cell state, [N, H] each


class LstmCaptioner(Captioner):
    """Normalised features -> LSTM -> tokens (Vinyals et al. 2015; Liu et al. 2017, section 3).

    Shapes: those of Captioner.
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
        max_length: int = 20,
    ):
        """Builds all weights in float32; see Captioner for the arguments. E is `embedding_size`."""
        super().__init__(feature_size, units, dropout, precision, jit, max_length)
        self.image = keras.layers.Dense(units, name="image")
        self.embedding = keras.layers.Embedding(vocabulary_size, embedding_size, name="embedding")
        self.lstm = keras.layers.LSTM(units, return_sequences=True, name="lstm")
        self.words = keras.layers.Dense(vocabulary_size, name="words")
        self.image.build((None, feature_size))
        self.embedding.build((None,))
        self.lstm.build((None, None, embedding_size))
        self.words.build((None, units))
        self.built = True

    def begin(self, features: tf.Tensor, copies: int = 1) -> tuple[Step, State]:
        """As of Captioner, from features `[B, F]`."""
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
        """As of Captioner, from features `[B, F]`."""
        hidden = self._read(features, tokens, packing, dropout_seed, feature_row)
        return self._drop(hidden, packing, tokens.shape[1], dropout_seed, 1)

    def _start(self, features: tf.Tensor) -> LstmState:
        """The state `[B, H]` before the first token."""
        cell = self.image(self._normalised(features))
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

    def _read(
        self, features: tf.Tensor, tokens: tf.Tensor, packing: Packing, seed: Seed | None, feature_row: tf.Tensor | None
    ) -> tf.Tensor:
        """The LSTM's hidden states `[n, H]`, with dropout of what it reads alone; the arguments are `hidden`'s."""
        read = tf.gather(self.embedding.embeddings, packing.of(read_tokens(tokens)))
        read = self._drop(read, packing, tokens.shape[1], seed, 0)
        inputs = tf.nn.bias_add(product(read, self.lstm.cell.kernel, self.precision), self.lstm.cell.bias)
        recurrent = tf.convert_to_tensor(self.lstm.cell.recurrent_kernel)
        start = self._start(features)
        if feature_row is not None:
            start = take_rows(start, feature_row)
        return packed_lstm(inputs, *start, recurrent, packing, self.precision)
