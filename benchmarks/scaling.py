"""What several workers gain: train steps of one process with one thread against two workers with one thread each.

    python -m benchmarks.scaling [--pairs=3] [--steps=8] [--images=64] [--gigabits=10] [--latency=50] [--json=FILE]
                                 [--quick]

Sizes are those of COCO (V = 9487, H = 512, T = 20); --images is the batch of all workers together, of which each of two
has half. Processes alternate, and the medians over --pairs count. A second table is a model, no measurement: seconds of
a step on 1 to 512 workers of such a core each, from the measured seconds of a step and of an image, and a ring of sums
over a network of that bandwidth (gigabits a second) and latency (microseconds a message).
"""

import argparse
import json
import pathlib
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks import Report, aligned, number, plural, positive
from benchmarks.local_workers import ended, said, start
from spidercap.pipeline.files import write_text

QUICK = {"pairs": 1, "steps": 2, "images": 8}
SMALL = {"vocabulary": 100, "units": 16, "features": 8, "images": 20, "length": 6}  # of --quick
WITHIN = 900  # seconds of a process
TOTAL = 8  # times --images: the images of all workers together in the model of a batch that stays
MODELLED = tuple(2**k for k in range(10))  # workers


class Line(NamedTuple):
    """A line of the measured table."""

    seconds: float  # of a step in one process
    half: float  # of a step of half as many images in one process
    together: float  # of a step of two workers
    sent: float  # bytes that each of two workers sends in a step
    images: int  # of the whole step

    def of(self, images: float) -> float:
        """Returns the seconds of a step of so many images in one process, on the line through the two measured."""
        per_image = (self.seconds - self.half) / (self.images - self.images // 2)
        return self.seconds + (images - self.images) * per_image

    def share(self) -> float:
        """Returns the share of the ideal: twice as fast."""
        return self.seconds / (2 * self.together)


class Network(NamedTuple):
    """What workers are joined by."""

    bandwidth: float  # bytes a second
    latency: float  # seconds a message

    def seconds(self, size: float, workers: int) -> float:
        """Returns the seconds of a sum of `size` bytes over a ring of workers, each with a link of its own."""
        return 2 * (workers - 1) * (size / workers / self.bandwidth + self.latency)


def main(arguments: Sequence[str]) -> int:
    """Prints both tables; returns 1 if a process fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__.split("\n")[0])
    for name, value in {"pairs": 3, "steps": 8, "images": 64}.items():
        parser.add_argument(f"--{name}", type=positive, default=value)
    parser.add_argument("--gigabits", type=float, default=10.0, help="a second, of the modelled network")
    parser.add_argument("--latency", type=float, default=50.0, help="of the modelled network, in microseconds")
    parser.add_argument("--json", type=pathlib.Path, help="file for all measurements")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    flags = parser.parse_args(arguments)
    if flags.quick:
        vars(flags).update(QUICK)
    report, runs = Report(), {1: [], 2: []}
    for _ in range(flags.pairs):
        for count, found in runs.items():
            report.log(plural(count))
            try:
                found.append(_measured(count, flags))
            except RuntimeError as error:
                print(error, file=sys.stderr)
                return 1
    if flags.json:
        write_text(flags.json, json.dumps(runs, indent=1) + "\n")
    measured = lines_of(runs, flags.images)
    together = statistics.median(run["sum"] for run in runs[2])
    gradient = runs[1][0]["gradient"]
    print(measured_table(measured, together))
    print(f"\na step sums gradients of {gradient / 2**20:.1f} MiB; likelihood and vine learn them, PG a baseline too")
    network = Network(flags.gigabits * 1e9 / 8, flags.latency * 1e-6)
    print(f"\nmodel, not measured: {flags.gigabits:g} Gbit/s, {flags.latency:g} us, share of the ideal")
    print(modelled_table(measured, gradient, network, flags.images, TOTAL * flags.images))
    return 0


def _measured(count: int, flags: argparse.Namespace) -> dict[str, Any]:
    """What the first of `count` workers measured."""
    settings = {
        "steps": flags.steps,
        "batches": [flags.images, flags.images // 2] if count == 1 else [flags.images],
        "setting": SMALL if flags.quick else {},
    }
    with tempfile.TemporaryDirectory() as folder:
        output = f"{folder}/{{worker}}.json"
        processes = start(folder, count, "benchmarks.scaling_worker", output, json.dumps(settings))
        codes, _ = ended(processes, WITHIN)
        if any(codes):
            raise RuntimeError("\n".join(said(folder, worker)[-2000:] for worker in range(count)))
        return json.loads(pathlib.Path(folder, "0.json").read_text())


def lines_of(runs: Mapping[int, Sequence[Mapping[str, Any]]], images: int) -> dict[str, Line]:
    """Returns the medians over all runs by name; `runs` are what one process and what two workers measured."""

    def median(count: int, name: str, batch: int, what: str) -> float:
        return statistics.median(run["lines"][name][str(batch)][what] for run in runs[count])

    return {
        name: Line(
            median(1, name, images, "seconds"),
            median(1, name, images // 2, "seconds"),
            median(2, name, images, "seconds"),
            median(2, name, images, "sent") / 2,
            images,
        )
        for name in runs[1][0]["lines"]
    }


def measured_table(measured: Mapping[str, Line], together: float) -> str:
    """Returns a line for each kind of step; `together` is the seconds of a sum of the gradients alone."""
    heads = ("", "one process, s", "two workers, s", "of the ideal", "MiB sent by each", "sum alone, s", "of the step")
    rows = [
        (
            name,
            number(line.seconds),
            number(line.together),
            f"{line.share():.0%}",
            number(line.sent / 2**20),
            number(together),
            f"{together / line.together:.0%}",
        )
        for name, line in measured.items()
    ]
    return aligned([heads, *rows])


def modelled_table(measured: Mapping[str, Line], gradient: int, network: Network, each: int, total: int) -> str:
    """Returns the share of the ideal by number of workers.

    Args:
      measured: the lines.
      gradient: bytes that are summed in a step.
      network: what joins the workers.
      each: images of each worker, however many there are.
      total: images of all of them together; workers without an image are left out.
    """
    heads = [f"{name}, {what}" for name in measured for what in (f"{each} each", f"{total} in all")]
    rows = []
    for workers in MODELLED:
        summed = network.seconds(gradient, workers)
        cells = []
        for line in measured.values():
            cells.append(f"{line.of(each) / (line.of(each) + summed):.0%}")
            shared = line.of(total) / (workers * (line.of(total / workers) + summed))
            cells.append(f"{shared:.0%}" if workers <= total else "")
        rows.append((str(workers), number(summed), *cells))
    return aligned([("workers", "sum, s", *heads), *rows])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
