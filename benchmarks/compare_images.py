"""The validation images of a comparison: their references, random choices of them, and captions side by side."""

import dataclasses
import random
from collections.abc import Collection, Mapping, Sequence

from benchmarks.compare_runs import Rows
from benchmarks.compare_table import in_cell
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.text.coco_json import ImageId, in_order, reject_ids
from spidercap.pipeline.text.listing import Listed, read_listing


@dataclasses.dataclass(frozen=True)
class ValidationImage:
    """An image's id, file name and references."""

    image_id: ImageId
    file_name: str
    references: tuple[str, ...]


def read_images(path: str, image_ids: Collection[ImageId]) -> dict[ImageId, ValidationImage]:
    """Returns the images of a captions file by id; it must hold `image_ids`.

    Raises:
      UserError: the file cannot be read, or lacks an image or its references.
    """
    images = {i.image_id: ValidationImage(i.image_id, i.file_name, i.captions) for i in _named(path)}
    unknown = in_order(i for i in image_ids if i not in images)
    remedy = "name the captions file on which the runs were validated"
    reject_ids(path, "validation images of the runs have no references", unknown, remedy, images)
    return images


def _named(path: str) -> list[Listed]:
    """The images that have a file."""
    return [image for image in read_listing(path, need_words=False) if image.file_name]


def drawn_ids(image_ids: Collection[ImageId], flag: str, count: int, seed: int) -> list[ImageId]:
    """Returns `count` of the ids, drawn by the seed independently of their order.

    Raises:
      UserError: there are fewer; the message names `flag`.
    """
    if count > len(image_ids):
        raise UserError(f"--{flag}={count}, but the runs have {len(image_ids)} validation images; lower it")
    return random.Random(seed).sample(in_order(image_ids), count)


def side_by_side(runs: Rows, validation_images: Mapping[ImageId, ValidationImage], image_ids: Sequence[ImageId]) -> str:
    """Returns the captions of some images as a Markdown table: name, first reference, one column per label.

    A label's captions are those of its first run.
    """
    lines = [["image", "a reference", *map(in_cell, runs)], ["---"] * (2 + len(runs))]
    for image_id in image_ids:
        image = validation_images[image_id]
        captions = [of_label[0].captions[image_id] for of_label in runs.values()]
        lines.append([in_cell(cell) for cell in (image.file_name, image.references[0], *captions)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
