"""Features that users bring in place of images: read, checked, and stored like those of the encoder."""

import collections
import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from spidercap.models.captioners import CAPTIONERS
from spidercap.pipeline import digests
from spidercap.pipeline.bars import progress_bar
from spidercap.pipeline.data.feature_files import FeatureFile, open_feature_file
from spidercap.pipeline.data.feature_store import SHARD, Features, FeatureStore
from spidercap.pipeline.data.image_index import status_of
from spidercap.pipeline.data.records import Split
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import write_text
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.text.coco_json import ImageId, reject
from spidercap.pipeline.text.listing import Listed
from spidercap.pipeline.text.printable import printable


class GivenFeatures:
    """The features of one or several files, by name: an id or a file name."""

    def __init__(self, files: Sequence[FeatureFile], file_digests: Sequence[str]):
        """Raises UserError if a name comes twice, or the files hold features of several sizes."""
        self.files = tuple(files)
        self.digests = tuple(file_digests)
        self._place = {}
        for number, file in enumerate(self.files):
            twice = [name for name in file.names if name in self._place]
            reject(file.path, "names are in another file of --features, too", twice, "leave each in one file")
            self._place |= {name: (number, row) for row, name in enumerate(file.names)}
        sizes = {file.path: file.size for file in self.files}
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{path}: {size}" for path, size in sizes.items())
            raise UserError(
                f"--features: the files hold features of different sizes ({listed}); give those of one encoder"
            )
        self.size = self.files[0].size

    @property
    def names(self) -> list[str]:
        """All names, in the order of the files."""
        return list(self._place)

    def key(self, name: str) -> str:
        """Returns the key of a name: hex digits that change with the file's contents."""
        number, _ = self._place[name]
        return hashlib.sha256(json.dumps([self.digests[number], name]).encode()).hexdigest()

    def rows(self, names: Sequence[str], parts: bool) -> np.ndarray:
        """Returns float32 `[n, F]`, of parts `[P, F]` their mean; with `parts` they stay apart: `[n, P, F]`.

        P is that of the image with the most parts; after those of the others come rows of zeros.

        Raises:
          UserError: features have another size, are NaN or infinite, or have no parts.
        """
        places = [self._place[name] for name in names]
        if not parts:
            return np.array([self.files[number].vector(row) for number, row in places]).reshape(-1, self.size)
        found = [self.files[number].parts(row) for number, row in places]
        padded = np.zeros((len(names), max(map(len, found), default=0), self.size), np.float32)
        for row, of_image in enumerate(found):
            padded[row, : len(of_image)] = of_image
        return padded

    def __contains__(self, name: str) -> bool:
        return name in self._place


@contextlib.contextmanager
def open_features(paths: str, cache: pathlib.Path | None = None) -> Iterator[GivenFeatures]:
    """Yields the features of a comma-separated list of files.

    Args:
      paths: .npy, .npz, .h5 or .tfrecord files.
      cache: folder in which the digests of the files are kept.

    Raises:
      UserError: a file cannot be read, or holds something else.
    """
    listed = [path.strip() for path in paths.split(",") if path.strip()] if not os.path.isfile(paths) else [paths]
    if not listed:
        raise UserError("--features names no file; give .npy, .npz, .h5 or .tfrecord files, separated by commas")
    with contextlib.ExitStack() as stack:
        files = [open_feature_file(path, stack) for path in listed]
        yield GivenFeatures(files, [_digest(path, cache) for path in listed])


def names_of(image_id: ImageId, file_name: str) -> list[str]:
    """Returns the names under which an image's features are looked up, the best one first."""
    base = os.path.basename(file_name)
    return list(dict.fromkeys(n for n in (file_name, str(image_id), base, os.path.splitext(base)[0]) if n))


def feature_keys(given: GivenFeatures, path: str, rows: Iterable[Listed], skip_missing: bool) -> dict[ImageId, str]:
    """Returns the key of the features of each image of a captions file at `path`, by its id.

    Raises:
      UserError: images have no features, and `skip_missing` is False or they are all.
    """
    rows = list(rows)
    found = {one.image_id: next((n for n in names_of(one.image_id, one.file_name) if n in given), "") for one in rows}
    _reject_shared(path, rows, found)
    missing = [one.file_name or str(one.image_id) for one in rows if not found[one.image_id]]
    if missing and (not skip_missing or len(missing) == len(rows)):
        example = printable(given.names[0])
        remedy = f"names there are such as {example}; name them as the ids or file names here"
        remedy += "" if skip_missing else ", or leave out those images with --skip_bad_images"
        reject(path, f"of {len(rows)} images have no features in --features", missing, remedy)
    if missing:
        print(f"skipping {len(missing):,} of {len(rows):,} images of {path} without features", flush=True)
    return {image_id: given.key(name) for image_id, name in found.items() if name}


def _reject_shared(path: str, rows: Sequence[Listed], found: Mapping[ImageId, str]) -> None:
    """Raises UserError for names that were found by a part of a file name, if other images have them, too."""
    by_name = collections.defaultdict(list)
    for one in rows:
        by_name[found[one.image_id]].append(one)
    shared = [
        f"{name}: {' and '.join(one.file_name or str(one.image_id) for one in images[:2])}"
        for name, images in by_name.items()
        if name and len(images) > 1 and any(name not in (one.file_name, str(one.image_id)) for one in images)
    ]
    reject(path, "names in --features fit several images", shared, "name features by ids, or by whole paths")


def given_features(config: Config, splits: Mapping[str, Split]) -> dict[str, Features]:
    """Returns the features `[I, 1, F]` or `[I, 1, P, F]` that --features names, by split, in the order of its records.

    Raises:
      UserError: features have several sizes, or are NaN or infinite.
    """
    with open_features(config.data.features, config.cache_path()) as given:
        name = hashlib.sha256(json.dumps(given.digests).encode()).hexdigest()[:12]
        parts = CAPTIONERS[config.model.decoder].takes_parts
        kind = "given-parts" if parts else "given"
        store = FeatureStore(config.cache_path() / "features" / f"{kind}-{name}")
        for split in splits.values():
            _fill(store, given, split.keys, parts)
    return {name: Features(store.shards, store.places(split.keys)[:, None]) for name, split in splits.items()}


def _fill(store: FeatureStore, given: GivenFeatures, keys: Sequence[str], parts: bool) -> None:
    """Stores the features of those keys that are not stored yet, so that they are checked and read once."""
    missing = [keys[row] for row in store.missing(keys)]
    by_key = {given.key(name): name for name in given.names} if missing else {}
    with progress_bar(len(missing), "reading features", "image", shown=bool(missing)) as bar:
        for first in range(0, len(missing), SHARD):
            part = missing[first : first + SHARD]
            store.add(part, given.rows([by_key[key] for key in part], parts))
            bar.update(len(part))


def _digest(path: str, cache: pathlib.Path | None) -> str:
    """The SHA-256 of a file, from the cache if the file has not changed since."""
    if cache is None:
        return digests.digest(pathlib.Path(path))
    known = status_of(os.stat(path))
    index = cache / "features" / "files.json"
    table: Mapping = {} if digests.fault(index) else json.loads(index.read_text(encoding="utf-8"))
    *before, digest = table.get(os.path.abspath(path), [""])
    if before != known:
        digest = digests.digest(pathlib.Path(path))
        write_text(index, json.dumps({**table, os.path.abspath(path): [*known, digest]}) + "\n")
        digests.record(index.parent, [index.name])
    return digest
