"""The page people open after training: scores of each stage, curves, and pictures with their captions.

Everything lies in the one file (pictures as data URIs, SVG charts, no script), so it can be kept or mailed.
"""

import base64
import datetime
import difflib
import importlib.resources
import itertools
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from pipeline.errors import UserError

_COLOURS = 8  # classes c0..c7 in report.css; further names repeat them dashed
_CHART_WIDTH, _CHART_HEIGHT = 480, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 468, 30, 246  # the plotting area; outside it stand the labels
_MAX_DOTS = 60  # beyond it the dots of a line hide the line
_NO_BEST = frozenset({"mean length"})
_LOWER_IS_BETTER = frozenset({"loss", "perplexity"})  # by the last word of a metric's name
_ABSENT = "–"
_MAGIC = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}
_SAFETY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

Colours = Mapping[str, str]  # CSS classes by stage or series name; stages stand first, in their order


@dataclass(frozen=True)
class StageResult:
    """Validation scores at the end of one training stage, with what it took (`seconds` of wall clock)."""

    name: str
    metrics: Mapping[str, float]
    images_seen: int
    seconds: float


@dataclass(frozen=True)
class Curve:
    """A line chart; `series` maps a name, mostly a stage's, to (x, y) points; NaN or infinity is skipped."""

    title: str
    x_label: str
    y_label: str
    series: Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True)
class GalleryItem:
    """A picture (JPEG or PNG bytes), its references, and by stage name its captions and their CIDEr."""

    image: bytes
    image_id: int
    file_name: str
    references: Sequence[str]
    captions: Mapping[str, str]
    scores: Mapping[str, float]


def write_report(
    path: str | os.PathLike,
    *,
    title: str,
    settings: Mapping[str, object],
    stages: Sequence[StageResult],
    curves: Sequence[Curve],
    best: Sequence[GalleryItem],
    worst: Sequence[GalleryItem],
    notes: Sequence[str] = (),
) -> None:
    """Writes the page to `path`, whole or not at all: an older page stays until the new one is complete.

    `best` and `worst` are sorted here by the last stage's score; pictures without that score come last.
    Best in the table is a metric's highest value, of a loss or perplexity the lowest, of a mean length none.

    Raises:
      UserError: a picture is neither JPEG nor PNG.
      OSError: the folder is missing or cannot be written.
    """
    items = [*best, *worst]
    colours = _colours(stages, curves, items)
    last = stages[-1].name if stages else "training"
    hint = f"By the picture's CIDEr after {last}; words in which first and last caption differ are marked."
    best = sorted(best, key=lambda item: -_score(item, last, -math.inf))
    worst = sorted(worst, key=lambda item: _score(item, last, math.inf))
    body = [
        _head(title, notes),
        _results(stages, colours),
        _section("Curves", "charts", [_chart(curve, colours) for curve in curves]),
        _section("Best first", "gallery", [_card(item, colours) for item in best], hint),
        _section("Worst first", "gallery", [_card(item, colours) for item in worst], hint),
        _settings(settings),
    ]
    # A file name that is not UTF-8 reaches Python with lone surrogates, which no encoding takes.
    _write_whole(pathlib.Path(path), _page(title, "\n".join(body)).encode("utf-8", errors="replace"))


def _write_whole(path: pathlib.Path, data: bytes) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        aside.write_bytes(data)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _page(title: str, body: str) -> str:
    style = importlib.resources.files("pipeline").joinpath("report.css").read_text("utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_SAFETY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _colours(stages: Sequence[StageResult], curves: Sequence[Curve], items: Sequence[GalleryItem]) -> Colours:
    """Class of every name; stages come first, so that a stage's colour does not depend on the charts."""
    named = [
        (stage.name for stage in stages),
        *(item.captions for item in items),
        *(curve.series for curve in curves),
    ]
    names = dict.fromkeys(itertools.chain.from_iterable(named))
    return {name: f"c{i % _COLOURS}" + (" again" if i >= _COLOURS else "") for i, name in enumerate(names)}


def _score(item: GalleryItem, stage: str, absent: float) -> float:
    value = item.scores.get(stage, math.nan)
    return value if math.isfinite(value) else absent


def _section(heading: str, kind: str, parts: Sequence[str], hint: str = "") -> str:
    if not parts:
        return ""
    heading = f"<h2>{heading}</h2>" + (f'\n<p class="hint">{escape(hint)}</p>' if hint else "")
    return f'<section>\n{heading}\n<div class="{kind}">\n' + "\n".join(parts) + "\n</div>\n</section>"


def _head(title: str, notes: Sequence[str]) -> str:
    now = datetime.datetime.now().astimezone()
    date = f'<time datetime="{now.isoformat(timespec="seconds")}">{now.day} {now:%B %Y, %H:%M %Z}</time>'
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    listed = f'\n<ul class="notes">{listed}</ul>' if notes else ""
    return f'<header>\n<p class="date">{date}</p>\n<h1>{escape(title)}</h1>{listed}\n</header>'


def _settings(settings: Mapping[str, object]) -> str:
    if not settings:
        return ""
    rows = "\n".join(
        f"<div><dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd></div>" for name, value in settings.items()
    )
    return f"<details>\n<summary>Settings ({len(settings)})</summary>\n<dl>\n{rows}\n</dl>\n</details>"


# ---- the table ----


def _results(stages: Sequence[StageResult], colours: Colours) -> str:
    metrics = list(dict.fromkeys(itertools.chain.from_iterable(stage.metrics for stage in stages)))
    columns = [_column(metric, [stage.metrics.get(metric, math.nan) for stage in stages]) for metric in metrics]
    columns.append(["<th>images seen</th>", *(f"<td>{stage.images_seen:,}</td>" for stage in stages), "<td></td>"])
    columns.append(["<th>time</th>", *(f"<td>{_duration(stage.seconds)}</td>" for stage in stages), "<td></td>"])
    names = [f'<th class="{colours[stage.name]}"><i></i>{escape(stage.name)}</th>' for stage in stages]
    columns.insert(0, ["<th>stage</th>", *names, '<th class="change">change</th>'])
    head, *rows, change = ["<tr>" + "".join(cells) + "</tr>" for cells in zip(*columns, strict=True)]
    if len(stages) > 1:
        rows.append(change)
    table = f'<table style="--lines:{len(columns)}">\n<thead>{head}</thead>\n<tbody>\n' + "\n".join(rows)
    return _section("Results", "results", [table + "\n</tbody>\n</table>"] if stages else [])


def _column(metric: str, values: Sequence[float]) -> list[str]:
    """Cells of one metric: its name, a value for each stage (NaN: none), the change from first to last."""
    known = [value for value in values if math.isfinite(value)]
    counts = any(value > 1 for value in known) and all(float(value).is_integer() for value in known)
    lower = metric.lower().split(" ")[-1] in _LOWER_IS_BETTER
    best = (min if lower else max)(known) if len(known) > 1 and metric not in _NO_BEST else None
    texts = [_number(value, 0 if counts else 3) for value in values]
    cells = [f"<td><b>{t}</b></td>" if v == best else f"<td>{t}</td>" for t, v in zip(texts, values, strict=True)]
    return [f"<th>{escape(metric)}</th>", *cells, f'<td class="change">{_change(values[0], values[-1])}</td>']


def _number(value: float, decimals: int) -> str:
    return f"{value:,.{decimals}f}".replace("-", "−") if math.isfinite(value) else _ABSENT


def _change(first: float, last: float) -> str:
    if first == 0 or not math.isfinite(first) or not math.isfinite(last):
        return _ABSENT
    return f"{100 * (last - first) / abs(first):+.1f}%".replace("-", "−")


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return _ABSENT
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


# ---- the charts ----


def _chart(curve: Curve, colours: Colours) -> str:
    series = {
        name: [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
        for name, points in curve.series.items()
    }
    legend = "".join(
        f'<li class="{colours[name]}"><i></i>{escape(name)}{"" if line else " (no values)"}</li>'
        for name, line in series.items()
    )
    drawing = _drawing(curve, series, colours) if any(series.values()) else '<p class="empty">No values yet.</p>'
    legend = f'<ul class="legend">{legend}</ul>' if legend else ""
    return f'<figure class="chart">\n<h3>{escape(curve.title)}</h3>\n{legend}\n{drawing}\n</figure>'


def _drawing(curve: Curve, series: Mapping[str, Sequence[tuple[float, float]]], colours: Colours) -> str:
    xs, ys = zip(*itertools.chain.from_iterable(series.values()), strict=True)
    (x_low, x_high), (y_low, y_high) = _span(xs), _span(ys)
    x_step, y_step = _step(xs, x_high - x_low), _step(ys, y_high - y_low)
    y_low, y_high = math.floor(y_low / y_step + 1e-9) * y_step, math.ceil(y_high / y_step - 1e-9) * y_step
    across, up = _scale(x_low, x_high, _LEFT + 8, _RIGHT - 8), _scale(y_low, y_high, _BOTTOM, _TOP)
    parts = [f'<text class="label" x="4" y="14">{escape(curve.y_label)}</text>']
    for tick, text in _ticks(y_low, y_high, y_step):
        parts.append(f'<path class="grid" d="M{_LEFT} {up(tick):.1f}H{_RIGHT}"/>')
        parts.append(f'<text class="tick y" x="{_LEFT - 8}" y="{up(tick) + 4:.1f}">{text}</text>')
    parts.append(f'<path class="axis" d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}"/>')
    for tick, text in _ticks(x_low, x_high, x_step):
        parts.append(f'<path class="axis" d="M{across(tick):.1f} {_BOTTOM}v5"/>')
        parts.append(f'<text class="tick x" x="{across(tick):.1f}" y="{_BOTTOM + 19}">{text}</text>')
    parts.append(f'<text class="label x" x="{(_LEFT + _RIGHT) / 2}" y="{_BOTTOM + 38}">{escape(curve.x_label)}</text>')
    parts += [_line(name, points, across, up, colours[name]) for name, points in series.items() if points]
    opening = f'<svg viewBox="0 0 {_CHART_WIDTH} {_CHART_HEIGHT}" role="img" aria-label="{escape(curve.title)}">'
    return opening + "\n" + "\n".join(parts) + "\n</svg>"


def _line(
    name: str,
    points: Sequence[tuple[float, float]],
    across: Callable[[float], float],
    up: Callable[[float], float],
    colour: str,
) -> str:
    places = [(across(x), up(y)) for x, y in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    hints = [f"{escape(name)}: {y:.4g} at {x:.6g}" for x, y in points]
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>{hint}</title></circle>'
        for (x, y), hint in zip(places, hints, strict=True)
    )
    return f'<g class="line {colour}"><polyline points="{path}"/>{dots if len(points) <= _MAX_DOTS else ""}</g>'


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest value, moved apart where they are one number to within rounding."""
    low, high = min(values), max(values)
    size = max(abs(low), abs(high))
    if high - low > max(1e-9 * size, 1e-300):
        return low, high
    room = 0.1 * size if size > 1e-300 else 1.0
    return low - room, high + room


def _step(values: Sequence[float], width: float) -> float:
    """1, 2 or 5 times a power of ten that parts `width` in six at most; whole where all values are."""
    power = 10.0 ** math.floor(math.log10(width / 6))
    step = next((factor * power for factor in (1, 2, 5) if factor * power >= width / 6), 10 * power)
    return max(step, 1.0) if all(float(value).is_integer() for value in values) else step


def _ticks(low: float, high: float, step: float) -> list[tuple[float, str]]:
    """Multiples of `step` in [low, high] with labels in one unit: 5k and 20k, 0.5e−4 and 1.0e−4."""
    ticks = [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    top = max(abs(low), abs(high))
    if top >= 1e9 or top < 1e-3:
        exponent = math.floor(math.log10(top))
        divisor, suffix = 10.0**exponent, f"e{exponent}".replace("-", "−")
    else:
        divisor, suffix = (1e6, "M") if top >= 1e6 else (1e3, "k") if top >= 1e4 else (1.0, "")
    decimals = max(0, -math.floor(math.log10(step / divisor) + 1e-9))
    return [(tick, _number(tick / divisor, decimals) + suffix if tick else "0") for tick in ticks]


def _scale(low: float, high: float, start: float, stop: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (stop - start)


# ---- the gallery ----


def _card(item: GalleryItem, colours: Colours) -> str:
    references = "".join(f"<li>{escape(reference)}</li>" for reference in item.references)
    references = f'<ul class="references">{references}</ul>' if references else ""
    names = [name for name in colours if name in item.captions]
    texts = {name: escape(item.captions[name]) for name in names}
    if len(names) > 1:
        texts[names[0]], texts[names[-1]] = _differences(item.captions[names[0]], item.captions[names[-1]])
    captions = "\n".join(
        f'<div class="{colours[name]}"><dt><i></i>{escape(name)}'
        f'<span title="CIDEr">{_number(item.scores.get(name, math.nan), 3)}</span></dt>'
        f"<dd>{texts[name] or '<em>(empty)</em>'}</dd></div>"
        for name in names
    )
    captions = f"<dl>\n{captions}\n</dl>" if captions else ""
    label = f"<span>{escape(item.file_name)}</span> <span>{item.image_id}</span>"
    return (
        f'<article>\n<figure><img alt="" src="{_data_uri(item)}"><figcaption>{label}</figcaption></figure>\n'
        f"<div>\n{references}\n{captions}\n</div>\n</article>"
    )


def _data_uri(item: GalleryItem) -> str:
    for magic, kind in _MAGIC.items():
        if item.image.startswith(magic):
            return f"data:{kind};base64,{base64.b64encode(item.image).decode('ascii')}"
    raise UserError(
        f"image {item.image_id} ({item.file_name}) begins with {item.image[:8]!r}; "
        "the report page takes JPEG and PNG; convert the picture to one of them"
    )


def _differences(first: str, last: str) -> tuple[str, str]:
    """Both captions as HTML, the words that only one of them has at that place inside <mark>."""
    ours, theirs = first.split(), last.split()
    opcodes = difflib.SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes()
    return (
        _marked(ours, [(kind, start, stop) for kind, start, stop, _, _ in opcodes]),
        _marked(theirs, [(kind, start, stop) for kind, _, _, start, stop in opcodes]),
    )


def _marked(words: Sequence[str], runs: Sequence[tuple[str, int, int]]) -> str:
    texts = [(kind, escape(" ".join(words[start:stop]))) for kind, start, stop in runs if stop > start]
    return " ".join(text if kind == "equal" else f"<mark>{text}</mark>" for kind, text in texts)
