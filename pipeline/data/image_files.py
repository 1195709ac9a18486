"""Image files: which files of a folder are images, and which of them can be read and decoded."""

import contextlib
import functools
import os
import pathlib
import re
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import tensorflow as tf

from spidercap.models.image_headers import ANY_SIZE, CUT_OFF, FORMATS, LARGE, read_header
from spidercap.models.images import ReadImage, read_image
from spidercap.pipeline.bars import progress_bar
from spidercap.pipeline.data.streams import ahead
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.text.coco_json import first
from spidercap.pipeline.text.printable import printable

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp")
LISTED = 100  # bad files named on stderr
MANY = 100  # files that get a progress bar
_HEAD = 32  # bytes that show the format
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # sizes of the header's kinds; "BM" alone may begin a text
# Large images that are decoded at the same time, or the memory for them would grow with the number of cores.
_large = threading.Semaphore(2)

Item, Result = TypeVar("Item"), TypeVar("Result")


def suffix_of(encoded: bytes) -> str:
    """Returns the usual suffix of an encoded image, such as '.jpg', by its first bytes; '' for other contents."""
    for magic, suffix in ((b"\xff\xd8\xff", ".jpg"), (b"\x89PNG\r\n\x1a\n", ".png"), (b"GIF8", ".gif")):
        if encoded.startswith(magic):
            return suffix
    if encoded[:2] == b"BM" and int.from_bytes(encoded[14:18], "little") in _BMP_HEADERS:
        return ".bmp"
    return ".webp" if encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP" else ""


def images_below(
    folder: pathlib.Path, unreadable: Callable[[OSError], None]
) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """Returns the images of a folder and of those in it, sorted, and the other files; hidden ones are in neither.

    A file is an image by its contents, or by its name: a damaged one is to be reported, not left out. Links to folders
    are not followed, and count as other files.

    Args:
      folder: where to begin.
      unreadable: called with the error of a folder that cannot be listed.
    """
    images, others = [], []
    for place, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        for name in (*links, *names):
            file = pathlib.Path(place, name)
            if not name.startswith("."):
                (images if _is_image(file) else others).append(file)
    return sorted(images), sorted(others)


def _is_image(file: pathlib.Path) -> bool:
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):
            return False
        if file.suffix.lower() in SUFFIXES:
            return True
        with open(file, "rb") as opened:
            return bool(suffix_of(opened.read(_HEAD)))
    except FileNotFoundError:  # a link to nothing
        return False
    except OSError:  # what it holds is not known, so it must not be left out silently
        return True


def readable_files(
    files: Sequence[pathlib.Path], skip_bad_images: bool, max_pixels: int = ANY_SIZE
) -> list[pathlib.Path]:
    """Returns the files that can be decoded; each is decoded once, with a progress bar if there are many.

    Args:
      files: image files.
      skip_bad_images: leave out the others, instead of an error.
      max_pixels: images of more pixels count as bad, and are not decoded.

    Raises:
      UserError: none can be read and decoded, or some cannot and `skip_bad_images` is False.
    """
    check = functools.partial(_file_fault, max_pixels=max_pixels)
    found = zip(files, in_threads(check, files, "checking", os.cpu_count() or 1), strict=True)
    faults = {file: fault for file, fault in found if fault}
    skip_or_reject(faults, len(files), skip_bad_images)
    return [file for file in files if file not in faults]


def skip_or_reject(faults: Mapping[pathlib.Path, str], total: int, skip_bad_images: bool) -> None:
    """Names the files that cannot be used, each with its reason, on stderr.

    Raises:
      UserError: there are such files, and `skip_bad_images` is False or they are all of the `total`.
    """
    if not faults:
        return
    bad = sorted(faults)
    lines = [f"{printable(file)} ({faults[file]})" for file in bad[:LISTED]]
    lines += [f"and {len(bad) - LISTED} more"] * (len(bad) > LISTED)
    text = f" {lines[0]}" if len(lines) == 1 else "".join(f"\n  {line}" for line in lines)
    if skip_bad_images and len(bad) < total:
        print(f"warning: skipping {len(bad)} of {total} images that cannot be decoded:{text}", file=sys.stderr)
        return
    if len(bad) > 1:
        print(f"images that cannot be decoded:{text}", file=sys.stderr)
    reason = f": {faults[bad[0]]}" if len(bad) == 1 else ""
    remedy = "replace them" if skip_bad_images else "replace them, or leave them out with --skip_bad_images"
    raise UserError(
        f"{len(bad)} of {total} images cannot be decoded ({first(bad)}){reason}; allowed: whole {FORMATS} files; "
        f"{remedy}"
    )


def _file_fault(file: pathlib.Path, max_pixels: int) -> str:
    try:
        return fault(file.read_bytes(), max_pixels)
    except OSError as error:
        return reason_of(error)


def fault(encoded: bytes, max_pixels: int = ANY_SIZE) -> str:
    """Returns why an encoded image cannot be read, such as more than `max_pixels`, without a subject; '' if it can."""
    return inspect(encoded, max_pixels)[0]


def inspect(encoded: bytes, max_pixels: int) -> tuple[str, int]:
    """Returns what `fault` returns, and width x height as the header tells; the image is decoded if it may be."""
    with decoded(tf.constant(encoded), max_pixels) as read:
        return read.fault.numpy().decode(), int(read.pixels)


@contextlib.contextmanager
def decoded(image_bytes: tf.Tensor, max_pixels: int = ANY_SIZE) -> Iterator[ReadImage]:
    """Opens a block in which an encoded image (scalar string) is decoded; large ones wait at its door for each other.

    Damage to the pixels is a fault, too.
    """
    read = _read(image_bytes, max_pixels, LARGE)
    if read.pixels <= LARGE or read.fault != "":
        yield read
    else:
        with _large:
            yield _read(image_bytes, max_pixels)


def _read(image_bytes: tf.Tensor, *limits: int) -> ReadImage:
    try:
        return read_image(image_bytes, *limits)
    except tf.errors.OpError:
        return ReadImage(tf.constant(CUT_OFF), read_header(image_bytes).pixels, tf.zeros([0, 0, 3], tf.uint8))


def reason_of(error: OSError | tf.errors.OpError) -> str:
    """Returns the reason of an error of the file system or of TensorFlow, without what only programmers can read."""
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    text = re.sub(r"^(\{\{.*?\}\} ?)+|( *\[Op:.*)", "", " ".join((error.message or "").split()))
    text = re.sub(r"^Error in user-defined function .*? with iterator: \S+ | *\[\[\{\{node .*", "", text)
    return printable(text.rstrip(". ")) or type(error).__name__


def in_threads(work: Callable[[Item], Result], items: Sequence[Item], name: str, threads: int) -> Iterator[Result]:
    """Yields work(item) for each item, in order, with a progress bar if there are many; see `ahead`."""
    with (
        progress_bar(len(items), name, "image", shown=len(items) > MANY) as bar,
        contextlib.closing(ahead(work, items, threads)) as results,
    ):
        for result in results:
            yield result
            bar.update()
