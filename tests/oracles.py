"""Slow versions, written from their equations, that fast code is held against."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from models.captioner import END, PAD, START, UNKNOWN


def captions_of(sayable: Sequence[int], max_length: int) -> Iterator[tuple[int, ...]]:
    """Yields every caption there is: words up to END, or max_length words without it."""
    words = [w for w in sayable if w != END]
    for length in range(max_length):
        for body in itertools.product(words, repeat=length):
            yield (*body, END)
    yield from itertools.product(words, repeat=max_length)


def padded(captions: Sequence[Sequence[int]], max_length: int) -> np.ndarray:
    """Returns int32 `[N, max_length]`."""
    return np.array([list(c) + [PAD] * (max_length - len(c)) for c in captions], np.int32)


def word_probabilities(step: Callable, state: tuple, caption: Sequence[int]) -> list[float]:
    """Returns pi(g_t | g_<t) for each word of a caption, by running the closure word by word."""
    probabilities, token = [], START
    for word in caption:
        state, logits = step(state, np.array([token], np.int32))
        logits = np.asarray(logits, np.float64)[0]
        shifted = np.exp(logits - logits.max())
        probabilities.append(float(shifted[word] / shifted.sum()))
        token = word
    return probabilities


def cider_d(
    candidate: Sequence[int],
    references: Sequence[Sequence[int]],
    corpus: Sequence[Sequence[Sequence[int]]],
    sigma: float = 6.0,
) -> float:
    """CIDEr-D of a caption; `corpus` holds each image's references, from which document frequencies come."""
    total = 0.0
    for order in (1, 2, 3, 4):

        def grams(caption: Sequence[int], order: int = order) -> Counter:
            return Counter(tuple(caption[i : i + order]) for i in range(len(caption) - order + 1))

        frequency = Counter(g for image in corpus for g in {g for c in image for g in grams(c)})

        def vector(caption: Sequence[int], grams=grams, frequency=frequency) -> dict:
            idf = {g: math.log(len(corpus)) - math.log(max(1, frequency[g])) for g in grams(caption)}
            return {g: n * idf[g] for g, n in grams(caption).items()}

        said = vector(candidate)
        for reference in references:
            true = vector(reference)
            norms = math.sqrt(sum(v * v for v in said.values())) * math.sqrt(sum(v * v for v in true.values()))
            if norms == 0:
                continue
            product = sum(min(v, true.get(g, 0.0)) * true.get(g, 0.0) for g, v in said.items())
            # The reference implementation measures length in bigrams.
            gap = max(len(candidate) - 1, 0) - max(len(reference) - 1, 0)
            total += product / norms * math.exp(-(gap**2) / (2 * sigma**2)) / len(references)
    return 10.0 * total / 4


SPECIAL = (PAD, START, END, UNKNOWN)
