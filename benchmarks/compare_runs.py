"""Reads finished runs for `benchmarks.compare`: the scores, captions and validations of one stage of each."""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.saved import read_settings
from spidercap.pipeline.text.coco_json import ANY_TEXT, ID, TEXT, ImageId, Kind, read_json, rows
from spidercap.pipeline.text.formats.json_rows import LIST
from spidercap.pipeline.training.checkpoint_files import newest_checkpoint
from spidercap.pipeline.training.progress import Validation, read_progress

EXAMPLE = '--runs="MLE=runs/mle_0,runs/mle_1;PG=runs/pg_0"'
SECONDS = Kind(lambda value: type(value) in (int, float) and value >= 0, "a number of 0 or more")
YES_OR_NO = Kind(lambda value: isinstance(value, bool), "true or false")
STEP = Kind(lambda value: type(value) is int and value >= 0, "a whole number of 0 or more")
STAGE = {"name": TEXT, "moves_policy": YES_OR_NO, "seconds": SECONDS, "best_step": STEP}
SUMMARY = '{"decoding", "stages": [{"name", "moves_policy", "seconds", "best_step"}]}'

# Label of a row -> its runs, which differ by their seeds.
Rows = Mapping[str, Sequence["Run"]]


@dataclasses.dataclass(frozen=True)
class Run:
    """The stage of a workdir that is compared."""

    workdir: pathlib.Path
    stage: str
    settings: Mapping[str, Any]  # of config.json
    decoding: Mapping[str, Any]  # settings of the decoder
    metrics: Mapping[str, float | None]  # of the whole validation split, by column of the tables
    captions: Mapping[ImageId, str]  # by image id, in the order of the split
    seconds: float  # of the stage, with validations
    warm_up_seconds: float  # of the baseline's stages directly before it
    best_epoch: float | None  # None if no checkpoint holds it
    validations: Sequence[Validation]  # of the stage, in order; () without a checkpoint


def read_rows(text: str) -> dict[str, tuple[Run, ...]]:
    """Returns the runs of `--runs`, 'label=workdir,workdir:stage;label=workdir' or '@FILE' with one row per line.

    The last = of a row ends its label, which may contain others.

    Raises:
      UserError: the text has another form, a run or stage does not exist, or a run has other validation images than the
        first.
    """
    found = {label: tuple(map(_read_run, places)) for label, places in _parsed(text).items()}
    first, *others = [run for runs in found.values() for run in runs]
    for run in others:
        if run.captions.keys() != first.captions.keys():
            common = len(run.captions.keys() & first.captions.keys())
            raise UserError(
                f"{run.workdir} was validated on other images than {first.workdir} ({len(run.captions)} and "
                f"{len(first.captions)}, of which {common} are the same); compare runs of one validation split"
            )
    return found


def _parsed(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in _split_rows(text):
        label, equals, listed = (part.strip() for part in row.rpartition("="))
        places = [place.strip() for place in listed.split(",") if place.strip()]
        if not (label and equals and places):
            raise UserError(f"--runs: {row.strip()!r} is not label=workdir,workdir; for example {EXAMPLE}")
        if label in found:
            raise UserError(f"--runs: {label} comes twice; name all of its seeds in one row, separated by commas")
        workdirs = [_parted(place)[0].resolve() for place in places]
        twice = [place for place, workdir in zip(places, workdirs, strict=True) if workdirs.count(workdir) > 1]
        if twice:
            raise UserError(f"--runs: {label} has {twice[0]} twice; name each workdir once")
        found[label] = places
    if not found:
        raise UserError(f"--runs names no runs; for example {EXAMPLE}")
    return found


def _split_rows(text: str) -> Iterator[str]:
    listed = text.split(";")
    if text.startswith("@"):
        try:
            listed = pathlib.Path(text[1:]).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"--runs={text} cannot be read ({error}); name a text file with one row per line"
            ) from error
    return (row for row in listed if row.strip() and not row.lstrip().startswith("#"))


def _parted(place: str) -> tuple[pathlib.Path, str]:
    """The workdir and the stage; '' means the last stage."""
    folder, colon, stage = place.rpartition(":")
    if not colon or pathlib.Path(place).is_dir():
        return pathlib.Path(place), ""
    return pathlib.Path(folder), stage


def _read_run(place: str) -> Run:
    workdir, stage = _parted(place)
    path = workdir / "summary.json"
    if not workdir.is_dir():
        raise UserError(f"--runs: {workdir} is not a folder; name workdirs of finished runs")
    if not path.exists():
        raise UserError(f"{workdir} has no summary.json; let its training finish, or score it with --mode=evaluate")
    summary = read_json(str(path), "a run's summary")
    stages = summary.get("stages") if isinstance(summary, dict) else None
    listed = {row[0]: row[1:] for row in rows(str(path), stages, "stages", STAGE, SUMMARY)}
    finished = [name for name, (moves_policy, *_) in listed.items() if moves_policy]
    if not finished or (stage and stage not in finished):
        raise UserError(
            f"{workdir} has not finished {f'stage {stage}' if stage else 'a stage'} that trains the policy; "
            f"finished are: {', '.join(finished) or 'none'}; name one of them, or finish its training"
        )
    stage = stage or finished[-1]
    _, seconds, best_step = listed[stage]
    before = list(listed)[: list(listed).index(stage)]
    warm_up = itertools.takewhile(lambda name: not listed[name][0], reversed(before))
    validations = _validations(workdir, stage)
    results = workdir / "results" / str(summary.get("split"))
    return Run(
        workdir=workdir,
        stage=stage,
        settings=read_settings(workdir / "config.json"),
        decoding=summary.get("decoding") or {},
        metrics=_metrics(results / f"{stage}.metrics.json"),
        captions=_captions(results / f"{stage}.json"),
        seconds=seconds,
        warm_up_seconds=sum(listed[name][1] for name in warm_up),
        best_epoch=next((v.epoch for v in validations if v.step == best_step), None),
        validations=validations,
    )


def _metrics(path: pathlib.Path) -> dict[str, float | None]:
    content = read_json(str(path), "the scores of a finished stage")
    if not isinstance(content, dict) or not all(v is None or type(v) in (int, float) for v in content.values()):
        raise UserError(f'{path} holds no scores, {{"CIDEr": number}}; score the run again with --mode=evaluate')
    return content


def _captions(path: pathlib.Path) -> dict[ImageId, str]:
    listed = read_json(str(path), "the captions of a finished stage")
    captions = dict(rows(str(path), listed, "results", {"image_id": ID, "caption": ANY_TEXT}, LIST))
    if not captions:
        raise UserError(f"{path} holds no captions; score the run again with --mode=evaluate")
    return captions


def _validations(workdir: pathlib.Path, stage: str) -> tuple[Validation, ...]:
    history = read_progress(newest_checkpoint(workdir / "checkpoints")).history
    return tuple(validation for validation in history if validation.stage == stage)
