"""Resident worker processes that share a batch, which survives workers that are killed, hang or fail.

A worker that dies, answers wrongly or does not answer in time is replaced. Its items are tried again one by one, so
that an item that fails ATTEMPTS times alone can be named in the error. Items that may fail are asked with `try_each`.
"""

import concurrent.futures
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.metrics.java.process import (
    ATTEMPTS,
    OutOfMemory,
    OutOfTime,
    Service,
    WorkerFailed,
    WorkerProcess,
)
from spidercap.pipeline.metrics.java.runtime import Jvm

POLL = 1.0  # seconds
# Heap of a JVM, measured on the longest captions that are sent, 200 words to the parser; METEOR's tables fill its heap.
HEAPS = {"tokenizer": "1g", "meteor": "1500m", "spice_parser": "2500m", "spice_matcher": "1500m"}


class Pool:
    """`workers` processes of one service; they start when first needed, and end with `close`."""

    def __init__(self, service: Service, workers: int, timeout: float):
        """`timeout`: seconds that a worker may take for one item before it is replaced."""
        self._service = service
        self._timeout = timeout
        self._workers = [WorkerProcess(service) for _ in range(workers)]
        self._idle: queue.SimpleQueue[WorkerProcess] = queue.SimpleQueue()
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
        keep: Callable[[int, list[Any]], object] = lambda place, answers: None,
    ) -> list[Any]:
        """Returns the service's answer to each item, in order.

        Args:
          names: a name of each item for error messages.
          chunk: maximum number of items per request.
          done: called with the number of items of each answered request.
          keep: called with the index of the first item of each answered request, and its answers.

        Raises:
          UserError: an item failed three times alone, or no worker starts (DoesNotStart).
          WorkerFailed: another thread closed the pool.
        """
        # Enough requests that all workers finish at about the same time, but not so many that their overhead counts.
        size = max(1, min(chunk, len(items) // (4 * len(self._workers))))
        parts = [range(i, min(i + size, len(items))) for i in range(0, len(items), size)]
        return self._gather(
            parts, lambda part: self._answer([items[i] for i in part], [names[i] for i in part]), done, keep
        )

    def try_each(
        self,
        items: Sequence[Any],
        *,
        timeouts: Sequence[float],
        done: Callable[[int], object] = lambda count: None,
        keep: Callable[[int, list[Any]], object] = lambda place, answers: None,
    ) -> list[Any]:
        """Returns the service's answer to each item, which is sent alone; for an item that failed, its WorkerFailed.

        An item that runs out of time or memory is not tried again.

        Args:
          timeouts: seconds for each item.
          done, keep: as for `map`; `keep` also gets failures.

        Raises:
          DoesNotStart: no worker starts.
          WorkerFailed: another thread closed the pool.
        """
        parts = [range(i, i + 1) for i in range(len(items))]
        return self._gather(parts, lambda part: [self._try(items[part.start], timeouts[part.start])], done, keep)

    def processes(self) -> list[int]:
        """Returns the process ids of the running workers."""
        return [worker.pid for worker in self._workers if worker.pid]

    def close(self) -> None:
        """Stops the workers; unfinished items are lost."""
        self._closed.set()
        for worker in self._workers:
            worker.stop()
        # Pending requests fail one by one. If they were cancelled, `map` in another thread would wait for ever.
        self._threads.shutdown(wait=True)
        for worker in self._workers:
            worker.end()

    def _gather(
        self,
        parts: Sequence[range],
        answer: Callable[[range], list[Any]],
        done: Callable[[int], object],
        keep: Callable[[int, list[Any]], object],
    ) -> list[Any]:
        """The answers to all parts, each in a thread, in order."""
        futures = [self._threads.submit(answer, part) for part in parts]
        waiting = dict(zip(futures, parts, strict=True))
        try:
            while waiting:
                # With a timeout, because Ctrl-C cannot interrupt a wait for a lock.
                ready = concurrent.futures.wait(waiting, POLL, concurrent.futures.FIRST_COMPLETED).done
                for future in ready:
                    part = waiting.pop(future)
                    keep(part.start, future.result())
                    done(len(part))
        finally:
            for future in futures:
                future.cancel()
        return [answer for future in futures for answer in future.result()]

    def _answer(self, items: list[Any], names: list[str]) -> list[Any]:
        failed = 0
        while True:
            try:
                return self._ask(items, self._timeout)
            except WorkerFailed as error:
                if self._closed.is_set():
                    raise
                if len(items) > 1:
                    pairs = zip(items, names, strict=True)
                    return [answer for item, name in pairs for answer in self._answer([item], [name])]
                failed += 1
                if failed == ATTEMPTS:
                    raise UserError(
                        f"{self._service.title}: {names[0][:200]!r} failed {ATTEMPTS} times alone, "
                        f"the last time with: {error}; remove it, or give more time (--metric_timeout) or memory "
                        "(fewer --metric_workers)"
                    ) from error

    def _try(self, item: Any, timeout: float) -> Any:
        """The answer to an item, or its failure."""
        for _ in range(ATTEMPTS):
            try:
                return self._ask([item], timeout)[0]
            except WorkerFailed as error:
                if self._closed.is_set():
                    raise
                failure = error
                if isinstance(error, OutOfTime | OutOfMemory):
                    break
        return failure

    def _ask(self, items: list[Any], timeout: float) -> list[Any]:
        worker = self._idle.get()
        try:
            if self._closed.is_set():
                raise WorkerFailed("the pool is closed")
            return worker.ask(items, timeout)
        finally:
            self._idle.put(worker)


def pool_of(
    service: str, jvm: Jvm, jars: Iterable[object], workers: int, timeout: float, heap: str | None = None
) -> Pool:
    """Returns `workers` processes of a service of worker.SERVICES, with these jars on their class path.

    `heap` is the maximum memory of each JVM, by default that of HEAPS.
    """
    settings = Service(service, jvm.library, jvm.version, tuple(map(str, jars)), heap or HEAPS[service])
    return Pool(settings, workers, timeout)
