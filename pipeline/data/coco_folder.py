"""Your own images: COCO-format JSON and a folder of images, checked, then stored as a TFDS data set."""

import collections
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from spidercap.pipeline.data.image_digests import image_digests
from spidercap.pipeline.data.image_files import readable_files
from spidercap.pipeline.data.records import Source, feature_spec
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.groups import DataSettings
from spidercap.pipeline.text.coco_json import ID, TEXT, read_json, reject, rows

NEEDED = '{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}'


@dataclasses.dataclass(frozen=True)
class Entry:
    """One image with its captions."""

    image_id: int
    file_name: str
    captions: tuple[str, ...]


def read_captions(path: str, images: str) -> list[Entry]:
    """Returns the images of a COCO-format JSON file, ordered by id; their files are in the folder `images`.

    Raises:
      UserError: the file is not JSON, keys or types are wrong, ids come twice, files are missing, captions have no
        words, or images have no captions.
    """
    if not os.path.isdir(images):
        raise UserError(f"--images={images} is not a folder; give the folder of the images")
    content = read_json(path, "a COCO captions file")
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a COCO captions file, because it is not a JSON object; needed: {NEEDED}")
    listed = rows(path, content.get("images"), "images", {"id": ID, "file_name": TEXT}, NEEDED)
    if not listed:
        raise UserError(f"{path} lists no images; at least one is needed")
    names = dict(listed)
    counts = collections.Counter(i for i, _ in listed)
    reject(path, "image ids come twice", [i for i, n in counts.items() if n > 1], "give each image its own id")
    captions: dict[int, list[str]] = {}
    for i, caption in rows(path, content.get("annotations"), "annotations", {"image_id": ID, "caption": TEXT}, NEEDED):
        captions.setdefault(i, []).append(caption)
    empty = [i for i, texts in captions.items() if not all(any(c.isalnum() for c in t) for t in texts)]
    reject(path, "images have a caption without words", empty, "fix or remove those annotations")
    reject(path, "images have no caption", sorted(names.keys() - captions.keys()), "remove those images")
    reject(path, "annotated image ids are not in 'images'", sorted(captions.keys() - names.keys()), "add those images")
    outside = [n for n in names.values() if os.path.isabs(n) or ".." in pathlib.PurePath(n).parts]
    reject(path, f"file names are outside of --images={images}", outside, "give paths below that folder")
    missing = [n for n in names.values() if not os.path.isfile(os.path.join(images, n))]
    reject(path, f"images are not in --images={images}", missing, "put them there, or name another folder")
    return [Entry(i, names[i], tuple(captions[i])) for i in sorted(names)]


def fingerprint(splits: dict[str, list[Entry]], images: str, cache: pathlib.Path) -> str:
    """Returns 12 hex digits that change with any caption, file name or image; `cache` remembers digests of images."""
    of_images = image_digests(images, [entry.file_name for entries in splits.values() for entry in entries], cache)
    digest = hashlib.sha256()
    for split, entries in splits.items():
        for entry in entries:
            digest.update(json.dumps([split, dataclasses.astuple(entry), of_images[entry.file_name]]).encode())
    return digest.hexdigest()[:12]


class Folder(tfds.core.GeneratorBasedBuilder):
    """Images and captions as a TFDS data set with the splits of `splits`."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, splits: dict[str, list[Entry]], images: str, **kwargs):
        self._splits, self._images = splits, images
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, description="Images of a folder.", features=feature_spec())

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager
        return {name: self._generate_examples(entries) for name, entries in self._splits.items()}

    def _generate_examples(self, entries: list[Entry]) -> Iterator[tuple[int, dict]]:
        for entry in entries:
            yield (
                entry.image_id,
                {
                    "image": os.path.join(self._images, entry.file_name),
                    "image_id": np.int64(entry.image_id),
                    "file_name": entry.file_name,
                    "captions": list(entry.captions),
                },
            )


def folder_source(settings: DataSettings) -> Source:
    """Returns the images and captions that the settings name; `cache_dir` must be set.

    Raises:
      UserError: captions cannot be used; from `build`, images cannot be decoded.
    """
    paths = {"train": settings.train_captions, "val": settings.val_captions}
    splits = {split: read_captions(path, settings.images) for split, path in paths.items()}

    def build(root: pathlib.Path) -> Folder:
        builder = Folder(splits=splits, images=settings.images, data_dir=root)
        if builder.is_prepared():
            return builder
        readable = {split: _readable(entries, settings) for split, entries in splits.items()}
        return Folder(splits=readable, images=settings.images, data_dir=root)

    name = f"folder-{fingerprint(splits, settings.images, pathlib.Path(settings.cache_dir))}"
    # The images that are left out depend on the limit.
    return Source(f"{name}-skip-{settings.max_pixels}" if settings.skip_bad_images else name, build)


def _readable(entries: list[Entry], settings: DataSettings) -> list[Entry]:
    files = [pathlib.Path(settings.images, e.file_name) for e in entries]
    good = set(readable_files(files, settings.skip_bad_images, settings.max_pixels))
    return [entry for entry, file in zip(entries, files, strict=True) if file in good]
