"""Slow versions, written from their equations, that fast code is held against."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from spidercap.models.special_tokens import END, PAD, START, UNKNOWN


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


def proper_prefixes(words: np.ndarray) -> np.ndarray:
    """Returns bool `[N, T]`: whether g_1..g_t is less than the whole caption."""
    lengths = np.sum(np.asarray(words) != PAD, axis=1)
    return np.arange(np.shape(words)[1]) < lengths[:, None] - 1


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


def bleu(
    candidates: Sequence[Sequence[int]], references: Sequence[Sequence[Sequence[int]]], tiny: float, small: float
) -> list[float]:
    """BLEU-1 to BLEU-4 of a corpus (of one caption: its sentence score); an empty reference is one."""
    length = sum(map(len, candidates))
    closest = 0
    for candidate, of_image in zip(candidates, references, strict=True):
        closest += min((abs(len(r) - len(candidate)), len(r)) for r in of_image)[1]
    ratio = (length + tiny) / (closest + small)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    scores, product = [], 1.0
    for order in (1, 2, 3, 4):
        matches = guesses = 0
        for candidate, of_image in zip(candidates, references, strict=True):
            said = _grams(candidate, order)
            true = [_grams(r, order) for r in of_image]
            matches += sum(min(n, max(t[g] for t in true)) for g, n in said.items())
            guesses += sum(said.values())
        product *= (matches + tiny) / (guesses + small)
        scores.append(product ** (1 / order) * penalty)
    return scores


def _grams(caption: Sequence[int], order: int) -> Counter:
    return Counter(tuple(caption[i : i + order]) for i in range(len(caption) - order + 1))


def rouge_l(candidate: Sequence[int], references: Sequence[Sequence[int]], beta: float = 1.2) -> float:
    """ROUGE-L of a caption: F of the best precision and the best recall; nothing is one empty word."""
    said = list(candidate) or [None]
    true = [list(r) or [None] for r in references]
    common = [longest_common_subsequence(said, r) for r in true]
    precision = max(c / len(said) for c in common)
    recall = max(c / len(r) for c, r in zip(common, true, strict=True))
    if not precision * recall:
        return 0.0
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)


def longest_common_subsequence(a: Sequence, b: Sequence) -> int:
    """The length of it, by the textbook's table."""
    lengths = np.zeros([len(a) + 1, len(b) + 1], int)
    for i, j in itertools.product(range(len(a)), range(len(b))):
        best = max(lengths[i, j + 1], lengths[i + 1, j])
        lengths[i + 1, j + 1] = lengths[i, j] + 1 if a[i] == b[j] else best
    return int(lengths[-1, -1])


def ragged_corpus(
    seed: int, images: int, longest: int, empty: bool = False
) -> tuple[list[list[list[int]]], list[list[int]]]:
    """Returns 1 to 5 references an image, of words 4 to 9, and a caption an image, of words 4 to 11, so that
    n-grams repeat and meet and some words are unknown. Captions can be empty, references only if asked for.
    """
    rng = np.random.default_rng(seed)

    def caption(least: int, words: int) -> list[int]:
        return rng.integers(4, 4 + words, rng.integers(least, longest + 1)).tolist()

    references = [[caption(0 if empty else 1, 6) for _ in range(rng.integers(1, 6))] for _ in range(images)]
    return references, [caption(0, 8) for _ in range(images)]


def reference_array(references: Sequence[Sequence[Sequence[int]]], longest: int) -> np.ndarray:
    """Returns int32 `[I, R, longest]`; an image with fewer references than another has rows of padding."""
    most = max(map(len, references))
    return np.stack([padded([*r, *[[]] * (most - len(r))], longest) for r in references])


SPECIAL = (PAD, START, END, UNKNOWN)
