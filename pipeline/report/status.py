"""Where a run stands, read from its folder alone: without TensorFlow, without a lock, and nothing is written.

All numbers are those of the newest sound checkpoint. The process that trains may be ahead of it, and may delete older
ones at any time.
"""

import dataclasses
import datetime
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from spidercap.export.versions import versions
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import is_locked
from spidercap.pipeline.report.stage_status import StageStatus, Timed, seconds_left, stages_of, total_scored
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.training.checkpoint_files import PROGRESS, checkpoints, newest_checkpoint
from spidercap.pipeline.training.progress import Progress, read_progress
from spidercap.pipeline.training.run_files import check_not_lost, checkpoint_folder, is_prepared

TRIES = 20  # to read a checkpoint before the run replaces it
# What a run is at.
BEGUN, PREPARED, UNFINISHED, TRAINED, FINISHED = "begun", "prepared", "unfinished", "trained", "finished"


@dataclasses.dataclass(frozen=True)
class Saved:
    """The checkpoint that was read."""

    path: str
    written: str  # local time with its offset, ISO 8601
    age: float  # seconds since then


@dataclasses.dataclass(frozen=True)
class Status:
    """Where a run stands. Its fields are the keys of --json."""

    workdir: str
    state: str  # begun, prepared, unfinished, trained (but not evaluated and exported) or finished
    in_use: bool | None  # whether a process has locked the workdir, as training does; None: cannot be told
    checkpoint: Saved | None  # None before the first one
    stage: str | None  # label of the current stage; None before the first checkpoint and after the last stage
    stage_number: int | None  # of `stage`, from 1
    stages: Sequence[StageStatus]  # all stages of the run
    images_seen: int  # in all stages so far
    captions_scored: int | None  # in all stages so far; None if one does not tell
    rate: float | None  # units of the current stage in a second, validations included
    seconds_left: Timed | None  # None unless a stage is being trained and its planned steps are known
    best_metric: str  # by which `best` was selected
    scores: Mapping[str, Mapping[str, Mapping[str, float | None]]]  # of a finished run: split -> stage -> metric
    report: str | None  # path, of a finished run
    export: str | None  # path of the newest exported model
    versions: Mapping[str, str]  # of what is learned in the metrics of `scores`, such as 'SPICE-fast parser'

    def to_json(self) -> str:
        """Returns one JSON object."""
        return json.dumps(dataclasses.asdict(self), indent=1)


def status_of(config: Config) -> Status:
    """Returns where the run of the workdir stands.

    Raises:
      UserError: no checkpoint is whole, checkpoints were lost, or another file cannot be read.
    """
    workdir = config.workdir_path()
    # Asked first: a run that ends meanwhile is then still told of as one in use, not as one that was stopped.
    in_use = is_locked(workdir / ".lock")
    saved, progress = newest_progress(workdir)
    if saved is None:
        check_not_lost(config)
    stages = stages_of(config, progress, has_begun=saved is not None)
    current = next((stage for stage in stages if stage.state == "current"), None)
    summary = _summary(workdir / "summary.json", stages)
    exported = versions(config.export_path())
    return Status(
        workdir=str(workdir),
        state=_state(config, saved, current, is_finished=bool(summary and exported)),
        in_use=in_use,
        checkpoint=saved,
        stage=current.label if current else None,
        stage_number=stages.index(current) + 1 if current else None,
        stages=stages,
        images_seen=sum(stage.images_seen for stage in stages),
        captions_scored=total_scored(stages),
        rate=current.steps * config.training.batch_size / current.seconds if current and current.seconds else None,
        seconds_left=seconds_left(stages) if current else None,
        best_metric=config.training.best_metric,
        scores={name: split["metrics"] for name, split in summary.get("splits", {}).items()},
        report=str(workdir / "report.html") if summary else None,
        export=str(exported[-1]) if exported else None,
        versions=summary.get("versions", {}),
    )


def newest_progress(workdir: pathlib.Path) -> tuple[Saved | None, Progress]:
    """Returns the newest sound checkpoint and its progress; read again if the run has replaced it meanwhile.

    Raises:
      UserError: no checkpoint is whole.
    """
    folder = checkpoint_folder(workdir)
    for last in (False,) * TRIES + (True,):
        listed = checkpoints(folder)
        try:
            path = newest_checkpoint(folder, tell=True)
            return _saved(path), read_progress(path)
        except (UserError, OSError):
            if last or checkpoints(folder) == listed:
                raise
    raise AssertionError("the last try returns or raises")


def _saved(path: pathlib.Path | None) -> Saved | None:
    if path is None:
        return None
    written = (path / PROGRESS).stat().st_mtime
    local = datetime.datetime.fromtimestamp(written).astimezone().isoformat(timespec="seconds")
    return Saved(str(path), local, max(0.0, time.time() - written))


def _state(config: Config, saved: Saved | None, current: StageStatus | None, is_finished: bool) -> str:
    if saved is None:
        return PREPARED if is_prepared(config) else BEGUN
    if current:
        return UNFINISHED
    return FINISHED if is_finished else TRAINED


def _summary(path: pathlib.Path, stages: Sequence[StageStatus]) -> Mapping[str, Any]:
    """The scores of a run whose stages are all evaluated; empty for others, which may have been evaluated earlier."""
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        labels = {stage["name"] for stage in summary["stages"]}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}); --mode=evaluate writes it again") from error
    return summary if labels == {stage.label for stage in stages} else {}
