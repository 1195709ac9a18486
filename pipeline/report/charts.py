"""Line charts as SVG text: axes, round ticks, a legend, one line per series."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

_CHART_WIDTH, _CHART_HEIGHT = 480, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 468, 30, 246  # the plotting area; labels are outside
_MAX_DOTS = 60  # more dots would hide their line
ABSENT = "–"

Points = Sequence[tuple[float, float]]
Colours = Mapping[str, str]  # CSS classes by stage or series name; stages come first, in order


@dataclass(frozen=True)
class Curve:
    """A line chart; `series` maps a name, such as a stage's, to (x, y) points. NaN and infinity are skipped.

    `more` has further lines of a name, such as those of other seeds, in its colour.
    """

    title: str
    x_label: str
    y_label: str
    series: Mapping[str, Points]
    more: Mapping[str, Sequence[Points]] = field(default_factory=dict)


def chart(curve: Curve, colours: Colours) -> str:
    """Returns the curve as an HTML figure; `colours` has a CSS class for each series."""
    lines = {
        name: [line for line in map(_finite, (points, *curve.more.get(name, ()))) if line]
        for name, points in curve.series.items()
    }
    legend = "".join(
        f'<li class="{colours[name]}"><i></i>{escape(name)}{"" if of_name else " (no values)"}</li>'
        for name, of_name in lines.items()
    )
    drawing = _drawing(curve, lines, colours) if any(lines.values()) else '<p class="empty">No values yet.</p>'
    legend = f'<ul class="legend">{legend}</ul>' if legend else ""
    return f'<figure class="chart">\n<h3>{escape(curve.title)}</h3>\n{legend}\n{drawing}\n</figure>'


def _finite(points: Points) -> Points:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _drawing(curve: Curve, lines: Mapping[str, Sequence[Points]], colours: Colours) -> str:
    every = itertools.chain.from_iterable(lines.values())
    xs, ys = zip(*itertools.chain.from_iterable(every), strict=True)
    (x_low, x_high), (y_low, y_high) = span(xs), span(ys)
    x_step, y_step = tick_step(xs, x_high - x_low), tick_step(ys, y_high - y_low)
    y_low, y_high = math.floor(y_low / y_step + 1e-9) * y_step, math.ceil(y_high / y_step - 1e-9) * y_step
    across, up = scale(x_low, x_high, _LEFT + 8, _RIGHT - 8), scale(y_low, y_high, _BOTTOM, _TOP)
    parts = [f'<text class="label" x="4" y="14">{escape(curve.y_label)}</text>']
    for tick, text in ticks(y_low, y_high, y_step):
        parts.append(f'<path class="grid" d="M{_LEFT} {up(tick):.1f}H{_RIGHT}"/>')
        parts.append(f'<text class="tick y" x="{_LEFT - 8}" y="{up(tick) + 4:.1f}">{text}</text>')
    parts.append(f'<path class="axis" d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}"/>')
    for tick, text in ticks(x_low, x_high, x_step):
        parts.append(f'<path class="axis" d="M{across(tick):.1f} {_BOTTOM}v5"/>')
        parts.append(f'<text class="tick x" x="{across(tick):.1f}" y="{_BOTTOM + 19}">{text}</text>')
    parts.append(f'<text class="label x" x="{(_LEFT + _RIGHT) / 2}" y="{_BOTTOM + 38}">{escape(curve.x_label)}</text>')
    parts += [_line(name, points, across, up, colours[name]) for name, of_name in lines.items() for points in of_name]
    opening = f'<svg viewBox="0 0 {_CHART_WIDTH} {_CHART_HEIGHT}" role="img" aria-label="{escape(curve.title)}">'
    return opening + "\n" + "\n".join(parts) + "\n</svg>"


def _line(
    name: str,
    points: Points,
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


def span(values: Sequence[float]) -> tuple[float, float]:
    """Returns the lowest and highest value, moved apart if they are equal up to rounding."""
    low, high = min(values), max(values)
    size = max(abs(low), abs(high))
    if high - low > max(1e-9 * size, 1e-300):
        return low, high
    room = 0.1 * size if size > 1e-300 else 1.0
    return low - room, high + room


def tick_step(values: Sequence[float], width: float) -> float:
    """Returns 1, 2 or 5 times a power of ten that divides `width` into at most six; whole if all values are whole."""
    power = 10.0 ** math.floor(math.log10(width / 6))
    step = next((factor * power for factor in (1, 2, 5) if factor * power >= width / 6), 10 * power)
    return max(step, 1.0) if all(float(value).is_integer() for value in values) else step


def ticks(low: float, high: float, step: float) -> list[tuple[float, str]]:
    """Returns the multiples of `step` in [low, high] with labels in one unit: 5k and 20k, 0.5e−4 and 1.0e−4."""
    multiples = [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    top = max(abs(low), abs(high))
    if top >= 1e9 or top < 1e-3:
        exponent = math.floor(math.log10(top))
        divisor, suffix = 10.0**exponent, f"e{exponent}".replace("-", "−")
    else:
        divisor, suffix = (1e6, "M") if top >= 1e6 else (1e3, "k") if top >= 1e4 else (1.0, "")
    decimals = max(0, -math.floor(math.log10(step / divisor) + 1e-9))
    return [(tick, number(tick / divisor, decimals) + suffix if tick else "0") for tick in multiples]


def scale(low: float, high: float, start: float, stop: float) -> Callable[[float], float]:
    """Returns the linear map from [low, high] to [start, stop]."""
    return lambda value: start + (value - low) / (high - low) * (stop - start)


def number(value: float, decimals: int) -> str:
    """Returns the number as text, with commas between thousands and a true minus; a dash for NaN and infinity."""
    return f"{value:,.{decimals}f}".replace("-", "−") if math.isfinite(value) else ABSENT
