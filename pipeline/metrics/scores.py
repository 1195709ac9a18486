"""Scores of the COCO caption evaluation, of a corpus and of each of its images."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from spidercap.pipeline.metrics.from_words import score_tokens
from spidercap.pipeline.metrics.registry import METRICS, ordered, single_terms
from spidercap.pipeline.metrics.text_metrics import TextMetric, no_bar, shown_bar


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores by column of the tables; with SPICE, also by 'SPICE Object' and so on."""

    corpus: dict[str, float | None]
    images: tuple[dict[str, float | None], ...]
    remarks: dict[str, str] = dataclasses.field(default_factory=dict)  # by term, such as how many captions were cut
    versions: dict[str, str] = dataclasses.field(default_factory=dict)  # of metrics that are learned, by Metric.learned


def score_captions(
    references: Sequence[Sequence[str]],
    captions: Sequence[str],
    terms: Collection[str],
    text_metrics: Mapping[str, TextMetric],
    progress: bool = False,
) -> Scores:
    """Returns the scores of tokenised captions, words separated by one space, each with its references.

    CIDEr is CIDEr-D with the document frequencies of these references. BLEU and METEOR of the corpus are corpus scores,
    mixes are mixes of the corpus's scores, and the others are means over images. SPICE is 0 if neither caption nor
    references hold a tuple. A part of SPICE is then None, and its corpus score is the mean over the other images.

    Args:
      terms: of registry.METRICS.
      text_metrics: the metrics on text among `terms`, by term.
      progress: show progress bars for METEOR and SPICE.
    """
    singles = single_terms(terms)
    compiled = tuple(term for term in singles if not METRICS[term].text)
    corpus, each = score_tokens([[r.split() for r in of] for of in references], [c.split() for c in captions], compiled)
    parts: dict[str, np.ndarray] = {}
    remarks: dict[str, str] = {}
    versions: dict[str, str] = {}
    for term in singles:
        if METRICS[term].text:
            found = text_metrics[term].evaluate(captions, references, shown_bar if progress else no_bar)
            corpus[term], each[term] = found.corpus, found.images
            parts |= found.parts if term in terms else {}
            remarks |= {term: found.remark} if found.remark else {}
            versions |= {METRICS[term].learned: found.version} if found.version else {}
    for mix in (term for term in terms if METRICS[term].mix):
        weights = METRICS[mix].mix
        corpus[mix] = sum(weight * corpus[term] for term, weight in weights.items())
        each[mix] = sum(weight * each[term] for term, weight in weights.items())
    shown = {METRICS[term].column: term for term in ordered(terms)}
    columns = {column: each[term] for column, term in shown.items()} | parts
    return Scores(
        {column: float(corpus[term]) for column, term in shown.items()}
        | {n: _defined_mean(s) for n, s in parts.items()},
        tuple({name: _number(scores[i]) for name, scores in columns.items()} for i in range(len(captions))),
        remarks,
        versions,
    )


def _defined_mean(scores: np.ndarray) -> float | None:
    defined = scores[~np.isnan(scores)]
    return float(np.mean(defined)) if len(defined) else None


def _number(score: float) -> float | None:
    return None if np.isnan(score) else float(score)
