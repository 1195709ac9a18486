"""The images of a captions file, checked against a folder of images."""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Mapping

from spidercap.pipeline.data.file_names import real_names
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.text.coco_json import ImageId, first, reject
from spidercap.pipeline.text.listing import read_listing


@dataclasses.dataclass(frozen=True)
class Entry:
    """One image with its captions."""

    image_id: ImageId
    file_name: str  # as on the disk, below the folder of the images
    captions: tuple[str, ...]


def read_captions(
    path: str, images: str, *, skip_bad_captions: bool = False, skip_bad_images: bool = False
) -> list[Entry]:
    """Returns the images of a captions file, ordered by id; their files are in the folder `images`.

    Args:
      path: the file, of any format that `read_listing` reads.
      images: the folder.
      skip_bad_captions: leave out captions that cannot or should not be used, and images without captions.
      skip_bad_images: leave out images whose files do not exist.

    Raises:
      UserError: the captions cannot be used, or image files are not named, outside of the folder, or missing.
    """
    if not os.path.isdir(images):
        raise UserError(f"--images={images} is not a folder; give the folder of the images")
    listed = read_listing(path, skip_bad_captions=skip_bad_captions)
    if not any(image.file_name for image in listed):
        raise UserError(f"{path} names no image files; add a column or key file_name")
    files = _files(path, {image.image_id: image.file_name for image in listed}, images, skip_bad_images)
    return [Entry(i.image_id, files[i.image_id], i.captions) for i in listed if i.image_id in files]


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
