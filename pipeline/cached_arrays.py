"""Arrays that are computed once and then read from the cache folder, without a copy in memory.

An entry is a folder of .npy files with their digests. Its name holds the digest of all that the arrays depend on, so
that other inputs, or another version of the code, never read it.
"""

import hashlib
import pathlib
import sys
from collections.abc import Callable, Mapping

import numpy as np

from spidercap.pipeline import digests
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import sweep, written_aside

Arrays = Mapping[str, np.ndarray]


def cached_arrays(folder: pathlib.Path | None, names: tuple[str, ...], compute: Callable[[], Arrays]) -> Arrays:
    """Returns arrays by name; computed and stored if the folder does not hold them, or holds damaged ones.

    Args:
      folder: of this entry alone, see `entry`; None: nothing is stored.
      names: of the arrays.
      compute: returns the arrays of these names.

    Returns:
      What is read is mapped into memory; a change in memory never reaches the file.
    """
    if folder is None:
        return compute()
    if not _is_whole(folder, names):
        _store(folder, {name: compute_once for name, compute_once in compute().items() if name in names})
    return {name: np.load(folder / _file(name), mmap_mode="c", allow_pickle=False) for name in names}


def entry(cache: pathlib.Path | None, kind: str, key: str) -> pathlib.Path | None:
    """Returns the folder of an entry; None without a cache."""
    return cache and cache / kind / key


def key_of(*parts: np.ndarray | str | bytes | pathlib.Path | int | None) -> str:
    """Returns a digest of all parts: arrays with their shape and type, texts, and contents of files."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            head, data = f"{part.dtype}{part.shape}", np.ascontiguousarray(part).data.cast("B") if part.size else b""
        else:
            head = type(part).__name__
            data = part.read_bytes() if isinstance(part, pathlib.Path) else part
            data = data if isinstance(data, bytes) else str(data).encode("utf-8", "surrogatepass")
        found.update(f"{head} {len(data)} ".encode())
        found.update(data)
    return found.hexdigest()[:32]


def packed_texts(texts: tuple[str, ...]) -> np.ndarray:
    """Returns texts without line breaks as bytes uint8, for an entry."""
    return np.frombuffer("\n".join(texts).encode("utf-8", "surrogatepass"), np.uint8)


def unpacked_texts(packed: np.ndarray) -> tuple[str, ...]:
    """Returns the texts of `packed_texts`; one of zero bytes holds none."""
    return tuple(packed.tobytes().decode("utf-8", "surrogatepass").split("\n")) if packed.size else ()


def _is_whole(folder: pathlib.Path, names: tuple[str, ...]) -> bool:
    try:
        known = digests.recorded(folder)
        wrong = digests.faults(folder, {_file(name): known.get(_file(name)) for name in names}) if known else {}
    except UserError:
        known, wrong = {}, {digests.NAME: "is damaged"}
    if wrong:
        print(f"warning: {folder}: {digests.listed(wrong)}; computed again", file=sys.stderr)
    return bool(known) and not wrong


def _store(folder: pathlib.Path, arrays: Arrays) -> None:
    sweep(folder)
    for name, array in arrays.items():
        with written_aside(folder / _file(name), array.nbytes) as aside, open(aside, "wb") as file:
            np.save(file, array, allow_pickle=False)
    digests.record(folder, map(_file, arrays))


def _file(name: str) -> str:
    return f"{name}.npy"
