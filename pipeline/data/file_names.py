"""Finds files whose names are written in another Unicode normalisation than on the disk."""

import collections
import functools
import os
import pathlib
import unicodedata
from collections.abc import Iterable

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.text.coco_json import first


def real_names(names: Iterable[str], folder: str) -> dict[str, str]:
    """Returns name -> name on the disk, below `folder`, of the files that exist.

    A name that is not found is compared after normalisation: archives made on macOS hold decomposed names (e and an
    accent), where a list of files mostly holds composed ones (é). Folders are listed only then, each once.

    Raises:
      UserError: a name fits several files.
    """

    @functools.cache
    def listed(below: str) -> dict[str, list[str]]:
        found = collections.defaultdict(list)
        try:
            for name in os.listdir(os.path.join(folder, below)):
                found[normal(name)].append(name)
        except OSError:  # not a folder, or one that may not be read
            pass
        return found

    found = {}
    several = []
    for name in dict.fromkeys(names):
        if os.path.isfile(os.path.join(folder, name)):
            found[name] = name
            continue
        fitting = [""]
        for part in pathlib.PurePath(name).parts:
            fitting = [os.path.join(below, real) for below in fitting for real in listed(below).get(normal(part), ())]
        fitting = [real for real in fitting if os.path.isfile(os.path.join(folder, real))]
        if len(fitting) > 1:
            several.append(name)
        elif fitting:
            found[name] = fitting[0]
    if several:
        raise UserError(
            f"{len(several)} file names fit several files in {folder} ({first(several)}), whose names differ only in "
            "Unicode normalisation (é as one character, or as e and an accent); write them as on the disk"
        )
    return found


def normal(name: str) -> str:
    """Returns a name in the normalisation in which names are compared."""
    return unicodedata.normalize("NFC", name)
