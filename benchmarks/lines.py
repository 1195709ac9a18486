"""Panels of lines as SVG, one below the other, with the name of each line at its end, without overlaps."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence

from benchmarks.svg import drawing, text
from spidercap.pipeline.report.charts import scale, span, tick_step, ticks

WIDTH, LEFT, TOP, DEEP, PITCH = 880, 58, 84, 290, 374  # of the figure and its panels, in pixels
LETTER, LINE = 6.7, 15  # mean width of a letter, height of a name
FAR = 150  # largest distance of a name from the end of its line
COLOURS = ("#1f5fa8", "#c8501a", "#17825b", "#8e44ad", "#b07a00", "#c2347b", "#2590c4", "#5c6470")
QUIET = 'fill="#555" font-size="12"'
MOST_DOTS = 40  # per line
DASHES = ("", ' stroke-dasharray="8 3"', ' stroke-dasharray="2 3"')  # of lines with repeated colours

Points = Sequence[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Panel:
    """Lines over one axis; lines of the same name have the same colour."""

    x_label: str
    lines: Mapping[str, Sequence[Points]]


@dataclasses.dataclass(frozen=True)
class Name:
    """The name at the end of a line; (x, y) is the left end of its middle, in pixels."""

    content: str
    colour: str
    x: float
    y: float

    def box(self, shift: float = 0.0) -> tuple[float, float, float, float]:
        """Left, right, top and bottom, moved down by `shift`."""
        return self.x, self.x + LETTER * len(self.content), self.y + shift - LINE / 2, self.y + shift + LINE / 2


def line_panels(title: str, y_label: str, panels: Sequence[Panel], level: tuple[str, float] | None = None) -> str:
    """Returns SVG of panels with one vertical scale; `level` is a dashed line in all panels, and its name."""
    names = list(dict.fromkeys(itertools.chain.from_iterable(panel.lines for panel in panels)))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    values = [y for panel in panels for lines in panel.lines.values() for line in lines for _, y in line]
    values += [level[1]] if level else []
    low, high = span(values)
    step = tick_step(values, (high - low) * 1.1)
    margin = 0.05 * (high - low)
    longest = max(len(name) for name in [*names, *([_level_name(level)] if level else [])])
    right = WIDTH - min(LETTER * longest + 24, WIDTH / 2)
    parts = [text(16, 28, title, "start", 'font-size="16" font-weight="600"')]
    for place, panel in enumerate(panels):
        top = TOP + PITCH * place
        up = scale(low - margin, high + margin, top + DEEP, top)
        marks = [(up(tick), label) for tick, label in ticks(low - margin, high + margin, step)]
        parts.append(text(16, top - 16, y_label, "start", QUIET))
        parts += _panel(panel, colours, up, marks, (top, right), level)
    return drawing(WIDTH, TOP + PITCH * len(panels) - 14, title, parts)


def _panel(
    panel: Panel,
    colours: Mapping[str, str],
    up: Callable[[float], float],
    marks: Sequence[tuple[float, str]],
    corner: tuple[float, float],
    level: tuple[str, float] | None,
) -> list[str]:
    """A panel; the upper right corner of its plot is at (top, right)."""
    top, right = corner
    bottom = top + DEEP
    xs = [x for lines in panel.lines.values() for line in lines for x, _ in line]
    last = max(xs, default=0.0) or 1.0
    across = scale(0.0, last, LEFT, right)
    parts = []
    for y, label in marks:
        parts.append(f'<path d="M{LEFT} {y:.1f}H{right:.1f}" stroke="#e6e8eb"/>')
        parts.append(text(LEFT - 8, y + 4, label, "end", QUIET))
    parts.append(f'<path d="M{LEFT} {top}V{bottom}H{right:.1f}" fill="none" stroke="#555"/>')
    for tick, label in ticks(0.0, last, tick_step([*xs, 0.0], last)):
        parts.append(f'<path d="M{across(tick):.1f} {bottom}v5" stroke="#555"/>')
        parts.append(text(across(tick), bottom + 19, label, "middle", QUIET))
    parts.append(text((LEFT + right) / 2, bottom + 39, panel.x_label, "middle", QUIET))
    placed = {
        name: [[(across(x), up(y)) for x, y in line] for line in lines if line] for name, lines in panel.lines.items()
    }
    ends = [_name_of(name, lines, colours[name]) for name, lines in placed.items() if lines]
    fixed, drawn = [], list(itertools.chain.from_iterable(placed.values()))
    if level:
        parts.append(f'<path d="M{LEFT} {up(level[1]):.1f}H{right:.1f}" stroke="#1c1f24" stroke-dasharray="6 5"/>')
        fixed.append(Name(_level_name(level), "#1c1f24", right + 8, up(level[1])))
        drawn.append([(LEFT, up(level[1])), (right, up(level[1]))])
    for i, (name, lines) in enumerate(placed.items()):
        dashes = DASHES[i // len(COLOURS) % len(DASHES)]
        parts += itertools.chain.from_iterable(_line(line, colours[name], dashes, len(lines) > 1) for line in lines)
    shifts = name_shifts(ends, fixed, drawn, (top, bottom))
    return parts + [_written(name, 0.0) for name in fixed] + [_written(n, s) for n, s in zip(ends, shifts, strict=True)]


def name_shifts(
    names: Sequence[Name], fixed: Sequence[Name], lines: Sequence[Points], within: tuple[float, float]
) -> list[float]:
    """Returns how far each name is moved down, so that names do not overlap and cover few lines."""
    dots = [_dense(line) for line in lines]
    taken = [name.box() for name in fixed]
    shifts = {}
    for name in sorted(names, key=lambda name: name.y):

        def cost(shift: float, name: Name = name) -> float:
            left, right, top, bottom = box = name.box(shift)
            covered = sum(any(left < x < right and top < y < bottom for x, y in line) for line in dots)
            outside = top < within[0] - LINE or bottom > within[1] + LINE / 2
            return abs(shift) + 25 * covered + 1000 * (outside + sum(_meet(box, other) for other in taken))

        shifts[name] = min((sign * far for far in range(0, FAR, 3) for sign in (1, -1)), key=cost)
        taken.append(name.box(shifts[name]))
    return [shifts[name] for name in names]


def _name_of(name: str, lines: Sequence[Points], colour: str) -> Name:
    """The name at the end of the line with the median height."""
    x, y = sorted((line[-1] for line in lines), key=lambda end: end[1])[len(lines) // 2]
    return Name(name, colour, x + 9, y)


def _level_name(level: tuple[str, float]) -> str:
    return f"{level[0]}: {level[1]:.3f}"


def _line(points: Points, colour: str, dashes: str, thin: bool) -> list[str]:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    parts = [f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="{1.3 if thin else 2}"{dashes}/>']
    if len(points) <= MOST_DOTS:
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{2 if thin else 3}" fill="{colour}"/>' for x, y in points]
    return parts


def _written(name: Name, shift: float) -> str:
    """The name, with a white rim to separate it from lines, and a leader line if it was moved."""
    rim = 'stroke="#fff" stroke-width="4" stroke-linejoin="round" paint-order="stroke"'
    written = text(name.x, name.y + shift + 4.5, name.content, "start", f'fill="{name.colour}" {rim}')
    if abs(shift) <= LINE / 2:
        return written
    leader = f'<path d="M{name.x - 7:.1f} {name.y:.1f}L{name.x - 2:.1f} {name.y + shift:.1f}" stroke="{name.colour}"/>'
    return leader + "\n" + written


def _meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]


def _dense(line: Points) -> list[tuple[float, float]]:
    """The line's points and interpolated ones, a few pixels apart."""
    found = list(line[:1])
    for (x, y), (to_x, to_y) in itertools.pairwise(line):
        parts = max(1, round(max(abs(to_x - x), abs(to_y - y)) / 4))
        found += [(x + (to_x - x) * i / parts, y + (to_y - y) * i / parts) for i in range(1, parts + 1)]
    return found
