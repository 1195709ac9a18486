"""What is worth watching in sampled captions.

Shapes: N paths, T steps.
"""

import itertools

import tensorflow as tf

from spidercap.models import decoding
from spidercap.models.special_tokens import END, PAD
from spidercap.pipeline.metrics.ngrams import caption_codes, repeats
from spidercap.pipeline.metrics.registry import column_of
from spidercap.pipeline.training import estimators


def path_logs(words: tf.Tensor, path_reward: tf.Tensor, scores: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Returns scalars on sampled captions `[N, T]` and their rewards `[N]`.

    `scores` are the metrics that the reward is made of, `[N]` or longer: each is logged by itself, without its weight.
    """
    ended = tf.reduce_any(words == END, axis=1)
    paths = tf.shape(words)[0]
    return {
        "reward": tf.reduce_mean(path_reward),
        "best reward": tf.reduce_max(path_reward),
        "spread of rewards": estimators.spread(path_reward),
        **{f"reward {column_of(term)}": tf.reduce_mean(score[:paths]) for term, score in scores.items()},
        "caption length": tf.reduce_mean(tf.cast(decoding.lengths(words), tf.float32)),
        "never ended": 1.0 - tf.reduce_mean(tf.cast(ended, tf.float32)),
        "repeated n-grams": repeated_grams(words),
        "distinct captions": distinct_captions(words),
    }


def repeated_grams(words: tf.Tensor) -> tf.Tensor:
    """Returns which share of the trigrams in captions `[N, T]` was said before in the same caption, in 0..1."""
    steps_first = tf.transpose(tf.cast(words, tf.int64))
    _, _, trigrams = itertools.islice(repeats(steps_first), 3)  # limbs [T - 2, N]
    before = tf.reduce_any(tf.stack(trigrams) != 0, axis=0)
    return estimators.mean(tf.cast(tf.boolean_mask(before, steps_first[2:] != PAD), tf.float32))


def distinct_captions(words: tf.Tensor) -> tf.Tensor:
    """Returns how many different ones are among captions `[N, T]`, as a share of N."""
    codes = caption_codes(words)
    return tf.size(tf.unique(codes).y) / tf.size(codes)
