"""Tables of the compiled matching: which tuples of an image's references a term fits.

Shapes: I images, L limbs of bits, one bit per tuple.
"""

import collections
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from spidercap.pipeline.metrics.mapped import as_tensor
from spidercap.pipeline.metrics.ngrams import BITS, limbs_of
from spidercap.pipeline.metrics.size_classes import doublings
from spidercap.pipeline.metrics.spice_fast.levels import LEVELS
from spidercap.pipeline.metrics.spice_fast.scene_graph import Node, SceneGraph
from spidercap.pipeline.metrics.spice_fast.terms import Similarities, Terms

FIRST, SECOND, LAST = range(3)  # places in a tuple; attributes are last too
PLACES = {1: (FIRST,), 2: (FIRST, LAST), 3: (FIRST, SECOND, LAST)}
PART = 1000  # images
TOGETHER = 16  # parts whose tables are joined: the memory of large arrays goes back to the system when they are freed
# Of the references of a class of images.
ROWS = ("first", "second", "last")  # of FIRST, SECOND and LAST
TABLES = ("sizes", "kinds", "levels", *ROWS, "base", "keys", "begins")


class References:
    """The merged tuples of each image's references."""

    def __init__(self, terms: Terms, tables: Mapping[str, np.ndarray]):
        """Takes the arrays of `reference_tables`."""
        self._terms = terms
        self._sizes, self._kinds, self._levels = (tf.constant(tables[name]) for name in TABLES[:3])
        self._rows = [as_tensor(tables[name]) for name in ROWS]
        self._base = int(tables["base"])
        self._most = int(np.diff(tables["begins"]).max(initial=0))  # terms of an image
        self._keys, self._begins = as_tensor(tables["keys"]), as_tensor(tables["begins"])

    def fits(self, images: tf.Tensor, terms: tf.Tensor, places: Sequence[int]) -> tf.Tensor:
        """Returns limbs `[places, L, W, N]`: which tuples of images `[N]` the terms int64 `[W, N]` fit.

        `places` in a tuple are some of FIRST, SECOND and LAST.
        """
        known = tf.where(terms < self._base, terms, 0)
        row = self._row(images, images * self._base + known)
        return tf.stack([tf.gather(self._rows[place], row, axis=1) for place in places])

    def _row(self, images: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        """The rows of keys `[W, N]`; the last one, of no term, if there is none.

        A binary search in the rows of the image: a few steps in memory that lies together. Rows of later images have
        larger keys, so only the end of all needs care.
        """
        last = tf.size(self._keys, tf.int64) - 1
        row = tf.broadcast_to(tf.gather(self._begins, images), tf.shape(keys))
        for bit in reversed(range(self._most.bit_length())):
            further = row + (1 << bit)
            smaller = tf.gather(self._keys, tf.minimum(further - 1, last)) < keys
            row = tf.where(smaller, further, row)
        return tf.where(tf.gather(self._keys, row) == keys, row, last)

    def kinds(self, images: tf.Tensor) -> tf.Tensor:
        """Returns limbs `[3, L, N]`: which tuples have one, two and three terms."""
        return tf.gather(self._kinds, images, axis=2)

    def sizes(self, images: tf.Tensor) -> tf.Tensor:
        """Returns int32 `[N]`, the sums of the levels of all tuples of images `[N]`."""
        return tf.gather(self._sizes, images)

    def levels(self, images: tf.Tensor) -> list[tf.Tensor]:
        """Returns limbs `[L, N]` of each level: which tuples of images `[N]` reach it."""
        return tf.unstack(tf.gather(self._levels, images, axis=2))


class _Part(NamedTuple):
    """Tables of some images: of n images, with g terms that fit their tuples in all."""

    image: np.ndarray  # int32 [g], among all images
    term: np.ndarray  # int32 [g]
    rows: np.ndarray  # int64 [3, L, g]
    kinds: np.ndarray  # int64 [3, L, n]
    levels: np.ndarray  # int64 [LEVELS, L, n]
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
      references: the tuples of each image with their levels, int `[n, 4]`.
    """
    # In parts: as Python's numbers and lists, the tables of 100,000 images would need ten times their memory.
    parts: dict[int, list[_Part]] = collections.defaultdict(list)
    small: dict[int, list[_Part]] = collections.defaultdict(list)
    numbered = enumerate(references)
    while some := list(itertools.islice(numbered, PART)):
        by_class = collections.defaultdict(list)
        for image, tuples in some:
            merged = _merged(terms, np.asarray(tuples, np.int64).reshape(-1, 4))
            by_class[doublings(len(merged), BITS)].append((image, merged))
        for number, images in by_class.items():
            small[number].append(_part(terms, similar, images))
            if len(small[number]) == TOGETHER:
                parts[number].append(_one(small.pop(number)))
    for number, rest in small.items():
        parts[number] += rest
    if not parts:
        parts[0] = [_part(terms, similar, [])]
    return [_tables(parts.pop(number)) for number in sorted(parts)]


def _part(terms: Terms, similar: Similarities, images: Sequence[tuple[int, list[tuple[Node, ...]]]]) -> _Part:
    """The tables of some images and their merged tuples."""
    fitting: list[int] = []  # terms, one node after the other
    nodes_at: list[tuple[int, int, int, int]] = []  # (image, number of its tuple, place, terms that fit the node)
    tuples: list[tuple[int, int, int, int]] = []  # (image, number, nodes, level)
    for row, (_, merged) in enumerate(images):
        overlapping: dict[Node, list[int]] = {}
        for number, nodes in enumerate(merged):
            tuples.append((row, number, len(nodes), nodes[-1].level))
            for place, node in zip(PLACES[len(nodes)], nodes, strict=True):
                if node not in overlapping:
                    overlapping[node] = _overlapping(terms, similar, node)
                fitting += overlapping[node]
                nodes_at.append((row, number, place, len(overlapping[node])))
    sizes = [len(merged) for _, merged in images]
    limbs, base = limbs_of(max(sizes, default=0)), max(fitting, default=0) + 1
    row, number, place, count = np.array(nodes_at, np.int64).reshape(-1, 4).T
    row, number, place = (np.repeat(values, count) for values in (row, number, place))
    keys, column = np.unique(row * base + np.array(fitting, np.int64), return_inverse=True)
    of_image, of_number, of_length, level = np.array(tuples, np.int64).reshape(-1, 4).T
    reached = np.arange(LEVELS)[:, None] < level
    least, some = np.nonzero(reached)
    numbers = np.array([image for image, _ in images], np.int32)
    return _Part(
        numbers[keys // base],
        (keys % base).astype(np.int32),
        _bits([3, limbs, len(keys)], place, number, column),
        _bits([3, limbs, len(images)], of_length - 1, of_number, of_image),
        _bits([LEVELS, limbs, len(images)], least, of_number[some], of_image[some]),
        numbers,
        np.bincount(of_image, level, len(images)).astype(np.int32),
    )


def _overlapping(terms: Terms, similar: Similarities, node: Node) -> list[int]:
    """The terms that a candidate can hold and that fit a node."""
    words = node.words.union(*map(similar.synonyms, node.words))
    return [word for word in words if terms.is_said(word)]


def _bits(shape: Sequence[int], first: np.ndarray, number: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Returns int64 `[first, limb, last]` with the bits of these numbers."""
    bits = np.zeros(shape, np.int64)
    np.bitwise_or.at(bits, (first, number // BITS, last), np.left_shift(np.int64(1), number % BITS))
    return bits


def _one(parts: list[_Part]) -> _Part:
    """The tables of several parts of a class."""
    image, term, images, sizes = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("image", "term", "images", "sizes")
    )
    rows, kinds, levels = (_joined([getattr(part, name) for part in parts]) for name in ("rows", "kinds", "levels"))
    return _Part(image, term, rows, kinds, levels, images, sizes)


def _tables(parts: list[_Part]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The images of a class, and their tables; the parts are used up, or there would be two of each table."""
    images, sizes, of_image, of_term = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("images", "sizes", "image", "term")
    )
    kinds, levels = (_joined([getattr(part, name) for part in parts]) for name in ("kinds", "levels"))
    rows = []
    while parts:
        rows.append(parts.pop(0).rows)
    rows.append(np.zeros([3, 1, 1], np.int64))  # of no term
    base = int(of_term.max(initial=0)) + 1
    keys = np.full(len(of_term) + 1, np.iinfo(np.int64).max)  # of no term: larger than all
    keys[:-1] = np.searchsorted(images, of_image)
    begins = np.searchsorted(keys, np.arange(len(images) + 1))
    keys[:-1] *= base
    keys[:-1] += of_term
    return images, {
        "sizes": sizes,
        "kinds": kinds,
        "levels": levels,
        **dict(zip(ROWS, _joined(rows), strict=True)),
        "base": np.array(base),
        "keys": keys,
        "begins": begins,
    }


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Returns int64 `[K, limbs, sum of n]` of parts `[K, as many or fewer, n]`, which are used up."""
    limbs, width = max(part.shape[1] for part in parts), sum(part.shape[2] for part in parts)
    found, begin = np.zeros([len(parts[0]), limbs, width], np.int64), 0
    while parts:
        part = parts.pop(0)
        found[:, : part.shape[1], begin : begin + part.shape[2]] = part
        begin += part.shape[2]
    return found


def _merged(terms: Terms, tuples: np.ndarray) -> list[tuple[Node, ...]]:
    inside = terms.known(tuples[:, :3])
    inside[:, 2] = terms.relation(inside[:, 2])
    graph = SceneGraph(terms.senses)
    for of_tuple, level in zip(inside.tolist(), tuples[:, 3].tolist(), strict=True):
        if of_tuple[0]:
            graph.add([term for term in of_tuple if term], level)
    return list(graph.tuples())
