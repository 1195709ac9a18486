"""Scores a results file against its references, both in COCO's format, like the COCO caption evaluation."""

import json
import pathlib

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.evaluation.scoring import LONGEST, Captioned, score_captioned
from spidercap.pipeline.evaluation.table import table
from spidercap.pipeline.files import check_output, write_text
from spidercap.pipeline.metrics.registry import remarks
from spidercap.pipeline.metrics.scores import Scores
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.text.coco_json import ANY_TEXT, ID, read_json, reject, rows

REFERENCES = '{"annotations": [{"image_id", "caption"}]}'
RESULTS = '[{"image_id", "caption"}]'


def score_files(config: Config) -> Scores:
    """Returns the scores of --results against --references; prints them and writes them to --output.

    Raises:
      UserError: a file has another format, results and references do not match, or Java or CoreNLP is missing.
    """
    if config.metrics.output:
        check_output("output", config.metrics.output, read=(config.metrics.references, config.metrics.results))
    captioned = read_captioned(config.metrics.references, config.metrics.results)
    captioned, scores = score_captioned(captioned, config.terms(), config.metrics.for_workers(), progress=True)
    for line in _lines(scores, len(captioned.captions)):
        print(line)
    if config.metrics.output:
        by_id = {str(i): image for i, image in zip(captioned.image_ids, scores.images, strict=True)}
        content = {"corpus": scores.corpus, "images": by_id}
        write_text(pathlib.Path(config.metrics.output), json.dumps(content, indent=1) + "\n")
        print(f"scores: {config.metrics.output}")
    return scores


def read_captioned(references: str, results: str) -> Captioned:
    """Returns the captions of the results file with the references of their images.

    Raises:
      UserError: a file has another format, a result is of an unknown image, or an image has two results.
    """
    content = read_json(references, "a COCO captions file")
    if not isinstance(content, dict):
        raise UserError(
            f"{references} is not a COCO captions file, because it is not a JSON object; needed: {REFERENCES}"
        )
    columns = {"image_id": ID, "caption": ANY_TEXT}
    of_image: dict[int, list[str]] = {}
    for image_id, caption in rows(references, content.get("annotations"), "annotations", columns, REFERENCES):
        of_image.setdefault(image_id, []).append(caption)
    listed = content.get("images")
    order = [i for (i,) in rows(references, listed, "images", {"id": ID}, REFERENCES)] if listed is not None else []
    listed = read_json(results, "a COCO results file")
    if not isinstance(listed, list):
        raise UserError(f"{results} is not a COCO results file, because it is not a JSON list; needed: {RESULTS}")
    entries = rows(results, listed, "results", columns, RESULTS)
    if not entries:
        raise UserError(f"{results} holds no captions; at least one is needed")
    captions = dict(entries)
    seen: set[int] = set()
    twice = [i for i, _ in entries if i in seen or seen.add(i)]
    reject(results, "images have more than one caption", twice, "leave one for each image")
    unknown = [i for i in captions if i not in of_image]
    reject(
        results, "images have no references", unknown, f"score against the references of these images ({references})"
    )
    for path, texts in ((references, of_image), (results, {i: [c] for i, c in entries})):
        long = [i for i, of in texts.items() if any(len(c) > LONGEST for c in of)]
        reject(path, f"images have a caption of over {LONGEST:,} characters", long, "shorten or remove those captions")
    if len(captions) < len(of_image):
        print(f"{len(captions):,} of {len(of_image):,} images with references have a caption; only those are scored")
    image_ids = tuple(i for i in dict.fromkeys([*order, *of_image]) if i in captions)
    return Captioned(image_ids, tuple(captions[i] for i in image_ids), tuple(tuple(of_image[i]) for i in image_ids))


def _lines(scores: Scores, images: int) -> list[str]:
    """The table, then SPICE's parts and remarks."""
    corpus = scores.corpus
    parts = {name: score for name, score in corpus.items() if name.startswith("SPICE ")}
    lines = [table({f"{images:,} images": {name: s for name, s in corpus.items() if name not in parts}})]
    if parts:
        shown = ", ".join(f"{n.removeprefix('SPICE ')} {'-' if s is None else f'{s:.3f}'}" for n, s in parts.items())
        lines.append(f"SPICE by part: {shown}")
    return [*lines, *remarks(corpus), *scores.remarks.values()]
