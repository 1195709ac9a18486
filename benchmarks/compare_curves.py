"""Curves of a comparison: a metric on validation over time, and over captions scored in training."""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence

from benchmarks.compare_images import ValidationImage
from benchmarks.compare_runs import Rows, Run
from benchmarks.lines import Panel, line_panels
from spidercap.pipeline.errors import UserError, check_choice
from spidercap.pipeline.metrics.registry import column_names, single_terms, term_of
from spidercap.pipeline.metrics.scores import score_captions
from spidercap.pipeline.metrics.text_metrics import open_text_metrics
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.settings.stages import STAGES
from spidercap.pipeline.text.coco_json import ImageId
from spidercap.pipeline.text.tokenizer import tokenize

START = "MLE"  # the label of the runs from which the others start


@dataclasses.dataclass(frozen=True)
class Curves:
    """The figure, and notes for the user."""

    svg: str
    notes: tuple[str, ...]


def draw_curves(rows: Rows, metric: str, references: Mapping[ImageId, ValidationImage] | None) -> Curves:
    """Returns curves of the metric's validations of every label but START, whose score is a dashed line.

    Args:
      references: of the validation images. With them START is scored again, if it was validated on other images than
        the others while training.

    Raises:
      UserError: START is the only label, there are no validations with the metric, or runs were validated on other
        images.
    """
    check_choice("metric", metric, column_names())
    moving = but_start(rows, "curves")
    runs = [run for of_label in moving.values() for run in of_label]
    images = common_images(runs, metric)
    notes = []
    silent = [str(run.workdir) for run in runs if captions_scored(run) is None]
    if silent:
        notes.append(
            f"{', '.join(silent)}: numbers of scored captions are not known; the second panel is over images seen"
        )
    level = start_score(rows.get(START, ()), metric, images, references)
    if level is None and START in rows:
        notes.append(
            f"no line for {START}: it was not scored with {metric} on the {images} images on which the others were "
            "validated while training; give their --references"
        )

    def panel(x_label: str, of: Callable[[Run], Sequence[float]]) -> Panel:
        lines = {label: [_line(run, metric, of(run)) for run in of_label] for label, of_label in moving.items()}
        return Panel(x_label, lines)

    panels = [
        panel("seconds of the stage, with validations", lambda run: [v.seconds for v in run.validations]),
        panel("images seen in training", _images_seen)
        if silent
        else panel("captions scored in training", captions_scored),
    ]
    title = f"Validation {metric} of {images:,} images while training"
    return Curves(line_panels(title, metric, panels, None if level is None else (START, level)), tuple(notes))


def but_start(rows: Rows, flag: str) -> Rows:
    """Returns the rows without START, whose validations are those of another stage.

    Raises:
      UserError: there are no others.
    """
    others = {label: runs for label, runs in rows.items() if label != START}
    if not others:
        raise UserError(f"--{flag}: {START}, the start of the others, is the only label; name others in --runs")
    return others


def start_score(
    runs: tuple[Run, ...], metric: str, images: int, references: Mapping[ImageId, ValidationImage] | None
) -> float | None:
    """Returns the mean score of runs on the first `images` images of the split; None if it is not known."""
    scores = [_known_score(run, metric, images) for run in runs]
    if None in scores and references is not None:
        scores = [
            _scored_again(run, metric, images, references) if score is None else score
            for run, score in zip(runs, scores, strict=True)
        ]
    return None if None in scores or not scores else sum(scores) / len(scores)


def _known_score(run: Run, metric: str, images: int) -> float | None:
    # Preferably the score while training, because a later evaluation may have used another decoder than the curves.
    best = next((v for v in run.validations if v.epoch == run.best_epoch), None)
    if images == _images_validated(run) and best is not None and metric in best.metrics:
        return best.metrics[metric]
    return run.metrics.get(metric) if images == len(run.captions) else None


def _scored_again(run: Run, metric: str, images: int, references: Mapping[ImageId, ValidationImage]) -> float:
    chosen = list(run.captions)[:images]
    texts = [[" ".join(tokenize(r)) for r in references[i].references] for i in chosen]
    terms = (term_of(metric),)
    settings = {n: run.settings[n] for n in ("metric_workers", "metric_timeout", "metric_cache_dir", "corenlp")}
    with open_text_metrics(single_terms(terms), **settings) as text_metrics:
        scores = score_captions(texts, [run.captions[i] for i in chosen], terms, text_metrics)
    for remark in scores.remarks.values():
        print(f"warning: {run.workdir}: {remark}", file=sys.stderr)
    return scores.corpus[metric]


def common_images(runs: Sequence[Run], metric: str) -> int:
    """Returns the number of images on which all runs were validated while training.

    Raises:
      UserError: their validations of `metric` cannot be compared.
    """
    for run in runs:
        if not any(metric in v.metrics for v in run.validations):
            raise UserError(
                f"{run.workdir} has no validations of stage {run.stage} with {metric}; train with --metrics that name "
                "it, or name another --metric"
            )
        if _images_validated(run) != _images_validated(runs[0]):
            raise UserError(
                f"while training, {run.workdir} was validated on {_images_validated(run)} images, {runs[0].workdir} on "
                f"{_images_validated(runs[0])} (--val_images); compare runs with equal --val_images"
            )
    return _images_validated(runs[0])


def _images_validated(run: Run) -> int:
    """The number of images, the first ones of the split, on which it was validated while training."""
    return min(run.settings["val_images"] or len(run.captions), len(run.captions))


def _line(run: Run, metric: str, xs: Sequence[float]) -> list[tuple[float, float]]:
    return [(x, v.metrics[metric]) for x, v in zip(xs, run.validations, strict=True) if metric in v.metrics]


def _images_seen(run: Run) -> list[float]:
    return [v.images_seen for v in run.validations]


def captions_scored(run: Run) -> list[float] | None:
    """Returns the captions scored until each validation; None if they are neither stored nor a fixed number."""
    scored = [validation.captions_scored for validation in run.validations]
    if None not in scored:
        return scored
    name = run.stage.partition("-")[0]
    kind, config = STAGES[name], Config.of(**run.settings)
    if not kind.learns_from_rewards:
        count = 0
    elif "rollouts" in kind.settings and config.of_stage("rollouts", name) > 0:
        return None
    else:
        count = (config.of_stage("samples", name) if "samples" in kind.settings else 1) + kind.scored_besides
    return [count * seen for seen in _images_seen(run)]
