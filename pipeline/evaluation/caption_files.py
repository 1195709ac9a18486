"""Captions image files and arrays with an exported model, as a model server would."""

import collections
import contextlib
import os
import pathlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from spidercap.export.saved_model import faults, kept_max_pixels
from spidercap.export.server import MISSING, SEEDED
from spidercap.export.versions import versions
from spidercap.pipeline import digests
from spidercap.pipeline.bars import progress_bar
from spidercap.pipeline.data.image_files import ANY_SIZE, FORMATS, fault, readable_files, reason_of
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.text.coco_json import ImageId, reject
from spidercap.pipeline.text.listing import read_images
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
        inputs = self._serve.structured_input_signature[1]
        self.takes_features = "features" in inputs
        if ("image_bytes" not in inputs and not self.takes_features) or "error" not in self._serve.structured_outputs:
            raise UserError(f"{folder} is no model that this version of spidercap has exported; export it again")

    @property
    def takes_parts(self) -> bool:
        """Whether features are those of parts, `[N, P, F]`."""
        return self._model.signatures["features"].structured_input_signature[1]["features"].shape.rank == 3

    @property
    def signatures(self) -> Mapping[str, Callable[..., Mapping[str, tf.Tensor]]]:
        """The functions that the model serves, by name."""
        return self._model.signatures

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
        wrong = [(row, error) for row, error in enumerate(found["error"].numpy()) if error]
        if wrong:
            row, error = wrong[0]
            raise UserError(f"image {row} cannot be decoded ({error.decode()}); replace it, or leave it out")
        return captions_of(found)

    def caption_features(self, features: np.ndarray, seed: int | None = None) -> list[list[tuple[str, float]]]:
        """Returns the same as `caption`, for features `[N, F]`, or `[N, P, F]`, as the model was trained on.

        Raises:
          UserError: features of another shape, or NaN or infinite; a seed, if the model samples captions of images.
        """
        shape = self._model.signatures["features"].structured_input_signature[1]["features"].shape
        features = np.asarray(features)
        if not shape.is_compatible_with(features.shape) or features.dtype.kind not in "fiu":
            needed = f"[N, {'P, ' if shape.rank == 3 else ''}{shape[-1]}]"
            raise UserError(f"features are {features.dtype} {list(features.shape)}; needed: numbers {needed}")
        if not np.isfinite(features).all():
            raise UserError("features are NaN or infinite; leave those images out")
        features = features.astype(np.float32)
        serve = self._model.signatures["features"]
        return captions_of(self._served(serve, seed, map(bytes, features), features=tf.constant(features)))

    def _served(
        self, serve: Callable, seed: int | None, rows: Iterable[bytes], **given: tf.Tensor
    ) -> Mapping[str, tf.Tensor]:
        """What the signature returns; with a seed, what is drawn by a seed of each row, made of it and of the row."""
        seeded = self._model.signatures.get(SEEDED)
        if seed is None or seeded is None:
            return serve(**given)
        if not given.keys() <= seeded.structured_input_signature[1].keys():
            raise UserError("this model takes a seed with images alone; give images to caption(), or no seed")
        return seeded(**given, seed=tf.constant([zlib.crc32(row, seed) for row in rows], tf.int64))


def exported_model(path: str | os.PathLike) -> pathlib.Path:
    """Returns the folder of the newest exported model of a workdir or export folder, or of that version itself.

    Raises:
      UserError: the folder holds no exported model.
    """
    if not isinstance(path, str | os.PathLike) or not os.path.isdir(path):
        raise UserError(f"{str(path)[:200]!r} is no folder; name a workdir, its export folder or one version")
    folder = pathlib.Path(path)
    if (folder / "saved_model.pb").is_file():
        return folder
    found = versions(folder / "export") or versions(folder)
    if not found:
        raise UserError(
            f"{folder} holds no exported model; name a workdir, its export folder or one version; "
            f"--mode=export --workdir={folder} exports a trained run"
        )
    return found[-1]


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


def caption_files(
    captioner: ExportedCaptioner,
    files: Sequence[pathlib.Path],
    skip_bad_images: bool = False,
    seed: int | None = None,
) -> Iterator[tuple[pathlib.Path, list[tuple[str, float]]]]:
    """Yields (file, [(caption, log-probability), ...]) for every file, captioned by an exported model.

    The captions are all those of the model, best first. Of many files, those that cannot be read should be left out
    before (`readable_files`), or the error comes after the captions of others. `seed` is that of `caption`.

    Raises:
      UserError: files cannot be read, and `skip_bad_images` is False or they are a whole batch.
    """
    with progress_bar(len(files), "captions", "image", shown=len(files) > BATCH) as bar:
        for i in range(0, len(files), BATCH):
            yield from _of_batch(captioner, files[i : i + BATCH], skip_bad_images, seed)
            bar.update(min(BATCH, len(files) - i))


@contextlib.contextmanager
def as_traced(wanted: bool) -> Iterator[None]:
    """Runs models in the block without optimizing their graphs, if `wanted`.

    That takes two seconds at the first call, which a few images do not repay.
    """
    options = tf.config.optimizer
    before = options.get_experimental_options().get("disable_meta_optimizer", False)
    options.set_experimental_options({"disable_meta_optimizer": before or wanted})
    try:
        yield
    finally:
        options.set_experimental_options({"disable_meta_optimizer": before})


def ids_by_name(path: str) -> dict[str, ImageId]:
    """Returns the ids of the images of a captions file by file name, and by its last part where that is one image's.

    Raises:
      UserError: the file cannot be used, or names no files.
    """
    listed = [one for one in read_images(path) if one.file_name]
    if not listed:
        raise UserError(f"--captions={path} names no files; give a file with the ids and the names of images")
    last = collections.Counter(os.path.basename(one.file_name) for one in listed)
    short = {os.path.basename(one.file_name): one.image_id for one in listed}
    return {n: i for n, i in short.items() if last[n] == 1} | {one.file_name: one.image_id for one in listed}


def ids_of_names(names: Sequence[str], ids: Mapping[str, ImageId]) -> dict[str, ImageId]:
    """Returns the id of each image for a results file: as `ids` has it; without ids, the file's name.

    Where two files have one name, their paths are the ids.

    Raises:
      UserError: there are ids, but not of all images.
    """
    if not ids:
        last = {name: os.path.basename(name) for name in names}
        return last if len(set(last.values())) == len(last) else {name: name for name in names}
    found = {name: next((ids[tail] for tail in _tails(name) if tail in ids), None) for name in names}
    unknown = [name for name, image_id in found.items() if image_id is None]
    reject("--captions", "images are not in that file", unknown, "caption those of the file alone, or leave it out")
    return found


def _tails(name: str) -> Iterator[str]:
    """The path, then without its first folder, and so on."""
    parts = pathlib.PurePath(name).parts
    yield from (os.path.join(*parts[first:]) for first in range(len(parts)))


def _of_batch(
    captioner: ExportedCaptioner, files: Sequence[pathlib.Path], skip_bad_images: bool, seed: int | None
) -> list[tuple[pathlib.Path, list[tuple[str, float]]]]:
    try:
        return list(zip(files, captioner.caption_bytes([file.read_bytes() for file in files], seed), strict=True))
    except (OSError, UserError):
        good = readable_files(files, skip_bad_images, captioner.max_pixels)  # names those that vanished or changed
        if len(good) == len(files):
            raise
    return _of_batch(captioner, good, skip_bad_images, seed)


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
