"""CIDEr-D on token ids, compiled: captions in, scores out, no host round trip.

Vedantam, Zitnick, Parikh, "CIDEr: Consensus-based Image Description Evaluation" (CVPR 2015), the D variant of
the COCO evaluation: counts clipped to the reference's, a Gaussian penalty on the difference in length, times 10.

With f the idf of an n-gram g that the caption holds c times and the reference r times, the cosine's parts are
sum_g f^2 min(c, r) r and sum_g f^2 c^2. Both are summed over the caption's positions: of the c occurrences of g,
the one after k others adds f^2 r [k < r] and f^2 (2 k + 1).
"""

import dataclasses
import pathlib
import zipfile

import numpy as np
import tensorflow as tf

from spidercap.models.special_tokens import PAD
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import written_aside
from spidercap.pipeline.metrics.ngrams import (
    ORDERS,
    KeyTable,
    ReferencePositions,
    counted,
    ends,
    in_chunks,
    limbs_of,
    present_references,
    repeats,
)

SIGMA = 6.0
SCALE = 10.0


@dataclasses.dataclass(frozen=True)
class DocumentFrequencies:
    """How many images' references hold an n-gram; one sorted table for each order.

    The key of an n-gram is rank * base + word: `rank` of its first n - 1 words in the table of the order before
    (0 for a single word), `word` its last.
    """

    base: int
    images: int
    keys: tuple[np.ndarray, ...]  # int64 [G] for each order, ascending
    counts: tuple[np.ndarray, ...]  # int64 [G] for each order


def count_document_frequencies(references: np.ndarray, base: int) -> DocumentFrequencies:
    """Returns the frequencies in references int `[I, R, L]`, ids below `base`, padded with PAD."""
    words = np.pad(references, [[0, 0], [0, 0], [0, 1]], constant_values=PAD)
    image = np.repeat(np.arange(len(words)), words[:1].size)
    words = words.ravel()
    needed = (words != PAD) | (np.roll(words, 1) != PAD)  # one PAD after each caption is enough
    return count_in_text(words[needed], image[needed], len(references), base)


def count_in_text(words: np.ndarray, image: np.ndarray, images: int, base: int) -> DocumentFrequencies:
    """Returns the frequencies in captions one after the other, a PAD after each: ids `[S]`, their images `[S]`.

    Raises:
      ValueError: an id is not below `base`, so that n-grams could be mistaken.
    """
    if words.max(initial=0) >= base:
        raise ValueError(f"word {words.max()} in the references; ids go up to {base - 1}")
    begin = np.flatnonzero(words != PAD)
    rank = np.zeros(len(begin), np.int64)
    tables = []
    for order in ORDERS:
        goes_on = words[begin + order - 1] != PAD
        begin, rank = begin[goes_on], rank[goes_on]
        keys, rank = np.unique(rank * base + words[begin + order - 1], return_inverse=True)
        pairs = np.sort(image[begin] * np.int64(len(keys)) + rank)
        once = pairs[np.diff(pairs, prepend=-1) > 0]
        tables.append((keys, np.bincount(once % max(len(keys), 1), minlength=len(keys))))
    keys, counts = zip(*tables, strict=True)
    return DocumentFrequencies(base, images, keys, counts)


def save_document_frequencies(path: pathlib.Path, frequencies: DocumentFrequencies) -> None:
    """Writes what `load_document_frequencies` reads, one .npz file, whole or not at all."""
    arrays = {"base": frequencies.base, "images": frequencies.images}
    for order, keys, counts in zip(ORDERS, frequencies.keys, frequencies.counts, strict=True):
        arrays |= {f"keys{order}": keys, f"counts{order}": counts}
    with written_aside(path) as aside:
        np.savez(aside, **arrays)


def load_document_frequencies(path: pathlib.Path) -> DocumentFrequencies:
    """Returns the saved frequencies.

    Raises:
      UserError: there is no such file, or it holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as saved:
            base, images = int(saved["base"]), int(saved["images"])
            keys = tuple(saved[f"keys{order}"] for order in ORDERS)
            counts = tuple(saved[f"counts{order}"] for order in ORDERS)
        if any(k.shape != c.shape or k.ndim != 1 or k.dtype != np.int64 for k, c in zip(keys, counts, strict=True)):
            raise ValueError("its tables do not belong together")
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} cannot be read as document frequencies ({error}); "
            "it takes a whole .npz file that this program wrote; delete it, so that they are counted anew"
        ) from error
    return DocumentFrequencies(base, images, keys, counts)


class Cider:
    """CIDEr-D of captions against prepared references, with given document frequencies."""

    def __init__(
        self,
        references: np.ndarray,
        frequencies: DocumentFrequencies,
        dtype: tf.DType = tf.float32,
        counts: np.ndarray | None = None,
    ):
        """Prepares references int `[I, R, L]`; an image may have fewer than R, the rest being all padding.

        Args:
          counts: int `[I]`, how many references an image has, where some of them are empty; by default a
            reference without a word is none.
        """
        self._dtype = dtype
        self._longest = references.shape[2]
        self._positions = ReferencePositions(references)
        self._idf = InverseFrequencies(frequencies, dtype)
        self._present = tf.constant(present_references(references, counts), dtype)  # [I, R]
        self._bigrams = tf.constant(np.maximum((references != PAD).sum(-1) - 1, 0), dtype)  # [I, R]
        self._norms = self._reference_norms(references)  # [I, R, 4]

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

    def _reference_norms(self, references: np.ndarray) -> tf.Tensor:
        images, per_image, longest = references.shape

        def norms(words, _):
            orders = zip(repeats(words), self._idf(words), strict=True)
            return tf.stack([self._norm(idf, counted(earlier, longest)) for earlier, idf in orders], 1)

        flat = tf.constant(references.reshape(-1, longest))
        result = in_chunks(norms, limbs_of(longest) + 1, flat, tf.zeros(len(flat), tf.int64), self._dtype)
        return tf.reshape(result, [images, per_image, len(ORDERS)])


class InverseFrequencies:
    """Inverse document frequencies of the n-grams of captions."""

    def __init__(self, frequencies: DocumentFrequencies, dtype: tf.DType):
        self._unknown = frequencies.base  # stands for every word that the corpus cannot know
        log_images = np.log(max(frequencies.images, 1))
        places, self._tables, self._idf = None, [], []
        for order, keys, counts in zip(ORDERS, frequencies.keys, frequencies.counts, strict=True):
            word = keys % frequencies.base
            if order == 1:
                places, size = word, self._unknown
            else:
                table = KeyTable(places[keys // frequencies.base] * (self._unknown + 1) + word)
                places, size = table.places, table.size
                self._tables.append(table)
            idf = np.full(size + 1, log_images)
            idf[places] -= np.log(np.maximum(counts, 1))
            self._idf.append(tf.constant(idf, dtype))

    def __call__(self, words: tf.Tensor):
        """Yields, for each order n, dtype `[T - n + 1, N]` for words int64 `[T, N]`; 0 where a caption has ended.

        An n-gram that the corpus does not know has the idf of one that a single image holds.
        """
        known = tf.minimum(words, self._unknown)
        place = known
        for order, idf in zip(ORDERS, self._idf, strict=True):
            last = words[order - 1 :]
            if order > 1:
                key = place[: last.shape[0]] * (self._unknown + 1) + known[order - 1 :]
                place = self._tables[order - 2].find(key)
            yield tf.where(last != PAD, tf.gather(idf, place), tf.zeros([], idf.dtype))
