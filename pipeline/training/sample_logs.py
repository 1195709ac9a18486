"""Statistics of sampled captions, by which a collapse is seen.

Shapes: N samples, T steps.
"""

import itertools

import tensorflow as tf

from spidercap.models import decoding
from spidercap.models.special_tokens import END, PAD
from spidercap.pipeline.metrics.ngrams import caption_codes, repeats
from spidercap.pipeline.training import estimators
from spidercap.pipeline.training.logs import SampleLogs


def sample_logs(tokens: tf.Tensor, sample_rewards: tf.Tensor, scores: dict[str, tf.Tensor]) -> SampleLogs:
    """Returns scalars on sampled captions `[N, T]` and their rewards `[N]`.

    `scores` are the metrics that the reward is made of, `[N]` or longer: the first N are those of the samples.
    """
    ended = tf.reduce_any(tokens == END, axis=1)
    count = tf.shape(tokens)[0]
    return SampleLogs(
        reward=tf.reduce_mean(sample_rewards),
        best_reward=tf.reduce_max(sample_rewards),
        reward_std=estimators.std(sample_rewards),
        metrics={term: tf.reduce_mean(score[:count]) for term, score in scores.items()},
        length=tf.reduce_mean(tf.cast(decoding.lengths(tokens), tf.float32)),
        unfinished=1.0 - tf.reduce_mean(tf.cast(ended, tf.float32)),
        repeated_trigrams=repeated_trigrams(tokens),
        distinct=distinct_captions(tokens),
    )


def repeated_trigrams(tokens: tf.Tensor) -> tf.Tensor:
    """Returns the share of the trigrams in captions `[N, T]` that occur earlier in the same caption, in 0..1."""
    steps_first = tf.transpose(tf.cast(tokens, tf.int64))
    _, _, trigrams = itertools.islice(repeats(steps_first), 3)  # limbs [T - 2, N]
    before = tf.reduce_any(tf.stack(trigrams) != 0, axis=0)
    return estimators.mean(tf.cast(tf.boolean_mask(before, steps_first[2:] != PAD), tf.float32))


def distinct_captions(tokens: tf.Tensor) -> tf.Tensor:
    """Returns the number of different captions among captions `[N, T]`, as a share of N."""
    codes = caption_codes(tokens)
    return tf.size(tf.unique(codes).y) / tf.size(codes)
