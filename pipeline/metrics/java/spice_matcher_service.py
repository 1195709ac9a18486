"""SPICE 1.0's scene graphs and their comparison in a worker, from tuples to counts.

Anderson, Fernando, Johnson, Gould, "SPICE: Semantic Propositional Image Caption Evaluation" (ECCV 2016).

A concept is merged into the most similar earlier one that shares a WordNet synset. SPICE stores concepts in hash maps
whose order changes from run to run, so that ties are broken at random. (This affects one of the 1,000 captions of the
COCO evaluation's demo: 0.148 or 0.154.) Here the order is fixed, the newest object first, which gives the published
scores. So a caption's score depends only on its words and its references.
"""

import collections
import json
from typing import Any

import jpype

from spidercap.pipeline.metrics.registry import SPICE_PARTS

KEPT = 20_000  # images whose reference graphs stay in memory, about 10 kB each


class Service:
    """Compares the tuples of captions with those of references."""

    def __init__(self):
        dictionary = jpype.JClass("edu.cmu.meteor.aligner.SynonymDictionary")
        url = jpype.JClass("java.net.URL")
        folder = str(jpype.JClass("edu.cmu.meteor.util.Constants").DEFAULT_SYN_DIR_URL.toString())
        files = [url(f"{folder}/english.{name}") for name in ("exceptions", "synsets", "relations")]
        filters = jpype.JClass("edu.anu.spice.TupleFilter")
        self._graphs = _Graphs(dictionary(*files))
        self._filters = [filters.noFilter] + [getattr(filters, f"{part.lower()}Filter") for part in SPICE_PARTS]
        self._tuple_set = jpype.JClass("edu.anu.spice.TupleSet")
        self._evaluation = jpype.JClass("edu.anu.spice.Evaluation")
        self._references: collections.OrderedDict[str, list[Any]] = collections.OrderedDict()

    def answer(self, item: Any) -> list[list[list[int]]]:
        """Returns the counts of each candidate of {"candidates": [...], "references": [...]}, tuples of captions.

        The counts are [matched, candidate's, references'] of all tuples, then of each of SPICE_PARTS.
        """
        references = self._reference_sets(item["references"])
        return [self._counts(self._sets([candidate]), references) for candidate in item["candidates"]]

    def _reference_sets(self, references: Any) -> list[Any]:
        key = json.dumps(references)
        if key not in self._references:
            self._references[key] = self._sets(references)
            if len(self._references) > KEPT:
                self._references.popitem(last=False)
        self._references.move_to_end(key)
        return self._references[key]

    def _sets(self, captions: Any) -> list[Any]:
        graph = self._graphs.build(captions)
        return [self._tuple_set(graph, one) for one in self._filters]

    def _counts(self, candidate: list[Any], references: list[Any]) -> list[list[int]]:
        counts = []
        for predicted, true in zip(candidate, references, strict=True):
            evaluation = self._evaluation(predicted, true, False, True)  # not weighted, similar words match
            matched = int(evaluation.tp)
            counts.append([matched, matched + int(evaluation.fp), matched + int(evaluation.fn)])
        return counts


class _Graphs:
    """Builds SPICE's scene graphs with a fixed order of objects and attributes."""

    def __init__(self, synonyms: Any):
        self._synonyms = synonyms
        self._graph = jpype.JClass("edu.anu.spice.SceneGraph")
        self._multigraph = jpype.JClass("edu.stanford.nlp.graph.DirectedMultiGraph")
        factory = jpype.JClass("edu.stanford.nlp.util.MapFactory")
        self._order = _NewestFirst()
        self._by_age, self._linked = factory.treeMapFactory(self._order.comparator), factory.linkedHashMapFactory()
        self._graph_field = _accessible(self._graph.class_.getDeclaredFields(), "graph")
        node = jpype.JClass("edu.anu.spice.SceneGraphNode").class_
        self._attributes_field = _accessible(node.getDeclaredFields(), "attributes")
        self._node = _accessible(self._graph.class_.getDeclaredMethods(), "getOrAddNodeByString")
        self._list, self._ordered_set = jpype.JClass("java.util.ArrayList"), jpype.JClass("java.util.LinkedHashSet")

    def build(self, captions: list[list[list[str]]]) -> Any:
        """Returns one SceneGraph of the tuples of all captions."""
        self._order.reset()
        graph = self._graph(self._synonyms, True)
        self._graph_field.set(graph, self._multigraph(self._by_age, self._linked))
        for words in (one for caption in captions for one in caption):
            if len(words) == 2:
                self._order_attributes(self._node.invoke(graph, words[0]))
            graph.addTuple(self._list(words))
        return graph

    def _order_attributes(self, node: Any) -> None:
        """Gives the node a set that keeps the order of its attributes."""
        if not isinstance(self._attributes_field.get(node), self._ordered_set):
            self._attributes_field.set(node, self._ordered_set())


class _NewestFirst:
    """A java.util.Comparator that orders objects by when it first saw them, the newest first.

    It is composed of Java's own methods: a map from an object's identity to a number that counts down. A comparator in
    Python would be called from Java for every comparison.
    """

    def __init__(self):
        self._ages = jpype.JClass("java.util.IdentityHashMap")()
        self._counter = jpype.JClass("java.util.concurrent.atomic.AtomicInteger")()
        handles = jpype.JClass("java.lang.invoke.MethodHandles")
        method_type = jpype.JClass("java.lang.invoke.MethodType").methodType
        as_function = jpype.JClass("java.lang.invoke.MethodHandleProxies").asInterfaceInstance
        function, anything = jpype.JClass("java.util.function.Function"), jpype.JClass("java.lang.Object")
        lookup = handles.publicLookup()
        next_age = lookup.findVirtual(
            self._counter.getClass(), "decrementAndGet", method_type(jpype.JClass("java.lang.Integer").TYPE)
        ).bindTo(self._counter)
        give_age = as_function(function.class_, handles.dropArguments(next_age, 0, anything.class_))
        age = lookup.findVirtual(
            jpype.JClass("java.util.Map").class_, "computeIfAbsent", method_type(anything, anything, function)
        ).bindTo(self._ages)
        age_of = as_function(function.class_, handles.insertArguments(age, 1, give_age))
        self.comparator = jpype.JClass("java.util.Comparator").comparing(age_of)

    def reset(self) -> None:
        """Forgets all objects. Maps that were ordered before must not be searched afterwards."""
        self._ages.clear()
        self._counter.set(0)


def _accessible(members: Any, name: str) -> Any:
    member = next(m for m in members if m.getName() == name)
    member.setAccessible(True)
    return member
