"""Statistics of sampled captions, by which a collapse is seen.

Shapes: N samples, T steps.
"""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf

from spidercap.models import decoding
from spidercap.models.special_tokens import END, PAD
from spidercap.pipeline.metrics.ngrams import caption_codes, repeats
from spidercap.pipeline.training import replicas
from spidercap.pipeline.training.logs import SampleLogs
from spidercap.pipeline.training.moments import Moments, merged, moments


class SampleStatistics(NamedTuple):
    """Of the samples of a replica, or with `[R]` in place of scalars those of R replicas."""

    reward: Moments
    best_reward: tf.Tensor
    metrics: dict[str, Moments]
    length: Moments
    unfinished: Moments
    repeated: Moments  # whether a trigram occurs earlier in its caption


def sample_statistics(
    tokens: tf.Tensor, sample_rewards: tf.Tensor, scores: Mapping[str, tf.Tensor]
) -> SampleStatistics:
    """Returns the statistics of sampled captions `[N, T]` and their rewards `[N]`.

    `scores` are the metrics that the reward is made of, `[N]` or longer: the first N are those of the samples.
    """
    count = tf.shape(tokens)[0]
    return SampleStatistics(
        reward=moments(sample_rewards),
        best_reward=tf.reduce_max(sample_rewards),
        metrics={term: moments(score[:count]) for term, score in scores.items()},
        length=moments(decoding.lengths(tokens)),
        unfinished=moments(tf.reduce_all(tokens != END, axis=1)),
        repeated=moments(repeated_trigrams(tokens)),
    )


def sample_logs(statistics: SampleStatistics, tokens: tf.Tensor) -> SampleLogs:
    """Returns what is logged of the statistics of all replicas, and of sampled captions `[N, T]` of this one."""
    reward = merged(statistics.reward)
    return SampleLogs(
        reward=reward.mean,
        best_reward=tf.reduce_max(statistics.best_reward),
        reward_std=reward.std(),
        metrics={term: merged(parts).mean for term, parts in statistics.metrics.items()},
        length=merged(statistics.length).mean,
        unfinished=merged(statistics.unfinished).mean,
        repeated_trigrams=merged(statistics.repeated).mean,
        distinct=distinct_captions(tokens),
    )


def repeated_trigrams(tokens: tf.Tensor) -> tf.Tensor:
    """Returns for every trigram in captions `[N, T]`, as packed bool, whether it occurs earlier in its caption."""
    steps_first = tf.transpose(tf.cast(tokens, tf.int64))
    _, _, trigrams = itertools.islice(repeats(steps_first), 3)  # limbs [T - 2, N]
    before = tf.reduce_any(tf.stack(trigrams) != 0, axis=0)
    return tf.boolean_mask(before, steps_first[2:] != PAD)


def distinct_captions(tokens: tf.Tensor) -> tf.Tensor:
    """Returns the number of different captions among those `[N, T]` of all replicas, as a share of them."""
    codes = replicas.gathered(caption_codes(tokens))
    return tf.size(tf.unique(codes).y) / tf.size(codes)
