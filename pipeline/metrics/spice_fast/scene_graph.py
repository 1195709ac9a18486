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

Terms may be strings or numbers.
"""

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

Tuples = Sequence[Sequence[str]]  # [object], [object, attribute], [subject, object, relation]
Senses = Callable[[Hashable], frozenset[int]]  # a term's synsets


@dataclasses.dataclass(eq=False)
class Node:
    """An object, attribute or relation."""

    words: set[Hashable] = dataclasses.field(default_factory=set)
    senses: set[int] = dataclasses.field(default_factory=set)

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

    def add(self, terms: Sequence[Hashable]) -> None:
        """Adds [object], [object, attribute] or [subject, object, relation]."""
        first = self._object(terms[0])
        if len(terms) == 2:
            self._describe(self._attributes.setdefault(first, []), terms[1])
        elif len(terms) == 3:
            second = self._object(terms[1])
            self._describe(self._relations.setdefault((first, second), []), terms[2])

    def tuples(self) -> Iterator[tuple[Node, ...]]:
        """Yields all distinct tuples of one, two and three nodes, in the order of the terms of `add`."""
        yield from ((node,) for node in self._objects)
        yield from ((node, one) for node, attributes in self._attributes.items() for one in attributes)
        yield from ((*pair, one) for pair, relations in self._relations.items() for one in relations)

    def _object(self, word: Hashable) -> Node:
        senses = self._senses(word)
        # Not by `overlaps`: for 100,000 images this line takes half of the time.
        near = [n for n in reversed(self._objects) if word in n.words or not n.senses.isdisjoint(senses)]
        # max returns the first of equal ones.
        found = max(near, key=lambda node: node.similarity(word, senses)) if near else _new(self._objects)
        return _joined(found, word, senses)

    def _describe(self, nodes: list[Node], word: Hashable) -> None:
        senses = self._senses(word)
        found = next((n for n in nodes if word in n.words or not n.senses.isdisjoint(senses)), None)
        _joined(found or _new(nodes), word, senses)


def counts(
    candidate: Sequence[Sequence[str]], references: Iterable[Sequence[Sequence[str]]], senses: Senses
) -> list[int]:
    """Returns the numbers of tuples that match, of the candidate's tuples, and of the references' tuples.

    Args:
      candidate: the tuples of a caption, in the parser's order.
      references: the tuples of each reference.
    """
    predicted = list(_graph(candidate, senses).tuples())
    true = list(_graph((one for reference in references for one in reference), senses).tuples())
    return [sum(any(_match(one, other) for other in true) for one in predicted), len(predicted), len(true)]


def relation_word(relation: str) -> str:
    """Returns the part of a relation that is compared."""
    return relation.removeprefix("be ")


def _graph(tuples: Iterable[Sequence[str]], senses: Senses) -> SceneGraph:
    graph = SceneGraph(senses)
    for terms in tuples:
        graph.add([*terms[:2], relation_word(terms[2])] if len(terms) == 3 else terms)
    return graph


def _match(one: tuple[Node, ...], other: tuple[Node, ...]) -> bool:
    return len(one) == len(other) and all(a.overlaps(b.words, b.senses) for a, b in zip(one, other, strict=True))


def _new(nodes: list[Node]) -> Node:
    nodes.append(Node())
    return nodes[-1]


def _joined(node: Node, word: Hashable, senses: frozenset[int]) -> Node:
    node.words.add(word)
    node.senses |= senses
    return node
