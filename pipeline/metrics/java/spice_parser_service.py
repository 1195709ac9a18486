"""SPICE 1.0's parser in a worker, from a caption to the tuples of its scene graph."""

from typing import Any

import jpype


class Service:
    """Parses captions one by one, so that they do not affect each other's tuples."""

    def __init__(self):
        self._parser = jpype.JClass("edu.anu.spice.SpiceParser")(None, 1, True)
        methods = jpype.JClass("edu.anu.spice.SpiceParser").class_.getDeclaredMethods()
        self._generate = next(m for m in methods if m.getName() == "generateTuples")
        self._generate.setAccessible(True)
        self._list = jpype.JClass("java.util.ArrayList")
        self.answer("a dog")  # the models are loaded at the first caption

    def answer(self, item: Any) -> list[list[str]]:
        """Returns a caption's tuples in their order: [object], [object, attribute], [subject, object, relation]."""
        tuples = self._generate.invoke(self._parser, self._list([item])).get(item)
        return [[str(word) for word in one] for one in tuples]
