"""Compiled metrics of tokenised captions in float64, for tables; words get temporary ids."""

import functools
from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np
import tensorflow as tf

from spidercap.models.special_tokens import PAD
from spidercap.pipeline.metrics.compiled import Family, Inputs, families
from spidercap.pipeline.metrics.document_frequencies import DocumentFrequencies, count_in_text
from spidercap.pipeline.metrics.ngrams import BITS
from spidercap.pipeline.metrics.references import References
from spidercap.pipeline.metrics.registry import METRICS

SHORT = 32  # words; candidates up to here are scored together

Caption = list[int]


def score_tokens(
    references: Sequence[Sequence[Sequence[str]]], candidates: Sequence[Sequence[str]], terms: Iterable[str]
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Returns the scores of the corpus and of each image, float64 `[I]`, by term.

    They are the scores of pycocoevalcap: BLEU of the corpus from summed counts, ROUGE-L and CIDEr-D as means over
    images, with the document frequencies of these references. Unlike there, an image may have no references.

    Args:
      references: the words of each image's references.
      candidates: the words of one caption per image, in the order of `references`.
      terms: compiled metrics that are not evaluated on text.

    Raises:
      ValueError: another term, or another number of candidates than images.
    """
    terms = tuple(terms)
    allowed = [term for term, metric in METRICS.items() if metric.compiled and not metric.text]
    if not set(terms) <= set(allowed):
        raise ValueError(f"terms {terms}; allowed: {', '.join(allowed)}")
    if len(references) != len(candidates):
        raise ValueError(f"{len(candidates)} candidates for {len(references)} images; needed: one per image")
    ids: dict[str, int] = {}  # from 1 on, as 0 is PAD
    truth = [[_encode(caption, ids) for caption in of_image] for of_image in references]
    encoded = [_encode(caption, ids) for caption in candidates]
    frequencies = functools.cache(lambda: _frequencies(truth, len(ids) + 1))
    asked = families(terms)
    results = [np.zeros([len(encoded), family.width]) for family in asked]
    for images in _alike(range(len(truth)), lambda i: _reference_sizes(truth[i])):
        inputs = Inputs(References(*_reference_array([truth[i] for i in images])), frequencies, tf.float64)
        for family, result in zip(asked, results, strict=True):
            statistics = family.build(inputs)
            for rows in _alike(range(len(images)), lambda k, images=images: _doublings(len(encoded[images[k]]), SHORT)):
                captions = _caption_array([encoded[images[k]] for k in rows])
                result[[images[k] for k in rows]] = statistics(tf.constant(captions), tf.constant(rows))
    return _by_term(terms, asked, results)


def _by_term(
    terms: Sequence[str], asked: Sequence[Family], results: Sequence[np.ndarray]
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    corpus, images = {}, {}
    for family, result in zip(asked, results, strict=True):
        corpus |= zip(family.terms, map(float, family.corpus(result)), strict=True)
        images |= zip(family.terms, np.asarray(family.images(result)).T, strict=True)
    return {term: corpus[term] for term in terms}, {term: images[term] for term in terms}


def _encode(tokens: Sequence[str], ids: dict[str, int]) -> Caption:
    return [ids.setdefault(token, len(ids) + 1) for token in tokens]


def _frequencies(truth: list[list[Caption]], base: int) -> DocumentFrequencies:
    words = [word for of_image in truth for caption in of_image for word in (*caption, PAD)]
    sizes = [sum(len(caption) + 1 for caption in of_image) for of_image in truth]
    return count_in_text(np.array(words, np.int64), np.repeat(np.arange(len(truth)), sizes), len(truth), base)


def _alike(items: Iterable[int], size: Callable[[int], Hashable]) -> list[list[int]]:
    """Returns the items in groups of equal size, so that one long caption does not pad all others."""
    groups: dict[Hashable, list[int]] = {}
    for item in items:
        groups.setdefault(size(item), []).append(item)
    return list(groups.values())


def _reference_sizes(of_image: list[Caption]) -> tuple[int, int]:
    return _doublings(len(of_image), 8), _doublings(max(map(len, of_image), default=0), BITS)


def _doublings(size: int, least: int) -> int:
    """Returns how often `least` must be doubled to reach `size`."""
    return (max(size - 1, 0) // least).bit_length()


def _reference_array(references: list[list[Caption]]) -> tuple[np.ndarray, np.ndarray]:
    """Returns ids int32 `[I, R, L]` and the numbers of references `[I]`."""
    counts = np.array([len(of_image) for of_image in references])
    longest = max((len(caption) for of_image in references for caption in of_image), default=0)
    array = np.full([len(references), max(counts.max(), 1), max(longest, 1)], PAD, np.int32)
    for rows, of_image in zip(array, references, strict=True):
        for row, caption in zip(rows, of_image, strict=False):
            row[: len(caption)] = caption
    return array, counts


def _caption_array(captions: list[Caption]) -> np.ndarray:
    """Returns ids int32 `[N, T]`."""
    return _reference_array([[caption] for caption in captions])[0][:, 0]
