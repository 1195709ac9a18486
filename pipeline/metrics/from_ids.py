"""Compiled metrics of captions as words, in float64, for tables; words get temporary ids."""

import functools
from collections.abc import Collection, Sequence

import numpy as np
import tensorflow as tf

from spidercap.models.special_tokens import PAD
from spidercap.pipeline.metrics.compiled import Inputs, families
from spidercap.pipeline.metrics.document_frequencies import DocumentFrequencies, count_in_text
from spidercap.pipeline.metrics.references import References
from spidercap.pipeline.metrics.size_classes import alike, doublings, reference_array, reference_size
from spidercap.pipeline.metrics.words.captions import Captions

SHORT = 32  # words; candidates up to here are scored together

Ids = list[int]


def score_compiled(captions: Captions, terms: Collection[str]) -> dict[str, tuple[float, np.ndarray]]:
    """Returns the score of the corpus, and float64 `[I]` of each image, by compiled metric."""
    ids: dict[str, int] = {}  # from 1 on, as 0 is PAD
    truth = [[_encode(caption, ids) for caption in of_image] for of_image in captions.references]
    encoded = [_encode(caption, ids) for caption in captions.captions]
    frequencies = functools.cache(lambda: _frequencies(truth, len(ids) + 1))
    asked = families(terms)
    results = [np.zeros([len(encoded), family.width]) for family in asked]
    for images in alike(range(len(truth)), lambda i: reference_size(truth[i])):
        inputs = Inputs(References(*reference_array([truth[i] for i in images])), frequencies, tf.float64)
        for family, result in zip(asked, results, strict=True):
            statistics = family.build(inputs)
            for rows in alike(range(len(images)), lambda k, images=images: doublings(len(encoded[images[k]]), SHORT)):
                batch = reference_array([[encoded[images[k]]] for k in rows])[0][:, 0]  # int32 [N, T]
                result[[images[k] for k in rows]] = statistics(tf.constant(batch), tf.constant(rows))
    found: dict[str, tuple[float, np.ndarray]] = {}
    for family, result in zip(asked, results, strict=True):
        scores = zip(map(float, family.corpus(result)), np.asarray(family.images(result)).T, strict=True)
        found |= zip(family.terms, scores, strict=True)
    return found


def _encode(words: Sequence[str], ids: dict[str, int]) -> Ids:
    return [ids.setdefault(word, len(ids) + 1) for word in words]


def _frequencies(truth: list[list[Ids]], base: int) -> DocumentFrequencies:
    words = [word for of_image in truth for caption in of_image for word in (*caption, PAD)]
    sizes = [sum(len(caption) + 1 for caption in of_image) for of_image in truth]
    return count_in_text(np.array(words, np.int64), np.repeat(np.arange(len(truth)), sizes), len(truth), base)
