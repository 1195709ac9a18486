"""Curves of a comparison: validations while training, over images seen, captions scored and seconds."""

from collections.abc import Callable, Iterator, Sequence

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.report.charts import Curve
from spidercap.pipeline.report.compare.groups import Rows
from spidercap.pipeline.report.compare.runs import Run
from spidercap.pipeline.training.progress import Validation

ALWAYS = "CIDEr"
AXES: dict[str, Callable[[Validation], float | None]] = {
    "images seen in the stage": lambda row: row.images_seen,
    "captions scored in the stage": lambda row: row.captions_scored,
    "seconds of the stage, with validations": lambda row: row.seconds,
}


def curve_metrics(rows: Rows, asked: str) -> list[str]:
    """Returns the metrics of the curves: the one that is asked for, else what selected the checkpoints, and ALWAYS.

    Without a value there is no curve.
    """
    if asked:
        return [asked]
    runs = [run for of_row in rows.values() for run in of_row]
    known = {
        name for run in runs for row in run.validations for name, value in row.metrics.items() if value is not None
    }
    wanted = dict.fromkeys([*(run.settings["best_metric"] for run in runs), ALWAYS])
    return [name for name in wanted if name in known]


def curves_of(rows: Rows, metric: str) -> list[Curve]:
    """Returns a chart for each axis; a row has a line for each of its runs."""
    return [Curve(f"{metric} on validation", axis, metric, *_lines(rows, metric, of)) for axis, of in AXES.items()]


def _lines(
    rows: Rows, metric: str, of: Callable[[Validation], float | None]
) -> tuple[dict[str, list[tuple[float, float]]], dict[str, list[list[tuple[float, float]]]]]:
    """The line of each row's first run, and those of its others."""
    lines = {label: [_line(run, metric, of) for run in of_row] for label, of_row in rows.items()}
    return {label: of_row[0] for label, of_row in lines.items()}, {label: of_row[1:] for label, of_row in lines.items()}


def _line(run: Run, metric: str, of: Callable[[Validation], float | None]) -> list[tuple[float, float]]:
    points = [(of(row), row.metrics.get(metric)) for row in run.validations]
    known = [(x, y) for x, y in points if x is not None and y is not None]
    return known if any(x for x, _ in known) else []  # likelihood scores no captions


def check_validated(runs: Sequence[Run], metric: str) -> None:
    """Raises UserError for a run that was never validated by the metric while training."""
    for run in runs:
        if not any(row.metrics.get(metric) is not None for row in run.validations):
            raise UserError(
                f"{run.workdir} has no validations of stage {run.stage} with {metric}; train with --metrics that name "
                "it, or name another --curve_metric"
            )


def data_notes(runs: Sequence[Run], split: str) -> Iterator[str]:
    """Yields remarks on runs whose validations or scores on `split` cannot be compared with those of the first run."""
    first = runs[0]
    for run in runs[1:]:
        ours, theirs = run.settings["val_images"], first.settings["val_images"]
        if ours != theirs:
            yield (
                f"while training, {run.workdir} was validated with --val_images={ours} and {first.workdir} with "
                f"--val_images={theirs} (0: all), so their curves are of different images"
            )
        for name in dict.fromkeys(("val", split)):
            if len({run.data.get(name), first.data.get(name)} - {None}) > 1:
                yield (
                    f"{run.workdir} has other captions or images of {name} than {first.workdir}, so their scores there "
                    "are not of the same references"
                )
