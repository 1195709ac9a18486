"""What the readers of formats share: the file that is read, and the rows that they make of it."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from spidercap.pipeline.text.coco_json import ANY_TEXT, TEXT, ImageId, Kind, reject_ids


@dataclasses.dataclass(frozen=True)
class Source:
    """A captions file that is text, and how it is to be read."""

    path: str
    text: str
    content: Any = None  # of JSON; of JSON lines the list of their contents
    lines: tuple[int, ...] = ()  # the line numbers of JSON lines
    need_words: bool = True  # the captions are to be trained on
    skip_bad: bool = False  # leave out what cannot be used
    results: bool = False  # captions to score, of which none is left out

    @property
    def caption(self) -> Kind:
        """The check of a caption: the caption evaluation takes halves of characters, training does not."""
        return TEXT if self.need_words else ANY_TEXT


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """What one place of a file says of an image; a file may have several rows of one image."""

    image_id: ImageId
    file_name: str = ""
    captions: tuple[str, ...] = ()
    split: str = ""
    marked: bool = False  # as not to be used


@dataclasses.dataclass(frozen=True)
class Contents:
    """The rows of a captions file, in its order."""

    rows: tuple[Row, ...]
    typed: bool  # the file tells the id 16 from the id "16"
    unread: tuple[tuple[str, str], ...] = ()  # what was left out as it cannot be read: the place, and the reason


def by_image(path: str, rows: Iterable[Row]) -> dict[ImageId, Row]:
    """Returns the first row of each image.

    Raises:
      UserError: another row of it names another file or split.
    """
    images: dict[ImageId, Row] = {}
    files, splits = {}, {}
    for row in rows:
        image = images.setdefault(row.image_id, row)
        if row.file_name != image.file_name:
            files[row.image_id] = None
        elif row.split != image.split:
            splits[row.image_id] = None
    reject_ids(path, "image ids come twice with different files", files, "give each image its own id")
    reject_ids(path, "images are in several splits", splits, "put each image into one")
    return images
