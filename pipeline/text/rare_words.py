"""How much of the captions is lost to words that are too rare to be generated, and what to do about it."""

from collections.abc import Mapping

from spidercap.models.special_tokens import SPECIAL_TOKENS
from spidercap.pipeline.text.vocabulary import Vocabulary

MANY = 0.1  # share of the captions' words; 6,000 images with five captions lose 0.03 by default, 300 images 0.13


def unknown_share(counts: Mapping[str, int], min_word_count: int) -> float:
    """Returns the share of the words of captions that occur less than `min_word_count` times in them."""
    return sum(n for n in counts.values() if n < min_word_count) / max(1, sum(counts.values()))


def vocabulary_line(vocabulary: Vocabulary, share: float) -> str:
    """Returns the number of words that can be generated, special tokens left out, and of those that cannot."""
    words, rare = len(vocabulary.words) - len(SPECIAL_TOKENS), len(vocabulary.rare_words)
    of_captions = f" ({share:.1%} of the words of the captions)" if rare else ""
    return f"{words} word{'s' * (words != 1)} in the vocabulary, {rare} too rare{of_captions}"


def rare_words_note(counts: Mapping[str, int], min_word_count: int) -> str:
    """Returns a warning with a lower --min_word_count if many words of the captions become unknown, or ''."""
    share = unknown_share(counts, min_word_count)
    if share <= MANY:
        return ""
    lower = next(n for n in range(min_word_count - 1, 0, -1) if unknown_share(counts, n) <= MANY)
    return (
        f"{share:.0%} of the words of the training captions occur less than --min_word_count={min_word_count} times "
        f"and are never generated; lower it, for example --min_word_count={lower}, or give more captions"
    )
