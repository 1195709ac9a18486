"""What ends a command before it is done."""


class UserError(Exception):
    """The user can mend this: what came, what is allowed, and what to do, in one line; main prints it, exit code 1."""


class Interrupted(Exception):
    """The user asked to stop; the message names the checkpoint that was saved."""
