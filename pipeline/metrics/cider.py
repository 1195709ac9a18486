"""CIDEr-D on token ids, compiled: captions in, scores out, no host round trip.

Vedantam, Zitnick, Parikh, "CIDEr: Consensus-based Image Description Evaluation" (CVPR 2015), the D variant of
the COCO evaluation: counts clipped to the reference's, a Gaussian penalty on the difference in length, times 10.

An n-gram of ids below `base` is packed into one int64 as a number with n digits to that base, so two different
n-grams never share a key: there is nothing to collide. This needs base**4 < 2**63, base <= 55,108.

Shapes: I images, R references an image, L their length, N captions, T steps, G n-grams in the corpus, E pairs
of an image and an n-gram of its references.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from models.captioner import END, PAD

ORDERS = (1, 2, 3, 4)
MAX_BASE = 55_108
SIGMA = 6.0
SCALE = 10.0


@dataclasses.dataclass(frozen=True)
class DocumentFrequencies:
    """How many images' references hold an n-gram; one sorted table for each order."""

    base: int
    images: int
    keys: tuple[np.ndarray, ...]  # int64 [G] for each order
    counts: tuple[np.ndarray, ...]  # int64 [G] for each order


def count_document_frequencies(references: np.ndarray, base: int) -> DocumentFrequencies:
    """Returns the frequencies in references `[I, R, L]`, int ids below `base`, padded with PAD.

    Raises:
      ValueError: `base` is too large for 4-grams to have keys of their own.
    """
    if base > MAX_BASE:
        raise ValueError(f"{base:,} different words; CIDEr's n-gram keys hold at most {MAX_BASE:,}")
    tables = []
    for order in ORDERS:
        keys = _keys(references, base, order)
        image, key = _unique_pairs(keys)
        del image
        tables.append(np.unique(key, return_counts=True))
    keys, counts = zip(*tables, strict=True)
    return DocumentFrequencies(base, len(references), keys, counts)


class Cider:
    """CIDEr-D of captions against prepared references, with given document frequencies."""

    def __init__(self, references: np.ndarray, frequencies: DocumentFrequencies):
        """Prepares references `[I, R, L]`; an image may have fewer than R, the rest being all padding."""
        self._frequencies = frequencies
        self._log_images = float(np.log(max(frequencies.images, 1)))
        self._orders = [self._prepare(references, n) for n in range(len(ORDERS))]
        length = (references != PAD).sum(-1)
        self._present = tf.constant(length > 0, tf.float32)  # [I, R]
        self._bigrams = tf.constant(np.maximum(length - 1, 0), tf.float32)  # [I, R]

    def __call__(self, candidates: tf.Tensor, image_index: tf.Tensor) -> tf.Tensor:
        """Returns float32 `[N]` for captions int32 `[N, T]`, padded, of images `[N]` (rows of the references)."""
        length = tf.reduce_sum(tf.cast(candidates != PAD, tf.float32), axis=1)
        difference = tf.maximum(length - 1, 0)[:, None] - tf.gather(self._bigrams, image_index)
        penalty = tf.exp(-(difference**2) / (2 * SIGMA**2))
        similarity = tf.add_n([self._similarity(candidates, image_index, n) for n in range(len(ORDERS))])
        present = tf.gather(self._present, image_index)
        total = tf.reduce_sum(similarity * penalty * present, axis=1)
        return SCALE / len(ORDERS) * tf.math.divide_no_nan(total, tf.reduce_sum(present, axis=1))

    def _prepare(self, references: np.ndarray, n: int) -> dict[str, tf.Tensor]:
        """tf-idf weights of every (image, n-gram) pair, sorted by pair, one column a reference."""
        known, counts = self._frequencies.keys[n], self._frequencies.counts[n]
        keys = _keys(references, self._frequencies.base, ORDERS[n])  # [I, R, L']
        images, per_image = keys.shape[:2]
        valid = keys.ravel() >= 0
        image = np.repeat(np.arange(images), keys[0].size)[valid]
        reference = np.tile(np.repeat(np.arange(per_image), keys.shape[2]), images)[valid]
        flat = keys.ravel()[valid]
        # References of another split hold n-grams that the corpus lacks: numbered after the corpus's own.
        ngrams = np.union1d(known, flat)
        idf = np.full(len(ngrams), self._log_images)
        idf[np.searchsorted(ngrams, known)] -= np.log(np.maximum(counts, 1))
        gram = np.searchsorted(ngrams, flat)
        pair, row = np.unique(image * len(ngrams) + gram, return_inverse=True)
        weights = np.zeros([len(pair), per_image])
        np.add.at(weights, (row, reference), 1.0)
        weights *= idf[pair % max(len(ngrams), 1)][:, None]
        norm = np.zeros([images, per_image])
        np.add.at(norm, pair // max(len(ngrams), 1), weights**2)
        return {
            "ngrams": tf.constant(ngrams, tf.int64),
            "idf": tf.constant(np.append(idf, self._log_images), tf.float32),
            "pairs": tf.constant(pair, tf.int64),
            "weights": tf.constant(np.vstack([weights, np.zeros([1, per_image])]), tf.float32),
            "norm": tf.constant(np.sqrt(norm), tf.float32),
        }

    def _similarity(self, candidates: tf.Tensor, image_index: tf.Tensor, n: int) -> tf.Tensor:
        """Cosine with clipped counts `[N, R]` for n-grams of one order."""
        table = self._orders[n]
        keys = _compiled_keys(candidates, self._frequencies.base, ORDERS[n])  # [N, T']
        valid = keys >= 0
        same = (keys[:, :, None] == keys[:, None, :]) & valid[:, None, :]
        count = tf.reduce_sum(tf.cast(same, tf.float32), axis=2)
        share = tf.where(valid, tf.math.divide_no_nan(1.0, count), 0.0)  # so that a repeated n-gram counts once
        gram = _lookup(table["ngrams"], keys)
        weight = count * tf.gather(table["idf"], gram)
        norm = tf.sqrt(tf.reduce_sum(share * weight**2, axis=1))
        grams = table["ngrams"].shape[0]
        pair = tf.cast(image_index, tf.int64)[:, None] * grams + tf.cast(gram, tf.int64)
        row = _lookup(table["pairs"], tf.where(valid & (gram < grams), pair, -1))
        reference = tf.gather(table["weights"], row)  # [N, T', R]
        product = tf.minimum(weight[:, :, None], reference) * reference
        total = tf.reduce_sum(share[:, :, None] * product, axis=1)
        return tf.math.divide_no_nan(total, norm[:, None] * tf.gather(table["norm"], image_index))


def without_end(captions):
    """Returns int captions of any shape with the end token turned into padding (NumPy or TensorFlow)."""
    where = tf.where if tf.is_tensor(captions) else np.where
    return where(captions == END, PAD, captions)


def _unique_pairs(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (image, key) of every pair that occurs in keys `[I, R, L']`, each once."""
    rows = [np.unique(image) for image in keys]
    rows = [r[r >= 0] for r in rows]
    return np.repeat(np.arange(len(rows)), [len(r) for r in rows]), np.concatenate([*rows, np.zeros(0, np.int64)])


def _keys(captions: np.ndarray, base: int, order: int) -> np.ndarray:
    """Returns int64 keys `[..., max(L - order + 1, 0)]` of n-grams; -1 where the caption has ended."""
    captions = captions.astype(np.int64)
    width = max(captions.shape[-1] - order + 1, 0)
    windows = [captions[..., i : i + width] for i in range(order)]
    keys = np.zeros(captions.shape[:-1] + (width,), np.int64)
    for window in windows:
        keys = keys * base + window
    return np.where(windows[-1] != PAD, keys, -1)


def _compiled_keys(captions: tf.Tensor, base: int, order: int) -> tf.Tensor:
    """`_keys` in the graph: `[N, T]` -> `[N, max(T - order + 1, 0)]`."""
    captions = tf.cast(captions, tf.int64)
    width = max(captions.shape[1] - order + 1, 0)
    windows = [captions[:, i : i + width] for i in range(order)]
    keys = tf.zeros_like(windows[0])
    for window in windows:
        keys = keys * base + window
    return tf.where(windows[-1] != PAD, keys, -1)


def _lookup(table: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
    """Returns the places int32 of `keys` (any shape) in the sorted table `[G]`; G where a key is not in it."""
    size = table.shape[0]
    if size == 0:
        return tf.zeros_like(keys, tf.int32)
    place = tf.reshape(tf.searchsorted(table, tf.reshape(keys, [-1])), tf.shape(keys))
    found = tf.gather(table, tf.minimum(place, size - 1)) == keys
    return tf.where(found, place, size)
