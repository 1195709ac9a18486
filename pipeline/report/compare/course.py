"""The validations of a comparison: the best within given seconds, and the best, last and worst."""

import functools
import math
from collections.abc import Callable, Iterable, Sequence

from spidercap.pipeline.report.compare.curves import check_validated
from spidercap.pipeline.report.compare.groups import Rows
from spidercap.pipeline.report.compare.runs import Run
from spidercap.pipeline.report.compare.table import Column


def course_columns(rows: Rows, metric: str, limits: Sequence[float]) -> dict[str, Column]:
    """Returns columns of the metric's validations: the best within each of `limits`, the best, the last, the worst.

    Limits are seconds of the stage, with its validations and its baseline's warm-up.

    Raises:
      UserError: a run has no validations with the metric.
    """
    check_validated([run for runs in rows.values() for run in runs], metric)
    within = {f"{metric} within {limit:g} s": functools.partial(_best, metric, limit) for limit in limits}
    ends: dict[str, Callable[[Run], float | None]] = {
        "best": functools.partial(_best, metric, float("inf")),
        "last": lambda run: (_values(run, metric) or [None])[-1],
        "worst": lambda run: min(_values(run, metric), default=None),
    }
    columns = {name: Column(of, 3, best_is_bold=True) for name, of in (within | ends).items()}
    return columns | {"warm-up": Column(lambda run: run.warm_up_seconds, 0, ", s")}


def _values(run: Run, metric: str) -> list[float]:
    return _finite(v.metrics.get(metric) for v in run.validations)


def _best(metric: str, limit: float, run: Run) -> float | None:
    """None before the first validation."""
    in_time = (v.metrics.get(metric) for v in run.validations if run.warm_up_seconds + v.seconds <= limit)
    return max(_finite(in_time), default=None)


def _finite(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]
