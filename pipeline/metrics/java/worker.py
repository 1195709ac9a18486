"""A worker process: a JVM that answers requests, one JSON line each, until its parent is gone.

    python -m pipeline.metrics.java.worker

The first line holds the fields of process.Service. It is item 0, answered when all is loaded. Every other line is
{"first": number, "items": [...]}. Each item is answered by one line with its number, counted from `first`:
{"item": number, "result": ...} or {"item": number, "error": "..."}.

The Java scorers are under the GPL, AGPL and LGPL, so they run in a separate process.
"""

import importlib
import json
import os
import queue
import sys
import threading
from collections.abc import Sequence
from typing import IO, Any

# Service -> the module with its class `Service`.
SERVICES = {
    "tokenizer": "spidercap.pipeline.metrics.java.tokenizer_service",
    "meteor": "spidercap.pipeline.metrics.java.meteor_service",
    "spice_parser": "spidercap.pipeline.metrics.java.spice_parser_service",
    "spice_matcher": "spidercap.pipeline.metrics.java.spice_matcher_service",
}
# Service -> options of its JVM. The tokenizer runs for seconds, in which the second compiler takes more than it gives.
OPTIONS = {"tokenizer": ("-XX:TieredStopAtLevel=1",)}


def main() -> None:
    """Serves standard input until it ends."""
    answers = _take_stdout()
    requests: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    settings = json.loads(requests.get())
    options = OPTIONS.get(settings["service"], ())
    start_jvm(settings["jvm"], settings["jvm_version"], settings["class_path"], settings["heap"], options)
    service = importlib.import_module(SERVICES[settings["service"]]).Service()
    _answer(answers, {"item": 0, "result": "ready"})
    while True:
        request = json.loads(requests.get())
        for number, item in enumerate(request["items"], request["first"]):
            try:
                answer = {"result": service.answer(item)}
            except Exception as error:  # reported to the parent; includes everything that Java throws
                answer = {"error": f"{type(error).__name__}: {error}"}
            _answer(answers, {"item": number, **answer})


def start_jvm(path: str, version: int, class_path: Sequence[str], heap: str, more: Sequence[str] = ()) -> None:
    """Starts the JVM at `path`; `heap`, such as '2g', is its maximum memory, beyond which the process exits.

    `more` are further options.
    """
    # JPype imports NumPy where it can, for arrays, which no service sends; that is a quarter of the start.
    sys.modules.setdefault("numpy", None)
    import jpype

    options = [f"-Xmx{heap}", "-XX:+ExitOnOutOfMemoryError", "-XX:+UseSerialGC", "-Dfile.encoding=UTF-8"]
    # Otherwise METEOR formats numbers in the language of the machine.
    options += ["-Duser.language=en", "-Duser.country=US"]
    if version >= 17:  # without this option, these versions warn, or later ones fail
        options.append("--enable-native-access=ALL-UNNAMED")
    jpype.startJVM(path, *options, *more, classpath=list(class_path), convertStrings=True)


def _take_stdout() -> IO[str]:
    """Returns a stream to the parent to which nobody else can write; output of Java goes to standard error."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return stream


def _read(requests: queue.Queue[str]) -> None:
    """Queues input lines. At their end the parent is gone, so this process exits at once."""
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)


def _answer(stream: IO[str], answer: dict[str, Any]) -> None:
    print(json.dumps(answer), file=stream, flush=True)


if __name__ == "__main__":
    main()
