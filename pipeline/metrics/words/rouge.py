"""ROUGE-L on words.

Lin, "ROUGE: A Package for Automatic Evaluation of Summaries" (2004), as in the COCO caption evaluation:

    ROUGE-L = (1 + beta^2) P R / (R + beta^2 P),  beta = 1.2,

with P and R the best over the references of LCS / length of the caption and LCS / length of the reference. The longest
common subsequence is computed for all words of the caption at once, as in Hyyrö, "Bit-parallel LCS-length computation
revisited" (2004): one word of the reference takes four operations on a whole number with a bit per word of the caption.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from spidercap.pipeline.metrics.words.captions import Captions, mean

BETA = 1.2
NOTHING = ("",)  # an empty caption counts as one empty word, so that it matches an empty reference


def rouge(captions: Captions) -> dict[str, tuple[float, np.ndarray]]:
    """Returns ROUGE-L of the corpus, the mean, and float64 `[I]` of each image; 0 for one without references."""
    pairs = zip(captions.captions, captions.references, strict=True)
    common = np.fromiter((n for pair in pairs for n in _common(*pair)), np.float64, len(captions.image))
    precision, recall = np.zeros([2, len(captions.captions)])
    np.maximum.at(precision, captions.image, common / np.maximum(captions.lengths, 1)[captions.image])
    np.maximum.at(recall, captions.image, common / np.maximum(captions.reference_lengths, 1))
    weighted = recall + BETA**2 * precision
    scores = np.divide((1 + BETA**2) * precision * recall, weighted, out=np.zeros_like(weighted), where=weighted > 0)
    return {"rouge": (mean(scores), scores)}


def _common(caption: Sequence[str], references: Sequence[Sequence[str]]) -> Iterator[int]:
    """Yields the length of the longest common subsequence with each reference."""
    places: dict[str, int] = {}
    for place, word in enumerate(caption or NOTHING):
        places[word] = places.get(word, 0) | 1 << place
    every = (1 << max(len(caption), 1)) - 1
    for reference in references:
        row = every
        for word in reference or NOTHING:
            if word in places:
                hits = row & places[word]
                row = row + hits | row - hits
        yield (~row & every).bit_count()
