"""The page of a comparison: tables over seeds, curves, and the captions of the same images."""

import pathlib
from collections.abc import Mapping, Sequence
from html import escape

from spidercap.pipeline.files import write_text
from spidercap.pipeline.report.charts import Colours, Curve, chart
from spidercap.pipeline.report.compare.groups import Rows, settings_apart
from spidercap.pipeline.report.compare.table import Column, shown_cells
from spidercap.pipeline.report.page import class_names, head, page, section, table

COUNTED = (
    "Mean ± sample standard deviation of runs that differ in the seed; a dash means that a run has no value. "
    "Bad endings: captions that end in a word such as 'a' or 'with', or were cut at --max_length. "
    "Repeated trigrams: captions that contain a trigram twice. Minutes are of the stage, with its validations; best "
    "epoch is that of the kept weights."
)
WITHIN = (
    "The best validation while training within so many seconds of the stage, its validations and its baseline's "
    "warm-up included; best, last and worst are of all its validations."
)
CURVES = "A line is a run; runs of one row have one colour. Likelihood scores no captions while it trains."
GALLERY = "Drawn at random. Captions are of a row's first run; words that differ from the first caption are marked."


def write_page(
    path: pathlib.Path,
    rows: Rows,
    title: str,
    notes: Sequence[str],
    tables: Mapping[str, Mapping[str, Column]],
    curves: Sequence[Curve],
    cards: Sequence[str],
) -> None:
    """Writes the page, whole or not at all.

    Args:
      path: the HTML file.
      rows: the runs, by label.
      title: of the page.
      notes: lines below the title.
      tables: columns by heading; the first table is of the scores.
      curves: the charts.
      cards: the images, as HTML.

    Raises:
      UserError: it cannot be written.
    """
    colours = row_colours(rows)
    hints = [COUNTED, *[WITHIN] * (len(tables) - 1)]
    body = [
        head(title, notes),
        *(
            section(escape(heading), "results", [_table(rows, columns, colours)], hint)
            for (heading, columns), hint in zip(tables.items(), hints, strict=True)
        ),
        _differing(rows, colours),
        section("Curves", "charts triple", [chart(curve, colours) for curve in curves], CURVES),
        section("Captions side by side", "gallery", cards, GALLERY),
        section("Runs", "results", [_runs(rows, colours)]),
    ]
    # A file name that is not UTF-8 reaches Python with lone surrogates, which cannot be encoded.
    write_text(path, page(title, "\n".join(body)).encode("utf-8", "replace").decode("utf-8"))


def row_colours(rows: Rows) -> Colours:
    """Returns a CSS class for each row."""
    return class_names(list(rows))


def _name(label: str, colours: Colours) -> str:
    return f'<th class="{colours[label]}"><i></i>{escape(label)}</th>'


def _table(rows: Rows, columns: Mapping[str, Column], colours: Colours) -> str:
    heads = [
        "<th>row</th>",
        "<th>seeds</th>",
        *(f"<th>{escape(name + how.unit)}</th>" for name, how in columns.items()),
    ]
    body = [
        [_name(label, colours), f"<td>{len(rows[label])}</td>", *(_cell(*cell) for cell in shown.values())]
        for label, shown in shown_cells(rows, columns).items()
    ]
    return table([heads, *body])


def _cell(mean: str, spread: str, is_best: bool) -> str:
    mean = f"<b>{mean}</b>" if is_best else mean
    return f"<td>{mean}{f' <small>± {spread}</small>' if spread else ''}</td>"


def _differing(rows: Rows, colours: Colours) -> str:
    """The settings that tell the rows apart; nothing if there are none."""
    apart = {"stage": [of_row[0].stage for of_row in rows.values()]} | settings_apart(rows)
    apart = {name: values for name, values in apart.items() if len(set(values)) > 1}
    if not apart:
        return ""
    heads = ["<th>setting</th>", *(_name(label, colours) for label in rows)]
    body = [
        [f"<th>{escape(name)}</th>", *(f'<td class="text">{escape(value) or "–"}</td>' for value in values)]
        for name, values in apart.items()
    ]
    return section("Settings that differ", "results", [table([heads, *body])])


def _runs(rows: Rows, colours: Colours) -> str:
    heads = ["<th>row</th>", *(f"<th>{name}</th>" for name in ("seed", "stage", "workdir"))]
    body = [
        [
            _name(label, colours),
            f"<td>{escape(str(run.settings['seed']))}</td>",
            f"<td>{escape(run.stage)}</td>",
            f'<td class="text">{escape(str(run.workdir) + (f" ({run.unfinished})" if run.unfinished else ""))}</td>',
        ]
        for label, of_row in rows.items()
        for run in of_row
    ]
    return table([heads, *body])
