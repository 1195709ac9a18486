"""The progress of a run: all that resuming needs beside the weights, and all that summary and curves show."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.training.checkpoint_files import PROGRESS

TIE = 1e-6  # scores that differ by no more are equal: rounding, and CIDEr's penalty of captions cut short, reach 1e-8


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
        metrics = {name: value for name, value in row.items() if name not in own}
        wrong = [name for name, value in metrics.items() if value is not None and not is_number(value)]
        if wrong:
            raise TypeError(f"{wrong[0]} is no number")
        return cls(**fields, metrics=metrics)


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
    captions_scored: int | None = None  # None in rows that lack it

    def to_dict(self) -> dict[str, Any]:
        """Returns the row of a checkpoint and of summary.json."""
        row = {name: value for name, value in vars(self).items() if value is not None}
        return row | {"warnings": list(self.warnings)}

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
    best: float | None = None  # highest validation of the stage
    best_step: int = 0  # of the weights that are kept
    since_best: int = 0  # validations without a new best, once two of them have differed
    skipped: int = 0  # skipped updates of the stage: loss or gradients were NaN or infinite
    scored: int = 0  # captions scored in the stage: samples, rollouts, greedy captions
    warned: dict[str, str] = dataclasses.field(default_factory=dict)  # warnings reported in the stage, by kind
    history: list[Validation] = dataclasses.field(default_factory=list)
    finished: list[FinishedStage] = dataclasses.field(default_factory=list)
    events: dict[str, int] = dataclasses.field(default_factory=dict)  # size in bytes of TensorBoard's files, by name
    versions: dict[str, str] = dataclasses.field(default_factory=dict)  # of what is learned in metrics, as last used

    def validations(self, label: str, metric: str) -> list[float]:
        """Returns the values of `metric` in the validations of a stage so far; fewer if some lack it."""
        values = (row.metrics.get(metric) for row in self.history if row.stage == label)
        return [value for value in values if value is not None]

    def kept_metrics(self) -> Mapping[str, float | None]:
        """Returns the validation of the weights kept by the last finished stage that trained the policy; {} if none."""
        stage = next((stage for stage in reversed(self.finished) if stage.moves_policy), None)
        rows = [row for row in self.history if stage and (row.stage, row.step) == (stage.name, stage.best_step)]
        return rows[-1].metrics if rows else {}

    def validated(self, label: str, metric: str, value: float) -> bool:
        """Updates the best of the stage by a validation that is not in `history` yet; returns whether it is the best.

        The best has the highest value; of several it is the latest. Ties count for patience, but not while all
        validations of the stage tie, because then the metric cannot tell whether anything is learned.
        """
        better = self.best is None or value > self.best + TIE
        kept = better or value >= self.best - TIE
        self.since_best = 0 if better or tied([*self.validations(label, metric), value]) else self.since_best + 1
        if kept:
            self.best_step = self.step
            self.best = value if self.best is None else max(self.best, value)
        return kept

    def next_stage(self) -> None:
        """Starts the next stage; what is of the run, not of the stage, stays."""
        kept = {name: getattr(self, name) for name in ("history", "finished", "events", "versions")}
        self.__dict__.update(Progress(stage=self.stage + 1, **kept).__dict__)

    def to_json(self) -> str:
        """Returns the JSON that `read_progress` reads, to be saved with the weights."""
        rows = {"history": self.history, "finished": self.finished}
        content = vars(self) | {name: [row.to_dict() for row in of_kind] for name, of_kind in rows.items()}
        return json.dumps(content) + "\n"


def is_number(value: object) -> bool:
    """Returns whether a value of JSON is a number that a float can hold, or not a number (NaN)."""
    return type(value) is float or (type(value) is int and abs(value) < 2**1023)


def tied(values: Sequence[float]) -> bool:
    """Returns whether no two of the values differ by more than TIE."""
    return not values or max(values) - min(values) <= TIE


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
    try:
        history = [Validation.from_dict(row) for row in content.pop("history", ())]
        finished = [FinishedStage.from_dict(row) for row in content.pop("finished", ())]
        return Progress(**content, history=history, finished=finished)
    except (TypeError, AttributeError) as error:
        raise UserError(f"{checkpoint / PROGRESS} was written by another version ({error}); use that one") from error
