"""Exceptions and signals that end a command early."""

import difflib
import signal
from collections.abc import Collection
from typing import Any

# Ctrl-C, what `kill` and job schedulers send, and what a scheduler such as SLURM can send before a time limit.
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

# Exit codes: a mistake of the user; training that was stopped, with a checkpoint, to be run again (EX_TEMPFAIL of
# sysexits.h, by which job schedulers can queue it again); anything else that was stopped.
FAILED, SAVED, INTERRUPTED = 1, 75, 130


class UserError(Exception):
    """A mistake that the user can fix; main prints the message and exits with code 1.

    The message is one line: what came, what is allowed, what to do.
    """


class Interrupted(Exception):
    """The user asked to stop; the message names the checkpoint that was saved."""


def check_choice(name: str, value: Any, choices: Collection[str]) -> None:
    """Raises UserError, with the closest match, if `value` of the flag `name` is not one of `choices`."""
    if value not in choices:
        folded = {choice.lower(): choice for choice in choices}
        close = difflib.get_close_matches(str(value).lower(), folded, n=1)
        hint = f" (did you mean {folded[close[0]]}?)" if close else ""
        raise UserError(f"--{name}: unknown {value!r}{hint}; allowed: {', '.join(choices)}")
