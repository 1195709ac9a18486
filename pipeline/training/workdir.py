"""The folder of a run: created, locked, and rejected if it has other settings or damaged files."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spidercap.export.formats import PORTABLE
from spidercap.pipeline import digests
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import nearest_existing, open_lock, sweep, write_text
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.settings.growth import changes_of_begun
from spidercap.pipeline.settings.saved import differences, read_settings
from spidercap.pipeline.training.checkpoint_files import checkpoints
from spidercap.pipeline.training.identity import check_identity, forget_preparation
from spidercap.pipeline.training.kept import last_kept, saved_progress, warm_start_of
from spidercap.pipeline.training.run_files import checkpoint_folder, has_trained, is_prepared
from spidercap.pipeline.training.strategies import workers_of
from spidercap.pipeline.workers import Workers

LEAST_FREE = 300 * 2**20  # bytes; checkpoints of the default model and its optimizer need 200 MiB
VISIBLE = 30  # seconds until a file of one machine must be seen by the others
WRITING = ("prepare", "train", "export")  # modes that need a workdir that can be written to
PATTERNS = "*?[]\\"  # TensorFlow takes a path with one of these for a pattern when it reads weights


@contextlib.contextmanager
def open_workdir(config: Config) -> Iterator[None]:
    """Creates the workdir if it is new, checks it, and locks it while the block runs.

    Of several workers the chief does so, when all have come.

    Raises:
      UserError: a folder cannot be written, a disk is full, another process uses the workdir, its settings differ, a
        file in it is damaged, the mode needs a trained model and there is none, a warm start does not match, or workers
        do not see the same folders.
    """
    workers = workers_of(config)
    with workers.named_if_gone():
        with _opened(config) if workers.is_chief else contextlib.nullcontext():
            if workers.count > 1:
                check_same(workers, config)
                check_shared(workers, {"workdir": config.workdir_path(), "cache_dir": config.cache_path()})
            yield
        # Those that end sooner would seem to have failed.
        workers.wait()


@contextlib.contextmanager
def _opened(config: Config) -> Iterator[None]:
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


def check_same(workers: Workers, config: Config) -> None:
    """Raises UserError on all workers if one of them has other settings than the chief, which would train apart."""
    wrong = differences(json.loads(workers.from_chief(json.dumps(config.fixed()))), config.fixed())
    if who := workers.which(bool(wrong)):
        more = f" ({'; '.join(wrong)})" if wrong else ""
        raise UserError(f"{who} has other settings than {workers.name(0)}{more}; start the same command on all")


def check_shared(workers: Workers, folders: Mapping[str, pathlib.Path]) -> None:
    """Raises UserError on all workers if one of them does not see the folders of the chief; by flag."""
    name = f".workers-{workers.from_chief(secrets.token_hex(8))}"
    paths = {flag: folder / name for flag, folder in folders.items()}
    try:
        if workers.is_chief:
            for path in paths.values():
                write_text(path, "")
        workers.wait()
        blind = {flag: workers.which(not _is_seen(path)) for flag, path in paths.items()}
    finally:
        if workers.is_chief:
            for path in paths.values():
                path.unlink(missing_ok=True)
    for flag, who in blind.items():
        if who:
            raise UserError(
                f"--{flag}={folders[flag]}: {who} cannot see there what {workers.name(0)} writes; name a folder on a "
                "disk that all workers share"
            )


def _is_seen(path: pathlib.Path) -> bool:
    """Whether a file is there; waits for file systems that show others' files late."""
    end = time.monotonic() + VISIBLE
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.1)
        with contextlib.suppress(OSError):
            os.listdir(path.parent)  # which NFS answers anew
    return path.exists()


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
    there = nearest_existing(folder)
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
        changed = differences({name: saved[name] for name in config.fixed()}, config.fixed())
        if changed:
            _grow(path, saved, config, changed)
    elif config.run.mode in ("prepare", "train"):
        write_text(path, config.to_json())


def _grow(path: pathlib.Path, saved: Mapping[str, Any], config: Config, changed: Sequence[str]) -> None:
    """Takes over settings of stages that have not begun; raises UserError for changes of anything else."""
    if config.run.mode != "train":
        raise UserError(
            f"{config.run.workdir} has other settings ({'; '.join(changed)}); use those, or name a new --workdir"
        )
    old, progress = Config.of(**saved), saved_progress(config)
    begun = progress.stage + (progress.step > 0)
    wrong = changes_of_begun(old, config, begun)
    if not wrong:
        print(f"the run goes on with other settings: {'; '.join(changed)}", flush=True)
        digests.replace_text(path, config.to_json())
        return
    remedy = "use those, or name a new --workdir"
    if begun:
        stages = ",".join(old.training.stages.split(",")[:begun])
        remedy = (
            f"what has begun is fixed: use those, add stages (--stages={stages},<more>), or name a new --workdir, "
            f"where --warm_start={config.run.workdir} takes over the weights"
        )
    raise UserError(f"{config.run.workdir} has other settings ({'; '.join(wrong)}); {remedy}")
