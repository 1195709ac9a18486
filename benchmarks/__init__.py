"""Benchmarks, to be run by hand on an idle machine, and their timing and tables."""

import dataclasses
import json
import math
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from spidercap.pipeline.files import write_text

RATE = "captions/s"
WORKERS = (1, 2, 4)


@dataclasses.dataclass(frozen=True)
class Row:
    """One result, and the difference of its scores from the reference's, if compared."""

    name: str
    value: float
    unit: str
    ratio: float | None = None  # to the reference's value in the same run
    difference: float | None = None  # the largest, over all scores
    allowed: float | None = None  # None: the difference is only shown


class Report:
    """Collects rows, and prints progress to standard error."""

    def __init__(self):
        self.rows: list[Row] = []
        self._begin = time.perf_counter()

    def log(self, text: str) -> None:
        """Prints a line of progress with the seconds since the start."""
        print(f"[{time.perf_counter() - self._begin:4.0f} s] {text}", file=sys.stderr, flush=True)

    def add(self, *row: Any, **more: Any) -> None:
        """Adds Row(...)."""
        self.rows.append(Row(*row, **more))

    def wrong(self) -> list[str]:
        """Returns the names of rows whose scores differ from the reference's by more than allowed, or are NaN."""
        checked = [row for row in self.rows if row.difference is not None and row.allowed is not None]
        return [row.name for row in checked if not row.difference <= row.allowed]  # a NaN is wrong too

    def table(self) -> str:
        """Returns all rows as text."""
        heads = ("", "value", "unit", "to the reference", "max difference")
        cells = [
            (
                row.name,
                number(row.value),
                row.unit,
                number(row.ratio),
                "" if row.difference is None else f"{row.difference:.0e}",
            )
            for row in self.rows
        ]
        return aligned([heads, *cells], left=(0, 2))

    def write(self, path: pathlib.Path) -> None:
        """Writes a list of {"name", "value", "unit", "ratio"}."""
        rows = [{"name": r.name, "value": r.value, "unit": r.unit, "ratio": r.ratio} for r in self.rows]
        write_text(path, json.dumps(rows, indent=1, allow_nan=False) + "\n")


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Returns the seconds that a call takes, and its result."""
    begin = time.perf_counter()
    result = call()
    return time.perf_counter() - begin, result


def median_seconds(call: Callable[[], Any], times: int) -> float:
    """Returns the median of several calls."""
    return statistics.median(timed(call)[0] for _ in range(times))


def in_pairs(
    ours: Callable[[], Any], theirs: Callable[[], Any], pairs: int, calls: int = 1
) -> tuple[float, float, float]:
    """Returns the medians of ours and theirs in seconds, and the median of the speed-up of ours.

    Calls alternate, so that other load on the machine affects both.

    Args:
      calls: calls of ours per pair, whose median is used.
    """
    seconds = [(median_seconds(ours, calls), timed(theirs)[0]) for _ in range(pairs)]
    mine, other = (statistics.median(column) for column in zip(*seconds, strict=True))
    return mine, other, statistics.median(b / a for a, b in seconds)


def largest_difference(ours: Any, theirs: Any) -> float:
    """Returns the largest absolute difference of two lists of scores; NaN equals NaN, a single NaN gives NaN."""
    pairs = list(zip(ours, theirs, strict=True))
    both = [(float(a), float(b)) for a, b in pairs if not (math.isnan(a) and math.isnan(b))]
    differences = [abs(a - b) for a, b in both]
    return math.nan if any(map(math.isnan, differences)) else max(differences, default=0.0)


def positive(text: str) -> int:
    """Returns an integer of a command line; raises ValueError below 1."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def plural(workers: int) -> str:
    """Returns '1 worker' or '2 workers'."""
    return f"{workers} worker{'s' * (workers > 1)}"


def number(value: float | None) -> str:
    """Returns the number with three significant digits or all digits before its point; '' for None."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def aligned(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> str:
    """Returns rows of cells, the heads first, as a table with left-aligned columns `left`."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [f"{cell:{'<' if i in left else '>'}{widths[i]}}" for i, cell in enumerate(row)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
