"""METEOR 1.5 of captions, by resident Java workers.

Denkowski, Lavie, "Meteor Universal: Language Specific Translation Evaluation for Any Target Language" (WMT 2014),
English, as the COCO caption evaluation calls it.
"""

import itertools
import re
from collections.abc import Callable, Sequence

import numpy as np

from spidercap.pipeline.metrics.java.pool import Pool
from spidercap.pipeline.text.one_line import one_line

CHUNK = 64  # captions a request, about 0.2 s
# Words and marks of a caption that are aligned; 500 equal ones take 13 s, 2,000 more memory than there is.
MOST_PIECES = 500

_PIECE = re.compile(r"\w+|[^\w\s]")


class Meteor:
    """Scores tokenised captions; a caption that comes several times with the same references is aligned once."""

    def __init__(self, pool: Pool):
        self._pool = pool

    def score(
        self,
        candidates: Sequence[str],
        references: Sequence[Sequence[str]],
        done: Callable[[int], object] = lambda count: None,
    ) -> np.ndarray:
        """Returns float64 `[N]` for N captions, each with its references; `done` is called as captions are scored."""
        return np.array([answer["score"] for answer in self._answers(candidates, references, done)], np.float64)

    def score_corpus(
        self,
        candidates: Sequence[str],
        references: Sequence[Sequence[str]],
        done: Callable[[int], object] = lambda count: None,
    ) -> tuple[float, np.ndarray]:
        """Returns METEOR of the corpus, which is not the mean of its captions', and that of each caption `[N]`."""
        answers = self._answers(candidates, references, done)
        total = self._pool.map([{"stats": [a["stats"] for a in answers]}], names=["the corpus"], chunk=1)[0]
        return total, np.array([answer["score"] for answer in answers], np.float64)

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


def _plain(caption: str) -> str:
    """The evaluation drops the mark that its protocol separates captions by; here it is only a word less."""
    caption = one_line(caption).replace("|||", "").replace("  ", " ")
    beyond = next(itertools.islice(_PIECE.finditer(caption), MOST_PIECES, None), None)
    return caption[: beyond.start()] if beyond else caption
