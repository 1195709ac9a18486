"""Writes the results of a run: captions, metrics, the printed table and the report page."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from spidercap.models.images import decode_image
from spidercap.pipeline.data.prepare import Data, read_images
from spidercap.pipeline.data.tokens import TokenizedSplit
from spidercap.pipeline.evaluation.evaluate import Evaluation, n_best_json, results_json
from spidercap.pipeline.evaluation.table import table
from spidercap.pipeline.files import write_text
from spidercap.pipeline.metrics.registry import remarks
from spidercap.pipeline.report.charts import Curve
from spidercap.pipeline.report.page import GalleryItem, StageResult, write_report
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.training.progress import Progress

GALLERY = 12  # images, the best and as many of the worst
THUMBNAIL = 320  # pixels of the longer side
CURVES = {"CIDEr": "CIDEr", "BLEU-4": "BLEU-4", "distinct captions": "captions", "mean length": "words"}  # -> unit
SELECTION_NOTE = "The best checkpoint was selected on this split, so its scores are slightly optimistic."


def write_results(
    config: Config,
    data: Data,
    split: TokenizedSplit,
    progress: Progress,
    evaluations: Mapping[str, Evaluation],
    policies: Sequence[str],
) -> pathlib.Path:
    """Writes summary.json, captions, metrics and n-best captions of each stage, and report.html; returns its path.

    Args:
      evaluations: by stage label, of the whole validation split.
      policies: labels of the stages that trained the policy, the rows of the table.
    """
    workdir = config.workdir_path()
    for label, evaluation in evaluations.items():
        _write_json(workdir / "results" / f"{label}.json", results_json(split, evaluation))
        _write_json(workdir / "results" / f"{label}.metrics.json", evaluation.corpus)
        n_best = workdir / "results" / f"{label}.n_best.json"
        n_best.unlink(missing_ok=True)  # those of an earlier evaluation are outdated
        if config.decoding.n_best > 1:
            _write_json(n_best, n_best_json(split, evaluation))
    stages = [{**stage.to_dict(), "metrics": evaluations[stage.name].corpus} for stage in progress.finished]
    summary = {
        "split": "val",
        "images": len(split.image_ids),
        "decoding": dataclasses.asdict(config.decoding),
        "stages": stages,
    }
    _write_json(workdir / "summary.json", summary)
    shown = {label: evaluations[label] for label in policies}
    best, worst = _gallery(data, split, shown, config.training.best_metric)
    curves = {config.training.best_metric: config.training.best_metric, **CURVES}
    page = workdir / "report.html"
    write_report(
        page,
        title=f"{workdir.name}: {len(split.image_ids)} validation images",
        settings=config.fixed(),
        metric=config.training.best_metric,
        stages=[
            StageResult(stage.name, _whole_metrics(evaluations[stage.name].corpus), stage.images_seen, stage.seconds)
            for stage in progress.finished
            if stage.name in policies
        ],
        curves=[_curve(progress, metric, unit, policies) for metric, unit in curves.items()],
        best=best,
        worst=worst,
        notes=[SELECTION_NOTE, *_remarks(shown), *_warnings(progress)],
    )
    return page


def print_table(evaluations: Mapping[str, Evaluation]) -> None:
    """Prints the scores of stages, by label, and the remarks on their metrics."""
    scores = {label: _whole_metrics(evaluation.corpus) for label, evaluation in evaluations.items()}
    print("\n".join([table(scores), *_remarks(evaluations)]))


def _remarks(evaluations: Mapping[str, Evaluation]) -> list[str]:
    of_runs = [f"{label}: {text}" for label, evaluation in evaluations.items() for text in evaluation.remarks.values()]
    return [*remarks({name for evaluation in evaluations.values() for name in evaluation.corpus}), *of_runs]


def _warnings(progress: Progress) -> list[str]:
    return [f"{stage.name} {warning}" for stage in progress.finished for warning in stage.warnings]


def _whole_metrics(corpus: Mapping[str, float | None]) -> dict[str, float]:
    """All metrics but SPICE's parts, which would not fit into a table."""
    return {name: score for name, score in corpus.items() if not name.startswith("SPICE ")}


def _curve(progress: Progress, metric: str, unit: str, policies: Sequence[str]) -> Curve:
    """The metric's validations over the minutes of the whole run, one series per stage."""
    seconds_before, minutes = 0.0, {}
    for stage in progress.finished:
        minutes[stage.name] = seconds_before / 60
        seconds_before += stage.seconds
    series = {
        label: [
            (minutes[label] + validation.seconds / 60, validation.metrics[metric])
            for validation in progress.history
            if validation.stage == label
        ]
        for label in policies
    }
    return Curve(f"{metric} on validation", "minutes", unit, series)


def _gallery(
    data: Data, split: TokenizedSplit, evaluations: Mapping[str, Evaluation], metric: str
) -> tuple[list[GalleryItem], list[GalleryItem]]:
    """The images whose captions of the last stage score best and worst by `metric`."""
    scores = [image[metric] for image in list(evaluations.values())[-1].images]
    order = np.argsort(scores, kind="stable")
    ends = min(GALLERY, len(order) // 2)
    worst, best = order[:ends], order[len(order) - ends :][::-1]
    chosen = {split.image_ids[i] for i in [*worst, *best]}
    images = dict(read_images(data, "val", chosen))

    def item(i: int) -> GalleryItem:
        image_id = split.image_ids[i]
        return GalleryItem(
            image=thumbnail(images[image_id]),
            image_id=image_id,
            file_name=split.file_names[i],
            references=split.captions[i],
            captions={label: evaluation.captions[i] for label, evaluation in evaluations.items()},
            scores={label: evaluation.images[i][metric] for label, evaluation in evaluations.items()},
        )

    return [item(i) for i in best], [item(i) for i in worst]


def thumbnail(encoded: bytes, most: int = THUMBNAIL) -> bytes:
    """Returns an encoded image as a PNG (small ones) or JPEG of at most `most` pixels, so that a page stays small."""
    image = decode_image(tf.constant(encoded))
    longer = max(image.shape[:2])
    if longer > most:
        size = [max(1, round(side * most / longer)) for side in image.shape[:2]]
        image = tf.cast(tf.round(tf.image.resize(image, size, antialias=True)), tf.uint8)
    return (tf.io.encode_png(image) if longer <= 128 else tf.io.encode_jpeg(image, quality=88)).numpy()


def _write_json(path: pathlib.Path, content: object) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")
