"""The progress of a run: all that resuming needs beside the weights, and all that summary and curves show."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.training.checkpoint_files import PROGRESS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Validation:
    """One validation of a stage, after `step` of its steps."""

    stage: str  # its label
    step: int
    epoch: float
    images_seen: int
    captions_scored: int | None = None  # in the stage; None in rows that lack it
    seconds: float  # spent in the stage
    metrics: Mapping[str, float | None]  # of the captions, by name

    def to_dict(self) -> dict[str, Any]:
        """Returns the row of a checkpoint: metrics beside the other fields."""
        row = {name: value for name, value in vars(self).items() if name != "metrics" and value is not None}
        return row | dict(self.metrics)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "Validation":
        """Returns the validation of a row."""
        own = {field.name for field in dataclasses.fields(cls)}
        fields = {name: value for name, value in row.items() if name in own}
        return cls(**fields, metrics={name: value for name, value in row.items() if name not in own})


@dataclasses.dataclass(frozen=True)
class FinishedStage:
    """A finished stage as summary and report show it. Rows may lack the fields with a default."""

    name: str  # its label
    moves_policy: bool
    images_seen: int
    seconds: float
    steps: int
    best_step: int
    skipped_updates: int = 0
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns the row of a checkpoint and of summary.json."""
        return vars(self) | {"warnings": list(self.warnings)}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "FinishedStage":
        """Returns the stage of a row."""
        return cls(**row | {"warnings": tuple(row.get("warnings", ()))})


@dataclasses.dataclass
class Progress:
    """Updated by the loop and stored in each checkpoint, so that it always matches the weights."""

    stage: int = 0  # index of the current stage
    step: int = 0  # steps done in it
    seconds: float = 0.0  # spent in it, validation included
    best: float | None = None  # best validation of the stage
    best_step: int = 0
    since_best: int = 0  # validations without a new best
    skipped: int = 0  # skipped updates of the stage: loss or gradients were NaN or infinite
    scored: int = 0  # captions scored in the stage: samples, rollouts, greedy captions
    warned: dict[str, str] = dataclasses.field(default_factory=dict)  # warnings reported in the stage, by kind
    history: list[Validation] = dataclasses.field(default_factory=list)
    finished: list[FinishedStage] = dataclasses.field(default_factory=list)
    events: dict[str, int] = dataclasses.field(default_factory=dict)  # size in bytes of TensorBoard's files, by name

    def next_stage(self) -> None:
        """Starts the next stage; history and finished stages stay."""
        fresh = Progress(stage=self.stage + 1, history=self.history, finished=self.finished, events=self.events)
        self.__dict__.update(fresh.__dict__)

    def to_json(self) -> str:
        """Returns the JSON that `read_progress` reads, to be saved with the weights."""
        rows = {"history": self.history, "finished": self.finished}
        content = vars(self) | {name: [row.to_dict() for row in of_kind] for name, of_kind in rows.items()}
        return json.dumps(content) + "\n"


def read_progress(checkpoint: pathlib.Path | None) -> Progress:
    """Returns the progress in the folder of a checkpoint; a new one for None.

    Raises:
      UserError: it cannot be read.
    """
    if checkpoint is None:
        return Progress()
    try:
        content = json.loads((checkpoint / PROGRESS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{checkpoint / PROGRESS} cannot be read ({error}); restore it from a copy") from error
    history = [Validation.from_dict(row) for row in content.pop("history", ())]
    finished = [FinishedStage.from_dict(row) for row in content.pop("finished", ())]
    return Progress(**content, history=history, finished=finished)
