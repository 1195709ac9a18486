"""Captions for files and folders, said by the exported model just as a model server would."""

import math
import pathlib
from collections.abc import Iterator

import tensorflow as tf
from tqdm import tqdm

from spidercap.pipeline.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
BATCH = 16


def picture_files(images: str) -> list[pathlib.Path]:
    """Returns the files that a comma-separated list of files and folders names, folders by name order.

    Raises:
      UserError: something is not there, nothing is named, or a folder holds no picture.
    """
    files: list[pathlib.Path] = []
    for part in filter(None, (p.strip() for p in images.split(","))):
        path = pathlib.Path(part)
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if not found:
                raise UserError(
                    f"--images: the folder {path} holds no picture; files that count: {', '.join(SUFFIXES)}"
                )
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(f"--images: {path} is not there; name picture files or folders, separated by commas")
    if not files:
        raise UserError(f"--images={images} names nothing; give picture files or folders, separated by commas")
    return files


def caption_files(
    model: pathlib.Path, files: list[pathlib.Path]
) -> Iterator[tuple[pathlib.Path, list[tuple[str, float]]]]:
    """Yields (file, [(caption, log-probability), ...]) for every file, by the exported model in folder `model`.

    Files are whole pictures. The captions are all that the model gives, best first.
    """
    serve = tf.saved_model.load(str(model)).signatures["serving_default"]
    for i in tqdm(range(0, len(files), BATCH), "captions", unit="batch", disable=None if len(files) > BATCH else True):
        batch = files[i : i + BATCH]
        said = serve(image_bytes=tf.constant([file.read_bytes() for file in batch]))
        captions, log_probs = (said[n] if n in said else said[n[:-1]][:, None] for n in ("captions", "log_probs"))
        for file, *of_file in zip(batch, captions.numpy(), log_probs.numpy().tolist(), strict=True):
            best, *more = ((c.decode("utf-8"), p) for c, p in zip(*of_file, strict=True))
            yield file, [best, *(one for one in more if one[1] > -math.inf)]
