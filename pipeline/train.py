"""The loop: restore, iterate, log, save, validate, keep the best, hand on to the next stage.

How a run goes on after it was stopped, whatever stopped it:
1. The newest checkpoint in <workdir>/checkpoints says which stage and step comes next.
2. Within a stage, weights and optimizers are restored from it.
3. At the start of a stage, weights are restored and optimizers are new.
4. Without a checkpoint, weights come from --warm_start, else from --seed.
"""

import contextlib
import dataclasses
import math
import pathlib
import signal
import time
from collections.abc import Callable, Iterator

import tensorflow as tf
from tqdm import tqdm

from models.baseline import Baseline
from models.captioner import Captioner
from pipeline.config import Config
from pipeline.errors import Interrupted, UserError
from pipeline.evaluate import Evaluation
from pipeline.inputs import TrainingArrays
from pipeline.progress import Progress, read_progress
from pipeline.stages import BuiltStage, build_stage
from pipeline.tensorboard import Board
from pipeline.workdir import stage_labels


@dataclasses.dataclass(frozen=True)
class Models:
    """What is trained."""

    captioner: Captioner
    baseline: Baseline


def train(
    config: Config,
    models: Models,
    arrays: TrainingArrays,
    reward: Callable,
    validate: Callable[[], Evaluation],
    begin: Callable[[], None],
    board: Board,
) -> Progress:
    """Runs all stages that are not done yet and returns what was seen and measured.

    `validate` scores the captioner as it stands; `begin` gives a new run its first weights.

    Raises:
      Interrupted: Ctrl-C or SIGTERM came; the same call goes on from there.
      UserError: the loss is no number any more.
    """
    workdir = config.workdir_path()
    newest = tf.train.latest_checkpoint(str(workdir / "checkpoints"))
    progress = read_progress(newest)
    if newest is None:
        begin()
    else:
        print(f"going on from {newest}")
        weights = tf.train.Checkpoint(captioner=models.captioner, baseline=models.baseline)
        weights.restore(newest).assert_existing_objects_matched().expect_partial()
    labels = stage_labels(config)
    with _stop_asked() as stopping:
        while progress.stage < len(labels):
            stage = build_stage(config, progress.stage, models.captioner, models.baseline, arrays, reward)
            saver = _Saver(workdir, models, stage, progress)
            if progress.step > 0:
                saver.restore(newest)
            _run_stage(config, stage, saver, progress, validate, board, stopping)
            path = saver.finish(stage)
            if stopping():
                raise Interrupted(path)
    return progress


class _Saver:
    """Checkpoints of the run, and the best weights of a stage."""

    def __init__(self, workdir: pathlib.Path, models: Models, stage: BuiltStage, progress: Progress):
        self._progress = progress
        self._variable = tf.Variable("", dtype=tf.string, trainable=False)
        self._weights = {"captioner": models.captioner, "baseline": models.baseline}
        self._run = tf.train.Checkpoint(**self._weights, **stage.optimizers, progress=self._variable)
        self._manager = tf.train.CheckpointManager(self._run, str(workdir / "checkpoints"), max_to_keep=2)
        kept = tf.train.Checkpoint(**self._weights)
        self._kept = tf.train.CheckpointManager(kept, str(workdir / "kept" / stage.label), max_to_keep=1)

    def restore(self, path: str) -> None:
        """Goes on within the stage: weights, optimizers, all."""
        self._run.restore(path).assert_consumed()

    def save(self) -> str:
        """Writes a checkpoint; returns its path."""
        self._progress.store(self._variable)
        newest = self._manager.latest_checkpoint
        # Numbers run on through the stages, each of which has a counter of its own.
        return self._manager.save(checkpoint_number=1 + int(newest.rpartition("-")[2]) if newest else 1)

    def keep(self) -> None:
        """Keeps the weights as they are for whoever comes after this stage."""
        self._kept.save(checkpoint_number=self._progress.step)

    def finish(self, stage: BuiltStage) -> str:
        """Hands on the kept weights: they are what the next stage, and every user of the run, begins with."""
        tf.train.Checkpoint(**self._weights).restore(self._kept.latest_checkpoint).expect_partial()
        done = self._progress
        done.finished.append(
            {
                "name": stage.label,
                "moves_policy": stage.moves_policy,
                "images_seen": done.step * stage.images_per_step,
                "seconds": done.seconds,
                "steps": done.step,
                "best_step": done.best_step,
            }
        )
        done.next_stage()
        return self.save()


def _run_stage(
    config: Config,
    stage: BuiltStage,
    saver: _Saver,
    progress: Progress,
    validate: Callable[[], Evaluation],
    board: Board,
    stopping: Callable[[], bool],
) -> None:
    """Trains until the stage's steps are done, or its validations stop rising."""
    begun = saved = time.monotonic()
    clock, first = begun - progress.seconds, progress.step
    seed = tf.constant([config.seed, progress.stage], tf.int32)
    with tqdm(
        total=stage.steps * config.batch_size,
        initial=progress.step * config.batch_size,
        desc=stage.name,
        unit=stage.unit,
        disable=None,
        dynamic_ncols=True,
    ) as bar:
        for batch in stage.batches(progress.step):
            logs = stage.step(*batch, tf.random.experimental.stateless_fold_in(seed, progress.step))
            progress.step += 1
            bar.update(config.batch_size)
            if progress.step % config.log_every == 0 or progress.step == stage.steps:
                rate = (progress.step - first) * config.batch_size / (time.monotonic() - begun)
                _log(stage, progress, logs, rate, board, bar)
            over = False
            validated = stage.validates_at(progress.step)
            if validated:
                over = _validate(config, stage, progress, validate, board, saver, clock)
            progress.seconds = time.monotonic() - clock
            if over:
                break
            if stopping() or validated or time.monotonic() - saved > config.checkpoint_every * 60:
                path, saved = saver.save(), time.monotonic()
                if stopping():
                    raise Interrupted(path)


def _validate(
    config: Config,
    stage: BuiltStage,
    progress: Progress,
    validate: Callable[[], Evaluation],
    board: Board,
    saver: _Saver,
    clock: float,
) -> bool:
    """Scores the captioner, keeps the best weights; returns whether patience is over."""
    if not stage.moves_policy:
        saver.keep()
        return False
    evaluation = validate()
    value = evaluation.corpus[config.best_metric]
    progress.history.append(
        {
            "stage": stage.label,
            "step": progress.step,
            "epoch": progress.step / stage.steps_per_epoch,
            "images_seen": progress.step * stage.images_per_step,
            "seconds": time.monotonic() - clock,
            **evaluation.corpus,
        }
    )
    board.validation(stage.global_step(progress), evaluation)
    better = progress.best is None or value > progress.best
    if better:
        progress.best, progress.best_step, progress.since_best = value, progress.step, 0
        saver.keep()
    else:
        progress.since_best += 1
    tqdm.write(
        f"{stage.label} epoch {progress.step / stage.steps_per_epoch:.2f}: validation {config.best_metric} {value:.4f}"
        f"{' (best)' if better else ''}, {evaluation.corpus['distinct captions']:.0f} distinct of "
        f"{len(evaluation.captions)}, mean length {evaluation.corpus['mean length']:.1f}"
    )
    return 0 < config.patience <= progress.since_best


def _log(
    stage: BuiltStage, progress: Progress, logs: dict[str, tf.Tensor], rate: float, board: Board, bar: tqdm
) -> None:
    """Writes a step's scalars to TensorBoard and the main ones to the console; `rate` in pictures or captions."""
    values = {name: float(value) for name, value in logs.items()}
    if not all(math.isfinite(v) for v in values.values()):
        raise UserError(
            f"{stage.label}: {', '.join(k for k, v in values.items() if not math.isfinite(v))} is no number at step "
            f"{progress.step}; lower --learning_rate and start a new --workdir, or go on from the last checkpoint"
        )
    board.scalars(stage.global_step(progress), stage.name, values | {f"{stage.unit}s a second": rate})
    shown = {k: values[k] for k in ("loss", "reward", "explained variance", "entropy") if k in values}
    bar.set_postfix({k: f"{v:.3f}" for k, v in shown.items()}, refresh=False)
    if bar.disable:
        shown |= {k: v for k, v in values.items() if k.startswith("reward ")}  # its metrics
        text = ", ".join(f"{k} {v:.3f}" for k, v in shown.items())
        print(f"{stage.label} step {progress.step}/{stage.steps}: {text}, {rate:.0f} {stage.unit}s/s", flush=True)


@contextlib.contextmanager
def _stop_asked() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C or SIGTERM into a wish that the loop grants after the step; a second one kills."""
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        del frame
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        print("\nstopping after this step; once more to stop at once", flush=True)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
