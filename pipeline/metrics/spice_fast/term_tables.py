"""Tables of the compiled matching: synonyms of terms, and which tuples of an image's references a term fits.

Shapes: I images, L limbs of bits, one bit per tuple.
"""

import collections
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from spidercap.pipeline.metrics.key_table import KeyTable, settled
from spidercap.pipeline.metrics.ngrams import BITS, FULL, limbs_of
from spidercap.pipeline.metrics.size_classes import doublings
from spidercap.pipeline.metrics.spice_fast.scene_graph import Node, SceneGraph, relation_word
from spidercap.pipeline.metrics.spice_fast.synonyms import Synonyms

FIRST, SECOND, LAST = range(3)  # places in a tuple; attributes are last too
PLACES = {1: (FIRST,), 2: (FIRST, LAST), 3: (FIRST, SECOND, LAST)}
MOST_RANKS = 2048  # that float16 holds exactly
NOTHING: frozenset[int] = frozenset()
PART = 1000  # images
# Of the references of a class of images.
TABLES = ("sizes", "kinds", "rows", "base", "row_of_place", "slots", "factors")


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

    def __init__(self, terms: Terms, tables: Mapping[str, np.ndarray]):
        """Takes the arrays of `reference_tables`."""
        self._terms = terms
        self._sizes, self._kinds = tf.constant(tables["sizes"]), tf.constant(tables["kinds"])
        self._rows = [tf.constant(of_place) for of_place in tables["rows"]]
        self._base = int(tables["base"])
        self._table = KeyTable(tables["slots"], tables["factors"])
        self._row_of_place = tf.constant(tables["row_of_place"])

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


class _Part(NamedTuple):
    """Tables of some images: of n images, with g terms that fit their tuples in all."""

    image: np.ndarray  # int32 [g], among all images
    term: np.ndarray  # int32 [g]
    rows: np.ndarray  # int64 [3, L, g]
    kinds: np.ndarray  # int64 [3, L, n]
    images: np.ndarray  # int32 [n]
    sizes: np.ndarray  # int32 [n]


def reference_tables(
    terms: Terms, similar: Similarities, references: Iterable[np.ndarray]
) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Returns the images int `[n]` of each size class, and the arrays TABLES of their references.

    Images of one class have tuples of as many limbs, but for doublings, so that the tables of most have one.

    Args:
      terms: of the tuples.
      similar: of the terms.
      references: the tuples of each image, int `[n, 3]`.
    """
    # In parts: as Python's numbers and lists, the tables of 100,000 images would need ten times their memory.
    parts: dict[int, list[_Part]] = collections.defaultdict(list)
    numbered = enumerate(references)
    while some := list(itertools.islice(numbered, PART)):
        by_class = collections.defaultdict(list)
        for image, tuples in some:
            merged = _merged(terms, np.asarray(tuples, np.int64).reshape(-1, 3))
            by_class[doublings(len(merged), BITS)].append((image, merged))
        for number, images in by_class.items():
            parts[number].append(_part(similar, images))
    if not parts:
        parts[0] = [_part(similar, [])]
    return [_tables(parts.pop(number)) for number in sorted(parts)]


def _part(similar: Similarities, images: Sequence[tuple[int, list[tuple[Node, ...]]]]) -> _Part:
    """The tables of some images and their merged tuples."""
    image_of: list[int] = []
    term_of: list[int] = []
    rows: list[list[int]] = []
    kinds = []
    for image, merged in images:
        fits = _fits(similar, merged)
        image_of += [image] * len(fits)
        term_of += fits
        rows += fits.values()
        kinds.append([_bits(len(one) == length for one in merged) for length in (1, 2, 3)])
    sizes = [len(merged) for _, merged in images]
    limbs = limbs_of(max(sizes, default=0))
    return _Part(
        np.array(image_of, np.int32),
        np.array(term_of, np.int32),
        _limbs(rows, limbs),
        _limbs(kinds, limbs),
        np.array([image for image, _ in images], np.int32),
        np.array(sizes, np.int32),
    )


def _tables(parts: list[_Part]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The images of a class, and their tables; the parts are used up, or there would be two of each table."""
    images, sizes, of_image, of_term = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("images", "sizes", "image", "term")
    )
    kinds = _joined([part.kinds for part in parts])
    rows = [np.zeros([3, 1, 1], np.int64)]  # of no term
    while parts:
        rows.append(parts.pop(0).rows)
    base = int(of_term.max(initial=0)) + 1
    keys = np.searchsorted(images, of_image).astype(np.int64) * base + of_term
    del of_image, of_term
    slots, factors, places = settled(keys)
    row_of_place = np.zeros(len(slots) + 1, np.int32)
    row_of_place[places] = np.arange(1, len(keys) + 1)
    del keys, places
    return images, {
        "sizes": sizes,
        "kinds": kinds,
        "rows": _joined(rows),
        "base": np.array(base),
        "row_of_place": row_of_place,
        "slots": slots,
        "factors": factors,
    }


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Returns int64 `[3, limbs, sum of n]` of parts `[3, as many or fewer, n]`, which are used up."""
    limbs, width = max(part.shape[1] for part in parts), sum(part.shape[2] for part in parts)
    found, begin = np.zeros([3, limbs, width], np.int64), 0
    while parts:
        part = parts.pop(0)
        found[:, : part.shape[1], begin : begin + part.shape[2]] = part
        begin += part.shape[2]
    return found


def _merged(terms: Terms, tuples: np.ndarray) -> list[tuple[Node, ...]]:
    inside = terms.known(tuples)
    inside[:, 2] = terms.relation(inside[:, 2])
    graph = SceneGraph(terms.senses)
    for of_tuple in inside.tolist():
        if of_tuple[0]:
            graph.add([term for term in of_tuple if term])
    return list(graph.tuples())


def _fits(similar: Similarities, merged: list[tuple[Node, ...]]) -> dict[int, list[int]]:
    """Returns for each term the tuples that it fits as FIRST, SECOND and LAST, as bits of an int each."""
    fits: dict[int, list[int]] = collections.defaultdict(lambda: [0, 0, 0])
    overlapping: dict[Node, set[int]] = {}
    for number, nodes in enumerate(merged):
        for place, node in zip(PLACES[len(nodes)], nodes, strict=True):
            if node not in overlapping:
                overlapping[node] = node.words.union(*(similar.synonyms.get(w, ()) for w in node.words))
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
    parts = [[bits >> (BITS * limb) & FULL for bits in flat] for limb in range(limbs)] if limbs > 1 else [flat]
    return np.array(parts, np.int64).reshape(limbs, -1, 3).transpose(2, 0, 1).copy()
