"""Digests of files, stored beside them, so that a damaged, swapped or lost file is never used silently.

A folder has one `digests.json`: {file name: SHA-256}. It is written after the files that it names.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import write_text

NAME = "digests.json"
DAMAGED, LOST, UNKNOWN = "is damaged or was changed", "is lost", "has no digest"


def record(folder: pathlib.Path, names: Iterable[str]) -> None:
    """Adds the digests of files in `folder` to its digests.json; those of other files stay."""
    with _locked(folder):
        try:
            known = recorded(folder)
        except UserError:  # of a damaged one, nothing can be kept
            known = {}
        write_text(folder / NAME, to_json(known | {name: digest(folder / name) for name in names}))


def to_json(digests: dict[str, str]) -> str:
    """Returns the text of a digests.json."""
    return json.dumps(digests, indent=1) + "\n"


def recorded(folder: pathlib.Path) -> dict[str, str]:
    """Returns the digests by file name; none if there is no digests.json.

    Raises:
      UserError: it is damaged.
    """
    path = folder / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); restore it from a copy") from error
    return content


def fault(path: pathlib.Path) -> str:
    """Returns what is wrong with a file, as part of a sentence; '' if it is the one that was recorded."""
    try:
        expected = recorded(path.parent).get(path.name)
        found = digest(path)
    except UserError:
        return f"has a damaged {NAME} beside it"
    except FileNotFoundError:
        return LOST
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if expected is None:
        return UNKNOWN
    return "" if found == expected else DAMAGED


def faults(folder: pathlib.Path) -> dict[str, str]:
    """Returns what is wrong with each recorded file of a folder, by name; nothing for those that are sound."""
    found = {name: fault(folder / name) for name in recorded(folder)}
    return {name: wrong for name, wrong in found.items() if wrong}


def digest(path: pathlib.Path) -> str:
    """Returns the SHA-256 of a file in hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    """Holds the folder itself while another process may write to the same digests.json."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
