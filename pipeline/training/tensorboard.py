"""Writes a run to TensorBoard: scalars, and validation images with their captions."""

import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from spidercap.pipeline.evaluation.evaluate import Evaluation
from spidercap.pipeline.files import disk_errors


class Board:
    """Writes to <workdir>/logs; `images`, float32 `[P, S, S, 3]` in 0..1, are the first P of the validation split."""

    def __init__(
        self, folder: pathlib.Path, images: np.ndarray, references: Sequence[Sequence[str]], silent: bool = False
    ):
        """With `silent` nothing is written."""
        self._folder, self._silent = folder, silent
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
        self._shown = shown
        self._writer = tf.summary.create_file_writer(str(self._folder))

    def flush(self) -> dict[str, int]:
        """Writes all points to the disk; returns the size in bytes of each of TensorBoard's files, by name."""
        with disk_errors(self._folder):
            self._writer.flush()
        return {path.name: path.stat().st_size for path in self._files()}

    def _files(self) -> list[pathlib.Path]:
        return sorted(self._folder.glob("events.out.tfevents.*"))

    def scalars(self, step: int, group: str, values: Mapping[str, float]) -> None:
        """Writes `group/name` for every value."""
        with self._writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(f"{group}/{name.replace(' ', '_')}", value)

    def validation(self, step: int, evaluation: Evaluation) -> None:
        """Writes the scores and the captions of the images; the images themselves once per run."""
        self.scalars(step, "validation", {k: v for k, v in evaluation.corpus.items() if v is not None})
        with self._writer.as_default(step=step):
            if not self._shown:
                tf.summary.image("validation pictures", self._images, max_outputs=len(self._images))
                self._shown = True
            for i, (caption, references) in enumerate(zip(evaluation.captions, self._references, strict=False)):
                tf.summary.text(f"caption {i}", "\n".join([f"**{caption}**", *(f"- {r}" for r in references)]))
        self.flush()
