"""A captioner that attends to the parts of an image, the cells of a grid or regions, before each word.

Shapes: B images, N captions, P parts of an image, n packed tokens, T steps, F features, A = H units.
"""

import keras
import tensorflow as tf

from spidercap.models.attending import ABSENT, attend, attended
from spidercap.models.captioner import copied, mean_of_parts, of_words, present
from spidercap.models.decoding import State, Step, take_rows
from spidercap.models.lstm_captioner import LstmCaptioner, LstmState
from spidercap.models.packing import Packing, pack
from spidercap.models.row_random import Seed


class AttentionCaptioner(LstmCaptioner):
    """The LSTM reads the tokens, its hidden state attends to the parts, and both together predict the word.

      e_i = (W_q h) . (W_k v_i) / sqrt(A),   a = softmax(e),   the word is predicted from h + sum_i a_i W_v v_i

    Source: Lu et al. 2017, "Knowing when to look", section 2.1 (spatial attention, after the LSTM), with the scaled
    products of Vaswani et al. 2017 as scores. As nothing that is seen goes back into the LSTM, teacher forcing attends
    from all tokens at once. The LSTM starts from the mean of the parts.

    Features are `[B, P, F]`.
    """

    takes_parts = True

    def __init__(self, vocabulary_size: int, feature_size: int, units: int, *args, **more):
        """Builds all weights in float32; the arguments are those of LstmCaptioner."""
        super().__init__(vocabulary_size, feature_size, units, *args, **more)
        self.query = keras.layers.Dense(units, use_bias=False, name="query")
        self.key = keras.layers.Dense(units, use_bias=False, name="key")
        self.value = keras.layers.Dense(units, name="value")
        self.query.build((None, units))
        for layer in (self.key, self.value):
            layer.build((None, feature_size))

    def begin(self, features: tf.Tensor, copies: int = 1) -> tuple[Step, State]:
        """As of Captioner; rows of the state share the parts of their image."""
        advance, words = self._advance(), self._wide_projection()
        seen = self._seen(features)

        def step(state: State, tokens: tf.Tensor) -> tuple[State, tf.Tensor]:
            hidden, cell, image = state
            hidden, cell = advance((hidden, cell), tokens)
            context = attended(self.query(hidden)[:, None], *take_rows(seen, image))
            return (hidden, cell, image), words.logits(hidden + context[:, 0])

        start = (*self._start(features), tf.range(tf.shape(features)[0]))
        return step, copied(start, copies)

    def hidden(
        self,
        features: tf.Tensor,
        tokens: tf.Tensor,
        packing: Packing,
        dropout_seed: Seed | None = None,
        feature_row: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """As of Captioner: `[n, H]`, what predicts each word, with what was seen."""
        hidden = self._read(features, tokens, packing, dropout_seed, feature_row)
        seen = self._seen(features)
        if feature_row is not None:
            seen = take_rows(seen, feature_row)
        context = packing.of(self._attend(hidden, seen, tokens, packing)[0])
        return self._drop(hidden + context, packing, tokens.shape[1], dropout_seed, 1)

    def attention_weights(self, features: tf.Tensor, tokens: tf.Tensor) -> tf.Tensor:
        """As of Captioner."""
        packing = pack(tokens)
        hidden = self._read(features, tokens, packing, None, None)
        weights = self._attend(hidden, self._seen(features), tokens, packing)[1]
        return of_words(weights[:, 0], features, tokens)

    def _attend(
        self, hidden: tf.Tensor, seen: tuple[tf.Tensor, ...], tokens: tf.Tensor, packing: Packing
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """What hidden states `[n, H]` see, `[N, T, H]`, and the weights `[N, 1, T, P]`.

        By caption, not packed, so that the parts of an image are multiplied with all tokens of a caption at once.
        """
        shape = [tf.shape(tokens)[0], tokens.shape[1], self.units]
        return attend(self.query(tf.scatter_nd(packing.index, hidden, shape)), *seen)

    def _start(self, features: tf.Tensor) -> LstmState:
        return super()._start(mean_of_parts(features))

    def _seen(self, features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Keys `[B, P, H]`, values `[B, P, H]`, and what is added to the scores `[B, 1, P]`, of all parts."""
        parts = self._normalised(features)
        return self.key(parts), self.value(parts), tf.where(present(features), 0.0, ABSENT)[:, None]
