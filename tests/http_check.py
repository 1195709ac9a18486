"""An exported model behind servers of HTTP that gather requests in batches, under a load of callers."""

import base64
import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import signal
import site
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

HERE = pathlib.Path(__file__).parent
START = 180  # seconds in which a server must answer


@dataclasses.dataclass(frozen=True)
class Server:
    """A server of models."""

    script: str  # started in an environment of its own with the model and a port
    packages: Sequence[str]  # that pip installs there
    ready: str  # path that answers 200 when requests are taken
    path: str  # path of requests
    request: Callable[[str], dict]  # of an image in base64
    answer: Callable[[dict], dict]  # the outputs of one image: caption, error, batch, bad
    python: str = sys.executable


def _tensor(b64: str) -> dict:
    return {"inputs": [{"name": "b64", "shape": [1, 1], "datatype": "BYTES", "data": [b64]}]}


def _outputs(answer: dict) -> dict:
    return {one["name"]: one["data"][0] for one in answer["outputs"]}


SERVERS = {
    "LitServe": Server(
        script="lit_server.py",
        packages=["litserve>=0.2.19,<0.3"],
        ready="/health",
        path="/predict",
        request=lambda b64: {"b64": b64},
        answer=lambda answer: answer,
    ),
    "Triton": Server(
        script="triton_server.py",
        packages=["nvidia-pytriton>=0.7,<0.8", "numpy<2"],
        ready="/v2/models/captions/ready",
        path="/v2/models/captions/infer",
        request=_tensor,
        answer=_outputs,
        # It needs Python's shared library, which the system's Python has.
        python=f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}",
    ),
}


class NotInstalled(Exception):
    """The server cannot be installed here, and why."""


def environment(server: Server, folder: pathlib.Path) -> pathlib.Path:
    """Returns the Python of a new environment that has the server and, after it, the packages of this one.

    Raises:
      NotInstalled: Python or pip cannot make it.
    """
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *server.packages]
    for command in ([server.python, "-m", "venv", folder], install):
        try:
            subprocess.run(command, capture_output=True, text=True, check=True)
        except FileNotFoundError as error:
            raise NotInstalled(f"there is no {server.python}") from error
        except subprocess.CalledProcessError as error:
            raise NotInstalled(f"{error.cmd[2]}: {(error.stderr or error.stdout).strip()[-300:]}") from error
    (places,) = (folder / "lib").glob("python*/site-packages")
    (places / "here.pth").write_text("\n".join(site.getsitepackages()) + "\n", encoding="utf-8")
    return python


@contextlib.contextmanager
def serving(server: Server, python: pathlib.Path, model: pathlib.Path, scratch: pathlib.Path) -> Iterator["Client"]:
    """Serves the model on a free port of this machine, and ends the server in the end.

    Raises:
      RuntimeError: the server ends before it answers, or does not answer in time.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = scratch / "server.log"
    with log.open("wb") as file:
        # A session of its own, as the server starts further processes, which would outlive it.
        command = [python, HERE / server.script, model, str(port)]
        process = subprocess.Popen(command, stdout=file, stderr=file, cwd=scratch, start_new_session=True)
    try:
        with ThreadPoolExecutor(64) as pool:
            client = Client(server, port, pool)
            deadline = time.monotonic() + START
            while not client.ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the server does not answer:\n{log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.5)
            yield client
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Client:
    """Asks a server; counts the good images that shared their batch with a bad one."""

    def __init__(self, server: Server, port: int, pool: ThreadPoolExecutor):
        """`pool` has the threads that send the images of a request."""
        self._server, self._port, self._pool = server, port, pool
        self.largest_batch = self.beside_bad = 0

    def ready(self) -> bool:
        """Whether the server takes requests."""
        try:
            return self._ask("GET", self._server.ready, None)[0] == 200
        except OSError:
            return False

    def ask(self, images: Sequence[bytes]) -> tuple[list[str], list[str]]:
        """Returns (captions, errors) of images that are sent at once, one per request."""
        found = list(self._pool.map(self._caption, images))
        self.largest_batch = max(self.largest_batch, *(one["batch"] for one in found))
        self.beside_bad += sum(one["bad"] > 0 and not one["error"] for one in found)
        return [one["caption"] for one in found], [one["error"] for one in found]

    def _caption(self, image: bytes) -> dict:
        request = self._server.request(base64.b64encode(image).decode())
        status, answer = self._ask("POST", self._server.path, json.dumps(request))
        if status != 200:
            raise RuntimeError(f"HTTP {status}: {answer[:200]!r}")
        return self._server.answer(json.loads(answer))

    def _ask(self, method: str, path: str, body: str | None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()
