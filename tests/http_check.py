"""An exported model behind a server of HTTP that gathers requests in batches, under a load of callers."""

import base64
import contextlib
import http.client
import json
import os
import pathlib
import signal
import site
import socket
import subprocess
import time
import venv
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

SERVER = pathlib.Path(__file__).with_name("lit_server.py")
PACKAGE = "litserve>=0.2.19,<0.3"
START = 180  # seconds in which the server must answer


class NotInstalled(Exception):
    """The server cannot be installed here, and why."""


def environment(folder: pathlib.Path) -> pathlib.Path:
    """Returns the Python of a new environment that has LitServe and, after it, the packages of this one.

    Raises:
      NotInstalled: pip cannot install LitServe.
    """
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotInstalled(f"pip: {done.stderr.strip()[-300:]}")
    (places,) = (folder / "lib").glob("python*/site-packages")
    (places / "here.pth").write_text("\n".join(site.getsitepackages()) + "\n", encoding="utf-8")
    return python


@contextlib.contextmanager
def serving(python: pathlib.Path, model: pathlib.Path, scratch: pathlib.Path) -> Iterator["Client"]:
    """Serves the model on a free port of this machine, and ends the server in the end.

    Raises:
      RuntimeError: the server ends before it answers, or does not answer in time.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = scratch / "server.log"
    with log.open("wb") as file:
        # A session of its own, as the server starts further processes, which would outlive it.
        server = subprocess.Popen(
            [python, SERVER, model, str(port)], stdout=file, stderr=file, cwd=scratch, start_new_session=True
        )
    try:
        with ThreadPoolExecutor(64) as pool:
            client = Client(port, pool)
            deadline = time.monotonic() + START
            while not client.ready():
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the server does not answer:\n{log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.5)
            yield client
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


class Client:
    """Asks the server; counts the good images that shared their batch with a bad one."""

    def __init__(self, port: int, pool: ThreadPoolExecutor):
        """`pool` has the threads that send the images of a request."""
        self._port, self._pool = port, pool
        self.largest_batch = self.beside_bad = 0

    def ready(self) -> bool:
        """Whether the server takes requests."""
        try:
            return self._ask("GET", "/health", None)[0] == 200
        except OSError:
            return False

    def ask(self, images: Sequence[bytes]) -> tuple[list[str], list[str]]:
        """Returns (captions, errors) of images that are sent at once, one per request."""
        found = list(self._pool.map(self._caption, images))
        self.largest_batch = max(self.largest_batch, *(one["batch"] for one in found))
        self.beside_bad += sum(one["bad"] > 0 and not one["error"] for one in found)
        return [one["caption"] for one in found], [one["error"] for one in found]

    def _caption(self, image: bytes) -> dict:
        status, answer = self._ask("POST", "/predict", json.dumps({"b64": base64.b64encode(image).decode()}))
        if status != 200:
            raise RuntimeError(f"HTTP {status}: {answer[:200]!r}")
        return json.loads(answer)

    def _ask(self, method: str, path: str, body: str | None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()
