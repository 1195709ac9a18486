"""Digests of image files, kept in the cache folder, so that a file is read again only if it changed."""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Sequence

from tqdm import tqdm

from spidercap.pipeline import digests
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import write_text

UNREADABLE = "unreadable"  # in place of a digest
MANY = 100  # files to be read, from which on there is a progress bar
# Nanoseconds. A file may change again within one tick of the file system's clock, and keep its times.
TICK = 20_000_000


def image_digests(folder: str, names: Sequence[str], cache: pathlib.Path) -> dict[str, str]:
    """Returns the SHA-256 of the files `names` in `folder`, by name; UNREADABLE for those that cannot be read.

    A file in `cache` remembers them with size, times and inode. Only files in which one of these differs are read. A
    cache that is lost, damaged or read-only means that all files are read.
    """
    path = cache / f"images-{hashlib.sha256(os.fsencode(os.path.abspath(folder))).hexdigest()[:12]}.json"
    known = _read(path)
    found = {name: _status(os.path.join(folder, name)) for name in dict.fromkeys(names)}
    changed = [name for name, status in found.items() if status is None or known.get(name, [None])[:-1] != status]
    fresh = dict(zip(changed, _digests([os.path.join(folder, name) for name in changed]), strict=True))
    answers = {name: fresh[name] if name in fresh else known[name][-1] for name in found}
    # Files that changed while they were read, or just before, are read again next time.
    latest = time.time_ns() - TICK
    settled = [n for n in changed if found[n] and max(found[n][1:3]) < latest and fresh[n] != UNREADABLE]
    kept = {n: [*found[n], fresh[n]] for n in settled if found[n] == _status(os.path.join(folder, n))}
    if kept:
        with contextlib.suppress(UserError):  # what cannot be written is computed again
            _write(path, known | kept)
    return answers


def _status(path: str) -> list[int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _digests(paths: Sequence[str]) -> list[str]:
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        hidden = None if len(paths) > MANY else True
        return list(tqdm(pool.map(_digest, paths), "reading", total=len(paths), unit="image", disable=hidden))


def _digest(path: str) -> str:
    try:
        return digests.digest(pathlib.Path(path))
    except OSError:
        return UNREADABLE


def _read(path: pathlib.Path) -> dict[str, list]:
    """{file name: [size, mtime_ns, ctime_ns, inode, digest]}; nothing if the file is lost or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return content["files"] if content["sha256"] == _checksum(content["files"]) else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def _write(path: pathlib.Path, files: dict[str, list]) -> None:
    write_text(path, json.dumps({"sha256": _checksum(files), "files": files}) + "\n")


def _checksum(files: dict[str, list]) -> str:
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()
