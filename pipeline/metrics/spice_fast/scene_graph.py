"""Scene graphs out of tuples, and their comparison: SPICE's counts, in plain Python.

Anderson, Fernando, Johnson, Gould, "SPICE: Semantic Propositional Image Caption Evaluation" (ECCV 2016), section 3.
What the paper leaves open was found by asking the Java matcher; fed the same tuples it gives the same counts:

- A node is what one or more terms stand for, and has the words and the synsets of all of them. It overlaps a term or
  another node if they share a word or a synset.
- Objects: a term joins, of the nodes that it overlaps, the most similar one: that has the very word, else that with the
  largest share of common synsets in all of theirs (Jaccard), of equal ones the newest. It is a new node if there is
  none.
- Attributes of an object, relations of an ordered pair of objects: a term joins the oldest node there that it overlaps.
- A caption's or several captions' tuples are then one for each object, attribute and relation node. One matches another
  if its nodes overlap the other's, one by one. All of a candidate's tuples that match any of the references' count,
  several that match the same one too.
- In relations a first "be " says nothing: "be on" is "on".

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
        """Returns 1 for one of the node's words, else what share of all synsets is common, from 0 to 1."""
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
        """Yields all different tuples, of one, two and three nodes in the order of `add`'s terms."""
        yield from ((node,) for node in self._objects)
        yield from ((node, one) for node, attributes in self._attributes.items() for one in attributes)
        yield from ((*pair, one) for pair, relations in self._relations.items() for one in relations)

    def _object(self, word: Hashable) -> Node:
        senses = self._senses(word)
        near = [node for node in reversed(self._objects) if node.overlaps({word}, senses)]
        # max takes the first of equal ones.
        found = max(near, key=lambda node: node.similarity(word, senses)) if near else _new(self._objects)
        return _joined(found, word, senses)

    def _describe(self, nodes: list[Node], word: Hashable) -> None:
        senses = self._senses(word)
        found = next((node for node in nodes if node.overlaps({word}, senses)), None)
        _joined(found or _new(nodes), word, senses)


def counts(
    candidate: Sequence[Sequence[str]], references: Iterable[Sequence[Sequence[str]]], senses: Senses
) -> list[int]:
    """Returns how many tuples match, the candidate has, and the references have.

    Args:
      candidate: the tuples of a caption, in the parser's order.
      references: those of each reference.
    """
    said = list(_graph(candidate, senses).tuples())
    true = list(_graph((one for reference in references for one in reference), senses).tuples())
    return [sum(any(_match(one, other) for other in true) for one in said), len(said), len(true)]


def relation_word(relation: str) -> str:
    """Returns what a relation is compared by."""
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
