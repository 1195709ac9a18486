"""Damages every file of a run and of its cache, and stops runs between any two writes: `make torture`.

A case is right if the same command ends like a run that nothing happened to, or ends with one line that names the
file. Anything else is printed, and the exit code is 1.
"""

import argparse
import collections
import contextlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from spidercap.pipeline import files, main

ROOT = pathlib.Path(__file__).parents[1]
FLAGS = (
    f"--flagfile={ROOT / 'tests' / 'tiny.flags'}",
    "--stages=mle:2,baseline:1,pg:2",
    "--evaluate_every=1",
    "--checkpoint_every=0",
)


def flip(path: pathlib.Path) -> None:
    """Changes one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


IN_PG = -1

DAMAGE = {
    "flipped": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "lost": lambda path: path.unlink(),
}


def command(runs: pathlib.Path) -> list[str]:
    """Returns the command that trains, without the program."""
    return [*FLAGS, f"--workdir={runs / 'run'}"]


def outcome(runs: pathlib.Path) -> dict[str, object]:
    """Returns what a run left that must be the same however often it was stopped."""
    workdir = runs / "run"
    results = {path.name: path.read_text() for path in sorted((workdir / "results" / "val").glob("*.json"))}
    points = collections.Counter(_points(workdir / "logs"))
    left = [str(p.relative_to(runs)) for p in runs.rglob(".writing-*")]
    return {
        "results": results,
        "points": sorted(points.elements()),
        "exports": sorted(path.name for path in (workdir / "export").iterdir()),
        "left over": left,
    }


def _points(folder: pathlib.Path) -> list[tuple[str, int]]:
    import tensorflow as tf

    found = []
    for path in (folder / "run").iterdir():
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            found += [(value.tag, event.step) for value in event.summary.value]
    return found


def run_here(runs: pathlib.Path) -> tuple[int, str]:
    """Runs the command in this process; returns its exit code and what it wrote to stderr."""
    errors = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        code = main.main(["main", *command(runs)])
    return code, errors.getvalue()


def is_right(runs: pathlib.Path, code: int, errors: str, file: str, whole: dict[str, object]) -> str:
    """Returns '' for a case that came out right, else what was wrong."""
    if "Traceback" in errors:
        return "a traceback: " + errors.strip().splitlines()[-1]
    if code == 0:
        differing = [name for name, value in outcome(runs).items() if value != whole[name]]
        return f"{', '.join(differing)} differ" if differing else ""
    named = pathlib.Path(file).name in errors or pathlib.Path(file).parent.name in errors
    return "" if code == 1 and named else f"exit code {code}, not naming the file: {errors.strip()[-200:]}"


def damage_all(scratch: pathlib.Path, stopped: pathlib.Path, whole: dict[str, object]) -> list[str]:
    """Returns a line for each kind of damage to a file of a stopped run that came out wrong."""
    targets = [
        str(path.relative_to(stopped))
        for path in sorted(stopped.rglob("*"))
        if path.is_file() and path.stat().st_size and not {"logs", "samples"} & set(path.parts)
    ]
    wrong = []
    for file in targets:
        for kind, damage in DAMAGE.items():
            runs = scratch / "damaged"
            shutil.rmtree(runs, ignore_errors=True)
            shutil.copytree(stopped, runs)
            damage(runs / file)
            try:
                fault = is_right(runs, *run_here(runs), file, whole)
            except Exception as error:  # what a user would see as a traceback
                fault = f"a traceback: {type(error).__name__}: {str(error)[:200]}"
            print(f"{kind} {file}: {fault or 'right'}", flush=True)
            wrong += [f"{kind} {file}: {fault}"] * bool(fault)
    print(f"damage: {len(targets) * len(DAMAGE) - len(wrong)} of {len(targets) * len(DAMAGE)} right")
    return wrong


def crash_all(scratch: pathlib.Path, whole: dict[str, object], stride: int) -> list[str]:
    """Returns a line for each point at which a run was killed after which the same command ended otherwise."""
    wrong, tried = [], 0
    for cut_at in range(0, 10_000, stride):
        runs = scratch / "crashed"
        shutil.rmtree(runs, ignore_errors=True)
        runs.mkdir()
        if not run_killed(cut_at, runs):
            break  # there are no more writes
        tried += 1
        try:
            fault = is_right(runs, *run_here(runs), "", whole)
        except Exception as error:
            fault = f"a traceback: {type(error).__name__}: {str(error)[:200]}"
        print(f"killed before write {cut_at}: {fault or 'right'}", flush=True)
        wrong += [f"killed before write {cut_at}: {fault}"] * bool(fault)
    print(f"crash points: {tried - len(wrong)} of {tried} right")
    return wrong


def run_killed(cut_at: int, runs: pathlib.Path) -> bool:
    """Calls `run_until` in a process of its own; returns whether it was killed."""
    words = [sys.executable, "-m", "tests.torture", f"--cut_at={cut_at}", f"--scratch={runs}"]
    return subprocess.run(words, cwd=ROOT, capture_output=True, check=False).returncode == 9


def run_until(cut_at: int, runs: pathlib.Path) -> int:
    """Runs the command in this process, which is killed, like by a power cut.

    Args:
      cut_at: number of the rename before which it is killed; IN_PG: after pg's second checkpoint.
      runs: the folder of the run and its cache.
    """
    replace, calls = os.replace, []

    def counted(source: pathlib.Path, target: pathlib.Path) -> None:
        if len(calls) == cut_at:
            os._exit(9)
        calls.append(1)
        replace(source, target)
        if cut_at == IN_PG and target.parent.name == "checkpoints":
            progress = json.loads((target / "progress.json").read_text())
            if progress["stage"] == 2 and progress["step"] == 2 and progress["best"] is not None:
                os._exit(9)

    files.os.replace = counted
    return main.main(["main", *command(runs)])


def torture() -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stride", type=int, default=1, help="try every so manieth crash point")
    parser.add_argument("--only", choices=("damage", "crashes"), help="one of the two parts")
    parser.add_argument("--cut_at", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cut_at is not None:
        return run_until(args.cut_at, args.scratch)
    with tempfile.TemporaryDirectory() as folder:
        scratch, wrong = pathlib.Path(folder), []
        assert run_here(scratch / "whole")[0] == 0
        whole = outcome(scratch / "whole")
        if args.only != "crashes":
            assert run_killed(IN_PG, scratch / "stopped")
            wrong += damage_all(scratch, scratch / "stopped", whole)
        if args.only != "damage":
            wrong += crash_all(scratch, whole, args.stride)
    print("\n".join(["all right"] if not wrong else ["WRONG:", *wrong]))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(torture())
