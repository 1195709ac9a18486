"""The validations of a comparison: the best within given seconds, and the best, last and worst."""

import functools
from collections.abc import Callable, Sequence

from benchmarks.compare_curves import but_start, common_images
from benchmarks.compare_runs import Rows, Run
from benchmarks.compare_table import Column, markdown
from spidercap.pipeline.errors import UserError, check_choice
from spidercap.pipeline.metrics.registry import column_names


def course_of(rows: Rows, metric: str, limits: Sequence[float]) -> str:
    """Returns a table of the metric's validations: the best within each of `limits`, the best, the last, the worst.

    START is left out. Limits are seconds of the stage, with its validations and its baseline's warm-up.

    Raises:
      UserError: START is the only label, there are no validations with the metric, or runs were validated on other
        images.
    """
    check_choice("metric", metric, column_names())
    rows = but_start(rows, "within")
    common_images([run for runs in rows.values() for run in runs], metric)
    within = {f"{metric} within {limit:g} s": functools.partial(_best, metric, limit) for limit in limits}
    ends: dict[str, Callable[[Run], float | None]] = {
        "best": functools.partial(_best, metric, float("inf")),
        "last": lambda run: _values(run, metric)[-1],
        "worst": lambda run: min(_values(run, metric)),
    }
    columns = {name: Column(of, 3, best_is_bold=True) for name, of in (within | ends).items()}
    return markdown(rows, columns | {"warm-up": Column(lambda run: run.warm_up_seconds, 0, ", s")})


def parse_seconds(text: str) -> tuple[float, ...]:
    """Returns the comma-separated numbers of `--within`.

    Raises:
      UserError: one is not a number above 0.
    """
    try:
        limits = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        limits = ()
    if not limits or not all(0 < limit < float("inf") for limit in limits):
        raise UserError(f"--within={text} is invalid; needed: seconds above 0 separated by commas, such as 120,240")
    return limits


def _values(run: Run, metric: str) -> list[float]:
    return [v.metrics[metric] for v in run.validations if metric in v.metrics]


def _best(metric: str, limit: float, run: Run) -> float | None:
    """None before the first validation."""
    in_time = [v.metrics for v in run.validations if run.warm_up_seconds + v.seconds <= limit]
    return max((metrics[metric] for metrics in in_time if metric in metrics), default=None)
