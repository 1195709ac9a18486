"""Scores of captions as they were written, as the COCO caption evaluation has them: of files, and from Python."""

import dataclasses
import sys
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.metrics.java.runtime import java_found
from spidercap.pipeline.metrics.java.tokenizer import tokenize_with_java
from spidercap.pipeline.metrics.registry import parse_metrics, single_terms
from spidercap.pipeline.metrics.scores import Scores, score_captions
from spidercap.pipeline.metrics.text_metrics import open_text_metrics
from spidercap.pipeline.settings.groups import MetricSettings
from spidercap.pipeline.text.tokenizer import tokenize

LONGEST = 10_000  # characters of a caption; longer is no caption, but a file gone wrong


@dataclasses.dataclass(frozen=True)
class Captioned:
    """Images with one caption to be scored and their references."""

    image_ids: tuple[Hashable, ...]
    captions: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]


@dataclasses.dataclass(frozen=True)
class CaptionScores:
    """Scores by the metric's name in tables, such as 'CIDEr'; None for a part of SPICE that is undefined."""

    corpus: Mapping[str, float | None]
    images: Mapping[Any, Mapping[str, float | None]]  # by image id


def score(
    references: Mapping[Any, Sequence[str]],
    candidates: Mapping[Any, str],
    metrics: str = "bleu,rouge,cider",
    **settings: Any,
) -> CaptionScores:
    """Returns the scores of captions against references, the numbers of the COCO caption evaluation.

    They are those of `--mode=score`: captions are tokenised by its tokenizer where there is a Java, else by one that
    agrees with it but for one caption in 200,000. CIDEr's document frequencies are those of these references.

    Args:
      references: by image id, one or more captions as they were written. Images without a candidate do not count.
      candidates: by image id, the caption to score.
      metrics: as the flag: 'all', or names separated by commas; METEOR and SPICE need Java.
      **settings: metric_workers, metric_timeout, metric_cache_dir and corenlp, as the flags.

    Raises:
      UserError: an unknown metric, no candidates, a candidate without references, something that is no text; no Java
        where it is needed.
    """
    images = tuple(_sorted_ids(candidates))
    wrong = [i for i in images if not isinstance(candidates[i], str)]
    _reject("candidates that are no text", wrong, "give one caption an image, as text")
    _reject("candidates without references", [i for i in images if i not in references], "give references of them")
    texts = {i: references[i] for i in images}
    wrong = [i for i, of in texts.items() if isinstance(of, str) or not of or not all(isinstance(r, str) for r in of)]
    _reject("images whose references are no list of texts", wrong, "give a list of one or more captions for each")
    long = [i for i in images if max(map(len, (candidates[i], *texts[i]))) > LONGEST]
    _reject(f"images with a caption of over {LONGEST:,} characters", long, "shorten or remove those captions")
    if not images:
        raise UserError("there are no candidates; at least one caption is needed")
    captioned = Captioned(images, tuple(candidates[i] for i in images), tuple(tuple(texts[i]) for i in images))
    terms = parse_metrics(metrics)
    captioned, scores = score_captioned(captioned, terms, MetricSettings(**settings).for_workers())
    return CaptionScores(scores.corpus, dict(zip(captioned.image_ids, scores.images, strict=True)))


def score_captioned(
    captioned: Captioned, terms: Collection[str], workers: Mapping[str, Any], progress: bool = False
) -> tuple[Captioned, Scores]:
    """Returns captions and references tokenised and ordered by image id, and their scores in that order."""
    # Opened first, so that what is missing is told before any work is done.
    with open_text_metrics(single_terms(terms), **workers) as metrics:
        captioned = tokenized(captioned)
        return captioned, score_captions(captioned.references, captioned.captions, terms, metrics, progress)


def tokenized(captioned: Captioned) -> Captioned:
    """Returns them tokenised, ordered by image id, the order in which the evaluation takes its means."""
    flat = [caption for of_image in captioned.references for caption in of_image]
    if java_found():
        captions, tokenized = tokenize_with_java(captioned.captions, flat)
    else:
        print(
            "no Java: captions are split by spidercap's own tokenizer, which differs from the evaluation's in about "
            "1 of 200,000; pip install 'spidercap[java]' brings Java",
            file=sys.stderr,
        )
        captions, tokenized = ([" ".join(tokenize(c)) for c in some] for some in (captioned.captions, flat))
    rest = iter(tokenized)
    references = [tuple(next(rest) for _ in of_image) for of_image in captioned.references]
    by_id = dict(zip(captioned.image_ids, zip(captions, references, strict=True), strict=True))
    order = _sorted_ids(by_id)
    return Captioned(tuple(order), tuple(by_id[i][0] for i in order), tuple(by_id[i][1] for i in order))


def _sorted_ids(ids: Collection[Any]) -> list[Any]:
    """In the order in which the evaluation takes its means; ids of several types by their text."""
    try:
        return sorted(ids)
    except TypeError:
        return sorted(ids, key=str)


def _reject(what: str, which: Sequence[Any], remedy: str) -> None:
    if which:
        shown = ", ".join(map(repr, which[:3])) + ", ..." * (len(which) > 3)
        raise UserError(f"{len(which)} {what} ({shown}); {remedy}")
