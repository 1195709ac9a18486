"""The training loop: restore, iterate, log, save, validate, keep the best weights, start the next stage.

A stopped run resumes like this, whatever stopped it:
1. The newest checkpoint in <workdir>/checkpoints holds the next stage and step.
2. Within a stage, weights and optimizers are restored from it.
3. At the start of a stage, weights are restored and optimizers are new.
4. Without a checkpoint, weights come from --warm_start, else from --seed.
"""

import pathlib
import sys
import time
from collections.abc import Callable

import tensorflow as tf

from spidercap.pipeline.data.batches import TrainingArrays
from spidercap.pipeline.errors import Interrupted
from spidercap.pipeline.evaluation.evaluate import Evaluation
from spidercap.pipeline.settings.config import Config, stage_labels
from spidercap.pipeline.training import replicas
from spidercap.pipeline.training.advice import selection_notes
from spidercap.pipeline.training.checkpoint_files import newest_checkpoint, read_checkpoint
from spidercap.pipeline.training.checkpoints import Models, Saver, save_run
from spidercap.pipeline.training.console import Console
from spidercap.pipeline.training.kept import check_kept, temperature_at
from spidercap.pipeline.training.logs import as_floats, named_scalars, warm_up_scalars
from spidercap.pipeline.training.progress import Progress, Validation, read_progress
from spidercap.pipeline.training.run_files import checkpoint_folder
from spidercap.pipeline.training.stages import BuiltStage, build_stage, planned_steps_of_all
from spidercap.pipeline.training.stopping import stop_asked
from spidercap.pipeline.training.tensorboard import Board
from spidercap.pipeline.training.watch import Watch
from spidercap.pipeline.workers import ALONE, Workers


def train(
    config: Config,
    models: Models,
    arrays: TrainingArrays,
    reward: Callable,
    validate: Callable[[], Evaluation],
    begin: Callable[[], None],
    board: Board,
    workers: Workers = ALONE,
) -> Progress:
    """Runs all unfinished stages and returns the run's progress.

    `validate` scores the captioner; `begin` sets the initial weights of a new run. Several workers take the same steps;
    only the chief tells of them.

    Raises:
      Interrupted: a signal of STOPPING came; the same call resumes from the checkpoint that was saved.
      UserError: too many updates were skipped, because loss or gradients were NaN or infinite.
    """
    workdir = config.workdir_path()
    folder = checkpoint_folder(workdir)
    newest = _newest(folder, workers)
    progress = read_progress(newest)
    check_kept(config, progress, from_checkpoint=newest is not None)
    board.begin(progress.events, shown=bool(progress.history))
    weights = tf.train.Checkpoint(captioner=models.captioner, baseline=models.baseline)
    if newest is None:
        begin()
        # So that a run which has kept weights always has a checkpoint, unless it was lost.
        if workers.is_chief:
            save_run(folder, weights, progress, board)
    else:
        print(f"resuming from {newest}")
        read_checkpoint(newest, weights).assert_existing_objects_matched().expect_partial()
    labels = stage_labels(config)
    if newest is None and all(temperature_at(config, k) == 1 for k in range(len(labels))):
        _warn_of_temperature(config, workers)
    with stop_asked(workers) as stopping:
        while progress.stage < len(labels):
            # Checkpoints within a stage hold weights to which the temperature has been applied.
            if progress.step == 0 and (temperature := temperature_at(config, progress.stage)) != 1:
                models.captioner.apply_temperature(temperature)
            stage = build_stage(config, progress.stage, models.captioner, models.baseline, arrays, reward)
            saver = Saver(workdir, models, stage, progress, board, workers)
            if progress.step > 0:
                saver.restore(newest)
            console = Console(stage, config.training.batch_size, progress.step, is_silent=not workers.is_chief)
            with console:
                _run_stage(config, stage, saver, progress, validate, board, console, stopping)
            saver.finish(stage)
            if stopping(now=True):
                raise Interrupted(saver.checkpoints()[-1])
    board.finish(planned_steps_of_all(config, arrays) + 1, progress.kept_metrics())
    workers.wait()  # for the last checkpoint, which the others read too
    return progress


def _newest(folder: pathlib.Path, workers: Workers) -> pathlib.Path | None:
    """The checkpoint to go on from, the same on all workers."""
    found = newest_checkpoint(folder, tell=True) if workers.is_chief else None
    name = workers.from_chief(found.name if found else "")
    return folder / name if name else None


def _run_stage(
    config: Config,
    stage: BuiltStage,
    saver: Saver,
    progress: Progress,
    validate: Callable[[], Evaluation],
    board: Board,
    console: Console,
    stopping: Callable[..., bool],
) -> None:
    """Trains until the stage's steps are done or its patience is over."""
    started = saved = time.monotonic()
    clock, first = started - progress.seconds, progress.step
    seed = tf.constant([config.run.seed, progress.stage], tf.int32)
    watch = Watch(progress, stage, config.training.max_skipped)
    console.warn(watch.new(stage.notes))
    for batch in replicas.batches(stage.batches(progress.step)):
        step_seed = tf.random.experimental.stateless_fold_in(seed, progress.step)
        logs = stage.step(batch, step_seed, tf.constant(stage.level(progress.step), tf.float32))
        logs = replicas.local(logs)[0]  # the same on all replicas
        progress.step += 1
        console.stepped()
        watch.see(logs)
        if progress.step % config.run.log_every == 0 or progress.step == stage.steps:
            rate = (progress.step - first) * config.training.batch_size / (time.monotonic() - started)
            logs = as_floats(logs)
            values = named_scalars(logs)
            told = values | {f"{stage.unit}s a second": rate} if stage.moves_policy else warm_up_scalars(values)
            board.scalars(stage.global_step(progress), stage.shown_with, told)
            console.log(progress.step, values, rate)
            console.warn(watch.warnings(logs))
            watch.check(saver.checkpoints())
        over = False
        validated = stage.validates_at(progress.step)
        if validated:
            watch.read()
            over = _validate(config, stage, progress, validate, board, console, saver, clock, watch)
        progress.seconds = time.monotonic() - clock
        # Read once per step: a later signal stops the run after the next step, which is then saved.
        asked = stopping()
        due = asked or validated or time.monotonic() - saved > config.run.checkpoint_every * 60
        if due and watch.is_sound() and not over:
            saver.save()
            saved = time.monotonic()
            watch.saved()
        if over:
            break
        if asked:
            raise Interrupted(saver.checkpoints()[-1])


def _validate(
    config: Config,
    stage: BuiltStage,
    progress: Progress,
    validate: Callable[[], Evaluation],
    board: Board,
    console: Console,
    saver: Saver,
    clock: float,
    watch: Watch,
) -> bool:
    """Scores the captioner and keeps the best weights; returns whether patience is over."""
    if not stage.moves_policy:
        saver.keep()
        return False
    with stage.as_kept():
        evaluation = validate()
        console.warn(watch.new(evaluation.remarks))
        value = evaluation.corpus[config.training.best_metric]
        best = progress.validated(stage.label, config.training.best_metric, value)
        if best:
            saver.keep()
    progress.history.append(
        Validation(
            stage=stage.label,
            step=progress.step,
            epoch=progress.step / stage.steps_per_epoch,
            images_seen=progress.step * stage.images_per_step,
            captions_scored=progress.scored,
            seconds=time.monotonic() - clock,
            metrics=evaluation.corpus,
        )
    )
    board.validation(stage.global_step(progress), evaluation)
    console.say(
        f"{stage.label} epoch {progress.step / stage.steps_per_epoch:.2f}: validation {config.training.best_metric} "
        f"{value:.4f}{' (best)' if best else ''}, {evaluation.corpus['distinct captions']:.0f} distinct of "
        f"{len(evaluation.captions)}, mean length {evaluation.corpus['mean length']:.1f}"
    )
    console.warn(watch.new(selection_notes(config, stage.label, progress, len(evaluation.captions))))
    return 0 < config.training.patience <= progress.since_best


def _warn_of_temperature(config: Config, workers: Workers) -> None:
    if workers.is_chief and any(value != 1 for value in config.stage_values("temperature").values()):
        print(
            f"warning: --temperature={config.rewards.temperature} changes nothing, because no stage on rewards "
            "follows a stage of likelihood; leave it out, or change --stages",
            file=sys.stderr,
        )
