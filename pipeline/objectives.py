"""What tells one objective on a reward from another: what is sampled, and how rewards become advantages.

Each is a pair of functions; sampling, scoring, loss and update, which they share, are in steps.py. All follow the
gradient of sum_t log pi(g_t | g_<t) (Q_t - b_t): they differ in where the captions come from, in Q and in b.

Shapes: B images (mixer: captions), M paths an image, N = B * M paths, T steps, K rollouts, Q other captions.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from models import decoding
from models.captioner import Captioner
from pipeline import estimators
from pipeline.inputs import Batch


class Likelihood(NamedTuple):
    """What mixer learns by likelihood in the same step."""

    mask: tf.Tensor  # bool [N, T]: words that were given, not sampled
    weight: tf.Tensor  # scalar in 0..1; the reward has the rest


class Experience(NamedTuple):
    """What the policy said, before anything is scored."""

    features: tf.Tensor  # [N, F]
    image_index: tf.Tensor  # [N]
    words: tf.Tensor  # [N, T]
    rollouts: decoding.Rollouts  # other captions to be scored: words [Q, T], prefix [Q, 2]
    leaders: tf.Tensor | None = None  # [N, T], where paths share rollouts
    likelihood: Likelihood | None = None


class Credit(NamedTuple):
    """What each word of a path was worth, and what was to be expected before it was said."""

    values: tf.Tensor  # Q, [N, T]
    expected: tf.Tensor | None  # b, [N, T]; None: a learned baseline says it


class Objective(NamedTuple):
    """The two functions."""

    # (batch, seed [2], level: scalar, what the stage anneals) -> what was said
    sample: Callable[[Batch, tf.Tensor, tf.Tensor], Experience]
    # (what was said, rewards of its paths [N], of its other captions [Q]) -> credit
    credit: Callable[[Experience, tf.Tensor, tf.Tensor], Credit]


def policy_gradient(
    captioner: Captioner, max_length: int, *, samples: int, rollouts: int, greedily: bool = False, shared: bool = False
) -> Objective:
    """Returns PG (Liu et al. 2017, algorithm 1): Q by K rollouts from every prefix, learned baseline.

    With K = 0, Q is the path's own reward: REINFORCE with a baseline. `greedily` rolls out by the likeliest words,
    which is biased. `shared`: paths of one image that begin alike share rollouts.
    """

    def sample(batch: Batch, seed: tf.Tensor, level: tf.Tensor) -> Experience:
        del level
        path_seed, rollout_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        said, paths = _paths(captioner, batch, samples, max_length, path_seed, keep_states=rollouts > 0)
        if rollouts == 0:
            return said
        which = decoding.proper_prefixes(paths.words)
        leaders = estimators.prefix_leaders(paths.words, samples) if shared else None
        if shared:
            which &= estimators.leads(leaders)
        rolled = decoding.roll_out(captioner.step, paths, which, rollouts, rollout_seed, greedily)
        return said._replace(rollouts=rolled, leaders=leaders)

    def credit(said: Experience, path_reward: tf.Tensor, rollout_reward: tf.Tensor) -> Credit:
        if rollouts == 0:
            return Credit(estimators.path_values(said.words, path_reward), None)
        prefix = said.rollouts.prefix
        return Credit(estimators.action_values(said.words, path_reward, prefix, rollout_reward, said.leaders), None)

    return Objective(sample, credit)


def mixer(captioner: Captioner, max_length: int, *, likelihood_weight: float) -> Objective:
    """Returns MIXER (Ranzato et al. 2016): likelihood on a reference's first s words, REINFORCE on sampled others.

    The level is s. One reward, of the whole caption, counts for every sampled word.
    """

    def sample(batch: Batch, seed: tf.Tensor, level: tf.Tensor) -> Experience:
        steps = tf.cast(level, tf.int32)
        given = decoding.Given(batch.words, steps)
        paths = decoding.sample(
            captioner.step, captioner.start(batch.features), max_length, seed, given, keep_states=False
        )
        likelihood = Likelihood(
            estimators.given_mask(paths.words, steps), estimators.mixer_weight(steps, max_length, likelihood_weight)
        )
        none = decoding.no_rollouts(max_length)
        return Experience(batch.features, batch.image_index, paths.words, none, likelihood=likelihood)

    def credit(said: Experience, path_reward: tf.Tensor, rollout_reward: tf.Tensor) -> Credit:
        del rollout_reward
        return Credit(estimators.path_values(said.words, path_reward), None)

    return Objective(sample, credit)


def self_critical(captioner: Captioner, max_length: int, *, samples: int) -> Objective:
    """Returns SCST (Rennie et al. 2017): what is expected of a path is the reward of the greedy caption."""

    def sample(batch: Batch, seed: tf.Tensor, level: tf.Tensor) -> Experience:
        del level
        said, _ = _paths(captioner, batch, samples, max_length, seed)
        words, _ = decoding.greedy(captioner.step, captioner.start(batch.features), max_length)
        first = tf.range(tf.shape(words)[0]) * samples  # of the image's paths
        return said._replace(rollouts=decoding.Rollouts(words, tf.stack([first, -tf.ones_like(first)], axis=1)))

    def credit(said: Experience, path_reward: tf.Tensor, greedy_reward: tf.Tensor) -> Credit:
        return _against(said, path_reward, tf.repeat(greedy_reward, samples))

    return Objective(sample, credit)


def leave_one_out(captioner: Captioner, max_length: int, *, samples: int) -> Objective:
    """Returns REINFORCE with the mean reward of the image's other paths as baseline (Kool et al. 2019; Luo 2020).

    M = `samples` must be 2 or more.
    """

    def sample(batch: Batch, seed: tf.Tensor, level: tf.Tensor) -> Experience:
        del level
        return _paths(captioner, batch, samples, max_length, seed)[0]

    def credit(said: Experience, path_reward: tf.Tensor, rollout_reward: tf.Tensor) -> Credit:
        del rollout_reward
        return _against(said, path_reward, estimators.leave_one_out(path_reward, samples))

    return Objective(sample, credit)


def _paths(
    captioner: Captioner, batch: Batch, samples: int, max_length: int, seed: tf.Tensor, keep_states: bool = False
) -> tuple[Experience, decoding.Paths]:
    """M sampled paths an image, and nothing else yet to be scored."""
    features = tf.repeat(batch.features, samples, axis=0)
    start = captioner.start(features)
    paths = decoding.sample(captioner.step, start, max_length, seed, keep_states=keep_states)
    none = decoding.no_rollouts(max_length)
    return Experience(features, tf.repeat(batch.image_index, samples), paths.words, none), paths


def _against(said: Experience, path_reward: tf.Tensor, expected: tf.Tensor) -> Credit:
    """The same expectation `[N]` for every word of a path."""
    return Credit(estimators.path_values(said.words, path_reward), estimators.path_values(said.words, expected))
