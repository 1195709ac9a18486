"""Bars on terminals of several widths: no line is wrapped, and what matters is in it."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from tests.conftest import ROOT

STAGE = """
import types
from spidercap.pipeline.training.console import Console
stage = types.SimpleNamespace(steps=123456, name="leave_one_out", label="leave_one_out-2", unit="image")
logs = {"loss": -0.123, "reward": 1.234, "explained variance": -0.123, "entropy": 1.234, "words given": 3.2}
with Console(stage, 64, 60000, False) as console:
    for step in range(60001, 60004):
        console.log(step, logs, 123.0)
        console._bar.start_t -= 20  # as if time had passed
        console.stepped()
        console._bar.refresh()
    console.say("a line")
"""
FEATURES = """
from spidercap.pipeline.bars import progress_bar
with progress_bar(123456789, "features of the training images, view 3 of 5, of a rather long name", "image") as bar:
    bar.update(5)
    bar.refresh()
"""


def lines(code, width):
    """The lines that a process writes to a terminal of this width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24 if width else 0, width, 0, 0))
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=theirs, stderr=theirs, env=os.environ | quiet
    )
    os.close(theirs)
    written = b""
    while part := _read(ours):
        written += part
    os.close(ours)
    assert process.wait() == 0, written.decode()
    return [line for line in re.split(r"[\r\n]+", written.decode()) if line.strip()]


def _read(handle):
    try:
        return os.read(handle, 65536)
    except OSError:  # the other side is closed
        return b""


@pytest.mark.parametrize(
    ("width", "scalars"),
    [
        (80, "loss -0.12"),
        (100, "loss -0.12, reward 1.23, explained -0.12"),
        (130, "loss -0.12, reward 1.23, explained -0.12, entropy 1.23, given 3.20"),
        (0, "loss -0.12"),  # a terminal that does not tell its width counts as 80
    ],
)
def test_the_bar_of_a_stage_is_one_line(width, scalars):
    shown = [line for line in lines(STAGE, width) if "|" in line]
    assert len(shown) > 3 and all(len(line) <= (width or 80) for line in shown)
    last = shown[-1]
    assert re.search(r"^leave_one_out 49% \|.+\| [\d:]+ left, +[\d.]+ images/s, ", last), last
    assert last.rstrip().endswith(scalars)


@pytest.mark.parametrize("width", [80, 40, 0])
def test_other_bars_are_one_line(width):
    shown = [line for line in lines(FEATURES, width) if "features" in line]
    assert shown and all(len(line) <= (width or 80) for line in shown)
