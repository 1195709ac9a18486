"""In a worker: Stanford's PTBTokenizer as the COCO caption evaluation calls it."""

from typing import Any

import jpype


class Service:
    """Tokenises whole collections of captions: its rules look past the end of a line."""

    def __init__(self):
        self._read = jpype.JClass("java.io.StringReader")
        self._factory = jpype.JClass("edu.stanford.nlp.process.WordTokenFactory")()
        self._tokenizer = jpype.JClass("edu.stanford.nlp.process.PTBTokenizer")
        self._newline = str(self._tokenizer.getNewlineToken())

    def answer(self, item: Any) -> list[list[str]]:
        """Returns the lower-case tokens of each of a list of captions without line breaks, punctuation and all."""
        reader = self._read("\n".join(item))
        lines: list[list[str]] = [[]]
        for word in self._tokenizer(reader, self._factory, "tokenizeNLs=true"):
            token = str(word.word())
            if token == self._newline:
                lines.append([])
            else:
                lines[-1].append(token.lower())
        if len(lines) != len(item):
            raise ValueError(f"{len(item)} captions became {len(lines)}")
        return lines
