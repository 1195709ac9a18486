"""Keeps the lines that TensorFlow always prints while it starts off the terminal, and lets all others through.

They come from C++, before TF_CPP_MIN_LOG_LEVEL is read, or as errors that are none on a machine without a GPU. So file
descriptor 2 leads through a process of its own, this file, which drops exactly these lines; it lives through a crash of
the process that writes. Python's sys.stderr still leads to the terminal itself.
"""

import contextlib
import importlib.abc
import os
import pathlib
import re
import select
import subprocess
import sys

LEVEL = "TF_CPP_MIN_LOG_LEVEL"
WHERE = rb"[IWE]\d{4} \d\d:\d\d:[\d.]+ +\d+ "
NOISE = (
    rb"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR",
    WHERE + rb"port\.cc:\d+\] oneDNN custom operations are on\. .*TF_ENABLE_ONEDNN_OPTS=0.*",
    WHERE + rb"cudart_stub\.cc:\d+\] Could not find cuda drivers on your machine, GPU will not be used\.",
    WHERE + rb"util\.cc:\d+\] oneDNN supports DT_\w+ only on platforms with AVX.* Falling back to the default .*",
)
# An error where there is a GPU.
WITHOUT_GPU = (WHERE + rb"cuda_platform\.cc:\d+\] failed call to cuInit: .*UNKNOWN ERROR \(303\)",)
DEVICES = ("nvidia*", "dxg")  # in /dev
PATIENCE = 0.2  # seconds after which a line without an end is let through


class _Finder(importlib.abc.MetaPathFinder):
    """Finds no module; it calls `_begin` when TensorFlow is first imported."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == "tensorflow":
            sys.meta_path.remove(self)
            _begin()


def before_tensorflow() -> None:
    """Filters what this process and its children write to file descriptor 2, from the import of TensorFlow on.

    Nothing is filtered if TensorFlow has been imported, or if the user has chosen how much it tells, by
    TF_CPP_MIN_LOG_LEVEL, which is set for it and for children otherwise.
    """
    asked = "tensorflow" in sys.modules or LEVEL in os.environ
    if not asked and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    os.environ.setdefault(LEVEL, "2")  # errors alone


def _begin() -> None:
    try:
        own = os.dup(2)
    except OSError:  # it is closed
        return
    # In a session of its own, so that Ctrl-C does not end it before the process that it serves.
    command = [sys.executable, "-I", "-S", __file__]
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    except OSError:
        os.close(own)
        return
    os.dup2(process.stdin.fileno(), 2)
    process.stdin.close()
    process.returncode = 0  # it ends after this process, which must not wait for it
    sys.stderr.flush()
    sys.stderr = open(own, "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")  # noqa: SIM115


def pump(noise: tuple[bytes, ...]) -> None:
    """Copies stdin to stderr until its end, but for lines that match one of `noise` as a whole."""
    pattern = re.compile(b"|".join(b"(?:%s)" % one for one in noise))
    left = b""
    while True:
        waiting = bool(select.select([0], [], [], PATIENCE if left else None)[0])
        part = os.read(0, 65536) if waiting else b""
        *lines, left = (left + part).split(b"\n")
        text = b"".join(line + b"\n" for line in lines if not pattern.fullmatch(line))
        if not part:
            text, left = text + left, b""
        while text:
            text = text[os.write(2, text) :]
        if waiting and not part:
            return


if __name__ == "__main__":
    has_gpu = any(found for name in DEVICES for found in pathlib.Path("/dev").glob(name))
    with contextlib.suppress(OSError):  # nobody reads any more
        pump(NOISE if has_gpu else NOISE + WITHOUT_GPU)
