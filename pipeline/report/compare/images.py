"""The images of a comparison: their references, and random choices of them."""

import dataclasses
import random
from collections.abc import Collection

from spidercap.pipeline.text.coco_json import ImageId, in_order, reject_ids
from spidercap.pipeline.text.listing import Listed, read_listing


@dataclasses.dataclass(frozen=True)
class ListedImage:
    """An image's id, file name and references."""

    image_id: ImageId
    file_name: str
    references: tuple[str, ...]


def read_images(path: str, image_ids: Collection[ImageId]) -> dict[ImageId, ListedImage]:
    """Returns the images of a captions file by id; it must hold `image_ids`.

    Raises:
      UserError: the file cannot be read, or lacks an image or its references.
    """
    images = {i.image_id: ListedImage(i.image_id, i.file_name, i.captions) for i in _named(path)}
    unknown = in_order(i for i in image_ids if i not in images)
    remedy = "name the captions file on which the runs were scored"
    reject_ids(path, "images of the runs have no references", unknown, remedy, images)
    return images


def _named(path: str) -> list[Listed]:
    """The images that have a file."""
    return [image for image in read_listing(path, need_words=False) if image.file_name]


def drawn_ids(image_ids: Collection[ImageId], count: int) -> list[ImageId]:
    """Returns `count` of the ids, or all if there are fewer: always the same ones, whatever their order."""
    return random.Random(0).sample(in_order(image_ids), min(count, len(image_ids)))
