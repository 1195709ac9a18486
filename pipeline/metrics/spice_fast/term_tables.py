"""Tables of the compiled matching: synonyms of terms, and which tuples of an image's references a term fits.

Shapes: I images, L limbs of bits, one bit per tuple.
"""

import collections
import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

from spidercap.pipeline.metrics.ngrams import BITS, FULL, KeyTable, limbs_of
from spidercap.pipeline.metrics.spice_fast.scene_graph import Node, SceneGraph, relation_word
from spidercap.pipeline.metrics.spice_fast.synonyms import Synonyms

FIRST, SECOND, LAST = range(3)  # places in a tuple; attributes are last too
PLACES = {1: (FIRST,), 2: (FIRST, LAST), 3: (FIRST, SECOND, LAST)}
MOST_RANKS = 2048  # that float16 holds exactly
NOTHING: frozenset[int] = frozenset()


class Terms:
    """Numbers of terms. Compared parts of relations that are not among the given terms follow them."""

    def __init__(self, terms: Sequence[str], synonyms: Synonyms):
        """Takes the distinct strings of terms 0, 1, ...; the first is ""."""
        self._given = len(terms)
        numbers = {term: number for number, term in enumerate(terms)}
        relations = [numbers.setdefault(relation_word(term), len(numbers)) for term in terms]
        self.count = len(numbers)
        self._relations = np.array(relations, np.int64)
        self._relation_table = tf.constant(self._relations)
        self._senses = [synonyms(term) for term in numbers]

    def known(self, terms):
        """Returns the internal numbers of given terms (NumPy or TensorFlow, int64)."""
        where = tf.where if tf.is_tensor(terms) else np.where
        return where(terms < self._given, terms, terms + (self.count - self._given))

    def relation(self, terms):
        """Returns the internal numbers of the compared parts of relations, given theirs."""
        if not tf.is_tensor(terms):
            inside = terms < self._given
            return np.where(inside, self._relations[np.where(inside, terms, 0)], terms)
        inside = terms < self._given
        return tf.where(inside, tf.gather(self._relation_table, tf.where(inside, terms, 0)), terms)

    def senses(self, term: int) -> frozenset[int]:
        """Returns the synsets of an internal number."""
        return self._senses[term] if term < self.count else NOTHING


class Similarities:
    """The similarity of two different terms."""

    def __init__(self, terms: Terms):
        self._terms = terms
        of_sense = collections.defaultdict(list)
        for term in range(terms.count):
            for sense in terms.senses(term):
                of_sense[sense].append(term)
        pairs = {pair for together in of_sense.values() for pair in itertools.permutations(together, 2)}
        self.synonyms: dict[int, list[int]] = collections.defaultdict(list)
        for one, other in pairs:
            self.synonyms[one].append(other)
        # Terms with synonyms get rows of a table of all pairs, because looking up keys takes three times as long.
        # float16 is the smallest type that can be gathered on GPUs.
        row = {term: number for number, term in enumerate(sorted(self.synonyms), 1)}
        shares = [_share(terms.senses(one), terms.senses(other)) for one, other in pairs]
        ranks = np.unique(np.array(shares, np.float64), return_inverse=True)[1] + 1
        self._width = len(row) + 1
        table = np.zeros([self._width, self._width], np.float16)
        for (one, other), rank in zip(pairs, np.minimum(ranks, MOST_RANKS), strict=True):
            table[row[one], row[other]] = rank
        self._table = tf.constant(table.ravel())
        self._rows = tf.constant([row.get(term, 0) for term in range(terms.count)], tf.int32)

    def rows(self, terms: tf.Tensor) -> tf.Tensor:
        """Returns the rows int32 of terms int64, for `__call__`."""
        return tf.gather(self._rows, tf.where(terms < self._terms.count, terms, 0))

    def __call__(self, one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
        """Returns int32, larger for a larger share of common synsets, 0 for none and for equal terms.

        Args:
          one, other: `rows` of the terms.
        """
        return tf.cast(tf.gather(self._table, one * self._width + other), tf.int32)


class References:
    """The merged tuples of each image's references."""

    def __init__(self, terms: Terms, similar: Similarities, references: Sequence[np.ndarray]):
        """Takes int `[n, 3]` for each image."""
        self._terms, self._similar = terms, similar
        keys: list[tuple[int, int]] = []
        rows: list[list[int]] = [[0, 0, 0]]  # of no term
        kinds, sizes = [], []
        for image, tuples in enumerate(references):
            merged = self._merged(np.asarray(tuples, np.int64).reshape(-1, 3))
            fits = self._fits(merged)
            keys += [(image, term) for term in fits]
            rows += fits.values()
            kinds.append([_bits(len(one) == length for one in merged) for length in (1, 2, 3)])
            sizes.append(len(merged))
        limbs = limbs_of(max(sizes, default=0))
        self._sizes = tf.constant(sizes, tf.int32, [len(sizes)])
        self._kinds = tf.constant(_limbs(kinds, limbs))
        self._rows = [tf.constant(of_place) for of_place in _limbs(rows, limbs)]
        self._find(np.array(keys, np.int64).reshape(-1, 2))

    def _find(self, keys: np.ndarray) -> None:
        self._base = int(keys[:, 1].max(initial=0)) + 1
        self._table = KeyTable(keys[:, 0] * self._base + keys[:, 1])
        by_place = np.zeros(self._table.size + 1, np.int32)
        by_place[self._table.places] = np.arange(1, len(keys) + 1)
        self._row_of_place = tf.constant(by_place)

    def fits(self, images: tf.Tensor, terms: tf.Tensor, places: Sequence[int]) -> tf.Tensor:
        """Returns limbs `[places, L, W, N]`: which tuples of images `[N]` the terms int64 `[W, N]` fit.

        `places` in a tuple are some of FIRST, SECOND and LAST.
        """
        known = tf.where(terms < self._base, terms, 0)
        row = tf.gather(self._row_of_place, self._table.find(images * self._base + known))
        return tf.stack([tf.gather(self._rows[place], row, axis=1) for place in places])

    def kinds(self, images: tf.Tensor) -> tf.Tensor:
        """Returns limbs `[3, L, N]`: which tuples have one, two and three terms."""
        return tf.gather(self._kinds, images, axis=2)

    def sizes(self, images: tf.Tensor) -> tf.Tensor:
        """Returns int32 `[N]`, the numbers of tuples of images `[N]`."""
        return tf.gather(self._sizes, images)

    def _merged(self, tuples: np.ndarray) -> list[tuple[Node, ...]]:
        inside = self._terms.known(tuples)
        inside[:, 2] = self._terms.relation(inside[:, 2])
        graph = SceneGraph(self._terms.senses)
        for terms in inside.tolist():
            if terms[0]:
                graph.add([term for term in terms if term])
        return list(graph.tuples())

    def _fits(self, merged: list[tuple[Node, ...]]) -> dict[int, list[int]]:
        """Returns for each term the tuples that it fits as FIRST, SECOND and LAST, as bits of an int each."""
        fits: dict[int, list[int]] = collections.defaultdict(lambda: [0, 0, 0])
        overlapping: dict[Node, set[int]] = {}
        for number, nodes in enumerate(merged):
            for place, node in zip(PLACES[len(nodes)], nodes, strict=True):
                if node not in overlapping:
                    overlapping[node] = node.words.union(*(self._similar.synonyms.get(w, ()) for w in node.words))
                for term in overlapping[node]:
                    fits[term][place] |= 1 << number
        return fits


def _share(one: frozenset[int], other: frozenset[int]) -> float:
    return len(one & other) / len(one | other)


def _bits(flags: Iterable[bool]) -> int:
    return sum(1 << number for number, flag in enumerate(flags) if flag)


def _limbs(rows: Sequence[Sequence[int]], limbs: int) -> np.ndarray:
    """Returns int64 `[3, limbs, rows]` of three ints per row."""
    flat = [bits for row in rows for bits in row]
    parts = [[bits >> (BITS * limb) & FULL for bits in flat] for limb in range(limbs)]
    return np.array(parts, np.int64).reshape(limbs, -1, 3).transpose(2, 0, 1).copy()
