"""Your own images: COCO-format JSON and a folder of images, checked, then stored as a TFDS data set."""

import collections
import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from tqdm import tqdm

from spidercap.models.encoder import decode_image
from spidercap.pipeline.data.records import Source, feature_spec
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.groups import DataSettings
from spidercap.pipeline.text.coco_json import ID, TEXT, first, read_json, reject, rows

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


def fingerprint(splits: dict[str, list[Entry]], images: str) -> str:
    """Returns 12 hex digits that change with any caption, file name or file size."""
    digest = hashlib.sha256()
    for split, entries in splits.items():
        for entry in entries:
            size = os.path.getsize(os.path.join(images, entry.file_name))
            digest.update(json.dumps([split, dataclasses.astuple(entry), size]).encode())
    return digest.hexdigest()[:12]


def readable_files(files: Sequence[pathlib.Path], skip_bad_images: bool) -> list[pathlib.Path]:
    """Returns the files that TensorFlow can decode; each is decoded once, with a progress bar if there are many.

    Raises:
      UserError: none can be decoded, or some cannot and `skip_bad_images` is False.
    """

    def decodes(file: pathlib.Path) -> bool:
        try:
            return 0 not in decode_image(tf.constant(file.read_bytes())).shape
        except tf.errors.InvalidArgumentError:
            return False

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        bar = tqdm(total=len(files), desc="checking", unit="image", disable=None if len(files) > 100 else True)
        good = []
        for file, fine in zip(files, pool.map(decodes, files), strict=True):
            good += [file] * fine
            bar.update()
        bar.close()
    bad = sorted(set(files) - set(good))
    if bad and not (skip_bad_images and good):
        remedy = "replace them" if skip_bad_images else "replace them, or leave them out with --skip_bad_images"
        raise UserError(
            f"{len(bad)} of {len(files)} images cannot be decoded ({first(bad)}); "
            f"allowed: whole JPEG, PNG, BMP and GIF files; {remedy}"
        )
    if bad:
        print(f"skipping {len(bad)} of {len(files)} images that cannot be decoded: {first(bad)}", file=sys.stderr)
    return good


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
    """Returns the images and captions that the settings name.

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

    return Source(f"folder-{fingerprint(splits, settings.images)}" + "-skip" * settings.skip_bad_images, build)


def _readable(entries: list[Entry], settings: DataSettings) -> list[Entry]:
    files = [pathlib.Path(settings.images, e.file_name) for e in entries]
    good = set(readable_files(files, settings.skip_bad_images))
    return [entry for entry, file in zip(entries, files, strict=True) if file in good]
