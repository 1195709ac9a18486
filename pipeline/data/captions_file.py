"""The images and captions of a COCO-format JSON file, checked against a folder of images."""

import collections
import dataclasses
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from spidercap.pipeline.data.file_names import real_names
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.text.annotations import SKIP, read_annotations
from spidercap.pipeline.text.coco_json import ID, TEXT, ImageId, first, in_order, read_json, reject, reject_ids, rows

NEEDED = '{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}'


@dataclasses.dataclass(frozen=True)
class Entry:
    """One image with its captions."""

    image_id: ImageId
    file_name: str  # as on the disk, below the folder of the images
    captions: tuple[str, ...]


def read_captions(
    path: str, images: str, *, skip_bad_captions: bool = False, skip_bad_images: bool = False
) -> list[Entry]:
    """Returns the images of a COCO-format JSON file, ordered by id; their files are in the folder `images`.

    Args:
      path: the file.
      images: the folder.
      skip_bad_captions: leave out captions that cannot or should not be used (see `read_annotations`), and images
        without captions.
      skip_bad_images: leave out images whose files do not exist.

    Raises:
      UserError: the file is not JSON, keys or types are wrong, or ids, captions or files cannot be used.
    """
    if not os.path.isdir(images):
        raise UserError(f"--images={images} is not a folder; give the folder of the images")
    content = read_json(path, "a COCO captions file")
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a COCO captions file, because it is not a JSON object; needed: {NEEDED}")
    names = _listed_images(path, content)
    captions = read_annotations(path, content, TEXT, NEEDED, skip_bad=skip_bad_captions, need_words=True)
    without = in_order(i for i in names if not captions.get(i))
    unlisted = in_order(captions.keys() - names.keys())
    remedy = "add those images, or remove those annotations"
    reject_ids(path, "annotated image ids are not in 'images'", unlisted, remedy, names)
    if not skip_bad_captions:
        reject_ids(path, "images have no caption", without, f"remove those images, or {SKIP}")
    elif without:
        print(f"skipping {len(without):,} of {len(names):,} images of {path} without captions", file=sys.stderr)
    files = _files(path, {i: n for i, n in names.items() if captions.get(i)}, images, skip_bad_images)
    if not files:
        raise UserError(f"{path}: no image has a caption that can be used; at least one is needed")
    return [Entry(i, files[i], tuple(captions[i])) for i in in_order(files)]


def _listed_images(path: str, content: Mapping[str, Any]) -> dict[ImageId, str]:
    """The file names by image id; merged files list images twice, which is told."""
    listed = rows(path, content.get("images"), "images", {"id": ID, "file_name": TEXT}, NEEDED)
    if not listed:
        raise UserError(f"{path} lists no images; at least one is needed")
    distinct = list(dict.fromkeys(listed))
    counts = collections.Counter(i for i, _ in distinct)
    twice = [i for i, count in counts.items() if count > 1]
    reject_ids(path, "image ids come twice with different files", twice, "give each image its own id")
    if len(distinct) < len(listed):
        repeated = len(listed) - len(distinct)
        print(f"data: {path}: {repeated:,} of {len(listed):,} rows of images are repeated, taken once", file=sys.stderr)
    return dict(distinct)


def _files(path: str, names: Mapping[ImageId, str], images: str, skip_missing: bool) -> dict[ImageId, str]:
    """The names on the disk by image id."""
    outside = [n for n in names.values() if os.path.isabs(n) or ".." in pathlib.PurePath(n).parts]
    reject(path, f"file names are outside of --images={images}", outside, "give paths below that folder")
    real = real_names(names.values(), images)
    missing = [n for n in names.values() if n not in real]
    if missing and not (skip_missing and real):
        remedy = "put them there, or name another folder"
        remedy += "" if skip_missing else ", or leave them out with --skip_bad_images"
        reject(path, f"images are not in --images={images}", missing, remedy)
    if missing:
        print(
            f"skipping {len(missing):,} of {len(names):,} images of {path} that are not in {images}: {first(missing)}",
            file=sys.stderr,
        )
    return {i: real[n] for i, n in names.items() if n in real}
