"""SPICE with a learned parser: the metric on token ids, compiled, and on text.

Anderson, Fernando, Johnson, Gould, "SPICE: Semantic Propositional Image Caption Evaluation" (ECCV 2016), with
SceneGraphParser instead of CoreNLP and its rules.
"""

import concurrent.futures
import contextlib
import functools
import itertools
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from spidercap.pipeline.cached_arrays import entry, key_of
from spidercap.pipeline.metrics.compiled import family_of_one
from spidercap.pipeline.metrics.ngrams import caption_codes, without_end
from spidercap.pipeline.metrics.spice import f_score
from spidercap.pipeline.metrics.spice_fast import scene_graph
from spidercap.pipeline.metrics.spice_fast.levels import THRESHOLDS
from spidercap.pipeline.metrics.spice_fast.matching import Matcher
from spidercap.pipeline.metrics.spice_fast.parser import Lexicon, SceneGraphParser, graded, likely
from spidercap.pipeline.metrics.spice_fast.parser_file import load_parser
from spidercap.pipeline.metrics.spice_fast.synonyms import synonyms_data, wordnet_synonyms
from spidercap.pipeline.metrics.spice_fast.version import RULE
from spidercap.pipeline.metrics.text_metrics import Bar, Evaluated, TextSettings, no_bar, with_references
from spidercap.pipeline.text.flat_tokens import FlatTokens, words_of

VERSION = 3  # of the code that makes tables of references; another one makes them again
PART = 2_000  # images whose references are parsed at once, which bounds memory


class SpiceFast:
    """Scores captions on token ids against references that are parsed once.

    A few captions score slightly differently than on text. One reason is the difference of Matcher. The other is that
    relations of a verb and a label ("hold up") are numbers here, without WordNet's synonyms.
    """

    def __init__(
        self,
        parser: SceneGraphParser,
        words: Sequence[str],
        references: Sequence[Sequence[str]],
        cache: pathlib.Path | None = None,
    ):
        """Parses the references, unless the cache holds what is made of them.

        Args:
          parser: of captions and references.
          words: the string of each token id; of equal strings, the last one is used.
          references: the references of each image as text, words separated by one space.
          cache: a folder.
        """
        captions, strings = _encoded(references, words)
        lexicon = parser.lexicon(strings)
        # Not without a cache: a key is a digest of all words of all references.
        folder = cache and entry(cache, "spice_fast", _key(parser, len(words), strings, captions))
        said = parser.said(lexicon, len(words))
        graphs = functools.partial(_graphs, parser, captions, lexicon)
        self._parser, self._tables = parser, lexicon.tables.of_first(len(words))
        self._matcher = Matcher(lexicon.terms, graphs, folder=folder, said=said)

    def __call__(self, captions: tf.Tensor, image_index: tf.Tensor) -> tf.Tensor:
        """Returns float32 `[N]`, the F-score of the tuples of captions `[N, T]` of images `[N]`; 0 without tuples.

        Equal captions, which are frequent in rollouts, are parsed once.
        """
        captions = tf.cast(without_end(captions), tf.int32)
        distinct, place = tf.unique(caption_codes(captions))
        first = tf.math.unsorted_segment_min(tf.range(tf.shape(captions)[0]), place, tf.shape(distinct)[0])
        tuples = tf.gather(self._parser(tf.gather(captions, first), self._tables), place)
        matched, predicted, true = tf.unstack(tf.cast(self._matcher(tuples, image_index), tf.float32), axis=1)
        return tf.math.divide_no_nan(2 * matched, predicted + true)


class TextSpiceFast:
    """Scores tokenised captions against references; every caption is parsed once."""

    def __init__(self, parser: SceneGraphParser):
        self._parser = parser
        self._known: dict[str, dict[tuple[str, ...], int]] = {}
        self._senses = functools.cache(wordnet_synonyms())  # a few thousand terms come a million times

    def score(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
        """Returns int64 `[N, 3]` of N captions: sums of levels of tuples matched, the candidate's, the references'."""
        self._parse(with_references(candidates, references))
        counts = [
            scene_graph.counts(self._known[candidate], [self._known[caption] for caption in of_image], self._senses)
            for candidate, of_image in zip(candidates, references, strict=True)
        ]
        return np.array(counts, np.int64).reshape(-1, 3)

    def rewards(self, captions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
        """Returns float64 `[N]`; 0 if neither caption nor references hold a tuple."""
        return np.nan_to_num(f_score(self.score(captions, references)))

    def evaluate(self, captions: Sequence[str], references: Sequence[Sequence[str]], bar: Bar = no_bar) -> Evaluated:
        """Returns the mean over captions, and the score of each."""
        each = self.rewards(captions, references)
        return Evaluated(float(each.mean()) if len(each) else 0.0, each, version=self._parser.version)

    def tuples(self, captions: Sequence[str]) -> list[list[tuple[str, ...]]]:
        """Returns the likely tuples of captions, words separated by one space, in the parser's order."""
        self._parse(captions)
        return [likely(self._known[caption]) for caption in captions]

    def _parse(self, captions: Sequence[str]) -> None:
        new = [caption for caption in dict.fromkeys(captions) if caption not in self._known]
        if not new:
            return
        tuples = graded(self._parser, [caption.split() for caption in new])
        self._known |= zip(new, tuples, strict=True)


SPICE_FAST = family_of_one(
    "spice_fast",
    lambda inputs: SpiceFast(load_parser(), inputs.texts.vocabulary.words, inputs.texts.references, inputs.cache),
    from_texts=True,
)


def open_spice_fast(stack: contextlib.ExitStack, settings: TextSettings) -> TextSpiceFast:
    """Returns SPICE-fast on text with the packaged parser."""
    return TextSpiceFast(load_parser())


def _key(parser: SceneGraphParser, words: int, strings: Sequence[str], captions: FlatTokens) -> str:
    """Changes with the references, the parser, the synonyms, the rule by which tuples count, and VERSION."""
    return key_of(
        VERSION, RULE, str(THRESHOLDS), words, "\n".join(strings), *captions, synonyms_data(), *parser.arrays()
    )


def _graphs(parser: SceneGraphParser, captions: FlatTokens, lexicon: Lexicon) -> Iterator[np.ndarray]:
    """Yields the tuples and levels `[n, 4]` of each image's references, together."""
    images = len(captions.images) - 1
    parts = [captions.part(first, min(first + PART, images)) for first in range(0, images, PART)]
    # The next part is parsed while the caller works on this one: both take about as long.
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        ahead = [thread.submit(parser.parse, part, lexicon) for part in parts[:1]]
        for number, part in enumerate(parts):
            found = ahead.pop().result()
            ahead += [thread.submit(parser.parse, part, lexicon) for part in parts[number + 1 : number + 2]]
            for begin, end in itertools.pairwise(part.images.tolist()):
                together = np.concatenate([np.zeros([0, 4], np.int32), *found[begin:end]])
                yield together[together[:, 0] > 0]


def _encoded(references: Sequence[Sequence[str]], words: Sequence[str]) -> tuple[FlatTokens, list[str]]:
    """The references, and the string of each of their tokens: `words`, then new words."""
    given = words_of(references)
    known = set(words[1:])  # without padding, so that a word spelt "<pad>" is a new word
    strings = [*words, *(word for word in given.different if word not in known)]
    ids = {word: place for place, word in enumerate(strings) if place}
    table = np.array([ids[word] for word in given.different], np.int32)
    return given.numbers._replace(tokens=table[given.numbers.tokens]), strings
