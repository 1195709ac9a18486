"""A small Transformer decoder that attends to the parts of an image.

Shapes: B images, N captions, n packed tokens, T steps, P parts of an image, F features, H units, L layers.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

from spidercap.models.attending import ABSENT, Values, attend, attend_by_image, in_heads, of_forced, only, placed
from spidercap.models.captioner import Captioner, copied, of_words, present, read_tokens
from spidercap.models.decoding import State, Step
from spidercap.models.packing import Packing, pack
from spidercap.models.precision import product
from spidercap.models.row_random import Seed

LAYERS, WIDER = 2, 4  # hidden units of the feed-forward layers, times H
HEAD = 64  # units of a head, if H is a multiple of them; else there is one head

# (layer's number, queries, keys, values `[n, H]` of tokens) -> what they see of earlier tokens `[n, H]`
SelfAttention = Callable[[int, tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
# (layer's number, queries `[n, H]`) -> what they see of the image `[n, H]`
ImageAttention = Callable[[int, tf.Tensor], tf.Tensor]
Dropout = Callable[[tf.Tensor, int], tf.Tensor]  # (values `[n, H]`, number of the place) -> values


class TransformerCaptioner(Captioner):
    """L layers: attention to earlier tokens, attention to the parts, feed-forward network (Vaswani et al. 2017).

    Each normalises its input, not its sum (pre-norm: Xiong et al. 2020). Positions are sinusoids, so captions of any
    length have the same weights. Products are of packed tokens; only scores of attention are computed by caption.
    """

    takes_parts = True

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
        """Builds all weights in float32; the arguments are those of LstmCaptioner."""
        super().__init__(feature_size, units, dropout, precision, jit, max_length)
        self.heads = units // HEAD if units % HEAD == 0 else 1
        self.embedding = keras.layers.Embedding(vocabulary_size, embedding_size, name="embedding")
        self.embedding.build((None,))
        self.token = _dense(embedding_size, units, "token")
        self.part = _dense(feature_size, units, "part")
        # Each an attribute, as checkpoints do not hold the layers of a list.
        for i in range(LAYERS):
            setattr(self, f"block{i}", Block(units, f"block{i}"))
        self.norm = _norm(units, "norm")
        self.words = _dense(units, vocabulary_size, "words")
        self.built = True

    @property
    def blocks(self) -> list["Block"]:
        """The layers of the decoder, the first one first."""
        return [getattr(self, f"block{i}") for i in range(LAYERS)]

    def begin(self, features: tf.Tensor, copies: int = 1) -> tuple[Step, State]:
        """As of Captioner; a state holds keys and values of the tokens that were read, and its image's number."""
        seen, words = self._seen(features), self._wide_projection()

        def step(state: State, tokens: tf.Tensor) -> tuple[State, tf.Tensor]:
            cache, time, image = state
            here = _places_of_heads(time, self.heads)
            known = only(tf.range(self.max_length) <= time[:, None])
            kept = []

            def of_tokens(layer: int, query: tf.Tensor, *read: tf.Tensor) -> tf.Tensor:
                new = (tf.reshape(part, [-1, self.heads, self.units // self.heads]) for part in read)
                both = zip(cache[layer], new, strict=True)
                kept.append(tuple(tf.tensor_scatter_nd_update(old, here, now) for old, now in both))
                return attend(query[:, None], Values(*kept[-1], known))[0][:, 0]

            def of_image(layer: int, query: tf.Tensor) -> tf.Tensor:
                return attend_by_image(query, seen[layer], image, self.jit)

            read = tf.gather(self.embedding.embeddings, tokens)
            hidden = self._through(read, time, of_tokens, of_image)
            return (tuple(kept), time + 1, image), words.logits(hidden)

        count = tf.shape(features)[0]
        empty = tf.zeros([count, self.heads, self.max_length, self.units // self.heads])
        empty = tf.ensure_shape(empty, [features.shape[0], *empty.shape[1:]])
        start = (((empty, empty),) * LAYERS, tf.zeros([count], tf.int32), tf.range(count))
        return step, copied(start, copies)

    def hidden(
        self,
        features: tf.Tensor,
        tokens: tf.Tensor,
        packing: Packing,
        dropout_seed: Seed | None = None,
        feature_row: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """As of Captioner: `[n, H]`."""
        return self._forced(features, tokens, packing, dropout_seed, feature_row)[0]

    def attention_weights(self, features: tf.Tensor, tokens: tf.Tensor) -> tf.Tensor:
        """As of Captioner: the mean over the layers and their heads."""
        weights = self._forced(features, tokens, pack(tokens), None, None)[1]
        return of_words(tf.reduce_mean(tf.stack(weights), axis=[0, 2]), features, tokens)

    def _forced(
        self,
        features: tf.Tensor,
        tokens: tf.Tensor,
        packing: Packing,
        dropout_seed: Seed | None,
        feature_row: tf.Tensor | None,
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Hidden states `[n, H]`, and by layer the weights `[B, heads, G, P]` of the parts (attending.py).

        If each caption has features of its own, the weights are `[N, heads, T, P]`.
        """
        seen, count = self._seen(features), tf.shape(features)[0]
        captions, images = (of_forced(packing, tokens, row, count) for row in (None, feature_row))
        steps = tf.range(tokens.shape[1])
        later = tf.where(steps > steps[:, None], ABSENT, 0.0)
        weights = []

        def of_tokens(layer: int, query: tf.Tensor, *read: tf.Tensor) -> tf.Tensor:
            keys, values = (in_heads(placed(part, captions), self.heads) for part in read)
            return packing.of(attend(placed(query, captions), Values(keys, values, later))[0])

        def of_image(layer: int, query: tf.Tensor) -> tf.Tensor:
            context, of_layer = attend(placed(query, images), seen[layer])
            weights.append(of_layer)
            return tf.gather_nd(context, images.index)

        def drop(values: tf.Tensor, place: int) -> tf.Tensor:
            return self._drop(values, packing, tokens.shape[1], dropout_seed, place)

        read = drop(tf.gather(self.embedding.embeddings, packing.of(read_tokens(tokens))), 0)
        hidden = self._through(read, packing.index[:, 1], of_tokens, of_image, drop)
        return drop(hidden, 1), weights

    def _through(
        self,
        read: tf.Tensor,
        time: tf.Tensor,
        of_tokens: SelfAttention,
        of_image: ImageAttention,
        drop: Dropout = lambda values, place: values,
    ) -> tf.Tensor:
        """The last hidden states `[n, H]` of embedded tokens `[n, E]` at steps `[n]`."""
        values = _times(read, self.token, self.precision) + positions(time, self.units)
        for layer, block in enumerate(self.blocks):
            values = block.through(values, layer, of_tokens, of_image, drop, self.precision)
        return self.norm(values)

    def _seen(self, features: tf.Tensor) -> list[Values]:
        """Keys and values of all parts for each layer, `[B, heads, P, d]`."""
        parts, there = self.part(self._normalised(features)), only(present(features))
        made = (tf.split(block.parts(parts), 2, axis=2) for block in self.blocks)
        return [Values(*(in_heads(part, self.heads) for part in both), there) for both in made]


class Block(keras.layers.Layer):
    """The weights of one layer of the decoder."""

    def __init__(self, units: int, name: str):
        super().__init__(name=name)
        self.norm0, self.norm1, self.norm2 = (_norm(units, f"norm{i}") for i in range(3))
        self.tokens = _dense(units, 3 * units, "tokens")  # queries, keys and values of tokens
        self.seen_tokens = _dense(units, units, "seen_tokens")
        self.query = _dense(units, units, "query")  # of the image
        self.parts = _dense(units, 2 * units, "parts")  # its keys and values
        self.seen_parts = _dense(units, units, "seen_parts")
        self.wide, self.narrow = _dense(units, WIDER * units, "wide"), _dense(WIDER * units, units, "narrow")
        self.built = True

    @property
    def summands(self) -> tuple[keras.layers.Dense, ...]:
        """The layers whose outputs are added to the values that pass through."""
        return self.seen_tokens, self.seen_parts, self.narrow

    def through(
        self,
        values: tf.Tensor,
        layer: int,
        of_tokens: SelfAttention,
        of_image: ImageAttention,
        drop: Dropout,
        precision: tf.DType,
    ) -> tf.Tensor:
        """Returns `[n, H]` after the layer, of `[n, H]` before it."""
        seen = of_tokens(layer, *tf.split(_times(self.norm0(values), self.tokens, precision), 3, axis=1))
        values += drop(_times(seen, self.seen_tokens, precision), 2 + 3 * layer)
        seen = of_image(layer, _times(self.norm1(values), self.query, precision))
        values += drop(_times(seen, self.seen_parts, precision), 3 + 3 * layer)
        wide = tf.nn.gelu(_times(self.norm2(values), self.wide, precision), approximate=True)  # as LiteRT has no erf
        return values + drop(_times(wide, self.narrow, precision), 4 + 3 * layer)


def _places_of_heads(time: tf.Tensor, heads: int) -> tf.Tensor:
    """The index `[n, heads, 3]` of each row's step in arrays `[n, heads, T, d]`; `time` is `[n]`."""
    count = tf.shape(time)[0]
    parts = (tf.range(count)[:, None], tf.range(heads)[None], time[:, None])
    return tf.stack([tf.broadcast_to(part, [count, heads]) for part in parts], axis=2)


def positions(time: tf.Tensor, units: int) -> tf.Tensor:
    """Returns `[n, H]` of steps `[n]`: sines and cosines of wavelengths from 2 pi to 20,000 pi (Vaswani et al.)."""
    rates = 10_000.0 ** (-tf.range(0, units, 2, tf.float32) / units)
    angles = tf.cast(time, tf.float32)[:, None] * rates
    return tf.concat([tf.sin(angles), tf.cos(angles)], axis=1)[:, :units]


def _dense(size: int, units: int, name: str) -> keras.layers.Dense:
    layer = keras.layers.Dense(units, name=name)
    layer.build((None, size))
    return layer


def _norm(units: int, name: str) -> keras.layers.LayerNormalization:
    layer = keras.layers.LayerNormalization(name=name)
    layer.build((None, units))
    return layer


def _times(values: tf.Tensor, layer: keras.layers.Dense, precision: tf.DType) -> tf.Tensor:
    """The layer of values `[n, ...]`, at a precision."""
    return tf.nn.bias_add(product(values, layer.kernel, precision), layer.bias)
