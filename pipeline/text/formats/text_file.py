"""Reads text in UTF-8; a file that is something else is named for what it is."""

import codecs
import pathlib

from spidercap.pipeline.errors import UserError

NEEDED = "a captions file is needed, as UTF-8 text"
# How files begin that are no text, and what to do with them.
_BEGINNINGS = {
    b"\x89PNG": ("a PNG image", "give the file of its captions"),
    b"\xff\xd8\xff": ("a JPEG image", "give the file of its captions"),
    b"GIF8": ("a GIF image", "give the file of its captions"),
    b"%PDF": ("a PDF document", "save its table as CSV"),
    b"PK\x03\x04": ("a ZIP archive or a spreadsheet", "unpack the archive, or save the spreadsheet as CSV in UTF-8"),
    b"\x1f\x8b": ("a gzip archive", "unpack it with gunzip"),
}
# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_text(path: str) -> str:
    """Returns the text of a file in UTF-8, without a byte order mark; line ends are kept as they are.

    Raises:
      UserError: the file cannot be read, is empty, or is no text in UTF-8.
    """
    try:
        content = pathlib.Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        raise UserError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error}); {NEEDED}") from error
    for beginning, (kind, remedy) in _BEGINNINGS.items():
        if content.startswith(beginning):
            raise UserError(f"{path} is {kind}; {NEEDED}; {remedy}")
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            raise UserError(f"{path} is text in {encoding}; {NEEDED}; convert it: iconv -f {encoding} -t UTF-8")
    if b"\0" in content:
        line = _line(content, content.index(b"\0"))
        raise UserError(f"{path} holds NUL bytes (the first in line {line}); {NEEDED}; save it again as UTF-8 text")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The decoder drops a byte order mark before it counts.
        start = error.start + len(content) - len(error.object)
        raise UserError(
            f"{path} is not text in UTF-8 (byte 0x{content[start]:02x} in line {_line(content, start)}); {NEEDED}; "
            "save it as UTF-8, or convert it, for example from Latin-1: iconv -f LATIN1 -t UTF-8"
        ) from error
    if not text.strip():
        raise UserError(f"{path} is empty; {NEEDED}")
    return text


def _line(content: bytes, at: int) -> int:
    """The number of the line, from 1, of a byte."""
    before = content[:at].replace(b"\r\n", b"\n")
    return 1 + before.count(b"\n") + before.count(b"\r")
