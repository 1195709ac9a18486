"""Folders of images and captions files, as users have them, and how they are read."""

import dataclasses
import json

from spidercap.pipeline.data.image_places import places_of, split_folders
from spidercap.pipeline.text.listing import read_listing


def write(path, content):
    """Writes bytes, or anything else as JSON; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def coco(names):
    """Returns COCO-format content for {image id: file name}, two captions each."""
    return {
        "images": [{"id": i, "file_name": name} for i, name in names.items()],
        "annotations": [{"image_id": i, "caption": f"Caption {k} of {i}."} for i in names for k in (1, 2)],
    }


def read_captions(path, images, skip_bad_captions=False, skip_bad_images=False):
    """Returns the images of a captions file that are in a folder, with their names on the disk."""
    rows = read_listing(path, skip_bad_captions=skip_bad_captions, need_words=True)
    places = places_of(path, [row.file_name for row in rows], split_folders(images), skip_bad_images)
    return [dataclasses.replace(r, file_name=places[r.file_name].name) for r in rows if r.file_name in places]
