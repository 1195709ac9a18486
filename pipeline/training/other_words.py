"""Weights of a captioner for another vocabulary: what both have is copied, and new words begin as the unknown one."""

from collections.abc import Sequence

import numpy as np

from spidercap.models.captioner import Captioner
from spidercap.models.special_tokens import SPECIAL_TOKENS, UNKNOWN


def shared_words(words: Sequence[str], others: Sequence[str]) -> int:
    """Returns how many words two vocabularies share, special tokens not counted."""
    return len(set(words) & set(others)) - len(SPECIAL_TOKENS)


def copy_weights(captioner: Captioner, words: Sequence[str], source: Captioner, source_words: Sequence[str]) -> None:
    """Copies all weights of `source`, whose vocabulary is other words, or the same ones in another order.

    To the source, words that it does not have were unknown. So each of them begins as its unknown word, with an equal
    share of that word's probability: the logit falls by the logarithm of their number. Words that only the source has
    are left out. Layers of the encoder that only `captioner` tunes stay as they are.
    """
    place = {word: i for i, word in enumerate(source_words)}
    rows = np.array([place.get(word, UNKNOWN) for word in words])
    new = np.array([word not in place for word in words])
    if source.tuned is not None:
        captioner.tuned.set_weights(source.tuned.get_weights())
    for weight, of_source in zip(captioner.own_weights, source.own_weights, strict=True):
        if weight is not captioner.words.kernel and weight is not captioner.words.bias:
            is_rows = weight is captioner.embedding.embeddings
            weight.assign(of_source.numpy()[rows] if is_rows else of_source.numpy())
    captioner.words.kernel.assign(source.words.kernel.numpy()[:, rows])
    captioner.words.bias.assign(source.words.bias.numpy()[rows] - new * np.log(max(1, new.sum())))
