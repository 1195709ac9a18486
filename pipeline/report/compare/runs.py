"""Reads the runs of a comparison: scores, captions and validations of one stage of each, finished or not."""

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.metrics.versions import split_versions
from spidercap.pipeline.report.compare.places import Place
from spidercap.pipeline.report.status import newest_progress
from spidercap.pipeline.settings.decoding_settings import told_of
from spidercap.pipeline.settings.saved import read_settings
from spidercap.pipeline.text.coco_json import ANY_TEXT, ID, TEXT, ImageId, Kind, read_json, rows
from spidercap.pipeline.text.formats.json_rows import LIST
from spidercap.pipeline.training.progress import Progress, Validation, is_number

SECONDS = Kind(lambda value: type(value) in (int, float) and value >= 0, "a number of 0 or more")
YES_OR_NO = Kind(lambda value: isinstance(value, bool), "true or false")
STEP = Kind(lambda value: type(value) is int and value >= 0, "a whole number of 0 or more")
STAGE = {"name": TEXT, "moves_policy": YES_OR_NO, "seconds": SECONDS, "best_step": STEP}
# Settings that are read here, and their types in JSON; the others are only shown.
READ = {"max_length": int, "val_images": int, "seed": int, "warm_start": str, "best_metric": str, "stages": str}
SUMMARY = '{"decoding", "stages": [{"name", "moves_policy", "seconds", "best_step"}]}'


@dataclasses.dataclass(frozen=True)
class Run:
    """The stage of a workdir that is compared."""

    workdir: pathlib.Path
    stage: str
    settings: Mapping[str, Any]  # of config.json
    decoding: Mapping[str, Any]  # settings of the decoder
    metrics: Mapping[str, float | None]  # of the whole split; unfinished, on val: of the best validation
    captions: Mapping[ImageId, str]  # by image id, in the order of the split; {} if the stage is unfinished
    seconds: float  # of the stage, with validations
    warm_up_seconds: float  # of the baseline's stages directly before it
    best_epoch: float | None  # None if no checkpoint holds it
    validations: Sequence[Validation]  # of the stage, in order; () without a checkpoint
    label: str = ""  # as given
    unfinished: str = ""  # how far it is; '' of a stage that was evaluated
    data: Mapping[str, str] = dataclasses.field(default_factory=dict)  # fingerprints of the known splits
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)  # of what is learned in the metrics


@dataclasses.dataclass(frozen=True)
class _Stage:
    """A stage as summary.json or a checkpoint tells of it."""

    name: str
    moves_policy: bool
    seconds: float
    best_step: int


def read_runs(places: Sequence[Place], split: str = "") -> tuple[list[Run], str]:
    """Returns the runs and the split on which they are compared; with '' it is test if all finished ones have it.

    Raises:
      UserError: a run or stage does not exist, a file cannot be read, or runs were validated on different images.
    """
    for place in places:
        if not (place.workdir / "config.json").is_file():
            why = "no config.json" if place.workdir.exists() else "there is no such folder"
            raise UserError(f"--workdirs: {place.workdir} holds no run ({why}); name workdirs of runs")
    split = split or _common_split([place.workdir for place in places])
    runs = [_read_run(place, split) for place in places]
    named = [(os.path.realpath(run.workdir), run.stage) for run in runs]
    for run, name in zip(runs, named, strict=True):
        if named.count(name) > 1:
            raise UserError(f"--workdirs names stage {run.stage} of {run.workdir} twice; name each once")
    with_captions = [run for run in runs if run.captions]
    for run in with_captions:
        first = with_captions[0]
        if run.captions.keys() != first.captions.keys():
            common = len(run.captions.keys() & first.captions.keys())
            raise UserError(
                f"{run.workdir} was scored on other {split} images than {first.workdir} ({len(run.captions):,} and "
                f"{len(first.captions):,}, of which {common:,} are the same); compare runs of one {split} split"
            )
    return runs, split


def _common_split(workdirs: Sequence[pathlib.Path]) -> str:
    evaluated = [workdir / "results" for workdir in workdirs if (workdir / "results").is_dir()]
    return "test" if evaluated and all((folder / "test").is_dir() for folder in evaluated) else "val"


def _read_run(place: Place, split: str) -> Run:
    workdir = place.workdir
    settings, summary = _settings(workdir / "config.json"), _summary(workdir)
    evaluated = _stages(workdir / "summary.json", summary)
    saved, progress = newest_progress(workdir)
    if saved is None and not evaluated:
        raise UserError(f"{workdir} has trained nothing yet; wait for its first checkpoint, or leave it out")
    label = _chosen(place, settings["stages"], evaluated, progress)
    if label not in evaluated:
        return _unfinished(place, label, settings, progress, split)
    stage = evaluated[label]
    folder = workdir / "results" / split
    if not folder.is_dir():
        raise UserError(f"{workdir} was not scored on {split}; run --mode=evaluate --split={split} first")
    metrics, versions = _metrics(folder / f"{label}.metrics.json")
    validations = tuple(row for row in progress.history if row.stage == label)
    return Run(
        workdir=workdir,
        stage=label,
        settings=settings,
        decoding=_decoding(workdir / "summary.json", summary),
        metrics=metrics,
        versions=versions,
        captions=_captions(folder / f"{label}.json"),
        seconds=stage.seconds,
        warm_up_seconds=_warm_up(label, list(evaluated.values())),
        best_epoch=next((v.epoch for v in validations if v.step == stage.best_step), None),
        validations=validations,
        label=place.label,
        data=_data(place.workdir),
    )


def _unfinished(place: Place, label: str, settings: Mapping[str, Any], progress: Progress, split: str) -> Run:
    """A stage that was not evaluated: no captions, and on val the scores of its best validation so far."""
    rows_of = tuple(row for row in progress.history if row.stage == label)
    finished = {stage.name: stage for stage in progress.finished}
    done = finished.get(label)
    step, best_step = (done.steps, done.best_step) if done else (progress.step, progress.best_step)
    best = next((row for row in rows_of if row.step == best_step), None)
    how_far = "trained, but not evaluated yet" if done else f"unfinished, {label} at step {step:,}"
    before = list(finished.values())[: list(finished).index(label)] if done else list(finished.values())
    return Run(
        workdir=place.workdir,
        stage=label,
        settings=settings,
        decoding={},
        metrics=best.metrics if best and split == "val" else {},
        captions={},
        seconds=done.seconds if done else progress.seconds,
        warm_up_seconds=_warm_up(label, before),
        best_epoch=best.epoch if best else None,
        validations=rows_of,
        label=place.label,
        data=_data(place.workdir),
        unfinished=how_far if best else f"{how_far}, without a validation yet",
    )


def _chosen(place: Place, stages: str, evaluated: Mapping[str, _Stage], progress: Progress) -> str:
    """The stage that is named, or the last one that trains the captioner and has begun.

    Raises:
      UserError: there is none such.
    """
    named = [name for name, stage in evaluated.items() if stage.moves_policy]
    named += [row.name for row in progress.finished if row.moves_policy]
    validated = [row.stage for row in progress.history]
    names = list(dict.fromkeys([*named, *validated]))
    if place.stage:
        if place.stage not in names:
            raise UserError(
                f"{place.workdir} has no stage {place.stage} that trains the captioner and was validated; there are: "
                f"{', '.join(names) or 'none'}; name one of them"
            )
        return place.stage
    if names:
        return names[-1]
    first = stages.partition(",")[0].partition(":")[0].strip()
    if evaluated:
        raise UserError(f"{place.workdir} has no stage that trains the captioner; leave it out")
    return first


def _warm_up(label: str, stages: Sequence[Any]) -> float:
    """Seconds of the stages directly before `label` that train the baseline alone."""
    before = list(itertools.takewhile(lambda stage: stage.name != label, stages))
    return sum(stage.seconds for stage in itertools.takewhile(lambda s: not s.moves_policy, reversed(before)))


def _settings(path: pathlib.Path) -> dict[str, Any]:
    settings = read_settings(path)
    wrong = [n for n, v in settings.items() if type(v) is not READ.get(n, type(v)) or isinstance(v, (dict, list))]
    if wrong:
        raise UserError(f"{path} is damaged ({wrong[0]} is {settings[wrong[0]]!r}); restore it, or leave the run out")
    return settings


def _summary(workdir: pathlib.Path) -> Mapping[str, Any]:
    path = workdir / "summary.json"
    return read_json(str(path), "a run's summary") if path.exists() else {}


def _stages(path: pathlib.Path, summary: Any) -> dict[str, _Stage]:
    if summary == {} and not path.exists():
        return {}
    stages = summary.get("stages") if isinstance(summary, dict) else None
    return {row[0]: _Stage(*row) for row in rows(str(path), stages, "stages", STAGE, SUMMARY)}


def _data(workdir: pathlib.Path) -> dict[str, str]:
    path = workdir / "data.json"
    content = read_json(str(path), "the fingerprints of a run's splits") if path.exists() else {}
    return {name: text for name, text in content.items() if isinstance(text, str)} if isinstance(content, dict) else {}


def _decoding(path: pathlib.Path, summary: Mapping[str, Any]) -> Mapping[str, Any]:
    found = summary.get("decoding") or {}
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged (decoding is {found!r}); score the run again with --mode=evaluate")
    # Others change no caption, and summaries of other versions may lack them.
    return told_of(found)


def _metrics(path: pathlib.Path) -> tuple[dict[str, float | None], dict[str, str]]:
    """The scores, and the versions of what is learned in metrics."""
    content = read_json(str(path), "the scores of a finished stage")
    scores, versions = split_versions(content) if isinstance(content, dict) else ({}, {})
    if not isinstance(content, dict) or not all(v is None or is_number(v) for v in scores.values()):
        raise UserError(f'{path} holds no scores, {{"CIDEr": number}}; score the run again with --mode=evaluate')
    return scores, versions


def _captions(path: pathlib.Path) -> dict[ImageId, str]:
    listed = read_json(str(path), "the captions of a finished stage")
    captions = dict(rows(str(path), listed, "results", {"image_id": ID, "caption": ANY_TEXT}, LIST))
    if not captions:
        raise UserError(f"{path} holds no captions; score the run again with --mode=evaluate")
    return captions
