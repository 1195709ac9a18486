"""Progress bars: one line on a terminal, whatever its width; none elsewhere."""

import os
import sys
from typing import Any

from tqdm import tqdm

UNKNOWN = 80  # columns of a terminal that does not tell its width


def progress_bar(total: int | None, name: str, unit: str, shown: bool = True, **more: Any) -> tqdm:
    """Returns a bar on stderr; it is disabled where that is no terminal, or unless `shown`.

    `more` are further arguments of tqdm.
    """
    # tqdm takes the size 0, as serial consoles and some containers have it, for an endless line, or shows nothing.
    width = {"dynamic_ncols": True} if columns() else {"ncols": UNKNOWN - 1, "nrows": 24}
    return tqdm(total=total, desc=name, unit=unit, disable=None if shown else True, **width | more)


def columns() -> int:
    """Returns the columns of the terminal on stderr; 0 if it is none, or does not tell."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError, AttributeError):
        return 0
