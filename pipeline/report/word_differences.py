"""Marks the words in which two captions differ, as HTML."""

import difflib
from collections.abc import Sequence
from html import escape


def differences(first: str, last: str) -> tuple[str, str]:
    """Returns both captions as HTML, with words that only one of them has at a place in <mark>."""
    ours, theirs = first.split(), last.split()
    opcodes = difflib.SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes()
    return (
        _marked(ours, [(kind, start, stop) for kind, start, stop, _, _ in opcodes]),
        _marked(theirs, [(kind, start, stop) for kind, _, _, start, stop in opcodes]),
    )


def _marked(words: Sequence[str], runs: Sequence[tuple[str, int, int]]) -> str:
    texts = [(kind, escape(" ".join(words[start:stop]))) for kind, start, stop in runs if stop > start]
    return " ".join(text if kind == "equal" else f"<mark>{text}</mark>" for kind, text in texts)
