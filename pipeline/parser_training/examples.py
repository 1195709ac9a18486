"""Captions and their tuples as training batches of the parser.

Shapes: N captions, T words of the longest in a batch, R relations.
"""

import collections
import gzip
import json
import pathlib
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from spidercap.models.scene_parser import FORMS
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.metrics.spice_fast.scene_graph import Tuples
from spidercap.pipeline.parser_training.alignment import OPEN, Example
from spidercap.pipeline.text.formats.table import read_contents
from spidercap.pipeline.text.tokenizer import tokenize

LENGTHS = (7, 9, 10, 11, 12, 14, 17, 21, 28)  # T of batches; a step is compiled for each
LONGEST = LENGTHS[-1]


class Examples(NamedTuple):
    """Examples of captions, padded."""

    words: np.ndarray  # int32 [N, T], indices into a list of words, 0 is padding
    objects: np.ndarray  # int8 [N, T]: 1, 0 or OPEN
    forms: np.ndarray  # bool [N, T, 3]
    attributes: np.ndarray  # int8 [N, T, T]: 1, 0 or OPEN
    relations: np.ndarray  # int8 [N, T, T]: 1, 0 or OPEN
    named: np.ndarray  # int32 [R, 5]: caption, subject, object, the word that names the relation, label


def read_captions(paths: Sequence[pathlib.Path]) -> list[tuple[list[str], Tuples]]:
    """Returns words and tuples of the captions in JSON lines {"caption": "a dog", "tuples": [["dog"]]}.

    If a caption comes twice, its first tuples count. Captions without words are left out.

    Raises:
      UserError: a file cannot be read, or a line has another form.
    """
    captions: dict[str, Tuples] = {}
    for path in paths:
        try:
            with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    caption, tuples = _one(line, f"{path}, line {number}")
                    captions.setdefault(caption, tuples)
        except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
            raise UserError(f"{path} cannot be read ({error}); needed: JSON lines, plain or gzip") from error
    return [(caption.split(), tuples) for caption, tuples in captions.items() if caption]


def read_texts(path: str) -> list[list[str]]:
    """Returns the words of all captions in a file of references or results, of any format that `read_contents` reads.

    Raises:
      UserError: the file cannot be read.
    """
    return [tokenize(caption) for row in read_contents(path).rows for caption in row.captions]


def _one(line: str, where: str) -> tuple[str, Tuples]:
    try:
        found = json.loads(line)
        caption, tuples = found["caption"], found["tuples"]
        if not all(1 <= len(one) <= 3 and all(isinstance(part, str) for part in one) for one in tuples):
            raise ValueError("tuples are lists of one to three strings")
        json.dumps(found, ensure_ascii=False).encode()  # a lone surrogate is a ValueError
        tuples = [[" ".join(part.split()) for part in one] for one in tuples]
        if not all(all(one) for one in tuples):
            raise ValueError("a tuple holds a string without a word")
        return " ".join(caption.split()), tuples
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f'{where} is not a caption with tuples ({error}); needed: {{"caption": "a dog", "tuples": [["dog"]]}}'
        ) from error


class Batches:
    """Batches of examples of similar length, in memory."""

    def __init__(self, examples: Sequence[Example], word_ids: dict[str, int], size: int):
        """`size`: captions per batch."""
        by_length = collections.defaultdict(list)
        for example in examples:
            by_length[next(length for length in LENGTHS if len(example.words) <= length)].append(example)
        self._size = size
        self._padded = {length: _padded(those, length, word_ids) for length, those in sorted(by_length.items())}

    @property
    def captions(self) -> int:
        """Number of captions."""
        return sum(len(padded.words) for padded, _ in self._padded.values())

    @property
    def steps(self) -> int:
        """Number of batches in an epoch."""
        return sum(-(-len(padded.words) // self._size) for padded, _ in self._padded.values())

    def epoch(self, seed: int, number: int) -> Iterator[Examples]:
        """Yields all examples once, in an order that depends on the seed and the epoch."""
        rng = np.random.default_rng([seed, number])
        parts = []
        for length, (padded, _) in self._padded.items():
            order = rng.permutation(len(padded.words))
            parts += [(length, order[k : k + self._size]) for k in range(0, len(order), self._size)]
        for place in rng.permutation(len(parts)):
            length, rows = parts[place]
            yield _chosen(*self._padded[length], rows)


def _padded(examples: Sequence[Example], length: int, word_ids: dict[str, int]) -> tuple[Examples, np.ndarray]:
    """All examples of a length, and the index of the first relation of each, `[N + 1]`."""
    shape = len(examples), length
    padded = Examples(
        np.zeros(shape, np.int32),
        np.full(shape, OPEN, np.int8),
        np.ones([*shape, len(FORMS)], bool),
        np.full([*shape, length], OPEN, np.int8),
        np.full([*shape, length], OPEN, np.int8),
        np.concatenate(
            [np.insert(example.named, 0, row, axis=1) for row, example in enumerate(examples)], dtype=np.int32
        ),
    )
    for row, example in enumerate(examples):
        size = len(example.words)
        padded.words[row, :size] = [word_ids[word] for word in example.words]
        padded.objects[row, :size] = example.objects
        padded.forms[row, :size] = example.forms
        padded.attributes[row, :size, :size] = example.attributes
        padded.relations[row, :size, :size] = example.relations
    for table in (padded.attributes, padded.relations):  # no word is paired with itself
        table[:, np.arange(length), np.arange(length)] = OPEN
    return padded, np.searchsorted(padded.named[:, 0], np.arange(len(examples) + 1))


def _chosen(padded: Examples, begins: np.ndarray, rows: np.ndarray) -> Examples:
    counts = begins[rows + 1] - begins[rows]
    place = np.repeat(begins[rows], counts) + np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    named = padded.named[place]
    named[:, 0] = np.repeat(np.arange(len(rows)), counts)
    return Examples(*(array[rows] for array in padded[:-1]), named)
