"""Imports TensorFlow without the lines that it always prints while it starts, and with all others.

They come from C++, before TF_CPP_MIN_LOG_LEVEL is read, or as errors that are none on a machine without a GPU. So file
descriptor 2 leads through a process of its own, this file, while TensorFlow starts: it drops exactly these lines, and
lives through a crash of the process that writes.
"""

import contextlib
import gc
import importlib
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType

LEVEL = "TF_CPP_MIN_LOG_LEVEL"
WHERE = rb"[IWE]\d{4} \d\d:\d\d:[\d.]+ +\d+ "
NOISE = (
    rb"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR",
    WHERE + rb"port\.cc:\d+\] oneDNN custom operations are on\. .*TF_ENABLE_ONEDNN_OPTS=0.*",
    WHERE + rb"util\.cc:\d+\] oneDNN supports DT_\w+ only on platforms with AVX.* Falling back to the default .*",
)
# Where there is a GPU, these tell why it is not used.
WITHOUT_GPU = (
    WHERE + rb"cudart_stub\.cc:\d+\] Could not find cuda drivers on your machine, GPU will not be used\.",
    WHERE + rb"cuda_platform\.cc:\d+\] failed call to cuInit: .*UNKNOWN ERROR \(303\)",
)
DEVICES = ("nvidia*", "dxg")  # in /dev
READY = b"."
PATIENCE = 5.0  # seconds for the last lines
ASKED = LEVEL in os.environ  # the user has chosen how much TensorFlow tells


def import_tensorflow(may_run: bool = False) -> None:
    """Imports TensorFlow, if it has not been imported, and finds its devices.

    Nothing is dropped if the user has chosen how much TensorFlow tells by TF_CPP_MIN_LOG_LEVEL, which is set for it and
    for children otherwise, or if stderr is not that of the process.

    Args:
      may_run: run something, too, so that the lines of TensorFlow's first operation come now. It must not run anything
        before the strategy of several workers is made.
    """
    is_over = "tensorflow" in sys.modules and not may_run
    os.environ.setdefault(LEVEL, "2")  # errors alone
    # The system ends the other process with the first one of a container, whose last words would be lost.
    is_own = sys.stderr is not None and sys.stderr is sys.__stderr__ and bool(sys.executable) and os.getpid() != 1
    with contextlib.nullcontext() if ASKED or is_over or not is_own else _filtered():
        tf = _imported()
        tf.config.list_physical_devices()
        if may_run:
            tf.transpose(tf.zeros([1, 1, 1], tf.uint8))


def _imported() -> ModuleType:
    """Imports TensorFlow without looking for garbage among its million objects, now and later: they stay anyway."""
    if "tensorflow" not in sys.modules and gc.isenabled():
        gc.disable()
        try:
            importlib.import_module("tensorflow")
            gc.freeze()
        finally:
            gc.enable()
    return importlib.import_module("tensorflow")


@contextlib.contextmanager
def _filtered() -> Iterator[None]:
    """Drops lines of NOISE that come to file descriptor 2 within the block."""
    try:
        own = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    process = _started()
    if process:
        sys.stderr.flush()
        os.dup2(process.stdin.fileno(), 2)
        process.stdin.close()
    try:
        yield
    finally:
        if process:
            sys.stderr.flush()
            os.dup2(own, 2)
            with contextlib.suppress(subprocess.TimeoutExpired):  # a child of this process still has its pipe
                process.wait(PATIENCE)
        os.close(own)


def _started() -> subprocess.Popen | None:
    """The process that filters; None if it does not run."""
    # In a session of its own, so that Ctrl-C does not end it before the process that it serves.
    command = [sys.executable, "-I", "-S", __file__]
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    except OSError:
        return None
    with process.stdout:
        return process if process.stdout.read(len(READY)) == READY else None


def pump(noise: tuple[bytes, ...]) -> None:
    """Copies the lines of stdin to stderr, but for those that match one of `noise` as a whole."""
    pattern = re.compile(b"|".join(b"(?:%s)" % one for one in noise))
    for line in sys.stdin.buffer:
        if not pattern.fullmatch(line.rstrip(b"\n")):
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()


if __name__ == "__main__":
    has_gpu = any(found for name in DEVICES for found in pathlib.Path("/dev").glob(name))
    os.write(1, READY)
    with contextlib.suppress(OSError):  # nobody reads any more
        pump(NOISE if has_gpu else NOISE + WITHOUT_GPU)
