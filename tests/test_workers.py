"""Two workers on this machine end as one process with the same batches; one that is killed stops the other.

`make machines-check` has all objectives, three workers, other signals and the command line.
"""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks.local_workers import ended, free_ports, said, start
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.training import waiting
from spidercap.pipeline.training.strategies import PORTS, cluster
from spidercap.pipeline.workers import Workers
from tests import tiny_runs
from tests.conftest import ROOT
from tests.toy_training import assert_close, trained

TOYS = [("mle", 5, {}), ("pg", 5, {"reward": "host"})]
TINY = {"job": "tiny", "stages": "mle:1,leave_one_out:1", "samples": 2}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folder of two workers that did all there is to do."""
    folder = tmp_path_factory.mktemp("two")
    toys = [{"job": "toy", "number": i, "name": n, "batch_size": b, "options": o} for i, (n, b, o) in enumerate(TOYS)]
    processes = start(folder, 2, "tests.toy_worker", folder, json.dumps([{"job": "messages"}, *toys, TINY]))
    assert ended(processes)[0] == [0, 0], said(folder, 0) + said(folder, 1)
    return folder


def test_messages_arrive(two):
    assert ["told by the chief alone" in said(two, number) for number in range(2)] == [True, False]


@pytest.mark.parametrize("number", range(len(TOYS)))
def test_steps_of_two_workers_are_those_of_one_process(two, number):
    name, batch_size, options = TOYS[number]
    one = trained(name, batch_size, **options)
    for worker in range(2):
        with np.load(two / f"toy_{number}_{worker}.npz") as found:
            logs = json.loads((two / f"toy_{number}_{worker}.json").read_text())
            assert_close(one, (list(found.values()), logs))


def test_a_run_of_two_workers_is_that_of_one_process(two, tmp_path):
    config = tiny_runs.config_of(tmp_path, stages=TINY["stages"], samples=TINY["samples"])
    weights, progress = tiny_runs.run(config, tiny_runs.make_arrays())
    for worker in range(2):
        assert_same(two / f"run_{worker}", weights, tiny_runs.without_seconds(progress))


@pytest.mark.long
def test_a_killed_worker_stops_the_other_and_the_run_goes_on(two, tmp_path):
    job = json.dumps([TINY | {"signals": {"1": [2, signal.SIGKILL]}}])
    codes, seconds = ended(start(tmp_path, 2, "tests.toy_worker", tmp_path, job), 120)
    assert codes == [1, -signal.SIGKILL] and seconds < 100, said(tmp_path, 0)
    assert "error: worker 1 (localhost:" in said(tmp_path, 0) and "has ended or hangs" in said(tmp_path, 0)
    assert ended(start(tmp_path, 2, "tests.toy_worker", tmp_path, json.dumps([TINY])))[0] == [0, 0]
    with np.load(two / "run_0.npz") as expected:
        progress = json.loads((two / "run_0.json").read_text())
        assert_same(tmp_path / "run_0", list(expected.values()), progress, exact=True)


def assert_same(path, weights, progress, exact=False):
    """Asserts that the files of a run hold these weights and this progress: to rounding, or to the bit."""
    equal = np.testing.assert_array_equal if exact else lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-5)
    with np.load(f"{path}.npz") as found:
        for a, b in zip(found.values(), weights, strict=True):
            equal(a, b)
    known = json.loads(path.with_suffix(".json").read_text())
    for a, b in zip(known["history"], progress["history"], strict=True):
        assert (a["stage"], a["step"]) == (b["stage"], b["step"])
        equal(a["metrics"]["CIDEr"], b["metrics"]["CIDEr"])
        equal(a["metrics"]["all weights"], b["metrics"]["all weights"])
    assert [row["best_step"] for row in known["finished"]] == [row["best_step"] for row in progress["finished"]]


def test_a_worker_that_waits_tells_for_whom_and_ctrl_c_ends_it(tmp_path):
    """TensorFlow keeps Python from running meanwhile."""
    code = (
        "from spidercap.pipeline.training import strategies, waiting\n"
        "waiting.PATIENCE = 0.5\n"
        "strategies.multiworker()\n"
    )
    workers = {"worker": [f"localhost:{port}" for port in free_ports(2)]}
    config = json.dumps({"cluster": workers, "task": {"type": "worker", "index": 0}})
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", code], env=os.environ | {"TF_CONFIG": config}, stderr=log, cwd=ROOT
        )
    addresses = ", ".join(workers["worker"])
    line = f"waiting until all workers have come: {addresses}\n"
    end = time.monotonic() + 120
    while (tmp_path / "log").read_text().count(line) < 2 and time.monotonic() < end:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == -signal.SIGINT
    time.sleep(1)  # of the process that tells
    said = (tmp_path / "log").read_text()
    assert said.count(line) >= 2 and f"stopped while it waited until all workers have come: {addresses}\n" in said


def test_a_wait_that_is_over_is_told_no_more(capfd, monkeypatch):
    monkeypatch.setattr(waiting, "PATIENCE", 0.2)
    with waiting.told("a:1, b:2"):
        time.sleep(1)
    assert set(capfd.readouterr().err.splitlines()) == {"waiting until all workers have come: a:1, b:2"}


def configured(monkeypatch, **variables):
    for name in ("TF_CONFIG", "SLURM_PROCID", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


CLUSTER = {"chief": ["a:1"], "worker": ["b:2", "c:3"]}


@pytest.mark.parametrize(("job", "index", "number"), [("chief", 0, 0), ("worker", 0, 1), ("worker", 1, 2)])
def test_tf_config_tells_the_place_of_a_worker(monkeypatch, job, index, number):
    configured(monkeypatch, TF_CONFIG=json.dumps({"cluster": CLUSTER, "task": {"type": job, "index": index}}))

    class Strategy:
        cluster_resolver = cluster()

    monkeypatch.setattr("tensorflow.function", lambda *args, **more: None)
    workers = Workers(Strategy)
    assert (workers.number, workers.count, workers.is_chief) == (number, 3, number == 0)
    assert workers.name() == f"worker {number} ({'abc'[number]}:{number + 1})"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs to know the workers"),
        ("{", "cannot be read"),
        ('{"cluster": {"worker": ["a:1"]}}', "cannot be read"),
        (json.dumps({"cluster": CLUSTER, "task": {"type": "worker", "index": 2}}), "the task worker 2 cannot"),
        (
            json.dumps({"cluster": CLUSTER | {"ps": ["d:4"]}, "task": {"type": "ps", "index": 0}}),
            "jobs named chief and",
        ),
        (json.dumps({"cluster": CLUSTER, "task": {"type": "worker", "index": "x"}}), "cannot be read"),
        (json.dumps({"cluster": CLUSTER}), "'task' is missing"),
        (
            json.dumps({"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}),
            "the address a:1 twice",
        ),
    ],
)
def test_bad_tf_config_is_a_clear_error(monkeypatch, text, message):
    configured(monkeypatch, TF_CONFIG=text)
    with pytest.raises(UserError, match=message) as found:
        cluster()
    assert "\n" not in str(found.value)


def test_slurm_tells_the_workers(monkeypatch):
    configured(
        monkeypatch,
        SLURM_PROCID="2",
        SLURM_JOB_ID="20003",
        SLURM_STEP_NUM_TASKS="4",
        SLURM_STEP_NODELIST="node[1-2]",
        SLURM_STEP_TASKS_PER_NODE="2(x2)",
        CUDA_VISIBLE_DEVICES="",
    )
    resolver = cluster()
    port = PORTS[0] + 3
    nodes = [f"node{node}:{port + i}" for node in (1, 2) for i in (0, 1)]
    assert resolver.cluster_spec().as_dict() == {"worker": nodes}
    assert (resolver.task_type, resolver.task_id) == ("worker", 2)


def test_slurm_without_its_variables_is_a_clear_error(monkeypatch):
    configured(monkeypatch, SLURM_PROCID="0")
    monkeypatch.delenv("SLURM_STEP_NODELIST", raising=False)
    with pytest.raises(UserError, match="SLURM's variables cannot be used"):
        cluster()
