"""The speed of decoding and training, beside the bare matrix products of the same sizes in the same process.

    python -m benchmarks.speed [--quick] [--json=FILE] [--picture=docs/speed.svg]
    python -m benchmarks.speed --batch=16 --line="PG step, K = 3" --line=greedy
    python -m benchmarks.speed --decoder=attention --line="PG step, K = 3"
    python -m benchmarks.speed --profile

The first command measures all lines at the centre, and the main ones with other B, T or V, each setting in its own
process. The second and third measure some lines at one setting. The fourth profiles a PG step. Captions have the
lengths of a trained captioner's (benchmarks/lifelike.py). The share is the time of the bare products that are
needed (benchmarks/speed_work.py), divided by the time taken. It is below 1, because tokens must also be sampled and
scored.
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
from benchmarks.speed_picture import chart
from benchmarks.speed_profile import profile
from benchmarks.speed_table import goals_table, results_table
from benchmarks.speed_world import Setting, World
from spidercap.models.captioners import CAPTIONERS
from spidercap.models.precision import PRECISIONS
from spidercap.pipeline.files import write_text

CENTRE = Setting()
STEP = "PG step, K = 3"
MAIN = ("MLE step", "greedy", "sampling", "beam 5", STEP, "leave-one-out step, M = 5")
AXES = {"batch": (16, 256), "vocabulary": (2500, 30_000), "length": (30,)}
CALLS, SECONDS = 5, 2.0  # of a line
NOTE = """value: the median, with its quartiles. share: of the rate of the two matrix products, if captions are decoded.
peak MiB: of a line's tensors without weights and data; process: highest resident memory so far.
METEOR and SPICE have their own benchmarks: benchmarks.metrics, benchmarks.spice."""


def main(arguments: Sequence[str]) -> int:
    """Prints the tables and writes the requested files; returns 1 if a measuring process failed."""
    flags = _parse(arguments)
    report = Report()
    sizes = {axis: getattr(flags, axis) for axis in (*AXES, "precision", "decoder", "jit") if getattr(flags, axis)}
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
        write_text(pathlib.Path(flags.picture), chart(results))
    return 0


def plan(quick: bool) -> Iterator[tuple[Setting, Sequence[str]]]:
    """Yields (setting, names of lines) to measure."""
    if quick:
        yield CENTRE, MAIN
        return
    yield CENTRE, list(lines())
    for axis, values in AXES.items():
        for value in values:
            at = dataclasses.replace(CENTRE, **{axis: value})
            yield at, [STEP]  # alone, so that the memory of the process is that of this step
            yield at, [name for name in MAIN if name != STEP]


def measure_here(setting: Setting, names: Sequence[str], report: Report, calls: int) -> list[Result]:
    """Returns the results of lines at one setting, measured in this process."""
    with tempfile.TemporaryDirectory() as folder:
        report.log(f"B = {setting.batch}, T = {setting.length}, V = {setting.vocabulary:,}: building the captioner")
        world, yardstick, known = World(setting, pathlib.Path(folder)), Yardstick(setting), lines()
        results = []
        for name in names:
            report.log(name)
            results.append(measure(name, known[name], world, yardstick, calls=calls, seconds=SECONDS))
        return results


def _measure_apart(setting: Setting, names: Sequence[str], report: Report, calls: int) -> list[Result] | None:
    """The same in a new process; None if it failed, after its error message."""
    report.log(f"process for B = {setting.batch}, T = {setting.length}, V = {setting.vocabulary:,}")
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
    parser.add_argument("--json", default="", help="JSON file for the results")
    parser.add_argument("--picture", default="", help="SVG file for charts of the cost over B, T, V, K and W")
    parser.add_argument("--quick", action="store_true", help="the main lines at the centre, about a minute")
    parser.add_argument("--profile", action="store_true", help="the parts of a PG step with K = 3")
    parser.add_argument(
        "--line", action="append", choices=lines(), metavar="NAME", help="measure only this line; repeatable"
    )
    for axis in AXES:
        parser.add_argument(
            f"--{axis}", type=positive, help=f"measure only this size; default: {getattr(CENTRE, axis)} and others"
        )
    parser.add_argument("--precision", choices=PRECISIONS, help="precision of the decoder's products")
    parser.add_argument("--decoder", choices=CAPTIONERS, help="the captioner; others than lstm attend to 49 parts")
    parser.add_argument("--jit", action="store_true", help="compile the steps over the vocabulary with XLA")
    parser.add_argument("--calls", type=positive, default=CALLS, help="minimum number of timed calls per line")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
