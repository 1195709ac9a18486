"""SHA-256 of the images of a folder, kept in the cache, so that only files that changed are read again."""

import hashlib
import json
import os
import pathlib
import sys
import time
from collections.abc import Iterable
from typing import NamedTuple

from spidercap.pipeline import digests
from spidercap.pipeline.data.image_files import in_threads, reason_of
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import write_text

THREADS = 16  # that read; on network disks each of them waits
# Nanoseconds. A file that changed this shortly before it was read may change again within one tick of its clock, which
# its times would not show; it is read again next time.
SETTLED = 2 * 10**9


class _Read(NamedTuple):
    """What came of reading a file."""

    digest: str  # '' if it cannot be read
    fault: str  # why; else ''
    status: list[int]  # [] if the digest may be outdated already


class ImageDigests:
    """The digests of a folder's images.

    The index is a JSON file {name: [size, mtime, ctime, inode, digest]}. Of several runs that write it, the last one
    wins; what it lacks, or a damaged index, is read again.
    """

    def __init__(self, images: str | os.PathLike, cache: pathlib.Path):
        """Reads the index of the folder `images` from the cache folder."""
        self._images = images
        name = hashlib.sha256(os.fsencode(os.path.abspath(images))).hexdigest()[:12]
        self._path = cache / "images" / f"{name}.json"
        self._known = {} if digests.fault(self._path) else json.loads(self._path.read_text(encoding="utf-8"))
        self._changed = False

    def find(self, names: Iterable[str]) -> tuple[dict[str, str], dict[pathlib.Path, str]]:
        """Returns digests by name, '' for files that cannot be read, and the reasons by path.

        Files are read in threads, with a progress bar if there are many.
        """
        found = {name: self._unchanged(name) for name in names}
        changed, faults = [name for name, digest in found.items() if not digest], {}
        try:
            for name, read in zip(changed, in_threads(self._read, changed, "reading", THREADS), strict=True):
                found[name] = read.digest
                if read.fault:
                    faults[self._file(name)] = read.fault
                if read.status:
                    self._known[name] = [*read.status, read.digest]
                    self._changed = True
        except BaseException:  # Ctrl-C; reading may have taken long
            self.save()
            raise
        return found, faults

    def save(self) -> None:
        """Writes the index if it changed; without it, the next run reads all files again."""
        if self._changed:
            try:
                write_text(self._path, json.dumps(self._known) + "\n")
                digests.record(self._path.parent, [self._path.name])
            except (UserError, OSError) as error:
                print(f"warning: {error}; the next run reads all images again", file=sys.stderr)
            self._changed = False

    def _file(self, name: str) -> pathlib.Path:
        return pathlib.Path(self._images, name)

    def _unchanged(self, name: str) -> str:
        """The digest in the index, or '' if the file is unknown, changed or lost."""
        *status, digest = self._known.get(name, [""])
        try:
            return digest if digest and status == _status(os.stat(self._file(name))) else ""
        except OSError:
            return ""

    def _read(self, name: str) -> _Read:
        began = time.time_ns()
        try:
            with open(self._file(name), "rb") as file:
                before = os.fstat(file.fileno())
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                settled = _status(before) == _status(os.fstat(file.fileno()))
        except OSError as error:
            return _Read("", reason_of(error), [])
        settled = settled and max(before.st_mtime_ns, before.st_ctime_ns) < began - SETTLED
        return _Read(digest, "", _status(before) if settled else [])


def _status(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
