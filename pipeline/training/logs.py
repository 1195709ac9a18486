"""What a train step logs: scalars by field, tensors as a step returns them, floats once they are read.

`named_scalars` alone knows what TensorBoard and the console call them.
"""

from typing import NamedTuple

import tensorflow as tf

from spidercap.pipeline.metrics.registry import column_of

Scalar = tf.Tensor | float


class SampleLogs(NamedTuple):
    """Of the captions that were sampled in a step, and their rewards."""

    reward: Scalar  # mean
    best_reward: Scalar
    reward_std: Scalar
    metrics: dict[str, Scalar]  # mean of each metric of the reward, without its weight
    length: Scalar  # mean number of tokens, the end token counted
    unfinished: Scalar  # share without an end token
    repeated_trigrams: Scalar  # share of trigrams
    distinct: Scalar  # share of captions


class PolicyLogs(NamedTuple):
    """Of the losses on a reward; None: the objective has no such thing."""

    entropy: Scalar  # nats a token
    advantage_std: Scalar
    likelihood_loss: Scalar | None = None
    given_tokens: Scalar | None = None  # tokens a caption that were not sampled: mixer's s, less what is padding
    baseline_loss: Scalar | None = None
    explained_variance: Scalar | None = None


class StepLogs(NamedTuple):
    """Of a step; None: the stage has no such thing."""

    loss: Scalar
    gradient_norm: Scalar  # before clipping
    skipped: Scalar  # 1: the update was skipped, else 0
    learning_rate: Scalar | None = None
    sampling_probability: Scalar | None = None  # of scheduled sampling
    scored: Scalar | None = None  # captions: samples, rollouts, greedy captions
    policy: PolicyLogs | None = None
    samples: SampleLogs | None = None


def as_floats(logs: StepLogs) -> StepLogs:
    """Returns the logs as Python floats; waits for the step."""
    return tf.nest.map_structure(lambda value: None if value is None else float(value), logs)


def named_scalars(logs: StepLogs) -> dict[str, Scalar]:
    """Returns what there is in the logs by its name on TensorBoard and on the console."""
    named = {
        "loss": logs.loss,
        "gradient norm": logs.gradient_norm,
        "skipped updates": logs.skipped,
        "learning rate": logs.learning_rate,
        "own words read": logs.sampling_probability,
        "captions scored": logs.scored,
    }
    if (policy := logs.policy) is not None:
        named |= {
            "entropy": policy.entropy,
            "advantage spread": policy.advantage_std,
            "likelihood loss": policy.likelihood_loss,
            "words given": policy.given_tokens,
            "baseline loss": policy.baseline_loss,
            "explained variance": policy.explained_variance,
        }
    if (samples := logs.samples) is not None:
        named |= {
            "reward": samples.reward,
            "best reward": samples.best_reward,
            "spread of rewards": samples.reward_std,
            **{f"reward {column_of(term)}": value for term, value in samples.metrics.items()},
            "caption length": samples.length,
            "never ended": samples.unfinished,
            "repeated n-grams": samples.repeated_trigrams,
            "distinct captions": samples.distinct,
        }
    return {name: value for name, value in named.items() if value is not None}
