"""Several workers that train together, on this machine: `make machines-check`.

    python -m tests.machines_check [--workers=3]

Every objective on three workers against one process; a run by the command line on two workers against one; and what
happens when a worker is killed, hangs or is asked to stop, or sees other folders.
"""

import argparse
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

from benchmarks.local_workers import ended, said, start
from spidercap.pipeline.errors import SAVED
from tests.devices_check import cases
from tests.toy_training import assert_close, trained

WITHIN = 60  # seconds after which a worker's end must have ended the others
TINY = {"job": "tiny", "stages": "mle:2,baseline:1,pg:1"}
# A run of a minute by the command line.
RUN = (
    *("pipeline.main", "--flagfile=recipes/quickstart.flags", "--scenes_train=120", "--scenes_val=40"),
    *("--stages=mle:4,vine:2", "--batch_size=15", "--units=32", "--embedding_size=32", "--log_every=10"),
)
WAIT = 60  # seconds to start, and for files to be seen
TABLES = ("results/val/mle.json", "results/val/vine.json", "results/val/vine.scores.json")


def main(arguments):
    """Prints a line per case; returns 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.machines_check", description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--only", default="", help="a part of it, by the first word of its name")
    options = parser.parse_args(arguments)
    count = options.workers
    failed = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for title, check in (
            (f"all objectives, {count} workers", lambda: objectives(folder / "toys", count)),
            ("signals", lambda: signals(folder / "signals")),
            ("command line", lambda: command_line(folder / "runs")),
            ("scaling", scaling),
        ):
            if not title.startswith(options.only):
                continue
            begun = time.monotonic()
            try:
                check()
            except AssertionError as error:
                failed.append(title)
                print(f"{title}: FAILED\n{error}", flush=True)
            print(f"{title}: {time.monotonic() - begun:.0f} s", flush=True)
    return 1 if failed else 0


def objectives(folder, count):
    """Steps of all objectives."""
    found = cases(count)
    jobs = [
        {"job": "toy", "number": i, "name": name, "batch_size": size, "options": options}
        for i, (name, size, options) in enumerate(found)
    ]
    codes, _ = ended(start(folder, count, "tests.toy_worker", folder, json.dumps(jobs)), 1800)
    assert codes == [0] * count, said(folder, 0)
    for i, (name, size, options) in enumerate(found):
        one = trained(name, size, **options)
        for worker in range(count):
            logs = json.loads((folder / f"toy_{i}_{worker}.json").read_text())
            with np.load(folder / f"toy_{i}_{worker}.npz") as several:
                assert_close(one, (list(several.values()), logs))
        print(f"  {name}, batches of {size} {options or ''}: equal", flush=True)


def signals(folder):
    """Workers that are killed, stopped, or asked to stop; the run then ends as one that never was."""
    _tiny(folder / "whole", {}, [0, 0])
    for worker, number, expected in (
        (1, signal.SIGKILL, [1, -signal.SIGKILL]),
        (0, signal.SIGKILL, [-signal.SIGKILL, 1]),
        (1, signal.SIGSTOP, [1, None]),
        (0, signal.SIGSTOP, [None, 1]),
        (1, signal.SIGTERM, [SAVED, SAVED]),
        (0, signal.SIGUSR1, [SAVED, SAVED]),
    ):
        case = folder / f"{number.name}_{worker}"
        seconds = _tiny(case, {str(worker): [5, number]}, expected)
        _tiny(case, {}, [0, 0])
        for kind in ("npz", "json"):
            whole, other = ((one / f"run_0.{kind}").read_bytes() for one in (folder / "whole", case))
            assert whole == other, f"{number.name} to worker {worker}: the run ended otherwise than one never stopped"
        print(f"  {number.name} to worker {worker}: all ended within {seconds:.0f} s, and went on to the same end")


def _tiny(folder, signals, expected):
    """Runs two workers; returns the seconds from the signal to the end of those that it was not for."""
    processes = start(folder, 2, "tests.toy_worker", folder, json.dumps([TINY | {"signals": signals}]))
    hung = [worker for worker, code in enumerate(expected) if code is None]
    codes, _ = ended([one for worker, one in enumerate(processes) if worker not in hung])
    for worker in hung:
        processes[worker].kill()
        codes.insert(worker, None)
    assert codes == expected, f"{signals}: {codes}\n{said(folder, 0)[-2000:]}\n{said(folder, 1)[-2000:]}"
    came = folder / "signal"  # written when the signal came
    seconds = time.time() - came.stat().st_mtime if signals else 0
    assert seconds < WITHIN, f"{signals}: the others ended after {seconds:.0f} s"
    if signals and 1 in codes:
        gone = next(iter(signals))
        assert f"error: worker {gone} (localhost:" in said(folder, 1 - int(gone)), said(folder, 1 - int(gone))
    return seconds


def command_line(folder):
    """The same command on one process and on two workers, and folders that are not shared."""
    cache = f"--cache_dir={folder / 'cache'}"
    subprocess.run([sys.executable, "-m", *RUN, f"--workdir={folder / 'one'}", cache], check=True, capture_output=True)
    two = (*RUN, "--strategy=multiworker", f"--workdir={folder / 'two'}", f"--cache_dir={folder / 'cache2'}")
    codes, _ = ended(start(folder / "logs", 2, *two), 900)
    assert codes == [0, 0], said(folder / "logs", 0) + said(folder / "logs", 1)
    for table in TABLES:
        one, other = (json.loads((folder / run / table).read_text()) for run in ("one", "two"))
        assert one == other, f"{table} of one process and of two workers differ"
    print("  one process and two workers: equal captions and scores")
    told = said(folder / "logs", 1)  # besides what TensorFlow prints
    assert not any(word in told for word in ("mle", "vine", "data:", "images", "warning")), f"worker 1 talks: {told}"
    apart = (*RUN, "--strategy=multiworker", f"--workdir={folder}/apart", cache, "--seed={worker}")
    codes, seconds = ended(start(folder / "apart", 2, *apart), 200)
    assert codes == [1, 1] and seconds < WITHIN, f"{codes} after {seconds:.0f} s"
    assert all("has other settings than worker 0" in said(folder / "apart", k) for k in range(2))
    assert "seed: 0 -> 1" in said(folder / "apart", 1)
    print("  other settings: an error on both that names the worker", flush=True)
    blind = (*RUN, "--strategy=multiworker", f"--workdir={folder}/own{{worker}}", cache)
    codes, seconds = ended(start(folder / "blind", 2, *blind), 200)
    assert codes == [1, 1] and seconds < WITHIN + WAIT, f"{codes} after {seconds:.0f} s"
    expected = "worker 1 (localhost:"
    assert all(expected in said(folder / "blind", k) and "cannot see" in said(folder / "blind", k) for k in range(2))
    print("  folders that are not shared: an error on both that names the worker", flush=True)


def scaling():
    """The benchmark runs."""
    command = [sys.executable, "-m", "benchmarks.scaling", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "vine" in done.stdout, done.stderr[-2000:]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
