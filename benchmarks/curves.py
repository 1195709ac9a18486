"""Draws the validation curves of runs as SVG for the documents: over time, and over captions scored in training.

    python -m benchmarks.curves --workdirs=MLE=runs/mle_0,PG=runs/pg_0,PG=runs/pg_1 --output=docs/results.svg
                                [--metric=CIDEr --references=captions_val.json]

The workdirs are those of --mode=compare, which has the tables. The row MLE, from which the others start, is a dashed
line.
"""

import argparse
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from benchmarks.lines import Panel, line_panels
from spidercap.pipeline.errors import UserError, check_choice
from spidercap.pipeline.files import check_output, write_text
from spidercap.pipeline.metrics.registry import column_names, single_terms, term_of
from spidercap.pipeline.metrics.scores import score_captions
from spidercap.pipeline.metrics.text_metrics import open_text_metrics
from spidercap.pipeline.report.compare.curves import check_validated
from spidercap.pipeline.report.compare.groups import Rows, grouped
from spidercap.pipeline.report.compare.images import ListedImage, read_images
from spidercap.pipeline.report.compare.places import parse_places
from spidercap.pipeline.report.compare.runs import Run, read_runs
from spidercap.pipeline.text.coco_json import ImageId
from spidercap.pipeline.text.tokenizer import tokenize

START = "MLE"  # the label of the runs from which the others start


def main(arguments: Sequence[str]) -> int:
    """Writes the figure; returns 1 after a UserError or OSError."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curves", description=__doc__.split("\n")[0])
    parser.add_argument("--workdirs", required=True, help="[label=]workdir[:stage],... as in --mode=compare")
    parser.add_argument("--metric", default="CIDEr", help="metric of the validations")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="SVG file")
    parser.add_argument("--references", default="", help=f"captions file, if {START} was validated on other images")
    args = parser.parse_args(arguments)
    try:
        check_output("output", args.output, read=[args.references] if args.references else [])
        check_choice("metric", args.metric, column_names())
        runs, _ = read_runs(parse_places(args.workdirs))
        ids = next((run.captions.keys() for run in runs if run.captions), ())
        references = read_images(args.references, ids) if args.references else None
        write_text(args.output, draw_curves(grouped(runs), args.metric, references))
    except (UserError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def draw_curves(rows: Rows, metric: str, references: Mapping[ImageId, ListedImage] | None) -> str:
    """Returns SVG of the metric's validations of every row but START, whose score is a dashed line.

    Args:
      rows: the runs by label.
      metric: a column of the tables.
      references: of the images. With them START is scored again, if it was validated on other images than the others.

    Raises:
      UserError: START is the only row, there are no validations with the metric, or runs were validated on other
        images.
    """
    moving = {label: runs for label, runs in rows.items() if label != START}
    if not moving:
        raise UserError(f"{START}, the start of the others, is the only row; name others in --workdirs")
    images = _common_images([run for runs in moving.values() for run in runs], metric)
    level = _start_score(rows.get(START, ()), metric, images, references)
    if level is None and START in rows:
        told = f"it was not scored with {metric} on the {images} images on which the others were validated"
        print(f"warning: no line for {START}: {told} while training; give their --references", file=sys.stderr)

    def panel(x_label: str, of: Callable[[Run], Sequence[float]]) -> Panel:
        lines = {label: [_line(run, metric, of(run)) for run in of_label] for label, of_label in moving.items()}
        return Panel(x_label, lines)

    panels = [
        panel("seconds of the stage, with validations", lambda run: [v.seconds for v in run.validations]),
        panel("captions scored in training", lambda run: [v.captions_scored for v in run.validations]),
    ]
    title = f"Validation {metric} of {images:,} images while training"
    return line_panels(title, metric, panels, None if level is None else (START, level))


def _start_score(
    runs: Sequence[Run], metric: str, images: int, references: Mapping[ImageId, ListedImage] | None
) -> float | None:
    """The mean score of runs on the first `images` images of the split; None if it is not known."""
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


def _scored_again(run: Run, metric: str, images: int, references: Mapping[ImageId, ListedImage]) -> float:
    chosen = list(run.captions)[:images]
    texts = [[" ".join(tokenize(r)) for r in references[i].references] for i in chosen]
    terms = (term_of(metric),)
    settings = {n: run.settings[n] for n in ("metric_workers", "metric_timeout", "metric_cache_dir", "corenlp")}
    with open_text_metrics(single_terms(terms), **settings) as text_metrics:
        scores = score_captions(texts, [run.captions[i] for i in chosen], terms, text_metrics)
    for remark in scores.remarks.values():
        print(f"warning: {run.workdir}: {remark}", file=sys.stderr)
    return scores.corpus[metric]


def _common_images(runs: Sequence[Run], metric: str) -> int:
    """The number of images on which all runs were validated while training.

    Raises:
      UserError: their validations of `metric` cannot be compared, or a run does not tell its scored captions.
    """
    check_validated(runs, metric)
    for run in runs:
        if _images_validated(run) != _images_validated(runs[0]):
            raise UserError(
                f"while training, {run.workdir} was validated on {_images_validated(run)} images, {runs[0].workdir} on "
                f"{_images_validated(runs[0])} (--val_images); compare runs with equal --val_images"
            )
        if any(validation.captions_scored is None for validation in run.validations):
            raise UserError(f"{run.workdir} does not tell how many captions it scored; leave it out")
    return _images_validated(runs[0])


def _images_validated(run: Run) -> int:
    """The number of images, the first ones of the split, on which it was validated while training."""
    return min(run.settings["val_images"] or len(run.captions), len(run.captions))


def _line(run: Run, metric: str, xs: Sequence[float]) -> list[tuple[float, float]]:
    return [(x, v.metrics[metric]) for x, v in zip(xs, run.validations, strict=True) if metric in v.metrics]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
