"""Aligns SPICE's tuples of a caption with its words: the parser's targets for each word and pair of words.

Tuples hold lemmas, not positions. If a lemma may come from several words, the nearest pair is the target. The others
are OPEN, that is, excluded from the loss, because they give the same tuple.
"""

import collections
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from spidercap.models.scene_parser import FORMS
from spidercap.pipeline.metrics.spice_fast.lemmas import Lemmas
from spidercap.pipeline.metrics.spice_fast.parser import NAME
from spidercap.pipeline.metrics.spice_fast.scene_graph import Tuples

OPEN = -1
MIN_LABEL = 5  # minimum count of a label
MIN_LEMMA = 2


class Example(NamedTuple):
    """A caption of T words and its targets."""

    words: list[str]
    objects: np.ndarray  # int8 [T]: 1 for an object, OPEN
    forms: np.ndarray  # bool [T, 3]: which of FORMS give the lemma; all if it is unknown
    attributes: np.ndarray  # int8 [T, T]: 1 for (head, attribute), OPEN
    relations: np.ndarray  # int8 [T, T]: 1 for (subject, object), OPEN
    named: np.ndarray  # int32 [R, 4]: subject, object, 0 or 1 + the word that names the relation, label


def learn_lemmas(captions: Iterable[tuple[list[str], Tuples]]) -> Lemmas:
    """Returns lemmas learned from captions: rules, and a table of their exceptions.

    A lemma that the rules derive from no word of its caption is assigned to a word of similar spelling, or to the word
    that occurs most often with it and rarely without it.
    """
    captions = list(captions)
    seen = [collections.Counter(), collections.Counter()]
    for _, tuples in captions:
        for is_verb, lemma in _lemmas_in(tuples):
            seen[is_verb][lemma] += 1
    known = [{lemma for lemma, times in of_kind.items() if times >= MIN_LEMMA} for of_kind in seen]
    rules = Lemmas({}, {}, known[0] | known[1])
    present = collections.Counter(word for words, _ in captions for word in set(words))
    unexplained = [collections.Counter(), collections.Counter()]
    together = [collections.Counter(), collections.Counter()]
    for words, tuples in captions:
        for is_verb, lemma in set(_lemmas_in(tuples)):
            made = {word for word in words for word in (word, rules.verb(word) if is_verb else rules.noun(word))}
            if lemma not in made:
                unexplained[is_verb][lemma] += 1
                together[is_verb].update((word, lemma) for word in set(words))
    tables: list[dict[str, str]] = []
    for is_verb in (0, 1):
        best: dict[str, tuple[int, str]] = {}
        source: dict[str, tuple[float, str]] = {}
        for (word, lemma), times in together[is_verb].items():
            share = times / present[word]
            if times > 0.6 * unexplained[is_verb][lemma] and share > 0.2:
                source[lemma] = max(source.get(lemma, (0.0, "")), (share, word))
        for (word, lemma), times in together[is_verb].items():
            alike = _alike(word, lemma) and times > 0.02 * present[word]
            if times >= MIN_LEMMA and (alike or source.get(lemma, (0.0, ""))[1] == word):
                best[word] = max(best.get(word, (0, "")), (times, lemma))
        tables.append({word: lemma for word, (_, lemma) in best.items()})
    return Lemmas(tables[0], tables[1], known[0] | known[1])


def _lemmas_in(tuples: Tuples) -> Iterator[tuple[int, str]]:
    for one in tuples:
        yield from ((0, lemma) for lemma in one[:2])
        if len(one) == 3:
            yield 1, one[2].split(" ")[0]


def _alike(word: str, lemma: str) -> bool:
    common = next((k for k, (a, b) in enumerate(zip(word, lemma, strict=False)) if a != b), min(len(word), len(lemma)))
    return common >= max(3, len(lemma) - 2) and len(word) < len(lemma) + 5


def learn_labels(captions: Iterable[tuple[list[str], Tuples]], lemmas: Lemmas) -> tuple[str, ...]:
    """Returns the labels of relations, such as 'in front of', or '~ on' for the lemma of a verb and 'on'.

    A first word that always occurs unchanged in the caption, unlike verbs, is part of the label.
    """
    relations, first_words = collections.Counter(), collections.Counter()
    unchanged, unnamed = collections.Counter(), collections.Counter()
    for words, tuples in captions:
        for one in tuples:
            if len(one) == 3:
                first = one[2].split(" ")[0]
                relations[one[2]] += 1
                first_words[first] += 1
                unchanged[first] += first in words
                unnamed[first] += all(lemmas.verb(word) != first for word in words)
    fixed = {word for word, times in first_words.items() if times >= 20 and unchanged[word] >= 0.97 * times}
    implicit = {word for word, times in first_words.items() if times >= 20 and unnamed[word] >= 0.9 * times}
    labels = collections.Counter()
    for relation, times in relations.items():
        first, _, rest = relation.partition(" ")
        labels[relation if first in fixed or relation == "have" else f"{NAME} {rest}".strip()] += times
        if first in implicit and not rest:
            labels[relation] += times  # no word of the caption names it: 'tmod'
    kept = [label for label, times in labels.most_common() if times >= MIN_LABEL]
    return tuple(kept if NAME in kept else [NAME, *kept])


class Aligner:
    """Finds the words from which tuples come."""

    def __init__(self, lemmas: Lemmas, labels: Sequence[str]):
        self._lemmas = lemmas
        self._labels = {label: k for k, label in enumerate(labels)}

    def __call__(self, words: list[str], tuples: Tuples) -> Example:
        """Returns the targets of the words; tuples that come from no words are ignored."""
        size = len(words)
        of_word = [self._lemmas.forms(word) for word in words]
        places: dict[str, list[int]] = {}
        for place, forms in enumerate(of_word):
            for lemma in set(forms):
                places.setdefault(lemma, []).append(place)
        objects, named = np.zeros(size, np.int8), []
        attributes, relations = np.zeros([2, size, size], np.int8)
        forms = np.zeros([size, len(FORMS)], bool)

        def seen(place: int, lemma: str) -> None:
            forms[place] |= [form == lemma for form in of_word[place]]

        for one in tuples:
            here = [places.get(lemma, []) for lemma in one[:2]]
            if not all(here):
                continue
            if len(one) == 1:
                objects[here[0]] = 1 if len(here[0]) == 1 else OPEN
                if len(here[0]) > 1:  # some word of these
                    objects[here[0][0]] = 1
                for place in here[0]:
                    seen(place, one[0])
                continue
            pairs = [(a, b) for a in here[0] for b in here[1] if a != b]
            if not pairs:
                continue
            # Attributes mostly come before their heads, objects after their subjects.
            sign = 1 if len(one) == 3 else -1
            head, other = min(pairs, key=lambda pair: (abs(pair[1] - pair[0]), sign * (pair[0] - pair[1])))
            table = relations if len(one) == 3 else attributes
            for pair in pairs:
                table[pair] = table[pair] or OPEN
            table[head, other] = 1
            seen(head, one[0]), seen(other, one[1])
            if len(one) == 3:
                name = self._name(one[2], places, of_word, head, other)
                if name is None:
                    table[head, other] = OPEN
                else:
                    named.append((head, other, *name))
        forms[~forms.any(axis=1)] = True
        return Example(words, objects, forms, attributes, relations, np.array(named, np.int32).reshape(-1, 4))

    def _name(
        self, relation: str, places: dict[str, list[int]], of_word: list[tuple[str, ...]], head: int, other: int
    ) -> tuple[int, int] | None:
        """0 or 1 + the place of the word that names the relation, and its label; None for a relation without label."""
        first, _, rest = relation.partition(" ")
        verb = f"{NAME} {rest}".strip()
        as_label = relation in self._labels
        choices = [k for k in places.get(first, []) if k not in (head, other)]
        if as_label:
            choices = [k for k in choices if of_word[k][0] == first or relation == "have"]
        else:
            choices = [k for k in choices if of_word[k][2] == first]
        if not choices:
            return (0, self._labels[relation]) if as_label else None
        label = self._labels.get(relation if as_label else verb)
        if label is None:
            return None
        low, high = min(head, other), max(head, other)

        def outside(place: int) -> tuple[int, int]:
            return max(low - place, place - high, 0), abs(other - place)

        return 1 + min(choices, key=outside), label


def tuples_of(words: Sequence[str], example: Example, lemmas: Lemmas, labels: Sequence[str]) -> set[tuple[str, ...]]:
    """Returns the tuples of an example, which a parser without errors would predict."""
    forms = [lemmas.forms(word) for word in words]

    def lemma(place: int) -> str:
        return forms[place][int(np.argmax(example.forms[place]))]

    tuples: set[tuple[str, ...]] = {(lemma(place),) for place in np.flatnonzero(example.objects == 1)}
    tuples |= {(lemma(head), lemma(other)) for head, other in np.argwhere(example.attributes == 1)}
    for subject, other, pointed, label in example.named:
        name = labels[label].replace(NAME, forms[pointed - 1][2]) if pointed else labels[label]
        tuples.add((lemma(subject), lemma(other), name))
    return tuples
