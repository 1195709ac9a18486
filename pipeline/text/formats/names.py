"""The names that columns and keys of captions files may have, and those of splits."""

import collections
import dataclasses
import re
from collections.abc import Iterable, Sequence

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.text.coco_json import ImageId, reject
from spidercap.pipeline.text.printable import printable

# In the order in which they are taken, if a file has several.
IDS = ("image_id", "imageid", "img_id", "imgid", "cocoid", "id")
FILES = (
    *("file_name", "filename", "image", "image_name", "image_file", "image_path"),
    *("file", "file_path", "filepath", "path", "img"),
)
CAPTIONS = ("caption", "captions", "comment", "comments", "sentence", "sentences", "raw", "text", "description")
SPLIT = "split"
MARKS = ("is_rejected", "is_precanned")  # of VizWiz: not to be used, and "the image is too bad to be described"
SPLITS = {
    **dict.fromkeys(("train", "training", "restval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_SHOWN = 12  # columns named in a message
_NUMBERED = re.compile(r"(caption|comment|sentence|text|description)s?_?[0-9]+")
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")  # as Python writes it, so that "007" stays text


@dataclasses.dataclass(frozen=True)
class Columns:
    """The names, as given, of the columns that are read; '' where there is none."""

    image_id: str
    file_name: str
    captions: tuple[str, ...]
    numbered: bool  # caption_1, caption_2, ...: images may have fewer
    split: str

    @property
    def image(self) -> str:
        """The column that tells images apart."""
        return self.image_id or self.file_name


def find_columns(path: str, given: Sequence[str]) -> Columns:
    """Returns which of the `given` columns hold what; letter case and blanks do not matter.

    Raises:
      UserError: there are no images or no captions among them, or one that is read comes twice.
    """
    folded = [_folded(name) for name in given]
    of_folded = dict(zip(reversed(folded), reversed(given), strict=True))
    plain = next((name for name in CAPTIONS if name in of_folded), "")
    numbered = [name for name in folded if _NUMBERED.fullmatch(name)]
    image_id, file_name = (next((name for name in names if name in of_folded), "") for names in (IDS, FILES))
    captions = (plain,) if plain else tuple(dict.fromkeys(numbered))
    if not captions or not (image_id or file_name):
        lacking = " and ".join(
            f"no {what} ({', '.join(names)}{more})"
            for what, names, there, more in (
                ("images", (*FILES, *IDS), image_id or file_name, ""),
                ("captions", CAPTIONS, captions, ", or numbered: caption_1, caption_2, ..."),
            )
            if not there
        )
        came = ", ".join(printable(name)[:40] for name in given[:_SHOWN]) + ", ..." * (len(given) > _SHOWN)
        raise UserError(f"{path}: among its columns ({came}) are {lacking}; name the columns so, in the first line")
    split = SPLIT if SPLIT in of_folded else ""
    read = [name for name in (image_id, file_name, *captions, split) if name]
    counts = collections.Counter(folded)
    reject(path, "columns come twice", [name for name in read if counts[name] > 1], "leave one of each")
    image_id, file_name, split = (of_folded.get(name, "") for name in (image_id, file_name, split))
    return Columns(image_id, file_name, tuple(of_folded[name] for name in captions), not plain, split)


def check_ids(path: str, columns: Columns, images: Iterable[tuple[ImageId, str]]) -> None:
    """Raises UserError if a column 'id' beside file names numbers the captions rather than the images."""
    if _folded(columns.image_id) != "id" or not columns.file_name:
        return
    ids: dict[str, ImageId] = {}
    several = dict.fromkeys(file for i, file in images if ids.setdefault(file, i) != i)
    what = f"images have several ids in the column {columns.image_id!r}"
    reject(path, what, list(several), "if it numbers captions, name it caption_id; else give each image one id")


def is_image(name: str) -> bool:
    """Returns whether a column of this name holds images."""
    return _folded(name) in (*IDS, *FILES)


def is_caption(name: str) -> bool:
    """Returns whether a column of this name holds captions."""
    return _folded(name) in CAPTIONS or _NUMBERED.fullmatch(_folded(name)) is not None


def is_marked(entry: dict) -> bool:
    """Returns whether a row is marked as not to be used."""
    return any(mark in entry and str(entry[mark]).strip().lower() == "true" for mark in MARKS)


def split_of(path: str, place: str, name: str) -> str:
    """Returns train, val or test for the name of a split; raises UserError, naming the place, for any other."""
    split = SPLITS.get(name.strip().lower())
    if split is None:
        raise UserError(
            f"{path}: the split of {place} is {printable(name)[:60]!r}; allowed: {', '.join(SPLITS)}; rename it, or "
            "leave its images out"
        )
    return split


def without_types(ids: Sequence[str]) -> list[ImageId]:
    """Returns ids of a file that knows text alone: numbers if all are integers, else text."""
    return [int(i) for i in ids] if all(map(_INTEGER.fullmatch, ids)) else list(ids)


def _folded(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().lower())
