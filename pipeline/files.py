"""Files that are whole or not there: written aside, synced to the disk, then renamed."""

import contextlib
import errno
import fcntl
import os
import pathlib
import re
import shutil
import socket
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Collection, Iterator

from spidercap.pipeline.errors import UserError

# What NumPy's and ZIP's readers raise for files that are damaged, or of another kind.
UNREADABLE = (
    *(OSError, ValueError, KeyError, IndexError, EOFError, TypeError, zipfile.BadZipFile, zlib.error),
    *(NotImplementedError, RuntimeError),  # kinds of ZIP that Python cannot read
)
# What is being written, by whom: `.writing-<host>-<process>-<name>`.
_ASIDE = re.compile(r"\.writing-(?P<host>[^/]*)-(?P<process>\d+)-.*", re.DOTALL)
ABANDONED = 24 * 3600  # seconds after which what another machine was writing counts as left over


@contextlib.contextmanager
def written_aside(path: pathlib.Path, size: int = 0) -> Iterator[pathlib.Path]:
    """Yields a path in the same folder, with the same suffix, to write a file or folder to.

    If the block succeeds, it is synced to the disk and renamed to `path`, so that not even a power cut leaves half of
    it. An older file at `path` stays until then. If the block fails, what was written is deleted.

    Args:
      path: the file or folder; an older folder is an error.
      size: the bytes that it will need, for the message of a full disk.

    Raises:
      UserError: it cannot be written.
    """
    aside = aside_of(path)
    with disk_errors(path, size):
        _make_folder(path.parent)
        try:
            yield aside
            sync_tree(aside)
            os.replace(aside, path)
            sync(path.parent)
        finally:
            _remove(aside)


def aside_of(path: pathlib.Path) -> pathlib.Path:
    """Returns the path beside `path` under which this process writes it."""
    return path.with_name(f".writing-{socket.gethostname()}-{os.getpid()}-{path.name[-100:]}")


def write_text(path: pathlib.Path, text: str) -> None:
    """Replaces the file at `path` by `text` (UTF-8)."""
    with written_aside(path, len(text)) as aside:
        aside.write_text(text, encoding="utf-8")


def sync_tree(path: pathlib.Path) -> None:
    """Syncs a file, or a folder with all that is in it, to the disk."""
    if path.is_dir():
        for child in path.iterdir():
            sync_tree(child)
    sync(path)


def sync(path: pathlib.Path) -> None:
    """Syncs a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: pathlib.Path) -> None:
    """Deletes what processes that ended were writing to `folder`, but not to folders in it."""
    for path in list(folder.glob(".writing-*")):
        if _is_left_over(path):
            _remove(path)


def open_lock(path: pathlib.Path) -> int:
    """Returns a handle of a file to be locked, which is created if it is new; a link in its place is not followed.

    Raises:
      OSError: it cannot be opened for writing; ELOOP if it is a link.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def is_locked(path: pathlib.Path) -> bool | None:
    """Returns whether a process has locked the file of `open_lock`; None if that cannot be told. Writes nothing.

    A lock that can be shared is taken for an instant, as the system has no other way to ask.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return None
    finally:
        os.close(handle)
    return False


@contextlib.contextmanager
def held(handle: int) -> Iterator[None]:
    """Locks an open file or folder while the block runs, after waiting for other processes, then closes it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def disk_errors(path: pathlib.Path, size: int = 0) -> Iterator[None]:
    """Raises errors of the file system within the block, TensorFlow's too, as UserErrors that name `path`.

    Args:
      path: what is written.
      size: the bytes that it needs.
    """
    try:
        yield
    except (OSError, *_tensorflow_errors()) as error:
        reason = error.strerror or str(error) if isinstance(error, OSError) else error.message.strip().split("\n")[0]
        if "No space left" in str(error):
            reason = "no space left on the disk"
        needed = f"; about {_mebibytes(size)} are needed" if size else ""
        raise UserError(
            f"{path} cannot be written ({reason}{needed}{_free(path)}); make room or restore the folder, then run the "
            "same command again"
        ) from error


def _tensorflow_errors() -> tuple[type[Exception], ...]:
    """TensorFlow's error, if it has been imported, because otherwise nothing can have raised it."""
    tensorflow = sys.modules.get("tensorflow")
    return () if tensorflow is None else (tensorflow.errors.OpError,)


def nearest_existing(path: pathlib.Path) -> pathlib.Path:
    """Returns the path, or the closest one above it that exists; a link that leads nowhere exists."""
    while not os.path.lexists(path):
        path = path.parent
    return path


def check_input(flag: str, path: str | os.PathLike) -> None:
    """Raises UserError if a file cannot be read, without opening it, as it may be a pipe."""
    try:
        reason = "it is a folder" if pathlib.Path(path).stat() and pathlib.Path(path).is_dir() else ""
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    if not reason and not os.access(path, os.R_OK):
        reason = os.strerror(errno.EACCES)
    if reason:
        raise UserError(f"--{flag}={path} cannot be read ({reason}); name a file that exists and may be read")


def check_output(flag: str, path: str | os.PathLike, read: Collection[str | os.PathLike] = ()) -> None:
    """Creates the parent folder of a file to be written; `read` are files that must not be replaced.

    Raises:
      UserError: the path is a folder or one of `read`, or cannot be written.
    """
    path = pathlib.Path(path)
    try:
        if path.is_dir():
            raise UserError(f"--{flag}={path} is a folder; name a file in it")
        if os.path.realpath(path) in {os.path.realpath(name) for name in read}:
            raise UserError(f"--{flag}={path} is an input file; name another file")
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--{flag}={path} cannot be written ({reason}); name a file in another folder") from error


def _make_folder(folder: pathlib.Path) -> None:
    """Makes a folder and its parents, each synced to the disk."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def _is_left_over(path: pathlib.Path) -> bool:
    match = _ASIDE.fullmatch(path.name)
    if not match:
        return False
    if match["host"] == socket.gethostname():
        return not _runs(int(match["process"]))
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime > ABANDONED
    return False


def _runs(process: int) -> bool:
    if process == os.getpid():
        return False  # this process sweeps before it writes; an earlier one had its number
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _remove(path: pathlib.Path) -> None:
    # What cannot be deleted is swept later. An error here would hide the one that matters.
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _free(path: pathlib.Path) -> str:
    """How much room there is for `path`, as the end of a message; '' if its folder is gone."""
    with contextlib.suppress(OSError):
        return f"; {_mebibytes(shutil.disk_usage(path.parent).free)} are free"
    return ""


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
