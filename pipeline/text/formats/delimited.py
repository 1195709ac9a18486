"""Delimited text with a header (CSV and its kin), and Flickr8k's file of captions, which has none."""

import ast
import contextlib
import csv
import io
import json
import re
import sys
from collections.abc import Iterator, Sequence

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.text.coco_json import reject
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
from spidercap.pipeline.text.printable import printable

HEADER = "a table with a first line such as image,caption"
TOKENS = "a.jpg#0<TAB>caption in each line"
NO_TOKENS = "not a file name, #, a number, a tab and a caption"
# With '|', as in Flickr30k's file, and in Flickr8k's, quotes are part of the captions.
_QUOTED = {",": True, ";": True, "\t": True, "|": False}
_TOKEN = re.compile(r"([^\t]+)#[0-9]+")

Record = tuple[int, list[str]]  # the number of its first line, and its fields without blanks around them


def is_tokens(text: str) -> bool:
    """Returns whether the text begins like Flickr8k's file of captions."""
    name, tab, _ = text.lstrip().partition("\t")
    return bool(tab) and _TOKEN.fullmatch(name) is not None


def is_delimited(text: str) -> bool:
    """Returns whether the first line of the text names images and captions."""
    header = _header(text)[1]
    return any(map(is_image, header)) and any(map(is_caption, header))


def read_tokens(source: Source) -> Contents:
    """Returns the captions of Flickr8k's file, `name.jpg#0`, a tab and a caption in each line.

    Raises:
      UserError: lines have another form.
    """
    rows, wrong = [], []
    for line, fields in _records(source, "\t", quoted=False):
        name = _TOKEN.fullmatch(fields[0])
        if name is None or len(fields) != 2:
            wrong.append(f"line {line}")
        else:
            rows.append(Row(name[1], name[1], (fields[1],)))
    _skip_or_reject(source, f"lines are {NO_TOKENS}", wrong, len(rows))
    return Contents(tuple(rows), typed=False, unread=tuple((place, NO_TOKENS) for place in wrong))


def read_delimited(source: Source) -> Contents:
    """Returns the rows below a header; the delimiter is the one that makes images and captions of the header.

    Raises:
      UserError: columns are wrong, a row has too few or too many fields, or a quote is not closed.
    """
    path = source.path
    delimiter, _ = _header(source.text)
    records = _records(source, delimiter, _QUOTED[delimiter])
    _, header = next(records)
    columns = find_columns(path, header)
    good, wrong = [], []
    for line, fields in records:
        if len(fields) == len(header):
            good.append((line, dict(zip(header, fields, strict=True))))
        else:
            wrong.append((f"line {line}", f"{len(fields)} fields in place of {len(header)}"))
    _skip_or_reject(source, "rows have too few or too many fields", [": ".join(one) for one in wrong], len(good))
    if not good:
        raise UserError(f"{path} has a header, but no rows below it; at least one caption is needed")
    unnamed = [f"line {line}" for line, entry in good if not entry[columns.image]]
    reject(path, f"rows name no image in the column {columns.image!r}", unnamed, "fill it in, or remove these rows")
    return Contents(tuple(_rows(path, columns, good)), typed=False, unread=tuple(wrong))


def _rows(path: str, columns: Columns, records: Sequence[tuple[int, dict[str, str]]]) -> Iterator[Row]:
    entries = [entry for _, entry in records]
    ids = [entry[columns.image] for entry in entries]
    if columns.image_id:
        ids = without_types(ids)
    files = [entry[columns.file_name] if columns.file_name else "" for entry in entries]
    check_ids(path, columns, zip(ids, files, strict=True))
    captions = _captions(columns, entries)
    for (line, entry), image_id, file_name, said in zip(records, ids, files, captions, strict=True):
        split = split_of(path, f"line {line}", entry[columns.split]) if columns.split else ""
        yield Row(image_id, file_name, said, split, is_marked(entry))


def _captions(columns: Columns, entries: Sequence[dict[str, str]]) -> Iterator[tuple[str, ...]]:
    """The captions of each row; cells that are lists of texts, all of them, are lists of captions."""
    if columns.numbered:
        return (tuple(entry[name] for name in columns.captions if entry[name]) for entry in entries)
    cells = [entry[columns.captions[0]] for entry in entries]
    if all(cell.startswith("[") and cell.endswith("]") for cell in cells):
        lists = [_texts(cell) for cell in cells]
        if None not in lists:
            return iter(lists)
    return ((cell,) for cell in cells)


def _texts(cell: str) -> tuple[str, ...] | None:
    """The texts of a list as JSON or as Python writes it, which is what pandas writes; None for another cell."""
    try:
        content = json.loads(cell)
    except (ValueError, RecursionError):
        try:
            content = ast.literal_eval(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError):  # a caption in brackets
            return None
        if str(content) != cell:  # NumPy writes no commas, so that its texts would become one
            return None
    return tuple(content) if all(isinstance(text, str) for text in content) else None


def _header(text: str) -> tuple[str, list[str]]:
    """The delimiter under which the first line names images and captions, else the one of the most columns; these."""
    first_line = io.StringIO(text.lstrip(), newline="").readline()
    headers = [(",", [first_line])]
    for delimiter, quoted in _QUOTED.items():
        with contextlib.suppress(csv.Error):  # quotes of another delimiter
            headers.append((delimiter, next(_split(first_line, delimiter, quoted))))
    return max(headers, key=lambda h: (any(map(is_image, h[1])) + any(map(is_caption, h[1])), len(h[1])))


def _split(text: str, delimiter: str, quoted: bool) -> Iterator[list[str]]:
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    return csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, skipinitialspace=True, strict=True
    )


def _records(source: Source, delimiter: str, quoted: bool) -> Iterator[Record]:
    """The rows that are not blank."""
    reader = _split(source.text, delimiter, quoted)
    line = 1
    try:
        for fields in reader:
            if any(not field.isspace() and field for field in fields):
                yield line, [field.strip() for field in fields]
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{source.path}: line {line} cannot be split into fields ({printable(error)}); close every quote, double "
            "the quotes within a quoted field, and shorten longer fields"
        ) from error


def _skip_or_reject(source: Source, what: str, wrong: Sequence[str], good: int) -> None:
    """Reports rows that are left out, or raises UserError."""
    if wrong and source.skip_bad:
        print(f"skipping {len(wrong):,} of {len(wrong) + good:,} rows of {source.path}: {what}", file=sys.stderr)
        return
    remedy = "put fields that hold the delimiter in quotes, or remove these rows"
    remedy += "" if source.results else ", or leave them out with --skip_bad_captions"
    reject(source.path, what, wrong, remedy)
