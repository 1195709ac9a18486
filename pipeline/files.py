"""Atomic writes: to a temporary file in the same folder, which is then renamed."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Collection, Iterator

from spidercap.pipeline.errors import UserError


@contextlib.contextmanager
def written_aside(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`, with the same suffix, to write a file to.

    It is renamed to `path` if the block succeeds and deleted if it fails. An older file at `path` stays until then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: pathlib.Path, text: str) -> None:
    """Replaces the file at `path` by `text` (UTF-8)."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def check_output(flag: str, path: str | os.PathLike, read: Collection[str | os.PathLike] = ()) -> None:
    """Creates the parent folder of a file to be written; `read` are files that must not be replaced.

    Raises:
      UserError: the path is a folder or one of `read`, or cannot be written.
    """
    path = pathlib.Path(path)
    try:
        if path.is_dir():
            raise UserError(f"--{flag}={path} is a folder; name a file in it")
        if path.resolve() in {pathlib.Path(name).resolve() for name in read}:
            raise UserError(f"--{flag}={path} is an input file; name another file")
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise unwritable(flag, path, error) from error


def unwritable(flag: str, path: str | os.PathLike, error: OSError) -> UserError:
    """Returns the error for a file that cannot be written."""
    return UserError(f"--{flag}={path} cannot be written ({error.strerror}); name a file in another folder")
