"""The workdirs of --workdirs: a folder each, with a label and a stage where they are given."""

import os
import pathlib
import re
from typing import NamedTuple

from spidercap.pipeline.errors import UserError

EXAMPLE = "--workdirs=runs/mle_0,runs/pg_0"


class Place(NamedTuple):
    """One entry of --workdirs."""

    label: str  # '' if none is given
    workdir: pathlib.Path
    stage: str  # '': the last stage that trains the captioner


def parse_places(text: str) -> list[Place]:
    """Returns the entries of '[label=]workdir[:stage],...'.

    An entry that is a folder is one, whatever signs its name holds. The last = ends a label, which may contain others.

    Raises:
      UserError: there are fewer than two, or one comes twice.
    """
    if "\0" in text:
        raise UserError(f"--workdirs={text!r} holds a zero byte; name folders, for example {EXAMPLE}")
    found = [_place(part.strip()) for part in text.split(",") if part.strip()]
    if len(found) < 2:
        raise UserError(
            f"--workdirs={text} names {len(found)} of the two or more runs to compare; for example {EXAMPLE}"
        )
    keys = [(os.path.realpath(place.workdir), place.stage) for place in found]
    twice = [place for place, key in zip(found, keys, strict=True) if keys.count(key) > 1]
    if twice:
        raise UserError(f"--workdirs has {twice[0].workdir} twice; name each run once")
    return found


def common_name(workdirs: list[pathlib.Path]) -> str:
    """Returns what the names of folders begin with, without the number of a seed: 'pg' of pg_0 and pg_1."""
    names = [pathlib.Path(os.path.realpath(workdir)).name for workdir in workdirs]
    common = names[0]
    while not all(name.startswith(common) for name in names):
        common = common[:-1]
    return (re.sub(r"[-_.](seed|s)?\d*$", "", common) if len(names) > 1 else common) or names[0]


def _place(entry: str) -> Place:
    if pathlib.Path(entry).is_dir():
        return Place("", pathlib.Path(entry), "")
    label, _, rest = entry.rpartition("=")
    folder, colon, stage = rest.rpartition(":")
    if not colon or pathlib.Path(rest).is_dir():
        return Place(label.strip(), pathlib.Path(rest.strip()), "")
    return Place(label.strip(), pathlib.Path(folder.strip()), stage.strip())
