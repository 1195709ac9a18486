"""SPICE 1.0 of captions, by resident Java workers: parsed once in a caption's life, then compared.

Anderson, Fernando, Johnson, Gould, "SPICE: Semantic Propositional Image Caption Evaluation" (ECCV 2016).
"""

from collections.abc import Callable, Sequence

import numpy as np

from spidercap.pipeline.metrics.java.pool import Pool
from spidercap.pipeline.metrics.registry import SPICE_PARTS
from spidercap.pipeline.metrics.tuple_store import Tuples, TupleStore
from spidercap.pipeline.text.one_line import one_line

MOST_WORDS = 60  # of a caption that are parsed: 60 take 4 s, 100 take 10, and 400 more memory than there is
PARSED_CHUNK = 16  # captions a request, about 0.4 s
MATCHED_CHUNK = 32  # images a request


class Spice:
    """Scores tokenised captions against the scene graphs of their references."""

    def __init__(self, parsers: Pool, matchers: Pool, store: TupleStore):
        self._parsers = parsers
        self._matchers = matchers
        self._store = store

    def score(
        self,
        candidates: Sequence[str],
        references: Sequence[Sequence[str]],
        done: Callable[[int], object] = lambda count: None,
    ) -> np.ndarray:
        """Returns int64 counts `[N, 1 + parts, 3]` of N captions: tuples matched, the candidate's, the references'.

        Row 0 is of all tuples, and `f_score` of it is SPICE; the others are of SPICE_PARTS. `done` is called as
        captions are parsed (`to_parse` says how many there are).
        """
        tuples = self._tuples([*candidates, *(r for of_image in references for r in of_image)], done)
        groups: dict[tuple[str, ...], dict[str, int]] = {}
        for candidate, of_image in zip(candidates, references, strict=True):
            said = groups.setdefault(tuple(of_image), {})
            said.setdefault(candidate, len(said))
        items = [
            {"references": [tuples[r] for r in of_image], "candidates": [tuples[c] for c in said]}
            for of_image, said in groups.items()
        ]
        names = [" / ".join(said) for said in groups.values()]
        answers = self._matchers.map(items, names=names, chunk=MATCHED_CHUNK)
        of_group = dict(zip(groups, answers, strict=True))
        keys = [(tuple(of_image), c) for c, of_image in zip(candidates, references, strict=True)]
        counts = [of_group[of_image][groups[of_image][c]] for of_image, c in keys]
        return np.array(counts, np.int64).reshape(len(keys), 1 + len(SPICE_PARTS), 3)

    def to_parse(self, captions: Sequence[str]) -> int:
        """Returns how many of the captions have not been parsed yet."""
        wanted = {_parsed_words(caption) for caption in captions}
        return len(wanted) - len(self._store.get(list(wanted)))

    def tuples(self, captions: Sequence[str]) -> list[Tuples]:
        """Returns the tuples of captions, in the parser's order."""
        known = self._tuples(captions, lambda count: None)
        return [known[caption] for caption in captions]

    def _tuples(self, captions: Sequence[str], done: Callable[[int], object]) -> dict[str, Tuples]:
        parsed_words = {caption: _parsed_words(caption) for caption in dict.fromkeys(captions)}
        known = self._store.get(list(dict.fromkeys(parsed_words.values())))
        missing = [words for words in dict.fromkeys(parsed_words.values()) if words not in known]
        # Long captions first, so that no worker is left alone with one at the end.
        missing.sort(key=len, reverse=True)

        def keep(place: int, parsed: list[Tuples]) -> None:
            # At once, so that nothing is lost when this process is killed.
            of_caption = dict(zip(missing[place : place + len(parsed)], parsed, strict=True))
            self._store.put(of_caption)
            known.update(of_caption)

        self._parsers.map(missing, names=missing, chunk=PARSED_CHUNK, done=done, keep=keep)
        return {caption: known[words] for caption, words in parsed_words.items()}


def f_score(counts: np.ndarray) -> np.ndarray:
    """Returns float64 `[...]` of counts `[..., 3]`: the harmonic mean of precision and recall; NaN for 0 of 0 tuples.

    SPICE itself has no number where neither candidate nor references have tuples.
    """
    matched, said, true = np.moveaxis(counts.astype(np.float64), -1, 0)
    precision = np.divide(matched, said, out=np.zeros_like(matched), where=said > 0)
    recall = np.divide(matched, true, out=np.zeros_like(matched), where=true > 0)
    total = precision + recall
    f = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    return np.where(said + true > 0, f, np.nan)


def _parsed_words(caption: str) -> str:
    return " ".join(one_line(caption).split(" ")[:MOST_WORDS])
