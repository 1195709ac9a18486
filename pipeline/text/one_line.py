"""Makes raw captions and file names safe for terminals and line-based tools."""

import os
import unicodedata

# Control characters (NUL, tab, line feed, carriage return), line and paragraph separators, halves of surrogate pairs.
_BREAKS = ("Cc", "Zl", "Zp", "Cs")

# Marks that reorder the text after them on a terminal.
_BIDIRECTIONAL = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def one_line(caption: str) -> str:
    """Returns the caption with spaces in place of line breaks, control characters and lone surrogates.

    An ordinary caption is returned unchanged.
    """
    if caption.isprintable():
        return caption
    return "".join(" " if unicodedata.category(c) in _BREAKS else c for c in caption)


def shown_name(path: str | os.PathLike) -> str:
    """Returns the name of a file for a message, with control characters, line breaks and the like escaped.

    An ordinary name is returned unchanged.
    """
    name = os.fspath(path)
    if name.isprintable():
        return name
    unsafe = (c in _BIDIRECTIONAL or unicodedata.category(c) in _BREAKS for c in name)
    return "".join(c.encode("unicode_escape").decode() if bad else c for c, bad in zip(name, unsafe, strict=True))
