"""Several workers on this machine: processes that train together."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Sequence


def start(folder: str | pathlib.Path, count: int, *arguments: object) -> list[subprocess.Popen]:
    """Starts `python -m <arguments>` in `count` processes, with TF_CONFIG; returns them, the chief first.

    `{worker}` in an argument becomes its number. What each of them prints is in `<folder>/worker_<number>.log`.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    cluster = {"worker": [f"localhost:{port}" for port in free_ports(count)]}
    started = []
    for number in range(count):
        config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": number}})
        # One thread each, as they share the cores.
        threads = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
        variables = os.environ | threads | {"TF_CONFIG": config, "TF_CPP_MIN_LOG_LEVEL": "3"}
        with open(folder / f"worker_{number}.log", "wb") as log:
            command = [sys.executable, "-m", *(str(one).replace("{worker}", str(number)) for one in arguments)]
            started.append(subprocess.Popen(command, env=variables, stdout=log, stderr=log))
    return started


def ended(processes: Sequence[subprocess.Popen], seconds: float = 300) -> tuple[list[int], float]:
    """Waits for processes, kills those that are late; returns exit codes, and the seconds until the last one ended."""
    begun = time.monotonic()
    try:
        codes = [process.wait(max(0.1, seconds - (time.monotonic() - begun))) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return codes, time.monotonic() - begun


def said(folder: str | pathlib.Path, number: int) -> str:
    """Returns what a worker has printed."""
    return (pathlib.Path(folder) / f"worker_{number}.log").read_text(errors="replace")


def free_ports(count: int) -> list[int]:
    """Returns ports that nobody listens at."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
