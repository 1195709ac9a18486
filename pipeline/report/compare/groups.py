"""Rows of a comparison: runs whose settings differ only in the seed, and what other settings tell the rows apart."""

import collections
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.report.compare.places import common_name
from spidercap.pipeline.report.compare.runs import Run
from spidercap.pipeline.settings.config import fields
from spidercap.pipeline.settings.fields import canonical
from spidercap.pipeline.settings.saved import read_settings

OF_A_SEED = ("seed", "warm_start")  # each seed may start from a run of its own, whose settings count instead
DEEPEST = 10  # runs that start from each other

# Label of a row -> its runs, which differ by their seeds.
Rows = Mapping[str, Sequence[Run]]


def grouped(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Returns rows by label, in the order of their first run: of one given label, or of equal settings but the seed.

    Without a given label, a row's is what the names of its folders begin with.
    """
    by_key: dict[Any, list[Run]] = {}
    for run in runs:
        key = run.label or (_key(run.workdir, run.settings), run.stage, _text(run.decoding), bool(run.unfinished))
        by_key.setdefault((key, bool(run.unfinished)), []).append(run)
    wanted = [of_row[0].label or common_name([run.workdir for run in of_row]) for of_row in by_key.values()]
    rows: dict[str, list[Run]] = {}
    for label, of_row in zip(wanted, by_key.values(), strict=True):
        ends = ["", f" {of_row[0].stage}", *(f" ({i})" for i in range(2, len(wanted) + 2))]
        mark = " (unfinished)" if of_row[0].unfinished else ""
        again = collections.Counter(wanted)[label] > 1 and not of_row[0].label
        rows[next(label + end + mark for end in ends[again:] if label + end + mark not in rows)] = of_row
    return rows


def settings_apart(rows: Rows) -> dict[str, list[str]]:
    """Returns the settings in which rows differ, each with its value by row, of the row's first run."""
    firsts = [_settings(of_row[0].settings) for of_row in rows.values()]
    names = [name for name in firsts[0] if len({_text(_spelled(name, of[name])) for of in firsts}) > 1]
    return {name: [str(of[name]) for of in firsts] for name in names}


def row_notes(rows: Rows) -> Iterator[str]:
    """Yields a line for each row whose given label holds runs of other settings, and for each unfinished run."""
    for label, of_row in rows.items():
        apart = settings_apart({str(i): [run] for i, run in enumerate(of_row)})
        if apart:
            told = "; ".join(f"{name}: {', '.join(dict.fromkeys(values))}" for name, values in apart.items())
            yield f"{label}: its runs differ in more than the seed ({told})"
        seeds = [run.settings["seed"] for run in of_row]
        if len(set(seeds)) < len(seeds):
            yield f"{label}: runs of the same seed count as several, so its ± is not the spread of seeds"
    for of_row in rows.values():
        for run in of_row:
            if run.unfinished:
                shown = "its scores are of the best validation while training" if run.metrics else "it has no scores"
                yield f"{run.workdir} is {run.unfinished}; {shown}, and it has no captions to show"


def _settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    known = fields()
    return {n: v for n, v in settings.items() if known[n].metadata["fixed"] and n not in OF_A_SEED}


def _key(workdir: pathlib.Path, settings: Mapping[str, Any], depth: int = 0) -> str:
    """All that tells one recipe from another: settings, those of the run that it starts from, and the data."""
    start = settings["warm_start"]
    if start and depth < DEEPEST:
        try:
            start = _key(pathlib.Path(start), read_settings(pathlib.Path(start, "config.json")), depth + 1)
        except UserError:  # it was moved since
            start = "another run"
    own = {name: _spelled(name, value) for name, value in _settings(settings).items()}
    try:
        data = (workdir / "data.json").read_text(encoding="utf-8")
    except OSError:
        data = ""
    return _text([own, start, data])


def _spelled(name: str, value: Any) -> Any:
    return canonical(fields()[name], value)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
