"""What tells one objective on a reward from another: what is sampled, and how rewards become advantages.

Each is a pair of functions; what they share, scoring, losses and update, is in steps.py and gradients.py. All follow
the gradient of sum_t log pi(g_t | g_<t) (Q_t - b_t): they differ in where the captions come from, in Q and in b.

Shapes: B images (mixer: captions), M samples an image, N = B * M samples, T steps, K rollouts, Q other captions. Every
function raises ValueError for other shapes, and for numbers that an objective cannot work with.
"""

from typing import Any

import tensorflow as tf

from spidercap.models import categorical, decoding
from spidercap.models.captioner import Captioner
from spidercap.models.rollouts import Rollouts, no_rollouts, roll_out
from spidercap.models.row_random import Seed, repeated, split
from spidercap.pipeline.data.batches import Batch
from spidercap.pipeline.training import estimators, siblings
from spidercap.pipeline.training.experience import Credit, Experience, Likelihood, Objective, WordsDrawn
from spidercap.pipeline.training.shapes import check_shapes

CHOICES = {"sample": categorical.draw, "greedy": categorical.likeliest}  # of a rollout's tokens


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

    With K = 0, Q is the sample's own reward: REINFORCE with a baseline. The rollout policy is "sample", or "greedy":
    the likeliest tokens, which is biased, and the same each time, so that it takes K = 1. `share_rollouts`: samples of
    one image share the rollouts of a common prefix.
    """
    _check_least("policy_gradient", max_length=(max_length, 1), samples=(samples, 1), rollouts=(rollouts, 0))
    if rollout_policy not in CHOICES:
        raise ValueError(f"policy_gradient: rollout_policy is {rollout_policy!r}; allowed: {', '.join(CHOICES)}")
    if rollout_policy == "greedy" and rollouts != 1:
        raise ValueError(f"policy_gradient: rollout_policy='greedy' takes rollouts = 1, got {rollouts}")
    choose, shared = CHOICES[rollout_policy], share_rollouts and samples > 1

    def sample(batch: Batch, seed: Seed, level: tf.Tensor) -> Experience:
        del level
        sample_seed, rollout_seed = split(repeated(seed, samples))
        if rollouts == 0:
            return _samples("policy_gradient", captioner, batch, samples, max_length, sample_seed)
        _check_batch("policy_gradient", batch)
        step, start = captioner.begin(batch.features, samples)
        tokens, forks = decoding.sample_with_forks(
            step, start, max_length, sample_seed, rollouts, choose, captioner.jit
        )
        leaders = estimators.prefix_leaders(tokens, samples) if shared else None
        if shared:
            leads = tf.gather_nd(leaders, forks.prefix) == forks.prefix[:, 0]
            forks = tf.nest.map_structure(lambda x: tf.boolean_mask(x, leads), forks)
        rolled = roll_out(step, tokens, forks, rollout_seed, choose, captioner.jit)
        return _experience(batch, samples, tokens, rolled, leaders=leaders)

    def credit(experience: Experience, sample_rewards: tf.Tensor, rollout_rewards: tf.Tensor) -> Credit:
        _check_rewards("policy_gradient", experience, sample_rewards, rollout_rewards)
        if rollouts == 0:
            return Credit(estimators.sample_values(experience.tokens, sample_rewards), None)
        prefix, leaders = experience.rollouts.prefix, experience.leaders
        values = estimators.action_values(experience.tokens, sample_rewards, prefix, rollout_rewards, leaders)
        return Credit(values, None)

    return Objective(sample, credit)


def mixer(captioner: Captioner, max_length: int, *, mixer_likelihood_weight: float) -> Objective:
    """Returns MIXER (Ranzato et al. 2016): likelihood on a reference's first s tokens, REINFORCE on sampled others.

    The level is s. One reward, of the whole caption, is the return of every sampled token.
    """
    _check_least("mixer", max_length=(max_length, 1))
    if not 0 <= mixer_likelihood_weight <= 1:
        raise ValueError(f"mixer: mixer_likelihood_weight must be in 0..1, got {mixer_likelihood_weight}")

    def sample(batch: Batch, seed: Seed, level: tf.Tensor) -> Experience:
        _check_batch("mixer", batch)
        check_shapes("mixer", tokens=(batch.tokens, f"B {max_length}"), image_index=(batch.image_index, "B"))
        steps = tf.cast(level, tf.int32)
        given = decoding.Given(batch.tokens, steps)
        tokens = decoding.sample(*captioner.begin(batch.features), max_length, seed, given, captioner.jit)
        likelihood = Likelihood(
            estimators.given_mask(tokens, steps), estimators.mixer_weight(steps, max_length, mixer_likelihood_weight)
        )
        return Experience(batch.features, batch.image_index, tokens, no_rollouts(max_length), likelihood=likelihood)

    def credit(experience: Experience, sample_rewards: tf.Tensor, rollout_rewards: tf.Tensor) -> Credit:
        _check_rewards("mixer", experience, sample_rewards, rollout_rewards)
        return Credit(estimators.sample_values(experience.tokens, sample_rewards), None)

    return Objective(sample, credit)


def self_critical(captioner: Captioner, max_length: int, *, samples: int) -> Objective:
    """Returns SCST (Rennie et al. 2017): the baseline of a sample is the reward of its image's greedy caption."""
    _check_least("self_critical", max_length=(max_length, 1), samples=(samples, 1))

    def sample(batch: Batch, seed: Seed, level: tf.Tensor) -> Experience:
        del level
        experience = _samples("self_critical", captioner, batch, samples, max_length, repeated(seed, samples))
        tokens, _ = decoding.greedy(*captioner.begin(batch.features), max_length, captioner.jit)
        first = tf.range(tf.shape(tokens)[0]) * samples  # of the image's samples
        return experience._replace(rollouts=Rollouts(tokens, tf.stack([first, -tf.ones_like(first)], axis=1)))

    def credit(experience: Experience, sample_rewards: tf.Tensor, greedy_rewards: tf.Tensor) -> Credit:
        _check_rewards("self_critical", experience, sample_rewards, greedy_rewards)
        return _against(experience, sample_rewards, tf.repeat(greedy_rewards, samples))

    return Objective(sample, credit)


def leave_one_out(captioner: Captioner, max_length: int, *, samples: int) -> Objective:
    """Returns REINFORCE with the mean reward of the image's other samples as baseline (Kool et al. 2019; Luo 2020).

    M = `samples` must be 2 or more.
    """
    _check_least("leave_one_out", max_length=(max_length, 1), samples=(samples, 2))

    def sample(batch: Batch, seed: Seed, level: tf.Tensor) -> Experience:
        del level
        return _samples("leave_one_out", captioner, batch, samples, max_length, repeated(seed, samples))

    def credit(experience: Experience, sample_rewards: tf.Tensor, rollout_rewards: tf.Tensor) -> Credit:
        _check_rewards("leave_one_out", experience, sample_rewards, rollout_rewards)
        return _against(experience, sample_rewards, estimators.leave_one_out(sample_rewards, samples))

    return Objective(sample, credit)


def vine(captioner: Captioner, max_length: int, *, samples: int, rollouts: int) -> Objective:
    """Returns leave-one-out at every state: words drawn from the state of a sampled caption, one rollout from each.

    K = `rollouts` words are drawn from every state, beside the sample's own. Each one that is new there is rolled out
    once; its value is the rollout's reward. What is compared with a word is the mean value of the others
    (siblings.py). Source: the states and rollouts are those of the vine procedure (Schulman et al. 2015, "Trust region
    policy optimization", 5.2) and of VinePPO (Kazemnejad et al. 2024), the estimator is Kool et al. 2019's.
    """
    _check_least("vine", max_length=(max_length, 1), samples=(samples, 1), rollouts=(rollouts, 1))

    def sample(batch: Batch, seed: Seed, level: tf.Tensor) -> Experience:
        del level
        sample_seed, rollout_seed = split(repeated(seed, samples))
        _check_batch("vine", batch)
        step, start = captioner.begin(batch.features, samples)
        draw = categorical.draw
        tokens, forks = decoding.sample_with_forks(
            step, start, max_length, sample_seed, rollouts, draw, captioner.jit, from_start=True
        )
        new = siblings.new_words(siblings.own_words(tokens, forks.prefix), forks.tokens)
        rolled = roll_out(step, tokens, forks, rollout_seed, draw, captioner.jit, new)
        drawn = WordsDrawn(forks.prefix, forks.tokens, forks.log_prob)
        return _experience(batch, samples, tokens, rolled, drawn=drawn)

    def credit(experience: Experience, sample_rewards: tf.Tensor, rollout_rewards: tf.Tensor) -> Credit:
        _check_rewards("vine", experience, sample_rewards, rollout_rewards)
        return siblings.leave_one_out(experience.tokens, experience.drawn, sample_rewards, rollout_rewards)

    return Objective(sample, credit)


def _samples(
    objective: str, captioner: Captioner, batch: Batch, samples: int, max_length: int, seed: Seed
) -> Experience:
    """M sampled captions an image, and nothing else to be scored."""
    _check_batch(objective, batch)
    tokens = decoding.sample(*captioner.begin(batch.features, samples), max_length, seed, jit=captioner.jit)
    return _experience(batch, samples, tokens, no_rollouts(max_length))


def _experience(batch: Batch, samples: int, tokens: tf.Tensor, rolled: Rollouts, **more: Any) -> Experience:
    """Of M samples an image, one after the other."""
    row = tf.repeat(tf.range(tf.shape(batch.features)[0]), samples)
    image_index = tf.repeat(batch.image_index, samples)
    return Experience(batch.features, image_index, tokens, rolled, **more, feature_row=row)


def _against(experience: Experience, sample_rewards: tf.Tensor, baseline: tf.Tensor) -> Credit:
    """The same baseline `[N]` for every token of a sample."""
    values = estimators.sample_values(experience.tokens, sample_rewards)
    return Credit(values, estimators.sample_values(experience.tokens, baseline))


def _check_least(objective: str, **settings: tuple[int, int]) -> None:
    for name, (value, least) in settings.items():
        if value < least:
            raise ValueError(f"{objective}: {name} must be {least} or more, got {value}")


def _check_batch(objective: str, batch: Batch) -> None:
    spec = "B P F" if batch.features.shape.rank == 3 else "B F"
    check_shapes(objective, features=(batch.features, spec), image_index=(batch.image_index, "B"))


def _check_rewards(
    objective: str, experience: Experience, sample_rewards: tf.Tensor, rollout_rewards: tf.Tensor
) -> None:
    check_shapes(
        objective,
        tokens=(experience.tokens, "N T"),
        rollouts=(experience.rollouts.tokens, "Q T"),
        sample_rewards=(sample_rewards, "N"),
        rollout_rewards=(rollout_rewards, "Q"),
    )
