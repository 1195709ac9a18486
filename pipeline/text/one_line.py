"""Makes raw captions safe for line-based tools."""

import unicodedata

# Control characters (NUL, tab, line feed, carriage return), line and paragraph separators, halves of surrogate pairs.
_BREAKS = ("Cc", "Zl", "Zp", "Cs")


def one_line(caption: str) -> str:
    """Returns the caption with spaces in place of line breaks, control characters and lone surrogates.

    An ordinary caption is returned unchanged.
    """
    if caption.isprintable():
        return caption
    return "".join(" " if unicodedata.category(c) in _BREAKS else c for c in caption)
