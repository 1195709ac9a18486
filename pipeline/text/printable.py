"""Names as they may be printed: nothing in them moves the cursor, recolours a terminal or stops the output."""

import unicodedata

# Control and format characters, line and paragraph separators, halves of surrogate pairs (bytes that are not UTF-8).
_ESCAPED = ("Cc", "Cf", "Cs", "Zl", "Zp")
_JOINERS = "\u200c\u200d"  # format characters that emoji and several scripts need


def printable(text: object) -> str:
    r"""Returns the text with control characters escaped, such as `\n` and `\x1b`; bytes that are not UTF-8 as `\xff`.

    An ordinary name is returned unchanged.
    """
    text = str(text)
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte of a file name, as Python decodes it
        return f"\\x{ord(character) - 0xDC00:02x}"
    if unicodedata.category(character) in _ESCAPED and character not in _JOINERS:
        return ascii(character)[1:-1]
    return character
