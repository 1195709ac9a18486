"""Terms as numbers, and the similarity of those that captions can hold, looked up in a graph."""

import collections
import functools
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from spidercap.pipeline.metrics.spice_fast.scene_graph import relation_word
from spidercap.pipeline.metrics.spice_fast.synonyms import Synonyms

MOST_RANKS = 2048  # that float16 holds exactly
NOTHING: frozenset[int] = frozenset()


class Terms:
    """Numbers of terms. Compared parts of relations that are not among the given terms follow them."""

    def __init__(self, terms: Sequence[str], synonyms: Synonyms, said: np.ndarray | None = None):
        """Takes the distinct strings of terms 0, 1, ...; the first is "".

        Args:
          said: bool, which of them candidates can hold; by default all.
        """
        self._given = len(terms)
        numbers = {term: number for number, term in enumerate(terms)}
        relations = [numbers.setdefault(relation_word(term), len(numbers)) for term in terms]
        self.count = len(numbers)
        self._relations = np.array(relations, np.int64)
        self._relation_table = tf.constant(self._relations)
        self._senses = [synonyms(term) for term in numbers]
        given = np.ones(self._given, bool) if said is None else said
        self._said = np.zeros(self.count, bool)
        self._said[: self._given] = given
        self._said[self._relations[given]] = True

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

    def is_said(self, term: int) -> bool:
        """Returns whether a candidate can hold an internal number."""
        return term >= self.count or bool(self._said[term])


class Similarities:
    """The similarity of two different terms that candidates can hold."""

    def __init__(self, terms: Terms):
        self._terms = terms
        said = [term for term in range(terms.count) if terms.is_said(term)]
        of_sense = collections.defaultdict(set)
        for term in said:
            for sense in terms.senses(term):
                of_sense[sense].add(term)
        self._of_sense = dict(of_sense)
        # The others that candidates can hold and that have a synset in common with a term.
        self.synonyms: Callable[[int], frozenset[int]] = functools.cache(self._synonyms_of)
        pairs = [(one, other) for one in said for other in self.synonyms(one)]
        ones, others = np.array(pairs, np.int64).reshape(-1, 2).T
        # Terms with synonyms get rows of a table of all pairs, because looking up keys takes three times as long.
        # float16 is the smallest type that can be gathered on GPUs.
        with_row = np.unique(ones)
        rows = np.zeros(terms.count, np.int32)
        rows[with_row] = np.arange(1, len(with_row) + 1)
        shares = [_share(terms.senses(one), terms.senses(other)) for one, other in pairs]
        ranks = np.unique(np.array(shares, np.float64), return_inverse=True)[1] + 1
        self._width = len(with_row) + 1
        places = tf.constant(rows[ones].astype(np.int64) * self._width + rows[others])[:, None]
        ranks = tf.constant(np.minimum(ranks, MOST_RANKS), tf.float16)
        self._table = tf.scatter_nd(places, ranks, [tf.constant(self._width, tf.int64) ** 2])
        self._rows = tf.constant(rows)

    def _synonyms_of(self, term: int) -> frozenset[int]:
        return frozenset().union(*(self._of_sense.get(sense, ()) for sense in self._terms.senses(term))) - {term}

    def rows(self, terms: tf.Tensor) -> tf.Tensor:
        """Returns the rows int32 of terms int64, for `__call__`."""
        return tf.gather(self._rows, tf.where(terms < self._terms.count, terms, 0))

    def __call__(self, one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
        """Returns int32, larger for a larger share of common synsets, 0 for none and for equal terms.

        Args:
          one, other: `rows` of the terms.
        """
        return tf.cast(tf.gather(self._table, one * self._width + other), tf.int32)


def _share(one: frozenset[int], other: frozenset[int]) -> float:
    return len(one & other) / len(one | other)
