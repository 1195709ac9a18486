"""Files of features: .npy, .npz, .h5 and TFRecord, each as rows with names."""

import contextlib
import io
import os
import pathlib
from collections.abc import Callable, Sequence

import h5py
import numpy as np
import tensorflow as tf

from spidercap.pipeline.data.image_files import reason_of
from spidercap.pipeline.data.streams import untuned
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import UNREADABLE
from spidercap.pipeline.text.coco_json import first, reject

_UNREADABLE = (*UNREADABLE, tf.errors.OpError)
IDS, FEATURES = ("image_id", "id", "ids", "image_ids", "file_name", "file_names", "names"), ("features", "feature")
_NEEDED = {
    ".npy": "an array [N, F] or [N, P, F], and beside it a .txt file of the same name with N ids or file names",
    ".npz": "an array per image, named by its id or file name; or arrays 'ids' [N] and 'features' [N, F]",
    ".h5": "a data set per image, named by its id or file name; or data sets 'ids' [N] and 'features' [N, F]",
    ".tfrecord": "tf.train.Examples with 'image_id' or 'file_name', and floats 'features' [F]",
}


class FeatureFile:
    """The features of a file, read one by one: vectors `[F]`, or parts of an image `[P, F]`."""

    def __init__(self, path: str, names: Sequence[str], read: Callable[[int], np.ndarray]):
        """Takes the names, and a function from a row to its features; raises UserError for names that come twice."""
        self.path, self.names, self._read = path, tuple(names), read
        if not self.names:
            raise _wrong(path, "holds no features")
        seen: set[str] = set()
        reject(path, "names come twice", [n for n in self.names if n in seen or seen.add(n)], "leave each once")
        self.size = self._whole(0).shape[-1]

    def vector(self, row: int) -> np.ndarray:
        """Returns float32 `[F]`, the mean of parts; raises UserError for another size, or for NaN or infinity."""
        value = self._whole(row)
        with np.errstate(over="ignore", invalid="ignore"):
            vector = value.astype(np.float32) if value.ndim == 1 else value.mean(axis=0, dtype=np.float32)
        return self._checked(row, vector)

    def parts(self, row: int) -> np.ndarray:
        """Returns float32 `[P, F]`; raises UserError as `vector` does, and for features `[F]`."""
        value = self._whole(row)
        if value.ndim == 1:
            raise UserError(
                f"{self.path}: the features of {self.names[row]} are {list(value.shape)}, without parts to attend to; "
                "give regions or cells [P, F]; vectors are for --decoder=lstm"
            )
        with np.errstate(over="ignore"):
            parts = self._checked(row, value.astype(np.float32))
        if not parts.astype(np.float16).any():  # as they are stored
            raise UserError(
                f"{self.path}: the features of {self.names[row]} are all 0, so there is no part to attend to; give "
                "others, or take them out of the file"
            )
        return parts

    def _checked(self, row: int, features: np.ndarray) -> np.ndarray:
        if features.shape[-1] != self.size:
            raise UserError(
                f"{self.path}: the features of {self.names[row]} have size {features.shape[-1]}, those of "
                f"{self.names[0]} {self.size}; give features of one size"
            )
        if not np.isfinite(features).all():
            raise UserError(
                f"{self.path}: the features of {self.names[row]} are NaN or infinite; take them out of the file"
            )
        return features

    def _whole(self, row: int) -> np.ndarray:
        try:
            value = np.asarray(self._read(row))
        except _UNREADABLE as error:
            raise _wrong(self.path, f"cannot be read at {self.names[row]} ({_reason(error)})") from error
        if value.dtype.kind not in "fiu" or value.ndim not in (1, 2) or 0 in value.shape:
            raise UserError(
                f"{self.path}: the features of {self.names[row]} are {value.dtype} {list(value.shape)}; needed: "
                "numbers [F], or [P, F] of one part or more"
            )
        return value


def open_feature_file(path: str, stack: contextlib.ExitStack) -> FeatureFile:
    """Returns the features of a file, which `stack` closes; its suffix tells the format.

    Raises:
      UserError: it does not exist, is of another format, or holds something else.
    """
    if not os.path.isfile(path):
        raise UserError(f"--features={path} is not a file; give a file, {', '.join(_NEEDED)}")
    suffix = pathlib.Path(path).suffix.lower()
    suffix = {".hdf5": ".h5", ".tfrecords": ".tfrecord"}.get(suffix, suffix)
    if suffix not in _OPEN:
        raise UserError(f"--features={path} is of an unknown format; allowed: {', '.join(_NEEDED)}")
    try:
        return _OPEN[suffix](path, stack)
    except _UNREADABLE as error:
        raise _wrong(path, f"cannot be read ({_reason(error)})", suffix) from error


def _reason(error: Exception) -> str:
    text = reason_of(error) if isinstance(error, OSError | tf.errors.OpError) else str(error).strip()
    return text.split("\n")[0][:200] or type(error).__name__


def _wrong(path: str, what: str, suffix: str = "") -> UserError:
    return UserError(f"--features={path} {what}; needed: {_NEEDED.get(suffix, 'features by id or file name')}")


def _npy(path: str, stack: contextlib.ExitStack) -> FeatureFile:
    del stack  # the file is closed once it is mapped
    rows = np.load(path, mmap_mode="r", allow_pickle=False)
    listed = pathlib.Path(path).with_suffix(".txt")
    if not listed.is_file():
        raise _wrong(path, f"has no names, because {listed} does not exist", ".npy")
    names = [line.strip() for line in listed.read_text(encoding="utf-8-sig").splitlines()]
    return _table(path, names, rows, ".npy")


def _npz(path: str, stack: contextlib.ExitStack) -> FeatureFile:
    # Opened here: NumPy leaves a file open that turns out to be no archive.
    file = stack.enter_context(contextlib.closing(io.FileIO(path)))
    arrays = stack.enter_context(np.load(file, allow_pickle=False))
    return _keyed(path, arrays, sorted(arrays.files), ".npz")


def _h5(path: str, stack: contextlib.ExitStack) -> FeatureFile:
    opened = stack.enter_context(h5py.File(path, "r"))
    names: list[str] = []
    opened.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return _keyed(path, opened, names, ".h5")


def _keyed(path: str, arrays, names: Sequence[str], suffix: str) -> FeatureFile:
    """A file with an array per image, or with one of ids and one of features."""
    ids, features = (next((n for n in some if n in names), "") for some in (IDS, FEATURES))
    if ids and features:
        named = arrays[ids][()]
        if np.ndim(named) != 1:
            raise _wrong(path, f"holds ids of shape {list(np.shape(named))}", suffix)
        return _table(path, [_text(one) for one in named], arrays[features], suffix)  # of .h5 it stays there
    if features:
        raise _wrong(path, f"holds {features!r}, but no ids", suffix)
    return FeatureFile(path, names, lambda row: arrays[names[row]][()])


def _table(path: str, names: Sequence[str], rows, suffix: str) -> FeatureFile:
    """Rows of one array, with a name each."""
    if rows.ndim not in (2, 3) or len(rows) != len(names):
        raise _wrong(path, f"holds {len(names)} names and features {list(rows.shape)}", suffix)
    return FeatureFile(path, names, lambda row: rows[row])


def _tfrecord(path: str, stack: contextlib.ExitStack) -> FeatureFile:
    del stack  # it is read whole
    names, rows = [], []
    for serialized in untuned(tf.data.TFRecordDataset(path)).as_numpy_iterator():
        name, row = _parsed(path, len(rows), serialized)
        names.append(name)
        rows.append(row)
    return FeatureFile(path, names, lambda row: rows[row])


def _parsed(path: str, number: int, serialized: bytes) -> tuple[str, np.ndarray]:
    """The name and the features of a tf.train.Example."""
    try:
        features = tf.train.Example.FromString(serialized).features.feature
    except Exception as error:  # protobuf's own error, which has no public name here
        raise _wrong(path, f"holds no tf.train.Example in record {number}", ".tfrecord") from error
    name = next((n for n in IDS if n in features), "")
    values = next((n for n in FEATURES if n in features), "")
    if not name or not values:
        raise _wrong(path, f"has {first(sorted(features)) or 'nothing'} in record {number}", ".tfrecord")
    row = np.array(features[values].float_list.value, np.float32)
    shape = list(features["shape"].int64_list.value) if "shape" in features else [-1]
    texts, numbers = features[name].bytes_list.value, features[name].int64_list.value
    if not texts and not numbers:
        raise _wrong(path, f"has neither a text nor a whole number as {name!r} in record {number}", ".tfrecord")
    return (texts[0].decode() if texts else str(numbers[0])), row.reshape(shape)


def _text(value) -> str:
    """An id as text: of bytes, text or a whole number."""
    if isinstance(value, bytes):
        return value.decode()
    return str(value.item() if isinstance(value, np.generic) else value)


# suffix -> (path, stack that closes it) -> features
_OPEN: dict[str, Callable[[str, contextlib.ExitStack], FeatureFile]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".h5": _h5,
    ".tfrecord": _tfrecord,
}
