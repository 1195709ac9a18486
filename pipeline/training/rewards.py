"""The reward of a sampled caption: a weighted sum of metrics, each of which is logged separately.

Metrics on token ids are compiled, so that they can be part of a compiled step. Metrics on text and the user's reward
functions are computed on the host, METEOR and SPICE in resident Java workers.
"""

import concurrent.futures
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from spidercap.pipeline.metrics.compiled import CompiledScores, Inputs, ReferenceTexts, compiled_scores
from spidercap.pipeline.metrics.document_frequencies import DocumentFrequencies, count_document_frequencies
from spidercap.pipeline.metrics.ngrams import without_end
from spidercap.pipeline.metrics.references import References
from spidercap.pipeline.metrics.registry import METRICS, ordered
from spidercap.pipeline.metrics.reward_functions import RewardFunction, call_reward_function
from spidercap.pipeline.metrics.size_classes import SizeClass, classes_of
from spidercap.pipeline.metrics.text_metrics import TextMetric
from spidercap.pipeline.training.ragged import ragged

# (captions [N, T], image_index [N]) as arrays without duplicates -> [N]
OnHost = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Reward:
    """The metrics that a policy is trained on, with their weights."""

    def __init__(
        self,
        weights: Mapping[str, float],
        compiled: CompiledScores,
        on_host: Mapping[str, OnHost],
        own: Mapping[str, OnHost] | None = None,
    ):
        """Every term of `weights` is one of `compiled`, `on_host` or `own`.

        Args:
          on_host: metrics that are called in parallel threads.
          own: functions of the user, called one after the other in the main thread, to which their code may be tied.
        """
        self.weights = dict(weights)
        self._compiled = compiled
        self._on_host, self._own = dict(on_host), dict(own or {})
        self._compiled_scores = ragged(self.compiled_scores)

    @property
    def is_compiled(self) -> bool:
        """Whether `compiled_scores` returns all terms."""
        return not self._on_host and not self._own

    def compiled_scores(self, captions: tf.Tensor, image_index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns float32 `[N]` of each compiled metric for captions `[N, T]` of images `[N]`; to be traced."""
        return self._compiled(captions, image_index)

    def scores(self, captions: tf.Tensor, image_index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns float32 `[N]` of every term; not to be traced.

        Each caption of an image is scored on the host once.
        """
        rows = np.column_stack([image_index.numpy(), captions.numpy()])
        distinct, place = np.unique(rows, axis=0, return_inverse=True)
        threads = concurrent.futures.ThreadPoolExecutor(len(self._on_host) or 1)
        try:
            asked = distinct[:, 1:], distinct[:, 0]
            waiting = {term: threads.submit(metric, *asked) for term, metric in self._on_host.items()}
            scores = dict(self._compiled_scores(captions, image_index))
            own = {name: function(*asked) for name, function in self._own.items()}
            found = {term: future.result() for term, future in waiting.items()} | own
            scores |= {term: tf.constant(each[place.ravel()], tf.float32) for term, each in found.items()}
        finally:
            # After an interrupt the workers are stopped next, which ends the waiting threads.
            threads.shutdown(wait=False, cancel_futures=True)
        return scores

    def total(self, scores: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns float32 `[N]`: the weighted sum."""
        return tf.add_n([weight * scores[term] for term, weight in self.weights.items()])


def reward_frequencies(
    references: Sequence[SizeClass] | np.ndarray, base: int, end_token_in_reward: bool
) -> DocumentFrequencies:
    """Returns the document frequencies of training references for the reward; size classes, or `[I, R, L]`."""
    return count_document_frequencies(_read(references, end_token_in_reward), base)


def build_reward(
    weights: Mapping[str, float],
    references: Sequence[SizeClass] | np.ndarray,
    frequencies: DocumentFrequencies,
    end_token_in_reward: bool,
    texts: ReferenceTexts | None = None,
    text_metrics: Mapping[str, TextMetric] | None = None,
    own: Mapping[str, RewardFunction] | None = None,
    cache: pathlib.Path | None = None,
) -> Reward:
    """Returns the reward of metrics with `weights` against references: size classes, or `[I, R, L]`.

    With the end token as a word, a caption that ends like its references has a higher reward than one cut short. This
    applies to n-gram metrics; SPICE-fast and metrics on text never see the end token.

    Args:
      texts: needed by SPICE-fast, metrics on text and `own`.
      text_metrics: the metrics on text among `weights`.
      own: the user's reward functions, by their names in `weights`.
      cache: folder for what takes long to make of the references.
    """
    inputs = [
        (images, Inputs(References(ids, cache=cache), lambda: frequencies, tf.float32, texts, cache))
        for images, ids in _read(references, end_token_in_reward)
    ]
    metrics = compiled_scores([term for term in weights if term in METRICS and METRICS[term].compiled], inputs)

    def compiled(captions: tf.Tensor, image_index: tf.Tensor) -> dict[str, tf.Tensor]:
        return metrics(_words(captions, end_token_in_reward), image_index)

    on_text = [term for term in ordered(weights) if not METRICS[term].compiled]
    return Reward(
        weights,
        compiled,
        {term: _of_text(text_metrics[term].rewards, texts) for term in on_text},
        {name: _of_user(name, own[name], texts) for name in weights if name not in METRICS},
    )


def _of_text(metric: Callable, texts: ReferenceTexts) -> OnHost:
    """Wraps a metric on text as one on token ids."""

    def score(captions: np.ndarray, image_index: np.ndarray) -> np.ndarray:
        candidates = [texts.vocabulary.decode(ids) for ids in captions]
        return metric(candidates, [texts.references[i] for i in image_index])

    return score


def _of_user(name: str, function: RewardFunction, texts: ReferenceTexts) -> OnHost:
    """Wraps a function of the user as one on token ids; it gets copies of the lists."""

    def score(captions: np.ndarray, image_index: np.ndarray) -> np.ndarray:
        candidates = [texts.vocabulary.decode(ids) for ids in captions]
        references = [list(texts.references[i]) for i in image_index]
        image_ids = [int(i) if texts.image_ids is None else texts.image_ids[i] for i in image_index]
        return call_reward_function(name, function, candidates, references, image_ids)

    return score


def _read(references: Sequence[SizeClass] | np.ndarray, end_token_in_reward: bool) -> list[SizeClass]:
    """The size classes as n-gram metrics read them."""
    return [SizeClass(images, _words(ids, end_token_in_reward)) for images, ids in classes_of(references)]


def _words(captions, end_token_in_reward: bool):
    return captions if end_token_in_reward else without_end(captions)
