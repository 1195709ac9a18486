"""What tells one objective on a reward from another: what is sampled, and how rewards become advantages.

Each is a pair of functions; sampling, scoring, loss and update, which they share, are in steps.py. All follow the
gradient of sum_t log pi(g_t | g_<t) (Q_t - b_t): they differ in where the captions come from, in Q and in b.

Shapes: B images (mixer: captions), M paths an image, N = B * M paths, T steps, K rollouts, Q other captions.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from spidercap.models import categorical, decoding
from spidercap.models.captioner import Captioner
from spidercap.models.rollouts import Rollouts, no_rollouts, roll_out
from spidercap.pipeline.data.batches import Batch
from spidercap.pipeline.training import estimators


class Likelihood(NamedTuple):
    """What mixer learns by likelihood in the same step."""

    mask: tf.Tensor  # bool [N, T]: words that were given, not sampled
    weight: tf.Tensor  # scalar in 0..1; the reward has the rest


class Truth(NamedTuple):
    """A true caption of each picture, learned by likelihood beside the paths."""

    features: tf.Tensor  # [B, F]
    words: tf.Tensor  # [B, T]
    weight: tf.Tensor  # scalar in 0..1; the reward has the rest


class Experience(NamedTuple):
    """What the policy said, before anything is scored."""

    features: tf.Tensor  # [N, F]
    image_index: tf.Tensor  # [N]
    words: tf.Tensor  # [N, T]
    rollouts: Rollouts  # other captions to be scored: words [Q, T], prefix [Q, 2]
    leaders: tf.Tensor | None = None  # [N, T], where paths share rollouts
    likelihood: Likelihood | None = None
    truth: Truth | None = None


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
    captioner: Captioner,
    max_length: int,
    *,
    samples: int,
    rollouts: int,
    rollout_policy: str = "sample",
    share_rollouts: bool = False,
) -> Objective:
    """Returns PG (Liu et al. 2017, algorithm 1): Q by K rollouts from every prefix, learned baseline.

    With K = 0, Q is the path's own reward: REINFORCE with a baseline. The rollout policy "greedy" takes the likeliest
    words, which is biased. `share_rollouts`: paths of one image that begin alike share rollouts.
    """

    choose = {"sample": categorical.draw, "greedy": categorical.likeliest}[rollout_policy]
    shared = share_rollouts and samples > 1

    def sample(batch: Batch, seed: tf.Tensor, level: tf.Tensor) -> Experience:
        del level
        path_seed, rollout_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        if rollouts == 0:
            return _paths(captioner, batch, samples, max_length, path_seed)
        many, step = _repeated(batch, samples), captioner.stepper()
        words, forks = decoding.sample_with_forks(
            step, captioner.start(many.features), max_length, path_seed, rollouts, choose, captioner.jit
        )
        leaders = estimators.prefix_leaders(words, samples) if shared else None
        if shared:
            leads = tf.gather_nd(leaders, forks.prefix) == forks.prefix[:, 0]
            forks = decoding.Forks(*(tf.boolean_mask(x, leads) for x in forks))
        rolled = roll_out(step, words, forks, rollout_seed, choose, captioner.jit)
        return Experience(many.features, many.image_index, words, rolled, leaders)

    def credit(said: Experience, path_reward: tf.Tensor, rollout_reward: tf.Tensor) -> Credit:
        if rollouts == 0:
            return Credit(estimators.path_values(said.words, path_reward), None)
        prefix = said.rollouts.prefix
        return Credit(estimators.action_values(said.words, path_reward, prefix, rollout_reward, said.leaders), None)

    return Objective(sample, credit)


def mixer(captioner: Captioner, max_length: int, *, mixer_likelihood_weight: float) -> Objective:
    """Returns MIXER (Ranzato et al. 2016): likelihood on a reference's first s words, REINFORCE on sampled others.

    The level is s. One reward, of the whole caption, counts for every sampled word.
    """

    def sample(batch: Batch, seed: tf.Tensor, level: tf.Tensor) -> Experience:
        steps = tf.cast(level, tf.int32)
        given = decoding.Given(batch.words, steps)
        words = decoding.sample(
            captioner.stepper(), captioner.start(batch.features), max_length, seed, given, captioner.jit
        )
        likelihood = Likelihood(
            estimators.given_mask(words, steps), estimators.mixer_weight(steps, max_length, mixer_likelihood_weight)
        )
        return Experience(batch.features, batch.image_index, words, no_rollouts(max_length), likelihood=likelihood)

    def credit(said: Experience, path_reward: tf.Tensor, rollout_reward: tf.Tensor) -> Credit:
        del rollout_reward
        return Credit(estimators.path_values(said.words, path_reward), None)

    return Objective(sample, credit)


def self_critical(captioner: Captioner, max_length: int, *, samples: int) -> Objective:
    """Returns SCST (Rennie et al. 2017): what is expected of a path is the reward of the greedy caption."""

    def sample(batch: Batch, seed: tf.Tensor, level: tf.Tensor) -> Experience:
        del level
        said = _paths(captioner, batch, samples, max_length, seed)
        words, _ = decoding.greedy(captioner.stepper(), captioner.start(batch.features), max_length, captioner.jit)
        first = tf.range(tf.shape(words)[0]) * samples  # of the image's paths
        return said._replace(rollouts=Rollouts(words, tf.stack([first, -tf.ones_like(first)], axis=1)))

    def credit(said: Experience, path_reward: tf.Tensor, greedy_reward: tf.Tensor) -> Credit:
        return _against(said, path_reward, tf.repeat(greedy_reward, samples))

    return Objective(sample, credit)


def leave_one_out(captioner: Captioner, max_length: int, *, samples: int) -> Objective:
    """Returns REINFORCE with the mean reward of the image's other paths as baseline (Kool et al. 2019; Luo 2020).

    M = `samples` must be 2 or more.
    """

    def sample(batch: Batch, seed: tf.Tensor, level: tf.Tensor) -> Experience:
        del level
        return _paths(captioner, batch, samples, max_length, seed)

    def credit(said: Experience, path_reward: tf.Tensor, rollout_reward: tf.Tensor) -> Credit:
        del rollout_reward
        return _against(said, path_reward, estimators.leave_one_out(path_reward, samples))

    return Objective(sample, credit)


def _paths(captioner: Captioner, batch: Batch, samples: int, max_length: int, seed: tf.Tensor) -> Experience:
    """M sampled paths an image, and nothing else to be scored."""
    many = _repeated(batch, samples)
    start = captioner.start(many.features)
    words = decoding.sample(captioner.stepper(), start, max_length, seed, jit=captioner.jit)
    return Experience(many.features, many.image_index, words, no_rollouts(max_length))


def _repeated(batch: Batch, samples: int) -> Batch:
    """Every picture M times, one after the other."""
    return Batch(tf.repeat(batch.features, samples, axis=0), tf.repeat(batch.image_index, samples), None)


def _against(said: Experience, path_reward: tf.Tensor, expected: tf.Tensor) -> Credit:
    """The same expectation `[N]` for every word of a path."""
    return Credit(estimators.path_values(said.words, path_reward), estimators.path_values(said.words, expected))
