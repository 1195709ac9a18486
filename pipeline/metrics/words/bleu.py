"""BLEU on words: sentence scores, and the score of a corpus from summed counts.

Papineni, Roukos, Ward, Zhu, "BLEU: a Method for Automatic Evaluation of Machine Translation" (ACL 2002):

    BLEU-N = min(1, exp(1 - r / c)) * prod_{n <= N} p_n^(1/N),
    p_n = sum_g min(count(g), max over references of count(g)) / sum_g count(g),  over the n-grams g of the caption,

with c the length of the caption and r the closest reference length, the shorter of two. As in the COCO caption
evaluation, tiny constants keep a score without matches or words defined.
"""

import numpy as np

from spidercap.pipeline.metrics.words.captions import ORDERS, Captions, Grams

TINY, SMALL = 1e-15, 1e-9


def bleu(captions: Captions) -> dict[str, tuple[float, np.ndarray]]:
    """Returns BLEU-1 to BLEU-4 of the corpus and float64 `[I]` of each image."""
    matches = [_matches(captions, grams) for grams in captions.grams]
    guesses = [np.maximum(captions.lengths - order + 1, 0) for order in ORDERS]
    statistics = np.stack([*matches, *guesses, captions.lengths, _closest(captions)]).astype(np.float64)  # [10, I]
    of_corpus, of_images = _scores(statistics.sum(1)), _scores(statistics)
    return {
        f"bleu{order}": (float(corpus), images)
        for order, corpus, images in zip(ORDERS, of_corpus, of_images, strict=True)
    }


def _scores(statistics: np.ndarray) -> np.ndarray:
    """Returns `[4, ...]` for matches and n-grams of each order, length, and closest reference length, `[10, ...]`."""
    matches, guesses, (length, closest) = statistics[:4], statistics[4:8], statistics[8:]
    product = np.cumprod((matches + TINY) / (guesses + SMALL), 0)
    ratio = (length + TINY) / (closest + SMALL)
    penalty = np.exp(np.minimum(1 - 1 / ratio, 0))
    return np.stack([precision ** (1 / order) for order, precision in zip(ORDERS, product, strict=True)]) * penalty


def _matches(captions: Captions, grams: Grams) -> np.ndarray:
    """Returns `[I]`; an n-gram matches at most as often as it occurs in any one reference."""
    most = np.zeros_like(grams.count)
    shared = grams.place >= 0
    np.maximum.at(most, grams.place[shared], grams.reference_count[shared])
    return np.bincount(grams.image, np.minimum(grams.count, most), len(captions.captions))


def _closest(captions: Captions) -> np.ndarray:
    """Returns the closest reference length `[I]`; 0 without references."""
    base = captions.reference_lengths.max(initial=0) + 1
    lengths = captions.reference_lengths
    ranks = np.full(len(captions.captions), np.iinfo(np.int64).max // base * base)
    np.minimum.at(ranks, captions.image, np.abs(captions.lengths[captions.image] - lengths) * base + lengths)
    return ranks % base
