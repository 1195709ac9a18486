"""JSON whose rows are images or captions: an object by image, a list of objects, and lines of objects."""

import collections
import json
from typing import Any

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.text.coco_json import ID, TEXT, Kind, reject, values
from spidercap.pipeline.text.formats.names import (
    Columns,
    check_ids,
    find_columns,
    is_caption,
    is_image,
    is_marked,
    split_of,
    without_types,
)
from spidercap.pipeline.text.formats.source import Contents, Row, Source

BY_IMAGE = '{"a.jpg": ["caption", ...]}'
LIST = '[{"image_id", "caption"}]'
LINES = '{"image": "a.jpg", "caption": "..."} in each line'


def is_row(content: Any) -> bool:
    """Returns whether an object holds an image and captions: the only line of JSON lines."""
    return isinstance(content, dict) and any(map(is_image, content)) and any(map(is_caption, content))


def is_by_image(content: Any) -> bool:
    """Returns whether the content of a JSON file is captions by image."""
    return isinstance(content, dict) and any(isinstance(value, str | list) for value in content.values())


def is_rows(content: Any) -> bool:
    """Returns whether the content of a JSON file is a list of objects."""
    return isinstance(content, list) and all(isinstance(entry, dict) for entry in content)


def read_by_image(source: Source) -> Contents:
    """Returns the captions of a JSON object whose keys are file names or ids.

    Raises:
      UserError: a key comes twice, or a value is neither a caption nor a list of captions.
    """
    path, keys = source.path, list(source.content)
    json.loads(source.text, object_pairs_hook=lambda pairs: _reject_twice(path, [key for key, _ in pairs]))
    reject(path, "keys hold half a character", [ascii(key) for key in keys if not TEXT.fits(key)], "write them whole")
    said = values(path, "the JSON object", source.content, dict.fromkeys(keys, _captions(source)))
    rows = (Row(i, key, captions) for i, key, captions in zip(without_types(keys), keys, said, strict=True))
    return Contents(tuple(rows), typed=False)


def read_rows(source: Source) -> Contents:
    """Returns the rows of a list of objects or of JSON lines.

    Raises:
      UserError: keys or types are wrong.
    """
    path, entries = source.path, source.content
    if not entries:
        raise UserError(f"{path} holds no captions; at least one is needed")
    columns = find_columns(path, list(dict.fromkeys(key for entry in entries for key in entry)))
    name = "results" if source.results else "rows"
    places = [f"line {line}" for line in source.lines] or [f"{name}[{i}]" for i in range(len(entries))]
    rows = [_row(source, place, entry, columns) for place, entry in zip(places, entries, strict=True)]
    check_ids(path, columns, [(row.image_id, row.file_name) for row in rows])
    return Contents(tuple(rows), typed=True)


def _row(source: Source, place: str, entry: dict, columns: Columns) -> Row:
    kinds = {columns.image_id: ID, columns.file_name: TEXT, columns.split: TEXT}
    captions = [name for name in columns.captions if not columns.numbered or entry.get(name) not in (None, "")]
    kinds = {name: kind for name, kind in kinds.items() if name} | dict.fromkeys(captions, _captions(source))
    found = dict(zip(kinds, values(source.path, place, entry, kinds), strict=True))
    split = split_of(source.path, place, found[columns.split]) if columns.split else ""
    said = tuple(caption for name in captions for caption in found[name])
    return Row(found[columns.image], found.get(columns.file_name, ""), said, split, is_marked(entry))


def _captions(source: Source) -> Kind:
    """One caption or a list of captions, taken as several."""
    text = source.caption
    return Kind(
        lambda value: all(map(text.fits, value)) if isinstance(value, list) else text.fits(value),
        f"{text.wanted}, or a list of such texts",
        lambda value: tuple(value) if isinstance(value, list) else (value,),
    )


def _reject_twice(path: str, keys: list[str]) -> None:
    twice = [key for key, count in collections.Counter(keys).items() if count > 1]
    reject(path, "keys come twice", twice, "give all captions of an image in one list")
