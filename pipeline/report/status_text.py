"""Where a run stands, as text or as JSON."""

import itertools
from collections.abc import Iterator

from spidercap.pipeline.evaluation.table import table, whole_metrics
from spidercap.pipeline.metrics.registry import remarks
from spidercap.pipeline.report.stage_status import StageStatus
from spidercap.pipeline.report.status import BEGUN, FINISHED, PREPARED, TRAINED, UNFINISHED, Status, status_of
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.text.printable import printable

# What the first line says of a run that no process uses, and of one that a process uses.
_STATES = {
    BEGUN: ("begun, but its data are not prepared; --mode=train goes on", "its data are being prepared"),
    PREPARED: ("prepared; nothing is trained yet, --mode=train begins", "prepared; there is no checkpoint yet"),
    UNFINISHED: ("stopped; the same command resumes it from its checkpoint", "in training"),
    TRAINED: (
        "trained, but not evaluated and exported; the same command goes on",
        "trained; it is being evaluated and exported",
    ),
    FINISHED: ("finished", "finished"),
}
_USED = {
    True: ["a process uses its folder now"],
    False: [],
    None: ["whether a process uses its folder cannot be told"],
}
_DURATIONS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def shown_status(config: Config) -> str:
    """Returns where the run of the workdir stands, as text; with --json one JSON object.

    Raises:
      UserError: the run's files cannot be read.
    """
    status = status_of(config)
    return status.to_json() if config.run.json else "\n".join(status_lines(status))


def status_lines(status: Status) -> Iterator[str]:
    """Yields the lines of the text."""
    facts = _facts(status)
    width = max(len(name) for name, _ in facts) + 2
    for name, text in facts:
        yield printable(f"{name + ':':<{width}}{text}")
    for stage in status.stages:
        for warning in stage.warnings:
            yield printable(f"warning: {stage.label} {warning}")
    if status.state == FINISHED and status.scores:
        for name, split in status.scores.items():
            yield from ("", printable(f"scores on {name} of the best weights of each stage:"))
            yield from map(printable, table({k: whole_metrics(of) for k, of in split.items()}).splitlines())
        shown = {column for split in status.scores.values() for of in split.values() for column in of}
        yield from remarks(shown, status.versions)
    else:
        yield from _validations(status)


def _facts(status: Status) -> list[tuple[str, str]]:
    """What is told by a line each: name and text."""
    idle, used = _STATES[status.state]
    notes = [used if status.in_use else idle, *_USED[status.in_use]]
    facts = [("run", f"{status.workdir}: {'; '.join(notes)}")]
    current = next((stage for stage in status.stages if stage.label == status.stage), None)
    if current:
        facts += _stage_facts(status, current)
    if status.checkpoint:
        facts += _run_facts(status)
    facts += [(name, path) for name, path in (("report", status.report), ("model", status.export)) if path]
    return facts


def _stage_facts(status: Status, stage: StageStatus) -> list[tuple[str, str]]:
    """What is told of the current stage."""
    facts = [("stage", f"{stage.label}, {status.stage_number} of {len(status.stages)}")]
    step = f"{stage.steps:,}"
    if stage.planned_steps:
        step += f" of {stage.planned_steps:,} ({stage.steps / stage.planned_steps:.0%})"
        step += f", epoch {stage.epoch:.2f} of {stage.planned_epochs:.2f}"
    facts.append(("step", step))
    facts.append(("seen", f"{stage.images_seen:,} images, {stage.captions_scored:,} captions scored in this stage"))
    if status.rate:
        facts.append(("rate", f"{status.rate:.3g} {stage.unit}s a second, validations included"))
    if status.seconds_left:
        facts.append(("time left", _left(status)))
    return facts


def _run_facts(status: Status) -> list[tuple[str, str]]:
    """What is told of all stages together, and the checkpoint."""
    seen = [f"{status.images_seen:,} images"]
    seen += [] if status.captions_scored is None else [f"{status.captions_scored:,} captions scored"]
    facts = [("seen in all", ", ".join(seen))]
    skipped = {stage.label: stage.skipped_updates for stage in status.stages if stage.skipped_updates}
    if skipped:
        parts = [f"{count} update{'s' * (count > 1)} of {label}" for label, count in skipped.items()]
        facts.append(("skipped", ", ".join(parts)))
    when, ago = status.checkpoint.written[:19].replace("T", " "), _duration(status.checkpoint.age)
    facts.append(("checkpoint", f"{status.checkpoint.path}, written {when} ({ago} ago)"))
    return facts


def _left(status: Status) -> str:
    left, later = status.seconds_left, len(status.stages) - status.stage_number
    of_stage = f"{_duration(left.stage)} for this stage"
    if not later:
        return f"{of_stage}, the last one, from the checkpoint on"
    if left.run is None:
        return f"{of_stage}, from the checkpoint on; not known yet for the {later} after it"
    return f"{of_stage}, {_duration(left.run)} for all, from the checkpoint on"


def _validations(status: Status) -> Iterator[str]:
    """The table of validations so far: the best one of each stage, and the latest of the current one."""
    rows = {}
    for stage in status.stages:
        found = [stage.best, stage.latest] if stage.state == "current" else [stage.best]
        for row in filter(None, found):
            rows[f"{stage.label} step {row.step}"] = whole_metrics(row.metrics)
    if rows:
        latest = " and the latest" if status.stage else ""
        yield from ("", f"validations, the best of each stage by {status.best_metric}{latest}:")
        yield from map(printable, table(rows).splitlines())


def _duration(seconds: float) -> str:
    """A duration in its two largest units, such as '3 h 20 min'."""
    whole = round(seconds)
    for (size, unit), (smaller, of_smaller) in itertools.pairwise(_DURATIONS):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {of_smaller}" if rest else "")
    return f"{whole} s"
