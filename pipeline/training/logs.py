"""What a train step logs: scalars by field, tensors as a step returns them, floats once they are read.

A replica has statistics of its rows; the logs are of the whole batch, made of the statistics of all replicas.

`named_scalars` alone knows what TensorBoard and the console call them.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from spidercap.pipeline.metrics.registry import column_of
from spidercap.pipeline.training.moments import Moments, explained_variance, merged

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


class PolicyStatistics(NamedTuple):
    """Of the rows of a replica, or with `[R]` in place of scalars those of R replicas; None: there is no such thing."""

    surprise: Moments  # -log pi of sampled tokens
    advantage: Moments  # Q - b of sampled tokens
    values: Moments | None  # Q of sampled tokens, where a baseline is learned
    likelihood: Moments | None  # -log pi of the tokens that are learned by likelihood
    given: Moments | None  # tokens of a caption that were not sampled


def policy_logs(statistics: PolicyStatistics, losses: Sequence[tf.Tensor]) -> PolicyLogs:
    """Returns what is logged of the statistics of all replicas; the second loss is that of a learned baseline."""
    surprise, advantage, values, likelihood, given = (x if x is None else merged(x) for x in statistics)
    return PolicyLogs(
        entropy=surprise.mean,  # the mean of -log pi over sampled tokens estimates it without bias
        advantage_std=advantage.std(),
        likelihood_loss=None if likelihood is None else likelihood.mean,
        given_tokens=None if given is None else given.mean,
        baseline_loss=None if values is None else losses[1],
        explained_variance=None if values is None else explained_variance(values, advantage),
    )


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


def warm_up_scalars(named: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Returns those of the named scalars that a stage which trains the baseline alone changes."""
    return {name: named[name] for name in ("baseline loss", "explained variance")}


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
