"""What all captioners are: a network that says the words of an image, one token per step."""

import math

import keras
import numpy as np
import tensorflow as tf

from spidercap.models import row_random
from spidercap.models.categorical import WIDTH
from spidercap.models.decoding import State, Step
from spidercap.models.encoder_cut import EncodedView
from spidercap.models.packing import Packing
from spidercap.models.row_random import Seed
from spidercap.models.special_tokens import FORBIDDEN, FORBIDDEN_LOGIT, PAD, START
from spidercap.models.word_loss import Projection

PART = 4096  # vectors that are in memory at once


class Captioner(keras.Model):
    """Normalised features -> hidden states -> tokens; captioners.py lists the networks between.

    A subclass makes the layers, `embedding` and `words` among them, and has `begin` and `hidden`.

    Layers of the encoder that are tuned with the captioner are a part of it, `tuned`. What is stored of an image is
    then what these layers read, and `encoded` makes features of it. All other functions take features.

    Shapes: B images, N captions, n packed tokens, T steps, P parts of an image, F features, H units, V tokens of the
    vocabulary.
    """

    takes_parts = False  # whether features are [P, F] for each image, not [F]; rows of zeros are no parts

    def __init__(self, feature_size: int, units: int, dropout: float, precision: tf.DType, jit: bool, max_length: int):
        """Builds the normalisation.

        Args:
          feature_size: F.
          units: H.
          dropout: rate, in training on given captions.
          precision: of matrix products.
          jit: whether XLA compiles the steps of decoders.
          max_length: T of the longest captions.
        """
        super().__init__(name="captioner")
        self.units, self.dropout, self.precision, self.jit = units, dropout, precision, jit
        self.max_length = max_length
        # Not keras.layers.Normalization: it computes with a copy that tf.train.Checkpoint does not restore.
        # These attributes' names, and those of the layers, are keys of checkpoints.
        self.feature_mean = self.add_weight(
            name="feature_mean", shape=(feature_size,), initializer="zeros", trainable=False
        )
        self.feature_deviation = self.add_weight(
            name="feature_deviation", shape=(feature_size,), initializer="ones", trainable=False
        )
        self.tuned: keras.Model | None = None  # `Cut.tuned`, set by who builds the captioner

    def encoded(self, stored: tf.Tensor) -> tf.Tensor:
        """Returns the features `[B, F]` or `[B, P, F]` of what is stored of images: these, if no layer is tuned.

        Args:
          stored: what `tuned` reads, maps `[B, h, w, C]` or pixels `[B, S, S, 3]`; without it the features.
        """
        return stored if self.tuned is None else self.tuned(stored, training=False)

    @property
    def own_weights(self) -> list[keras.Variable]:
        """The weights without those of the encoder's tuned layers."""
        tuned = {id(weight) for weight in self.tuned.weights} if self.tuned else set()
        return [weight for weight in self.weights if id(weight) not in tuned]

    def adapt(self, stored: np.ndarray) -> None:
        """Sets mean and std of the normalisation from training features `[I, F]` or `[I, P, F]`, read piece by piece.

        With `tuned` it takes what that reads, of I images; the features are those by its weights of now.

        A feature that hardly varies in training would be huge in other images. So the std has a floor:
          std_f = max(std_f, 0.1 mean_f(std_f)).
        If the images are alike, mean_f(std_f) <= 0.01 mean_f(|mean_f|), the floor is mean_f(|mean_f|) instead.
        """
        features = stored if self.tuned is None else EncodedView(self.tuned, stored)
        images = max(1, PART // math.prod(features.shape[1:-1]))
        parts = [slice(i, i + images) for i in range(0, len(features), images)]
        read = (self._vectors(features[part]) for part in parts)
        counts, sums = zip(*((len(vectors), vectors.sum(axis=0, dtype=np.float64)) for vectors in read), strict=True)
        count, mean = sum(counts), sum(sums) / sum(counts)
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
        """Returns features `[B, F]` or `[B, P, F]` after dropout around the training mean, the same in all parts.

        A share `rate` is set to the mean, and the distance of the others from it is scaled up. Sampling and update
        read the same dropped features, so they use one policy, unlike with dropout inside the decoder.
        """
        if rate == 0:
            return features
        if not self.takes_parts:
            return self.feature_mean + row_random.dropout(features - self.feature_mean, rate, seed)
        kept = row_random.dropout(tf.ones_like(features[:, 0]), rate, seed)[:, None]
        dropped = self.feature_mean + (features - self.feature_mean) * kept
        return tf.where(present(features)[..., None], dropped, 0.0)

    def begin(self, features: tf.Tensor, copies: int = 1) -> tuple[Step, State]:
        """Returns what decodes captions of images: a step function and its initial state.

        step(state, tokens `[N]`) -> (state after them, logits `[N, V']` of the next token). V' is V or a little more;
        ids from V on are forbidden. Call this inside the function that is compiled and outside its loops: it lays out
        the weights once for all steps.

        Args:
          features: `[B, F]` or `[B, P, F]`.
          copies: rows of the state for each image, one after the other; N = B * copies at first.
        """
        raise NotImplementedError

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
          features: `[B, F]` or `[B, P, F]`.
          tokens: `[N, T]`, the true or sampled captions (teacher forcing).
          packing: of these captions.
          feature_row: int32 `[N]`, the row of `features` that each caption is of; None: its own, and N = B.
          dropout_seed: of the captions; None: no dropout. It is explicit so that a resumed run draws the same masks.
        """
        raise NotImplementedError

    def attention_weights(self, features: tf.Tensor, tokens: tf.Tensor) -> tf.Tensor:
        """Returns the weights `[N, T, P]` of the parts of its image in what predicts each token (teacher forcing).

        They sum to 1 over the parts that there are. They are 0 for absent parts, and for padding.

        Args:
          features: `[N, P, F]`.
          tokens: `[N, T]`, the captions.

        Raises:
          NotImplementedError: the captioner does not take parts.
        """
        raise NotImplementedError

    def projection(self) -> Projection:
        """Returns the projection from hidden states to logits, with -1e9 added to those of forbidden tokens."""
        forbidden = tf.reduce_sum(tf.one_hot(FORBIDDEN, self.words.units), axis=0) * FORBIDDEN_LOGIT
        return Projection(
            tf.convert_to_tensor(self.words.kernel), self.words.bias + forbidden, self.precision, self.jit
        )

    def _vectors(self, features: np.ndarray) -> np.ndarray:
        """The vectors `[n, F]` that features of some images are made of."""
        if not self.takes_parts:
            return features
        vectors = features.reshape(-1, features.shape[-1])
        return vectors[vectors.any(axis=1)]

    def _normalised(self, features: tf.Tensor) -> tf.Tensor:
        return (features - self.feature_mean) / self.feature_deviation

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

    def _drop(self, values: tf.Tensor, packing: Packing, max_length: int, seed: Seed | None, place: int) -> tf.Tensor:
        if seed is None or self.dropout == 0:
            return values
        return row_random.dropout(values, self.dropout, row_random.fold_in(seed, place), packing.index, max_length)


def copied(state: State, copies: int) -> State:
    """Returns a state in which each row stands so many times, one after the other."""
    return state if copies == 1 else tf.nest.map_structure(lambda leaf: tf.repeat(leaf, copies, axis=0), state)


def read_tokens(tokens: tf.Tensor) -> tf.Tensor:
    """Returns the tokens `[N, T]` that are read before those of captions `[N, T]` are said."""
    return tf.concat([tf.fill([tf.shape(tokens)[0], 1], START), tokens[:, :-1]], axis=1)


def of_words(weights: tf.Tensor, features: tf.Tensor, tokens: tf.Tensor) -> tf.Tensor:
    """Returns attention weights `[N, T, P]` with 0 at padding, and at absent parts where an image has no others."""
    said = tf.cast(tokens != PAD, weights.dtype)[:, :, None]
    return weights * said * tf.cast(present(features), weights.dtype)[:, None]


def mean_of_parts(features: tf.Tensor) -> tf.Tensor:
    """Returns the mean `[B, F]` of the parts that there are, of features `[B, P, F]`; 0 where there are none."""
    there = tf.cast(present(features), tf.float32)
    count = tf.maximum(tf.reduce_sum(there, axis=1, keepdims=True), 1.0)
    return tf.einsum("bp,bpf->bf", there / count, features)


def present(features: tf.Tensor) -> tf.Tensor:
    """Returns bool `[B, P]`: the parts that there are, of features `[B, P, F]`."""
    return tf.reduce_any(features != 0, axis=2)
