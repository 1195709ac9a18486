"""Damages every file of a run and of its cache, and stops runs at seeded moments: `make torture`.

    python -m tests.torture [--only=stops] [--stops=160] [--worker_stops=40] [--files=run/] [--jobs=2]

A case is right if the same command ends like a run that nothing happened to, or, after damage, with one line that names
the file. Anything else is printed, and the exit code is 1.
"""

import argparse
import concurrent.futures
import functools
import os
import pathlib
import shutil
import sys
import tempfile

from tests import faults
from tests.damage import flip
from tests.run_outcome import differing, outcome

ROOT = pathlib.Path(__file__).parents[1]
CHAIN = 20  # stops after which the next seed begins
# A run on pictures, for the files that one on features lacks.
PICTURES = (
    f"--flagfile={ROOT / 'tests' / 'tiny.flags'}",
    *("--stages=mle:1", "--scenes_train=16", "--checkpoint_every=0"),
)
# Asked to stop when the last stage has kept its first weights, a run saves a checkpoint within that stage.
WITHIN_PG = faults.Moment(1, what="SIGTERM", below="run/kept/pg")
UNREAD = {"logs", "samples", "results"}  # written anew, whatever is there


DAMAGE = {
    "flipped": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "lost": lambda path: path.unlink(),
}


def main(arguments):
    """Prints a line per case; returns 1 if one is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--stops", type=int, default=160, help="of one process")
    parser.add_argument("--worker_stops", type=int, default=40, help="of two workers")
    parser.add_argument("--files", default="", help="damage only those whose path holds this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="cases at once")
    options = parser.parse_args(arguments)
    wrong = []
    with tempfile.TemporaryDirectory() as name, concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        scratch = pathlib.Path(name)
        flags = (*faults.FLAGS, *faults.make_data(scratch / "data"))
        for part in [options.only] if options.only else PARTS:
            cases = PARTS[part](scratch / part, flags, options)
            lines = [line for of_case in pool.map(lambda case: case(), cases) for line in of_case]
            failed = [f"{case}: {fault}" for case, fault in lines if fault]
            wrong += failed
            print(f"{part}: {len(lines) - len(failed)} of {len(lines)} right", flush=True)
    print("\n".join(["all right"] if not wrong else ["WRONG:", *wrong]))
    return bool(wrong)


def stopped(scratch, flags, options):
    """Returns the cases of damage to a run that was stopped within its last stage."""
    whole = _whole(scratch, flags)
    assert faults.run(scratch / "stopped", flags, WITHIN_PG)[0] == faults.SAVED
    assert (scratch / "stopped" / "run" / "kept" / "pg").exists()
    return _damage(scratch, scratch / "stopped", flags, whole, options)


def finished(scratch, flags, options):
    """Returns the cases of damage to what a finished run keeps: weights and the exported model."""
    whole = _whole(scratch, flags)
    return _damage(scratch, scratch / "whole", flags, whole, options, lambda path: {"kept", "export"} & set(path.parts))


def pictures(scratch, flags, options):
    """Returns the cases of damage to files that only a run on pictures has."""
    whole = _whole(scratch, PICTURES)
    own = {"images.npz", "encoder.txt", "encoder.keras"}
    return _damage(
        *(scratch, scratch / "whole", PICTURES, whole, options),
        lambda path: path.name in own or {"data", "features"} & set(path.parts[:-1]),
    )


def stops(scratch, flags, options):
    """Returns the cases of runs that are stopped again and again."""
    return _stops(scratch, flags, options.stops, 1)


def worker_stops(scratch, flags, options):
    """Returns the cases of two workers of which one is stopped again and again."""
    return _stops(scratch, flags, options.worker_stops, 2)


# Part -> what returns its cases: functions that return pairs of a case's name and what was wrong, '' if nothing.
PARTS = {
    "stops": stops,
    "worker_stops": worker_stops,
    "stopped": stopped,
    "finished": finished,
    "pictures": pictures,
}


def _whole(scratch, flags, workers=1):
    ends = faults.run_workers(scratch / "whole", flags) if workers > 1 else [faults.run(scratch / "whole", flags)]
    assert not any(code for code, _ in ends), ends
    return outcome(scratch / "whole")


def _stops(scratch, flags, count, workers):
    whole = _whole(scratch, flags, workers)

    def chain(seed):
        found = []
        wanted = min(CHAIN, count - seed * CHAIN)
        for case, fault in faults.stopped_runs(scratch / f"chain{seed}", flags, seed, wanted, whole, workers):
            print(f"seed {seed}: {case}: {fault or 'right'}", flush=True)
            found.append((f"seed {seed}: {case}", fault))
        return found

    return [functools.partial(chain, seed) for seed in range(-(-count // CHAIN))]


def _damage(scratch, run, flags, whole, options, chosen=lambda path: True):
    targets = [
        path.relative_to(run)
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.stat().st_size and not UNREAD & set(path.parts) and path.name != "log"
    ]
    return [
        functools.partial(_damaged, scratch / f"{kind}{i}", run, file, kind, flags, whole)
        for i, file in enumerate(file for file in targets if options.files in str(file) and chosen(file))
        for kind in DAMAGE
    ]


def _damaged(runs, source, file, kind, flags, whole):
    """Damages a file of a copy of a run, and starts the run again."""
    shutil.copytree(source, runs)
    DAMAGE[kind](runs / file)
    code, printed = faults.run(runs, flags)
    if "Traceback" in printed or code not in (0, faults.FAILED):
        fault = f"exit code {code}: {printed[-300:]}"
    elif code:
        line = printed.strip().splitlines()[-1]
        # The file, or the folder that it is part of; not the run's own, which any error names.
        names = [str(runs / file), *[str(runs / folder) for folder in file.parents if len(folder.parts) > 1]]
        is_named = line.startswith("error: ") and any(name in line for name in names)
        fault = "" if is_named else f"the file is not named: {line}"
    else:
        fault = differing(runs, whole)
    shutil.rmtree(runs)
    print(f"{kind} {file}: {fault or 'right'}", flush=True)
    return [(f"{kind} {file}", fault)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
