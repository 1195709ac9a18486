"""Tells who is waited for while TensorFlow waits for other workers, as it lets no Python run until they have come.

    python waiting.py ADDRESSES SECONDS

It is a process of its own, which ends with its stdin. If DONE came before, the wait is over; else it was stopped.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator

DONE = b"."
PATIENCE = 60.0  # seconds between two lines


@contextlib.contextmanager
def told(addresses: str) -> Iterator[None]:
    """Tells of the wait for these workers within the block: a line every PATIENCE seconds, and one if it is killed."""
    if not sys.executable:
        yield
        return
    command = [sys.executable, "-I", "-S", __file__, addresses, str(PATIENCE)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            yield
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(DONE)
                process.stdin.flush()


def tell(addresses: str, patience: float) -> None:
    """Prints what is told, until stdin has something or ends."""
    while not select.select([0], [], [], patience)[0]:
        print(f"waiting until all workers have come: {addresses}", file=sys.stderr, flush=True)
    if os.read(0, 1) != DONE:
        print(f"stopped while it waited until all workers have come: {addresses}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C comes to both
    tell(sys.argv[1], float(sys.argv[2]))
