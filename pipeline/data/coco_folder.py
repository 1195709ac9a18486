"""Your own images: COCO-format JSON and a folder of images, checked, then stored as a TFDS data set."""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence

import tensorflow as tf
import tensorflow_datasets as tfds
from tqdm import tqdm

from spidercap.models.encoder import decode_image
from spidercap.pipeline.data.captions_file import Entry, read_captions
from spidercap.pipeline.data.records import Source, feature_spec, fits_int64, stored_id
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.groups import DataSettings
from spidercap.pipeline.text.coco_json import first


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
        self._int64_ids = all(fits_int64(e.image_id) for entries in splits.values() for e in entries)
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = feature_spec(self._int64_ids)
        return tfds.core.DatasetInfo(builder=self, description="Images of a folder.", features=features)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager
        return {name: self._generate_examples(entries) for name, entries in self._splits.items()}

    def _generate_examples(self, entries: list[Entry]) -> Iterator[tuple[bytes, dict]]:
        for entry in entries:
            yield (
                json.dumps(entry.image_id).encode(),  # orders the records; of an integer the same as the integer
                {
                    "image": os.path.join(self._images, entry.file_name),
                    "image_id": stored_id(entry.image_id, self._int64_ids),
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
    skip = {"skip_bad_captions": settings.skip_bad_captions, "skip_bad_images": settings.skip_bad_images}
    splits = {split: read_captions(path, settings.images, **skip) for split, path in paths.items()}

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
