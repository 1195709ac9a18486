"""Writes the results of a run: captions, metrics, the printed table and the report page."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from spidercap.models.images import decode_image
from spidercap.pipeline.data.records import TITLES, Split, read_images
from spidercap.pipeline.data.tokens import TokenizedSplit
from spidercap.pipeline.evaluation.attention_maps import Attention
from spidercap.pipeline.evaluation.evaluate import Evaluation, n_best_json, results_json, scores_json
from spidercap.pipeline.evaluation.table import table, whole_metrics
from spidercap.pipeline.files import write_text
from spidercap.pipeline.metrics.registry import remarks
from spidercap.pipeline.report.attention_maps import WordMaps
from spidercap.pipeline.report.cards import GalleryItem
from spidercap.pipeline.report.charts import Curve
from spidercap.pipeline.report.page import StageResult, write_report
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.training.identity import has_test_captions
from spidercap.pipeline.training.progress import Progress

GALLERY = 12  # images, the best and as many of the worst
THUMBNAIL = 320  # pixels of the longer side
MAPPED = 4  # of the best images, and as many of the worst, have attention maps
MAP = 192  # pixels of their longer side
MAPS_HINT = "The maps show the attention weights before each word: yellow is high, dark blue is low."
MAPS_HINTS = {
    "attention": MAPS_HINT,
    "transformer": f"{MAPS_HINT} They are the mean over all heads and layers.",
}
CURVES = {"CIDEr": "CIDEr", "BLEU-4": "BLEU-4", "distinct captions": "captions", "mean length": "words"}  # -> unit
TEST_NOTE = "The best checkpoint was selected on the validation images, so their scores are slightly optimistic."
SELECTION_NOTE = "The best checkpoint was selected on this split, so its scores are slightly optimistic."


@dataclasses.dataclass(frozen=True)
class SplitResults:
    """What the finished stages generate for a split."""

    name: str  # of data.records.SPLITS
    folder: str  # of the files, below `results`
    split: Split
    tokens: TokenizedSplit
    evaluations: Mapping[str, Evaluation]  # by stage label, of the whole split


def results_folder(config: Config, split: str) -> str:
    """Returns the name of the folder of results; of captions that are not the run's own, it is their file's, too."""
    own = config.run.split != "test" or not config.data.test_captions or has_test_captions(config)
    return split if own else f"{split}-{pathlib.Path(config.data.test_captions).stem}"


def write_split(config: Config, results: SplitResults, folder: pathlib.Path | None = None) -> None:
    """Writes captions, metrics, scores of each image and n-best captions of each stage to `results/<folder>`.

    These are in `folder`, by default in the workdir.
    """
    folder = (folder or config.workdir_path()) / "results" / results.folder
    for label, evaluation in results.evaluations.items():
        write_json(folder / f"{label}.json", results_json(results.tokens, evaluation))
        write_json(folder / f"{label}.metrics.json", {**evaluation.corpus, **evaluation.versions})
        write_json(folder / f"{label}.scores.json", scores_json(results.tokens, evaluation))
        n_best = folder / f"{label}.n_best.json"
        n_best.unlink(missing_ok=True)  # those of an earlier evaluation are outdated
        if config.decoding.n_best > 1:
            write_json(n_best, n_best_json(results.tokens, evaluation))


def write_results(
    config: Config,
    found: Mapping[str, SplitResults],
    progress: Progress,
    policies: Sequence[str],
    attention: Attention | None = None,
) -> pathlib.Path:
    """Writes summary.json and report.html, whose path is returned.

    Args:
      config: the settings.
      found: the results of val and, if there is one, of test. The report's images are of the last of them.
      progress: the stages and the validations of training.
      policies: labels of the stages that trained the policy, the rows of the table.
      attention: of the last of these stages on the last split, if it can be drawn.
    """
    workdir, last = config.workdir_path(), list(found.values())[-1]
    summary = {
        "split": last.name,
        "images": len(last.split),
        "decoding": dataclasses.asdict(config.decoding),
        "stages": [{**s.to_dict(), "metrics": last.evaluations[s.name].corpus} for s in progress.finished],
        "splits": {
            name: {"images": len(of.split), "metrics": {label: e.corpus for label, e in of.evaluations.items()}}
            for name, of in found.items()
        },
    }
    write_json(workdir / "summary.json", summary | versions_json(last.evaluations))
    shown = {label: last.evaluations[label] for label in policies}
    best, worst = _gallery(last, shown, config.training.best_metric, attention)
    curves = {config.training.best_metric: config.training.best_metric, **CURVES}
    page = workdir / "report.html"
    others = [of for of in found.values() if of is not last]
    write_report(
        page,
        title=f"{workdir.name}: {len(last.split):,} {TITLES[last.name]} images",
        settings=config.fixed(),
        metric=config.training.best_metric,
        stages=_rows(progress, last, policies),
        others={f"{len(of.split):,} {TITLES[of.name]} images": _rows(progress, of, policies) for of in others},
        curves=[_curve(progress, metric, unit, policies) for metric, unit in curves.items()],
        best=best,
        worst=worst,
        unscored={stage.name: stage.seconds for stage in progress.finished if stage.name not in policies},
        maps_hint=MAPS_HINTS.get(config.model.decoder, ""),
        notes=[TEST_NOTE if others else SELECTION_NOTE, *_remarks(shown), *_warnings(progress)],
    )
    return page


def _rows(progress: Progress, results: SplitResults, policies: Sequence[str]) -> list[StageResult]:
    """The rows of the table of a split."""
    return [
        StageResult(stage.name, whole_metrics(results.evaluations[stage.name].corpus), stage.images_seen, stage.seconds)
        for stage in progress.finished
        if stage.name in policies
    ]


def versions_json(evaluations: Mapping[str, Evaluation]) -> dict[str, Mapping[str, str]]:
    """Returns the part of a summary that says which versions of learned metrics gave its scores, if there are any."""
    versions = dict(item for evaluation in evaluations.values() for item in evaluation.versions.items())
    return {"versions": versions} if versions else {}


def print_table(evaluations: Mapping[str, Evaluation]) -> None:
    """Prints the scores of stages, by label, and the remarks on their metrics."""
    scores = {label: whole_metrics(evaluation.corpus) for label, evaluation in evaluations.items()}
    print("\n".join([table(scores), *_remarks(evaluations)]))


def _remarks(evaluations: Mapping[str, Evaluation]) -> list[str]:
    of_runs = [f"{label}: {text}" for label, evaluation in evaluations.items() for text in evaluation.remarks.values()]
    shown = {name for evaluation in evaluations.values() for name in evaluation.corpus}
    return [*remarks(shown, *(evaluation.versions for evaluation in evaluations.values())), *of_runs]


def _warnings(progress: Progress) -> list[str]:
    return [f"{stage.name} {warning}" for stage in progress.finished for warning in stage.warnings]


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
    results: SplitResults, evaluations: Mapping[str, Evaluation], metric: str, attention: Attention | None
) -> tuple[list[GalleryItem], list[GalleryItem]]:
    """The images whose captions of the last stage score best and worst by `metric`, the first of both with maps."""
    split = results.split
    scores = [image[metric] for image in list(evaluations.values())[-1].images]
    order = np.argsort(scores, kind="stable")
    # Of an odd number, one alone included, the one in the middle is among the best.
    worst, best = order[: min(GALLERY, len(order) // 2)], order[::-1][: min(GALLERY, (len(order) + 1) // 2)]
    images = read_images(split, [*worst.tolist(), *best.tolist()])
    mapped = [*best[:MAPPED].tolist(), *worst[:MAPPED].tolist()] if images and attention else []
    label, evaluation = list(evaluations.items())[-1]
    maps = _maps(label, mapped, [evaluation.captions[i] for i in mapped], images, attention) if mapped else {}

    def item(i: int) -> GalleryItem:
        return GalleryItem(
            image=thumbnail(images[i]) if images else b"",
            image_id=split.image_ids[i],
            file_name=split.file_names[i],
            references=split.captions[i],
            captions={label: evaluation.captions[i] for label, evaluation in evaluations.items()},
            scores={label: evaluation.images[i][metric] for label, evaluation in evaluations.items()},
            maps=maps.get(i),
        )

    return [item(i) for i in best.tolist()], [item(i) for i in worst.tolist()]


def _maps(
    label: str, rows: Sequence[int], captions: Sequence[str], images: Mapping[int, bytes], attention: Attention
) -> dict[int, WordMaps]:
    """The attention maps of a stage's captions, by row of the split; none of an empty caption."""
    found = {}
    for i, caption, weights in zip(rows, captions, attention(rows, captions), strict=True):
        if caption:
            small = thumbnail(images[i], MAP)
            height, width = decode_image(tf.constant(small)).shape[:2]
            found[i] = WordMaps(label, small, width / height, caption.split(" "), weights)
    return found


def thumbnail(encoded: bytes, most: int = THUMBNAIL) -> bytes:
    """Returns an encoded image as a JPEG, or PNG where that is smaller, with at most `most` pixels on a side."""
    image = decode_image(tf.constant(encoded))
    longer = max(image.shape[:2])
    if longer > most:
        size = [max(1, round(side * most / longer)) for side in image.shape[:2]]
        image = tf.cast(tf.round(tf.image.resize(image, size, antialias=True)), tf.uint8)
    encoded = [tf.io.encode_jpeg(image, quality=88).numpy()]
    if longer <= 128:  # may be a drawing
        encoded.append(tf.io.encode_png(image).numpy())
    return min(encoded, key=len)


def write_json(path: pathlib.Path, content: object) -> None:
    """Writes a file of JSON."""
    write_text(path, json.dumps(content, indent=1) + "\n")
