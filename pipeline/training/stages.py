"""One stage ready to run: its step, its optimizers, its batches and its rhythm."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from spidercap.models.baseline import Baseline, StepBaseline
from spidercap.models.captioner import Captioner
from spidercap.models.special_tokens import PAD
from spidercap.pipeline.data.batches import TrainingArrays, caption_batches, image_batches
from spidercap.pipeline.settings.config import Config, stage_labels
from spidercap.pipeline.training import objectives, schedules
from spidercap.pipeline.training.optimizer import Adam, averaged
from spidercap.pipeline.training.progress import Progress
from spidercap.pipeline.training.rewards import Reward
from spidercap.pipeline.training.steps import TrainStep, likelihood_step, policy_gradient_step

LEARNS_FROM_CAPTIONS = ("mle", "mixer")  # an epoch goes through captions; elsewhere through pictures
MAY_READ_CAPTIONS = ("pg", "scst", "leave_one_out")  # beside the rewards of pictures, with --likelihood_weight


@dataclasses.dataclass(frozen=True)
class BuiltStage:
    """What the loop needs to know of a stage."""

    name: str  # of config.STAGES
    label: str  # unique in the run
    unit: str  # what a batch holds: caption or image
    step: TrainStep
    batches: Callable[[int], tf.data.Dataset]  # from a step on
    state: dict[str, Any]  # trackables of its own beside the models: optimizers, mixer's baseline
    level: Callable[[int], float]  # by step: what is annealed, mixer's s or scheduled sampling's probability
    samples_per_step: int  # sampled captions to be scored; rollouts and greedy captions not counted
    reference_length: float  # words of a true caption, the end token counted
    steps: int
    steps_per_epoch: float
    validate_every: int  # steps
    images_per_step: int  # pictures looked at: an image counts once for each of its captions in mle
    moves_policy: bool
    as_kept: Callable[[], contextlib.AbstractContextManager]  # while it lasts, weights are those to validate and keep
    steps_before: int  # of earlier stages, as planned
    note: str  # what the user might not expect of its settings; empty: nothing

    def validates_at(self, step: int) -> bool:
        """Returns whether to validate after `step` steps: at every beat, and at the end instead of just before it."""
        at_beat = step % self.validate_every == 0 and self.steps - step >= self.validate_every // 2
        return at_beat or step == self.steps

    def global_step(self, progress: Progress) -> int:
        """Returns the step on TensorBoard's axis, which runs through all stages."""
        return self.steps_before + progress.step


def build_stage(
    config: Config, index: int, captioner: Captioner, baseline: Baseline, arrays: TrainingArrays, reward: Reward
) -> BuiltStage:
    """Returns stage number `index` of the run with fresh optimizers."""
    name = config.parsed_stages()[index].name
    size = _size(name, arrays)
    steps = [_steps(config, arrays, i) for i in range(index + 1)]
    learns_from_captions = name in LEARNS_FROM_CAPTIONS
    per_epoch = size / config.batch_size
    step, state = _step(config, name, size, captioner, baseline, reward)
    batches = caption_batches if learns_from_captions else image_batches
    if _likelihood_weight(config, name):
        batches = functools.partial(image_batches, with_captions=True)
    averages = config.weight_average > 0 and name != "baseline"
    return BuiltStage(
        name=name,
        label=stage_labels(config)[index],
        unit="caption" if learns_from_captions else "image",
        step=step,
        batches=functools.partial(batches, arrays, config.batch_size, steps=steps[index], seed=(config.seed, index)),
        state=state,
        level=functools.partial(_level, config, name, per_epoch),
        samples_per_step={"mle": 0, "mixer": 1}.get(name, config.samples) * config.batch_size,
        reference_length=float(np.mean(np.sum(arrays.tokens != PAD, axis=1))),
        steps=steps[index],
        steps_per_epoch=per_epoch,
        validate_every=max(1, round(config.evaluate_every * per_epoch)),
        images_per_step=config.batch_size,
        moves_policy=name != "baseline",
        as_kept=functools.partial(averaged, captioner, state["optimizer"]) if averages else contextlib.nullcontext,
        steps_before=sum(steps[:index]),
        note=_note(config, name, steps[index], per_epoch),
    )


def build_objective(config: Config, name: str, captioner: Captioner) -> objectives.Objective:
    """Returns what the stage `name`, one that learns from rewards, samples and how it gives credit."""
    samples = config.samples
    if name == "mixer":
        return objectives.mixer(captioner, config.max_length, likelihood_weight=config.mixer_likelihood_weight)
    if name == "scst":
        return objectives.self_critical(captioner, config.max_length, samples=samples)
    if name == "leave_one_out":
        return objectives.leave_one_out(captioner, config.max_length, samples=samples)
    return objectives.policy_gradient(
        captioner,
        config.max_length,
        samples=samples,
        rollouts=config.rollouts,
        greedily=config.rollout_policy == "greedy",
        shared=config.share_rollouts and samples > 1,
    )


def _step(
    config: Config, name: str, size: int, captioner: Captioner, baseline: Baseline, reward: Reward
) -> tuple[TrainStep, dict[str, Any]]:
    """The stage's step, and what of it is saved beside the models."""
    state: dict[str, Any] = {}
    if name != "baseline":
        state["optimizer"] = _optimizer(config, name, size, captioner)
    if name == "mle":
        step = likelihood_step(
            captioner,
            state["optimizer"],
            feature_dropout=config.feature_dropout,
            label_smoothing=config.label_smoothing,
            scheduled_sampling=config.scheduled_sampling > 0,
        )
        return step, state
    learned = {"baseline": baseline, "pg": baseline}.get(name)
    if name == "mixer":
        learned = state["step_baseline"] = StepBaseline(config.units, config.max_length)
    if learned is not None:
        state["baseline_optimizer"] = _optimizer(config, "baseline", size, learned)
    step = policy_gradient_step(
        captioner,
        learned,
        reward,
        build_objective(config, name, captioner),
        state.get("optimizer"),
        state.get("baseline_optimizer"),
        feature_dropout=config.feature_dropout,
        likelihood_weight=_likelihood_weight(config, name),
    )
    return step, state


def _likelihood_weight(config: Config, name: str) -> float:
    return config.likelihood_weight if name in MAY_READ_CAPTIONS else 0.0


def _level(config: Config, name: str, steps_per_epoch: float, step: int) -> float:
    """What the stage anneals, at `step`; 0 where it anneals nothing."""
    epoch = step / steps_per_epoch
    if name == "mixer":
        return schedules.mixer_steps(epoch, config.max_length, config.mixer_step, config.mixer_epochs)
    if name == "mle":
        return schedules.sampling_probability(
            epoch, config.scheduled_sampling, config.scheduled_sampling_step, config.scheduled_sampling_epochs
        )
    return 0.0


def _note(config: Config, name: str, steps: int, steps_per_epoch: float) -> str:
    last = _level(config, name, steps_per_epoch, steps - 1)
    if name == "mle" and config.scheduled_sampling > 0 and last == 0:
        return (
            f"no word of the model's own will be read, as the first rise takes {config.scheduled_sampling_epochs:g} "
            "epochs; lower --scheduled_sampling_epochs, or give the stage more"
        )
    if name == "mixer" and last > 0:
        falls = f"falls to {last} only" if last < config.max_length else f"stays at {last}, which is likelihood alone"
        needed = math.ceil(config.max_length / config.mixer_step) * config.mixer_epochs
        return f"s {falls}; it takes {needed:g} epochs to 0: lower --mixer_epochs, or give the stage more"
    return ""


def _steps(config: Config, arrays: TrainingArrays, index: int) -> int:
    stage = config.parsed_stages()[index]
    return max(1, round(stage.epochs * _size(stage.name, arrays) / config.batch_size))


def _size(name: str, arrays: TrainingArrays) -> int:
    """What an epoch of the stage goes through."""
    return len(arrays.tokens if name in LEARNS_FROM_CAPTIONS else arrays.features)


def _optimizer(config: Config, name: str, size: int, model: keras.Model) -> keras.Optimizer:
    """Adam with the stage's rate, falling by its factor each epoch, its variables made so that they can be restored."""
    schedule = keras.optimizers.schedules.ExponentialDecay(
        config.of_stage("learning_rate", name),
        decay_steps=max(1, round(size / config.batch_size)),
        decay_rate=config.of_stage("decay", name),
        staircase=True,
    )
    more: dict[str, Any] = {}
    if name != "baseline" and config.weight_decay:
        more["weight_decay"] = config.weight_decay
    if name != "baseline" and config.weight_average:
        more |= {"use_ema": True, "ema_momentum": config.weight_average}
    optimizer = Adam(schedule, global_clipnorm=config.clip_norm or None, **more)
    if optimizer.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build(model.trainable_variables)
    return optimizer
