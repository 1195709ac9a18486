"""Parses captions into the tuples of their scene graphs, compiled: token ids in, term ids out.

SPICE 1.0 parses captions with CoreNLP and a set of rules (Anderson et al., ECCV 2016, section 3.1; Schuster et al.,
2015). This parser is learned from captions that SPICE parsed: models/scene_parser.py is trained by
spidercap.pipeline.parser_training.main.

Shapes: N captions, T words, V words of a lexicon, P places for a caption's tuples. Levels: see levels.py.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from spidercap.models.blocks import in_blocks
from spidercap.models.packing import steps_of
from spidercap.models.scene_parser import Read, SceneParser
from spidercap.pipeline.metrics.spice_fast.lemmas import Lemmas
from spidercap.pipeline.metrics.spice_fast.levels import LIKELY, THRESHOLDS
from spidercap.pipeline.metrics.spice_fast.lexicon import word_ids
from spidercap.pipeline.metrics.spice_fast.places import in_places
from spidercap.pipeline.text.flat_tokens import FlatTokens, flat_tokens

NAME = "~"  # in a label: the lemma of the verb that names the relation
STEPS = 8  # captions are padded to multiples of this
USUAL = 64  # words of a caption; of longer ones fewer are parsed at once
PAIRS = 1024 * USUAL**2  # pairs of words of longer captions that are parsed at once
PLACES = 24  # minimum of P: 5 of 19,189 captions have more tuples


class Tables(NamedTuple):
    """The tables of a compiled parser for a vocabulary; id 0 is padding."""

    gates: tuple[tf.Tensor, tf.Tensor]  # float32 [V, 4 units], SceneParser.word_gates
    lemmas: tf.Tensor  # int32 [V, 3], terms of FORMS
    labels: tf.Tensor  # int32 [labels], terms of the labels without NAME
    being: tf.Tensor  # int32 [], the term 'be', which is left out of relations
    terms: tf.Tensor  # int32 [], number of terms

    def of_first(self, words: int) -> "Tables":
        """Returns the tables for captions of the first words."""
        first, second = self.gates
        return self._replace(gates=(first[:words], second[:words]), lemmas=self.lemmas[:words])


class Lexicon(NamedTuple):
    """A vocabulary for the parser."""

    tables: Tables
    terms: tuple[str, ...]  # the strings of terms; term 0 is no term


class SceneGraphParser:
    """A trained SceneParser, with the words, lemmas and labels of its training."""

    def __init__(
        self, network: SceneParser, words: Sequence[str], lemmas: Lemmas, labels: Sequence[str], version: str = ""
    ):
        """`words` have ids 1, 2 ... in the network; `labels` are in its order; `version` is that of its file."""
        self.version = version
        self.network, self.words, self.lemmas, self.labels = network, tuple(words), lemmas, tuple(labels)
        self._of_verb = tf.constant([label.startswith(NAME) for label in labels])
        self._bare = self.labels.index(NAME)
        self._compiled = tf.function(self.__call__, autograph=False, reduce_retracing=False)

    def arrays(self) -> list[np.ndarray | str]:
        """Returns all that its tuples depend on."""
        exceptions = [sorted(of.items()) for of in (self.lemmas.nouns, self.lemmas.verbs)]
        lists = [json.dumps([self.words, self.labels, exceptions, sorted(self.lemmas.known)])]
        return [*lists, *(weight.numpy() for weight in self.network.weights)]

    def lexicon(self, words: Sequence[str]) -> Lexicon:
        """Returns the lexicon of words `[V]`, the first of which is padding."""
        forms = [self.lemmas.forms(word) if place else ("", "", "") for place, word in enumerate(words)]
        fixed = [label.removeprefix(NAME).strip() for label in self.labels]
        terms = dict.fromkeys(["", "be", *(form for of_word in forms for form in of_word), *fixed])
        ids = {term: k for k, term in enumerate(terms)}
        known, affixes = word_ids(words, self.words, self.network.sizes.affixes)
        tables = Tables(
            self.network.word_gates(known, affixes),
            tf.constant([[ids[form] for form in of_word] for of_word in forms], tf.int32),
            tf.constant([ids[label] for label in fixed], tf.int32),
            tf.constant(ids["be"], tf.int32),
            tf.constant(len(terms), tf.int32),
        )
        return Lexicon(tables, tuple(terms))

    def said(self, lexicon: Lexicon, words: int) -> np.ndarray:
        """Returns bool: which of the lexicon's terms captions can hold that are made of its first `words` words."""
        tables = lexicon.tables
        found = np.zeros(len(lexicon.terms), bool)
        for terms in (tables.lemmas[:words], tables.labels, tables.being):
            found[terms.numpy().ravel()] = True
        return found

    def __call__(self, captions: tf.Tensor, tables: Tables) -> tf.Tensor:
        """Returns int32 `[N, P, 4]`, the tuples of captions `[N, T]` and their levels, with P = max(PLACES, T).

        The tuples are (subject, object, relation), (object, attribute, 0), (object, 0, 0), in this order, then zeros.
        A caption has at most PLACES of them, or as many as words if these are more: if there are too many, those of the
        lowest levels are left out, and at last those that come last.

        A relation of a verb and a label, such as 'sit on', is not a term of the lexicon; its number is above them.
        """
        captions = tf.cast(captions, tf.int32)
        places = captions.shape[1] and _places(captions.shape[1])
        shape = tf.TensorSpec([places, 4], tf.int32)
        (tuples,), _ = in_blocks(lambda block: ([self._tuples(block, tables)], ()), [captions], [shape])
        return tf.ensure_shape(tuples, [None, places, 4])

    def parse(self, captions: FlatTokens, lexicon: Lexicon) -> list[np.ndarray]:
        """Returns int32 `[P, 4]` of each of the captions, ids of the lexicon's words; not to be traced.

        Captions of similar length are parsed together, so that little time is spent on padding, and P depends on the
        length, so that a long caption takes no memory from the others.
        """
        steps = -(-np.maximum(captions.lengths, 1) // STEPS) * STEPS
        result: list[np.ndarray] = [_NO_TUPLES] * len(steps)
        # Of any length: tracing takes as long as parsing thousands of captions.
        specs = tf.nest.map_structure(
            lambda t: tf.TensorSpec([None, *t.shape[1:]][: t.shape.rank], t.dtype), lexicon.tables
        )
        call = self._compiled.get_concrete_function(tf.TensorSpec([None, None], tf.int32), specs)
        for length in np.unique(steps).tolist():
            rows = np.flatnonzero(steps == length)
            most = len(rows) if length <= USUAL else max(1, PAIRS // length**2)
            for begin in range(0, len(rows), most):
                here = rows[begin : begin + most]
                found = call(tf.constant(captions.padded(length, here)), lexicon.tables).numpy()
                for row, tuples in zip(here, found, strict=True):
                    result[row] = tuples
        return result

    def texts(self, tuples: Iterable[np.ndarray], lexicon: Lexicon) -> list[dict[tuple[str, ...], int]]:
        """Returns the tuples `[P, 4]` of captions as strings, like those of SPICE, with their levels."""
        result = []
        for of_caption in tuples:
            found: dict[tuple[str, ...], int] = {}
            for *terms, level in np.asarray(of_caption).tolist():
                if terms[0]:
                    text = self._text(terms, lexicon)
                    found[text] = max(level, found.get(text, 0))
            result.append(found)
        return result

    def _text(self, one: Sequence[int], lexicon: Lexicon) -> tuple[str, ...]:
        return tuple(self._string(term, lexicon) for term in one if term)

    def _string(self, term: int, lexicon: Lexicon) -> str:
        if term < len(lexicon.terms):
            return lexicon.terms[term]
        verb, label = divmod(term - len(lexicon.terms), len(self.labels))
        return self.labels[label].replace(NAME, lexicon.terms[verb])

    def _tuples(self, captions: tf.Tensor, tables: Tables) -> tf.Tensor:
        steps = steps_of(captions)
        read = self.network.read(captions, tables.gates)
        form = tf.argmax(read.forms, axis=2, output_type=tf.int32)
        lemmas = tf.gather(tf.reshape(tables.lemmas, [-1]), captions * 3 + form)  # [N, T]
        verbs = tf.gather(tables.lemmas[:, 2], captions)
        flat = tf.reshape(lemmas, [-1])
        both = tf.logical_and(read.there[:, :, None], read.there[:, None, :])
        both = tf.logical_and(both, ~tf.eye(steps, dtype=tf.bool))

        def terms(pairs, place):
            return tf.gather(flat, pairs[:, 0] * steps + pairs[:, place])

        related = _where(tf.logical_and(read.relations > THRESHOLDS[0], both))
        relations = self._relations(read, related, tf.reshape(verbs, [-1]), tables)
        described = _where(tf.logical_and(read.attributes > THRESHOLDS[0], both))
        objects = _where(tf.logical_and(read.objects > THRESHOLDS[0], read.there))
        found = [
            (related[:, 0], [terms(related, 1), terms(related, 2), relations], _levels(read.relations, related)),
            (described[:, 0], [terms(described, 1), terms(described, 2)], _levels(read.attributes, described)),
            (objects[:, 0], [terms(objects, 1)], _levels(read.objects, objects)),
        ]
        most = tf.maximum(PLACES, tf.reduce_sum(tf.cast(read.there, tf.int32), axis=1))
        return in_places(found, most, _places(steps))

    def _relations(self, read: Read, pairs: tf.Tensor, verbs: tf.Tensor, tables: Tables) -> tf.Tensor:
        """Terms `[R]` of the relations of pairs `[R, 3]`; `verbs` `[N T]` are lemmas as verbs."""
        pointers, ends = self.network.relations(read, pairs)
        pointed = tf.argmax(pointers, axis=1, output_type=tf.int32)
        logits = self.network.label_logits(read, pairs, ends, pointed)
        # A label with a verb needs a word that is pointed to.
        logits = tf.where(tf.logical_and(self._of_verb, pointed[:, None] == 0), -1e9, logits)
        label = tf.argmax(logits, axis=1, output_type=tf.int32)
        verb = tf.gather(verbs, pairs[:, 0] * steps_of(read.there) + tf.maximum(pointed - 1, 0))
        beside = tf.gather(tables.labels, label)
        named = tf.where(label == self._bare, verb, tables.terms + verb * len(self.labels) + label)
        named = tf.where(tf.logical_and(verb == tables.being, beside > 0), beside, named)
        return tf.where(tf.gather(self._of_verb, label), named, beside)


_NO_TUPLES = np.zeros([PLACES, 4], np.int32)


def _where(mask: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.where(mask), tf.int32)


def _levels(logits: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    """Returns int32 `[R]`, the levels of logits `[N, ...]` at places `[R, rank]`."""
    chosen = tf.gather_nd(logits, places)
    return tf.reduce_sum(tf.cast(chosen[:, None] > tf.constant(THRESHOLDS), tf.int32), axis=1)


def _places(steps: int | tf.Tensor) -> int | tf.Tensor:
    """P for captions of T words; at least T, because the matching needs a place for every object."""
    return tf.maximum(PLACES, steps) if tf.is_tensor(steps) else max(PLACES, steps)


def parsed(parser: SceneGraphParser, captions: Sequence[Sequence[str]]) -> list[list[tuple[str, ...]]]:
    """Returns the likely tuples of captions, each a list of words, as strings."""
    return [likely(tuples) for tuples in graded(parser, captions)]


def graded(parser: SceneGraphParser, captions: Sequence[Sequence[str]]) -> list[dict[tuple[str, ...], int]]:
    """Returns the tuples of captions, each a list of words, as strings, and their levels."""
    ids: dict[str, int] = {"": 0}
    rows = [[ids.setdefault(word, len(ids)) for word in words] for words in captions]
    lexicon = parser.lexicon(list(ids))
    return parser.texts(parser.parse(flat_tokens([rows]), lexicon), lexicon)


def likely(tuples: Mapping[tuple[str, ...], int]) -> list[tuple[str, ...]]:
    """Returns the tuples that are more likely than not, given all with their levels."""
    return [terms for terms, level in tuples.items() if level >= LIKELY]
