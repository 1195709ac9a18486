"""What is known of the images of a folder, kept in the cache, so that only files that changed are read again."""

import hashlib
import json
import os
import pathlib
import sys
import time
from collections.abc import Iterable
from typing import NamedTuple

from spidercap.pipeline import digests
from spidercap.pipeline.data.image_files import in_threads, inspect, reason_of
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import write_text

# Nanoseconds. A file that changed this shortly before it was read may change again within one tick of its clock, which
# its times would not show; it is read again next time.
SETTLED = 2 * 10**9
_STATUS = 4  # numbers that change with a file
THREADS = 16  # that read and decode; on network disks each of them waits


class Checked(NamedTuple):
    """What came of reading an image."""

    digest: str  # SHA-256 in hex digits; '' if the file cannot be read
    fault: str  # why it cannot be used; '' if it can
    pixels: int  # width x height, 0 if unknown


class ImageIndex:
    """The images of a folder: their digests, and whether they can be decoded.

    The index is a JSON file {name: [size, mtime, ctime, inode, digest, fault, pixels]}. Of several runs that write it,
    the last one wins; what it lacks, or a damaged index, is read again.
    """

    def __init__(self, folder: str | os.PathLike, cache: pathlib.Path):
        """Reads the index of the folder of images from the cache folder."""
        self._folder = folder
        name = hashlib.sha256(os.fsencode(os.path.abspath(folder))).hexdigest()[:12]
        self._path = cache / "images" / f"{name}.json"
        known = {} if digests.fault(self._path) else json.loads(self._path.read_text(encoding="utf-8"))
        self._known = {name: row for name, row in known.items() if len(row) == _STATUS + len(Checked._fields)}
        self._changed = False

    def check(self, names: Iterable[str], max_pixels: int) -> dict[str, Checked]:
        """Returns what is known of each file; those that are new or changed are read, hashed and decoded.

        Files are read in threads, with a progress bar if there are many. Images of more than `max_pixels` are not
        decoded. The index is written at the end, and if the work is stopped.
        """
        found = {name: self._unchanged(name, max_pixels) for name in names}
        changed = [name for name, known in found.items() if known is None]
        try:
            read = in_threads(lambda name: self._read(name, max_pixels), changed, "checking images", THREADS)
            for name, (checked, status) in zip(changed, read, strict=True):
                found[name] = checked
                if status:
                    self._known[name] = [*status, *checked]
                    self._changed = True
        finally:  # also at Ctrl-C; reading may have taken long
            self.save()
        return found

    def save(self) -> None:
        """Writes the index if it changed; without it, the next run reads all files again."""
        if self._changed:
            try:
                write_text(self._path, json.dumps(self._known) + "\n")
                digests.record(self._path.parent, [self._path.name])
            except (UserError, OSError) as error:
                print(f"warning: {error}; the next run reads all images again", file=sys.stderr)
            self._changed = False

    def _unchanged(self, name: str, max_pixels: int) -> Checked | None:
        """What the index knows; None if the file is unknown, changed or lost, or was rejected for another limit."""
        row = self._known.get(name)
        try:
            if not row or row[:_STATUS] != status_of(os.stat(os.path.join(self._folder, name))):
                return None
        except (OSError, ValueError):
            return None
        known = Checked(*row[_STATUS:])
        was_large = known.fault and known.pixels
        return None if known.pixels > max_pixels or was_large else known

    def _read(self, name: str, max_pixels: int) -> tuple[Checked, list[int]]:
        """What the file holds, and its status; none if that may be outdated already."""
        began = time.time_ns()
        try:
            with open(os.path.join(self._folder, name), "rb") as file:
                before = os.fstat(file.fileno())
                encoded = file.read()
                settled = status_of(before) == status_of(os.fstat(file.fileno()))
        except OSError as error:
            return Checked("", reason_of(error), 0), []
        checked = check(encoded, max_pixels)
        settled = settled and max(before.st_mtime_ns, before.st_ctime_ns) < began - SETTLED
        return checked, status_of(before) if settled else []


def check(encoded: bytes, max_pixels: int) -> Checked:
    """Returns what is known of an encoded image, which is decoded unless it has more than `max_pixels`."""
    return Checked(hashlib.sha256(encoded).hexdigest(), *inspect(encoded, max_pixels))


def status_of(status: os.stat_result) -> list[int]:
    """Returns numbers that change with a file."""
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
