"""Writes a run to TensorBoard: scalars, and validation images with their captions."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from spidercap.pipeline.evaluation.evaluate import Evaluation


class Board:
    """Writes to <workdir>/logs; `images`, float32 `[P, S, S, 3]` in 0..1, are the first P of the validation split."""

    def __init__(self, folder: pathlib.Path, images: np.ndarray, references: Sequence[Sequence[str]]):
        self._writer = tf.summary.create_file_writer(str(folder))
        self._images, self._references = images, references
        self._shown = False

    def scalars(self, step: int, group: str, values: Mapping[str, float]) -> None:
        """Writes `group/name` for every value."""
        with self._writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(f"{group}/{name.replace(' ', '_')}", value)

    def validation(self, step: int, evaluation: Evaluation) -> None:
        """Writes the scores and the captions of the images; the images themselves once per process."""
        self.scalars(step, "validation", {k: v for k, v in evaluation.corpus.items() if v is not None})
        with self._writer.as_default(step=step):
            if not self._shown:
                tf.summary.image("validation pictures", self._images, max_outputs=len(self._images))
                self._shown = True
            for i, (caption, references) in enumerate(zip(evaluation.captions, self._references, strict=False)):
                tf.summary.text(f"caption {i}", "\n".join([f"**{caption}**", *(f"- {r}" for r in references)]))
        self._writer.flush()
