"""SPICE and SPICE-fast over training: does the policy exploit errors of the learned parser?

    python -m benchmarks.spice_gap --workdirs=runs/spice_fast,runs/spider_fast --output=gap.svg

Draws one panel with both curves per run that reported both (`--metrics=spice,spice_fast`), and prints their gap.
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Sequence

from benchmarks import aligned
from benchmarks.svg import drawing, text
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import check_output, write_text
from spidercap.pipeline.training.checkpoint_files import newest_checkpoint
from spidercap.pipeline.training.progress import read_progress

EXACT, FAST = "SPICE", "SPICE-fast"
COLOURS = {EXACT: "#1c1f24", FAST: "#c2410c"}
WIDTH, HEIGHT, LEFT, TOP, DEEP = 330, 300, 48, 70, 180  # of a panel, in pixels


@dataclasses.dataclass(frozen=True)
class Course:
    """Validations of a run."""

    name: str
    epochs: tuple[float, ...]
    scores: dict[str, tuple[float, ...]]  # EXACT and FAST


def main(arguments: Sequence[str]) -> int:
    """Draws and prints; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spice_gap", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--workdirs", required=True, help="runs that reported SPICE and SPICE-fast, separated by commas"
    )
    parser.add_argument("--output", required=True, type=pathlib.Path, help="SVG file")
    args = parser.parse_args(arguments)
    try:
        check_output("output", args.output)
        courses = [read_course(pathlib.Path(folder)) for folder in args.workdirs.split(",")]
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    rows = [
        (course.name, f"{epoch:.2f}", f"{exact:.4f}", f"{fast:.4f}", f"{fast - exact:+.4f}")
        for course in courses
        for epoch, exact, fast in zip(course.epochs, course.scores[EXACT], course.scores[FAST], strict=True)
    ]
    print(aligned([("", "epoch", EXACT, FAST, "gap"), *rows]))
    write_text(args.output, chart(courses))
    return 0


def read_course(folder: pathlib.Path) -> Course:
    """Returns those validations of a run's last stage that have both metrics; --metrics may change within a stage.

    Raises:
      UserError: there is no run, or it did not report both metrics.
    """
    history = read_progress(newest_checkpoint(folder / "checkpoints")).history
    last = [v for v in history if v.stage == history[-1].stage and {EXACT, FAST} <= v.metrics.keys()]
    if not last:
        raise UserError(f"{folder} has no validations with SPICE and SPICE-fast; train with --metrics=spice,spice_fast")
    scores = {name: tuple(v.metrics[name] for v in last) for name in (EXACT, FAST)}
    return Course(folder.name, tuple(v.epoch for v in last), scores)


def chart(courses: Sequence[Course]) -> str:
    """Returns SVG: one panel per run, all with the same scale from 0."""
    high = max(value for course in courses for line in course.scores.values() for value in line) * 1.1 or 1.0
    title = "Validation SPICE and SPICE-fast over training"
    parts = [text(16, 28, title, "start", 'font-size="16" font-weight="600"')]
    for place, (name, colour) in enumerate(COLOURS.items()):
        parts.append(text(16 + 80 * place, 48, name, "start", f'fill="{colour}"'))
    for place, course in enumerate(courses):
        parts += _panel(course, LEFT + WIDTH * place, high)
    return drawing(LEFT + WIDTH * len(courses), HEIGHT, title, parts)


def _panel(course: Course, left: float, high: float) -> list[str]:
    last = max(course.epochs)
    right, bottom = left + WIDTH - 60, TOP + DEEP

    def at(epoch: float, value: float) -> tuple[float, float]:
        return left + (right - left) * epoch / last, bottom - DEEP * value / high

    parts = [f'<path d="M{left} {TOP}V{bottom}H{right}" fill="none" stroke="#555"/>']
    parts.append(text((left + right) / 2, bottom + 40, f"{course.name}: epochs", "middle", 'fill="#555"'))
    for share in (0.25, 0.5, 0.75, 1.0):
        _, y = at(0, high * share)
        parts.append(text(left - 6, y + 4, f"{high * share:.2f}", "end", 'fill="#555" font-size="11"'))
        parts.append(
            text(at(last * share, 0)[0], bottom + 17, f"{last * share:g}"[:4], "middle", 'fill="#555" font-size="11"')
        )
    for name, line in course.scores.items():
        points = [at(epoch, value) for epoch, value in zip(course.epochs, line, strict=True)]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        parts.append(f'<path d="M{path}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLOURS[name]}"/>' for x, y in points]
    return parts


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
