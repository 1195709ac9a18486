"""A network that parses captions into scene graphs: objects, their attributes, and relations between them.

Two bidirectional LSTM layers read the words. A pair of words is scored by a product of two vectors, one for each word's
role in the pair (Dozat, Manning, "Deep biaffine attention for neural dependency parsing", 2017). A relation points to
the word that names it, and has a label.

Shapes: N captions, T words of the longest, n packed words (models/packing.py), V words of a vocabulary, R relations.
"""

from typing import NamedTuple

import keras
import tensorflow as tf

from spidercap.models.packed_lstm import packed_lstm
from spidercap.models.packing import Packing, pack, steps_of

FORMS = ("surface", "noun", "verb")  # of a word's lemma
FURTHEST = 16  # words apart; larger distances count as this one


class SceneParserSizes(NamedTuple):
    """Sizes that determine the shapes of all weights."""

    words: int  # in the vocabulary; id 0 stands for all others
    affixes: int  # hash buckets of prefixes and suffixes
    labels: int  # of relations
    embedding: int = 192
    units: int = 128  # of an LSTM, one direction
    pair: int = 64  # size of the vector of a word's role in a pair


class Read(NamedTuple):
    """Scores and states of captions; pairs are (head or subject, attribute or object)."""

    objects: tf.Tensor  # [N, T] logits
    forms: tf.Tensor  # [N, T, 3] logits of FORMS
    attributes: tf.Tensor  # [N, T, T] logits
    relations: tf.Tensor  # [N, T, T] logits
    states: tf.Tensor  # [n + 1, 2 units] of packed words, then a row of zeros
    place: tf.Tensor  # int32 [N, T], a word's row in `states`; n beyond a caption's end
    there: tf.Tensor  # bool [N, T], whether there is a word


class SceneParser(keras.Model):
    """From words to logits of objects, attributes and relations."""

    def __init__(self, sizes: SceneParserSizes, dropout: float = 0.0):
        """Builds all weights; `dropout` is the rate in training."""
        super().__init__(name="scene_parser")
        self.sizes, self.dropout = sizes, dropout
        units, width, pair = sizes.units, 2 * sizes.units, sizes.pair
        self.word_embedding = self._weight("word_embedding", sizes.words, sizes.embedding, std=0.1)
        self.affix_embedding = self._weight("affix_embedding", sizes.affixes, sizes.embedding, std=0.1)
        self.first = self._weight("first", sizes.embedding, 8 * units)
        self.first_bias = self._bias("first_bias", 8 * units)
        self.second = self._weight("second", width, 8 * units)
        self.second_bias = self._bias("second_bias", 8 * units)
        # Each an attribute, as checkpoints do not hold the weights of a list.
        self.recurrent0, self.recurrent1, self.recurrent2, self.recurrent3 = (
            self.add_weight(name=f"recurrent{k}", shape=(units, 4 * units), initializer="orthogonal") for k in range(4)
        )
        # One product for all roles of a word: two in attributes, two in relations, then object and forms.
        self.roles = self._weight("roles", width, 4 * pair + 1 + len(FORMS))
        self.roles_bias = self._bias("roles_bias", 4 * pair + 1 + len(FORMS))
        self.distance = self._weight("distance", 2 * FURTHEST + 1, 2, std=0.01, mean=-3.0)  # most pairs are not related
        self.pair_scale = self.add_weight(name="pair_scale", shape=(2,), initializer="ones")
        self.ends = self._weight("ends", 2 * width, 2 * pair)
        self.ends_bias = self._bias("ends_bias", 2 * pair)
        self.named = self._weight("named", width, 2 * pair)
        self.unnamed = self._weight("unnamed", 1, 2 * pair, std=0.1)
        self.pointer = self._weight("pointer", 2 * pair, 2 * pair)
        self.labels = self._weight("labels", 2 * pair, sizes.labels)
        self.labels_bias = self._bias("labels_bias", sizes.labels)
        self.built = True

    def _weight(self, name: str, rows: int, columns: int, std: float = 0.0, mean: float = 0.0) -> keras.Variable:
        initializer = keras.initializers.RandomNormal(mean, std) if std else "glorot_uniform"
        return self.add_weight(name=name, shape=(rows, columns), initializer=initializer)

    def _bias(self, name: str, size: int) -> keras.Variable:
        return self.add_weight(name=name, shape=(size,), initializer="zeros")

    @property
    def recurrent(self) -> list[keras.Variable]:
        """The recurrent kernels: of the first layer forward and backward, of the second forward and backward."""
        return [self.recurrent0, self.recurrent1, self.recurrent2, self.recurrent3]

    def word_gates(
        self, words: tf.Tensor, affixes: tf.Tensor, seed: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns two of `[..., 4 units]`, the words' part of the first layer's gates, forward and backward.

        Without dropout it depends on the word alone, so a vocabulary needs one table, computed once.

        Args:
          words: `[...]`, word ids; 0 for words outside the vocabulary.
          affixes: `[..., A]`, hash buckets of prefixes and suffixes.
          seed: `[2]`; None: no dropout.
        """
        read = tf.gather(tf.convert_to_tensor(self.word_embedding), words)
        read += tf.reduce_sum(tf.gather(tf.convert_to_tensor(self.affix_embedding), affixes), axis=-2)
        forward, backward = tf.split(tf.matmul(self._drop(read, seed, 0), self.first) + self.first_bias, 2, axis=-1)
        return forward, backward

    def read(self, captions: tf.Tensor, gates: tuple[tf.Tensor, tf.Tensor], seed: tf.Tensor | None = None) -> Read:
        """Returns all logits but those of labels.

        Args:
          captions: `[N, T]`, rows of `gates`; after a caption's end padding, 0.
          gates: two of `[V, 4 units]`, `word_gates` of a vocabulary.
          seed: `[2]`; None: no dropout.
        """
        packing = pack(captions)
        mirror, place = _places(captions, packing)
        words = packing.of(captions)
        # Word ids are reversed rather than gates, as they are the narrowest.
        sums = [tf.gather(gates[0], words), tf.gather(gates[1], tf.gather(words, mirror))]
        states = self._drop(self._layer(sums, 0, packing, mirror), seed, 1)
        kernels, biases = tf.split(self.second, 2, axis=1), tf.split(self.second_bias, 2)
        states = [states, tf.gather(states, mirror)]
        sums = [tf.nn.bias_add(tf.matmul(*pair), bias) for *pair, bias in zip(states, kernels, biases, strict=True)]
        states = self._drop(self._layer(sums, 2, packing, mirror), seed, 2)
        there = captions != 0
        roles = tf.nn.bias_add(tf.matmul(states, self.roles), self.roles_bias)
        place = tf.where(there, place, tf.shape(states)[0])
        states, roles = (tf.pad(values, [[0, 1], [0, 0]]) for values in (states, roles))
        pair = self.sizes.pair
        *ends, objects, forms = tf.split(tf.gather(roles, place), [pair] * 4 + [1, len(FORMS)], axis=2)
        steps = tf.range(steps_of(captions))
        apart = tf.clip_by_value(steps[None, :] - steps[:, None], -FURTHEST, FURTHEST) + FURTHEST
        near = tf.gather(tf.convert_to_tensor(self.distance), apart)
        attributes, relations = (
            self.pair_scale[k] * tf.matmul(ends[2 * k], ends[2 * k + 1], transpose_b=True) / pair**0.5 + near[:, :, k]
            for k in range(2)
        )
        return Read(objects[:, :, 0], forms, attributes, relations, states, place, there)

    def relations(self, read: Read, pairs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns logits of the word that names each relation, `[R, 1 + T]` (0: no word), and its ends, `[R, 2 pair]`.

        Args:
          read: the captions.
          pairs: int32 `[R, 3]`, (caption, subject, object).
        """
        places = tf.gather(read.place, pairs[:, 0])  # [R, T]
        subject, other = (tf.gather(read.states, tf.gather(places, pairs[:, k], batch_dims=1)) for k in (1, 2))
        ends = tf.nn.bias_add(tf.matmul(tf.concat([subject, other], axis=1), self.ends), self.ends_bias)
        asked = tf.matmul(tf.nn.relu(ends), self.pointer)
        # The question is projected to the states, which avoids projecting every word as a name, [R, T, 2 pair].
        question = tf.matmul(asked, tf.convert_to_tensor(self.named), transpose_b=True)
        words = tf.gather(read.states, places)
        logits = tf.matmul(words, question[:, :, None])[:, :, 0] / self.pointer.shape[1] ** 0.5
        logits = tf.where(tf.gather(read.there, pairs[:, 0]), logits, -1e9)
        none = tf.matmul(asked, tf.convert_to_tensor(self.unnamed), transpose_b=True)
        return tf.concat([none, logits], axis=1), ends

    def label_logits(self, read: Read, pairs: tf.Tensor, ends: tf.Tensor, pointed: tf.Tensor) -> tf.Tensor:
        """Returns logits `[R, labels]` of relations named by words `pointed` `[R]` (0: no word; else 1 + its index)."""
        places = tf.gather(tf.gather(read.place, pairs[:, 0]), tf.maximum(pointed - 1, 0), batch_dims=1)
        name = tf.matmul(tf.gather(read.states, places), self.named)
        name = tf.where(pointed[:, None] > 0, name, tf.convert_to_tensor(self.unnamed))
        return tf.nn.bias_add(tf.matmul(tf.nn.relu(ends + name), self.labels), self.labels_bias)

    def _layer(self, sums: list[tf.Tensor], first: int, packing: Packing, mirror: tf.Tensor) -> tf.Tensor:
        """Hidden states `[n, 2 units]` of gates' inputs `[n, 4 units]`, forward and, in reversed order, backward."""
        start = tf.zeros([tf.shape(packing.order)[0], self.sizes.units])
        forward, backward = (
            packed_lstm(gates, start, start, tf.convert_to_tensor(kernel), packing, tf.float32)
            for gates, kernel in zip(sums, self.recurrent[first : first + 2], strict=True)
        )
        return tf.concat([forward, tf.gather(backward, mirror)], axis=1)

    def _drop(self, values: tf.Tensor, seed: tf.Tensor | None, place: int) -> tf.Tensor:
        if seed is None or self.dropout == 0:
            return values
        return tf.nn.experimental.stateless_dropout(
            values, self.dropout, tf.random.experimental.stateless_fold_in(seed, place)
        )


def _places(captions: tf.Tensor, packing: Packing) -> tuple[tf.Tensor, tf.Tensor]:
    """Rows of each packed word in the reversed caption, `[n]`, and of a caption's words, `[N, T]`."""
    begins = tf.cumsum(packing.counts, exclusive=True)
    rank = tf.argsort(packing.order)  # of a caption among all, the longest first
    lengths = tf.reduce_sum(tf.cast(captions != 0, tf.int32), axis=1)
    row, step = packing.index[:, 0], packing.index[:, 1]
    mirror = tf.gather(begins, tf.gather(lengths, row) - 1 - step) + tf.gather(rank, row)
    return mirror, begins[None, :] + rank[:, None]
