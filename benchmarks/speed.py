"""What everything that decodes or learns costs, beside the bare matrix products at the same sizes in the same process.

    python -m benchmarks.speed [--quick] [--json=FILE] [--picture=docs/speed.svg]
    python -m benchmarks.speed --batch=16 --line="PG step, K = 3" --line=greedy
    python -m benchmarks.speed --profile

The first measures all lines at the centre, and the main ones with B, T or V changed, each setting in a process of its
own; the second some lines at one setting; the third what the time of a PG step goes to. Captions end as a trained
captioner's do (benchmarks/lifelike.py). A share is that of the time in which the bare products would do the word-steps
that are needed (benchmarks/speed_lines.py): 1 cannot be had, as words must also be chosen, scored and learned from.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from benchmarks import Report, positive
from benchmarks.speed_lines import lines
from benchmarks.speed_measure import Result, Yardstick, measure
from benchmarks.speed_picture import picture
from benchmarks.speed_profile import profile
from benchmarks.speed_table import goals_table, results_table
from benchmarks.speed_world import Setting, World
from spidercap.models.precision import PRECISIONS
from spidercap.pipeline.files import write_text

CENTRE = Setting()
STEP = "PG step, K = 3"
MAIN = ("MLE step", "greedy", "sampling", "beam 5", STEP, "leave-one-out step, M = 5")
AXES = {"batch": (16, 256), "vocabulary": (2500, 30_000), "length": (30,)}
CALLS, SECONDS = 5, 2.0  # of a line
NOTE = """value: the median, spread: the quartiles. share: of the rate of the two matrix products, where words are said.
peak MiB: of a line's tensors, weights and data not counted; process: resident memory, the most so far.
METEOR and SPICE have benchmarks of their own: benchmarks.metrics, benchmarks.spice."""


def main(arguments: Sequence[str]) -> int:
    """Prints the tables and writes what is asked for; returns 1 where a process that measures failed."""
    flags = _parse(arguments)
    report = Report()
    sizes = {axis: getattr(flags, axis) for axis in (*AXES, "precision", "jit") if getattr(flags, axis)}
    at = dataclasses.replace(CENTRE, **sizes)
    if flags.profile:
        print(profile(at, report))
        return 0
    if flags.line or sizes:
        results = measure_here(at, flags.line or lines(), report, flags.calls)
    else:
        results = []
        for setting, names in plan(flags.quick):
            measured = _measure_apart(setting, names, report, flags.calls)
            if measured is None:
                return 1
            results += measured
    print(results_table(results))
    print(NOTE)
    if goals := goals_table(results):
        print(f"\n{goals}")
    if flags.json:
        content = [dataclasses.asdict(result) for result in results]
        write_text(pathlib.Path(flags.json), json.dumps(content, indent=1, allow_nan=False) + "\n")
    if flags.picture:
        write_text(pathlib.Path(flags.picture), picture(results))
    return 0


def plan(quick: bool) -> Iterator[tuple[Setting, Sequence[str]]]:
    """Yields what is measured at which sizes."""
    if quick:
        yield CENTRE, MAIN
        return
    yield CENTRE, list(lines())
    for axis, values in AXES.items():
        for value in values:
            at = dataclasses.replace(CENTRE, **{axis: value})
            yield at, [STEP]  # alone, so that the process's memory is that of this step
            yield at, [name for name in MAIN if name != STEP]


def measure_here(setting: Setting, names: Sequence[str], report: Report, calls: int) -> list[Result]:
    """Returns the results of lines at one setting, measured in this process one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        report.says(f"B = {setting.batch}, T = {setting.length}, V = {setting.vocabulary:,}: a captioner is made")
        world, yardstick, known = World(setting, pathlib.Path(folder)), Yardstick(setting), lines()
        results = []
        for name in names:
            report.says(name)
            results.append(measure(name, known[name], world, yardstick, calls=calls, seconds=SECONDS))
        return results


def _measure_apart(setting: Setting, names: Sequence[str], report: Report, calls: int) -> list[Result] | None:
    """The same by a new process; None if it failed, which it says itself."""
    report.says(f"a process for B = {setting.batch}, T = {setting.length}, V = {setting.vocabulary:,}")
    sizes = [f"--{axis}={getattr(setting, axis)}" for axis in AXES]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "results.json")
        command = [sys.executable, "-m", "benchmarks.speed", f"--json={path}", f"--calls={calls}", *sizes]
        command += [f"--line={name}" for name in names]
        root = pathlib.Path(__file__).parents[1]
        if subprocess.run(command, cwd=root, stdout=subprocess.DEVNULL).returncode:
            return None
        return [Result(**row) for row in json.loads(path.read_text())]


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.split("\n")[0])
    parser.add_argument("--json", default="", help="file to write the results to")
    parser.add_argument("--picture", default="", help="SVG file to draw in how cost grows")
    parser.add_argument("--quick", action="store_true", help="the main lines at the centre, about a minute")
    parser.add_argument("--profile", action="store_true", help="the parts of a PG step with K = 3")
    parser.add_argument("--line", action="append", choices=lines(), metavar="NAME", help="only this one; repeatable")
    for axis in AXES:
        parser.add_argument(f"--{axis}", type=positive, help=f"only at this; else {getattr(CENTRE, axis)} and others")
    parser.add_argument("--precision", choices=PRECISIONS, help="of the decoder's products")
    parser.add_argument("--jit", action="store_true", help="XLA compiles the steps over the vocabulary")
    parser.add_argument("--calls", type=positive, default=CALLS, help="of each line that are timed, at least")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
