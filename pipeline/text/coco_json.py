"""Reads and checks COCO-format JSON; errors name the place in the file."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.text.printable import printable

SHOWN = 3  # wrong entries named in a message


@dataclasses.dataclass(frozen=True)
class Kind:
    """A check of a value, and its description for messages."""

    fits: Callable[[Any], bool]
    wanted: str


def _is_whole_text(value: Any) -> bool:
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:  # a lone surrogate, which JSON can contain
        return False


ID = Kind(lambda value: type(value) is int and 0 <= value < 2**63, "a whole number from 0 to 2**63 - 1")
TEXT = Kind(_is_whole_text, "text of whole Unicode characters")
ANY_TEXT = Kind(lambda value: isinstance(value, str), "text")


def read_json(path: str, expected: str) -> Any:
    """Returns the content of a JSON file; raises UserError, with what is `expected`, if it cannot be read."""
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {expected} is needed") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); {expected} is needed") from error


def rows(path: str, entries: Any, name: str, columns: Mapping[str, Kind], needed: str) -> list[tuple]:
    """Returns the values of `columns` in every entry of the list `name` of the file at `path`.

    Raises:
      UserError: it is not a list, or a column of an entry is missing or fails its check; `needed` is the file's format.
    """
    if not isinstance(entries, list):
        raise UserError(f"{path} has no list {name!r}; needed: {needed}")
    for i, entry in enumerate(entries):
        for column, kind in columns.items():
            present = isinstance(entry, dict) and column in entry
            if not present or not kind.fits(entry[column]):
                found = ascii(entry[column])[:60] if present else "missing"
                raise UserError(f"{path}: {column!r} of {name}[{i}] is {found}; needed: {kind.wanted}")
    return [tuple(entry[column] for column in columns) for entry in entries]


def reject(path: str, what: str, which: Sequence, remedy: str) -> None:
    """Raises UserError if `which`, the wrong entries of the file at `path`, is not empty."""
    if which:
        raise UserError(f"{path}: {len(which)} {what} ({first(which)}); {remedy}")


def first(which: Sequence) -> str:
    """Returns the first few entries as text for a message."""
    return ", ".join(printable(w) for w in which[:SHOWN]) + (", ..." if len(which) > SHOWN else "")
