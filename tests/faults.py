"""Runs of the command line that are stopped at chosen moments: killed, asked to stop, or left without room on the disk.

A moment is a number of writes (files opened for writing, renamed, cut or deleted below the folder of the run, of which
Python's audit events tell) and a time after the last of them: in a step, while TensorFlow writes, or between.
"""

import errno
import json
import multiprocessing
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import NamedTuple

import numpy as np

from benchmarks.local_workers import ended, said, start
from spidercap.pipeline.errors import FAILED, INTERRUPTED, SAVED
from tests.run_outcome import differing

SPLITS = {"train": 20, "val": 6, "test": 4}
WORDS = ["a", "dog", "cat", "bird", "runs", "sits", "flies", "on", "the", "grass", "red", "blue"]
# A run of seconds, from features and captions to an exported model.
FLAGS = (
    *("--mode=train", "--dataset=files", "--units=8", "--embedding_size=6", "--baseline_units=5", "--max_length=7"),
    *("--min_word_count=1", "--batch_size=8", "--stages=mle:1,baseline:1,pg:1", "--rollouts=1", "--log_every=1"),
    *("--evaluate_every=0.5", "--checkpoint_every=0"),
)
WRITES = ("open", "os.mkdir", "os.rename", "os.remove", "os.truncate", "shutil.rmtree")
OPENED_TO_WRITE = os.O_WRONLY | os.O_RDWR
FEWEST_WRITES, MOST_WRITES = 3, 350  # a whole run has about 330
LONGEST = 20.0  # seconds; a run of two workers takes about as long on two free cores
FULL = "full disk"
# What can happen, the likelier the more often it stands here, and the exit codes that may follow. SIGALRM, which
# nothing handles, is how the system kills after a time.
ENDS = (
    *[("SIGKILL", (-signal.SIGKILL, -signal.SIGALRM))] * 4,
    *((name, (SAVED, INTERRUPTED)) for name in ("SIGTERM", "SIGINT", "SIGUSR1")),
    (FULL, (FAILED,)),
)
WAITED = 10  # seconds
WITHIN = 300  # seconds in which a process must have ended
# TensorFlow and Keras are imported once, not in each of hundreds of processes.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["spidercap.pipeline.main", "spidercap.pipeline.modes"])


class Moment(NamedTuple):
    """What happens to a process, and when: `seconds` after its `write`-th write."""

    write: int  # the first is 1, 0 is the start
    seconds: float = 0.0
    what: str = "SIGKILL"  # a signal, or FULL: from then on nothing can be written
    worker: int = 0  # to which of several
    below: str = ""  # folder of the run below which writes count


def moments(seed, workers=1):
    """Yields moments without end: at a write or within a second after it; for all workers but the first, at a time.

    The logarithm of the write's number is uniform, so that a run that is stopped again and again gets somewhere, and is
    stopped in all of its parts.
    """
    rng = random.Random(seed)
    while True:
        what, worker = rng.choice(ENDS)[0], rng.randrange(workers)
        if worker and what != FULL:  # it writes hardly anything
            yield Moment(0, round(rng.uniform(0, LONGEST), 3), what, worker)
        else:
            write = int(FEWEST_WRITES * (MOST_WRITES / FEWEST_WRITES) ** rng.random())
            yield Moment(write, rng.choice([0.0, round(rng.random(), 3)]), what)


def make_data(folder):
    """Writes features and captions; returns the flags that name them."""
    folder.mkdir(parents=True)
    rng, features, flags = np.random.default_rng(0), {}, []
    for split, count in SPLITS.items():
        names = [f"{split}{i}.jpg" for i in range(count)]
        features |= {name: rng.normal(size=6).astype(np.float32) for name in names}
        captions = [
            {"id": len(SPLITS) * i + k, "image_id": i, "caption": " ".join(rng.choice(WORDS, 5))}
            for i in range(count)
            for k in range(3)
        ]
        images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
        (folder / f"{split}.json").write_text(json.dumps({"images": images, "annotations": captions}))
        flags.append(f"--{split}_captions={folder / split}.json")
    np.savez(folder / "features.npz", **features)
    return (*flags, f"--features={folder / 'features.npz'}")


def make_regions(folder):
    """Writes the same with one to four regions of each image in place of its vector."""
    flags = make_data(folder)
    path, rng = folder / "features.npz", np.random.default_rng(1)
    with np.load(path) as vectors:
        parts = {name: rng.normal(size=(1 + i % 4, 6)) for i, name in enumerate(vectors.files)}
    np.savez(path, **parts)
    return flags


def run(runs, flags, moment=None):
    """Runs the command line in a process, with workdir and cache in `runs`; returns exit code and what it printed."""
    runs.mkdir(parents=True, exist_ok=True)
    log = runs / "log"
    process = PROCESSES.Process(target=_logged, args=(str(log), str(runs), flags, moment))
    process.start()
    process.join(WITHIN)
    if process.exitcode is None:
        process.kill()
        process.join()
        return process.exitcode, f"hangs for {WITHIN} s\n{log.read_text(errors='replace')}"
    return process.exitcode, log.read_text(errors="replace")


def run_workers(runs, flags, moment=None, workers=2):
    """Runs the command line in processes that train together; returns a list of `run`'s results."""
    words = json.dumps([str(runs), [*flags, "--strategy=multiworker"], moment])
    processes = start(runs / "logs", workers, "tests.faults", "{worker}", words)
    threading.Thread(target=_stop_waiting, args=(runs / "logs", processes), daemon=True).start()
    codes, _ = ended(processes, WITHIN)
    return [(code, said(runs / "logs", worker)) for worker, code in enumerate(codes)]


def _stop_waiting(logs, processes):
    """Stops workers that still wait for one that has ended before it came, as job schedulers do."""
    while None in (codes := [process.poll() for process in processes]):
        if any(codes):
            time.sleep(WAITED)
            for process in processes:
                if process.poll() is None and "devices: " not in said(logs, 0):
                    process.terminate()
        time.sleep(0.5)


def stopped_runs(runs, flags, seed, stops, whole, workers=1):
    """Stops runs `stops` times at moments of the seed; yields a line for each one, and what was wrong, '' if nothing.

    A run is started again by the same command until it ends. What it ends with is compared with the outcome `whole`.
    Then it is deleted, and the next run begins.
    """
    count = 0
    for moment in moments(seed, workers):
        moment = moment if count < stops else None
        try:
            ends = run_workers(runs, flags, moment) if workers > 1 else [run(runs, flags, moment)]
        except subprocess.TimeoutExpired:
            yield f"{moment}", f"hangs for {WITHIN} s"
            return
        codes = [code for code, _ in ends]
        wrong = "; ".join(filter(None, (_wrong(moment, worker, *end) for worker, end in enumerate(ends))))
        yield f"{moment}: {codes}", wrong or ("" if any(codes) else differing(runs, whole))
        count += any(codes)
        if any(codes) and not moment:
            return  # it fails by itself
        if not any(codes):
            shutil.rmtree(runs)
            if count >= stops:
                return


def _wrong(moment, worker, code, printed):
    """What is wrong with the end of a process, as text; one that the moment comes too late for ends well."""
    if printed.startswith("hangs") or "Traceback" in printed or (code and not moment):
        return f"exit code {code}: {printed[-500:]}"
    is_stopped = moment and moment.worker == worker
    if is_stopped and moment.what == FULL and code == FAILED and "no space left on the disk" not in printed.lower():
        return f"the full disk is not named: {printed[-500:]}"
    if not moment:
        return ""
    # Of the others one may have been stopped by _stop_waiting.
    allowed = dict(ENDS)[moment.what] if is_stopped else (SAVED, INTERRUPTED, FAILED, -signal.SIGTERM)
    if is_stopped and not moment.write:
        allowed = (*allowed, -signal.Signals[moment.what])  # while it waits for others, nothing handles signals
    is_named = code != FAILED or is_stopped or "error: worker" in printed
    return "" if code in (0, *allowed) and is_named else f"exit code {code}: {printed[-500:]}"


def _logged(log, *arguments):
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    code = _run(*arguments)
    sys.stdout.flush()
    os._exit(code)  # without what multiprocessing does at the end of its processes


def _run(runs, flags, moment):
    from spidercap.pipeline import main

    if moment and not moment.write:
        _send(moment)
    elif moment:
        sys.addaudithook(_stopper(f"{runs}/{moment.below}", moment))
    return main.main(["main", *flags, f"--workdir={runs}/run", f"--cache_dir={runs}/cache"])


def _stopper(prefix, moment):
    """The audit hook that lets the moment come."""
    writes = 0

    def hook(event, arguments):
        nonlocal writes
        if event not in WRITES or not str(arguments[0]).startswith(prefix):
            return
        if event == "open" and not (arguments[2] or 0) & OPENED_TO_WRITE:
            return
        writes += 1
        if writes == moment.write:
            os.write(2, f"{moment}: {event} {arguments[0]}\n".encode())
        if moment.what == FULL:
            if writes >= moment.write and event in ("open", "os.mkdir"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))
        elif writes == moment.write:
            _send(moment)

    return hook


def _send(moment):
    number = signal.Signals[moment.what]
    if not moment.seconds:
        os.kill(os.getpid(), number)
    elif number == signal.SIGKILL:
        signal.setitimer(signal.ITIMER_REAL, moment.seconds)  # the system's, which needs no Python to run
    else:
        timer = threading.Timer(moment.seconds, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()


if __name__ == "__main__":
    folder, settings, when = json.loads(sys.argv[2])
    when = Moment(*when) if when and when[3] == int(sys.argv[1]) else None
    sys.exit(_run(pathlib.Path(folder), settings, when))
