"""Greedy captions of a split, and their scores."""

import dataclasses
from collections.abc import Callable, Collection

import numpy as np
import tensorflow as tf

from models.captioner import Captioner
from models.decoding import greedy
from pipeline.inputs import TokenizedSplit
from pipeline.metrics.java_metrics import JavaMetrics
from pipeline.scores import score_captions
from pipeline.vocabulary import Vocabulary

BATCH = 128


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Captions of a split with their scores, in the order of its records."""

    captions: tuple[str, ...]
    corpus: dict[str, float | None]  # by column of the tables, then "mean length", "distinct captions"
    images: tuple[dict[str, float | None], ...]  # by column of the tables


def build_decoder(captioner: Captioner, max_length: int) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from features `[N, F]` to greedy captions int32 `[N, T]`, compiled once."""

    @tf.function
    def decode(features: tf.Tensor) -> tf.Tensor:
        return greedy(captioner.stepper(), captioner.start(features), max_length, captioner.jit)[0]

    def decode_all(features: np.ndarray) -> np.ndarray:
        spare = -len(features) % BATCH  # every batch has one shape
        padded = np.concatenate([features, np.zeros([spare, features.shape[1]], np.float32)])
        words = [decode(tf.constant(part)).numpy() for part in np.split(padded, len(padded) // BATCH)]
        return np.concatenate(words)[: len(features)]

    return decode_all


def evaluate(
    decode: Callable[[np.ndarray], np.ndarray],
    vocabulary: Vocabulary,
    split: TokenizedSplit,
    features: np.ndarray,
    terms: Collection[str],
    java: JavaMetrics,
) -> Evaluation:
    """Returns captions and scores of the split's first `len(features)` images; features `[I, F]`.

    `terms` are the metrics, of metric_names.COLUMNS; `java` computes those that need it.
    """
    captions = tuple(vocabulary.decode(ids) for ids in decode(features))
    references = split.texts()[: len(captions)]
    scores = score_captions(references, captions, terms, java)
    counts = {
        "mean length": float(np.mean([len(c.split()) for c in captions])),
        "distinct captions": float(len(set(captions))),
    }
    return Evaluation(captions, scores.corpus | counts, scores.images)


def results_json(split: TokenizedSplit, evaluation: Evaluation) -> list[dict]:
    """Returns the captions in COCO's results format."""
    pairs = zip(split.image_ids, evaluation.captions, strict=True)
    return [{"image_id": int(i), "caption": caption} for i, caption in pairs]
