"""SPICE 1.0 of captions, computed in resident Java workers; parses are cached.

A caption that takes its parser too much time or memory is cut, and reported in a remark.

Anderson, Fernando, Johnson, Gould, "SPICE: Semantic Propositional Image Caption Evaluation" (ECCV 2016).
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from spidercap.pipeline.metrics.java.corenlp import corenlp_jars, metric_cache
from spidercap.pipeline.metrics.java.pool import Pool
from spidercap.pipeline.metrics.java.runtime import spice_jars
from spidercap.pipeline.metrics.long_captions import LongCaptions, beginning, is_long
from spidercap.pipeline.metrics.registry import SPICE_PARTS
from spidercap.pipeline.metrics.text_metrics import Bar, Evaluated, TextSettings, WarnOnce, no_bar, with_references
from spidercap.pipeline.metrics.tuple_store import Tuples, TupleStore
from spidercap.pipeline.text.one_line import one_line

PARSED_CHUNK = 16  # captions per request, about 0.4 s for ordinary ones
MATCHED_CHUNK = 32  # images per request


class Spice:
    """Scores tokenised captions against the scene graphs of their references."""

    def __init__(self, parsers: Pool, matchers: Pool, store: TupleStore, long: LongCaptions):
        self._parsers = parsers
        self._matchers = matchers
        self._store = store
        self._long = long
        self._warn = WarnOnce()

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
        tuples = self._tuples(with_references(candidates, references), done)
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
        """Returns float64 `[N]`; 0 if neither caption nor references hold a tuple. Warns of the first cut captions."""
        scores = np.nan_to_num(f_score(self.score(captions, references)[:, 0]))
        self._warn(self._remark(set(with_references(captions, references))))
        return scores

    def evaluate(self, captions: Sequence[str], references: Sequence[Sequence[str]], bar: Bar = no_bar) -> Evaluated:
        """Returns the mean over captions, SPICE of each caption (0 without tuples), and its parts."""
        unseen = self.to_parse(with_references(captions, references))
        with bar("SPICE, parsing", unseen) as shown:
            f = f_score(self.score(captions, references, shown.update))
        each = np.nan_to_num(f[:, 0])
        # Summed in order, to reproduce the published mean to the last bit; NumPy sums in pairs.
        corpus = sum(each.tolist()) / len(captions) if captions else 0.0
        parts = {f"SPICE {part}": f[:, i] for i, part in enumerate(SPICE_PARTS, 1)}
        return Evaluated(corpus, each, parts, self._remark(with_references(captions, references)))

    def to_parse(self, captions: Sequence[str]) -> int:
        """Returns how many of the captions have not been parsed yet."""
        wanted = {one_line(caption) for caption in captions} - self._long.cut
        return len(wanted) - len(self._store.get(list(wanted)))

    def tuples(self, captions: Sequence[str]) -> list[Tuples]:
        """Returns the tuples of captions, in the parser's order."""
        known = self._tuples(captions, lambda count: None)
        return [known[caption] for caption in captions]

    def _tuples(self, captions: Sequence[str], done: Callable[[int], object]) -> dict[str, Tuples]:
        lines = {caption: one_line(caption) for caption in dict.fromkeys(captions)}
        known: dict[str, Tuples] = {}
        self._parse([line for line in lines.values() if line not in self._long.cut], known, done)
        read = {caption: beginning(line) if line in self._long.cut else line for caption, line in lines.items()}
        # Beginnings of captions that were cut; `done` has counted those captions.
        self._parse([line for line in read.values() if line not in known], known, lambda count: None)
        return {caption: known[line] for caption, line in read.items()}

    def _parse(self, captions: Sequence[str], known: dict[str, Tuples], done: Callable[[int], object]) -> None:
        """Adds the tuples of captions to `known`, but for long ones that must be cut."""
        known |= self._store.get(list(dict.fromkeys(captions)))
        missing = [caption for caption in dict.fromkeys(captions) if caption not in known]
        # Long captions first, so that no worker is still busy with one at the end.
        missing.sort(key=len, reverse=True)

        def keep(tuples: dict[str, Tuples]) -> None:
            # Stored at once, so that nothing is lost if this process is killed.
            self._store.put(tuples)
            known.update(tuples)

        self._long.parse([caption for caption in missing if is_long(caption)], done, keep)
        short = [caption for caption in missing if not is_long(caption)]

        def keep_part(place: int, parsed: list[Tuples]) -> None:
            keep(dict(zip(short[place : place + len(parsed)], parsed, strict=True)))

        if short:
            self._parsers.map(short, names=short, chunk=PARSED_CHUNK, done=done, keep=keep_part)

    def _remark(self, captions: Iterable[str]) -> str:
        return self._long.remark(map(one_line, captions))


def open_spice(stack: contextlib.ExitStack, settings: TextSettings) -> Spice:
    """Returns SPICE, whose workers and store are closed with `stack`.

    Raises:
      UserError: CoreNLP is missing and cannot be downloaded.
    """
    cache = settings.metric_cache_dir
    jars = [*spice_jars(), *corenlp_jars(settings.corenlp, cache)]
    store = stack.enter_context(contextlib.closing(TupleStore(metric_cache(cache))))
    parsers, matchers = (stack.enter_context(settings.pool(s, *jars)) for s in ("spice_parser", "spice_matcher"))
    open_large = functools.partial(settings.large_pool, "spice_parser", *jars)
    long = stack.enter_context(contextlib.closing(LongCaptions(parsers, open_large, settings.metric_timeout)))
    return Spice(parsers, matchers, store, long)


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
