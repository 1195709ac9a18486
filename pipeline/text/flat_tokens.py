"""Tokenised captions of images as flat arrays: a few bytes per word, and counted and encoded without Python loops."""

import collections
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from spidercap.models.special_tokens import PAD

T = TypeVar("T")


class FlatTokens(NamedTuple):
    """C captions of I images, one after the other: ids of tokens, or numbers of words."""

    tokens: np.ndarray  # int32 [S]
    captions: np.ndarray  # int64 [C + 1], where each caption begins in `tokens`
    images: np.ndarray  # int64 [I + 1], where the captions of each image begin in `captions`

    @property
    def lengths(self) -> np.ndarray:
        """The number of tokens of each caption, int64 `[C]`."""
        return np.diff(self.captions)

    @property
    def counts(self) -> np.ndarray:
        """The number of captions of each image, int64 `[I]`."""
        return np.diff(self.images)

    def ended(self, token: int) -> "FlatTokens":
        """Returns the captions with one token more at the end of each."""
        longer = np.full(len(self.tokens) + len(self.captions) - 1, token, np.int32)
        captions = self.captions + np.arange(len(self.captions))
        inside = np.ones(len(longer), bool)
        inside[captions[1:] - 1] = False
        longer[inside] = self.tokens
        return FlatTokens(longer, captions, self.images)

    def padded(self, length: int, captions: np.ndarray | None = None) -> np.ndarray:
        """Returns int32 `[n, length]`, by default of all captions; longer ones are cut."""
        captions = np.arange(len(self.captions) - 1) if captions is None else captions
        rows = np.full([len(captions), length], PAD, np.int32)
        place = np.arange(length)
        for begin in range(0, len(rows), ROWS):
            here = captions[begin : begin + ROWS]
            kept = place < self.lengths[here][:, None]
            where = self.captions[here][:, None] + place
            rows[begin : begin + ROWS][kept] = self.tokens[where[kept]]
        return rows

    def part(self, first: int, last: int) -> "FlatTokens":
        """Returns the captions of the images from `first` on, before `last`."""
        images = self.images[first : last + 1]
        captions = self.captions[images[0] : images[-1] + 1]
        return FlatTokens(self.tokens[captions[0] : captions[-1]], captions - captions[0], images - images[0])

    def caption(self, number: int) -> np.ndarray:
        """Returns the tokens of one caption."""
        return self.tokens[self.captions[number] : self.captions[number + 1]]


ROWS = 2**16  # captions that are padded at once, which bounds temporary arrays


def flat_tokens(references: Iterable[Iterable[Sequence[int]]]) -> FlatTokens:
    """Returns captions `[I][R][tokens]` as flat arrays."""
    captions, counts = [], []
    for of_image in references:
        before = len(captions)
        captions.extend(of_image)
        counts.append(len(captions) - before)
    tokens = [token for caption in captions for token in caption]
    return FlatTokens(np.array(tokens, np.int32), begins(map(len, captions)), begins(counts))


def begins(sizes: Iterable[int]) -> np.ndarray:
    """Returns where parts of such sizes `[n]` begin, and where the last one ends: int64 `[n + 1]`."""
    return np.concatenate([[0], np.cumsum(np.fromiter(sizes, np.int64))]).astype(np.int64)


class Words(NamedTuple):
    """Tokenised captions: the number of each word in a list of different ones."""

    different: tuple[str, ...]  # [W]
    numbers: FlatTokens

    def counted(self) -> collections.Counter[str]:
        """Returns how often each word occurs."""
        counts = np.bincount(self.numbers.tokens, minlength=len(self.different))
        return collections.Counter(dict(zip(self.different, counts.tolist(), strict=True)))

    def lists(self) -> "OfImages[list[str]]":
        """Returns the words of each caption."""
        return OfImages(self, list)

    def texts(self) -> "OfImages[str]":
        """Returns the captions as text, words split by one space."""
        return OfImages(self, " ".join)


class OfImages(Sequence[list[T]], Generic[T]):
    """The captions `[I][R]` of Words, made when they are asked for."""

    def __init__(self, words: Words, make: Callable[[Iterable[str]], T]):
        """`make` makes a caption of its words."""
        self.words, self._make = words, make

    def __len__(self) -> int:
        return len(self.words.numbers.images) - 1

    def __getitem__(self, image):
        if isinstance(image, slice):
            return [self[i] for i in range(*image.indices(len(self)))]
        image = range(len(self))[image]
        numbers, different = self.words.numbers, self.words.different
        return [
            self._make(different[number] for number in numbers.caption(caption).tolist())
            for caption in range(numbers.images[image], numbers.images[image + 1])
        ]


def words_of(texts: Sequence[Sequence[str]]) -> Words:
    """Returns captions `[I][R]`, words split by blanks, as Words."""
    if isinstance(texts, OfImages):
        return texts.words
    numbers: dict[str, int] = {}
    flat = flat_tokens(
        [[numbers.setdefault(word, len(numbers)) for word in caption.split()] for caption in of_image]
        for of_image in texts
    )
    return Words(tuple(numbers), flat)
