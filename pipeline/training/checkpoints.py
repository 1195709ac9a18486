"""Checkpoints of a run, and the best weights of each of its stages."""

import dataclasses
import pathlib

import tensorflow as tf

from spidercap.models.baseline import Baseline
from spidercap.models.captioner import Captioner
from spidercap.pipeline.training.checkpoint_files import (
    checkpoint_of,
    checkpoints,
    newest_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from spidercap.pipeline.training.progress import FinishedStage, Progress
from spidercap.pipeline.training.run_files import checkpoint_folder, kept_folder
from spidercap.pipeline.training.stages import BuiltStage
from spidercap.pipeline.training.tensorboard import Board
from spidercap.pipeline.workers import ALONE, Workers


@dataclasses.dataclass(frozen=True)
class Models:
    """The models that are trained."""

    captioner: Captioner
    baseline: Baseline


class Saver:
    """Checkpoints of the run, and the best weights of a stage; of several workers the chief writes them."""

    def __init__(
        self,
        workdir: pathlib.Path,
        models: Models,
        stage: BuiltStage,
        progress: Progress,
        board: Board,
        workers: Workers = ALONE,
    ):
        self._progress, self._board, self._workers = progress, board, workers
        self._weights = checkpoint_of(vars(models))
        self._run = checkpoint_of(vars(models), **stage.state)
        self._folder, self._kept_folder = checkpoint_folder(workdir), kept_folder(workdir, stage.label)

    def restore(self, path: pathlib.Path) -> None:
        """Restores weights and optimizers within the stage."""
        read_checkpoint(path, self._run).assert_consumed()

    def newest(self) -> pathlib.Path:
        """Returns the newest checkpoint, on all workers when the chief has written it."""
        self._workers.wait()
        return self.checkpoints()[-1]

    def checkpoints(self) -> list[pathlib.Path]:
        """Returns the paths of the checkpoints on disk, the newest last."""
        return checkpoints(self._folder)

    def save(self) -> None:
        """Writes a checkpoint."""
        if self._workers.is_chief:
            save_run(self._folder, self._run, self._progress, self._board)

    def keep(self) -> None:
        """Keeps the current weights as those of the stage."""
        if self._workers.is_chief:
            write_checkpoint(self._kept_folder, self._weights, keep=1)

    def finish(self, stage: BuiltStage) -> None:
        """Restores the kept weights, with which the next stage starts, and saves a checkpoint."""
        self._workers.wait()
        read_checkpoint(newest_checkpoint(self._kept_folder), self._weights).assert_consumed()
        done = self._progress
        done.finished.append(
            FinishedStage(
                name=stage.label,
                moves_policy=stage.moves_policy,
                images_seen=done.step * stage.images_per_step,
                seconds=done.seconds,
                steps=done.step,
                best_step=done.best_step,
                skipped_updates=done.skipped,
                warnings=tuple(done.warned.values()),
                captions_scored=done.scored,
            )
        )
        done.next_stage()
        self.save()


def save_run(folder: pathlib.Path, weights: tf.train.Checkpoint, progress: Progress, board: Board) -> None:
    """Writes a checkpoint of a run, with its progress and the size of TensorBoard's files."""
    progress.events = board.flush()
    write_checkpoint(folder, weights, keep=2, progress=progress.to_json())
