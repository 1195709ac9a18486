"""Captions of a split, and their scores."""

import dataclasses
from collections.abc import Callable, Collection

import numpy as np
import tensorflow as tf

from models.captioner import Captioner
from models.decoders import Captions, Decoder
from pipeline.inputs import TokenizedSplit
from pipeline.metrics.text_metrics import TextMetrics
from pipeline.scores import score_captions
from pipeline.vocabulary import Vocabulary

BATCH = 128


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Captions of a split with their scores, in the order of its records."""

    captions: tuple[str, ...]
    corpus: dict[str, float | None]  # by column of the tables, then "mean length", "distinct captions"
    images: tuple[dict[str, float | None], ...]  # by column of the tables
    n_best: tuple[tuple[tuple[str, float], ...], ...] = ()  # each image's (caption, log-probability), best first


def build_decoder(
    captioner: Captioner, max_length: int, decoder: Decoder | None = None
) -> Callable[[np.ndarray], Captions]:
    """Returns a function from features `[N, F]` to captions, compiled once; of greedy search if no other is named."""
    decoder = decoder or Decoder()

    @tf.function(autograph=False)
    def decode(features: tf.Tensor) -> Captions:
        return decoder.captions(captioner, features, max_length)

    def decode_all(features: np.ndarray) -> Captions:
        spare = -len(features) % BATCH  # every batch has one shape
        padded = np.concatenate([features, np.zeros([spare, features.shape[1]], np.float32)])
        said = [decode(tf.constant(part)) for part in np.split(padded, len(padded) // BATCH)]
        return Captions(*(np.concatenate(parts)[: len(features)] for parts in zip(*said, strict=True)))

    return decode_all


def evaluate(
    decode: Callable[[np.ndarray], Captions],
    vocabulary: Vocabulary,
    split: TokenizedSplit,
    features: np.ndarray,
    terms: Collection[str],
    text_metrics: TextMetrics,
) -> Evaluation:
    """Returns captions and scores of the split's first `len(features)` images; features `[I, F]`.

    `terms` are the metrics, of metric_names.COLUMNS; `text_metrics` computes those on text.
    """
    said = decode(features)
    captions = tuple(vocabulary.decode(ids) for ids in said.words[:, 0])
    references = split.texts()[: len(captions)]
    scores = score_captions(references, captions, terms, text_metrics)
    counts = {
        "mean length": float(np.mean([len(c.split()) for c in captions])),
        "distinct captions": float(len(set(captions))),
    }
    n_best = tuple(
        tuple((vocabulary.decode(ids), float(p)) for ids, p in zip(*of_image, strict=True) if p > -np.inf)
        for of_image in zip(said.words, said.log_prob, strict=True)
    )
    return Evaluation(captions, scores.corpus | counts, scores.images, n_best)


def results_json(split: TokenizedSplit, evaluation: Evaluation) -> list[dict]:
    """Returns the captions in COCO's results format."""
    pairs = zip(split.image_ids, evaluation.captions, strict=True)
    return [{"image_id": int(i), "caption": caption} for i, caption in pairs]


def n_best_json(split: TokenizedSplit, evaluation: Evaluation) -> list[dict]:
    """Returns for each image all captions that were given for it, best first, with their log-probabilities."""
    pairs = zip(split.image_ids, evaluation.n_best, strict=True)
    return [
        {"image_id": int(i), "captions": [{"caption": c, "log_prob": p} for c, p in of_image]} for i, of_image in pairs
    ]
