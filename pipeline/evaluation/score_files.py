"""Scores a file of captions against a file of references, like the COCO caption evaluation."""

import json
import pathlib
import sys
from collections.abc import Mapping, Sequence

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.evaluation.scoring import Captioned, score_captioned
from spidercap.pipeline.evaluation.table import table, whole_metrics
from spidercap.pipeline.files import check_input, check_output, write_text
from spidercap.pipeline.metrics.registry import needs_tensorflow, remarks
from spidercap.pipeline.metrics.scores import Scores
from spidercap.pipeline.quiet_start import import_tensorflow
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.text.coco_json import ImageId, reject_ids
from spidercap.pipeline.text.listing import read_scored


def score_files(config: Config) -> Scores:
    """Returns the scores of --results against --references; prints them and writes them to --output.

    Raises:
      UserError: a file has another format, results and references do not match, or Java or CoreNLP is missing.
    """
    for flag in ("references", "results"):
        check_input(flag, getattr(config.metrics, flag))
    if config.metrics.output:
        check_output("output", config.metrics.output, read=(config.metrics.references, config.metrics.results))
    captioned = read_captioned(config.metrics.references, config.metrics.results, config.data.skip_bad_captions)
    if config.metrics.output:
        _check_output_ids(config.metrics.results, captioned.image_ids)
    if needs_tensorflow(config.terms()):
        import_tensorflow(may_run=True)
    captioned, scores = score_captioned(captioned, config.terms(), config.metrics.for_workers(), progress=True)
    for line in _lines(scores, len(captioned.captions)):
        print(line)
    if config.metrics.output:
        by_id = {str(i): image for i, image in zip(captioned.image_ids, scores.images, strict=True)}
        content = {"corpus": scores.corpus, "images": by_id}
        content |= {"versions": scores.versions} if scores.versions else {}
        write_text(pathlib.Path(config.metrics.output), json.dumps(content, indent=1) + "\n")
        print(f"scores: {config.metrics.output}")
    return scores


def read_captioned(references: str, results: str, skip_bad_captions: bool = False) -> Captioned:
    """Returns the captions of the results file with the references of their images, ordered by id.

    Args:
      references: a captions file of any format that `read_listing` reads.
      results: the same, with one caption for each image; `read_scored` says which ids of both are equal.
      skip_bad_captions: leave out references that should not be used (see `usable_captions`), and images without any.

    Raises:
      UserError: a file has another format, a result is of an unknown image, or an image has two results.
    """
    listed, captions = read_scored(references, results, skip_bad_captions=skip_bad_captions)
    of_image = {image.image_id: image.captions for image in listed}
    unknown = [i for i in captions if i not in of_image]
    remedy = f"score against the references of these images ({references})"
    reject_ids(results, "images have no references", unknown, remedy, of_image)
    captions = _with_references(captions, of_image, results)
    of_image = {i: of for i, of in of_image.items() if of}
    if len(captions) < len(of_image):
        print(f"{len(captions):,} of {len(of_image):,} images with references have a caption; only those are scored")
    image_ids = tuple(i for i in of_image if i in captions)
    return Captioned(image_ids, tuple(captions[i] for i in image_ids), tuple(of_image[i] for i in image_ids))


def _with_references(
    captions: dict[ImageId, str], of_image: Mapping[ImageId, Sequence[str]], results: str
) -> dict[ImageId, str]:
    """The captions of images of which not all references were left out."""
    kept = {i: caption for i, caption in captions.items() if of_image[i]}
    if not kept:
        raise UserError(f"{results}: no image has a reference that is not left out; leave out --skip_bad_captions")
    if len(kept) < len(captions):
        left_out = len(captions) - len(kept)
        print(f"skipping {left_out:,} of {len(captions):,} images whose references are all left out", file=sys.stderr)
    return kept


def _check_output_ids(path: str, image_ids: Sequence[ImageId]) -> None:
    """Raises UserError for ids that a JSON object, whose keys are text, cannot tell apart."""
    texts = {i for i in image_ids if isinstance(i, str)}
    alike = [i for i in image_ids if not isinstance(i, str) and str(i) in texts]
    reject_ids(path, "image ids come as a number and as text", alike, "rename them, or leave out --output")


def _lines(scores: Scores, images: int) -> list[str]:
    """The table, then SPICE's parts and remarks."""
    corpus = scores.corpus
    parts = {name: score for name, score in corpus.items() if name.startswith("SPICE ")}
    lines = [table({f"{images:,} images": whole_metrics(corpus)})]
    if parts:
        shown = ", ".join(f"{n.removeprefix('SPICE ')} {'-' if s is None else f'{s:.3f}'}" for n, s in parts.items())
        lines.append(f"SPICE by part: {shown}")
    return [*lines, *remarks(corpus, scores.versions), *scores.remarks.values()]
