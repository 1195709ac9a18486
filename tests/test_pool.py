"""Worker processes that die, hang, lie or do not start: every answer is there all the same, or the fault is named."""

import contextlib
import dataclasses
import gc
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.metrics.java import pool as pool_module
from spidercap.pipeline.metrics.java import process
from spidercap.pipeline.metrics.java.pool import Pool
from spidercap.pipeline.metrics.java.process import OutOfMemory, OutOfTime, WorkerFailed
from tests.fake_worker import service

ROOT = pathlib.Path(__file__).parents[1]

FAULTS = {
    "crash": {"do": "crash"},
    "exception": {"do": "raise"},
    "sleep": {"do": "sleep", "seconds": 1000},
    "stopped": {"do": "stop"},
    "no JSON": {"do": "garbage", "text": "Killed"},
    "no object": {"do": "garbage", "text": "5"},
    "list": {"do": "garbage", "text": "[]"},
    "no number": {"do": "garbage", "text": '{"result": 1}'},
    "no result": {"do": "garbage", "text": '{"item": 1}'},
    "another's": {"do": "garbage", "text": '{"item": 10000, "result": 1}'},
    "too few": {"do": "skip"},
}


def says(count):
    """Returns harmless items; n is answered by n."""
    return [{"say": n} for n in range(count)]


def names(items):
    return [f"caption {n}" for n in range(len(items))]


def ask(pool, items, chunk=8, **options):
    return pool.map(items, names=names(items), chunk=chunk, **options)


def children():
    """Returns the process ids of this process's children, those that ended and were not waited for too."""
    found = set()
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(stat.parent.name))
    return found


def running(pid):
    """Returns whether a process, which may be another's child, still runs."""
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_until(true, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def nothing_left():
    """After every test: no child more than before, dead or alive, and no open file."""
    gc.collect()  # files that earlier tests have dropped, but that are not closed yet
    before, files = children(), open_files()
    yield
    assert children() == before
    assert open_files() == files


def open_files():
    return len(os.listdir("/proc/self/fd"))


class TestAnswers:
    def test_come_in_the_order_of_the_items_whoever_is_first(self):
        items = [{**item, "do": "sleep", "seconds": 0.3 if i in (0, 5) else 0} for i, item in enumerate(says(20))]
        finished = []
        with Pool(service(), 3, 30) as pool:
            assert ask(pool, items, chunk=1, done=finished.append) == list(range(20))
        assert finished == [1] * 20

    def test_nothing_asked_starts_nothing(self):
        with Pool(service(), 2, 30) as pool:
            assert ask(pool, []) == []
            assert pool.processes() == []

    def test_large_requests_and_answers_pass(self):
        items = [{"say": "é" * 2_000_000}, {"say": ["\n"] * 100_000}]
        with Pool(service(), 1, 30) as pool:
            assert ask(pool, items) == [item["say"] for item in items]

    def test_threads_share_a_pool(self):
        answers = {}
        with Pool(service(), 2, 30) as pool:

            def run(thread):
                items = [{"say": [thread, n]} for n in range(300)]
                answers[thread] = [ask(pool, items, chunk=7) == [i["say"] for i in items] for _ in range(5)]

            threads = [threading.Thread(target=run, args=(thread,)) for thread in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(pool.processes()) == 2
        assert answers == {thread: [True] * 5 for thread in range(4)}


class TestFaults:
    def test_killed_in_the_middle_of_a_batch(self):
        items = [{**item, "do": "sleep", "seconds": 0.002} for item in says(300)]
        killed = []

        def kill_once(count):
            if not killed:
                killed.extend(pool.processes())
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)

        with Pool(service(), 2, 30) as pool:
            assert ask(pool, items, chunk=64, done=kill_once) == list(range(300))
            assert len(killed) == 2 and not set(killed) & set(pool.processes())

    def test_killed_while_idle_is_no_failure_of_what_is_asked_next(self, monkeypatch):
        monkeypatch.setattr(pool_module, "ATTEMPTS", 1)
        with Pool(service(), 1, 30) as pool:
            ask(pool, says(2))
            os.kill(pool.processes()[0], signal.SIGKILL)
            wait_until(lambda: not pool.processes())
            assert ask(pool, says(2)) == [0, 1]

    @pytest.mark.parametrize("fault", FAULTS)
    def test_once_leaves_no_trace(self, fault, tmp_path):
        items = says(40)
        items[17] |= {**FAULTS[fault], "once": str(tmp_path / "once")}
        with Pool(service(), 2, 0.5) as pool:
            started = time.monotonic()
            assert ask(pool, items) == list(range(40))
            assert time.monotonic() - started < 10
            assert ask(pool, says(40)) == list(range(40))

    def test_answers_that_come_twice_are_not_taken_for_the_next_items(self, tmp_path):
        with Pool(service(), 1, 5) as pool:
            ask(pool, [{"say": 0, "do": "twice", "once": str(tmp_path / "once")}])
            for n in range(5):
                assert ask(pool, [{"say": n}]) == [n]

    @pytest.mark.parametrize("fault", FAULTS)
    def test_always_is_blamed_on_the_item_alone(self, fault):
        items = says(40)
        items[17] |= FAULTS[fault]
        with Pool(service(), 2, 0.5) as pool:
            with pytest.raises(
                UserError, match=r"^fake: 'caption 17' failed 3 times alone, .*--metric_timeout"
            ) as refused:
                ask(pool, items)
            message = str(refused.value)
            assert "\n" not in message and len(message) < 1500
            reason = {"crash": "something / snapped", "exception": "ValueError: two lines"}
            reason |= dict.fromkeys(["sleep", "stopped", "too few"], "no answer in time")
            assert reason.get(fault, "it answered") in message
            assert ask(pool, says(40)) == list(range(40))  # the pool goes on

    def test_worker_that_does_not_read_what_is_too_much_for_the_pipe(self):
        with Pool(service("deaf"), 1, 0.5) as pool:
            started = time.monotonic()
            with pytest.raises(
                UserError, match="'caption 0' failed 3 times alone, the last time with: no answer in time"
            ):
                ask(pool, [{"say": "x" * 1_000_000}])
            assert time.monotonic() - started < 10

    def test_slow_request_of_quick_items_is_in_time(self):
        items = [{**item, "do": "sleep", "seconds": 0.1} for item in says(16)]
        with Pool(service(), 1, 0.8) as pool:
            finished = []
            assert ask(pool, [*items, *says(48)], chunk=16, done=finished.append) == [*range(16), *range(48)]
            assert finished == [16] * 4  # none was tried again


class TestEachAlone:
    """Items that may fail."""

    def test_those_that_fail_are_returned_as_failures(self):
        items = says(6)
        items[1] |= {"do": "sleep", "seconds": 1000}
        items[3] |= {"do": "exhaust"}
        items[4] |= {"do": "raise"}
        kept, finished = {}, []
        with Pool(service(), 2, 30) as pool:
            options = {"keep": lambda place, answers: kept.update({place: answers[0]}), "done": finished.append}
            answers = pool.try_each(items, timeouts=[30, 0.3, 30, 30, 30, 30], **options)
        assert [answers[n] for n in (0, 2, 5)] == [0, 2, 5] and finished == [1] * 6
        assert [type(answers[n]) for n in (1, 3, 4)] == [OutOfTime, OutOfMemory, WorkerFailed]
        assert kept == dict(enumerate(answers))

    @pytest.mark.parametrize("fault", ["crash", "exception", "no JSON", "exhaust", "sleep"])
    def test_only_limits_are_final(self, fault, tmp_path):
        """A process that was killed says nothing about its item."""
        item = {"say": 7, **FAULTS.get(fault, {"do": fault}), "once": str(tmp_path / "once")}
        with Pool(service(), 1, 30) as pool:
            (answer,) = pool.try_each([item], timeouts=[0.5])
        assert answer == 7 if fault in ("crash", "exception", "no JSON") else isinstance(answer, WorkerFailed)


class TestStarts:
    def test_says_why_it_does_not(self):
        with Pool(service("dumb"), 2, 30) as pool:
            with pytest.raises(
                UserError, match=r"^fake: its process does not start: .*\(no room for Java\)"
            ) as refused:
                ask(pool, says(40))
            assert "caption" not in str(refused.value)

    def test_program_that_is_not_there(self, tmp_path):
        absent = dataclasses.replace(service(), command=(str(tmp_path / "absent"),))
        with Pool(absent, 1, 30) as pool, pytest.raises(UserError, match=r"does not start: .*No such file .*absent"):
            ask(pool, says(4))

    def test_never_ready(self, monkeypatch):
        monkeypatch.setattr(process, "START_TIMEOUT", 0.3)
        with Pool(service("mute"), 1, 30) as pool, pytest.raises(UserError, match="does not start: no answer in time"):
            ask(pool, says(4))


class TestEnds:
    def test_at_once_when_closed_in_the_middle_of_a_batch(self):
        pool = Pool(service(), 2, 1000)
        raised = []

        def run():
            try:
                ask(pool, [{"do": "sleep", "seconds": 1000}] * 40)
            except WorkerFailed as error:
                raised.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        wait_until(lambda: len(pool.processes()) == 2)
        started = time.monotonic()
        pool.close()
        thread.join(60)
        assert time.monotonic() - started < 3 and len(raised) == 1

    def test_while_it_starts(self):
        pool = Pool(service("mute"), 1, 1000)
        raised = []

        def run():
            with pytest.raises(WorkerFailed, match="closed"):
                ask(pool, says(1))
            raised.append(True)

        thread = threading.Thread(target=run)
        thread.start()
        wait_until(pool.processes)
        pool.close()
        thread.join(60)
        assert raised

    def test_after_an_exception(self):
        with pytest.raises(ZeroDivisionError), Pool(service(), 2, 30) as pool:
            ask(pool, says(8))
            pids = pool.processes()
            raise ZeroDivisionError
        assert len(pids) == 2 and not any(map(running, pids))

    def test_with_ctrl_c(self):
        with script("ask({'do': 'sleep', 'seconds': 1000})") as (program, pids):
            os.killpg(program.pid, signal.SIGINT)
            assert "KeyboardInterrupt" in program.communicate(timeout=60)[1]
            wait_until(lambda: not any(map(running, pids)))

    def test_with_a_signal_that_ends_no_wait(self):
        """One that another thread takes, or that comes just before a wait begins, interrupts no lock's wait."""
        by_thread = "lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT)"
        body = f"import threading; threading.Timer(0.2, {by_thread}).start(); ask({{'do': 'sleep', 'seconds': 1000}})"
        with script(body) as (program, pids):
            assert "KeyboardInterrupt" in program.communicate(timeout=60)[1]
            wait_until(lambda: not any(map(running, pids)))

    def test_with_a_parent_that_is_killed(self):
        with script("ask({'do': 'sleep', 'seconds': 1000})") as (program, pids):
            assert len(pids) == 2 and all(map(running, pids))
            program.kill()
            wait_until(lambda: not any(map(running, pids)))

    def test_ctrl_c_that_the_program_minds_itself_hurts_no_worker(self):
        body = "signal.signal(2, lambda *_: None); print(flush=True); ask({'do': 'sleep', 'seconds': 0.5})"
        with script(f"{body}; print(pool.processes())") as (program, pids):
            program.stdout.readline()
            time.sleep(0.1)
            os.killpg(program.pid, signal.SIGINT)
            said, complaint = program.communicate(timeout=60)
            assert (said.strip(), complaint) == (str(pids), "")


@contextlib.contextmanager
def script(body):
    """Yields a program that does as `body` says with a warm pool, in a process group of its own; its workers' ids."""
    lines = [
        "import signal",
        # A shell starts what it runs in the background without Ctrl-C, which all below it inherit.
        "signal.signal(signal.SIGINT, signal.default_int_handler)",
        "from spidercap.pipeline.metrics.java.pool import Pool",
        "from tests.fake_worker import service",
        "def ask(item): pool.map([item] * 8, names=['x'] * 8, chunk=1)",
        "with Pool(service(), 2, 1000) as pool:",
        "    ask({'do': 'sleep', 'seconds': 0.05})",
        "    print(*pool.processes(), flush=True)",
        f"    {body}",
    ]
    program = subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with program:
        try:
            pids = [int(pid) for pid in program.stdout.readline().split()]
            assert len(pids) == 2 and all(map(running, pids))
            time.sleep(0.1)  # until it is at work
            yield program, pids
        finally:
            program.kill()


class TestLongLife:
    def test_restarts_leave_no_open_file(self, tmp_path):
        with Pool(service(), 1, 30) as pool:
            ask(pool, says(1))
            before = open_files()
            for n in range(200):
                assert ask(pool, [{"say": n, "do": "crash", "once": str(tmp_path / f"{n}")}]) == [n]
            assert open_files() == before

    def test_what_workers_complain_of_does_not_pile_up(self, monkeypatch):
        monkeypatch.setattr(pool_module, "ATTEMPTS", 1)  # so that the complaint shown is of the process that made noise
        with Pool(service(), 1, 30) as pool:
            for _ in range(20):
                ask(pool, [{"do": "noise", "bytes": 1 << 20}])
            assert os.stat(f"/proc/{pool.processes()[0]}/fd/2").st_size < 3 << 20
            with pytest.raises(UserError, match=r"ended \(something / snapped\)"):
                ask(pool, [{"do": "crash"}])
