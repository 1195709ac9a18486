"""What a sampled caption is worth: a weighted sum of metrics, each of which is reported by itself.

Metrics on token ids are compiled, so that they can be part of a compiled step. METEOR and SPICE are computed by
resident Java workers, from the captions' text.
"""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from spidercap.pipeline.metrics.bleu import Bleu
from spidercap.pipeline.metrics.cider import Cider, DocumentFrequencies, count_document_frequencies
from spidercap.pipeline.metrics.from_words import BLEU_TERMS
from spidercap.pipeline.metrics.java_metrics import TextMetrics
from spidercap.pipeline.metrics.ngrams import without_end
from spidercap.pipeline.metrics.rouge import Rouge
from spidercap.pipeline.metrics.spice import f_score
from spidercap.pipeline.metrics.spice_fast.metric import SpiceFast
from spidercap.pipeline.metrics.spice_fast.parser import load_parser
from spidercap.pipeline.text.vocabulary import Vocabulary
from spidercap.pipeline.training.ragged import ragged

# (captions [N, T], image_index [N]) -> float32 [N] of each metric
Compiled = Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class ReferenceTexts:
    """What METEOR, SPICE and SPICE-fast compare with: text, without end tokens."""

    vocabulary: Vocabulary
    references: Sequence[Sequence[str]]  # [I][R], words split by one space


class Reward:
    """The metrics that a policy is trained on, with their weights."""

    def __init__(self, weights: Mapping[str, float], compiled: Compiled, on_host: Mapping[str, Callable]):
        """`compiled` and `on_host` give the metrics of `weights` between them.

        A metric on the host takes (captions, image_index) as arrays without duplicates and returns an array.
        """
        self.weights = dict(weights)
        self._compiled = compiled
        self._on_host = dict(on_host)
        self._compiled_scores = ragged(self.compiled_scores)

    @property
    def is_compiled(self) -> bool:
        """Whether `compiled_scores` is all of it."""
        return not self._on_host

    def compiled_scores(self, captions: tf.Tensor, image_index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns float32 `[N]` of each compiled metric for captions `[N, T]` of images `[N]`; to be traced."""
        return self._compiled(captions, image_index)

    def scores(self, captions: tf.Tensor, image_index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns float32 `[N]` of every metric; not to be traced. The Java metrics work side by side."""
        rows = np.column_stack([image_index.numpy(), captions.numpy()])
        distinct, place = np.unique(rows, axis=0, return_inverse=True)
        threads = concurrent.futures.ThreadPoolExecutor(len(self._on_host) or 1)
        try:
            waiting = {
                term: threads.submit(metric, distinct[:, 1:], distinct[:, 0]) for term, metric in self._on_host.items()
            }
            scores = dict(self._compiled_scores(captions, image_index))
            for term, future in waiting.items():
                scores[term] = tf.constant(future.result()[place.ravel()], tf.float32)
        finally:
            # When this is interrupted the workers are ended next, and with them what the threads wait for.
            threads.shutdown(wait=False, cancel_futures=True)
        return scores

    def total(self, scores: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns float32 `[N]`: the weighted sum."""
        return tf.add_n([weight * scores[term] for term, weight in self.weights.items()])


def reward_frequencies(references: np.ndarray, base: int, end_token_in_reward: bool) -> DocumentFrequencies:
    """Returns the document frequencies of training references `[I, R, L]` that the reward uses."""
    return count_document_frequencies(_words(references, end_token_in_reward), base)


def build_reward(
    weights: Mapping[str, float],
    references: np.ndarray,
    frequencies: DocumentFrequencies,
    end_token_in_reward: bool,
    texts: ReferenceTexts | None = None,
    text_metrics: TextMetrics | None = None,
) -> Reward:
    """Returns the reward of metrics with `weights` against references `[I, R, L]`, one row an image.

    With the end token as a word, a caption that stops where its references stop earns more than one cut short. That
    is for metrics of n-grams; METEOR and SPICE, which need `texts` and `text_metrics`, and SPICE-fast, which needs
    `texts`, never see it.
    """
    words = _words(references, end_token_in_reward)
    cider = Cider(words, frequencies) if "cider" in weights else None
    rouge = Rouge(words) if "rouge" in weights else None
    bleu = Bleu(words) if set(BLEU_TERMS) & set(weights) else None
    spice = SpiceFast(load_parser(), texts.vocabulary.words, texts.references) if "spice_fast" in weights else None

    def compiled(captions: tf.Tensor, image_index: tf.Tensor) -> dict[str, tf.Tensor]:
        scores = {}
        if spice is not None:
            scores["spice_fast"] = spice(captions, image_index)
        captions = _words(captions, end_token_in_reward)
        if bleu is not None:  # one matching of n-grams for all four orders
            scores |= zip(BLEU_TERMS, tf.unstack(bleu(captions, image_index), axis=1), strict=True)
        if rouge is not None:
            scores["rouge"] = rouge(captions, image_index)
        if cider is not None:
            scores["cider"] = cider(captions, image_index)
        return {term: scores[term] for term in weights if term in scores}

    on_host = {}
    if "meteor" in weights:
        on_host["meteor"] = _of_text(text_metrics.meteor.score, texts)
    if "spice" in weights:
        on_host["spice"] = _of_text(_spice(text_metrics.spice.score), texts)
    return Reward(weights, compiled, on_host)


def _spice(counts: Callable) -> Callable:
    # Where neither caption nor references say anything, nothing is earned.
    return lambda candidates, references: np.nan_to_num(f_score(counts(candidates, references)[:, 0]))


def _of_text(metric: Callable, texts: ReferenceTexts) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """A metric on text as one on token ids."""

    def score(captions: np.ndarray, image_index: np.ndarray) -> np.ndarray:
        candidates = [texts.vocabulary.decode(ids) for ids in captions]
        return metric(candidates, [texts.references[i] for i in image_index])

    return score


def _words(captions, end_token_in_reward: bool):
    return captions if end_token_in_reward else without_end(captions)
