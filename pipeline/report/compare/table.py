"""The table of a comparison: one row per label, each cell the mean over seeds with its std."""

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from spidercap.pipeline.evaluation.endings import BAD_ENDINGS
from spidercap.pipeline.metrics.registry import column_names
from spidercap.pipeline.report.compare.groups import Rows
from spidercap.pipeline.report.compare.runs import Run

ABSENT = "—"


@dataclasses.dataclass(frozen=True)
class Column:
    """How a value of a run is computed and shown."""

    of: Callable[[Run], float | None]
    decimals: int
    unit: str = ""  # appended to the head
    best_is_bold: bool = False


@dataclasses.dataclass(frozen=True)
class Cell:
    """A column of one label; `mean` is None if a seed has no value, `spread` also if there is one seed."""

    values: tuple[float | None, ...]  # by seed
    mean: float | None
    spread: float | None  # sample std


def bad_endings(run: Run) -> float | None:
    """Returns the percentage of captions that end in a word such as 'a' or 'with', or were cut at max_length.

    A caption of max_length words was cut, because its end token would also count.
    """
    captions = [caption.split() for caption in run.captions.values()]
    return _percent(
        words and (words[-1] in BAD_ENDINGS or len(words) >= run.settings["max_length"]) for words in captions
    )


def repeating(run: Run) -> float | None:
    """Returns the percentage of captions that contain a trigram twice."""
    captions = [caption.split() for caption in run.captions.values()]
    grams = [list(zip(words, words[1:], words[2:], strict=False)) for words in captions]
    return _percent(len(set(of_caption)) < len(of_caption) for of_caption in grams)


def _percent(are: Iterable[Any]) -> float | None:
    are = list(map(bool, are))
    return 100 * statistics.fmean(are) if are else None


def _metric(name: str) -> Callable[[Run], float | None]:
    return lambda run: run.metrics.get(name)


COLUMNS = {name: Column(_metric(name), 3, best_is_bold=True) for name in column_names()} | {
    "mean length": Column(_metric("mean length"), 2),
    "distinct captions": Column(_metric("distinct captions"), 0),
    "bad endings": Column(bad_endings, 1, ", %"),
    "repeated trigrams": Column(repeating, 1, ", %"),
    "minutes": Column(lambda run: run.seconds / 60, 1),
    "best epoch": Column(lambda run: run.best_epoch, 2),
}


def columns_of(rows: Rows) -> dict[str, Column]:
    """Returns the columns for which a run has a value."""
    runs = [run for of_row in rows.values() for run in of_row]
    return {name: how for name, how in COLUMNS.items() if any(how.of(run) is not None for run in runs)}


def cells(rows: Rows, columns: Mapping[str, Column]) -> dict[str, dict[str, Cell]]:
    """Returns the cells by label and column."""
    return {
        label: {name: _cell([how.of(run) for run in runs]) for name, how in columns.items()}
        for label, runs in rows.items()
    }


def shown_cells(rows: Rows, columns: Mapping[str, Column]) -> dict[str, dict[str, tuple[str, str, bool]]]:
    """Returns (mean, spread or '', whether it is the best) as shown, by label and column.

    The best mean of a metric is marked with those that look equal, unless all do.
    """
    table = cells(rows, columns)
    best = {name: _best([of_label[name] for of_label in table.values()], how) for name, how in columns.items()}
    return {
        label: {name: _shown(of_label[name], how, best[name]) for name, how in columns.items()}
        for label, of_label in table.items()
    }


def markdown(rows: Rows, columns: Mapping[str, Column]) -> str:
    """Returns the table; the best mean of a metric is bold."""
    heads = [name + how.unit for name, how in columns.items()]
    lines = [["", "seeds", *heads], ["---", *["---:"] * (1 + len(columns))]]
    for label, shown in shown_cells(rows, columns).items():
        texts = [
            (f"**{mean}**" if bold else mean) + (f" ± {spread}" if spread else "")
            for mean, spread, bold in shown.values()
        ]
        lines.append([in_cell(label), str(len(rows[label])), *texts])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_json(rows: Rows, columns: Mapping[str, Column]) -> list[dict[str, Any]]:
    """Returns the table for JSON: one row per label, with the values of its seeds."""
    return [
        {
            "label": label,
            "seeds": len(rows[label]),
            "runs": [_run_json(run) for run in rows[label]],
            "columns": {name: dataclasses.asdict(cell) for name, cell in of_label.items()},
        }
        for label, of_label in cells(rows, columns).items()
    ]


def _run_json(run: Run) -> dict[str, Any]:
    told = {"workdir": str(run.workdir), "stage": run.stage, "seed": run.settings["seed"]}
    return told | {"decoding": run.decoding, "unfinished": run.unfinished}


def decoding_note(rows: Rows) -> str:
    """Returns a line on the decoders of labels if they differ, else ''."""
    ways: dict[str, list[str]] = {}
    for label, runs in rows.items():
        for run in filter(lambda run: not run.unfinished, runs):
            way = ways.setdefault(_way(run.decoding), [])
            way += [label] * (label not in way)
    listed = "; ".join(f"{', '.join(labels)}: {way}" for way, labels in ways.items())
    return f"Captions were decoded differently: {listed}" if len(ways) > 1 else ""


def in_cell(text: str) -> str:
    """Returns text escaped for a cell of a Markdown table."""
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").split())


def _way(decoding: Mapping[str, Any]) -> str:
    if decoding.get("decode", "greedy") == "greedy":
        return "greedy"
    return ", ".join(f"{name} {value}" for name, value in decoding.items() if value)


def _cell(values: Sequence[float | None]) -> Cell:
    known = tuple(v if v is not None and math.isfinite(v) else None for v in values)
    if None in known:
        return Cell(known, None, None)
    return Cell(known, statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None)


def _best(column: Sequence[Cell], how: Column) -> str:
    """The best mean as shown; '' if none is marked."""
    means = [cell.mean for cell in column if cell.mean is not None]
    shown = {f"{mean:.{how.decimals}f}" for mean in means}
    return f"{max(means):.{how.decimals}f}" if how.best_is_bold and len(shown) > 1 else ""


def _shown(cell: Cell, how: Column, best: str) -> tuple[str, str, bool]:
    if cell.mean is None:
        return ABSENT, "", False
    mean = f"{cell.mean:.{how.decimals}f}"
    return mean, "" if cell.spread is None else f"{cell.spread:.{how.decimals}f}", mean == best
