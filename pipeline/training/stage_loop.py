"""The loop over the steps of one stage: iterate, log, save, validate, keep the best weights."""

import dataclasses
import time
from collections.abc import Callable

import tensorflow as tf

from spidercap.pipeline.errors import Interrupted
from spidercap.pipeline.evaluation.evaluate import Evaluation
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.training import replicas
from spidercap.pipeline.training.advice import selection_notes
from spidercap.pipeline.training.checkpoints import Saver
from spidercap.pipeline.training.console import Console
from spidercap.pipeline.training.logs import StepLogs, as_floats, named_scalars, warm_up_scalars
from spidercap.pipeline.training.progress import Progress, Validation
from spidercap.pipeline.training.stages import BuiltStage
from spidercap.pipeline.training.tensorboard import Board
from spidercap.pipeline.training.watch import Watch


@dataclasses.dataclass
class StageLoop:
    """Trains a stage from the step of `progress` on."""

    config: Config
    stage: BuiltStage
    progress: Progress
    saver: Saver
    board: Board
    console: Console
    validate: Callable[[], Evaluation]

    def __post_init__(self):
        self._watch = Watch(self.progress, self.stage, self.config.training.max_skipped)
        self._started, self._first = time.monotonic(), self.progress.step
        self._clock = self._started - self.progress.seconds  # when the stage would have begun without a break

    def run(self, stopping: Callable[[], bool]) -> None:
        """Trains until the stage's steps are done or its patience is over.

        Raises:
          Interrupted: `stopping` was true after a step, whose checkpoint was saved.
          UserError: too many updates were skipped.
        """
        stage, progress, watch, saved = self.stage, self.progress, self._watch, self._started
        seed = tf.constant([self.config.run.seed, progress.stage], tf.int32)
        self.console.warn(watch.new(stage.notes))
        for batch in replicas.batches(stage.batches(progress.step)):
            step_seed = tf.random.experimental.stateless_fold_in(seed, progress.step)
            logs = stage.step(batch, step_seed, tf.constant(stage.level(progress.step), tf.float32))
            logs = replicas.local(logs)[0]  # the same on all replicas
            progress.step += 1
            self.console.stepped()
            watch.see(logs)
            if progress.step % self.config.run.log_every == 0 or progress.step == stage.steps:
                self._log(as_floats(logs))
            validated = stage.validates_at(progress.step)
            over = validated and self._validated()
            progress.seconds = time.monotonic() - self._clock
            # Read once per step: a later signal stops the run after the next step, which is then saved.
            asked = stopping()
            due = asked or validated or time.monotonic() - saved > self.config.run.checkpoint_every * 60
            if due and watch.is_sound() and not over:
                self.saver.save()
                saved = time.monotonic()
                watch.saved()
            if over:
                return
            if asked:
                raise Interrupted(self.saver.newest())

    def _log(self, logs: StepLogs) -> None:
        """Tells the logs of a step, as floats."""
        stage, progress = self.stage, self.progress
        done = progress.step - self._first
        rate = done * self.config.training.batch_size / (time.monotonic() - self._started)
        values = named_scalars(logs)
        told = values | {f"{stage.unit}s a second": rate} if stage.moves_policy else warm_up_scalars(values)
        self.board.scalars(stage.global_step(progress), stage.shown_with, told)
        self.console.log(progress.step, values, rate)
        self.console.warn(self._watch.warnings(logs))
        self._watch.check(self.saver.checkpoints())

    def _validated(self) -> bool:
        """Scores the captioner and keeps the best weights; returns whether patience is over."""
        stage, progress, metric = self.stage, self.progress, self.config.training.best_metric
        self._watch.read()
        if not stage.moves_policy:
            self.saver.keep()
            return False
        with stage.as_kept():
            evaluation = self.validate()
            self.console.warn(self._watch.new(evaluation.remarks))
            best = progress.validated(stage.label, metric, evaluation.corpus[metric])
            if best:
                self.saver.keep()
        epoch = progress.step / stage.steps_per_epoch
        progress.history.append(
            Validation(
                stage=stage.label,
                step=progress.step,
                epoch=epoch,
                images_seen=progress.step * stage.images_per_step,
                captions_scored=progress.scored,
                seconds=time.monotonic() - self._clock,
                metrics=evaluation.corpus,
            )
        )
        self.board.validation(stage.global_step(progress), evaluation)
        self.console.say(
            f"{stage.label} epoch {epoch:.2f}: validation {metric} {evaluation.corpus[metric]:.4f}"
            f"{' (best)' if best else ''}, {evaluation.corpus['distinct captions']:.0f} distinct of "
            f"{len(evaluation.captions)}, mean length {evaluation.corpus['mean length']:.1f}"
        )
        notes = selection_notes(self.config, stage.label, progress, len(evaluation.captions))
        self.console.warn(self._watch.new(notes))
        return 0 < self.config.training.patience <= progress.since_best
