"""One stage ready to run: its step, its optimizers, its batches and its rhythm."""

import dataclasses
import functools
from collections.abc import Callable

import keras
import tensorflow as tf

from models.baseline import Baseline
from models.captioner import Captioner
from pipeline.config import Config
from pipeline.inputs import TrainingArrays, caption_batches, image_batches
from pipeline.progress import Progress
from pipeline.rewards import Reward
from pipeline.steps import TrainStep, likelihood_step, policy_gradient_step
from pipeline.workdir import stage_labels


@dataclasses.dataclass(frozen=True)
class BuiltStage:
    """What the loop needs to know of a stage."""

    name: str  # of config.STAGES
    label: str  # unique in the run
    unit: str  # what a batch holds: caption or image
    step: TrainStep
    batches: Callable[[int], tf.data.Dataset]  # from a step on
    optimizers: dict[str, keras.Optimizer]
    steps: int
    steps_per_epoch: float
    validate_every: int  # steps
    images_per_step: int  # pictures looked at: an image counts once for each of its captions in mle
    moves_policy: bool
    steps_before: int  # of earlier stages, as planned

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
    learns_words = name == "mle"
    size = _size(name, arrays)
    steps = [_steps(config, arrays, i) for i in range(index + 1)]
    optimizers = {}
    if name != "baseline":
        optimizers["optimizer"] = _optimizer(config, name, size, captioner)
    if learns_words:
        step = likelihood_step(captioner, optimizers["optimizer"], feature_dropout=config.feature_dropout)
    else:
        optimizers["baseline_optimizer"] = _optimizer(config, "baseline", size, baseline)
        step = policy_gradient_step(
            captioner,
            baseline,
            reward,
            optimizers.get("optimizer"),
            optimizers["baseline_optimizer"],
            samples=config.samples,
            rollouts=config.rollouts,
            max_length=config.max_length,
            feature_dropout=config.feature_dropout,
        )
    batches = caption_batches if learns_words else image_batches
    per_epoch = size / config.batch_size
    return BuiltStage(
        name=name,
        label=stage_labels(config)[index],
        unit="caption" if learns_words else "image",
        step=step,
        batches=functools.partial(batches, arrays, config.batch_size, steps=steps[index], seed=(config.seed, index)),
        optimizers=optimizers,
        steps=steps[index],
        steps_per_epoch=per_epoch,
        validate_every=max(1, round(config.evaluate_every * per_epoch)),
        images_per_step=config.batch_size,
        moves_policy=name != "baseline",
        steps_before=sum(steps[:index]),
    )


def _steps(config: Config, arrays: TrainingArrays, index: int) -> int:
    stage = config.parsed_stages()[index]
    return max(1, round(stage.epochs * _size(stage.name, arrays) / config.batch_size))


def _size(name: str, arrays: TrainingArrays) -> int:
    """What an epoch of the stage goes through: captions in mle, pictures elsewhere."""
    return len(arrays.words if name == "mle" else arrays.features)


def _optimizer(config: Config, name: str, size: int, model: keras.Model) -> keras.Optimizer:
    """Adam with the stage's rate, falling by its factor each epoch, its variables made so that they can be restored."""
    schedule = keras.optimizers.schedules.ExponentialDecay(
        config.of_stage("learning_rate", name),
        decay_steps=max(1, round(size / config.batch_size)),
        decay_rate=config.of_stage("decay", name),
        staircase=True,
    )
    optimizer = keras.optimizers.Adam(schedule, global_clipnorm=config.clip_norm or None)
    optimizer.build(model.trainable_variables)
    return optimizer
