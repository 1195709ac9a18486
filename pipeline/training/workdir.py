"""The folder of a run: created, locked, and rejected if it has other settings."""

import contextlib
import fcntl
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import IO

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import write_text
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.settings.saved import differences, read_settings
from spidercap.pipeline.training.kept import is_prepared, last_kept, newest_checkpoint, warm_start_of

LEAST_FREE = 300 * 2**20  # bytes; checkpoints of the default model and its optimizer need 200 MiB


@contextlib.contextmanager
def open_workdir(config: Config) -> Iterator[None]:
    """Creates the workdir if it is new, checks it, and locks it while the block runs.

    Raises:
      UserError: a folder cannot be written, a disk is full, another process uses the workdir, its settings differ, the
        mode needs a trained model and there is none, or a warm start does not match.
    """
    workdir = config.workdir_path()
    least_free = LEAST_FREE if config.run.mode in ("prepare", "train", "export") else 0
    for flag, folder in (
        ("workdir", workdir),
        ("cache_dir", config.cache_path()),
        ("export_dir", config.export_path()),
    ):
        _check_folder(flag, folder, least_free)
    with _lock_file(workdir) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another process uses {workdir}; wait for it, or name another --workdir") from error
        _check_settings(config)
        if config.run.mode in ("evaluate", "export"):
            last_kept(config)
        if config.training.warm_start and config.run.mode == "train" and not newest_checkpoint(workdir):
            warm_start_of(config)
        yield


def _check_folder(flag: str, folder: pathlib.Path, least_free: int) -> None:
    """Raises UserError for a folder that could not be created or written to, or on a full disk; creates nothing."""
    there = folder
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise UserError(f"--{flag}={folder}: {there} is not a folder; name another")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"--{flag}={folder}: {there} is not writable; change its permissions, or name another folder")
    free = shutil.disk_usage(there).free
    if free < least_free:
        raise UserError(
            f"--{flag}={folder}: {free >> 20} MiB are free there, at least {least_free >> 20} MiB are needed; "
            "make room, or name another folder"
        )


def _lock_file(workdir: pathlib.Path) -> IO:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        return open(workdir / ".lock", "w")
    except OSError as error:
        raise UserError(f"--workdir={workdir} cannot be used ({error.strerror}); name another folder") from error


def _check_settings(config: Config) -> None:
    path = config.workdir_path() / "config.json"
    if path.exists() and is_prepared(config):
        saved = read_settings(path)
        wrong = differences({name: saved[name] for name in config.fixed()}, config.fixed())
        if wrong:
            raise UserError(
                f"{config.run.workdir} has other settings ({'; '.join(wrong)}); use those, or name a new --workdir"
            )
    elif config.run.mode in ("prepare", "train"):
        write_text(path, config.to_json())
