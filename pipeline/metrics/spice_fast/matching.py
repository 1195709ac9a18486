"""SPICE's matching in a graph: tuples of numbers against the scene graphs of an image's references.

The rules are those of scene_graph.py. References are merged on the host. For each term that overlaps one of an image's
nodes, a table holds which of the image's tuples it fits as first, second and last term, as bits of int64 "limbs",
found by the key (image, term). A candidate's node fits every tuple that one of its words fits, so that its tuples are
matched by a few ands and ors. Further bits tell the tuples of each level.

There is one difference. If a candidate's term overlaps two of its own earlier objects, one of which has several
different words, it joins the object with the most similar word, instead of the object with the most similar union.

Shapes: N candidates, P tuples each, K slots for different terms of a candidate's objects, L limbs. The last of four
columns of tuples is the level. Inside, N comes last, so that each step reads whole rows.
"""

import functools
import pathlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tensorflow as tf

from spidercap.pipeline.cached_arrays import cached_arrays
from spidercap.pipeline.metrics.ngrams import in_chunks
from spidercap.pipeline.metrics.size_classes import by_class
from spidercap.pipeline.metrics.spice_fast.synonyms import Synonyms, wordnet_synonyms
from spidercap.pipeline.metrics.spice_fast.term_tables import (
    FIRST,
    LAST,
    SECOND,
    TABLES,
    References,
    reference_tables,
)
from spidercap.pipeline.metrics.spice_fast.terms import Similarities, Terms

WIDTH = 11  # of in_chunks: about 500 candidates of 24 tuples per chunk, which is fastest


class Matcher:
    """Counts the tuples of candidates that match their images' references."""

    def __init__(
        self,
        terms: Sequence[str],
        references: Iterable[np.ndarray] | Callable[[], Iterable[np.ndarray]],
        synonyms: Synonyms | None = None,
        folder: pathlib.Path | None = None,
        said: np.ndarray | None = None,
    ):
        """Takes the strings of all terms, and the tuples of images' references.

        Args:
          terms: the strings of terms 0, 1, ...; term 0 is "", no term. Higher numbers are terms that match only
            themselves.
          references: int `[n, 4]` per image, the concatenated tuples of its references in the parser's order:
            [object, 0, 0, level], [object, attribute, 0, level], [subject, object, relation, level]; or a function
            that returns them, which is called if the folder does not hold what is made of them.
          synonyms: WordNet's by default.
          folder: of the cache, for this metric of these references alone.
          said: bool, which terms candidates can hold; by default all. The tables are of these alone.
        """
        self._terms = Terms(terms, synonyms or wordnet_synonyms(), said)
        self._similar = Similarities(self._terms)
        made = functools.cache(lambda: self._made(references() if callable(references) else references))
        class_of = cached_arrays(folder, ("class_of",), lambda: {"class_of": made()[0]})["class_of"]
        classes = []
        for number in range(int(class_of.max(initial=0)) + 1):
            of_class = folder and folder / f"class{number}"
            tables = cached_arrays(of_class, TABLES, lambda number=number: made()[1][number])
            count = functools.partial(self._of_class, References(self._terms, tables))
            classes.append((np.flatnonzero(class_of == number), count))
        made.cache_clear()
        self._counts = by_class(classes, 3, tf.int32)

    def _made(self, references: Iterable[np.ndarray]) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
        """The size class int32 `[I]` of each image, and the tables of each class."""
        classes = reference_tables(self._terms, self._similar, references)
        class_of = np.zeros(sum(len(images) for images, _ in classes), np.int32)
        for number, (images, _) in enumerate(classes):
            class_of[images] = number
        return class_of, [tables for _, tables in classes]

    def __call__(self, tuples: tf.Tensor, image_index: tf.Tensor) -> tf.Tensor:
        """Returns int32 `[N, 3]`: sums of levels of tuples matched, of the candidate's, of the references'.

        Args:
          tuples: int `[N, P, 4]` like those of references, with rows of zeros anywhere; a candidate must have at most P
            different objects, which holds if each object has its own tuple.
          image_index: int `[N]`.
        """
        steps = tuples.shape[1]
        return self._counts(tf.reshape(tuples, [-1, 4 * steps]), image_index)

    def _of_class(self, references: References, flat: tf.Tensor, image_index: tf.Tensor) -> tf.Tensor:
        return in_chunks(functools.partial(self._chunk, references), WIDTH, flat, image_index, tf.int32)

    def _chunk(self, references: References, flat: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        """Takes tuples `[4P, N]` and images `[N]`."""
        tuples = tf.reshape(flat, [flat.shape[0] // 4, 4, -1])
        first, second, last = tf.unstack(self._terms.known(tuples[:, :3]), axis=1)
        levels = tf.cast(tuples[:, 3], tf.int32)
        related = last > 0
        mentions = tf.reshape(tf.stack([first, tf.where(related, second, 0)], 1), [2 * first.shape[0], -1])
        nodes, node_of_mention, fits = self._objects(references, mentions, tf.repeat(levels, 2, axis=0), images)
        kinds, of_levels = references.kinds(images), references.levels(images)
        values = tf.where((first > 0) & (second > 0), tf.where(related, self._terms.relation(last), second), 0)
        there, fitting = self._descriptions(references, node_of_mention, related, values, levels, fits, kinds, images)
        matched = _matched(nodes, fits[FIRST] & kinds[0][:, None], of_levels) + _matched(there, fitting, of_levels)
        predicted = tf.reduce_sum(nodes, 0) + tf.reduce_sum(there, 0)
        return tf.stack([matched, predicted, references.sizes(images)], 1)

    def _objects(
        self, references: References, mentions: tf.Tensor, levels: tf.Tensor, images: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Merges objects, given mentions and their levels `[2P, N]`.

        Returns:
          int32 `[K, N]`: the level of each slot's node; 0 if it has none.
          int32 `[2P, N]`: the slot of the node of each mention.
          int64 `[2, L, K, N]`: the tuples that each node fits as FIRST and SECOND.
        """
        slots = mentions.shape[0] // 2
        words, levels, slot_of_mention = _distinct(mentions, levels, slots)
        rows = self._similar.rows(words)
        bits = references.fits(images, words, [FIRST, SECOND])
        place = tf.range(slots)[:, None]

        def join(step, node, highest, fits):
            rank = tf.where(place < step, self._similar(rows, rows[step]), 0)
            best = tf.reduce_max(tf.where(rank > 0, rank * slots + node, -1), 0)
            home = tf.where(best >= 0, best % slots, step)
            node = tf.where(place == step, home, node)
            highest = tf.where(place == home, tf.maximum(highest, levels[step]), highest)
            return node, highest, tf.where(place == home, fits | bits[:, :, step, None], fits)

        none = tf.zeros_like(words, tf.int32)
        node, highest, fits = _for_each(words > 0, join, none, none, tf.zeros_like(bits))
        return highest, _take(node, slot_of_mention), fits

    def _descriptions(
        self, references: References, node_of_mention, related, values, levels, fits, kinds, images
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Merges attributes and relations.

        Returns:
          int32 `[P, N]`: the level of each node; 0 where there is none.
          int64 `[L, P, N]`: the tuples that each node fits.
        """
        steps = values.shape[0]
        place = tf.range(steps)[:, None]
        pairs = tf.reshape(node_of_mention, [steps, 2, -1])
        group = pairs[:, 0] * (steps + 1) + tf.where(related, pairs[:, 1] + 1, 0)
        order = _front(values > 0)
        levels = tf.where(values > 0, levels, 0)
        values, group, levels = (_take(of_tuples, order) for of_tuples in (values, group, levels))
        rows = self._similar.rows(values)
        bits = references.fits(images, values, [LAST])[0]

        def join(step, root, highest, value_fits):
            alike = (self._similar(rows, rows[step]) > 0) | (values == values[step])
            alike &= (group == group[step]) & (place < step)
            home = tf.reduce_min(tf.where(alike, root, step), 0)
            root = tf.where(place == step, home, root)
            highest = tf.where(place == home, tf.maximum(highest, levels[step]), highest)
            return root, highest, tf.where(place == home, value_fits | bits[:, step, None], value_fits)

        none = tf.zeros_like(values, tf.int32)
        _, highest, value_fits = _for_each(values > 0, join, none, none, tf.zeros_like(bits))
        first, second = group // (steps + 1), group % (steps + 1) - 1
        fitting = value_fits & _take(fits[FIRST], first)
        fitting &= tf.where(
            second >= 0, _take(fits[SECOND], tf.maximum(second, 0)) & kinds[2][:, None], kinds[1][:, None]
        )
        return highest, fitting


def _distinct(mentions: tf.Tensor, levels: tf.Tensor, slots: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns int64 `[slots, N]`, the different terms, their highest levels, and the slot of each mention `[M, N]`.

    Terms are in the order of their first mentions, followed by zeros.
    """
    count = mentions.shape[0]
    narrow = tf.cast(mentions, tf.int32)
    place = tf.range(count)[:, None]
    origin = tf.broadcast_to(place, tf.shape(narrow))
    highest = []
    for step in reversed(range(count)):
        same = narrow[step:] == narrow[step]
        origin = tf.concat([origin[:step], tf.where(same, step, origin[step:])], 0)
        highest.append(tf.reduce_max(tf.where(same, levels[step:], 0), 0))
    first = (narrow > 0) & (origin == place)
    slot = _take(tf.cumsum(tf.cast(first, tf.int32)) - 1, origin)
    places = _front(first)[:slots]
    words, highest = (_take(tf.where(first, of, 0), places) for of in (mentions, tf.stack(highest[::-1])))
    return words, highest, tf.clip_by_value(slot, 0, slots - 1)


def _front(flags: tf.Tensor) -> tf.Tensor:
    """Returns int32 `[W, N]`: the places of true flags, then of false ones, both in order."""
    width = flags.shape[0]
    ranks = tf.where(flags, 2 * width, width) - tf.range(width)[:, None]
    return tf.transpose(tf.math.top_k(tf.transpose(ranks), width).indices)


def _take(rows: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    """Returns `[..., W, N]`: of rows `[..., K, N]`, for each of N, those at places `[W, N]`."""
    count = tf.shape(rows, tf.int64)[-1]
    flat = tf.reshape(rows, tf.concat([tf.shape(rows)[:-2], [-1]], 0))
    taken = tf.gather(flat, tf.cast(places, tf.int64) * count + tf.range(count), axis=-1)
    taken.set_shape([*rows.shape[:-2], places.shape[0], None])
    return taken


def _for_each(present: tf.Tensor, body: Callable, *state: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Returns the state after body(step, *state) for as many steps as the fullest column of `present` `[W, N]` has."""
    steps = tf.reduce_max(tf.reduce_sum(tf.cast(present, tf.int32), 0))

    def advance(step, *state):
        return step + 1, *body(step, *state)

    return tf.while_loop(lambda step, *_: step < steps, advance, (0, *state))[1:]


def _matched(levels: tf.Tensor, fitting: tf.Tensor, of_levels: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns int32 `[N]`, the sum of the levels at which nodes match.

    Args:
      levels: int32 `[W, N]`, of nodes; 0 where there is none.
      fitting: limbs `[L, W, N]`, the references' tuples that each node fits.
      of_levels: limbs `[L, N]` of each level, the references' tuples that reach it.
    """
    found = [
        (levels >= least) & tf.reduce_any(fitting & reaching[:, None] != 0, 0)
        for least, reaching in enumerate(of_levels, 1)
    ]
    return tf.reduce_sum(tf.cast(found, tf.int32), [0, 1])
