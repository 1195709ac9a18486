"""The lines of `benchmarks.speed`: each builds a call that is repeated, and counts the work that the call needs."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from benchmarks.speed_work import (
    Work,
    beam_steps,
    learned_images,
    rollout_steps,
    sampled_and_learned_images,
    words_in,
)
from benchmarks.speed_world import ENCODER, World
from spidercap.models import beam, decoding
from spidercap.pipeline.data.batches import Batch, caption_batches, image_batches
from spidercap.pipeline.metrics.registry import GROUPS, METRICS
from spidercap.pipeline.training import objectives
from spidercap.pipeline.training.experience import Experience, Objective
from spidercap.pipeline.training.optimizer import Adam
from spidercap.pipeline.training.rewards import Reward
from spidercap.pipeline.training.steps import likelihood_step, policy_gradient_step

CLIP_NORM = 5.0
FETCHED = 50  # batches per call
SCORED = 2048  # captions per call, about those of a PG step with K = 3 and B = 64


class Built(NamedTuple):
    """A line ready to run."""

    call: Callable[[], Any]
    size: int  # number of units (captions, images) per call
    work: Callable[[], Work] | None = None  # what a call needs at least; None: it does not decode
    settings: Mapping[str, Any] = {}  # additional ones of the line


class Line(NamedTuple):
    """A line of the table."""

    unit: str
    build: Callable[[World], Built]


def lines() -> dict[str, Line]:
    """Returns all lines by name."""
    found = {
        "MLE step": Line("captions/s", _likelihood),
        "greedy": Line("images/s", _greedy),
        "sampling": Line("images/s", _sampling),
    }
    for width in (1, 3, 5, 10):
        found[f"beam {width}"] = Line("images/s", lambda world, width=width: _beam(world, width))
    for rollouts in (1, 3, 5):
        found[f"PG step, K = {rollouts}"] = Line("images/s", lambda world, k=rollouts: _policy_gradient(world, k))
    return found | {
        "PG step, K = 3, SPIDEr-fast": Line(
            "images/s", lambda world: _policy_gradient(world, 3, METRICS["spider_fast"].mix)
        ),
        **{f"vine step, K = {k}": Line("images/s", lambda world, k=k: _vine(world, k)) for k in (1, 3)},
        "SCST step": Line("images/s", lambda world: _learned(world, self_critical(world), learns_baseline=False)),
        "leave-one-out step, M = 5": Line(
            "images/s", lambda world: _learned(world, leave_one_out(world), learns_baseline=False)
        ),
        "BLEU-1..4": Line("captions/s", lambda world: _reward(world, GROUPS["bleu"])),
        "ROUGE-L": Line("captions/s", lambda world: _reward(world, ("rouge",))),
        "CIDEr-D": Line("captions/s", lambda world: _reward(world, ("cider",))),
        "SPICE-fast": Line("captions/s", lambda world: _reward(world, ("spice_fast",))),
        "encoder": Line("images/s", _encoder),
        "encoder, from files": Line("images/s", _features),
        "input, captions": Line("captions/s", lambda world: _input(world, caption_batches)),
        "input, images": Line("images/s", lambda world: _input(world, image_batches)),
    }


def rolled_out(world: World, rollouts: int) -> Objective:
    """Returns PG's objective with one sample per image."""
    return objectives.policy_gradient(world.captioner, world.setting.length, samples=1, rollouts=rollouts)


def self_critical(world: World) -> Objective:
    """Returns SCST's objective with one sample per image."""
    return objectives.self_critical(world.captioner, world.setting.length, samples=1)


def leave_one_out(world: World) -> Objective:
    """Returns the leave-one-out objective with five samples per image."""
    return objectives.leave_one_out(world.captioner, world.setting.length, samples=5)


def learning_call(
    world: World, objective: Objective, learns_baseline: bool, reward: Reward | None = None
) -> Callable[[], Any]:
    """Returns a train step, on CIDEr-D by default, with learning rate 0, so that all calls sample the same captions."""
    baseline = world.baseline if learns_baseline else None
    step = policy_gradient_step(
        world.captioner,
        baseline,
        reward or world.reward,
        objective,
        still(world.captioner),
        still(baseline) if learns_baseline else None,
        feature_dropout=0.0,
    )
    return lambda: step(world.images, world.seed, world.level)


def still(model: keras.Model) -> keras.Optimizer:
    """Returns an optimizer that does all its work but changes nothing."""
    optimizer = Adam(0.0, global_clipnorm=CLIP_NORM)
    optimizer.build(model.trainable_variables)
    return optimizer


def experience_of(world: World, objective: Objective) -> Experience:
    """Returns the samples of each step with this objective."""
    return tf.function(objective.sample)(world.images, world.seed, world.level)


def _likelihood(world: World) -> Built:
    step = likelihood_step(world.captioner, still(world.captioner), feature_dropout=0.0)
    batch = world.captions
    return Built(
        lambda: step(batch, world.seed, world.level),
        len(batch.tokens),
        lambda: Work(3 * words_in(batch.tokens), learned_images(world, words_in(batch.tokens))),
    )


def _greedy(world: World) -> Built:
    def greedy(step: decoding.Step, state) -> tf.Tensor:
        return decoding.greedy(step, state, world.setting.length, world.setting.jit)[0]

    return _decoded(world, greedy, words_in)


def _sampling(world: World) -> Built:
    def sample(step: decoding.Step, state) -> tf.Tensor:
        return decoding.sample(step, state, world.setting.length, world.seed, jit=world.setting.jit)

    return _decoded(world, sample, words_in)


def _beam(world: World, width: int) -> Built:
    def search(step: decoding.Step, state) -> tf.Tensor:
        return beam.beam_search(step, state, world.setting.length, width=width, jit=world.setting.jit).tokens

    return _decoded(world, search, beam_steps)


def _decoded(world: World, decode: Callable, count: Callable[[tf.Tensor], int]) -> Built:
    captioner = world.captioner

    @tf.function(autograph=False)
    def run(features: tf.Tensor) -> tf.Tensor:
        return decode(*captioner.begin(features))

    features = world.images.features
    images = len(features) * world.setting.image_flops()
    return Built(lambda: run(features), len(features), lambda: Work(count(run(features)), images))


def _policy_gradient(world: World, rollouts: int, weights: Mapping[str, float] | None = None) -> Built:
    reward = world.reward_of(weights) if weights else None
    return _learned(world, rolled_out(world, rollouts), learns_baseline=True, reward=reward)


def _learned(world: World, objective: Objective, learns_baseline: bool, reward: Reward | None = None) -> Built:
    def work() -> Work:
        experience = experience_of(world, objective)
        # SCST's greedy captions follow no prefix, so that all of their tokens are decoded.
        others = rollout_steps(experience.rollouts) if learns_baseline else words_in(experience.rollouts.tokens)
        return Work(4 * words_in(experience.tokens) + others, sampled_and_learned_images(world, experience))

    return Built(learning_call(world, objective, learns_baseline, reward), world.setting.batch, work)


def _vine(world: World, words: int) -> Built:
    objective = objectives.vine(world.captioner, world.setting.length, samples=1, rollouts=words)

    def work() -> Work:
        experience = experience_of(world, objective)
        # The update takes no pass over the vocabulary.
        decoder = 1 - 2 * world.setting.units * world.setting.vocabulary / world.setting.word_flops()
        steps = (1 + 3 * decoder) * words_in(experience.tokens) + rollout_steps(experience.rollouts)
        return Work(steps, sampled_and_learned_images(world, experience))

    return Built(learning_call(world, objective, learns_baseline=False), world.setting.batch, work)


def _reward(world: World, terms: tuple[str, ...]) -> Built:
    reward = world.reward_of(dict.fromkeys(terms, 1.0))
    scores = tf.function(reward.compiled_scores)
    captions = tf.constant(np.resize(world.arrays.tokens, [SCORED, world.setting.length]))
    images = tf.constant(np.arange(SCORED, dtype=np.int32) * 7 % world.setting.images)
    return Built(lambda: scores(captions, images), SCORED)


def _encoder(world: World) -> Built:
    side = world.setting.side
    pixels = tf.random.stateless_uniform([world.setting.encoded, side, side, 3], [1, 2], 0, 255)
    encoder = world.encoder()
    run = tf.function(lambda images: encoder(images, training=False))
    settings = {"encoder": ENCODER, "image_size": side, "images": len(pixels)}
    return Built(lambda: run(pixels), len(pixels), settings=settings)


def _features(world: World) -> Built:
    """Images are read and decoded too. Each call computes all features again, because their cache is deleted."""
    cache = world.rendered_images()
    settings = {"encoder": ENCODER, "image_size": world.setting.side, "images": cache.count}
    return Built(cache.compute, cache.count, settings=settings)


def _input(world: World, batches: Callable[..., tf.data.Dataset]) -> Built:
    stream = iter(batches(world.arrays, world.setting.batch, 0, steps=2**40, seed=(0, 0)))

    def fetch() -> Batch:
        for _ in range(FETCHED):
            batch = next(stream)
        return batch

    return Built(fetch, FETCHED * world.setting.batch)
