"""The words of captions and references as arrays, and the n-grams that captions share with their references.

A word is a number, and so is an n-gram: that of its first n - 1 words and its last word, numbered anew for each n. So
no two n-grams are confused, and counting them is sorting whole numbers.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

ORDERS = (1, 2, 3, 4)


class Grams(NamedTuple):
    """The distinct n-grams of every caption and of every reference, for one n."""

    image: np.ndarray  # int64 [C]: a caption's n-gram: its image, ascending,
    kind: np.ndarray  # int64 [C]: which n-gram it is,
    count: np.ndarray  # int64 [C]: and how often the caption holds it
    reference: np.ndarray  # int64 [D]: a reference's n-gram: the number of the reference, ascending,
    reference_kind: np.ndarray  # int64 [D]
    reference_count: np.ndarray  # int64 [D]
    place: np.ndarray  # int64 [D]: the row among the first three of the same n-gram in the image's caption, or -1
    kinds: int  # how many n-grams there are


class Captions:
    """One caption for each of I images, and M references, all as words."""

    def __init__(self, references: Sequence[Sequence[Sequence[str]]], captions: Sequence[Sequence[str]]):
        """Takes the words of each image's references, and of its caption."""
        self.references = references
        self.captions = captions
        self.lengths = _sizes(captions)  # int64 [I]
        self.counts = _sizes(references)  # int64 [I], references of each image
        self.image = np.repeat(np.arange(len(references)), self.counts)  # int64 [M], of each reference
        self.reference_lengths = _sizes(itertools.chain.from_iterable(references))  # int64 [M]

    @functools.cached_property
    def grams(self) -> tuple[Grams, ...]:
        """The n-grams for n from 1 to 4."""
        lengths = np.concatenate([self.lengths, self.reference_lengths])
        ids, base = _numbered([*itertools.chain(*self.captions), *itertools.chain(*itertools.chain(*self.references))])
        caption = np.repeat(np.arange(len(lengths)), lengths)
        left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(ids))  # words from here to the caption's end
        begins, kind, kinds, found = np.arange(len(ids)), ids, base, []
        for order in ORDERS:
            if order > 1:
                whole = left[begins] >= order
                begins = begins[whole]
                kind, kinds = _renumbered(kind[whole] * base + ids[begins + order - 1])
            found.append(self._grams(caption[begins], kind, kinds))
        return tuple(found)

    def _grams(self, caption: np.ndarray, kind: np.ndarray, kinds: int) -> Grams:
        """The n-grams, given one by one by their captions, references after captions, and their kinds."""
        keys, counts = distinct(caption * kinds + kind)
        caption, kind = np.divmod(keys, max(kinds, 1))
        end = np.searchsorted(caption, len(self.captions))
        reference = caption[end:] - len(self.captions)
        same = self.image[reference] * kinds + kind[end:]
        place = np.searchsorted(keys[:end], same)
        place[np.append(keys[:end], -1)[place] != same] = -1
        return Grams(caption[:end], kind[:end], counts[:end], reference, kind[end:], counts[end:], place, kinds)


# One computation on words: captions -> the score of the corpus and float64 `[I]` of the images, of each of its metrics.
WordMetric = Callable[[Captions], dict[str, tuple[float, np.ndarray]]]


def distinct(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the different keys, ascending, and how often each comes; np.unique takes ten times as long."""
    keys = np.sort(keys)
    begins = np.flatnonzero(_begins(keys))
    return keys[begins], np.diff(begins, append=len(keys))


def mean(scores: np.ndarray) -> float:
    """Returns the mean over images; 0 without images."""
    return float(scores.mean()) if len(scores) else 0.0


def _sizes(collections: Iterable[Sequence]) -> np.ndarray:
    return np.array([len(collection) for collection in collections], np.int64)


def _numbered(words: Sequence[str]) -> tuple[np.ndarray, int]:
    """Returns the number of each word, int64, and how many different words there are."""
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
    return np.fromiter(map(numbers.__getitem__, words), np.int64, len(words)), len(numbers)


def _renumbered(keys: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns numbers from 0, the same for the same key, and how many different keys there are."""
    order = np.argsort(keys)
    number = np.cumsum(_begins(keys[order]))
    numbers = np.empty_like(keys)
    numbers[order] = number - 1
    return numbers, int(number[-1]) if len(number) else 0


def _begins(keys: np.ndarray) -> np.ndarray:
    """Returns which of sorted keys differ from the one before."""
    return np.append(True, keys[1:] != keys[:-1])[: len(keys)]
