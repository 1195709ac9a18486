"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """What came, what is allowed, and what to do, in one line; main prints it and exits with 1."""
