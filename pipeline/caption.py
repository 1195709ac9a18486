"""Captions for files and folders, said by the exported model just as a model server would."""

import pathlib
from collections.abc import Iterator

import tensorflow as tf
from tqdm import tqdm

from models.encoder import decode_image
from pipeline.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
BATCH = 16


def picture_files(images: str) -> list[pathlib.Path]:
    """Returns the files that a comma-separated list of files and folders names, folders by name order.

    Raises:
      UserError: something is not there, or a folder holds no picture.
    """
    files: list[pathlib.Path] = []
    for part in filter(None, (p.strip() for p in images.split(","))):
        path = pathlib.Path(part)
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if not found:
                raise UserError(f"--images: the folder {path} holds no picture ({', '.join(SUFFIXES)})")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(f"--images: {path} is not there; name picture files or folders, separated by commas")
    return files


def caption_files(
    model: pathlib.Path, files: list[pathlib.Path], skip_bad_images: bool
) -> Iterator[tuple[pathlib.Path, str, float]]:
    """Yields (file, caption, log-probability) for every file, by the exported model in folder `model`.

    Raises:
      UserError: a file is no whole picture, unless `skip_bad_images`.
    """
    serve = tf.saved_model.load(str(model)).signatures["serving_default"]
    for i in tqdm(range(0, len(files), BATCH), "captions", unit="batch", disable=None if len(files) > BATCH else True):
        batch = [(f, data) for f in files[i : i + BATCH] if (data := _readable(f, skip_bad_images)) is not None]
        if batch:
            said = serve(image_bytes=tf.constant([data for _, data in batch]))
            captions = [c.decode("utf-8") for c in said["caption"].numpy()]
            yield from zip([f for f, _ in batch], captions, said["log_prob"].numpy().tolist(), strict=True)


def _readable(file: pathlib.Path, skip_bad_images: bool) -> bytes | None:
    data = file.read_bytes()
    try:
        decode_image(tf.constant(data))
        return data
    except tf.errors.InvalidArgumentError as error:
        if not skip_bad_images:
            raise UserError(f"{file} is no whole JPEG, PNG, BMP or GIF; --skip_bad_images leaves it out") from error
        tqdm.write(f"leaving out {file}: no whole picture")
        return None
