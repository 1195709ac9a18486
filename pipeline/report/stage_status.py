"""How far each stage of a run has come, and how long the others may take."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from spidercap.pipeline.settings.config import Config, stage_labels
from spidercap.pipeline.settings.stages import STAGES
from spidercap.pipeline.training.lengths import planned_steps
from spidercap.pipeline.training.progress import FinishedStage, Progress, Validation
from spidercap.pipeline.training.run_files import kept_sizes


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageStatus:
    """How far a stage has come."""

    label: str
    kind: str  # of STAGES
    state: str  # finished, current or planned
    steps: int = 0
    planned_steps: int | None  # patience can end a stage earlier; None if the sizes of the splits are not known
    epoch: float | None = None
    planned_epochs: float | None
    unit: str  # of its batches and rate: caption or image
    images_seen: int = 0
    captions_scored: int | None = 0  # None of a finished stage that does not tell
    seconds: float = 0.0
    skipped_updates: int = 0
    warnings: tuple[str, ...] = ()
    best: Validation | None = None  # of the weights that are kept; None in stages without validation
    latest: Validation | None = None


@dataclasses.dataclass(frozen=True)
class Timed:
    """Seconds that training may take from the checkpoint on, at the pace so far; less if patience ends a stage."""

    stage: float
    run: float | None  # without evaluation and export; None if a stage that is to come has no pace yet


def stages_of(config: Config, progress: Progress, has_begun: bool) -> list[StageStatus]:
    """Returns all stages of the run; without `has_begun` all are planned."""
    finished = {stage.name: stage for stage in progress.finished}
    sizes = kept_sizes(config).get("train", {})
    found = []
    for index, (label, stage) in enumerate(zip(stage_labels(config), config.training.parsed_stages(), strict=True)):
        kind = STAGES[stage.name]
        size = sizes.get(f"{kind.unit}s")
        per_epoch = size / config.training.batch_size if size else None
        steps = planned_steps(stage, per_epoch) if per_epoch else None
        if label in finished:
            counts = _finished(finished[label], progress)
        elif has_begun and index == progress.stage:
            counts = _current(config, label, progress)
        else:
            counts = {"state": "planned"}
        found.append(
            StageStatus(
                label=label,
                kind=stage.name,
                unit=kind.unit,
                planned_steps=steps,
                epoch=counts.get("steps", 0) / per_epoch if per_epoch else None,
                planned_epochs=steps / per_epoch if per_epoch else None,
                **counts,
            )
        )
    return found


def seconds_left(stages: Sequence[StageStatus]) -> Timed | None:
    """Returns how long training may go on; None unless the current stage tells.

    A stage takes as long for a step as the last stage of its kind did.
    """
    pace = {stage.kind: stage.seconds / stage.steps for stage in stages if stage.steps}
    left = [
        pace[stage.kind] * max(0, stage.planned_steps - stage.steps)
        if stage.kind in pace and stage.planned_steps
        else None
        for stage in stages
        if stage.state != "finished"
    ]
    if not left or left[0] is None:
        return None
    return Timed(left[0], None if None in left else sum(left))


def total_scored(stages: Sequence[StageStatus]) -> int | None:
    """Returns the captions scored in all stages; None if one does not tell."""
    counts = [stage.captions_scored for stage in stages]
    return None if None in counts else sum(counts)


def _finished(stage: FinishedStage, progress: Progress) -> dict[str, Any]:
    rows = _validations(stage.name, progress, stage.best_step)
    scored = stage.captions_scored
    if scored is None and rows["latest"]:  # an earlier version; stages end with a validation, if they have any
        scored = rows["latest"].captions_scored
    return {
        "state": "finished",
        "steps": stage.steps,
        "images_seen": stage.images_seen,
        "captions_scored": scored,
        "seconds": stage.seconds,
        "skipped_updates": stage.skipped_updates,
        "warnings": stage.warnings,
        **rows,
    }


def _current(config: Config, label: str, progress: Progress) -> dict[str, Any]:
    return {
        "state": "current",
        "steps": progress.step,
        "images_seen": progress.step * config.training.batch_size,
        "captions_scored": progress.scored,
        "seconds": progress.seconds,
        "skipped_updates": progress.skipped,
        "warnings": tuple(progress.warned.values()),
        **_validations(label, progress, progress.best_step),
    }


def _validations(label: str, progress: Progress, best_step: int) -> dict[str, Validation | None]:
    rows = [row for row in progress.history if row.stage == label]
    best = [row for row in rows if row.step == best_step]
    return {"best": best[-1] if best else None, "latest": rows[-1] if rows else None}
