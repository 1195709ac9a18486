"""Captions of your own images: a COCO-format JSON file, checked against a folder of images."""

import collections
import dataclasses
import os
import pathlib

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.text.coco_json import ID, TEXT, read_json, reject, rows

NEEDED = '{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}'


@dataclasses.dataclass(frozen=True)
class Entry:
    """One image with its captions."""

    image_id: int
    file_name: str
    captions: tuple[str, ...]


def read_captions(path: str, images: str) -> list[Entry]:
    """Returns the images of a COCO-format JSON file, ordered by id; their files are in the folder `images`.

    Raises:
      UserError: the file is not JSON, keys or types are wrong, ids come twice, files are missing, captions have no
        words, or images have no captions.
    """
    if not os.path.isdir(images):
        raise UserError(f"--images={images} is not a folder; give the folder of the images")
    content = read_json(path, "a COCO captions file")
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a COCO captions file, because it is not a JSON object; needed: {NEEDED}")
    listed = rows(path, content.get("images"), "images", {"id": ID, "file_name": TEXT}, NEEDED)
    if not listed:
        raise UserError(f"{path} lists no images; at least one is needed")
    names = dict(listed)
    counts = collections.Counter(i for i, _ in listed)
    reject(path, "image ids come twice", [i for i, n in counts.items() if n > 1], "give each image its own id")
    captions: dict[int, list[str]] = {}
    for i, caption in rows(path, content.get("annotations"), "annotations", {"image_id": ID, "caption": TEXT}, NEEDED):
        captions.setdefault(i, []).append(caption)
    empty = [i for i, texts in captions.items() if not all(any(c.isalnum() for c in t) for t in texts)]
    reject(path, "images have a caption without words", empty, "fix or remove those annotations")
    reject(path, "images have no caption", sorted(names.keys() - captions.keys()), "remove those images")
    reject(path, "annotated image ids are not in 'images'", sorted(captions.keys() - names.keys()), "add those images")
    outside = [n for n in names.values() if os.path.isabs(n) or ".." in pathlib.PurePath(n).parts]
    reject(path, f"file names are outside of --images={images}", outside, "give paths below that folder")
    missing = [n for n in names.values() if not os.path.isfile(os.path.join(images, n))]
    reject(path, f"images are not in --images={images}", missing, "put them there, or name another folder")
    return [Entry(i, names[i], tuple(captions[i])) for i in sorted(names)]
