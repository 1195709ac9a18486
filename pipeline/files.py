"""Writing without ever leaving half a file: aside in the same folder, then renamed."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


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
