"""Helpers for figures of measurements: self-contained SVG on white, with texts and logarithmic axes."""

import math
from collections.abc import Sequence
from html import escape


def drawing(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    """Returns the SVG of `parts`; sizes are in pixels."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="13" fill="#1c1f24">'
    )
    return "\n".join([head, f'<rect width="{width}" height="{height}" fill="#fff"/>', *parts, "</svg>"]) + "\n"


def text(x: float, y: float, content: str, anchor: str, more: str = "") -> str:
    """Returns a text whose start, middle or end is at (x, y); `more` holds further attributes."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(content)}</text>'


def ticks(low: float, high: float) -> list[float]:
    """Returns 1, 2 and 5 times the powers of ten from `low` to `high`."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    return [x for p in powers for x in (10.0**p, 2 * 10.0**p, 5 * 10.0**p) if low * 0.999 < x < high * 1.001]


def rounded(value: float, down: bool) -> float:
    """Returns the nearest tick that is not above (`down`), or not below."""
    near = ticks(value / 10, value * 10)
    return max(t for t in near if t <= value) if down else min(t for t in near if t >= value)
