"""Captions files of any format: the images with their captions, and the captions to score."""

import collections
import dataclasses
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.text.annotations import SKIP, Captions, usable_captions
from spidercap.pipeline.text.coco_json import LONGEST, ImageId, in_order, reject_ids
from spidercap.pipeline.text.formats.source import Contents, Row, by_image
from spidercap.pipeline.text.formats.table import read_contents


@dataclasses.dataclass(frozen=True)
class Listed:
    """One image of a captions file."""

    image_id: ImageId  # as given; the file name where the format has no ids
    file_name: str  # path below the folder of images; '' where the format has none
    captions: tuple[str, ...]
    split: str = ""  # train, val or test where the file says so
    left_out: tuple[tuple[str, str], ...] = ()  # captions that are not used, with the reasons


class Listing(NamedTuple):
    """The images of a captions file by id, numbers before text, and what was left out."""

    images: list[Listed]
    without_captions: list[Listed]  # images that are left out, as no caption of theirs can be used
    unread: tuple[tuple[str, str], ...]  # rows that are left out: the place in the file, and the reason


def read_listing(
    path: str | os.PathLike[str], *, skip_bad_captions: bool = False, need_words: bool = True
) -> list[Listed]:
    """Returns the images of a captions file, ordered by id: numbers before text.

    The format is recognised by the content (`formats.table.FORMATS`). Ids of JSON are as written there: 16 is not "16".
    Delimited text and the keys of a JSON object have no types: ids there are numbers if all are integers, else text.

    Args:
      path: the file.
      skip_bad_captions: leave out captions that cannot or should not be used (see `usable_captions`), rows that cannot
        be read, and images without captions.
      need_words: the captions are to be trained on: each has words, and each image a caption. Otherwise they are
        references: images without any are left out, and one of which all are left out is returned with none.

    Raises:
      UserError: the file cannot be read, has another format, or ids, splits or captions cannot be used.
    """
    return read_whole_listing(path, skip_bad_captions=skip_bad_captions, need_words=need_words).images


def read_whole_listing(
    path: str | os.PathLike[str], *, skip_bad_captions: bool = False, need_words: bool = True
) -> Listing:
    """Returns what `read_listing` does, and what it leaves out."""
    path = os.fspath(path)
    contents = read_contents(path, need_words=need_words, skip_bad=skip_bad_captions)
    return _listing(path, contents, skip_bad_captions, need_words)


def read_images(path: str | os.PathLike[str]) -> list[Listed]:
    """Returns all images that a file names, ordered by id, with whatever captions they have, or none.

    Raises:
      UserError: the file cannot be read, has another format, or ids or splits cannot be used.
    """
    path = os.fspath(path)
    rows = read_contents(path).rows
    images = by_image(path, rows)
    captions: dict[ImageId, list[str]] = {i: [] for i in images}
    for row in rows:
        captions[row.image_id] += row.captions
    return [Listed(i, images[i].file_name, tuple(captions[i]), images[i].split) for i in in_order(images)]


def read_results(path: str | os.PathLike[str]) -> dict[ImageId, str]:
    """Returns the captions to score by image id, one for each image, in the order of the file.

    Raises:
      UserError: the file cannot be read, has another format, holds no captions, or several of an image, or one of over
        LONGEST characters.
    """
    path = os.fspath(path)
    return _results(path, read_contents(path, results=True))


def read_scored(
    references: str | os.PathLike[str], results: str | os.PathLike[str], *, skip_bad_captions: bool = False
) -> tuple[list[Listed], dict[ImageId, str]]:
    """Returns the references as `read_listing` and the results as `read_results`, with the ids of the references.

    Two files of JSON lists agree on an image if its ids are equal, where 16 is not "16". If one of both files has no
    types (delimited text, or the keys of a JSON object), ids are equal if their texts are. An id that is none of the
    references' is also taken for the file name of one of their images. All other ids stay as they are.

    Raises:
      UserError: one file cannot be used, two ids of the references have one text, or two results are of one image.
    """
    references, results = os.fspath(references), os.fspath(results)
    contents = read_contents(references, skip_bad=skip_bad_captions)
    listed = _listing(references, contents, skip_bad_captions, need_words=False).images
    said = read_contents(results, results=True)
    captions = _results(results, said)
    known = _by_name(references, listed, captions, by_text=not (contents.typed and said.typed))
    ids = [known.get(i, i) for i in captions]
    _reject_several(results, ids)
    return listed, dict(zip(ids, captions.values(), strict=True))


def _by_name(
    path: str, listed: Sequence[Listed], captions: Mapping[ImageId, str], *, by_text: bool
) -> dict[ImageId, ImageId]:
    """The ids of the references by the ids of the results that differ from them."""
    ids = {image.image_id for image in listed}
    files = collections.Counter(image.file_name for image in listed)
    by_file = {image.file_name: image.image_id for image in listed if image.file_name and files[image.file_name] == 1}
    known = {i: by_file[i] for i in captions if i not in ids and i in by_file}
    if by_text:
        texts = collections.Counter(map(str, ids))
        alike = in_order(i for i in ids if texts[str(i)] > 1)
        reject_ids(path, "image ids come as a number and as text", alike, "write all ids alike")
        of_text = {str(i): i for i in ids}
        known |= {i: of_text[str(i)] for i in captions if str(i) in of_text}
    return known


def _listing(path: str, contents: Contents, skip_bad: bool, need_words: bool) -> Listing:
    rows = by_image(path, contents.rows)
    captions = usable_captions(path, contents.rows, skip_bad=skip_bad, need_words=need_words)
    if not rows or not (need_words or captions):
        raise UserError(f"{path} holds no captions; at least one is needed")
    without = in_order(i for i in rows if i not in captions or not captions[i].taken) if need_words else []
    if without:
        if not skip_bad:
            reject_ids(path, "images have no caption", without, f"remove those images, or {SKIP}")
        print(f"skipping {len(without):,} of {len(rows):,} images of {path} without captions", file=sys.stderr)
        if len(without) == len(rows):
            raise UserError(f"{path}: no image has a caption that can be used; at least one is needed")
    none = Captions([], [])
    return Listing(
        [_listed(rows[i], captions[i]) for i in in_order(captions.keys() - set(without))],
        [_listed(rows[i], captions.get(i, none)) for i in without],
        contents.unread,
    )


def _listed(row: Row, captions: Captions) -> Listed:
    return Listed(row.image_id, row.file_name, tuple(captions.taken), row.split, tuple(captions.left_out))


def _results(path: str, contents: Contents) -> dict[ImageId, str]:
    entries = [(row.image_id, caption) for row in contents.rows for caption in row.captions]
    if not entries:
        raise UserError(f"{path} holds no captions; at least one is needed")
    _reject_several(path, [i for i, _ in entries])
    long = [i for i, caption in entries if len(caption) > LONGEST]
    what = f"images have a caption of over {LONGEST:,} characters"
    reject_ids(path, what, long, "shorten or remove those captions")
    return dict(entries)


def _reject_several(path: str, ids: Iterable[ImageId]) -> None:
    several = [i for i, count in collections.Counter(ids).items() if count > 1]
    reject_ids(path, "images have more than one caption", several, "leave one for each")
