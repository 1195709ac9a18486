"""Captions of a split, and their scores."""

import dataclasses
import json
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import tensorflow as tf

from spidercap.models.captioner import Captioner
from spidercap.models.decoder import Captions, Decoder
from spidercap.models.ensemble import Ensemble
from spidercap.models.row_random import RowSeed
from spidercap.models.sampling import uniforms
from spidercap.pipeline.data.feature_store import View
from spidercap.pipeline.data.tokens import TokenizedSplit
from spidercap.pipeline.evaluation.endings import BAD_ENDINGS
from spidercap.pipeline.metrics.scores import Scores, score_captions
from spidercap.pipeline.metrics.text_metrics import TextMetric
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.text.coco_json import ImageId
from spidercap.pipeline.text.vocabulary import Vocabulary
from spidercap.pipeline.workers import ALONE, Workers

BATCH = 128

# [N, F] or [N, P, F]; of an ensemble a tuple, those of each member
Seen = View | np.ndarray | tuple[View | np.ndarray, ...]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Captions of a split with their scores, in the order of its records."""

    captions: tuple[str, ...]
    corpus: dict[str, float | None]  # by column of the tables, then "mean length", "distinct captions"
    images: tuple[dict[str, float | None], ...]  # by column of the tables
    n_best: tuple[tuple[tuple[str, float], ...], ...] = ()  # (caption, log-probability) of each image, best first
    remarks: Mapping[str, str] = dataclasses.field(default_factory=dict)  # Scores.remarks
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)  # Scores.versions


def decoder_of(config: Config, words: Sequence[str]) -> Decoder:
    """Returns the decoder of the settings; `words` is the vocabulary, in which bad endings are looked up."""
    decoding = config.decoding
    endings = tuple(i for i, word in enumerate(words) if word in BAD_ENDINGS) if decoding.no_bad_endings else ()
    values = {
        "beam_width": decoding.beam_width,
        "length_penalty": float(decoding.length_penalty),
        "no_repeat_ngram": decoding.no_repeat_ngram,
        "no_bad_endings": endings,
        "n_best": decoding.n_best,
        "decode_temperature": float(decoding.decode_temperature),
        "top_k": decoding.top_k,
        "top_p": float(decoding.top_p),
        "beam_groups": decoding.groups(),
        "diversity": float(decoding.diversity),
    }
    other_names = {"no_bad_endings": "bad_endings", "decode_temperature": "temperature"}
    read = {other_names.get(name, name): value for name, value in values.items() if name in decoding.read()}
    return Decoder(decode=decoding.decode, **read)


def build_decoder(
    captioner: Captioner | Ensemble,
    max_length: int,
    decoder: Decoder | None = None,
    workers: Workers = ALONE,
    seed: int = 0,
) -> Callable[[Seen], Captions]:
    """Returns a function from features to captions, compiled once; the default decoder is greedy.

    Features are `[N, F]`, or `[N, P, F]` where the captioner takes parts. Where it tunes layers of the encoder, they
    are what these read. For an ensemble they are a tuple of those of each member.

    Several workers share the batches out, and all get all captions. Captions that are drawn depend on `seed` and on the
    image's place in N, whoever draws them.
    """
    decoder = decoder or Decoder()

    @tf.function(autograph=False)
    def decode(features: tf.Tensor | tuple[tf.Tensor, ...], first: tf.Tensor) -> Captions:
        rows = RowSeed(tf.constant([seed, 0]), first)
        uniform = uniforms(rows, BATCH, decoder.n_best, max_length) if decoder.draws else None
        return decoder.captions(captioner, captioner.encoded(features), max_length, uniform)

    def decode_all(features: Seen) -> Captions:
        count = len(tf.nest.flatten(features)[0])
        each = -(-count // (BATCH * workers.count))  # batches of a worker, the same number for all
        batches = []
        for number in range(workers.number * each, (workers.number + 1) * each):
            padded = tf.nest.map_structure(lambda of, number=number: _batch(of, number), features)
            batches.append(decode(padded, tf.constant(number * BATCH, tf.int64)))
        own = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        return Captions(*(workers.gathered(rows)[:count] for rows in own))

    return decode_all


def _batch(features: View | np.ndarray, number: int) -> tf.Tensor:
    """A batch, with rows of zeros if it is the last one: every batch has one shape."""
    part = features[number * BATCH : (number + 1) * BATCH]
    padded = np.zeros([BATCH, *features.shape[1:]], np.float32)
    padded[: len(part)] = part
    return tf.constant(padded)


def evaluate(
    decode: Callable[[Seen], Captions],
    vocabulary: Vocabulary,
    split: TokenizedSplit,
    features: Seen,
    terms: Collection[str],
    text_metrics: Mapping[str, TextMetric],
    workers: Workers = ALONE,
) -> Evaluation:
    """Returns captions and scores of the split's first images, as many as features `[I, F]` are given.

    Of several workers the chief computes the scores, so that all go on with the same numbers.

    Args:
      decode: of `build_decoder`, with the same workers.
      terms: the metrics, of registry.METRICS.
      text_metrics: those on text.
    """
    decoded = decode(features)
    captions = tuple(vocabulary.decode(ids) for ids in decoded.tokens[:, 0])
    references = split.texts()[: len(captions)]
    scores = score_captions(references, captions, terms, text_metrics) if workers.is_chief else None
    if workers.count > 1:
        scores = Scores(**json.loads(workers.from_chief(json.dumps(scores and vars(scores)))))
    counts = {
        "mean length": float(np.mean([len(c.split()) for c in captions])),
        "distinct captions": float(len(set(captions))),
    }
    n_best = tuple(
        tuple((vocabulary.decode(ids), float(p)) for ids, p in zip(*of_image, strict=True) if p > -np.inf)
        for of_image in zip(decoded.tokens, decoded.log_prob, strict=True)
    )
    return Evaluation(captions, scores.corpus | counts, tuple(scores.images), n_best, scores.remarks, scores.versions)


def results_json(split: TokenizedSplit, evaluation: Evaluation) -> list[dict]:
    """Returns the captions in COCO's results format."""
    pairs = zip(split.image_ids, evaluation.captions, strict=True)
    return [{"image_id": i, "caption": caption} for i, caption in pairs]


def scores_json(split: TokenizedSplit, evaluation: Evaluation) -> list[dict]:
    """Returns the scores of each image, each with the versions of learned metrics that gave them, if there are any."""
    pairs = zip(split.image_ids, evaluation.images, strict=True)
    versions = {"versions": evaluation.versions} if evaluation.versions else {}
    return [{"image_id": i, "scores": scores, **versions} for i, scores in pairs]


def n_best_json(split: TokenizedSplit, evaluation: Evaluation) -> list[dict]:
    """Returns for each image all its captions, best first, with their log-probabilities."""
    pairs = zip(split.image_ids, evaluation.n_best, strict=True)
    return [all_captions(i, of_image) for i, of_image in pairs]


def all_captions(image_id: ImageId, of_image: Sequence[tuple[str, float]]) -> dict:
    """Returns the captions of an image with their log-probabilities, for a file."""
    return {"image_id": image_id, "captions": [{"caption": c, "log_prob": p} for c, p in of_image]}
