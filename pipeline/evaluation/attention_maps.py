"""Where a captioner attends before each word of captions that it generated, on the encoder's grid of cells."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from spidercap.models.captioner import Captioner
from spidercap.models.special_tokens import END
from spidercap.pipeline.text.vocabulary import Vocabulary, pad

# (rows of a split, their captions) -> the maps of each caption, as of `attention_maps`
Attention = Callable[[Sequence[int], Sequence[str]], list[np.ndarray]]


def grid_side(parts: int) -> int:
    """Returns R of a grid of R x R cells; 0 where that many parts are no grid, or one cell alone.

    The encoder reads square images, so the map it ends with is square.
    """
    side = math.isqrt(parts)
    return side if side > 1 and side * side == parts else 0


def attention_maps(
    captioner: Captioner, vocabulary: Vocabulary, captions: Sequence[str], features: np.ndarray
) -> list[np.ndarray]:
    """Returns for each caption the attention weights `[W, R, R]` before each of its W words.

    The first axis after the words goes down the image, the second one to the right, as the encoder's Reshape reads its
    map. The weights of a word sum to 1.

    Args:
      captioner: one that takes parts.
      vocabulary: the words of the captions.
      captions: N captions that this captioner generated, from the same features.
      features: `[N, P, F]`, cells of a grid, or what the captioner's tuned layers read.

    Raises:
      ValueError: P cells are no grid.
    """
    cells = captioner.encoded(tf.cast(features, tf.float32))
    side = grid_side(cells.shape[1])
    if not side:
        raise ValueError(f"{cells.shape[1]} parts are no grid of cells")
    words = [caption.split(" ") if caption else [] for caption in captions]
    ids = [[*vocabulary.reference_ids(of_caption), END] for of_caption in words]
    # Padded, so that the longest caption keeps its end token: nothing is cut.
    tokens = pad(ids, max(map(len, ids), default=0))
    weights = captioner.attention_weights(cells, tf.constant(tokens)).numpy()
    grids = weights.reshape(*weights.shape[:2], side, side)
    return [of_caption[: len(said)] for of_caption, said in zip(grids, words, strict=True)]
