"""The formats of captions files: what each looks like, how it is recognised, and what reads it."""

import dataclasses
import io
import json
import pathlib
from collections.abc import Callable

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.text.coco_json import first
from spidercap.pipeline.text.formats import coco, delimited, json_rows
from spidercap.pipeline.text.formats.source import Contents, Source
from spidercap.pipeline.text.formats.text_file import read_text


@dataclasses.dataclass(frozen=True)
class Format:
    """One format; the first of FORMATS that fits a file is the file's."""

    name: str
    form: str
    fits: Callable[[Source], bool]
    read: Callable[[Source], Contents]


FORMATS = (
    Format("Karpathy's splits", coco.KARPATHY, lambda s: coco.is_karpathy(s.content), coco.read_karpathy),
    Format("COCO captions", coco.COCO, lambda s: coco.is_coco(s.content), coco.read_coco),
    Format("JSON lines", json_rows.LINES, lambda s: bool(s.lines), json_rows.read_rows),
    Format("JSON list", json_rows.LIST, lambda s: json_rows.is_rows(s.content), json_rows.read_rows),
    Format("JSON by image", json_rows.BY_IMAGE, lambda s: json_rows.is_by_image(s.content), json_rows.read_by_image),
    Format(
        "Flickr8k's captions",
        delimited.TOKENS,
        lambda s: not _is_json(s) and delimited.is_tokens(s.text),
        delimited.read_tokens,
    ),
    Format("delimited text", delimited.HEADER, lambda s: not _is_json(s), delimited.read_delimited),
)


def read_contents(path: str, *, need_words: bool = False, skip_bad: bool = False, results: bool = False) -> Contents:
    """Returns the rows of a captions file of any of FORMATS, recognised by its content.

    Args:
      path: the file.
      need_words: the captions are to be trained on; COCO's list of images is then needed.
      skip_bad: leave out rows that cannot be read.
      results: they are captions to score.

    Raises:
      UserError: the file is no text, has another format, or rows cannot be read.
    """
    source = Source(path, read_text(path), need_words=need_words, skip_bad=skip_bad, results=results)
    if _is_json(source):
        source = _with_json(source)
    for kind in FORMATS:
        if kind.fits(source):
            return kind.read(source)
    forms = "; ".join(f"{kind.name}: {kind.form}" for kind in FORMATS)
    raise UserError(f"{path} is {_shape(source.content)}, which is no captions file; needed is one of: {forms}")


def _is_json(source: Source) -> bool:
    """Whether the text begins like JSON; the suffix decides on what begins like no format."""
    if source.text.lstrip().startswith(("{", "[")):
        return True
    promised = pathlib.PurePath(source.path).suffix.lower() in (".json", ".jsonl", ".ndjson")
    return promised and not (delimited.is_tokens(source.text) or delimited.is_delimited(source.text))


def _with_json(source: Source) -> Source:
    """The source with its content; several lines of which the first is an object are JSON lines."""
    try:
        content = json.loads(source.text)
    except (ValueError, RecursionError) as error:
        # Lines end where a file's do; str.splitlines would also split at characters that JSON may hold.
        lines = {i: line for i, line in enumerate(io.StringIO(source.text, newline=None), start=1) if line.strip()}
        if len(lines) == 1 or not isinstance(_content_of(next(iter(lines.values()))), dict):
            raise UserError(f"{source.path} is not JSON ({error}); a captions file is needed") from error
        return _with_lines(source, lines)
    if json_rows.is_row(content):
        return dataclasses.replace(source, content=[content], lines=(1,))
    return dataclasses.replace(source, content=content)


def _with_lines(source: Source, lines: dict[int, str]) -> Source:
    contents = {number: _content_of(line) for number, line in lines.items()}
    wrong = [number for number, content in contents.items() if not isinstance(content, dict)]
    if wrong:
        raise UserError(
            f"{source.path}: {len(wrong)} lines are not a JSON object (line {first(wrong)}); write one object in each "
            "line, or all as one JSON list"
        )
    return dataclasses.replace(source, content=list(contents.values()), lines=tuple(contents))


def _content_of(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _shape(content: object) -> str:
    """What the content of a JSON file is, in words."""
    if isinstance(content, dict):
        return f"a JSON object with {f'the keys {first(list(content))}' if content else 'no keys'}"
    if isinstance(content, list):
        wrong = next(entry for entry in content if not isinstance(entry, dict))
        return f"a JSON list that holds {ascii(wrong)[:40]}"
    return f"the JSON value {ascii(content)[:40]}"
