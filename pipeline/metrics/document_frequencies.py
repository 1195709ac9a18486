"""Document frequencies of n-grams: counting them in references, saving and loading them."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from spidercap.models.special_tokens import PAD
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import UNREADABLE, written_aside
from spidercap.pipeline.metrics.key_table import Settled, settled
from spidercap.pipeline.metrics.ngrams import ORDERS
from spidercap.pipeline.metrics.size_classes import SizeClass, classes_of


@dataclasses.dataclass(frozen=True)
class DocumentFrequencies:
    """The number of images whose references hold an n-gram; one sorted table per order.

    The key of an n-gram is rank * base + word, with `rank` of its first n - 1 words in the table of order n - 1
    (0 for a single word) and `word` its last word.
    """

    base: int
    images: int
    keys: tuple[np.ndarray, ...]  # int64 [G] for each order, ascending
    counts: tuple[np.ndarray, ...]  # int64 [G] for each order

    def tables(self) -> list[Settled]:
        """Returns tables of the orders from 2 on; an n-gram's key is place of its prefix * (base + 1) + last word."""
        places, tables = self.keys[0], []
        for keys in self.keys[1:]:
            tables.append(settled(places[keys // self.base] * (self.base + 1) + keys % self.base))
            places = tables[-1].places
        return tables


def count_document_frequencies(references: np.ndarray | Sequence[SizeClass], base: int) -> DocumentFrequencies:
    """Returns the frequencies in references int `[I, R, L]`, ids below `base`, padded with PAD, or in size classes."""
    classes = classes_of(references)
    words, image = zip(*(_in_a_row(images, ids) for images, ids in classes), strict=True)
    return count_in_text(np.concatenate(words), np.concatenate(image), sum(len(c.images) for c in classes), base)


def _in_a_row(images: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The words of references `[n, R, L]` with a PAD after each caption, and their images."""
    words = np.pad(ids, [[0, 0], [0, 0], [0, 1]], constant_values=PAD)
    image = np.repeat(images, words[:1].size)
    words = words.ravel()
    needed = (words != PAD) | (np.roll(words, 1) != PAD)  # one PAD after each caption is enough
    return words[needed], image[needed]


def count_in_text(words: np.ndarray, image: np.ndarray, images: int, base: int) -> DocumentFrequencies:
    """Returns the frequencies in concatenated captions, with a PAD after each: ids `[S]`, their images `[S]`.

    Raises:
      ValueError: an id is not below `base`, so that keys would collide.
    """
    if words.max(initial=0) >= base:
        raise ValueError(f"word {words.max()} in the references; ids go up to {base - 1}")
    begin = np.flatnonzero(words != PAD)
    rank = np.zeros(len(begin), np.int64)
    tables = []
    for order in ORDERS:
        whole = words[begin + order - 1] != PAD
        begin, rank = begin[whole], rank[whole]
        keys, rank = np.unique(rank * base + words[begin + order - 1], return_inverse=True)
        pairs = np.sort(image[begin] * np.int64(len(keys)) + rank)
        once = pairs[np.diff(pairs, prepend=-1) > 0]
        tables.append((keys, np.bincount(once % max(len(keys), 1), minlength=len(keys))))
    keys, counts = zip(*tables, strict=True)
    return DocumentFrequencies(base, images, keys, counts)


def save_document_frequencies(path: pathlib.Path, frequencies: DocumentFrequencies) -> None:
    """Writes the .npz file that `load_document_frequencies` reads, whole or not at all."""
    arrays = {"base": frequencies.base, "images": frequencies.images}
    for order, keys, counts in zip(ORDERS, frequencies.keys, frequencies.counts, strict=True):
        arrays |= {f"keys{order}": keys, f"counts{order}": counts}
    with written_aside(path) as aside:
        np.savez(aside, **arrays)


def load_document_frequencies(path: pathlib.Path) -> DocumentFrequencies:
    """Returns the saved frequencies.

    Raises:
      UserError: the file does not exist or has another format.
    """
    try:
        # Opened here: NumPy leaves a file open that turns out to be no archive.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as saved:
            base, images = int(saved["base"]), int(saved["images"])
            keys = tuple(saved[f"keys{order}"] for order in ORDERS)
            counts = tuple(saved[f"counts{order}"] for order in ORDERS)
        if any(k.shape != c.shape or k.ndim != 1 or k.dtype != np.int64 for k, c in zip(keys, counts, strict=True)):
            raise ValueError("its tables do not match")
    except UNREADABLE as error:
        raise UserError(
            f"{path} cannot be read as document frequencies ({error}); "
            "needed: a whole .npz file of this program; delete it, so that they are counted again"
        ) from error
    return DocumentFrequencies(base, images, keys, counts)
