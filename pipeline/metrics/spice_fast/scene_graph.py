"""Scene graphs of tuples, and their comparison: SPICE's counts, in plain Python.

Anderson, Fernando, Johnson, Gould, "SPICE: Semantic Propositional Image Caption Evaluation" (ECCV 2016), section 3.
The paper leaves some rules open. They follow the Java matcher, which gives the same counts for the same tuples:

- A node stands for one or more terms, and has the words and the synsets of all of them. It overlaps a term or another
  node if they share a word or a synset.
- Objects: a term joins the most similar of the nodes that it overlaps. That is the node with the same word, else the
  one with the largest Jaccard similarity of synsets; ties go to the newest. Without such a node, it is a new one.
- Attributes of an object, relations of an ordered pair of objects: a term joins the oldest node that it overlaps.
- The tuples of one or several captions are then one per object, attribute and relation node. Two tuples match if their
  nodes overlap, one by one. All tuples of a candidate that match any tuple of the references count, even if several
  match the same one.
- In relations a leading "be " is ignored: "be on" is "on".

Terms may be strings or numbers. Tuples have levels (levels.py), of which SPICE knows one. A node has the highest level
of the terms it stands for.
"""

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

Tuples = Sequence[Sequence[str]]  # [object], [object, attribute], [subject, object, relation]
Graded = Mapping[tuple[Hashable, ...], int]  # the level of each tuple
Senses = Callable[[Hashable], frozenset[int]]  # a term's synsets


@dataclasses.dataclass(eq=False)
class Node:
    """An object, attribute or relation."""

    words: set[Hashable] = dataclasses.field(default_factory=set)
    senses: set[int] = dataclasses.field(default_factory=set)
    level: int = 0

    def overlaps(self, words: set[Hashable], senses: frozenset[int] | set[int]) -> bool:
        """Returns whether these have a word or a synset in common with the node."""
        return not (self.words.isdisjoint(words) and self.senses.isdisjoint(senses))

    def similarity(self, word: Hashable, senses: frozenset[int]) -> float:
        """Returns 1 for one of the node's words, else the Jaccard similarity of synsets, from 0 to 1."""
        if word in self.words:
            return 1.0
        common = len(self.senses & senses)
        return common / (len(self.senses) + len(senses) - common) if common else 0.0


class SceneGraph:
    """The merged tuples of one or several captions."""

    def __init__(self, senses: Senses):
        self._senses = senses
        self._objects: list[Node] = []
        self._attributes: dict[Node, list[Node]] = {}
        self._relations: dict[tuple[Node, Node], list[Node]] = {}

    def add(self, terms: Sequence[Hashable], level: int = 1) -> None:
        """Adds [object], [object, attribute] or [subject, object, relation]."""
        first = self._object(terms[0], level)
        if len(terms) == 2:
            self._describe(self._attributes.setdefault(first, []), terms[1], level)
        elif len(terms) == 3:
            second = self._object(terms[1], level)
            self._describe(self._relations.setdefault((first, second), []), terms[2], level)

    def tuples(self) -> Iterator[tuple[Node, ...]]:
        """Yields all distinct tuples of one, two and three nodes, in the order of the terms of `add`.

        The level of a tuple is that of its last node.
        """
        yield from ((node,) for node in self._objects)
        yield from ((node, one) for node, attributes in self._attributes.items() for one in attributes)
        yield from ((*pair, one) for pair, relations in self._relations.items() for one in relations)

    def _object(self, word: Hashable, level: int) -> Node:
        senses = self._senses(word)
        # Not by `overlaps`: for 100,000 images this line takes half of the time.
        near = [n for n in reversed(self._objects) if word in n.words or not n.senses.isdisjoint(senses)]
        # max returns the first of equal ones.
        found = max(near, key=lambda node: node.similarity(word, senses)) if near else _new(self._objects)
        return _joined(found, word, senses, level)

    def _describe(self, nodes: list[Node], word: Hashable, level: int) -> None:
        senses = self._senses(word)
        found = next((n for n in nodes if word in n.words or not n.senses.isdisjoint(senses)), None)
        _joined(found or _new(nodes), word, senses, level)


def counts(candidate: Graded, references: Iterable[Graded], senses: Senses) -> list[int]:
    """Returns sums of levels: of the tuples that match, of the candidate's tuples, and of the references' tuples.

    A tuple that matches counts with its own level or with the highest level of those that it matches, whichever is
    lower. With levels of 1, these are SPICE's numbers of tuples.

    Args:
      candidate: the tuples of a caption, in the parser's order.
      references: the tuples of each reference.
      senses: of a term.
    """
    predicted = list(_graph([candidate], senses).tuples())
    # The surest first: then the first that matches decides.
    true = sorted(_graph(references, senses).tuples(), key=lambda nodes: -nodes[-1].level)
    matched = sum(min(one[-1].level, _level_of_match(one, true)) for one in predicted)
    return [matched, *(sum(nodes[-1].level for nodes in tuples) for tuples in (predicted, true))]


def relation_word(relation: str) -> str:
    """Returns the part of a relation that is compared."""
    return relation.removeprefix("be ")


def _graph(captions: Iterable[Graded], senses: Senses) -> SceneGraph:
    graph = SceneGraph(senses)
    for caption in captions:
        for terms, level in caption.items():
            graph.add([*terms[:2], relation_word(terms[2])] if len(terms) == 3 else terms, level)
    return graph


def _level_of_match(one: tuple[Node, ...], true: Iterable[tuple[Node, ...]]) -> int:
    """The level of the first tuple that matches; 0 if none does."""
    return next((other[-1].level for other in true if _match(one, other)), 0)


def _match(one: tuple[Node, ...], other: tuple[Node, ...]) -> bool:
    return len(one) == len(other) and all(a.overlaps(b.words, b.senses) for a, b in zip(one, other, strict=True))


def _new(nodes: list[Node]) -> Node:
    nodes.append(Node())
    return nodes[-1]


def _joined(node: Node, word: Hashable, senses: frozenset[int], level: int) -> Node:
    node.words.add(word)
    node.level = max(node.level, level)
    node.senses |= senses
    return node
