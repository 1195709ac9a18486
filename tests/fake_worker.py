"""A worker without Java: it serves as metrics/java/worker.py does, and misbehaves as an item, or its argument, says.

Items: {"say": x} is answered by x; {"do": ...} as below; with "once": a path, only as long as there is no such file.
Arguments: "dumb" does not start and says why, "mute" starts but never answers, "deaf" reads nothing after the settings.
"""

import os
import pathlib
import signal
import sys
import time

from spidercap.pipeline.metrics.java import worker

write_answer = worker._answer


def service(*arguments):
    """Returns what makes a pool start this worker, with an argument if need be."""
    from spidercap.pipeline.metrics.java.process import Service

    # Without site packages, which take longer than the rest.
    command = (sys.executable, "-S", "-m", "tests.fake_worker", *arguments)
    return Service("fake", jvm="", jvm_version=17, class_path=(), heap="1g", command=command)


class Service:
    """Does what it is told."""

    def answer(self, item):
        once = item.get("once")
        if once is None or not pathlib.Path(once).exists():
            if once is not None:
                pathlib.Path(once).touch()
            self.misbehave(item.get("do"), item)
        return item.get("say")

    def misbehave(self, what, item):
        if what == "crash":
            sys.stderr.write("something\nsnapped\n")
            sys.stderr.flush()
            os._exit(1)
        elif what == "exhaust":
            os._exit(3)  # as a JVM does without memory
        elif what == "raise":
            raise ValueError("two\nlines")
        elif what == "sleep":
            time.sleep(item["seconds"])
        elif what == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif what == "noise":
            sys.stderr.write("x" * item["bytes"])
            sys.stderr.flush()
        elif what == "garbage":
            worker._answer = lambda stream, answer: print(item["text"], file=stream, flush=True)
        elif what == "twice":
            worker._answer = lambda stream, answer: [write_answer(stream, answer) for _ in range(2)]
        elif what == "skip":
            worker._answer = answer_all_but(item)


def answer_all_but(item):
    """Returns a stand-in for worker._answer that leaves one result out."""

    def answer(stream, answer):
        if answer.get("result") != item["say"]:
            write_answer(stream, answer)

    return answer


def main() -> None:
    """Serves, unless the argument forbids."""
    fault = sys.argv[1] if len(sys.argv) > 1 else ""
    if fault == "dumb":
        sys.exit("no room for Java")
    worker.start_jvm = lambda *settings: time.sleep(1000 if fault == "mute" else 0)
    worker.SERVICES["fake"] = __spec__.name
    if fault == "deaf":
        worker._read = lambda requests: requests.put(sys.stdin.readline())
    worker.main()


if __name__ == "__main__":
    main()
