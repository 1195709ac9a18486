"""Signals that come while the command line is not training: an end with a line, whatever they fall into."""

import os
import signal

import pytest
import tensorflow as tf

from spidercap.pipeline import main, modes
from spidercap.pipeline.errors import INTERRUPTED, STOPPING
from spidercap.pipeline.training.stopping import stop_asked
from spidercap.pipeline.workers import Workers


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a command that does what is given in place of preparing."""

    def run(body):
        monkeypatch.setitem(modes.RUN, "prepare", lambda config: body())
        return main.main(["main", "--mode=prepare", f"--workdir={tmp_path}/run", f"--cache_dir={tmp_path}/cache"])

    # A process in the background of a shell has SIGINT ignored, and then it stays so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield run
    signal.signal(signal.SIGINT, before)


def failing(number=None):
    """What TensorFlow runs in a thread of its own, while the main thread waits for it."""

    def body():
        if number:
            os.kill(os.getpid(), number)
        raise ValueError("the operation failed")

    tf.function(lambda: tf.py_function(body, [], tf.float32))()


@pytest.mark.parametrize("number", STOPPING, ids=lambda number: number.name)
def test_a_signal_in_the_midst_of_an_error(run, capsys, number):
    # Python handles it when TensorFlow makes the error in the main thread.
    assert run(lambda: failing(number)) == INTERRUPTED
    assert "stopped. The same command resumes" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_is_dropped_counts_at_the_next_error(run, capsys):
    """What is raised while an object is deleted is written to stderr and lost."""

    class Dropping:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    def body():
        Dropping()
        failing()

    assert run(body) == INTERRUPTED
    assert "stopped. The same command resumes" in capsys.readouterr().err


def test_an_error_alone_stays_one(run):
    with pytest.raises(tf.errors.InvalidArgumentError, match="the operation failed"):
        run(lambda: failing())


def test_a_signal_alone(run):
    before = {number: signal.getsignal(number) for number in STOPPING}
    assert run(lambda: os.kill(os.getpid(), signal.SIGTERM)) == INTERRUPTED
    assert before == {number: signal.getsignal(number) for number in STOPPING}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_second_signal_while_training_counts_too(run, capsys):
    """The first asks to stop after the step; what the second one raises is lost here."""

    class Dropping:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def body():
        with stop_asked(Workers()) as stopping:
            signal.raise_signal(signal.SIGINT)
            assert stopping()
            Dropping()
            failing()

    assert run(body) == INTERRUPTED
    assert "stopped. The same command resumes" in capsys.readouterr().err
