"""Scores of tokenised captions in float64, for tables, by the metrics on words."""

import pkgutil
from collections.abc import Iterable, Sequence

import numpy as np

from spidercap.pipeline.metrics.registry import METRICS
from spidercap.pipeline.metrics.words.captions import Captions


def score_tokens(
    references: Sequence[Sequence[Sequence[str]]], candidates: Sequence[Sequence[str]], terms: Iterable[str]
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Returns the scores of the corpus and of each image, float64 `[I]`, by term.

    They are the scores of pycocoevalcap: BLEU of the corpus from summed counts, ROUGE-L and CIDEr-D as means over
    images, with the document frequencies of these references. Unlike there, an image may have no references. A metric
    that is only compiled is computed on ids; this imports TensorFlow.

    Args:
      references: the words of each image's references.
      candidates: the words of one caption per image, in the order of `references`.
      terms: metrics on words, or compiled ones, that are not evaluated on text.

    Raises:
      ValueError: another term, or another number of candidates than images.
    """
    terms = tuple(terms)
    allowed = [term for term, metric in METRICS.items() if (metric.words or metric.compiled) and not metric.text]
    if not set(terms) <= set(allowed):
        raise ValueError(f"terms {terms}; allowed: {', '.join(allowed)}")
    if len(references) != len(candidates):
        raise ValueError(f"{len(candidates)} candidates for {len(references)} images; needed: one per image")
    captions = Captions(references, candidates)
    found: dict[str, tuple[float, np.ndarray]] = {}
    for name in dict.fromkeys(METRICS[term].words for term in terms if METRICS[term].words):
        found |= pkgutil.resolve_name(name)(captions)
    compiled = [term for term in terms if not METRICS[term].words]
    if compiled:
        from spidercap.pipeline.metrics.from_ids import score_compiled

        found |= score_compiled(captions, compiled)
    return {term: found[term][0] for term in terms}, {term: found[term][1] for term in terms}
