"""Finds the images of a captions file in one or several folders."""

import os
import pathlib
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from spidercap.pipeline.data.file_names import normal, real_names
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.text.coco_json import first, reject


class Place(NamedTuple):
    """Where an image lies."""

    folder: str  # one of --images
    name: str  # below that folder, as on the disk


def places_of(path: str, names: Iterable[str], folders: Sequence[str], skip_missing: bool) -> dict[str, Place]:
    """Returns the place of each file name of the captions file at `path`.

    A name is looked up below each folder as it is written. Names that are nowhere are searched for in all sub-folders
    by their last part, and taken if one file fits best: the one that shares the most parts with the name.

    Args:
      path: the captions file, for messages.
      names: file names or paths, as written.
      folders: the folders of --images.
      skip_missing: leave out names without a file, unless all are.

    Raises:
      UserError: a name leads out of the folders, or fits no file, or several.
    """
    names = list(dict.fromkeys(names))
    shown = ",".join(folders)
    absolute = [n for n in names if os.path.isabs(n)]
    reject(path, "file names are absolute paths", absolute, f"give paths below --images={shown}")
    outside = [n for n in names if ".." in pathlib.PurePath(n).parts]
    reject(path, f"file names are outside of --images={shown}", outside, "give paths below that folder")
    places: dict[str, list[Place]] = defaultdict(list)
    for folder in folders:
        for name, real in real_names(names, folder).items():
            places[name].append(Place(folder, real))
    rest = [name for name in names if name not in places]
    if rest:
        found = _searched(rest, folders)
        if found:
            print(
                f"data: {path}: {len(found):,} of {len(names):,} images are found by name in sub-folders",
                file=sys.stderr,
            )
        places |= found
    several = [
        name for name, of_name in places.items() if len({os.path.realpath(os.path.join(*p)) for p in of_name}) > 1
    ]
    reject(path, f"file names fit several files in --images={shown}", several, "write their paths below that folder")
    missing = [name for name in names if name not in places]
    if missing and not (skip_missing and places):
        remedy = "put them there, or name another folder"
        remedy += "" if skip_missing else ", or leave them out with --skip_bad_images"
        reject(path, f"images are not in --images={shown}", missing, remedy)
    if missing:
        print(
            f"skipping {len(missing):,} of {len(names):,} images of {path} that are not in {shown}: {first(missing)}",
            file=sys.stderr,
        )
    return {name: of_name[0] for name, of_name in places.items()}


def split_folders(images: str) -> list[str]:
    """Returns the folders of a comma-separated list; one whose own name holds commas is a folder, too.

    Raises:
      UserError: one is not a folder.
    """
    folders = [images] if os.path.isdir(images) else [part.strip() for part in images.split(",") if part.strip()]
    wrong = [folder for folder in folders if not os.path.isdir(folder)]
    if wrong or not folders:
        raise UserError(
            f"--images={wrong[0] if wrong else images} is not a folder; give the folder of the images, or several "
            "separated by commas"
        )
    return folders


def _searched(names: Sequence[str], folders: Sequence[str]) -> dict[str, list[Place]]:
    """The files in sub-folders that share the most last parts with each name."""
    wanted = {normal(pathlib.PurePath(name).name) for name in names}
    by_name: dict[str, list[Place]] = defaultdict(list)
    for folder in folders:
        for place, below, files in os.walk(folder):
            below[:] = sorted(name for name in below if not name.startswith("."))
            for file in files:
                if normal(file) in wanted:
                    by_name[normal(file)].append(Place(folder, os.path.relpath(os.path.join(place, file), folder)))
    found = {}
    for name in names:
        fitting = by_name.get(normal(pathlib.PurePath(name).name), ())
        shared = [_shared_parts(name, os.path.join(*place)) for place in fitting]
        if fitting:
            found[name] = [place for place, count in zip(fitting, shared, strict=True) if count == max(shared)]
    return found


def _shared_parts(name: str, path: str) -> int:
    """How many last parts of two paths are equal."""
    pairs = zip(reversed(pathlib.PurePath(name).parts), reversed(pathlib.PurePath(path).parts), strict=False)
    count = 0
    for one, other in pairs:
        if normal(one) != normal(other):
            break
        count += 1
    return count
