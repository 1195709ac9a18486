"""METEOR 1.5 of captions, computed in resident Java workers.

Denkowski, Lavie, "Meteor Universal: Language Specific Translation Evaluation for Any Target Language" (WMT 2014),
English, with the options of the COCO caption evaluation.
"""

import contextlib
import itertools
import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from spidercap.pipeline.metrics.java.pool import Pool
from spidercap.pipeline.metrics.java.runtime import meteor_jar
from spidercap.pipeline.metrics.text_metrics import (
    Bar,
    Evaluated,
    TextSettings,
    WarnOnce,
    cut_remark,
    no_bar,
    with_references,
)
from spidercap.pipeline.text.one_line import one_line

CHUNK = 64  # captions per request, about 0.2 s
# Words and punctuation marks of a caption that are aligned; 500 equal ones take 13 s, 2,000 run out of memory.
MOST_PIECES = 500

_PIECE = re.compile(r"\w+|[^\w\s]")


class Meteor:
    """Scores tokenised captions; equal captions with the same references are aligned once."""

    def __init__(self, pool: Pool):
        self._pool = pool
        self._warn = WarnOnce()

    def rewards(self, captions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
        """Returns float64 `[N]` for N captions, each with its references. Warns of the first cut captions."""
        scores = _scores(self._answers(captions, references, lambda count: None))
        self._warn(_remark(set(with_references(captions, references))))
        return scores

    def evaluate(self, captions: Sequence[str], references: Sequence[Sequence[str]], bar: Bar = no_bar) -> Evaluated:
        """Returns METEOR of the corpus, which is not the mean over captions, and of each caption."""
        with bar("METEOR", len(captions)) as shown:
            answers = self._answers(captions, references, shown.update)
            total = self._pool.map([{"stats": [a["stats"] for a in answers]}], names=["the corpus"], chunk=1)[0]
        remark = _remark(with_references(captions, references))
        return Evaluated(total, _scores(answers), remark=remark)

    def _answers(
        self, candidates: Sequence[str], references: Sequence[Sequence[str]], done: Callable[[int], object]
    ) -> list[dict]:
        pairs = [(_plain(c), tuple(map(_plain, r))) for c, r in zip(candidates, references, strict=True)]
        distinct = list(dict.fromkeys(pairs))
        done(len(pairs) - len(distinct))
        items = [{"candidate": candidate, "references": of_image} for candidate, of_image in distinct]
        answers = self._pool.map(items, names=[candidate for candidate, _ in distinct], chunk=CHUNK, done=done)
        by_pair = dict(zip(distinct, answers, strict=True))
        return [by_pair[pair] for pair in pairs]


def open_meteor(stack: contextlib.ExitStack, settings: TextSettings) -> Meteor:
    """Returns METEOR, whose workers are stopped with `stack`."""
    return Meteor(stack.enter_context(settings.pool("meteor", meteor_jar())))


def _scores(answers: Sequence[dict]) -> np.ndarray:
    return np.array([answer["score"] for answer in answers], np.float64)


def _plain(caption: str) -> str:
    """The caption cut to MOST_PIECES, without "|||", which separates captions in METEOR's protocol."""
    caption = _joined(caption)
    beyond = _beyond(caption) if len(caption) > MOST_PIECES else None
    return caption[: beyond.start()] if beyond else caption


def _joined(caption: str) -> str:
    return one_line(caption).replace("|||", "").replace("  ", " ")


def _beyond(caption: str) -> re.Match | None:
    """The first piece that is cut off."""
    return next(itertools.islice(_PIECE.finditer(caption), MOST_PIECES, None), None)


def _remark(captions: Iterable[str]) -> str:
    # Nearly all captions have fewer characters than that, and each piece has one.
    cut = sum(len(caption) > MOST_PIECES and _beyond(_joined(caption)) is not None for caption in captions)
    return cut_remark(
        "METEOR", f"{MOST_PIECES} words and punctuation marks", cut, "need minutes each, or too much memory"
    )
