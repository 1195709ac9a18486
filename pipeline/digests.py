"""Digests of files, stored beside them, so that a damaged, swapped or lost file is never used silently.

A folder has one `digests.json`: {file name: SHA-256}. It is written after the files that it names. While a file is
replaced there are two digests, separated by a space.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import held, write_text

NAME = "digests.json"
DAMAGED, LOST, UNKNOWN = "is damaged or was changed", "is lost", "has no digest"


def record(folder: pathlib.Path, names: Iterable[str]) -> None:
    """Adds the digests of files in `folder` to its digests.json; those of other files stay."""
    # The folder itself is held while another process may write to the same digests.json.
    with held(os.open(folder, os.O_RDONLY | os.O_CLOEXEC)):
        try:
            known = recorded(folder)
        except UserError:  # of a damaged one, nothing can be kept
            known = {}
        write_text(folder / NAME, to_json(known | {name: digest(folder / name) for name in names}))


def replace_text(path: pathlib.Path, text: str) -> None:
    """Replaces a file that is recorded; if it is killed, the old one or the new one counts as sound."""
    new = hashlib.sha256(text.encode()).hexdigest()
    with held(os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)):
        old = recorded(path.parent)
        write_text(path.parent / NAME, to_json(old | {path.name: f"{digest(path)} {new}"}))
        write_text(path, text)
        write_text(path.parent / NAME, to_json(old | {path.name: new}))


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
        return _fault(path, recorded(path.parent).get(path.name))
    except UserError:
        return f"has a damaged {NAME} beside it"


def _fault(path: pathlib.Path, expected: str | None) -> str:
    try:
        found = digest(path)
    except FileNotFoundError:
        return LOST
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if expected is None:
        return UNKNOWN
    return "" if found in expected.split() else DAMAGED


def faults(folder: pathlib.Path, expected: Mapping[str, str]) -> dict[str, str]:
    """Returns what is wrong with each file of `expected`, digests by path in the folder; nothing for sound ones."""
    found = {name: _fault(folder / name, of_file) for name, of_file in expected.items()}
    return {name: wrong for name, wrong in found.items() if wrong}


def listed(faults: Mapping[str, str]) -> str:
    """Returns faults by file name as part of a sentence; '' for none."""
    return ", ".join(f"{name} {wrong}" for name, wrong in faults.items())


def tree(folder: pathlib.Path) -> dict[str, str]:
    """Returns the digests of all files below a folder, by their path in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): digest(path) for path in files}


def digest(path: pathlib.Path) -> str:
    """Returns the SHA-256 of a file in hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
