"""Captions image files and arrays with an exported model, as a model server would."""

import math
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from spidercap.models.image_headers import FORMATS
from spidercap.pipeline.data.image_files import has_image_format, image_fault
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.text.one_line import shown_name

# Files of a folder with one of these names are images, even if their contents are damaged.
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp")
BATCH = 16
MOST_NAMED = 10  # files left out
MOST_COMMAS = 32  # in one path


def image_files(images: str) -> list[pathlib.Path]:
    """Returns the files of a comma-separated list of files and folders; those of a folder are sorted by name.

    Files are taken as they are. Of a folder, those whose contents or suffix are of an image are taken; the others are
    named on stderr.

    Raises:
      UserError: a file or folder does not exist, the list is empty, or a folder holds no images.
    """
    files: list[pathlib.Path] = []
    others: list[pathlib.Path] = []
    for path in map(pathlib.Path, split_paths(images)):
        if not path.is_dir():
            files.append(path)
            continue
        of_folder = sorted(p for p in path.rglob("*") if p.is_file())
        found = [p for p in of_folder if _is_image(p)]
        if not found:
            raise UserError(
                f"--images: the folder {shown_name(path)} holds no images; allowed: {FORMATS}; name another folder"
            )
        files += found
        others += sorted(set(of_folder) - set(found))
    if others:
        names = ", ".join(map(shown_name, others[:MOST_NAMED])) + ", ..." * (len(others) > MOST_NAMED)
        print(f"warning: {len(others)} files that are no {FORMATS} are left out: {names}", file=sys.stderr)
    return files


def split_paths(images: str) -> list[str]:
    """Returns the paths of a comma-separated list. A path may have commas, and blanks at its ends, if it exists.

    Raises:
      UserError: one does not exist, or the list is empty.
    """
    parts = images.split(",")
    # From the last part to the first: the paths of the parts from here on, and what is missing among them.
    paths: list[list[str]] = [[] for _ in range(len(parts) + 1)]
    missing = [""] * (len(parts) + 1)
    for i in range(len(parts) - 1, -1, -1):
        ends = range(len(parts), i, -1) if not i else range(min(i + MOST_COMMAS + 1, len(parts)), i, -1)
        found = [(end, path) for end in ends if (path := _existing(",".join(parts[i:end])))]
        if not parts[i].strip():
            found.append((i + 1, ""))
        # The longest path after which nothing is missing.
        end, path = next((one for one in found if not missing[one[0]]), found[0] if found else (i + 1, ""))
        paths[i] = [path, *paths[end]] if path else paths[end]
        missing[i] = missing[end] if found else parts[i].strip()
    if missing[0]:
        raise UserError(
            f"--images: {shown_name(missing[0])} does not exist; name image files or folders, separated by commas"
        )
    if not paths[0]:
        raise UserError(
            f"--images={shown_name(images)} names no files; name image files or folders, separated by commas"
        )
    return paths[0]


def _existing(path: str) -> str:
    """The path of a file or folder, if it exists as it is, or without blanks at its ends; else ''."""
    return next((p for p in (path, path.strip()) if os.path.isfile(p) or os.path.isdir(p)), "")


def _is_image(file: pathlib.Path) -> bool:
    if file.suffix.lower() in SUFFIXES:
        return True
    try:
        with open(file, "rb") as opened:
            return has_image_format(opened.read(16))
    except OSError:
        return False


class ExportedCaptioner:
    """An exported model, loaded."""

    def __init__(self, folder: str | os.PathLike):
        """Loads the model in the folder of one version.

        Raises:
          UserError: the folder holds no exported model.
        """
        if not (pathlib.Path(folder) / "saved_model.pb").is_file():
            raise UserError(f"{folder} holds no exported model (no saved_model.pb); name the folder of a version")
        try:
            self._model = tf.saved_model.load(os.fspath(folder))
            self._serve = self._model.signatures["serving_default"]
            self._check = self._model.signatures.get("check")  # models of earlier versions have none
        except Exception as error:  # TensorFlow raises anything for a damaged file
            raise UserError(f"{folder} cannot be loaded ({type(error).__name__}: {error}); export it again") from error
        if "image_bytes" not in self._serve.structured_input_signature[1]:
            raise UserError(f"{folder} is a model of something else; name one that spidercap has exported")

    def caption(self, images: Sequence[str | os.PathLike | bytes | np.ndarray]) -> list[list[tuple[str, float]]]:
        """Returns (caption, log-probability) for each image, best first: as many as the model was exported with.

        Args:
          images: files, encoded images (bytes of a JPEG, PNG, GIF, BMP or WebP) or arrays, uint8 `[H, W, 3]`.

        Raises:
          UserError: a file cannot be read, or an image cannot be decoded.
        """
        if isinstance(images, str | bytes | os.PathLike | np.ndarray):
            raise UserError("caption() takes a list of images; for a single one, caption([image])")
        encoded = [self._checked(image, f"image {i}") for i, image in enumerate(images)]
        parts = [encoded[i : i + BATCH] for i in range(0, len(encoded), BATCH)]
        return [of_image for part in parts for of_image in self.caption_bytes(part)]

    def _checked(self, image: str | os.PathLike | bytes | np.ndarray, position: str) -> bytes:
        encoded, name = _encoded(image, position), _name(image, position)
        fault = self._check(image_bytes=tf.constant([encoded]))["fault"][0].numpy().decode() if self._check else ""
        fault = fault or image_fault(encoded)
        if fault:
            raise UserError(f"{name} cannot be decoded: it {fault}; allowed: whole {FORMATS} images; replace it")
        return encoded

    def caption_bytes(self, encoded: Sequence[bytes]) -> list[list[tuple[str, float]]]:
        """Returns the same as `caption`, for one batch of encoded images that can be decoded."""
        found = self._serve(image_bytes=tf.constant(encoded))
        captions, log_probs = (
            found[n].numpy() if n in found else found[n[:-1]].numpy()[:, None] for n in ("captions", "log_probs")
        )
        pairs = [
            [(caption.decode("utf-8"), log_prob) for caption, log_prob in zip(*of_image, strict=True)]
            for of_image in zip(captions, log_probs.tolist(), strict=True)
        ]
        # If the model finds fewer captions than requested, the last ones are empty, with -inf.
        return [[best, *(one for one in more if one[1] > -math.inf)] for best, *more in pairs]


def caption_files(
    model: pathlib.Path, files: Sequence[pathlib.Path]
) -> Iterator[tuple[pathlib.Path, list[tuple[str, float]]]]:
    """Yields (file, [(caption, log-probability), ...]) for every file, from the exported model in folder `model`.

    All files must be decodable images. The captions are all those of the model, best first.
    """
    captioner = ExportedCaptioner(model)
    for i in tqdm(range(0, len(files), BATCH), "captions", unit="batch", disable=None if len(files) > BATCH else True):
        batch = files[i : i + BATCH]
        yield from zip(batch, captioner.caption_bytes([file.read_bytes() for file in batch]), strict=True)


def _encoded(image: str | os.PathLike | bytes | np.ndarray, name: str) -> bytes:
    """The image as bytes that the model can decode."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise UserError(f"{name} is {image.dtype} {list(image.shape)}; an array must be uint8 [H, W, 3]")
        return tf.io.encode_png(image).numpy()
    if isinstance(image, str | os.PathLike):
        try:
            image = pathlib.Path(image).read_bytes()
        except (OSError, ValueError) as error:  # a path with a NUL byte is a ValueError
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{_name(image, name)} cannot be read ({reason}); name an image file") from error
    if not isinstance(image, bytes):
        raise UserError(f"{name} is a {type(image).__name__}; give a path, bytes, or a uint8 array [H, W, 3]")
    return image


def _name(image: str | os.PathLike | bytes | np.ndarray, position: str) -> str:
    return shown_name(image) if isinstance(image, str | os.PathLike) else position
