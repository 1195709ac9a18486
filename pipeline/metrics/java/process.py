"""One worker process: started when needed, asked over its standard input, killed after a failure."""

import dataclasses
import fcntl
import json
import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from typing import IO, Any

from spidercap.pipeline.errors import UserError

ATTEMPTS = 3
START_TIMEOUT = 300.0  # seconds; reading METEOR's tables takes 10 to 20 on a busy machine
LAST_WORDS = 300  # characters of a failed worker's standard error that are shown
OUT_OF_MEMORY = 3  # exit status of a JVM with -XX:+ExitOnOutOfMemoryError
ENDING = 10.0  # seconds from the end of a process's output to its exit


@dataclasses.dataclass(frozen=True)
class Service:
    """What a worker runs: `name` of worker.SERVICES, the JVM and its class path, the maximum memory."""

    name: str
    jvm: str  # path of libjvm
    jvm_version: int  # such as 17
    class_path: tuple[str, ...]
    heap: str  # such as '2g'
    command: tuple[str, ...] = (sys.executable, "-m", "spidercap.pipeline.metrics.java.worker")

    @property
    def title(self) -> str:
        """The name for messages."""
        return self.name.replace("_", " ")


class WorkerFailed(Exception):
    """A worker died, answered wrongly or too late, or was stopped because the pool was closed."""


class OutOfTime(WorkerFailed):
    """A worker did not answer in time."""


class OutOfMemory(WorkerFailed):
    """A worker reached the maximum memory of its JVM."""


class DoesNotStart(UserError):
    """No process of a service starts."""


class WorkerProcess:
    """One process at a time, restarted when it has ended."""

    def __init__(self, service: Service):
        self._service = service
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None
        self._unread = b""  # bytes received after the last line that was read
        self._asked = 0  # number of items, which are numbered to match answers; 0 is the settings
        self._lock = threading.Lock()  # guards the process against `stop` from another thread
        self._stopped = False

    @property
    def pid(self) -> int | None:
        """The process id, None if it is not running."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def ask(self, items: list[Any], timeout: float) -> list[Any]:
        """Returns the answers; each may take `timeout` seconds.

        Raises:
          WorkerFailed: it did not answer; the process has been killed. OutOfTime and OutOfMemory say why.
          DoesNotStart: the process does not start.
        """
        if self.pid is None:
            self._start()
        numbers = range(self._asked + 1, self._asked + 1 + len(items))
        self._asked += len(items)
        try:
            self._write({"first": numbers.start, "items": items}, timeout)
            answers = [self._read(number, timeout) for number in numbers]
            # Warnings of Java up to here are not needed, because all answers arrived.
            self._stderr.truncate(0)
        except (OSError, WorkerFailed) as error:
            self.end()
            kind = type(error) if isinstance(error, WorkerFailed) else WorkerFailed
            raise kind(_one_line(error)) from error
        return answers

    def stop(self) -> None:
        """Kills the process for good; a thread that waits for its answer gets WorkerFailed."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def end(self) -> None:
        """Kills the process and frees its resources; the next request starts another."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()
        if self._stderr is not None:
            self._stderr.close()

    def _start(self) -> None:
        settings = dataclasses.asdict(self._service)
        settings = {"service": settings.pop("name"), **settings}
        for _ in range(ATTEMPTS):
            self.end()  # a process that has died
            try:
                self._open()
                self._write(settings, START_TIMEOUT)
                self._read(0, START_TIMEOUT)
                return
            except (OSError, WorkerFailed) as error:
                fault = _one_line(error)
            if self._stopped:
                raise WorkerFailed("the pool is closed")
        self.end()
        raise DoesNotStart(
            f"{self._service.title}: its process does not start: {fault}; if memory is short, use fewer "
            "--metric_workers; if Java fails, set JAVA_HOME to another one"
        )

    def _open(self) -> None:
        self._unread, self._asked = b"", 0
        self._stderr = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115, open as long as the process is
        # The process appends, so that it continues at the end of the file after it was truncated.
        fcntl.fcntl(self._stderr, fcntl.F_SETFL, fcntl.fcntl(self._stderr, fcntl.F_GETFL) | os.O_APPEND)
        with self._lock:
            if self._stopped:
                raise WorkerFailed("the pool is closed")
            self._process = subprocess.Popen(
                self._service.command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                # Ctrl-C must reach only this process, which then stops the workers.
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        os.set_blocking(self._process.stdin.fileno(), False)

    def _write(self, request: dict[str, Any], timeout: float) -> None:
        """Writes without blocking, so that a worker that hangs does not block this process."""
        left = memoryview(json.dumps(request).encode() + b"\n")
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdin, selectors.EVENT_WRITE)
            while left:
                _wait(selector, deadline)
                try:
                    left = left[os.write(self._process.stdin.fileno(), left[: 1 << 16]) :]
                except BrokenPipeError:
                    raise self._ended() from None

    def _read(self, number: int, timeout: float) -> Any:
        """Returns the next answer, which must be to the item with this number."""
        line = self._read_line(time.monotonic() + timeout)
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        match answer:
            case {"item": int(of), "result": result} if of == number:
                return result
            case {"item": int(of), "error": error} if of == number:
                raise WorkerFailed(error)
        raise WorkerFailed(f"it answered {line[:LAST_WORDS].decode(errors='replace')!r}")

    def _read_line(self, deadline: float) -> bytes:
        parts = [self._unread]
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in parts[-1]:
                _wait(selector, deadline)
                part = os.read(self._process.stdout.fileno(), 1 << 16)
                if not part:
                    raise self._ended()
                parts.append(part)
        line, _, self._unread = b"".join(parts).partition(b"\n")
        return line

    def _ended(self) -> WorkerFailed:
        """The failure of a process that has closed its streams."""
        try:
            status = self._process.wait(ENDING)
        except subprocess.TimeoutExpired:
            status = None
        return (OutOfMemory if status == OUT_OF_MEMORY else WorkerFailed)(self._last_words())

    def _last_words(self) -> str:
        size = os.fstat(self._stderr.fileno()).st_size
        read = os.pread(self._stderr.fileno(), 4 * LAST_WORDS, max(0, size - 4 * LAST_WORDS))
        lines = (line.strip() for line in read.decode(errors="replace").split("\n"))
        words = " / ".join(filter(None, lines))[-LAST_WORDS:]
        return "the process ended" + (f" ({words})" if words else "")


def _wait(selector: selectors.BaseSelector, deadline: float) -> None:
    if not selector.select(max(0.0, deadline - time.monotonic())):
        raise OutOfTime("no answer in time")


def _one_line(error: Exception) -> str:
    words = " ".join(str(error).split())
    return words if len(words) <= 2 * LAST_WORDS else f"{words[: 2 * LAST_WORDS]}..."
