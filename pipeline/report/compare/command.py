"""--mode=compare: runs side by side, read from their folders alone; without TensorFlow, unless images are shown."""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import check_output
from spidercap.pipeline.metrics.registry import remarks
from spidercap.pipeline.report.compare.course import course_columns
from spidercap.pipeline.report.compare.curves import curve_metrics, curves_of, data_notes
from spidercap.pipeline.report.compare.gallery import cards
from spidercap.pipeline.report.compare.groups import Rows, grouped, row_notes
from spidercap.pipeline.report.compare.images import drawn_ids, read_images
from spidercap.pipeline.report.compare.page import row_colours, write_page
from spidercap.pipeline.report.compare.places import parse_places
from spidercap.pipeline.report.compare.runs import Run, read_runs
from spidercap.pipeline.report.compare.table import Column, as_json, columns_of, decoding_note, markdown
from spidercap.pipeline.settings.config import Config


def compare_runs(config: Config) -> str:
    """Returns the tables of a comparison as text, with --json as one JSON object; --output also gets a page.

    Raises:
      UserError: runs cannot be read or compared, or the page cannot be written.
    """
    output, references = config.metrics.output, config.metrics.references
    places = parse_places(config.compare.workdirs)
    if output:
        # First, as the other check makes the output's folder.
        _check_outside(output, [*(place.workdir for place in places), *filter(None, config.data.images.split(","))])
        check_output("output", output, read=[references] if references else [])
    if config.data.images and not references:
        raise UserError("--images needs --references too: the captions file that names the images' files")
    runs, split = read_runs(places, config.run.split)
    rows = grouped(runs)
    tables = _tables(config, rows, split)
    notes = [*row_notes(rows), decoding_note(rows), *data_notes(runs, split), *_remarks(runs, tables)]
    notes = list(filter(None, notes))
    if output:
        _write(config, rows, split, tables, notes)
    if config.run.json:
        listed = {heading: as_json(rows, columns) for heading, columns in tables.items()}
        return json.dumps({"split": split, "tables": listed, "notes": notes}, indent=1, allow_nan=False)
    texts = [f"{heading}:\n\n{markdown(rows, columns)}" for heading, columns in tables.items()]
    return "\n\n".join([*texts, *notes, *([f"page: {output}"] if output else [])])


def _remarks(runs: Sequence[Run], tables: Mapping[str, Mapping[str, Column]]) -> list[str]:
    """What is said of the metrics of the first table; runs that have none of a metric have no version of it."""
    shown = next(iter(tables.values()))
    return remarks(shown, *(run.versions for run in runs if any(remarks([name]) for name in run.metrics)))


def _check_outside(output: str, folders: Sequence[str | pathlib.Path]) -> None:
    """Raises UserError for an output in a folder that is only read."""
    path = pathlib.Path(os.path.realpath(output))
    for folder in folders:
        if path.is_relative_to(os.path.realpath(folder)):
            raise UserError(f"--output={output} lies in {folder}, which is only read; name a file elsewhere")


def _tables(config: Config, rows: Rows, split: str) -> dict[str, Mapping[str, Column]]:
    """Columns by heading."""
    found: dict[str, Mapping[str, Column]] = {f"Scores on {_title(split)}": columns_of(rows)}
    if config.compare.within:
        first, *_ = next(iter(rows.values()))
        metric = config.compare.curve_metric or first.settings["best_metric"]
        found[f"{metric} while training"] = course_columns(rows, metric, config.compare.limits())
    return found


def _write(
    config: Config, rows: Rows, split: str, tables: Mapping[str, Mapping[str, Column]], notes: Sequence[str]
) -> None:
    runs = [run for of_row in rows.values() for run in of_row]
    ids = _shown(runs, config.compare.examples)
    listed = read_images(config.metrics.references, ids) if config.metrics.references and ids else {}
    metrics = curve_metrics(rows, config.compare.curve_metric)
    write_page(
        pathlib.Path(config.metrics.output),
        rows,
        title=f"{len(runs)} runs on {_title(split)} images",
        notes=notes,
        tables=tables,
        curves=[curve for metric in metrics for curve in curves_of(rows, metric)],
        cards=cards(rows, listed, config.data.images, ids, row_colours(rows)),
    )


def _shown(runs: Sequence[Run], count: int) -> list:
    """The ids of images that are shown; none before a run was evaluated."""
    captions = next((run.captions for run in runs if run.captions), {})
    return drawn_ids(captions, count)


def _title(split: str) -> str:
    return "validation" if split == "val" else split
