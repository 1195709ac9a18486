"""Captions that are long for SPICE's parser: each is parsed alone, with limits of its own on time and memory.

The parser, a CKY parser of a whole caption as one sentence, needs time and memory that grow with about the square of
the number of words. docs/metrics.md has the numbers.
"""

import contextlib
import sys
from collections.abc import Callable, Iterable, Sequence

from tqdm import tqdm

from spidercap.pipeline.metrics.java.pool import Pool
from spidercap.pipeline.metrics.java.process import DoesNotStart, OutOfTime, WorkerFailed
from spidercap.pipeline.metrics.text_metrics import cut_remark
from spidercap.pipeline.metrics.tuple_store import Tuples

MOST_WORDS = 60  # of a caption that is parsed in a batch, in about 4 s; so many are read of one that is cut
POOLED_WORDS = 200  # of a caption for which the heap of the pool's workers is enough


class LongCaptions:
    """Parses captions of more than MOST_WORDS words, and remembers those that it cannot parse."""

    def __init__(self, parsers: Pool, open_large: Callable[[], Pool], timeout: float):
        """Takes the parsers of shorter captions, too.

        Args:
          open_large: opens a pool of one worker with as much memory as there is, to be closed after use.
          timeout: seconds for a caption of MOST_WORDS words. Others get more, by the square of their words.
        """
        self._parsers, self._open_large, self._timeout = parsers, open_large, timeout
        self._large: Pool | None = None  # while it is open
        self.cut: set[str] = set()  # captions of which only the first MOST_WORDS words can be parsed

    def parse(
        self, captions: Sequence[str], done: Callable[[int], object], keep: Callable[[dict[str, Tuples]], object]
    ) -> None:
        """Calls `keep` with the tuples of each caption, or adds it to `cut`, and calls `done` with 1.

        Captions of up to POOLED_WORDS words are parsed by the pool, others one at a time. A caption for which the
        pool's memory is not enough is tried again with more.
        """
        pooled = [caption for caption in captions if words(caption) <= POOLED_WORDS]
        left = [caption for caption in captions if words(caption) > POOLED_WORDS]
        left += self._try(self._parsers, pooled, done, keep) if pooled else []
        if not left:
            return
        tqdm.write(
            f"SPICE: captions of up to {max(map(words, left))} words are parsed one at a time ({len(left)} in all), "
            "which can take minutes each",
            file=sys.stderr,
        )
        try:
            with self._open_large() as self._large:
                beyond = self._try(self._large, left, done, keep)
        finally:
            self._large = None
        self.cut.update(beyond)
        done(len(beyond))

    def close(self) -> None:
        """Stops the worker for very long captions, if there is one; `parse` in another thread fails."""
        large = self._large
        if large is not None:
            large.close()

    def remark(self, captions: Iterable[str]) -> str:
        """Returns the remark to print with scores of these captions: how many are cut; '' if none is."""
        cut = sum(caption in self.cut for caption in captions) if self.cut else 0
        return cut_remark("SPICE", f"{MOST_WORDS} words", cut, "need more time (--metric_timeout) or memory")

    def _try(
        self,
        pool: Pool,
        captions: Sequence[str],
        done: Callable[[int], object],
        keep: Callable[[dict[str, Tuples]], object],
    ) -> list[str]:
        """The captions that failed for another reason than time; those that ran out of time are cut."""
        left = dict.fromkeys(captions)

        def settle(place: int, answers: list) -> None:
            caption, answer = captions[place], answers[0]
            if isinstance(answer, OutOfTime):
                self.cut.add(caption)
            elif isinstance(answer, WorkerFailed):
                return
            else:
                keep({caption: answer})
            del left[caption]
            done(1)

        # A JVM does not start either if its heap is too much or too little.
        with contextlib.suppress(DoesNotStart):
            pool.try_each(captions, timeouts=[self._seconds(caption) for caption in captions], keep=settle)
        return list(left)

    def _seconds(self, caption: str) -> float:
        return self._timeout * (words(caption) / MOST_WORDS) ** 2


def is_long(caption: str) -> bool:
    """Returns whether a tokenised caption has more than MOST_WORDS words."""
    return words(caption) > MOST_WORDS


def words(caption: str) -> int:
    """Returns the number of words of a tokenised caption."""
    return caption.count(" ") + 1


def beginning(caption: str) -> str:
    """Returns the first MOST_WORDS words of a tokenised caption."""
    return " ".join(caption.split(" ")[:MOST_WORDS])
