"""How a signal stops training after a step, on all workers after the same one."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator

from spidercap.pipeline.errors import STOPPING
from spidercap.pipeline.workers import Workers

AGREED = 2.0  # seconds between two times that several workers ask each other


@contextlib.contextmanager
def stop_asked(workers: Workers) -> Iterator[Callable[..., bool]]:
    """Yields whether to stop, for after each step. A signal of STOPPING asks for it; a second one stops at once.

    Several workers must call it equally often: it is true for all after the same step, if a signal came to any of them.
    With `now` they tell each other at once: between stages, as the steps of the next one may be much longer.
    """
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        if asked:
            earlier = before[number]
            if callable(earlier):  # the command line's remembers that a signal came, whatever becomes of the exception
                earlier(number, frame)
            raise KeyboardInterrupt
        asked.append(number)
        print("\nstopping after this step; press Ctrl-C again to stop at once", flush=True)

    in_main = threading.current_thread() is threading.main_thread()  # the only one that may set them
    before = {number: signal.signal(number, ask) for number in STOPPING if in_main}
    try:
        yield (lambda now=False: bool(asked)) if workers.count == 1 else _agreed(workers, asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _agreed(workers: Workers, asked: list[int]) -> Callable[..., bool]:
    """Whether any worker was asked, as of the last time they told each other: every AGREED seconds of the chief.

    Telling at each step would cost as much as a small step's sums.
    """
    calls, told, clock = 0, 0, time.monotonic()
    wait = 1  # calls until they tell each other again

    def stopping(now: bool = False) -> bool:
        nonlocal calls, told, clock, wait
        calls += 1
        if calls - told < wait and not now:
            return False
        pace = (time.monotonic() - clock) / (calls - told)
        own = max(1, int(AGREED / max(pace, 1e-6))) if workers.is_chief else 0
        count, wait = (int(number) for number in workers.total([bool(asked), own]))
        told, clock, wait = calls, time.monotonic(), 1 if now else wait
        return count > 0

    return stopping
