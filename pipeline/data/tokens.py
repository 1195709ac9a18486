"""The captions of a split as tokens, and the arrays that training reads."""

import array
import collections
import dataclasses
import itertools
import pathlib
import unicodedata
from collections.abc import Sequence

import numpy as np

from spidercap.models.special_tokens import END
from spidercap.pipeline.cached_arrays import Arrays, cached_arrays, entry, key_of, packed_texts, unpacked_texts
from spidercap.pipeline.data.batches import TrainingArrays
from spidercap.pipeline.data.feature_store import Features
from spidercap.pipeline.data.records import Split
from spidercap.pipeline.metrics.size_classes import size_classes
from spidercap.pipeline.text import tokenizer
from spidercap.pipeline.text.coco_json import ImageId
from spidercap.pipeline.text.flat_tokens import FlatTokens, OfImages, Words, begins
from spidercap.pipeline.text.tokenizer import tokenize
from spidercap.pipeline.text.vocabulary import Vocabulary

CACHE = "tokens"  # folder in the cache


@dataclasses.dataclass(frozen=True)
class TokenizedSplit:
    """A split's captions as tokens, in the order of its records."""

    image_ids: tuple[ImageId, ...]  # [I]
    file_names: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]  # as written
    words: Words

    @property
    def tokens(self) -> OfImages[list[str]]:
        """The words of each caption, `[I][R][words]`."""
        return self.words.lists()

    def texts(self) -> OfImages[str]:
        """Returns the tokenised captions `[I][R]` as text, words split by one space."""
        return self.words.texts()


def tokenize_split(split: Split, cache: pathlib.Path | None = None) -> TokenizedSplit:
    """Returns the split with every caption tokenised, once for all runs that share the folder `cache`."""
    counts = np.array([len(of_image) for of_image in split.captions], np.int64)
    flat = list(itertools.chain.from_iterable(split.captions))
    folder = cache and entry(cache, CACHE, _key(flat))
    found = cached_arrays(folder, ("words", "numbers", "captions"), lambda: _tokenized(flat))
    words = Words(unpacked_texts(found["words"]), FlatTokens(found["numbers"], found["captions"], begins(counts)))
    return TokenizedSplit(split.image_ids, split.file_names, split.captions, words)


def training_arrays(
    split: TokenizedSplit, vocabulary: Vocabulary, features: Features | np.ndarray, max_length: int
) -> TrainingArrays:
    """Returns the arrays that the train steps read, with features `[I, N, F]`."""
    words = split.words
    references = words.numbers._replace(tokens=vocabulary.reference_ids(words.different)[words.numbers.tokens])
    references = references.ended(END)
    tokens = references._replace(tokens=vocabulary.likelihood_ids(references.tokens)).padded(max_length)
    image_index = np.repeat(np.arange(len(references.images) - 1, dtype=np.int32), references.counts)
    return TrainingArrays(features, tokens, image_index, size_classes(references))


def _key(captions: Sequence[str]) -> str:
    """Changes with the captions, the rules, and Python's table of characters."""
    lengths = np.fromiter(map(len, captions), np.int64, len(captions))
    return key_of("".join(captions), lengths, pathlib.Path(tokenizer.__file__), unicodedata.unidata_version)


def _tokenized(captions: Sequence[str]) -> Arrays:
    """The number of each word `[S]` in a list of different ones, and where each caption begins."""
    numbers: dict[str, int] = collections.defaultdict()
    numbers.default_factory = numbers.__len__
    flat, lengths = array.array("i"), array.array("i")
    for caption in captions:
        tokens = tokenize(caption)
        flat.extend(map(numbers.__getitem__, tokens))
        lengths.append(len(tokens))
    return {
        "words": packed_texts(tuple(numbers)),
        "numbers": np.array(flat, np.int32),
        "captions": begins(lengths),
    }
