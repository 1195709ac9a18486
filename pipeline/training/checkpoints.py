"""Checkpoints of a run, and the best weights of each of its stages."""

import dataclasses
import pathlib

import tensorflow as tf

from spidercap.models.baseline import Baseline
from spidercap.models.captioner import Captioner
from spidercap.pipeline.training.progress import FinishedStage, Progress
from spidercap.pipeline.training.stages import BuiltStage


@dataclasses.dataclass(frozen=True)
class Models:
    """The models that are trained."""

    captioner: Captioner
    baseline: Baseline


class Saver:
    """Checkpoints of the run, and the best weights of a stage."""

    def __init__(self, workdir: pathlib.Path, models: Models, stage: BuiltStage, progress: Progress):
        self._progress = progress
        self._variable = tf.Variable("", dtype=tf.string, trainable=False)
        self._weights = {"captioner": models.captioner, "baseline": models.baseline}
        self._run = tf.train.Checkpoint(**self._weights, **stage.state, progress=self._variable)
        self._manager = tf.train.CheckpointManager(self._run, str(workdir / "checkpoints"), max_to_keep=2)
        kept = tf.train.Checkpoint(**self._weights)
        self._kept = tf.train.CheckpointManager(kept, str(workdir / "kept" / stage.label), max_to_keep=1)

    def restore(self, path: str) -> None:
        """Restores weights and optimizers within the stage."""
        self._run.restore(path).assert_consumed()

    def checkpoints(self) -> list[str]:
        """Returns the paths of the checkpoints on disk, the newest last."""
        return self._manager.checkpoints

    def newest(self) -> str | None:
        """Returns the path of the newest checkpoint."""
        return self._manager.latest_checkpoint

    def save(self) -> str:
        """Writes a checkpoint; returns its path."""
        self._progress.store(self._variable)
        newest = self.newest()
        # Checkpoint numbers continue across stages, although each stage has its own manager.
        return self._manager.save(checkpoint_number=1 + int(newest.rpartition("-")[2]) if newest else 1)

    def keep(self) -> None:
        """Keeps the current weights as those of the stage."""
        self._kept.save(checkpoint_number=self._progress.step)

    def finish(self, stage: BuiltStage) -> str:
        """Restores the kept weights, with which the next stage starts, and saves a checkpoint; returns its path."""
        tf.train.Checkpoint(**self._weights).restore(self._kept.latest_checkpoint).expect_partial()
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
            )
        )
        done.next_stage()
        return self.save()
