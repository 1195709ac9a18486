"""Writing without ever leaving half a file: aside in the same folder, then renamed."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Collection, Iterator

from spidercap.pipeline.errors import UserError


@contextlib.contextmanager
def written_aside(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a path beside `path`, of the same ending, to write a file to.

    It becomes `path` when the block ends well and vanishes when not; until then an older file stays as it was.
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
    """Makes the folder of a file that will be written; `read` are files that may not be replaced.

    Raises:
      UserError: the path is a folder or one of `read`, or cannot be written.
    """
    path = pathlib.Path(path)
    try:
        if path.is_dir():
            raise UserError(f"--{flag}={path} is a folder; name a file in it")
        if path.resolve() in {pathlib.Path(name).resolve() for name in read}:
            raise UserError(f"--{flag}={path} is one of the files that are read; name another file")
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise unwritable(flag, path, error) from error


def unwritable(flag: str, path: str | os.PathLike, error: OSError) -> UserError:
    """Returns what to tell the user whose file could not be written."""
    return UserError(f"--{flag}={path} cannot be written ({error.strerror}); name a file in another folder")
