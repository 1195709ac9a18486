"""Words <-> token ids, by minimum count. Rare words keep ids that no caption can contain."""

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from spidercap.models.special_tokens import END, SPECIAL_TOKENS, UNKNOWN
from spidercap.pipeline.errors import UserError


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """`words`: those that can be generated, special tokens first; `rare_words`: below the minimum count in training."""

    words: tuple[str, ...]
    rare_words: tuple[str, ...]

    @property
    def reference_size(self) -> int:
        """Number of ids that `reference_ids` can return."""
        return len(self.words) + len(self.rare_words) + 1

    def reference_ids(self, words: Sequence[str]) -> np.ndarray:
        """Returns ids int32 `[W]` of words for scoring: a rare word has its own id >= V, which no caption can match.

        Words never seen in training share the last id, because they occur in no training reference.
        """
        ids = {word: i for i, word in enumerate(self.words + self.rare_words)}
        return np.array([ids.get(word, len(ids)) for word in words], np.int32)

    def likelihood_ids(self, reference_ids: np.ndarray) -> np.ndarray:
        """Returns such ids for teacher forcing, of any shape: rare and new words are UNKNOWN."""
        return np.where(reference_ids < len(self.words), reference_ids, np.int32(UNKNOWN))

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the caption of token ids `[T]`, up to the end token."""
        words = []
        for i in ids:
            if i == END:
                break
            if i >= len(SPECIAL_TOKENS):
                words.append(self.words[i])
        return " ".join(words)

    def to_json(self) -> str:
        """Returns the JSON that `load_vocabulary` reads."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False) + "\n"


def build_vocabulary(counts: Mapping[str, int], min_word_count: int) -> Vocabulary:
    """Returns the vocabulary of counted words, most frequent words first, ties in alphabetical order.

    Raises:
      UserError: no word is frequent enough.
    """
    ordered = sorted(counts, key=lambda w: (-counts[w], w))
    frequent = tuple(w for w in ordered if counts[w] >= min_word_count)
    if not frequent:
        raise UserError(
            f"no word occurs {min_word_count} times in the training captions ({len(counts)} different words); "
            "lower --min_word_count or give more captions"
        )
    return Vocabulary(SPECIAL_TOKENS + frequent, tuple(w for w in ordered if counts[w] < min_word_count))


def load_vocabulary(path: pathlib.Path) -> Vocabulary:
    """Returns the vocabulary saved at `path`."""
    saved = json.loads(path.read_text(encoding="utf-8"))
    return Vocabulary(tuple(saved["words"]), tuple(saved["rare_words"]))


def pad(captions: Sequence[Sequence[int]], length: int) -> np.ndarray:
    """Returns int32 `[N, length]`; longer captions are cut and have no end token."""
    padded = np.zeros([len(captions), length], np.int32)
    for row, ids in zip(padded, captions, strict=True):
        row[: len(ids)] = ids[:length]
    return padded
