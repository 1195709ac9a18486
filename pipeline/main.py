r"""spidercap: trains image captioners on the metrics by which captions are judged.

  spidercap --workdir=runs/first --dataset=files --images=photos \
    --train_captions=train.json --val_captions=val.json
  spidercap --mode=caption --workdir=runs/first --images=photo.jpg

  spidercap --mode=score --references=captions.json --results=results.json

In a checkout, python -m pipeline.main is the same command, and recipes/ has flagfiles to begin with.

Modes: prepare (data set and features), train (prepare, train, evaluate, export), evaluate, caption, export,
score (any results file, without a run), demo (a page that captions images; needs the extra demo),
status (where a run stands, also while it trains; --json for programs),
compare (runs side by side: tables over seeds, curves, captions; --workdirs=a,b,c --output=compare.html).
With --workdir=a,b,c the modes evaluate and caption decode with the mean of the probabilities of these runs.
An interrupted training run resumes with the same command.
"""

import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence

from spidercap.pipeline.errors import FAILED, INTERRUPTED, SAVED, STOPPING, Interrupted, UserError
from spidercap.pipeline.evaluation.score_files import score_files
from spidercap.pipeline.quiet_start import import_tensorflow
from spidercap.pipeline.report.compare.command import compare_runs
from spidercap.pipeline.report.status_text import shown_status
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.settings.flags import help_text, parse
from spidercap.pipeline.text.printable import printable

# Modes that return a text to print, without TensorFlow.
TOLD: dict[str, Callable[[Config], str]] = {"status": shown_status, "compare": compare_runs}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line, by default sys.argv; returns the exit code, 0 or one of errors.py."""
    argv = sys.argv if argv is None else argv
    # Before TensorFlow is imported. Without growth this process would leave no memory of a GPU for the one that checks
    # exports.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    with contextlib.ExitStack() as stack:
        asked = _stop_on_signals(stack)
        try:
            return _run(argv)
        except (Exception, KeyboardInterrupt) as error:
            # What a signal raises is replaced where TensorFlow makes an error of its own, and dropped in a callback of
            # the garbage collector: then the error that comes next tells of the end.
            if not asked and not isinstance(error, KeyboardInterrupt):
                raise
            print("stopped. The same command resumes from what was last saved.", file=sys.stderr)
            return INTERRUPTED


def _run(argv: Sequence[str]) -> int:
    try:
        if any(word.lstrip("-") in ("help", "helpfull", "h") for word in argv[1:] if word.startswith("-")):
            _print(__doc__ + help_text())
            return 0
        config = parse(argv)
        if config.run.mode == "score":
            score_files(config)
            return 0
        if config.run.mode in TOLD:
            _print(TOLD[config.run.mode](config))
            return 0
        # TensorFlow takes seconds. Help, mistyped flags, most scores and TOLD do not need it.
        import_tensorflow(may_run=config.training.strategy != "multiworker")
        if config.run.mode == "demo":
            from spidercap.pipeline.demo.page import run_demo

            run_demo(config)
            return 0
        from spidercap.pipeline import ensemble_modes, modes
        from spidercap.pipeline.training import workdir

        if ensemble_modes.is_ensemble(config):
            ensemble_modes.run_ensemble(config)
            return 0
        with workdir.open_workdir(config):
            modes.RUN[config.run.mode](config)
    except (UserError, OSError) as error:
        named = isinstance(error, OSError) and error.filename
        text = f"{error.filename} cannot be used ({error.strerror})" if named else str(error)
        line = re.sub(r"\s*\n\s*", " ", text.strip())  # blanks within names stay
        print(f"error: {printable(line)}", file=sys.stderr)
        return FAILED
    except Interrupted as stopped:
        print(f"stopped; saved {stopped}. The same command resumes from there.")
        return SAVED
    return 0


def _stop_on_signals(stack: contextlib.ExitStack) -> list[int]:
    """Lets what would kill the process end it like Ctrl-C, with a line and without halves of files.

    Returns:
      A list to which the number of each signal is added.
    """
    asked: list[int] = []

    def stop(number: int, frame: object) -> None:
        del frame
        asked.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():  # only it may
        for number in STOPPING:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                stack.callback(signal.signal, number, signal.signal(number, stop))
    return asked


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # The reader, such as `head`, closed the pipe. Without this, Python reports it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
