"""Your own pictures: COCO-format JSON and a folder of images, checked, then stored as a TFDS data set."""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from tqdm import tqdm

from models.encoder import decode_image
from pipeline.datasets.records import feature_spec
from pipeline.errors import UserError


@dataclasses.dataclass(frozen=True)
class Entry:
    """One picture with its captions."""

    image_id: int
    file_name: str
    captions: tuple[str, ...]


def read_captions(path: str, images: str) -> list[Entry]:
    """Returns the pictures of a COCO-format JSON file, ordered by id; their files lie in the folder `images`.

    Raises:
      UserError: no JSON, keys missing, pictures that are not there, empty captions, pictures without captions.
    """
    if not os.path.isdir(images):
        raise UserError(f"--images={images} is no folder; give the folder that holds the pictures")
    names, captions = _read_json(path)
    empty = [i for i, texts in captions.items() if not all(t.strip() for t in texts)]
    _refuse(path, "pictures with an empty caption", empty, "mend or remove those annotations")
    _refuse(path, "pictures without a caption", sorted(names.keys() - captions.keys()), "remove those images")
    _refuse(path, "annotations of unknown image ids", sorted(captions.keys() - names.keys()), "add those images")
    present = {os.path.normpath(p) for p in _files(images)}
    missing = [name for name in names.values() if os.path.normpath(name) not in present]
    _refuse(path, f"pictures that are not in {images}", missing, "check --images")
    return [Entry(i, names[i], tuple(captions[i])) for i in sorted(names)]


def fingerprint(splits: dict[str, list[Entry]], images: str) -> str:
    """Returns 12 hex digits that change with any caption, file name or file size."""
    digest = hashlib.sha256()
    for split, entries in splits.items():
        for entry in entries:
            size = os.path.getsize(os.path.join(images, entry.file_name))
            digest.update(json.dumps([split, dataclasses.astuple(entry), size]).encode())
    return digest.hexdigest()[:12]


def unreadable(entries: Iterable[Entry], images: str) -> list[Entry]:
    """Returns those entries whose file TensorFlow cannot decode; every picture is decoded once, with a bar."""
    entries = list(entries)

    def fails(entry: Entry) -> bool:
        data = pathlib.Path(images, entry.file_name).read_bytes()
        try:
            return 0 in decode_image(tf.constant(data)).shape
        except tf.errors.InvalidArgumentError:
            return True

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = tqdm(pool.map(fails, entries, chunksize=64), "checking", len(entries), unit="image", disable=None)
        return [entry for entry, bad in zip(entries, results, strict=True) if bad]


class Folder(tfds.core.GeneratorBasedBuilder):
    """Pictures and captions of a folder as a TFDS data set with the splits that `splits` names."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, splits: dict[str, list[Entry]], images: str, **kwargs):
        self._splits, self._images = splits, images
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, description="Pictures of a folder.", features=feature_spec())

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


def _read_json(path: str) -> tuple[dict[int, str], dict[int, list[str]]]:
    """Returns file name by image id, and captions by image id."""
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not JSON ({error}); a COCO captions file is needed") from error
    try:
        pairs = [(int(image["id"]), str(image["file_name"])) for image in content["images"]]
        captions: dict[int, list[str]] = {}
        for annotation in content["annotations"]:
            captions.setdefault(int(annotation["image_id"]), []).append(_text(annotation["caption"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is no COCO captions file ({type(error).__name__}: {error}); needed: "
            '{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}'
        ) from error
    names = dict(pairs)
    if not names:
        raise UserError(f"{path} lists no images; at least one is needed")
    if len(names) < len(pairs):
        raise UserError(f"{path} lists {len(pairs) - len(names)} image ids twice; ids must be unique")
    return names, captions


def _text(caption: object) -> str:
    if not isinstance(caption, str):
        raise TypeError(f"caption {caption!r} is not a string")
    return caption


def _files(folder: str) -> Iterator[str]:
    for root, _, names in os.walk(folder, followlinks=True):
        for name in names:
            yield os.path.relpath(os.path.join(root, name), folder)


def _refuse(path: str, what: str, which: list, remedy: str) -> None:
    if which:
        first = ", ".join(str(w) for w in which[:3]) + (", ..." if len(which) > 3 else "")
        raise UserError(f"{path}: {len(which)} {what} ({first}); {remedy}")
