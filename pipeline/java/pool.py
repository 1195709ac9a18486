"""Resident worker processes that share a batch, and that may be killed, hang or fail without harm to it.

A worker that dies, answers with an error or does not answer in time is replaced. What it was working on is tried
again, item by item, so that an item that fails ATTEMPTS times alone is known by name and refused.
"""

import concurrent.futures
import dataclasses
import json
import os
import queue
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.errors import UserError

ATTEMPTS = 3
START_TIMEOUT = 300.0  # seconds; METEOR's tables take 10 to 20 on a busy machine
LAST_WORDS = 300  # characters of a worker's standard error that are shown when it fails


@dataclasses.dataclass(frozen=True)
class Service:
    """What a worker is: `name` of worker.SERVICES, the JVM to load and its classes, the memory that it may take."""

    name: str
    jvm: str  # path of libjvm
    jvm_version: int  # such as 17
    class_path: tuple[str, ...]
    heap: str  # such as '2g'
    command: tuple[str, ...] = (sys.executable, "-m", "pipeline.java.worker")


class WorkerFailed(Exception):
    """A worker died, answered with an error or did not answer in time."""


class Pool:
    """`workers` processes of one service; they start when they are needed first, and end with `close`."""

    def __init__(self, service: Service, workers: int, timeout: float):
        """`timeout`: seconds that a worker may take for one item before it is replaced."""
        self._service = service
        self._timeout = timeout
        self._workers = [_Worker(service) for _ in range(workers)]
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix=service.name)
        self._closed = threading.Event()

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def map(
        self,
        items: Sequence[Any],
        *,
        names: Sequence[str],
        chunk: int,
        done: Callable[[int], object] = lambda count: None,
    ) -> list[Any]:
        """Returns the service's answer to each item, in their order.

        Args:
          names: how a person knows each item, for the message when it is refused.
          chunk: most items in one request.
          done: called with the number of items of every request that has been answered.

        Raises:
          UserError: an item has failed three times alone.
        """
        # Enough requests that the workers end together, so few that each is worth its way.
        size = max(1, min(chunk, len(items) // (4 * len(self._workers))))
        parts = [range(i, min(i + size, len(items))) for i in range(0, len(items), size)]
        futures = [
            self._threads.submit(self._answer, [items[i] for i in part], [names[i] for i in part]) for part in parts
        ]
        waiting = {future: len(part) for future, part in zip(futures, parts, strict=True)}
        try:
            for future in concurrent.futures.as_completed(waiting):
                future.result()
                done(waiting[future])
        finally:
            for future in futures:
                future.cancel()
        return [answer for future in futures for answer in future.result()]

    def processes(self) -> list[int]:
        """Returns the process ids of the workers that are running."""
        return [worker.pid for worker in self._workers if worker.pid]

    def close(self) -> None:
        """Ends the workers; what they are working on is lost."""
        self._closed.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.stop()
        self._threads.shutdown(wait=True)
        for worker in self._workers:
            worker.end()

    def _answer(self, items: list[Any], names: list[str]) -> list[Any]:
        failed = 0
        while True:
            try:
                return self._ask(items)
            except WorkerFailed as error:
                if self._closed.is_set():
                    raise
                if len(items) > 1:
                    pairs = zip(items, names, strict=True)
                    return [answer for item, name in pairs for answer in self._answer([item], [name])]
                failed += 1
                if failed == ATTEMPTS:
                    raise UserError(
                        f"{self._service.name.replace('_', ' ')}: {names[0][:200]!r} failed {ATTEMPTS} times alone, "
                        f"the last time as {error}; take it out, or give more time (--metric_timeout) or memory "
                        "(fewer --metric_workers)"
                    ) from error

    def _ask(self, items: list[Any]) -> list[Any]:
        worker = self._idle.get()
        try:
            if self._closed.is_set():
                raise WorkerFailed("the pool is closed")
            return worker.ask(items, self._timeout * len(items))
        finally:
            self._idle.put(worker)


class _Worker:
    """One process at a time, started anew when it has gone."""

    def __init__(self, service: Service):
        self._service = service
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115, open as long as the worker is
        self._lock = threading.Lock()  # of the process against a stop from another thread
        self._stopped = False

    @property
    def pid(self) -> int | None:
        """The process id, None if it is not running."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def ask(self, items: list[Any], timeout: float) -> list[Any]:
        """Returns the answers, or raises WorkerFailed and leaves no process behind."""
        try:
            if self._process is None:
                self._start()
            answer = self._exchange({"items": items}, timeout)
            if "error" in answer:
                raise WorkerFailed(answer["error"])
        except (WorkerFailed, OSError, ValueError) as error:
            self.end()
            raise error if isinstance(error, WorkerFailed) else WorkerFailed(str(error)) from error
        return answer["results"]

    def stop(self) -> None:
        """Kills the process for good; a thread that waits for its answer learns of it."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def end(self) -> None:
        """Kills the process and leaves nothing of it; the next request starts another."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()

    def _start(self) -> None:
        settings = dataclasses.asdict(self._service)
        with self._lock:
            if self._stopped:
                raise WorkerFailed("the pool is closed")
            self._stderr.truncate(0)
            self._process = subprocess.Popen(
                settings.pop("command"),
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                # Ctrl-C is for this process, which then ends the workers in good order.
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        self._exchange({**settings, "service": settings.pop("name")}, START_TIMEOUT)

    def _exchange(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        process = self._process
        if process is None:
            raise WorkerFailed("the process was stopped")
        deadline = time.monotonic() + timeout
        self._write(process, json.dumps(request).encode() + b"\n", deadline)
        return json.loads(self._read_line(process, deadline))

    def _write(self, process: "subprocess.Popen[bytes]", line: bytes, deadline: float) -> None:
        """Writes as the worker reads: one that hangs must not block this process too."""
        os.set_blocking(process.stdin.fileno(), False)
        left = memoryview(line)
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdin, selectors.EVENT_WRITE)
            while left:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise WorkerFailed("no answer in time")
                left = left[os.write(process.stdin.fileno(), left[: 1 << 16]) :]

    def _read_line(self, process: "subprocess.Popen[bytes]", deadline: float) -> bytes:
        parts: list[bytes] = []
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not (parts and parts[-1].endswith(b"\n")):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise WorkerFailed("no answer in time")
                part = os.read(process.stdout.fileno(), 1 << 16)
                if not part:
                    raise WorkerFailed(f"the process ended{self._last_words()}")
                parts.append(part)
        return b"".join(parts)

    def _last_words(self) -> str:
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").split("\n")
        words = " / ".join(line.strip() for line in lines if line.strip())[-LAST_WORDS:]
        return f" ({words})" if words else ""
