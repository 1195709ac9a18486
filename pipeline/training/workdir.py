"""The folder of a run: created, locked, and rejected if it has other settings or damaged files."""

import contextlib
import errno
import fcntl
import os
import pathlib
import shutil
from collections.abc import Iterator

from spidercap.export.formats import PORTABLE
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import open_lock, sweep, write_text
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.settings.saved import differences, read_settings
from spidercap.pipeline.training.checkpoint_files import checkpoints
from spidercap.pipeline.training.identity import check_identity, forget_preparation, has_trained, is_prepared
from spidercap.pipeline.training.kept import checkpoint_folder, last_kept, warm_start_of

LEAST_FREE = 300 * 2**20  # bytes; checkpoints of the default model and its optimizer need 200 MiB
WRITING = ("prepare", "train", "export")  # modes that need a workdir that can be written to
PATTERNS = "*?[]\\"  # TensorFlow takes a path with one of these for a pattern when it reads weights


@contextlib.contextmanager
def open_workdir(config: Config) -> Iterator[None]:
    """Creates the workdir if it is new, checks it, and locks it while the block runs.

    Raises:
      UserError: a folder cannot be written, a disk is full, another process uses the workdir, its settings differ, a
        file in it is damaged, the mode needs a trained model and there is none, or a warm start does not match.
    """
    workdir = config.workdir_path()
    least_free = LEAST_FREE if config.run.mode in WRITING else 0
    for flag, folder in (
        ("workdir", workdir),
        ("cache_dir", config.cache_path()),
        ("export_dir", config.export_path()),
    ):
        _check_path(flag, folder)
        _check_folder(flag, folder, least_free, config.run.mode)
    with locked(workdir, config.run.mode not in WRITING) as is_writable:
        if is_writable:
            for folder in _written_folders(config):
                sweep(folder)
        if config.run.mode in ("prepare", "train") and not has_trained(workdir):
            forget_preparation(config)
        check_identity(config)
        _check_settings(config)
        if config.run.mode in ("evaluate", "export"):
            last_kept(config)
        if config.training.warm_start and config.run.mode == "train" and not checkpoints(checkpoint_folder(workdir)):
            warm_start_of(config)
        yield


@contextlib.contextmanager
def locked(folder: pathlib.Path, may_be_read_only: bool) -> Iterator[bool]:
    """Locks a folder, which is created if it is new; yields whether it can be written to.

    Args:
      folder: it is locked by the file `.lock` in it. A link in its place is not followed.
      may_be_read_only: whether a folder that cannot be written to is left unlocked instead of an error.

    Raises:
      UserError: another process has locked it, or it cannot be written to.
    """
    try:
        if not may_be_read_only:
            folder.mkdir(parents=True, exist_ok=True)
        handle = open_lock(folder / ".lock")
    except OSError as error:
        if may_be_read_only and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            yield False
            return
        if error.errno == errno.ELOOP:
            raise UserError(f"{folder / '.lock'} is a link; delete it, if you know where the folder is from") from error
        raise UserError(f"--workdir={folder} cannot be used ({error.strerror}); name another folder") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another process uses {folder}; wait for it, or name another --workdir") from error
        yield True
    finally:
        os.close(handle)


def _written_folders(config: Config) -> Iterator[pathlib.Path]:
    """The folders in which runs write files aside."""
    workdir, cache = config.workdir_path(), config.cache_path()
    yield from (workdir, config.export_path(), workdir / "checkpoints", workdir / "results", cache)
    yield config.captioning_path()
    yield from (config.export_path() / name for name in PORTABLE)
    for pattern in ("results/*", "kept/*"):
        yield from (path for path in workdir.glob(pattern) if path.is_dir())
    for pattern in ("images", "data", "data/*", "features", "features/*", "features/*/*", "features/*/*/*"):
        yield from (path for path in cache.glob(pattern) if path.is_dir())


def _check_path(flag: str, folder: pathlib.Path) -> None:
    """Raises UserError for a path from which TensorFlow could not read again what it has written."""
    path = os.path.abspath(folder)
    wrong = [char for char in PATTERNS if char in path]
    if wrong:
        raise UserError(
            f"--{flag}={folder}: TensorFlow cannot read weights below a path with {wrong[0]!r} ({path}); allowed: "
            f"paths without {' '.join(PATTERNS)}; name another folder"
        )
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"--{flag}={path!a} is not UTF-8; name another folder") from error


def _check_folder(flag: str, folder: pathlib.Path, least_free: int, mode: str) -> None:
    """Raises UserError for a folder that could not be created or written to, or on a full disk; creates nothing."""
    there = folder
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise UserError(f"--{flag}={folder}: {there} is not a folder; name another")
    if mode in WRITING and not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"--{flag}={folder}: {there} is not writable; change its permissions, or name another folder")
    free = shutil.disk_usage(there).free
    if free < least_free:
        raise UserError(
            f"--{flag}={folder}: {free >> 20} MiB are free there, at least {least_free >> 20} MiB are needed; "
            "make room, or name another folder"
        )


def _check_settings(config: Config) -> None:
    path = config.workdir_path() / "config.json"
    if is_prepared(config):
        saved = read_settings(path)
        wrong = differences({name: saved[name] for name in config.fixed()}, config.fixed())
        if wrong:
            raise UserError(
                f"{config.run.workdir} has other settings ({'; '.join(wrong)}); use those, or name a new --workdir"
            )
    elif config.run.mode in ("prepare", "train"):
        write_text(path, config.to_json())
