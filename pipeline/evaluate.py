"""Greedy captions of a split, and the numbers that the COCO caption evaluation gives them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from models.captioner import Captioner
from models.decoding import greedy
from pipeline.inputs import TokenizedSplit
from pipeline.metric_names import METRICS
from pipeline.vocabulary import Vocabulary

BATCH = 128


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Captions of a split with their scores, in the order of its records."""

    captions: tuple[str, ...]
    corpus: dict[str, float]  # by METRICS, then "mean length", "distinct captions"
    images: tuple[dict[str, float], ...]  # by METRICS


def build_decoder(captioner: Captioner, max_length: int) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from features `[N, F]` to greedy captions int32 `[N, T]`, compiled once."""

    @tf.function
    def decode(features: tf.Tensor) -> tf.Tensor:
        return greedy(captioner.step, captioner.start(features), max_length)[0]

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
) -> Evaluation:
    """Returns captions and scores of the split's first `len(features)` images; features `[I, F]`."""
    captions = tuple(vocabulary.decode(ids) for ids in decode(features))
    references = [[" ".join(tokens) for tokens in of_image] for of_image in split.tokens[: len(captions)]]
    corpus, images = score_captions(references, captions)
    corpus["mean length"] = float(np.mean([len(c.split()) for c in captions]))
    corpus["distinct captions"] = float(len(set(captions)))
    return Evaluation(captions, corpus, images)


def score_captions(
    references: Sequence[Sequence[str]], captions: Sequence[str]
) -> tuple[dict[str, float], tuple[dict[str, float], ...]]:
    """Returns the corpus scores and each image's, by METRICS, of tokenised captions (words split by one space).

    The numbers are those of pycocoevalcap; CIDEr is CIDEr-D with these references' document frequencies.
    """
    truth = {i: list(of_image) for i, of_image in enumerate(references)}
    said = {i: [caption] for i, caption in enumerate(captions)}
    bleu, bleus = Bleu(4).compute_score(truth, said, verbose=0)
    rouge, rouges = Rouge().compute_score(truth, said)
    cider, ciders = Cider().compute_score(truth, said)
    corpus = dict(zip(METRICS, [*bleu, rouge, cider], strict=True))
    images = zip(*bleus, rouges, ciders, strict=True)
    return _floats(corpus), tuple(_floats(dict(zip(METRICS, one, strict=True))) for one in images)


def results_json(split: TokenizedSplit, evaluation: Evaluation) -> list[dict]:
    """Returns the captions in COCO's results format."""
    pairs = zip(split.image_ids, evaluation.captions, strict=True)
    return [{"image_id": int(i), "caption": caption} for i, caption in pairs]


def table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Returns a plain-text table, one row a name, one column a metric."""
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    width = max([len(name) for name in rows] + [5])
    lines = [" " * width + "".join(f"{c:>{max(len(c), 6) + 2}}" for c in columns)]
    for name, row in rows.items():
        cells = "".join(f"{_short(row.get(c)):>{max(len(c), 6) + 2}}" for c in columns)
        lines.append(f"{name:<{width}}{cells}")
    return "\n".join(lines)


def _short(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3f}" if value < 5 else f"{value:.2f}"


def _floats(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in scores.items()}
