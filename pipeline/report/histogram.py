"""Histograms of caption lengths as SVG text, with the line at which captions are cut."""

import collections
import math
from collections.abc import Callable, Mapping
from html import escape

from spidercap.pipeline.report.charts import number, scale, tick_step, ticks

_WIDTH, _HEIGHT = 480, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 468, 30, 206  # the plotting area; labels are outside
_BARS = 60  # more bars would be too thin
_HELD = 0.999  # share of the captions that is drawn; a few very long ones would press the others together


def histogram(title: str, lengths: Mapping[int, int], max_length: int, colour: str) -> str:
    """Returns the captions by their number of words as an HTML figure.

    Args:
      title: its heading, as text.
      lengths: captions by number of words; at least one.
      max_length: captions with more tokens are cut; the end token counts.
      colour: a CSS class of report.css.
    """
    low, high = min(lengths), _highest(lengths)
    # The line is between the longest caption that fits, of max_length - 1 words, and the next.
    shown = max_length if max_length <= 2 * high + 10 else None
    top = max(high, shown or 0, 1)
    width = math.ceil((top - low + 1) / _BARS)
    bars = collections.Counter()
    for length, count in lengths.items():
        if length <= high:
            bars[low + (length - low) // width * width] += count
    across = scale(low - 0.5, top + 0.5, _LEFT, _RIGHT)
    most = max(bars.values())
    step = tick_step([most], most)
    ceiling = math.ceil(most / step) * step
    up = scale(0, ceiling, _BOTTOM, _TOP)
    parts = [*_grid(up, ceiling, step), *_bars(bars, width, across, up, colour)]
    parts.append(f'<path class="axis" d="M{_LEFT} {_BOTTOM}H{_RIGHT}"/>')
    for tick, text in ticks(low, top, tick_step([low, top], max(1, top - low))):
        parts.append(f'<text class="tick x" x="{across(tick):.1f}" y="{_BOTTOM + 19}">{text}</text>')
    parts.append(f'<text class="label x" x="{(_LEFT + _RIGHT) / 2}" y="{_BOTTOM + 38}">words</text>')
    if shown:
        x = across(max_length - 0.5)
        side = "y" if x > (_LEFT + _RIGHT) / 2 else ""
        parts.append(f'<path class="cut" d="M{x:.1f} {_TOP - 10}V{_BOTTOM}"/>')
        parts.append(
            f'<text class="{side}" x="{x + (-6 if side else 6):.1f}" y="{_TOP - 12}">--max_length={max_length}</text>'
        )
    opening = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
    drawing = opening + "\n" + "\n".join(parts) + "\n</svg>"
    return f'<figure class="chart">\n<h3>{escape(title)}</h3>\n{drawing}{_not_drawn(lengths, high)}\n</figure>'


def _highest(lengths: Mapping[int, int]) -> int:
    """The length up to which bars are drawn."""
    left = _HELD * sum(lengths.values())
    for length in sorted(lengths):
        left -= lengths[length]
        if left <= 0:
            break
    # A short tail is drawn to its end.
    return max(lengths) if max(lengths) <= 2 * length + 10 else length


def _grid(up: Callable[[float], float], top: float, step: float) -> list[str]:
    parts = ['<text class="label" x="4" y="14">captions</text>']
    for tick, text in ticks(0, top, step):
        parts.append(f'<path class="grid" d="M{_LEFT} {up(tick):.1f}H{_RIGHT}"/>')
        parts.append(f'<text class="tick y" x="{_LEFT - 8}" y="{up(tick) + 4:.1f}">{text}</text>')
    return parts


def _bars(
    bars: Mapping[int, int],
    width: int,
    across: Callable[[float], float],
    up: Callable[[float], float],
    colour: str,
) -> list[str]:
    """A bar for each range of `width` lengths, by its first length."""
    parts = []
    for first, count in sorted(bars.items()):
        left, right = across(first - 0.5), across(first + width - 0.5)
        words = f"{first}" if width == 1 else f"{first} to {first + width - 1}"
        parts.append(
            f'<rect x="{left + 0.5:.1f}" y="{up(count):.1f}" width="{right - left - 1:.1f}" '
            f'height="{_BOTTOM - up(count):.1f}"><title>{words} words: {number(count, 0)} captions</title></rect>'
        )
    return [f'<g class="bars {colour}">', *parts, "</g>"]


def _not_drawn(lengths: Mapping[int, int], high: int) -> str:
    longer = sum(count for length, count in lengths.items() if length > high)
    if not longer:
        return ""
    return f'\n<p class="hint">Not drawn: {number(longer, 0)} captions of {high + 1} to {max(lengths)} words.</p>'
