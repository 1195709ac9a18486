"""One of several workers in tests: `python -m tests.toy_worker FOLDER JOBS`, with TF_CONFIG.

JOBS is JSON: [{"job": name of a function here, ...its arguments}].
"""

import json
import os
import pathlib
import sys

import numpy as np

from spidercap.pipeline.errors import SAVED, Interrupted, UserError
from spidercap.pipeline.training.strategies import multiworker
from spidercap.pipeline.workers import Workers
from tests import tiny_runs
from tests.toy_training import trained


def messages(folder, workers):
    """What workers tell each other arrives as it was sent."""
    w, count = workers.number, workers.count
    assert workers.total([1, w, 0.5]).tolist() == [count, count * (count - 1) / 2, count / 2]
    assert workers.total([]).tolist() == []
    rows = np.array([[w, -1], [10 * w, 2**31 - 1]], np.int32)
    found = workers.gathered(rows)
    assert found.dtype == np.int32 and found.tolist() == [
        [k * f, e] for k in range(count) for f, e in [(1, -1), (10, 2**31 - 1)]
    ]
    infinite = np.array([[-np.inf, 0.1 * w]], np.float32)
    np.testing.assert_array_equal(
        workers.gathered(infinite), np.array([[-np.inf, 0.1 * k] for k in range(count)], np.float32)
    )
    for text in ("", "a café\n🐕", "x" * 100_000):
        assert workers.from_chief(text if w == 0 else "mine") == text
    with workers.chief_first():
        path = folder / "first"
        assert path.exists() == (w > 0)
        path.write_text("")
        print("told by the chief alone")


def toy(folder, workers, number, name, batch_size, options):
    """Steps of toy_training; saves what they end with."""
    variables, logs = trained(name, batch_size, multiworker(), **options)
    np.savez(folder / f"toy_{number}_{workers.number}.npz", *variables)
    (folder / f"toy_{number}_{workers.number}.json").write_text(json.dumps(logs, default=float))


def tiny(folder, workers, signals=None, **changes):
    """A whole tiny run; `signals`: worker -> [validation, signal that comes to it there]."""
    config = tiny_runs.config_of(folder / "run", strategy="multiworker", **changes)
    at, number = (signals or {}).get(str(workers.number), (None, None))

    def stop():
        (folder / "signal").touch()
        os.kill(os.getpid(), number)

    try:
        with workers.named_if_gone():
            weights, progress = tiny_runs.run(config, tiny_runs.make_arrays(), stop_at=at, stop=stop, workers=workers)
    except Interrupted:
        sys.exit(SAVED)
    except UserError as error:
        print(f"error: {error}", flush=True)
        sys.exit(1)
    np.savez(folder / f"run_{workers.number}.npz", *weights)
    (folder / f"run_{workers.number}.json").write_text(json.dumps(tiny_runs.without_seconds(progress)))


def main(folder, jobs):
    workers = Workers(multiworker())
    for job in json.loads(jobs):
        {"messages": messages, "toy": toy, "tiny": tiny}[job.pop("job")](pathlib.Path(folder), workers, **job)
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
