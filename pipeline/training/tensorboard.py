"""Writes a run to TensorBoard: scalars, its settings, and validation images with their captions.

Groups of tags are shown in alphabetical order, so validations are in `eval`, before `train_<stage>`.
"""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.summary import session_end_pb

from spidercap.pipeline.evaluation.evaluate import Evaluation
from spidercap.pipeline.files import disk_errors
from spidercap.pipeline.text.printable import printable
from spidercap.pipeline.training.scalar_texts import step_text, validation_text

RUN = "run"  # the folder in <workdir>/logs; TensorBoard would show files of the top folder as the run "."
VALIDATION = "eval"  # group of tags
SETTINGS = ".settings"  # end of the name of the file that each start writes anew


class Board:
    """Writes to `run` in the folder of logs."""

    def __init__(
        self,
        logs: pathlib.Path,
        images: np.ndarray,
        references: Sequence[Sequence[str]],
        settings: Mapping[str, bool | int | float | str] = MappingProxyType({}),
        silent: bool = False,
    ):
        """Writes nothing yet.

        Args:
          logs: <workdir>/logs.
          images: float32 `[P, S, S, 3]` in 0..1, the first P of the validation split.
          references: their captions.
          settings: shown as hyperparameters.
          silent: write nothing at all.
        """
        self._folder, self._settings, self._silent = logs / RUN, settings, silent
        self._images, self._references = images, references
        self._writer = None
        self._shown = False

    def begin(self, sizes: Mapping[str, int], shown: bool) -> None:
        """Opens a file to write to, and takes back what was written after the checkpoint that a run goes on from.

        Without this, all points between that checkpoint and the stop would come twice.

        Args:
          sizes: what `flush` returned at that checkpoint.
          shown: whether the images had been written by then.
        """
        if self._silent:
            self._writer = tf.summary.create_noop_writer()
            return
        with disk_errors(self._folder):
            for path in self._files():
                if path.name not in sizes:
                    path.unlink()
                elif path.stat().st_size > sizes[path.name]:
                    os.truncate(path, sizes[path.name])
            # In a file of its own, because a run that grows may have other settings when it goes on.
            with tf.summary.create_file_writer(str(self._folder), filename_suffix=SETTINGS).as_default():
                hparams.hparams({n: printable(v) if isinstance(v, str) else v for n, v in self._settings.items()})
            self._writer = tf.summary.create_file_writer(str(self._folder))
        self._shown = shown

    def flush(self) -> dict[str, int]:
        """Writes all points to the disk; returns the size in bytes of each of TensorBoard's files, by name."""
        with disk_errors(self._folder):
            self._writer.flush()
        return {path.name: path.stat().st_size for path in self._files() if not path.name.endswith(SETTINGS)}

    def _files(self) -> list[pathlib.Path]:
        return sorted(self._folder.glob("events.out.tfevents.*"))

    def scalars(self, step: int, stage: str, values: Mapping[str, float]) -> None:
        """Writes `train_<stage>/name` for every value."""
        self._write(step, f"train_{stage}", values, step_text)

    def validation(self, step: int, evaluation: Evaluation) -> None:
        """Writes the scores and the captions of the images; the images themselves once per run."""
        self._write(step, VALIDATION, evaluation.corpus, validation_text)
        with self._writer.as_default(step=step):
            if not self._shown:
                tf.summary.image("validation images", self._images, max_outputs=len(self._images))
                self._shown = True
            for i, (caption, references) in enumerate(zip(evaluation.captions, self._references, strict=False)):
                tf.summary.text(f"caption {i}", "\n".join([f"**{caption}**", *(f"- {r}" for r in references)]))
        self.flush()

    def finish(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Writes the validation scores of the weights that the last stage kept, and that the run has ended.

        They are the last points, which TensorBoard shows beside the settings. They come after the last checkpoint, so a
        finished run that is started again takes them back and writes them again.
        """
        self._write(step, VALIDATION, metrics, validation_text)
        with self._writer.as_default(step=step):
            ended = session_end_pb(api_pb2.STATUS_SUCCESS)
            tf.summary.experimental.write_raw_pb(ended.SerializeToString(), step=step)
        self.flush()

    def _write(self, step: int, group: str, values: Mapping[str, float | None], text: Callable[[str], str]) -> None:
        with self._writer.as_default(step=step):
            for name, value in values.items():
                if value is not None:
                    tf.summary.scalar(f"{group}/{name.replace(' ', '_')}", value, description=text(name))
