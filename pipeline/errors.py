"""What ends a command before it is done."""

import difflib
from collections.abc import Collection
from typing import Any


class UserError(Exception):
    """The user can mend this: what came, what is allowed, and what to do, in one line; main prints it, exit code 1."""


class Interrupted(Exception):
    """The user asked to stop; the message names the checkpoint that was saved."""


def check_choice(name: str, value: Any, choices: Collection[str]) -> None:
    """Raises UserError, with the likeliest correction, if `value` of the flag `name` is none of `choices`."""
    if value not in choices:
        folded = {choice.lower(): choice for choice in choices}
        close = difflib.get_close_matches(str(value).lower(), folded, n=1)
        hint = f" (did you mean {folded[close[0]]}?)" if close else ""
        raise UserError(f"--{name}: unknown {value!r}{hint}; allowed: {', '.join(choices)}")
