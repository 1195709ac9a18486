"""Captions as written -> what can safely go through line-wise tools."""

import unicodedata

# Control characters (NUL, tab, line feed, carriage return), line and paragraph separators, halves of surrogate pairs.
_BREAKS = ("Cc", "Zl", "Zp", "Cs")


def one_line(caption: str) -> str:
    """Returns the caption with a space for every character that is a line break to some tool, or to none a character.

    An ordinary caption comes back as it is.
    """
    if caption.isprintable():
        return caption
    return "".join(" " if unicodedata.category(c) in _BREAKS else c for c in caption)
