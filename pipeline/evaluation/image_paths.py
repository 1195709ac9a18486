"""The files that --images names for captioning."""

import os
import pathlib
import sys
from collections.abc import Iterator

from spidercap.pipeline.data.image_files import FORMATS, images_below, reason_of
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.text.printable import printable

NAMED = 10  # files that are left out, in a message
LONGEST = 255  # bytes of a name
REMEDY = "name image files or folders, separated by commas"


def image_files(images: str, skip_bad_images: bool = False) -> list[pathlib.Path]:
    """Returns the files of a comma-separated list of files and folders; those of a folder are sorted by name.

    Files of a folder are taken by their contents. The others are named on stderr; hidden ones are not.

    Raises:
      UserError: a file or folder does not exist, the list is empty, or a folder holds no images; without
        `skip_bad_images` also: a folder in it cannot be read.
    """
    files: list[pathlib.Path] = []
    for path in split_paths(images):
        files += _images_of(path, skip_bad_images) if path.is_dir() else [path]
    return files


def split_paths(images: str) -> list[pathlib.Path]:
    """Returns the existing paths of a comma-separated list; commas and blanks that belong to a path stay in it.

    Raises:
      UserError: there is no way to split it so that all paths exist, or it is empty.
    """
    if images and os.path.exists(images):
        return [pathlib.Path(images)]
    parts = images.split(",")
    # By the part that comes next: the paths of the rest, or None. Longer paths are preferred.
    rest: list[list[pathlib.Path] | None] = [None] * len(parts) + [[]]
    for i in reversed(range(len(parts))):
        joined = list(_joined(parts, i))
        found = ((path, rest[end]) for path, end in reversed(joined) if rest[end] is not None)
        path, following = next(found, (None, None))
        if path is not None:
            rest[i] = [path, *following]
        elif not parts[i].strip():
            rest[i] = rest[i + 1]
    if rest[0] is None:
        raise UserError(f"--images: {_missing(parts)}; {REMEDY}")
    if not rest[0]:
        raise UserError(f"--images={printable(images)} names no files; {REMEDY}")
    return rest[0]


def _joined(parts: list[str], start: int) -> Iterator[tuple[pathlib.Path, int]]:
    """Yields the existing paths that begin with a part, shortest first, each with the part that comes next."""
    for end in range(start + 1, len(parts) + 1):
        text = ",".join(parts[start:end])
        as_written_or_stripped = dict.fromkeys((text, text.strip()))
        found = next((path for path in as_written_or_stripped if path and os.path.exists(path)), "")
        if found:
            yield pathlib.Path(found), end
        # Longer texts go on with the last name or begin in this folder, so a list of many files takes no time.
        folder, name = os.path.split(text.lstrip())
        if len(os.fsencode(name)) > LONGEST or not os.path.isdir(folder or "."):
            return


def _missing(parts: list[str]) -> str:
    """What is wrong with the first part that begins no path, as a sentence."""
    i = 0
    while i < len(parts) and (not parts[i].strip() or any(_joined(parts, i))):
        i = max([end for _, end in _joined(parts, i)], default=i + 1)
    path = parts[min(i, len(parts) - 1)].strip()
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL character
        pass
    except OSError as error:
        return f"{printable(path)} cannot be read ({reason_of(error)})"
    return f"{printable(path)} does not exist"


def _images_of(folder: pathlib.Path, skip_bad_images: bool) -> list[pathlib.Path]:
    def unreadable(error: OSError) -> None:
        message = f"--images: the folder {printable(error.filename)} cannot be read ({reason_of(error)})"
        if not skip_bad_images:
            raise UserError(f"{message}; make it readable, or leave it out with --skip_bad_images")
        print(f"warning: {message}; its files are left out", file=sys.stderr)

    images, others = images_below(folder, unreadable)
    names = [printable(file.relative_to(folder)) for file in others[:NAMED]]
    names += [f"{len(others) - NAMED} more"] * (len(others) > NAMED)
    if not images:
        among = f", but {len(others)} other files ({', '.join(names)})" if others else ""
        raise UserError(
            f"--images: the folder {printable(folder)} holds no images{among}; allowed: {FORMATS} files; "
            "name another folder"
        )
    if others:
        print(
            f"warning: {len(others)} files of {printable(folder)} are left out, because they are not {FORMATS} images: "
            f"{', '.join(names)}",
            file=sys.stderr,
        )
    return images
