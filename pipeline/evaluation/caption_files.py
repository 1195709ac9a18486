"""Captions image files and arrays with an exported model, as a model server would."""

import math
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from spidercap.export.saved_model import faults, kept_max_pixels
from spidercap.pipeline import digests
from spidercap.pipeline.data.image_files import ANY_SIZE, FORMATS, fault, readable_files, reason_of
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.text.printable import printable

BATCH = 16


class ExportedCaptioner:
    """An exported model, loaded."""

    def __init__(self, folder: str | os.PathLike):
        """Loads the model in the folder of one version.

        Raises:
          UserError: the folder holds no exported model, or it is damaged.
        """
        if not (pathlib.Path(folder) / "saved_model.pb").is_file():
            raise UserError(f"{folder} holds no exported model (no saved_model.pb); name the folder of a version")
        damaged = digests.listed(faults(pathlib.Path(folder)))
        if damaged:
            raise UserError(f"{folder} is not what was exported ({damaged}); export it again with --mode=export")
        self.max_pixels = kept_max_pixels(pathlib.Path(folder)) or ANY_SIZE
        try:
            self._model = tf.saved_model.load(os.fspath(folder))
            self._serve = self._model.signatures["serving_default"]
        except Exception as error:  # TensorFlow raises anything for a damaged file
            raise UserError(f"{folder} cannot be loaded ({type(error).__name__}: {error}); export it again") from error
        if "image_bytes" not in self._serve.structured_input_signature[1]:
            raise UserError(f"{folder} is a model of something else; name one that spidercap has exported")

    def caption(self, images: Sequence[str | os.PathLike | bytes | np.ndarray]) -> list[list[tuple[str, float]]]:
        """Returns (caption, log-probability) for each image, best first: as many as the model was exported with.

        Args:
          images: files, encoded images (JPEG, PNG, GIF, BMP or WebP bytes) or arrays, uint8 `[H, W, 3]`.

        Raises:
          UserError: a file cannot be read, or an image cannot be decoded.
        """
        if isinstance(images, str | bytes | os.PathLike | np.ndarray):
            raise UserError("caption() takes a list of images; for a single one, caption([image])")
        encoded = [_encoded(image, f"image {i}", self.max_pixels) for i, image in enumerate(images)]
        parts = [encoded[i : i + BATCH] for i in range(0, len(encoded), BATCH)]
        return [of_image for part in parts for of_image in self.caption_bytes(part)]

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
    model: pathlib.Path, files: Sequence[pathlib.Path], skip_bad_images: bool = False
) -> Iterator[tuple[pathlib.Path, list[tuple[str, float]]]]:
    """Yields (file, [(caption, log-probability), ...]) for every file, from the exported model in folder `model`.

    All files must be images that `readable_files` has checked. The captions are all those of the model, best first.

    Raises:
      UserError: files vanished or changed since, and `skip_bad_images` is False or they are a whole batch.
    """
    captioner = ExportedCaptioner(model)
    for i in tqdm(range(0, len(files), BATCH), "captions", unit="batch", disable=None if len(files) > BATCH else True):
        yield from _of_batch(captioner, files[i : i + BATCH], skip_bad_images)


def _of_batch(
    captioner: ExportedCaptioner, files: Sequence[pathlib.Path], skip_bad_images: bool
) -> list[tuple[pathlib.Path, list[tuple[str, float]]]]:
    try:
        return list(zip(files, captioner.caption_bytes([file.read_bytes() for file in files]), strict=True))
    except (OSError, tf.errors.OpError):
        good = readable_files(files, skip_bad_images, captioner.max_pixels)  # names those that vanished or changed
        if len(good) == len(files):
            raise
    return _of_batch(captioner, good, skip_bad_images)


def _encoded(image: str | os.PathLike | bytes | np.ndarray, name: str, max_pixels: int) -> bytes:
    """The image as bytes that the model can decode."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise UserError(f"{name} is {image.dtype} {list(image.shape)}; an array must be uint8 [H, W, 3]")
        return tf.io.encode_png(image).numpy()
    if isinstance(image, str | os.PathLike):
        name = printable(os.fsdecode(image))
        try:
            image = pathlib.Path(image).read_bytes()
        except (OSError, ValueError) as error:  # a path with a NUL byte is a ValueError
            reason = reason_of(error) if isinstance(error, OSError) else error
            raise UserError(f"{name} cannot be read ({reason}); name an image file") from error
    if not isinstance(image, bytes):
        raise UserError(f"{name} is a {type(image).__name__}; give a path, bytes, or a uint8 array [H, W, 3]")
    wrong = fault(image, max_pixels)
    if wrong:
        raise UserError(f"{name} cannot be decoded ({wrong}); allowed: whole {FORMATS} images; replace it")
    return image
