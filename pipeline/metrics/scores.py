"""The numbers that the COCO caption evaluation gives to captions, of a corpus and of each of its images."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from spidercap.pipeline.metrics.from_words import score_tokens
from spidercap.pipeline.metrics.java_metrics import TextMetrics
from spidercap.pipeline.metrics.registry import COLUMNS, JAVA_TERMS, MIXES, SPICE_PARTS, single_terms
from spidercap.pipeline.metrics.spice import Spice, f_score


@dataclasses.dataclass(frozen=True)
class Scores:
    """By column of the tables; with SPICE, also by 'SPICE Object' and so on."""

    corpus: dict[str, float | None]
    images: tuple[dict[str, float | None], ...]


def score_captions(
    references: Sequence[Sequence[str]],
    captions: Sequence[str],
    terms: Collection[str],
    text_metrics: TextMetrics,
    progress: bool = False,
) -> Scores:
    """Returns the scores of tokenised captions, words split by one space, each with its references.

    CIDEr is CIDEr-D with these references' document frequencies. The corpus's BLEU and METEOR are those of the corpus,
    its mixes are mixes of the corpus's scores, the others are means over the images. SPICE is 0 where neither caption
    nor references hold a proposition; a part of it is None there, and the corpus's is the mean over the other images.

    Args:
      terms: of metric_names.COLUMNS.
      text_metrics: has METEOR, SPICE and SPICE-fast, as far as they are asked for.
      progress: show bars for METEOR and SPICE.
    """
    singles = single_terms(tuple(terms))
    compiled = tuple(term for term in singles if term not in (*JAVA_TERMS, "spice_fast"))
    corpus, each = score_tokens([[r.split() for r in of] for of in references], [c.split() for c in captions], compiled)
    parts: Mapping[str, np.ndarray] = {}
    if "meteor" in singles:
        with _bar("METEOR", len(captions), progress) as bar:
            corpus["meteor"], each["meteor"] = text_metrics.meteor.score_corpus(captions, references, bar.update)
    if "spice" in singles:
        parts = _spice(text_metrics.spice, references, captions, progress)
        each["spice"] = np.nan_to_num(parts["SPICE"])
        # One after the other, to the last bit the published mean; NumPy adds in pairs.
        corpus["spice"] = sum(each["spice"].tolist()) / len(captions)
    if "spice_fast" in singles:
        each["spice_fast"] = np.nan_to_num(f_score(text_metrics.spice_fast.score(captions, references)))
        corpus["spice_fast"] = float(each["spice_fast"].mean()) if len(captions) else 0.0
    for mix in (term for term in terms if term in MIXES):
        corpus[mix] = sum(weight * corpus[term] for term, weight in MIXES[mix].items())
        each[mix] = sum(weight * each[term] for term, weight in MIXES[mix].items())
    shown = [term for term in COLUMNS if term in terms]
    details = {name: scores for name, scores in parts.items() if name != "SPICE" and "spice" in terms}
    columns = {COLUMNS[term]: each[term] for term in shown} | details
    return Scores(
        {COLUMNS[term]: float(corpus[term]) for term in shown} | {n: _defined_mean(s) for n, s in details.items()},
        tuple({name: _number(scores[i]) for name, scores in columns.items()} for i in range(len(captions))),
    )


def _spice(
    spice: Spice, references: Sequence[Sequence[str]], captions: Sequence[str], progress: bool
) -> dict[str, np.ndarray]:
    """SPICE and its parts `[I]`, NaN where there is nothing to compare."""
    unseen = spice.to_parse([*captions, *(r for of_image in references for r in of_image)])
    with _bar("SPICE, parsing", unseen, progress) as bar:
        f = f_score(spice.score(captions, references, bar.update))
    return {"SPICE": f[:, 0]} | {f"SPICE {part}": f[:, i] for i, part in enumerate(SPICE_PARTS, 1)}


def _bar(name: str, captions: int, progress: bool) -> tqdm:
    return tqdm(
        total=captions, desc=name, unit="caption", dynamic_ncols=True, disable=None if progress and captions else True
    )


def _defined_mean(scores: np.ndarray) -> float | None:
    defined = scores[~np.isnan(scores)]
    return float(np.mean(defined)) if len(defined) else None


def _number(score: float) -> float | None:
    return None if np.isnan(score) else float(score)
