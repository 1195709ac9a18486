"""The report page of a run: scores of each stage, curves, and images with their captions.

Everything is in one file (images as data URIs, SVG charts, no script), so that it can be archived or mailed.
"""

import datetime
import importlib.resources
import itertools
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from types import MappingProxyType

from spidercap.pipeline.files import written_aside
from spidercap.pipeline.report.cards import GalleryItem, card, ends_marked
from spidercap.pipeline.report.charts import ABSENT, Colours, Curve, chart, number
from spidercap.pipeline.text.printable import printable

_COLOURS = 8  # classes c0..c7 in report.css; further names repeat them with dashed lines
MANY = 13  # columns, from which on they stand closer
_NO_BEST = frozenset({"mean length"})
_LOWER_IS_BETTER = frozenset({"loss", "perplexity"})  # by the last word of a metric's name
_STYLE, _MAPS_STYLE = "report.css", "attention_maps.css"
_SAFETY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class StageResult:
    """Validation scores of one training stage, and its cost; `seconds` of wall clock."""

    name: str
    metrics: Mapping[str, float]
    images_seen: int
    seconds: float


def class_names(names: Sequence[str]) -> dict[str, str]:
    """Returns classes of report.css by name, one colour per name."""
    return {name: f"c{i % _COLOURS}" + (" again" if i >= _COLOURS else "") for i, name in enumerate(names)}


def write_report(
    path: str | os.PathLike,
    *,
    title: str,
    settings: Mapping[str, object],
    metric: str,
    stages: Sequence[StageResult],
    curves: Sequence[Curve],
    best: Sequence[GalleryItem],
    worst: Sequence[GalleryItem],
    notes: Sequence[str] = (),
    others: Mapping[str, Sequence[StageResult]] = MappingProxyType({}),
    unscored: Mapping[str, float] = MappingProxyType({}),
    maps_hint: str = "",
) -> None:
    """Writes the page to `path`, whole or not at all: an older page stays until the new one is complete.

    `metric` names the scores of the images. `best` and `worst` are sorted by the scores of the last stage; images
    without that score come last. The best value in the table is a metric's highest, the lowest of a loss or
    perplexity, and none of a mean length. `others` are tables of further splits, by heading; `unscored` the seconds of
    stages that are neither in tables nor in curves, because they do not change the captioner. `maps_hint` explains the
    attention maps of images, where there are any.

    Raises:
      UserError: an image is neither JPEG nor PNG.
      OSError: the folder is missing or cannot be written.
    """
    items = [*best, *worst]
    colours = _colours(stages, curves, items)
    last = stages[-1].name if stages else "training"
    hint = f"By the image's {metric} after {last}; words in which first and last caption differ are marked."
    with_maps = any(item.maps for item in items)
    if with_maps and maps_hint:
        hint = f"{hint} {maps_hint}"
    best = sorted(best, key=lambda item: -_score(item, last, -math.inf))
    worst = sorted(worst, key=lambda item: _score(item, last, math.inf))
    body = [
        head(title, notes),
        _results(stages, colours),
        *(_results(of_other, colours, escape(heading)) for heading, of_other in others.items()),
        section("Curves", "charts", [chart(curve, colours) for curve in curves], _gap(unscored)),
        _gallery("Best first", best, colours, metric, hint),
        _gallery("Worst first", worst, colours, metric, hint),
        _settings(settings),
    ]
    styles = (_STYLE, _MAPS_STYLE) if with_maps else (_STYLE,)
    # A file name that is not UTF-8 reaches Python with lone surrogates, which cannot be encoded.
    with written_aside(pathlib.Path(path)) as aside:
        aside.write_bytes(page(title, "\n".join(body), styles).encode("utf-8", errors="replace"))


def page(title: str, body: str, styles: Sequence[str] = (_STYLE,)) -> str:
    """Returns a whole page in the style of the report; `styles` are files of this package."""
    style = "".join(importlib.resources.files(__package__).joinpath(name).read_text("utf-8") for name in styles)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_SAFETY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(printable(title))}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _colours(stages: Sequence[StageResult], curves: Sequence[Curve], items: Sequence[GalleryItem]) -> Colours:
    """The class of every name; stages come first, so that a stage's colour does not depend on the charts."""
    named = [
        (stage.name for stage in stages),
        *(item.captions for item in items),
        *(curve.series for curve in curves),
    ]
    return class_names(list(dict.fromkeys(itertools.chain.from_iterable(named))))


def _score(item: GalleryItem, stage: str, absent: float) -> float:
    value = item.scores.get(stage, math.nan)
    return value if math.isfinite(value) else absent


def section(heading: str, kind: str, parts: Sequence[str], hint: str = "") -> str:
    """Returns parts below a heading, '' without parts; `kind` is a class of report.css."""
    if not parts:
        return ""
    heading = f"<h2>{heading}</h2>" + (f'\n<p class="hint">{escape(hint)}</p>' if hint else "")
    return f'<section>\n{heading}\n<div class="{kind}">\n' + "\n".join(parts) + "\n</div>\n</section>"


def _gallery(heading: str, items: Sequence[GalleryItem], colours: Colours, metric: str, hint: str) -> str:
    return section(
        heading, "gallery", [card(item, colours, metric, ends_marked(item, colours)) for item in items], hint
    )


def head(title: str, notes: Sequence[str]) -> str:
    """Returns the page's title below the date, with notes."""
    now = datetime.datetime.now().astimezone()
    date = f'<time datetime="{now.isoformat(timespec="seconds")}">{now.day} {now:%B %Y, %H:%M %Z}</time>'
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    listed = f'\n<ul class="notes">{listed}</ul>' if notes else ""
    return f'<header>\n<p class="date">{date}</p>\n<h1>{escape(printable(title))}</h1>{listed}\n</header>'


def _settings(settings: Mapping[str, object]) -> str:
    if not settings:
        return ""
    rows = "\n".join(
        f"<div><dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd></div>" for name, value in settings.items()
    )
    return f"<details>\n<summary>Settings ({len(settings)})</summary>\n<dl>\n{rows}\n</dl>\n</details>"


def _gap(unscored: Mapping[str, float]) -> str:
    """A sentence on the stages without scores; '' if there are none."""
    if not unscored:
        return ""
    names = " and ".join(f"{name} ({_duration(seconds)})" for name, seconds in unscored.items())
    return (
        f"No curve and no row for {names}: only the baseline was trained, and captions were those of the stage before."
    )


# ---- the table ----


def _results(stages: Sequence[StageResult], colours: Colours, heading: str = "Results") -> str:
    metrics = list(dict.fromkeys(itertools.chain.from_iterable(stage.metrics for stage in stages)))
    columns = [_column(metric, [stage.metrics.get(metric, math.nan) for stage in stages]) for metric in metrics]
    columns.append(["<th>images seen</th>", *(f"<td>{stage.images_seen:,}</td>" for stage in stages), "<td></td>"])
    columns.append(["<th>time</th>", *(f"<td>{_duration(stage.seconds)}</td>" for stage in stages), "<td></td>"])
    names = [f'<th class="{colours[stage.name]}"><i></i>{escape(stage.name)}</th>' for stage in stages]
    columns.insert(0, ["<th>stage</th>", *names, '<th class="change">change</th>'])
    rows = list(zip(*columns, strict=True))
    return section(heading, "results", [table(rows if len(stages) > 1 else rows[:-1])] if stages else [])


def table(rows: Sequence[Sequence[str]]) -> str:
    """Returns a table of cells (`<th>` or `<td>` elements) by row, the head first."""
    head, *body = ["<tr>" + "".join(cells) + "</tr>" for cells in rows]
    wide = ' class="wide"' if len(rows[0]) > MANY else ""
    opening = f'<table{wide} style="--lines:{len(rows[0])}">\n<thead>{head}</thead>\n<tbody>\n'
    return opening + "\n".join(body) + "\n</tbody>\n</table>"


def _column(metric: str, values: Sequence[float]) -> list[str]:
    """The cells of one metric: its name, one value per stage (NaN: none), the change from first to last."""
    known = [value for value in values if math.isfinite(value)]
    counts = any(value > 1 for value in known) and all(float(value).is_integer() for value in known)
    lower = metric.lower().split(" ")[-1] in _LOWER_IS_BETTER
    texts = [number(value, 0 if counts else 3) for value in values]
    shown = {number(value, 0 if counts else 3) for value in known}  # what looks equal is equal
    best = (
        number((min if lower else max)(known), 0 if counts else 3) if len(shown) > 1 and metric not in _NO_BEST else ""
    )
    cells = [f"<td><b>{text}</b></td>" if text == best else f"<td>{text}</td>" for text in texts]
    return [f"<th>{escape(metric)}</th>", *cells, f'<td class="change">{_change(values[0], values[-1])}</td>']


def _change(first: float, last: float) -> str:
    if first == 0 or not math.isfinite(first) or not math.isfinite(last):
        return ABSENT
    return f"{100 * (last - first) / abs(first):+.1f}%".replace("-", "−")


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return ABSENT
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
