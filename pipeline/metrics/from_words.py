"""Compiled metrics of tokenised captions in float64, for tables; words get temporary ids."""

import functools
from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

from spidercap.models.special_tokens import PAD
from spidercap.pipeline.metrics.compiled import Family, Inputs, families
from spidercap.pipeline.metrics.document_frequencies import DocumentFrequencies, count_in_text
from spidercap.pipeline.metrics.references import References
from spidercap.pipeline.metrics.registry import METRICS
from spidercap.pipeline.metrics.size_classes import alike, doublings, reference_array, reference_size

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
    for images in alike(range(len(truth)), lambda i: reference_size(truth[i])):
        inputs = Inputs(References(*reference_array([truth[i] for i in images])), frequencies, tf.float64)
        for family, result in zip(asked, results, strict=True):
            statistics = family.build(inputs)
            for rows in alike(range(len(images)), lambda k, images=images: doublings(len(encoded[images[k]]), SHORT)):
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


def _caption_array(captions: list[Caption]) -> np.ndarray:
    """Returns ids int32 `[N, T]`."""
    return reference_array([[caption] for caption in captions])[0][:, 0]
