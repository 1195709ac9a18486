"""The parser's inputs for words: ids of known words, and hash buckets of prefixes and suffixes for all words."""

import zlib
from collections.abc import Sequence

import numpy as np

AFFIXES = 5


def affix_buckets(word: str, buckets: int) -> list[int]:
    """Returns AFFIXES ids below `buckets`: of the last 1, 2, 3 and 4 letters of the word, and of its first 3."""
    parts = [f"-{word[-k:]}" for k in (1, 2, 3, 4)] + [f"{word[:3]}-"]
    return [zlib.crc32(part.encode()) % buckets for part in parts]


def word_ids(words: Sequence[str], known: Sequence[str], buckets: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns int32 ids `[V]` of words, from 1 for `known` ones and 0 for others, and their buckets `[V, AFFIXES]`."""
    ids = {word: 1 + k for k, word in enumerate(known)}
    affixes = np.array([affix_buckets(word, buckets) for word in words], np.int32).reshape(-1, AFFIXES)
    return np.array([ids.get(word, 0) for word in words], np.int32), affixes
