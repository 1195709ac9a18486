"""What the splits of a data set hold, counted: captions, their words, and what comes twice."""

import collections
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spidercap.models.special_tokens import SPECIAL_TOKENS
from spidercap.pipeline.data.overlap import images_of, shared
from spidercap.pipeline.data.records import Split
from spidercap.pipeline.data.tokens import TokenizedSplit
from spidercap.pipeline.text.vocabulary import Vocabulary

Tokens = Sequence[Sequence[Sequence[str]]]  # [I][R][words]


@dataclass(frozen=True)
class Captions:
    """The captions of a split; two are equal if their words are."""

    count: int
    distinct: int
    per_image: tuple[int, float, int]  # the least, the mean, the most
    lengths: Mapping[int, int]  # captions by their number of words
    cut: int  # longer than max_length tokens


@dataclass(frozen=True)
class Coverage:
    """How much of the captions of a split the vocabulary can say."""

    words: int
    known_words: int
    captions: int
    known_captions: int  # without an unknown word
    unknown: tuple[tuple[str, int], ...]  # unknown words with their counts, the most frequent first


@dataclass(frozen=True)
class Repeated:
    """Captions that an image has more than once."""

    count: int  # how many could be removed
    images: int
    examples: tuple[tuple[str, str], ...]  # the file name and such a caption as written, of the first images


@dataclass(frozen=True)
class Shared:
    """Images of the split `name` that are in the split `other`, too, by contents or by file name."""

    name: str
    other: str
    file_names: tuple[str, ...]
    of: int  # images of the split


def caption_facts(tokens: Tokens, max_length: int) -> Captions:
    """Returns the counts of captions; one is cut if it has more than `max_length` tokens, end token included."""
    captions = list(itertools.chain.from_iterable(tokens))
    lengths = collections.Counter(map(len, captions))
    sizes = [len(of_image) for of_image in tokens]
    return Captions(
        count=len(captions),
        distinct=len(set(map(tuple, captions))),
        per_image=(min(sizes), len(captions) / len(sizes), max(sizes)),
        lengths=dict(sorted(lengths.items())),
        cut=sum(count for length, count in lengths.items() if length + 1 > max_length),
    )


def word_counts(tokens: Tokens) -> collections.Counter[str]:
    """Returns how often each word occurs in the captions."""
    in_captions = itertools.chain.from_iterable(tokens)
    return collections.Counter(itertools.chain.from_iterable(in_captions))


def coverage(tokens: Tokens, vocabulary: Vocabulary, most: int) -> Coverage:
    """Returns how much of the captions the vocabulary covers, and the `most` frequent words that it lacks."""
    known = frozenset(vocabulary.words[len(SPECIAL_TOKENS) :])
    counts = word_counts(tokens)
    unknown = {word: count for word, count in counts.items() if word not in known}
    whole = [known.issuperset(words) for of_image in tokens for words in of_image]
    return Coverage(
        words=counts.total(),
        known_words=counts.total() - sum(unknown.values()),
        captions=len(whole),
        known_captions=sum(whole),
        unknown=most_frequent(unknown, most),
    )


def most_frequent(counts: Mapping[str, int], most: int) -> tuple[tuple[str, int], ...]:
    """Returns the `most` frequent words with their counts, ties in alphabetical order."""
    return tuple(sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:most])


def equal_images(split: Split) -> list[tuple[str, ...]]:
    """Returns the file names of images with equal contents, a tuple for each content that comes more than once."""
    by_key: dict[str, list[str]] = {}
    for key, name in zip(split.keys, split.file_names, strict=True):
        by_key.setdefault(key, []).append(name)
    return [tuple(names) for names in by_key.values() if len(names) > 1]


def repeated_captions(split: TokenizedSplit, most: int) -> Repeated:
    """Returns how many captions are equal to an earlier one of their image, with at most `most` examples."""
    texts = list(split.texts())
    rows = [row for row, of_image in enumerate(texts) if len(set(of_image)) < len(of_image)]
    examples = []
    for row in rows[:most]:
        again, _ = collections.Counter(texts[row]).most_common(1)[0]
        examples.append((split.file_names[row], split.captions[row][texts[row].index(again)]))
    count = sum(len(texts[row]) - len(set(texts[row])) for row in rows)
    return Repeated(count, len(rows), tuple(examples))


def shared_images(splits: Mapping[str, Split]) -> list[Shared]:
    """Returns for each pair of splits that shares images those of the later split."""
    images = {name: images_of(split) for name, split in splits.items()}
    found = []
    for other, name in itertools.combinations(splits, 2):
        rows = np.flatnonzero(shared(images[other], images[name])).tolist()
        if rows:
            names = splits[name].file_names
            found.append(Shared(name, other, tuple(names[row] for row in rows), len(names)))
    return found
