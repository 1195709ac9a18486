"""The words beside an exported model, for programs that read its token ids."""

from collections.abc import Sequence

VOCABULARY = "vocabulary.txt"


def vocabulary_text(words: Sequence[str]) -> str:
    """Returns the content of the file: one word a line, the one with id 0 first."""
    return "".join(f"{word}\n" for word in words)
