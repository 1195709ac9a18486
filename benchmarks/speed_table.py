"""The results of `benchmarks.speed` as text: all of them, and those at the centre beside a PyTorch trainer."""

import dataclasses
from collections.abc import Sequence

from benchmarks import aligned, number
from benchmarks.speed_measure import Result
from benchmarks.speed_world import Setting

GFLOPS = 156.5  # rate of a matrix product when the trainer was measured: the middle of 143 to 170 on 2 cores


@dataclasses.dataclass(frozen=True)
class Goal:
    """The figures with which a result at the centre is compared, in its unit at GFLOPS."""

    name: str
    trainer: float | None  # figure of a common PyTorch trainer; None: it has no such step
    goal: float


GOALS = (
    Goal("MLE step", 121, 240),
    Goal("greedy", 291, 600),
    Goal("beam 5", 9.5, 120),
    Goal("PG step, K = 3", None, 35),
    Goal("leave-one-out step, M = 5", 9.7, 35),  # the trainer's step has five samples and CIDEr-D too
)
SHARE_GOAL = 0.6  # of the PG step with K = 3
MEMORY_GOAL = 2048  # MiB, of the whole process in that step with the largest vocabulary


def results_table(results: Sequence[Result]) -> str:
    """Returns one line per result."""
    heads = ("", "decoder", "B", "T", "V", "value", "quartiles", "unit", "share", "peak MiB", "process", "GFLOP/s")
    rows = [
        (
            row.name,
            row.settings["decoder"],
            *(f"{row.settings[letter]:,}" for letter in "BTV"),
            number(row.value),
            f"{number(row.low)} - {number(row.high)}",
            row.unit,
            "" if row.matmul_share is None else f"{row.matmul_share:.0%}",
            number(row.peak_mib),
            number(row.settings["process_mib"]),
            number(row.settings["matmul_gflops"]),
        )
        for row in results
    ]
    return aligned([heads, *rows], left=(0, 1, 7))


def goals_table(results: Sequence[Result]) -> str:
    """Returns the possible comparisons of the results; '' if there are none."""
    centre = Setting().letters()
    at_centre = {row.name: row for row in results if centre.items() <= row.settings.items()}
    rows = []
    for goal in GOALS:
        if (row := at_centre.get(goal.name)) is not None:
            scaled = row.scaled(GFLOPS)
            ratio = None if goal.trainer is None else scaled / goal.trainer
            rows.append((goal.name, number(scaled), row.unit, number(goal.trainer), number(ratio), number(goal.goal)))
    if (row := at_centre.get("PG step, K = 3")) is not None:
        rows.append((f"{row.name}, share", f"{row.matmul_share:.0%}", "", "", "", f"{SHARE_GOAL:.0%}"))
    large = [row for row in results if row.name == "PG step, K = 3" and row.settings["V"] == 30_000]
    for row in large:
        memory = number(row.settings["process_mib"])
        rows.append((f"{row.name}, V = 30,000, process", memory, "MiB", "", "", f"< {number(MEMORY_GOAL)}"))
    if not rows:
        return ""
    heads = ("at the centre, scaled", "here", "unit", "PyTorch", "times", "goal")
    note = (
        f"scaled: to matrix products of {GFLOPS:g} GFLOP/s, the middle of the 143 - 170 GFLOP/s on 2 cores with which\n"
        "the figures of a common PyTorch trainer were measured."
    )
    return f"{aligned([heads, *rows], left=(0, 2))}\n{note}"
