"""The version of a parser, by which a paper can quote it: '3.1a2b3c'; without TensorFlow.

The number before the dot is stored in the file: training counts it up. The digits behind it are the beginning of a
digest of all that a score depends on, the parser's file and the rule by which its tuples count. So two parsers with the
same number have different names, and so have two rules.
"""

import functools
import hashlib
import pathlib
from collections.abc import Mapping

import numpy as np

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import UNREADABLE
from spidercap.pipeline.metrics.spice_fast.levels import THRESHOLDS

RULE = 2  # counts up when tuples count in another way (levels.py, matching.py)
PACKAGED = pathlib.Path(__file__).with_name("parser.npz")
NUMBER = "version"  # of the entry of a parser's file; 0 for files that have none
DIGITS = 6  # hexadecimal: one of 16 million


def version_of(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the version of SPICE-fast with a parser, given all arrays of its file by name."""
    digest = hashlib.sha256(f"rule {RULE} {THRESHOLDS}\n".encode())
    for name in sorted(set(arrays) - {NUMBER}):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return f"{int(arrays.get(NUMBER, 0))}.{digest.hexdigest()[:DIGITS]}"


def number_of(version: str) -> int:
    """Returns the number in a version; 0 for '', a parser that was never stored."""
    return int(version.partition(".")[0] or 0)


@functools.cache
def read_version(path: pathlib.Path = PACKAGED) -> str:
    """Returns the version of a parser's file, by default the packaged one.

    Raises:
      UserError: the file does not exist or has another format.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as saved:
            return version_of(dict(saved))
    except UNREADABLE as error:
        raise unreadable(path, error) from error


def unreadable(path: pathlib.Path, error: Exception) -> UserError:
    """Returns the error of a file that is no parser."""
    return UserError(
        f"{path} cannot be read as a parser ({error}); needed: a whole .npz file written by "
        "python -m pipeline.parser_training.main"
    )
