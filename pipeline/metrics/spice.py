"""SPICE 1.0 of captions, computed in resident Java workers; parses are cached.

Anderson, Fernando, Johnson, Gould, "SPICE: Semantic Propositional Image Caption Evaluation" (ECCV 2016).
"""

import contextlib
from collections.abc import Callable, Sequence

import numpy as np

from spidercap.pipeline.metrics.java.corenlp import corenlp_jars, metric_cache
from spidercap.pipeline.metrics.java.pool import Pool
from spidercap.pipeline.metrics.java.runtime import spice_jars
from spidercap.pipeline.metrics.registry import SPICE_PARTS
from spidercap.pipeline.metrics.text_metrics import Bar, Evaluated, TextSettings, no_bar
from spidercap.pipeline.metrics.tuple_store import Tuples, TupleStore
from spidercap.pipeline.text.one_line import one_line

MOST_WORDS = 60  # of a caption that are parsed: 60 take 4 s, 100 take 10 s, and 400 run out of memory
PARSED_CHUNK = 16  # captions per request, about 0.4 s
MATCHED_CHUNK = 32  # images per request


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

        Row 0 counts all tuples, and its `f_score` is SPICE; the other rows are those of SPICE_PARTS. `done` is called
        with numbers of parsed captions, which sum up to `to_parse`.
        """
        tuples = self._tuples([*candidates, *(r for of_image in references for r in of_image)], done)
        groups: dict[tuple[str, ...], dict[str, int]] = {}
        for candidate, of_image in zip(candidates, references, strict=True):
            of_group = groups.setdefault(tuple(of_image), {})
            of_group.setdefault(candidate, len(of_group))
        items = [
            {"references": [tuples[r] for r in of_image], "candidates": [tuples[c] for c in of_group]}
            for of_image, of_group in groups.items()
        ]
        names = [" / ".join(of_group) for of_group in groups.values()]
        answers = dict(zip(groups, self._matchers.map(items, names=names, chunk=MATCHED_CHUNK), strict=True))
        keys = [(tuple(of_image), c) for c, of_image in zip(candidates, references, strict=True)]
        counts = [answers[of_image][groups[of_image][c]] for of_image, c in keys]
        return np.array(counts, np.int64).reshape(len(keys), 1 + len(SPICE_PARTS), 3)

    def rewards(self, captions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
        """Returns float64 `[N]`; 0 if neither caption nor references hold a tuple."""
        return np.nan_to_num(f_score(self.score(captions, references)[:, 0]))

    def evaluate(self, captions: Sequence[str], references: Sequence[Sequence[str]], bar: Bar = no_bar) -> Evaluated:
        """Returns the mean over captions, SPICE of each caption (0 without tuples), and its parts."""
        unseen = self.to_parse([*captions, *(r for of_image in references for r in of_image)])
        with bar("SPICE, parsing", unseen) as shown:
            f = f_score(self.score(captions, references, shown.update))
        each = np.nan_to_num(f[:, 0])
        # Summed in order, to reproduce the published mean to the last bit; NumPy sums in pairs.
        corpus = sum(each.tolist()) / len(captions) if captions else 0.0
        return Evaluated(corpus, each, {f"SPICE {part}": f[:, i] for i, part in enumerate(SPICE_PARTS, 1)})

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
        # Long captions first, so that no worker is still busy with one at the end.
        missing.sort(key=len, reverse=True)

        def keep(place: int, parsed: list[Tuples]) -> None:
            # Stored at once, so that nothing is lost if this process is killed.
            of_caption = dict(zip(missing[place : place + len(parsed)], parsed, strict=True))
            self._store.put(of_caption)
            known.update(of_caption)

        self._parsers.map(missing, names=missing, chunk=PARSED_CHUNK, done=done, keep=keep)
        return {caption: known[words] for caption, words in parsed_words.items()}


def open_spice(stack: contextlib.ExitStack, settings: TextSettings) -> Spice:
    """Returns SPICE, whose workers and store are closed with `stack`.

    Raises:
      UserError: CoreNLP is missing and cannot be downloaded.
    """
    cache = settings.metric_cache_dir
    jars = [*spice_jars(), *corenlp_jars(settings.corenlp, cache)]
    store = stack.enter_context(contextlib.closing(TupleStore(metric_cache(cache))))
    parsers, matchers = (stack.enter_context(settings.pool(s, *jars)) for s in ("spice_parser", "spice_matcher"))
    return Spice(parsers, matchers, store)


def f_score(counts: np.ndarray) -> np.ndarray:
    """Returns float64 `[...]` of counts `[..., 3]`: the harmonic mean of precision and recall.

    NaN if neither candidate nor references have tuples, like SPICE itself.
    """
    matched, predicted, true = np.moveaxis(counts.astype(np.float64), -1, 0)
    precision = np.divide(matched, predicted, out=np.zeros_like(matched), where=predicted > 0)
    recall = np.divide(matched, true, out=np.zeros_like(matched), where=true > 0)
    total = precision + recall
    f = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    return np.where(predicted + true > 0, f, np.nan)


def _parsed_words(caption: str) -> str:
    return " ".join(one_line(caption).split(" ")[:MOST_WORDS])
