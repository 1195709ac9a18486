"""Stanford's PTBTokenizer in a worker, with the options of the COCO caption evaluation."""

from typing import Any

import jpype


class Service:
    """Tokenises whole collections of captions, because its rules look past the end of a line."""

    def __init__(self):
        tokenizer = jpype.JClass("edu.stanford.nlp.process.PTBTokenizer")
        # The function behind its command line; reading word by word from Python would take ten times as long.
        self._tokenize = next(m for m in tokenizer.class_.getDeclaredMethods() if m.getName() == "tokReader")
        self._tokenize.setAccessible(True)
        self._reader = jpype.JClass("java.io.StringReader")
        self._string_writer = jpype.JClass("java.io.StringWriter")
        self._writer = jpype.JClass("java.io.BufferedWriter")

    def answer(self, item: Any) -> list[str]:
        """Returns each of a list of captions without line breaks as lower-case tokens with punctuation."""
        if not item:
            return []
        text = self._string_writer()
        out = self._writer(text)
        preserve_lines, dump, lower_case = True, False, True
        self._tokenize.invoke(
            None, self._reader("\n".join(item)), out, None, "tokenizeNLs=true", preserve_lines, dump, lower_case
        )
        out.flush()
        lines = str(text.toString()).split("\n")
        # The last line ends with a line break, unless it is empty.
        lines = lines[:-1] if len(lines) > len(item) else lines
        if len(lines) != len(item):
            raise ValueError(f"{len(item)} captions became {len(lines)}")
        return lines
