"""BLEU, ROUGE-L and CIDEr-D of tokenised captions, for tables: the compiled metrics on ids made up on the spot."""

from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np
import tensorflow as tf

from spidercap.models.special_tokens import PAD
from spidercap.pipeline.metrics.bleu import Bleu, corpus_bleu, sentence_bleu
from spidercap.pipeline.metrics.cider import Cider, DocumentFrequencies, count_in_text
from spidercap.pipeline.metrics.ngrams import BITS
from spidercap.pipeline.metrics.rouge import Rouge

BLEU_TERMS = ("bleu1", "bleu2", "bleu3", "bleu4")
TERMS = (*BLEU_TERMS, "rouge", "cider")
SHORT = 32  # words; candidates up to here are scored together

Caption = list[int]


def score_tokens(
    references: Sequence[Sequence[Sequence[str]]], candidates: Sequence[Sequence[str]], terms: Iterable[str] = TERMS
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Returns the scores of the corpus and of each image, float64 `[I]`, by term.

    They are those of pycocoevalcap: BLEU of the corpus from summed counts, ROUGE-L and CIDEr-D as means over
    images, document frequencies of these very references. Unlike there, an image may be without references.

    Args:
      references: the words of each image's references.
      candidates: the words of one caption an image, in the order of `references`.
      terms: some of TERMS.

    Raises:
      ValueError: another term, or not one candidate an image.
    """
    terms = tuple(terms)
    if not set(terms) <= set(TERMS):
        raise ValueError(f"terms {terms}; allowed: {', '.join(TERMS)}")
    if len(references) != len(candidates):
        raise ValueError(f"{len(candidates)} candidates for {len(references)} images; it takes one each")
    ids: dict[str, int] = {}  # from 1 on, as 0 is PAD
    truth = [[_encode(caption, ids) for caption in of_image] for of_image in references]
    said = [_encode(caption, ids) for caption in candidates]
    metrics = _builders(terms, truth, len(ids) + 1)
    results = {name: np.zeros([len(said), width]) for name, (width, _) in metrics.items()}
    for images in _alike(range(len(truth)), lambda i: _reference_sizes(truth[i])):
        array, counts = _reference_array([truth[i] for i in images])
        for name, (_, build) in metrics.items():
            score = build(array, counts)
            for rows in _alike(range(len(images)), lambda k, images=images: _doublings(len(said[images[k]]), SHORT)):
                captions = _caption_array([said[images[k]] for k in rows])
                scores = score(tf.constant(captions), tf.constant(rows)).numpy()
                results[name][[images[k] for k in rows]] = scores.reshape(len(rows), -1)
    return _by_term(terms, results)


def _builders(terms: Sequence[str], truth: list[list[Caption]], base: int) -> dict[str, tuple[int, Callable]]:
    """Of each metric needed: how many numbers a caption gets, and (references, counts) -> metric."""
    builders: dict[str, tuple[int, Callable]] = {}
    if set(terms) & set(BLEU_TERMS):
        builders["bleu"] = (10, lambda array, counts: Bleu(array, tf.float64, counts).statistics)
    if "rouge" in terms:
        builders["rouge"] = (1, lambda array, counts: Rouge(array, tf.float64, counts))
    if "cider" in terms:
        frequencies = _frequencies(truth, base)
        builders["cider"] = (1, lambda array, counts: Cider(array, frequencies, tf.float64, counts))
    return builders


def _by_term(terms: Sequence[str], results: dict[str, np.ndarray]) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    corpus, images = {}, {}
    for term in terms:
        if term in BLEU_TERMS:
            order = BLEU_TERMS.index(term)
            images[term] = sentence_bleu(results["bleu"])[:, order].numpy()
            corpus[term] = float(corpus_bleu(results["bleu"])[order])
        else:
            images[term] = results[term][:, 0]
            corpus[term] = float(images[term].mean()) if len(images[term]) else 0.0
    return corpus, images


def _encode(tokens: Sequence[str], ids: dict[str, int]) -> Caption:
    return [ids.setdefault(token, len(ids) + 1) for token in tokens]


def _frequencies(truth: list[list[Caption]], base: int) -> DocumentFrequencies:
    words = [word for of_image in truth for caption in of_image for word in (*caption, PAD)]
    sizes = [sum(len(caption) + 1 for caption in of_image) for of_image in truth]
    return count_in_text(np.array(words, np.int64), np.repeat(np.arange(len(truth)), sizes), len(truth), base)


def _alike(items: Iterable[int], size: Callable[[int], Hashable]) -> list[list[int]]:
    """Returns the items in groups of one size, so that one long caption does not pad all the others."""
    groups: dict[Hashable, list[int]] = {}
    for item in items:
        groups.setdefault(size(item), []).append(item)
    return list(groups.values())


def _reference_sizes(of_image: list[Caption]) -> tuple[int, int]:
    return _doublings(len(of_image), 8), _doublings(max(map(len, of_image), default=0), BITS)


def _doublings(size: int, least: int) -> int:
    """Returns how often `least` must be doubled to hold `size`."""
    return (max(size - 1, 0) // least).bit_length()


def _reference_array(references: list[list[Caption]]) -> tuple[np.ndarray, np.ndarray]:
    """Returns ids int32 `[I, R, L]` and the numbers of references `[I]`."""
    counts = np.array([len(of_image) for of_image in references])
    longest = max((len(caption) for of_image in references for caption in of_image), default=0)
    array = np.full([len(references), max(counts.max(), 1), max(longest, 1)], PAD, np.int32)
    for rows, of_image in zip(array, references, strict=True):
        for row, caption in zip(rows, of_image, strict=False):
            row[: len(caption)] = caption
    return array, counts


def _caption_array(captions: list[Caption]) -> np.ndarray:
    """Returns ids int32 `[N, T]`."""
    return _reference_array([[caption] for caption in captions])[0][:, 0]
