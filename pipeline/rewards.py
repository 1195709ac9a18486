"""What a sampled caption is worth: the compiled metric that `--reward` names."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from pipeline.metrics.cider import Cider, DocumentFrequencies, count_document_frequencies, without_end

METRICS = {"cider": Cider}

# (captions [N, T], image_index [N]) -> float32 [N]
Reward = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def reward_frequencies(references: np.ndarray, base: int, end_token_in_reward: bool) -> DocumentFrequencies:
    """Returns the document frequencies of training references `[I, R, L]` that the reward uses."""
    return count_document_frequencies(_words(references, end_token_in_reward), base)


def build_reward(
    reward: str, references: np.ndarray, frequencies: DocumentFrequencies, end_token_in_reward: bool
) -> Reward:
    """Returns the reward named `reward`, a key of METRICS, against references `[I, R, L]`, one row an image.

    With the end token as a word, a caption that stops where its references stop earns more than one cut short.
    """
    metric = METRICS[reward](_words(references, end_token_in_reward), frequencies)

    def score(captions: tf.Tensor, image_index: tf.Tensor) -> tf.Tensor:
        return metric(_words(captions, end_token_in_reward), image_index)

    return score


def _words(captions, end_token_in_reward: bool):
    return captions if end_token_in_reward else without_end(captions)
