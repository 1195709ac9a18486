"""CIDEr-D on words, with the document frequencies of the references that are given.

Vedantam, Zitnick, Parikh, "CIDEr: Consensus-based Image Description Evaluation" (CVPR 2015), the D variant of the COCO
caption evaluation. With c(g) and r(g) the counts of an n-gram g in a caption and a reference, and f(g) its idf, the
logarithm of images / images with g among their references:

    CIDEr-D = 10 / 4 * sum_{n <= 4} mean over references of
        exp(-(difference of lengths)^2 / (2 * 6^2)) * sum_g f^2 min(c, r) r / (|f c| |f r|),  over the n-grams g.
"""

import numpy as np

from spidercap.pipeline.metrics.words.captions import ORDERS, Captions, Grams, distinct, mean

SIGMA = 6.0
SCALE = 10.0


def cider(captions: Captions) -> dict[str, tuple[float, np.ndarray]]:
    """Returns CIDEr-D of the corpus, the mean, and float64 `[I]` of each image."""
    similarity = sum(_similarity(captions, grams) for grams in captions.grams)
    # The COCO evaluation counts bigrams for the length.
    bigrams, said = (np.maximum(n - 1, 0) for n in (captions.reference_lengths, captions.lengths))
    similarity *= np.exp(-((said[captions.image] - bigrams) ** 2) / (2 * SIGMA**2))
    total = np.bincount(captions.image, similarity, len(captions.captions))
    scores = SCALE / len(ORDERS) * total / np.maximum(captions.counts, 1)
    return {"cider": (mean(scores), scores)}


def _similarity(captions: Captions, grams: Grams) -> np.ndarray:
    """Returns the cosine `[M]` of every reference with its caption; 0 where one has no weight."""
    idf = _inverse_frequencies(captions, grams)
    weight, reference_weight = idf[grams.kind] * grams.count, idf[grams.reference_kind] * grams.reference_count
    norms = np.sqrt(np.bincount(grams.image, weight**2, len(captions.captions)))[captions.image]
    norms *= np.sqrt(np.bincount(grams.reference, reference_weight**2, len(captions.image)))
    shared = grams.place >= 0
    of_reference = reference_weight[shared]
    clipped = np.minimum(weight[grams.place[shared]], of_reference) * of_reference
    product = np.bincount(grams.reference[shared], clipped, len(captions.image))
    return np.divide(product, norms, out=np.zeros_like(norms), where=norms > 0)


def _inverse_frequencies(captions: Captions, grams: Grams) -> np.ndarray:
    """Returns `[kinds]`; an n-gram that is in no reference counts as one of a single image."""
    of_images, _ = distinct(captions.image[grams.reference] * grams.kinds + grams.reference_kind)
    images = np.bincount(of_images % max(grams.kinds, 1), minlength=grams.kinds)
    return np.log(max(len(captions.captions), 1)) - np.log(np.maximum(images, 1))
