"""Metrics on captions as text: their interface, and a context that opens and closes the requested ones."""

import contextlib
import dataclasses
import pkgutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from tqdm import tqdm

from spidercap.pipeline.bars import progress_bar
from spidercap.pipeline.metrics.java.memory import large_heap
from spidercap.pipeline.metrics.java.pool import Pool, pool_of
from spidercap.pipeline.metrics.java.runtime import Jvm, find_jvm
from spidercap.pipeline.metrics.registry import METRICS, ordered

# (name, captions) -> a context with `update(captions done)`, such as tqdm
Bar = Callable[[str, int], Any]


class Evaluated(NamedTuple):
    """Scores of N captions."""

    corpus: float
    images: np.ndarray  # float64 [N]
    parts: Mapping[str, np.ndarray] = {}  # column -> float64 [N] of a part of the metric, NaN where undefined
    remark: str = ""  # to be printed with the scores
    version: str = ""  # of what is learned in the metric


class TextMetric(Protocol):
    """Scores tokenised captions, words separated by one space, each with its references."""

    def rewards(self, captions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
        """Returns float64 `[N]`, all finite."""

    def evaluate(self, captions: Sequence[str], references: Sequence[Sequence[str]], bar: Bar) -> Evaluated:
        """Returns the scores of a corpus and of each of its captions."""


def with_references(captions: Sequence[str], references: Sequence[Sequence[str]]) -> list[str]:
    """Returns the captions, then all their references."""
    return [*captions, *(reference for of_image in references for reference in of_image)]


class WarnOnce:
    """Prints the first remark that is not empty as a warning; for rewards, which are computed again and again."""

    def __init__(self):
        self._warned = False

    def __call__(self, remark: str) -> None:
        """Prints the remark, unless it is empty or one has been printed."""
        if remark and not self._warned:
            self._warned = True
            tqdm.write(f"warning: {remark}", file=sys.stderr)


def cut_remark(metric: str, read: str, captions: int, reason: str) -> str:
    """Returns 'SPICE read only the first 60 words of 2 captions, which need more time'; '' for no captions."""
    some = "1 caption" if captions == 1 else f"{captions:,} captions"
    return f"{metric} read only the first {read} of {some}, which {reason}" if captions else ""


@dataclasses.dataclass(frozen=True)
class TextSettings:
    """Settings for openers of text metrics; all but `jvm` are flags."""

    metric_workers: int
    metric_timeout: float
    metric_cache_dir: str
    corenlp: str
    jvm: Jvm | None  # None if no requested metric needs Java

    def pool(self, service: str, *jars: object) -> Pool:
        """Returns Java workers of `service`, to be closed by the caller."""
        return pool_of(service, self.jvm, jars, self.metric_workers, self.metric_timeout)

    def large_pool(self, service: str, *jars: object) -> Pool:
        """Returns one Java worker of `service` with most of the available memory, to be closed by the caller."""
        return pool_of(service, self.jvm, jars, 1, self.metric_timeout, large_heap())


@contextlib.contextmanager
def open_text_metrics(
    terms: Collection[str],
    *,
    metric_workers: int,
    metric_timeout: float,
    metric_cache_dir: str,
    corenlp: str,
) -> Iterator[dict[str, TextMetric]]:
    """Yields the metrics on text among `terms`, by term; they are closed with the block.

    Args:
      metric_workers: processes for each of METEOR, SPICE's parser and SPICE's matcher.
      metric_timeout: seconds that a worker may take for one caption before it is replaced; SPICE's parser has more
        for captions of over 60 words.
      metric_cache_dir: folder for CoreNLP and parsed captions; '' for the default one.
      corenlp: folder with CoreNLP's two jars; '' to have them downloaded.

    Raises:
      UserError: Java or CoreNLP is missing.
    """
    rows = {term: METRICS[term] for term in ordered(terms) if METRICS[term].text}
    jvm = None
    if any(row.java for row in rows.values()):
        jvm = find_jvm()  # before a download
        if jvm.passed_over:
            print(f"using Java {jvm.version} of {jvm.origin}; {', '.join(jvm.passed_over)}", file=sys.stderr)
    settings = TextSettings(metric_workers, metric_timeout, metric_cache_dir, corenlp, jvm)
    with contextlib.ExitStack() as stack:
        yield {term: pkgutil.resolve_name(row.text)(stack, settings) for term, row in rows.items()}


def shown_bar(name: str, captions: int) -> tqdm:
    """Returns a progress bar, shown on a terminal if there are captions."""
    return progress_bar(captions, name, "caption", shown=captions > 0)


def no_bar(name: str, captions: int) -> tqdm:
    """Returns a progress bar that is not shown."""
    return progress_bar(captions, name, "caption", shown=False)
