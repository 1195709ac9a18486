"""Ids, and checks of what files in COCO's and other formats hold; errors name the place in the file."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.text.printable import printable

SHOWN = 3  # wrong entries named in a message
LONGEST = 10_000  # characters of a caption; a longer one comes from a broken file

ImageId = int | float | str  # a key, as in the COCO evaluation: "16" is not 16


@dataclasses.dataclass(frozen=True)
class Kind:
    """A check of a value, its description for messages, and the value that is taken for it."""

    fits: Callable[[Any], bool]
    wanted: str
    taken: Callable[[Any], Any] = lambda value: value


def is_text(value: Any) -> bool:
    """Returns whether the value is text of whole Unicode characters."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:  # a lone surrogate, which JSON can contain
        return False


def _is_id(value: Any) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value)) or is_text(value)


def _as_id(value: ImageId) -> ImageId:
    """16 for 16.0: they are one key in Python, and tables of numbers are often stored as floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


ID = Kind(_is_id, "a finite number or text of whole Unicode characters", _as_id)
TEXT = Kind(is_text, "text of whole Unicode characters")
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
    return [values(path, f"{name}[{i}]", entry, columns) for i, entry in enumerate(entries)]


def values(path: str, place: str, entry: Any, columns: Mapping[str, Kind]) -> tuple:
    """Returns the values of `columns` in an entry; raises UserError, naming the place, if one is missing or wrong."""
    for column, kind in columns.items():
        present = isinstance(entry, dict) and column in entry
        if not present or not kind.fits(entry[column]):
            found = ascii(entry[column])[:60] if present else "missing"
            raise UserError(f"{path}: {column!r} of {place} is {found}; needed: {kind.wanted}")
    return tuple(kind.taken(entry[column]) for column, kind in columns.items())


def reject(path: str, what: str, which: Sequence, remedy: str) -> None:
    """Raises UserError if `which`, the wrong entries of the file at `path`, is not empty."""
    if which:
        raise UserError(f"{path}: {len(which)} {what} ({first(which)}); {remedy}")


def reject_ids(path: str, what: str, which: Iterable[ImageId], remedy: str, known: Collection[ImageId] = ()) -> None:
    """Raises UserError if `which`, wrong image ids of the file at `path`, is not empty.

    With `known`, ids that are needed, the remedy says so if they differ from them only as text differs from a number.
    """
    which = list(which)
    reject(path, what, [json.dumps(i) for i in which], text_for_number(which, known) or remedy)


def text_for_number(unknown: Iterable[Any], known: Collection[Any]) -> str:
    """Returns what to do if each of the `unknown` ids is one of `known`, but as text for a number; else ''."""
    by_number = {_number(i): i for i in known}
    pairs = [(i, by_number.get(_number(i))) for i in unknown]
    if not pairs or None in dict(pairs).values():
        return ""
    here, there = pairs[0]
    return f"{here!r} here is {there!r} there, but text never equals a number; write all ids alike, such as {there!r}"


def _number(image_id: Any) -> Any:
    try:
        return int(image_id) if isinstance(image_id, str) else image_id
    except ValueError:
        return image_id


def in_order(ids: Iterable[ImageId]) -> list[ImageId]:
    """Returns the ids in ascending order, numbers before text."""
    return sorted(ids, key=lambda i: (isinstance(i, str), i))


def first(which: Sequence) -> str:
    """Returns the first few entries as text for a message."""
    return ", ".join(printable(w) for w in which[:SHOWN]) + (", ..." if len(which) > SHOWN else "")
