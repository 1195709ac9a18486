"""One stage ready to run: its step, optimizers, batches and validation interval."""

import contextlib
import dataclasses
import functools
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from spidercap.models.baseline import Baseline
from spidercap.models.captioner import Captioner
from spidercap.models.special_tokens import PAD
from spidercap.pipeline.data.batches import TrainingArrays, caption_batches, image_batches
from spidercap.pipeline.settings.config import Config, stage_labels
from spidercap.pipeline.settings.stages import ENCODER, RUN_BASELINE, STAGES, StageKind
from spidercap.pipeline.training import replicas
from spidercap.pipeline.training.advice import remedies
from spidercap.pipeline.training.experience import Objective
from spidercap.pipeline.training.lengths import batch_note, length_note, planned_steps, validation_interval
from spidercap.pipeline.training.optimizer import Adam, averaged
from spidercap.pipeline.training.progress import Progress
from spidercap.pipeline.training.rewards import Reward
from spidercap.pipeline.training.schedules import CONSTANT, Schedule
from spidercap.pipeline.training.steps import TrainStep, likelihood_step, policy_gradient_step

OWN_BASELINE = "step_baseline"  # name in checkpoints of a stage's own learned baseline


@dataclasses.dataclass(frozen=True)
class BuiltStage:
    """A stage as the training loop uses it."""

    name: str  # of STAGES
    label: str  # unique in the run
    unit: str  # of a batch: caption or image
    step: TrainStep
    batches: Callable[[int], tf.data.Dataset]  # first step -> this process' parts of its batch and of all later ones
    state: dict[str, Any]  # trackables beside the models: optimizers, mixer's baseline
    level: Callable[[int], float]  # step -> the annealed number: mixer's s or scheduled sampling's probability
    samples_per_step: int  # sampled captions, without rollouts and greedy captions
    reference_length: float  # mean number of tokens of a reference, the end token counted
    steps: int
    steps_per_epoch: float
    validate_every: int  # steps
    images_per_step: int  # in mle an image counts once per caption
    moves_policy: bool
    shown_with: str  # name of the stage in whose group it is on TensorBoard: of a warm-up, the stage that it is for
    as_kept: Callable[[], contextlib.AbstractContextManager]  # within it, weights are those to validate and keep
    steps_before: int  # planned steps of earlier stages
    notes: Mapping[str, str]  # warnings about its settings, by kind
    remedies: Mapping[str, str]  # against faults of its samples, by kind

    def validates_at(self, step: int) -> bool:
        """Returns whether to validate after `step` steps: at every interval, and at the end instead of just before."""
        at_interval = step % self.validate_every == 0 and self.steps - step >= self.validate_every // 2
        return at_interval or step == self.steps

    def global_step(self, progress: Progress) -> int:
        """Returns the step on TensorBoard's axis, which continues across stages."""
        return self.steps_before + progress.step


def build_stage(
    config: Config, index: int, captioner: Captioner, baseline: Baseline, arrays: TrainingArrays, reward: Reward
) -> BuiltStage:
    """Returns stage number `index` of the run with fresh optimizers."""
    name = config.training.parsed_stages()[index].name
    kind, batch_size = STAGES[name], config.training.batch_size
    steps = [_steps(config, arrays, i) for i in range(index + 1)]
    per_epoch = _size(kind, arrays) / batch_size
    step, state = _step(config, name, steps[index], captioner, baseline, reward)
    schedule = _schedule(kind)
    samples = (config.of_stage("samples", name) if "samples" in kind.settings else 1) if kind.learns_from_rewards else 0
    averages = kind.moves_policy and config.of_stage("weight_average", name) > 0
    return BuiltStage(
        name=name,
        label=stage_labels(config)[index],
        unit=kind.unit,
        step=step,
        batches=functools.partial(
            _batches(config, name),
            arrays,
            batch_size,
            steps=steps[index],
            seed=(config.run.seed, index),
            parts=replicas.parts(),
        ),
        state=state,
        level=lambda step: schedule.level(config, step / per_epoch),
        samples_per_step=samples * batch_size,
        reference_length=float(np.mean(np.sum(arrays.tokens != PAD, axis=1))),
        steps=steps[index],
        steps_per_epoch=per_epoch,
        validate_every=validation_interval(config.training.evaluate_every, per_epoch),
        images_per_step=batch_size,
        moves_policy=kind.moves_policy,
        shown_with=_shown_with(config, index),
        as_kept=functools.partial(averaged, captioner, state["optimizer"]) if averages else contextlib.nullcontext,
        steps_before=sum(steps[:index]),
        notes=_notes(config, index, arrays, steps[index]),
        remedies=remedies(config, name),
    )


def _shown_with(config: Config, index: int) -> str:
    names = [stage.name for stage in config.training.parsed_stages()[index:]]
    learned = (name for name in names if STAGES[name].moves_policy and STAGES[name].baseline)
    return names[0] if STAGES[names[0]].moves_policy else next(learned, names[0])


def planned_steps_of_all(config: Config, arrays: TrainingArrays) -> int:
    """Returns the steps of all stages of the run, if none of them ends early."""
    return sum(_steps(config, arrays, index) for index in range(len(config.training.parsed_stages())))


def build_objective(config: Config, name: str, captioner: Captioner) -> Objective:
    """Returns the objective of the stage `name`, one that learns from rewards."""
    kind = STAGES[name]
    settings = {setting: config.of_stage(setting, name) for setting in kind.settings}
    return pkgutil.resolve_name(kind.objective)(captioner, config.data.max_length, **settings)


def _batches(config: Config, name: str) -> Callable[..., tf.data.Dataset]:
    if STAGES[name].unit == "caption":
        return caption_batches
    return functools.partial(image_batches, with_captions=_likelihood_weight(config, name) > 0)


def _step(
    config: Config, name: str, steps: int, captioner: Captioner, baseline: Baseline, reward: Reward
) -> tuple[TrainStep, dict[str, Any]]:
    """The stage's train step, and the trackables that are saved beside the models."""
    kind = STAGES[name]
    state: dict[str, Any] = {}
    if kind.moves_policy:
        state["optimizer"] = _optimizer(config, name, steps, captioner)
    if not kind.learns_from_rewards:
        step = likelihood_step(
            captioner,
            state["optimizer"],
            feature_dropout=config.model.feature_dropout,
            label_smoothing=config.likelihood.label_smoothing,
            scheduled_sampling=config.likelihood.scheduled_sampling > 0,
        )
        return step, state
    learned = baseline if kind.baseline == RUN_BASELINE else None
    if kind.baseline and learned is None:
        build = pkgutil.resolve_name(kind.baseline)
        learned = state[OWN_BASELINE] = build(config.model.units, config.data.max_length)
    if learned is not None:
        state["baseline_optimizer"] = _optimizer(config, "baseline", steps, learned)
    step = policy_gradient_step(
        captioner,
        learned,
        reward,
        build_objective(config, name, captioner),
        state.get("optimizer"),
        state.get("baseline_optimizer"),
        feature_dropout=config.model.feature_dropout,
        likelihood_weight=_likelihood_weight(config, name),
    )
    return step, state


def _likelihood_weight(config: Config, name: str) -> float:
    return config.rewards.likelihood_weight if "likelihood_weight" in STAGES[name].reads else 0.0


def _steps(config: Config, arrays: TrainingArrays, index: int) -> int:
    stage = config.training.parsed_stages()[index]
    return planned_steps(stage, _size(STAGES[stage.name], arrays) / config.training.batch_size)


def _notes(config: Config, index: int, arrays: TrainingArrays, steps: int) -> dict[str, str]:
    """Warnings about the settings of stage number `index`, by kind."""
    stages, batch_size = config.training.parsed_stages()[: index + 1], config.training.batch_size
    kinds = [STAGES[stage.name] for stage in stages]
    sizes, unit = [_size(kind, arrays) for kind in kinds], kinds[-1].unit
    per_epoch, schedule = sizes[-1] / batch_size, _schedule(kinds[-1])
    # Once in a run is enough.
    batch = "" if min(sizes[:-1], default=batch_size) < batch_size else batch_note(sizes[-1], batch_size, unit)
    notes = {
        "schedule": schedule.note(config, schedule.level(config, (steps - 1) / per_epoch)),
        "length": length_note(stages[-1], per_epoch, batch_size, unit),
        "batch": batch,
    }
    return {kind: text for kind, text in notes.items() if text}


def _schedule(kind: StageKind) -> Schedule:
    return pkgutil.resolve_name(kind.schedule) if kind.schedule else CONSTANT


def _size(kind: StageKind, arrays: TrainingArrays) -> int:
    """The number of captions or images in an epoch of the stage."""
    return len(arrays.tokens if kind.unit == "caption" else arrays.features)


def _optimizer(config: Config, name: str, steps: int, model: keras.Model) -> keras.Optimizer:
    """Adam whose learning rate falls by the stage's decay over `steps` updates; built, so that it can be restored.

    The rate of the encoder's tuned layers falls alike.
    """
    schedule = keras.optimizers.schedules.ExponentialDecay(
        config.of_stage("learning_rate", name), decay_steps=steps, decay_rate=config.of_stage("decay", name)
    )
    more: dict[str, Any] = {}
    if STAGES[name].moves_policy:
        average = config.of_stage("weight_average", name)
        more = {"weight_decay": config.training.weight_decay or None}
        more |= {"use_ema": True, "ema_momentum": average} if average else {}
        if model.tuned is not None:
            rates = [config.of_stage("learning_rate", of) for of in (ENCODER, name)]
            more |= {"slow": model.tuned.trainable_variables, "slowness": rates[0] / rates[1]}
    optimizer = Adam(schedule, global_clipnorm=config.training.clip_norm or None, **more)
    if optimizer.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build(model.trainable_variables)
    return optimizer
