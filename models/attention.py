"""A captioner that attends to the parts of an image, the cells of a grid or regions, before each word.

Shapes: B images, N captions, P parts of an image, n packed tokens, T steps, F features, A = H units.
"""

import keras
import tensorflow as tf

from spidercap.models.attending import Places, Values, attend, attend_by_image, in_heads, of_forced, only, placed
from spidercap.models.captioner import copied, mean_of_parts, of_words, present
from spidercap.models.decoding import State, Step
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
            context = attend_by_image(self.query(hidden), seen, image, self.jit)
            return (hidden, cell, image), words.logits(hidden + context)

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
        place = of_forced(packing, tokens, feature_row, tf.shape(features)[0])
        if _few(features, tokens):
            found, _ = self._attend(hidden, features, place)
            context = self.value(tf.gather_nd(found, place.index))
        else:
            context = tf.gather_nd(attend(placed(self.query(hidden), place), self._seen(features))[0], place.index)
        return self._drop(hidden + context, packing, tokens.shape[1], dropout_seed, 1)

    def attention_weights(self, features: tf.Tensor, tokens: tf.Tensor) -> tf.Tensor:
        """As of Captioner."""
        packing = pack(tokens)
        hidden = self._read(features, tokens, packing, None, None)
        place = of_forced(packing, tokens, None, tf.shape(features)[0])
        return of_words(self._attend(hidden, features, place)[1][:, 0], features, tokens)

    def _attend(self, hidden: tf.Tensor, features: tf.Tensor, place: Places) -> tuple[tf.Tensor, tf.Tensor]:
        """What hidden states `[n, H]` see of the parts as they are, `[B, G, F]`, and the weights `[B, 1, G, P]`.

        The kernel of the keys is multiplied with what words ask, and not with the parts: (W_q h)^T (W_k v) =
        (W_k^T W_q h)^T v. The layer of the values then takes what was found.
        """
        parts = self._normalised(features)[:, None]
        queries = tf.matmul(self.query(hidden), self.key.kernel, transpose_b=True)
        return attend(placed(queries, place), Values(parts, parts, only(present(features))), scale=self.units**-0.5)

    def _start(self, features: tf.Tensor) -> LstmState:
        return super()._start(mean_of_parts(features))

    def _seen(self, features: tf.Tensor) -> Values:
        """Keys and values of all parts `[B, 1, P, H]`."""
        parts = self._normalised(features)
        return Values(in_heads(self.key(parts), 1), in_heads(self.value(parts), 1), only(present(features)))


def _few(features: tf.Tensor, tokens: tf.Tensor) -> bool:
    """Whether captions have so few words that it is less work to multiply kernels with them than with the parts.

    3 N T / 2 < 2 B P: half of the places hold words. Of a word's product both factors have a gradient, of a part's only
    the kernel. If sizes are not known, captions are taken to be one an image.
    """
    (captions, steps), (images, parts, _) = tokens.shape, features.shape
    return None in (captions, images, parts) or 3 * captions * steps < 4 * images * parts
