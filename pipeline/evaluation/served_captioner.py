"""Captions images and features by the signatures of a model: one that was exported, or several runs as one."""

import os
import pathlib
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from spidercap.export.server import MISSING, SEEDED
from spidercap.pipeline.data.image_files import FORMATS, fault, reason_of
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.text.printable import printable

BATCH = 16


class ServedCaptioner:
    """Captions images, or features, by the signatures of a model."""

    def __init__(self, signatures: Mapping[str, Callable[..., Mapping[str, tf.Tensor]]], max_pixels: int):
        """Takes functions with the inputs and outputs of those that a model serves; larger images are rejected."""
        self._signatures, self.max_pixels = signatures, max_pixels
        self._serve = signatures["serving_default"]
        self.takes_features = "features" in self._serve.structured_input_signature[1]

    @property
    def takes_parts(self) -> bool:
        """Whether features are those of parts, `[N, P, F]`."""
        return self._signatures["features"].structured_input_signature[1]["features"].shape.rank == 3

    @property
    def signatures(self) -> Mapping[str, Callable[..., Mapping[str, tf.Tensor]]]:
        """The functions that the model serves, by name."""
        return self._signatures

    def caption(
        self, images: Sequence[str | os.PathLike | bytes | np.ndarray], seed: int | None = None
    ) -> list[list[tuple[str, float]]]:
        """Returns (caption, log-probability) for each image, best first: as many as the model was exported with.

        Args:
          images: files, encoded images (JPEG, PNG, GIF, BMP or WebP bytes) or arrays, uint8 `[H, W, 3]`.
          seed: of a model that samples: an image has the same captions at each call, whatever images are beside it.
            Without it they are drawn anew. Other models do not read it.

        Raises:
          UserError: a file cannot be read, or an image cannot be decoded.
        """
        if isinstance(images, str | bytes | os.PathLike | np.ndarray):
            raise UserError("caption() takes a list of images; for a single one, caption([image])")
        if self.takes_features:
            raise UserError("this model was trained on features; give them to caption_features()")
        encoded = [_encoded(image, f"image {i}", self.max_pixels) for i, image in enumerate(images)]
        parts = [encoded[i : i + BATCH] for i in range(0, len(encoded), BATCH)]
        return [of_image for part in parts for of_image in self.caption_bytes(part, seed)]

    def caption_bytes(self, encoded: Sequence[bytes], seed: int | None = None) -> list[list[tuple[str, float]]]:
        """Returns the same as `caption`, for one batch of encoded images.

        Raises:
          UserError: an image cannot be decoded.
        """
        found = self._served(self._serve, seed, encoded, image_bytes=tf.constant(encoded))
        for row, error in _faults(found):
            raise UserError(f"image {row} cannot be decoded ({error}); replace it, or leave it out")
        return captions_of(found)

    def caption_features(self, features: np.ndarray, seed: int | None = None) -> list[list[tuple[str, float]]]:
        """Returns the same as `caption`, for features `[N, F]`, or `[N, P, F]`, as the model was trained on.

        Raises:
          UserError: features of another shape, or NaN or infinite; a seed, if the model samples captions of images;
            several runs on images.
        """
        if "features" not in self._signatures:
            raise UserError("runs on images that decode together take images alone; give them to caption()")
        shape = self._signatures["features"].structured_input_signature[1]["features"].shape
        features = np.asarray(features)
        if not shape.is_compatible_with(features.shape) or features.dtype.kind not in "fiu":
            needed = f"[N, {'P, ' if shape.rank == 3 else ''}{shape[-1]}]"
            raise UserError(f"features are {features.dtype} {list(features.shape)}; needed: numbers {needed}")
        if not np.isfinite(features).all():
            raise UserError("features are NaN or infinite; leave those images out")
        features = features.astype(np.float32)
        serve = self._signatures["features"]
        found = self._served(serve, seed, map(bytes, features), features=tf.constant(features))
        for row, error in _faults(found):
            raise UserError(f"features: row {row} {error}; give others, or leave it out")
        return captions_of(found)

    def _served(
        self, serve: Callable, seed: int | None, rows: Iterable[bytes], **given: tf.Tensor
    ) -> Mapping[str, tf.Tensor]:
        """What the signature returns; with a seed, what is drawn by a seed of each row, made of it and of the row."""
        seeded = self._signatures.get(SEEDED)
        if seed is None or seeded is None:
            return serve(**given)
        if not given.keys() <= seeded.structured_input_signature[1].keys():
            raise UserError("this model takes a seed with images alone; give images to caption(), or no seed")
        return seeded(**given, seed=tf.constant([zlib.crc32(row, seed) for row in rows], tf.int64))


def _faults(found: Mapping[str, tf.Tensor]) -> list[tuple[int, str]]:
    """The rows that a signature has not captioned, each with the reason."""
    return [(row, error.decode()) for row, error in enumerate(found["error"].numpy()) if error]


def captions_of(found: Mapping[str, tf.Tensor]) -> list[list[tuple[str, float]]]:
    """Returns (caption, log-probability) for each image, best first, of what a signature of a model returns."""
    captions, log_probs = (
        found[n].numpy() if n in found else found[n[:-1]].numpy()[:, None] for n in ("captions", "log_probs")
    )
    pairs = [
        [(caption.decode("utf-8"), log_prob) for caption, log_prob in zip(*of_image, strict=True)]
        for of_image in zip(captions, log_probs.tolist(), strict=True)
    ]
    # If the model finds fewer captions than requested, the last ones are empty.
    return [[best, *(one for one in more if one[1] > MISSING)] for best, *more in pairs]


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
