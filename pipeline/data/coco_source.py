"""Your own images as a data set: each is read, checked and stored with its captions through TFDS."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping

import tensorflow_datasets as tfds

from spidercap.pipeline.data.captions_file import Entry, read_captions
from spidercap.pipeline.data.image_digests import ImageDigests
from spidercap.pipeline.data.image_files import readable_files, reason_of, skip_or_reject
from spidercap.pipeline.data.records import Source, feature_spec, fits_int64, stored_id
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.groups import DataSettings
from spidercap.pipeline.text.printable import printable


def fingerprint(splits: Mapping[str, list[Entry]], digests: Mapping[str, str]) -> str:
    """Returns 12 hex digits that change with any caption, file name or image; `digests` are by file name."""
    digest = hashlib.sha256()
    for split, entries in splits.items():
        for entry in entries:
            digest.update(json.dumps([split, dataclasses.astuple(entry), digests[entry.file_name]]).encode())
    return digest.hexdigest()[:12]


class Folder(tfds.core.GeneratorBasedBuilder):
    """Images and captions as a TFDS data set with the splits of `splits`; `digests` are those of the images."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, splits: dict[str, list[Entry]], images: str, digests: Mapping[str, str], **kwargs):
        self._splits, self._images, self._digests = splits, images, digests
        self._int64_ids = all(fits_int64(e.image_id) for entries in splits.values() for e in entries)
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self, description="Images of a folder.", features=feature_spec(self._int64_ids)
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager
        return {name: self._generate_examples(entries) for name, entries in self._splits.items()}

    def _generate_examples(self, entries: list[Entry]) -> Iterator[tuple[bytes, dict]]:
        for entry in entries:
            yield (
                json.dumps(entry.image_id).encode(),  # orders the records; of an integer the same as the integer
                {
                    "image": self._read(entry.file_name),
                    "image_id": stored_id(entry.image_id, self._int64_ids),
                    "file_name": entry.file_name,
                    "captions": list(entry.captions),
                },
            )

    def _read(self, name: str) -> bytes:
        """The encoded image; raises UserError if it is no longer the one that the data set is named after."""
        file = pathlib.Path(self._images, name)
        try:
            encoded = file.read_bytes()
        except OSError as error:
            raise UserError(
                f"{printable(file)} cannot be read any more ({reason_of(error)}); restore it, then run the same "
                "command again"
            ) from error
        if hashlib.sha256(encoded).hexdigest() != self._digests[name]:
            raise UserError(f"{printable(file)} changed while the images were read; run the same command again")
        return encoded


def folder_source(settings: DataSettings, cache: pathlib.Path) -> Source:
    """Returns the images and captions that the settings name; digests of the images are kept in the cache folder.

    Raises:
      UserError: captions cannot be used, or images cannot be read; from `build`, images cannot be decoded.
    """
    paths = {"train": settings.train_captions, "val": settings.val_captions}
    skip = {"skip_bad_captions": settings.skip_bad_captions, "skip_bad_images": settings.skip_bad_images}
    splits = {split: read_captions(path, settings.images, **skip) for split, path in paths.items()}
    index = ImageDigests(settings.images, cache)
    digests, faults = index.find(entry.file_name for entries in splits.values() for entry in entries)
    if faults and not settings.skip_bad_images:
        index.save()
        skip_or_reject(faults, len(digests), skip_bad_images=False)

    def build(root: pathlib.Path) -> Folder:
        index.save()
        readable = {split: _readable(entries, settings) for split, entries in splits.items()}
        return Folder(splits=readable, images=settings.images, digests=digests, data_dir=root)

    return Source(f"folder-{fingerprint(splits, digests)}" + "-skip" * settings.skip_bad_images, build)


def _readable(entries: list[Entry], settings: DataSettings) -> list[Entry]:
    files = [pathlib.Path(settings.images, e.file_name) for e in entries]
    good = set(readable_files(files, settings.skip_bad_images, settings.max_pixels))
    return [entry for entry, file in zip(entries, files, strict=True) if file in good]
