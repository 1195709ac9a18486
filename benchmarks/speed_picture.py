"""Charts of the cost over B, T, V, K and the beam width, side by side, with logarithmic axes."""

import math
from collections.abc import Callable, Mapping, Sequence

from benchmarks.speed_measure import Result
from benchmarks.speed_world import Setting
from benchmarks.svg import drawing, rounded, text, ticks

WIDTH, HEIGHT = 880, 560
TOP, LEFT = 84, 52  # of the plotting area of the first chart
ACROSS, DOWN = 222, 178  # size of a plotting area
PITCH = (282, 238)  # from chart to chart
COLOURS = {
    "MLE step": "#3b6ea5",
    "greedy": "#2f8f5b",
    "sampling": "#8a5fb0",
    "beam 5": "#c77d2b",
    "PG step, K = 3": "#b83a3a",
    "leave-one-out step, M = 5": "#5c6470",
}
# Lines each of whose results is one point of a curve -> its position on the axis; and the line whose colour they have.
FAMILIES = {
    "K, rollouts per prefix": ({f"PG step, K = {k}": k for k in (1, 3, 5)}, "PG step, K = 3"),
    "W, width of the beam": ({f"beam {w}": w for w in (1, 3, 5, 10)}, "beam 5"),
}
AXES = {"B, images per batch": "B", "T, maximum length": "T", "V, words": "V"}

Curve = list[tuple[float, Result]]  # (position on the axis, result)


def chart(results: Sequence[Result]) -> str:
    """Returns SVG of all results on an axis through the centre."""
    charts = {title: _along(results, letter) for title, letter in AXES.items()}
    centre = [row for row in results if Setting().letters().items() <= row.settings.items()]
    for title, (places, colour) in FAMILIES.items():
        curve = sorted(((places[row.name], row) for row in centre if row.name in places), key=lambda point: point[0])
        charts[title] = {colour: curve} if curve else {}
    costs = [
        _cost(value) for curves in charts.values() for c in curves.values() for _, r in c for value in (r.low, r.high)
    ]
    title = "Milliseconds per image (MLE step: per caption)"
    parts = [text(16, 28, title, "start", 'font-size="16" font-weight="600"')]
    parts.append(text(16, 48, _caption(), "start", 'fill="#555"'))
    low, high = (rounded(min(costs), down=True), rounded(max(costs), down=False)) if costs else (1.0, 10.0)
    up = _scale(low, high, 0, -DOWN)
    for i, (name, curves) in enumerate(charts.items()):
        left, top = LEFT + PITCH[0] * (i % 3), TOP + PITCH[1] * (i // 3)
        parts += _chart(left, top + DOWN, name, curves, ticks(low, high), up)
    parts += _legend(LEFT + PITCH[0] * 2, TOP + PITCH[1] + 12)
    return drawing(WIDTH, HEIGHT, title, parts)


def _caption() -> str:
    centre = Setting()
    return f"unless stated otherwise, B = {centre.batch}, T = {centre.length}, V = {centre.vocabulary:,}"


def _along(results: Sequence[Result], letter: str) -> dict[str, Curve]:
    """The results of each main line at the centre, and at settings that differ from it only in `letter`."""
    others = {key: value for key, value in Setting().letters().items() if key != letter}
    curves: dict[str, Curve] = {}
    for row in results:
        if row.name in COLOURS and others.items() <= row.settings.items():
            curves.setdefault(row.name, []).append((row.settings[letter], row))
    return {name: sorted(curve, key=lambda point: point[0]) for name, curve in curves.items()}


def _cost(rate: float) -> float:
    return 1000 / rate


def _chart(
    left: float, bottom: float, name: str, curves: Mapping[str, Curve], marks: Sequence[float], up: Callable
) -> list[str]:
    """Axes, and a line with quartiles for each curve."""
    parts = []
    for mark in marks:
        y = bottom + up(mark)
        parts.append(f'<path d="M{left} {y:.1f}h{ACROSS}" stroke="#dcdfe4"/>')
        parts.append(text(left - 6, y + 4.5, f"{mark:g}", "end", 'fill="#555"'))
    parts.append(f'<path d="M{left} {bottom - DOWN}V{bottom}h{ACROSS}" stroke="#555" fill="none"/>')
    parts.append(text(left + ACROSS / 2, bottom + 36, name, "middle"))
    values = sorted({x for curve in curves.values() for x, _ in curve})
    if not values:
        return parts
    room = 1.15  # so that the first and last points are not on the frame
    across = _scale(values[0] / room, values[-1] * room, left, left + ACROSS)
    for value in values:
        parts.append(text(across(value), bottom + 18, f"{value:,}", "middle", 'fill="#555"'))
    for key, curve in curves.items():
        parts += _line(curve, COLOURS[key], across, lambda cost: bottom + up(cost))
    return parts


def _line(curve: Curve, colour: str, across: Callable, down: Callable) -> list[str]:
    places = [(across(x), down(_cost(row.value))) for x, row in curve]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>']
    for (x, y), (_, row) in zip(places, curve, strict=True):
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
        ends = (down(_cost(value)) for value in (row.low, row.high))
        parts.append(f'<path d="M{x:.1f} {next(ends):.1f}V{next(ends):.1f}" stroke="{colour}" stroke-width="1.6"/>')
    return parts


def _legend(left: float, top: float) -> list[str]:
    parts = []
    for i, (name, colour) in enumerate(COLOURS.items()):
        y = top + 24 * i
        parts.append(f'<path d="M{left} {y}h26" stroke="{colour}" stroke-width="1.6"/>')
        parts.append(f'<circle cx="{left + 13}" cy="{y}" r="3" fill="{colour}"/>')
        parts.append(text(left + 34, y + 4.5, name, "start"))
    return parts


def _scale(low: float, high: float, start: float, stop: float) -> Callable[[float], float]:
    return lambda value: start + (stop - start) * math.log(value / low) / math.log(high / low)
