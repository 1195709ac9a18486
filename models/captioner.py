"""The captioner: features of a picture start an LSTM, which says one word after the other."""

import keras
import numpy as np
import tensorflow as tf

PAD, START, END, UNKNOWN = 0, 1, 2, 3
SPECIAL_TOKENS = ("<pad>", "<start>", "<end>", "<unk>")

# What a caption may never hold. One constant for sampling, every decoder and every differentiated
# probability: masked in sampling only, probability would flow to the word that is never pushed down.
UNSAYABLE = (PAD, START, UNKNOWN)

State = tuple[tf.Tensor, tf.Tensor]


class Captioner(keras.Model):
    """Normalised features -> LSTM -> words (Vinyals et al. 2015; Liu et al. 2017, section 3).

    Shapes: B images, N captions, n packed words, T steps, F features, H units, V words.
    """

    def __init__(self, vocabulary_size: int, feature_size: int, units: int, embedding_size: int, dropout: float):
        super().__init__(name="captioner")
        self.dropout = dropout
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
        self.unsayable = tf.reduce_sum(tf.one_hot(UNSAYABLE, vocabulary_size), axis=0) * -1e9
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

    def step(self, state: State, token: tf.Tensor) -> tuple[State, tf.Tensor]:
        """Returns the state after the words `token` `[N]` and the logits `[N, V]` of the next word."""
        hidden, state = self.lstm.cell(self.embedding(token), list(state))
        return tuple(state), self.logits(hidden)

    def hidden(self, features: tf.Tensor, words: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> tf.Tensor:
        """Returns hidden states `[N, T, H]`; the one at t has read the words before t and predicts word t.

        Args:
          features: `[N, F]`.
          words: `[N, T]`, the true or sampled captions (teacher forcing).
          dropout_seed: `[2]`; None switches dropout off. Explicit, so that a resumed run draws the same masks.
        """
        inputs = tf.concat([tf.fill([tf.shape(words)[0], 1], START), words[:, :-1]], axis=1)
        inputs = self._drop(self.embedding(inputs), dropout_seed, 0)
        hidden = self.lstm(inputs, initial_state=list(self.start(features)))
        return self._drop(hidden, dropout_seed, 1)

    def logits(self, hidden: tf.Tensor) -> tf.Tensor:
        """Returns `[n, V]` of hidden states `[n, H]`; words that may not be said are at -1e9."""
        return self.words(hidden) + self.unsayable

    def log_probs(self, hidden: tf.Tensor, words: tf.Tensor, label_smoothing: float = 0.0) -> tf.Tensor:
        """Returns log pi(word | hidden) `[n]` for packed hidden states `[n, H]` and words `[n]`.

        With `label_smoothing`, that share of each is the mean over all words that may be said (Szegedy et al. 2016).
        """
        logits = self.logits(hidden)
        if label_smoothing == 0:
            return -tf.nn.sparse_softmax_cross_entropy_with_logits(labels=words, logits=logits)
        sayable = tf.cast(self.unsayable == 0, tf.float32)
        labels = tf.one_hot(words, len(sayable)) * (1 - label_smoothing) + sayable * (
            label_smoothing / tf.reduce_sum(sayable)
        )
        return -tf.nn.softmax_cross_entropy_with_logits(labels=labels, logits=logits)

    def _drop(self, values: tf.Tensor, seed: tf.Tensor | None, place: int) -> tf.Tensor:
        if seed is None or self.dropout == 0:
            return values
        seed = tf.random.experimental.stateless_fold_in(seed, place)
        return tf.nn.experimental.stateless_dropout(values, self.dropout, seed)
