"""CIDEr-D on token ids, compiled: captions in, scores out, no host round trip.

Vedantam, Zitnick, Parikh, "CIDEr: Consensus-based Image Description Evaluation" (CVPR 2015), the D variant of
the COCO evaluation: counts clipped to the reference's, a Gaussian penalty on the difference in length, times 10.

With f the idf of an n-gram g that the caption holds c times and the reference r times, the cosine's parts are
sum_g f^2 min(c, r) r and sum_g f^2 c^2. Both are summed over the caption's positions: of the c occurrences of g,
the one after k others adds f^2 r [k < r] and f^2 (2 k + 1).
"""

import pathlib

import numpy as np
import tensorflow as tf

from spidercap.models.special_tokens import PAD
from spidercap.pipeline.cached_arrays import cached_arrays, entry, key_of
from spidercap.pipeline.metrics import key_table
from spidercap.pipeline.metrics.compiled import family_of_one
from spidercap.pipeline.metrics.document_frequencies import DocumentFrequencies
from spidercap.pipeline.metrics.key_table import KeyTable
from spidercap.pipeline.metrics.mapped import as_tensor
from spidercap.pipeline.metrics.ngrams import (
    BITS,
    ORDERS,
    counted,
    ends,
    in_chunks,
    limbs_of,
    repeats,
)
from spidercap.pipeline.metrics.references import References, prepared
from spidercap.pipeline.metrics.size_classes import alike, doublings

SIGMA = 6.0
SCALE = 10.0


class Cider:
    """CIDEr-D of captions against prepared references, with given document frequencies."""

    def __init__(
        self,
        references: References | np.ndarray,
        frequencies: DocumentFrequencies,
        dtype: tf.DType = tf.float32,
        cache: pathlib.Path | None = None,
    ):
        """Takes references, or their ids int `[I, R, L]`; the folder `cache` keeps what is made of them."""
        references = prepared(references)
        self._dtype = dtype
        self._longest = references.longest
        self._positions = references.positions
        known = cache and _key(frequencies, dtype)
        self._idf = InverseFrequencies(frequencies, dtype, entry(cache, "idf", known))
        self._present = tf.constant(references.present, dtype)  # [I, R]
        self._bigrams = tf.constant(np.maximum(references.lengths - 1, 0), dtype)  # [I, R]
        folder = cache and entry(cache, "norms", key_of(known, references.ids))
        made = cached_arrays(folder, ("norms",), lambda: {"norms": self._reference_norms(references.ids)})
        self._norms = as_tensor(made["norms"])  # [I, R, 4]

    def __call__(self, candidates: tf.Tensor, image_index: tf.Tensor) -> tf.Tensor:
        """Returns dtype `[N]` for captions int `[N, T]`, padded, of images `[N]` (rows of the references)."""
        width = self._positions.limbs * self._present.shape[1] + limbs_of(candidates.shape[1])
        return in_chunks(self._score, width, candidates, image_index, self._dtype)

    def _score(self, words: tf.Tensor, image_index: tf.Tensor) -> tf.Tensor:
        most = max(self._longest, words.shape[0])
        norms = tf.gather(self._norms, image_index)
        limbs = self._positions(words, image_index)
        similarity = tf.zeros([], self._dtype)
        orders = zip(ORDERS, ends(limbs), repeats(words), self._idf(words), strict=True)
        for order, places, earlier, idf in orders:
            count, rank = counted(places, most), counted(earlier, most)
            clipped = tf.cast(tf.where(rank[:, :, None] < count, count, tf.zeros_like(count)), self._dtype)
            product = tf.reduce_sum(idf[:, :, None] ** 2 * clipped, 0)  # [N, R]
            norm = self._norm(idf, rank)[:, None] * norms[:, :, order - 1]
            similarity += tf.math.divide_no_nan(product, norm)
        length = tf.reduce_sum(tf.cast(words != PAD, self._dtype), 0)
        difference = tf.maximum(length - 1, 0)[:, None] - tf.gather(self._bigrams, image_index)
        present = tf.gather(self._present, image_index)
        total = tf.reduce_sum(similarity * tf.exp(-(difference**2) / (2 * SIGMA**2)) * present, 1)
        return SCALE / len(ORDERS) * tf.math.divide_no_nan(total, tf.reduce_sum(present, 1))

    def _norm(self, idf: tf.Tensor, rank: tf.Tensor) -> tf.Tensor:
        """The length `[N]` of a vector of tf-idf weights."""
        return tf.sqrt(tf.reduce_sum(idf**2 * (2 * tf.cast(rank, self._dtype) + 1), 0))

    def _reference_norms(self, references: np.ndarray) -> np.ndarray:
        """Returns `[I, R, 4]`; short references are not computed over the steps of the longest one."""
        flat = references.reshape(-1, references.shape[-1])
        lengths = (flat != PAD).sum(-1).tolist()
        result = np.zeros([len(flat), len(ORDERS)], self._dtype.as_numpy_dtype)
        for rows in alike(range(len(flat)), lambda row: doublings(lengths[row], BITS)):
            longest = min(flat.shape[1], BITS << doublings(lengths[rows[0]], BITS))

            def norms(words, _, longest=longest):
                orders = zip(repeats(words), self._idf(words), strict=True)
                return tf.stack([self._norm(idf, counted(earlier, longest)) for earlier, idf in orders], 1)

            words = tf.constant(flat[rows, :longest])
            result[rows] = in_chunks(norms, limbs_of(longest) + 1, words, tf.zeros(len(rows), tf.int64), self._dtype)
        return result.reshape(*references.shape[:2], len(ORDERS))


class InverseFrequencies:
    """Inverse document frequencies of the n-grams of captions."""

    def __init__(self, frequencies: DocumentFrequencies, dtype: tf.DType, folder: pathlib.Path | None = None):
        """Takes the folder of the cache for these frequencies in this dtype."""
        names = [f"{name}{order}" for order in ORDERS for name in ("idf", "slots", "factors")[: 1 if order == 1 else 3]]
        made = cached_arrays(folder, tuple(names), lambda: _idf_tables(frequencies, dtype.as_numpy_dtype))
        self._unknown = frequencies.base  # the id of all words outside of the corpus
        self._tables = [KeyTable(made[f"slots{order}"], made[f"factors{order}"]) for order in ORDERS[1:]]
        self._idf = [as_tensor(made[f"idf{order}"]) for order in ORDERS]

    def __call__(self, words: tf.Tensor):
        """Yields, for each order n, dtype `[T - n + 1, N]` for words int64 `[T, N]`; 0 where a caption has ended.

        An n-gram that is not in the corpus has the idf of one that occurs in a single image.
        """
        known = tf.minimum(words, self._unknown)
        place = known
        for order, idf in zip(ORDERS, self._idf, strict=True):
            last = words[order - 1 :]
            if order > 1:
                key = place[: last.shape[0]] * (self._unknown + 1) + known[order - 1 :]
                place = self._tables[order - 2].find(key)
            yield tf.where(last != PAD, tf.gather(idf, place), tf.zeros([], idf.dtype))


def _idf_tables(frequencies: DocumentFrequencies, dtype: type) -> dict[str, np.ndarray]:
    """Tables of n-grams, and the idf of each: order 1 by word, the others by place; the last is of unknown ones."""
    log_images = np.log(max(frequencies.images, 1))
    tables = frequencies.tables()
    found = {}
    sizes = [(frequencies.keys[0], frequencies.base), *((table.places, len(table.slots)) for table in tables)]
    for order, (places, size), counts in zip(ORDERS, sizes, frequencies.counts, strict=True):
        idf = np.full(size + 1, log_images)
        idf[places] -= np.log(np.maximum(counts, 1))
        found[f"idf{order}"] = idf.astype(dtype)
    for order, table in zip(ORDERS[1:], tables, strict=True):
        found |= {f"slots{order}": table.slots, f"factors{order}": table.factors}
    return found


def _key(frequencies: DocumentFrequencies, dtype: tf.DType) -> str:
    """Changes with the frequencies, the dtype and the code that makes tables of them."""
    code = map(pathlib.Path, (__file__, key_table.__file__))
    return key_of(*code, dtype.name, frequencies.base, frequencies.images, *frequencies.keys, *frequencies.counts)


CIDER = family_of_one(
    "cider", lambda inputs: Cider(inputs.references, inputs.frequencies(), inputs.dtype, inputs.cache)
)
