"""SPICE's matching in a graph: tuples of numbers against the scene graphs of an image's references.

The rule is scene_graph's. References are merged on the host. What is left of them is, for each term that overlaps one
of an image's nodes, which of the image's tuples it would fit as first, second and last term: bits of int64 "limbs",
found by the key (image, term). A candidate's node fits what any of its words fits, so that its tuples are matched by a
few ands and ors.

One difference is left: where a candidate's term overlaps two of its own earlier objects, one of which stands for
several different words, it joins that with the most similar word, instead of that with the most similar union.

Shapes: N candidates, P tuples each, K slots for different terms of a candidate's objects, L limbs.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from pipeline.metrics.ngrams import in_chunks
from pipeline.metrics.spice_fast.synonyms import Synonyms, wordnet_synonyms
from pipeline.metrics.spice_fast.term_tables import References, Similarities, Terms

WIDTH = 8  # of in_chunks: some 900 candidates of 24 tuples in one go, the fastest


class Matcher:
    """Counts the tuples of candidates that are in their images' references."""

    def __init__(self, terms: Sequence[str], references: Sequence[np.ndarray], synonyms: Synonyms | None = None):
        """Takes the strings of all terms, and the tuples of images' references.

        Args:
          terms: what term 0, 1, ... is; term 0 is "", no term. Higher numbers than these may be used for terms that are
            equal to themselves and nothing else.
          references: int `[n, 3]` for each image, its references' tuples one after the other in the parser's order:
            [object, 0, 0], [object, attribute, 0], [subject, object, relation].
          synonyms: WordNet's by default.
        """
        self._terms = Terms(terms, synonyms or wordnet_synonyms())
        self._similar = Similarities(self._terms)
        self._references = References(self._terms, self._similar, references)

    def __call__(self, tuples: tf.Tensor, image_index: tf.Tensor) -> tf.Tensor:
        """Returns int32 `[N, 3]`: tuples matched, the candidate's, the references'.

        Args:
          tuples: int `[N, P, 3]` as the references', rows of zeros anywhere; at most P different objects in a
            candidate, as is so where each object has a tuple of its own.
          image_index: int `[N]`.
        """
        steps = tuples.shape[1]
        flat = tf.reshape(tuples, [-1, 3 * steps])
        return in_chunks(self._chunk, WIDTH, flat, image_index, tf.int32)

    def _chunk(self, flat: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        tuples = tf.reshape(tf.transpose(flat), [-1, flat.shape[0] // 3, 3])
        first, second, last = tf.unstack(self._terms.known(tuples), axis=2)
        related = last > 0
        described = (second > 0) & (first > 0)
        mentions = tf.reshape(tf.stack([first, tf.where(related, second, 0)], 2), [-1, 2 * first.shape[1]])
        nodes, node_of_mention, fits = self._objects(mentions, images)
        pairs = tf.reshape(node_of_mention, [-1, first.shape[1], 2])
        values = tf.where(described, tf.where(related, self._terms.relation(last), second), 0)
        kinds = tf.cast(self._references.kinds(images), tf.int64)  # [N, 3, L]
        said = tf.reduce_sum(tf.cast(nodes, tf.int32), 1)
        matched = tf.reduce_sum(tf.cast(nodes & _any_bit(fits[:, :, 0] & kinds[:, None, 0]), tf.int32), 1)
        more = self._descriptions(pairs, related, values, fits, kinds, images)
        return tf.stack([matched + more[0], said + more[1], self._references.sizes(images)], 1)

    def _objects(self, mentions: tf.Tensor, images: tf.Tensor):
        """Merges objects.

        Returns:
          bool `[N, K]`: which slots stand for a node.
          int64 `[N, 2P]`: the slot of the node of each mention.
          int64 `[N, K, 2, L]`: what each node fits as first and second of a tuple.
        """
        slots = mentions.shape[1] // 2
        words, slot_of_mention = _distinct(mentions, slots)
        bits = self._references.fits(images, words)[:, :, :2]
        place = tf.range(slots, dtype=tf.int64)

        def join(step, node, fits):
            word = _column(words, step)
            rank = tf.where(place < step, self._similar(words, word), 0)
            best = tf.reduce_max(tf.where(rank > 0, rank * slots + node, -1), 1, keepdims=True)
            home = tf.where(best >= 0, best % slots, step)
            node = tf.where(place == step, home, node)
            return node, tf.where((place == home)[:, :, None, None], fits | _column(bits, step), fits)

        present = words > 0
        node, fits = _for_each(present, join, tf.zeros_like(words), tf.zeros_like(bits))
        node_of_mention = tf.gather(node, slot_of_mention, batch_dims=1)
        return present & (node == place), node_of_mention, fits

    def _descriptions(self, pairs, related, values, fits, kinds, images) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns int32 `[N]`: how many attributes and relations match, and how many there are."""
        steps = values.shape[1]
        place = tf.range(steps, dtype=tf.int64)
        # Those that there are, moved to the front.
        order = _front(values > 0)
        values, pairs = tf.gather(values, order, batch_dims=1), tf.gather(pairs, order, batch_dims=1)
        related = tf.gather(tf.cast(related, tf.int64), order, batch_dims=1)
        group = tf.where(related > 0, pairs[:, :, 0] * steps + pairs[:, :, 1] + steps, pairs[:, :, 0])
        group = group * 2 + related
        bits = self._references.fits(images, values)[:, :, 2]

        def join(step, root, value_fits):
            word = _column(values, step)
            alike = (self._similar(values, word) > 0) | (values == word)
            alike &= (group == _column(group, step)) & (place < step)
            home = step - tf.reduce_max(tf.where(alike, step - root, 0), 1, keepdims=True)  # no GPU kernel for minima
            root = tf.where(place == step, home, root)
            return root, tf.where((place == home)[:, :, None], value_fits | _column(bits, step), value_fits)

        present = values > 0
        root, value_fits = _for_each(present, join, tf.zeros_like(values), tf.zeros_like(bits))
        first = tf.gather(fits[:, :, 0], pairs[:, :, 0], batch_dims=1)
        second = tf.gather(fits[:, :, 1], pairs[:, :, 1], batch_dims=1)
        of_relation = (related > 0)[:, :, None]
        fitting = first & value_fits & tf.where(of_relation, second & kinds[:, None, 2], kinds[:, None, 1])
        there = present & (root == place)
        return tuple(tf.reduce_sum(tf.cast(one, tf.int32), 1) for one in (there & _any_bit(fitting), there))


def _distinct(mentions: tf.Tensor, slots: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns int64 `[N, slots]`, the different terms in the order of their first mentions, then zeros; and the slot
    of each mention `[N, M]`."""
    narrow = tf.cast(mentions, tf.int32)
    equal = narrow[:, :, None] == narrow[:, None, :]
    earlier = np.tri(mentions.shape[1], k=-1, dtype=bool)
    first = (narrow > 0) & ~tf.reduce_any(equal & earlier, 2)
    order = _front(first)[:, :slots]
    words = tf.gather(tf.where(first, narrow, 0), order, batch_dims=1)
    slot = tf.range(words.shape[1])
    slot_of_mention = tf.reduce_max(tf.where(narrow[:, :, None] == words[:, None, :], slot, 0), 2)
    return tf.cast(words, tf.int64), slot_of_mention


def _front(flags: tf.Tensor) -> tf.Tensor:
    """Returns int32 `[N, W]`: the places of what is flagged, then the others', both in their order."""
    width = flags.shape[1]
    place = tf.range(width)
    return tf.math.top_k(tf.where(flags, 2 * width, width) - place, width).indices


def _for_each(present: tf.Tensor, body: Callable, *state: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Returns the state after body(step, *state) for all steps that any row of `present` `[N, W]` has, from 0 on."""
    steps = tf.reduce_max(tf.reduce_sum(tf.cast(present, tf.int32), 1))

    def advance(step, *state):
        return step + 1, *body(tf.cast(step, tf.int64), *state)

    return tf.while_loop(lambda step, *_: step < steps, advance, (0, *state))[1:]


def _column(rows: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    """Returns `[N, 1, ...]` of rows `[N, W, ...]`."""
    return tf.gather(rows, step[None], axis=1)


def _any_bit(limbs: tf.Tensor) -> tf.Tensor:
    """Returns bool `[...]` of limbs `[..., L]`."""
    return tf.reduce_any(limbs != 0, -1)
