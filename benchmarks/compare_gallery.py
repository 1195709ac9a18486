"""The gallery of a comparison: a page of images, each with its references and the caption of every label."""

import pathlib
from collections.abc import Mapping, Sequence
from html import escape

import tensorflow as tf

from benchmarks.compare_images import ValidationImage
from benchmarks.compare_runs import Rows
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import write_text
from spidercap.pipeline.report.page import GalleryItem, card, class_names, differences, head, page, section
from spidercap.pipeline.report.results import thumbnail

SIDE = 240  # pixels of an image's longer side
HINT = "Words that differ from the first caption are marked."


def write_gallery(
    path: pathlib.Path,
    runs: Rows,
    validation_images: Mapping[int, ValidationImage],
    images: str,
    image_ids: Sequence[int],
    notes: Sequence[str],
) -> None:
    """Writes the page, whole or not at all; a label's captions are those of its first run.

    Raises:
      UserError: an image is not in the folder `images`, or cannot be decoded.
      OSError: the page cannot be written.
    """
    colours = class_names(list(runs))
    items = [_item(runs, validation_images[image_id], images) for image_id in image_ids]
    cards = [card(item, colours, "", against_first(item.captions)) for item in items]
    title = f"{len(items)} validation images"
    body = [head(title, notes), section("Captions", "gallery", cards, HINT if len(runs) > 1 else "")]
    # A file name that is not UTF-8 reaches Python with lone surrogates, which cannot be encoded.
    write_text(path, page(title, "\n".join(body)).encode("utf-8", "replace").decode("utf-8"))


def against_first(captions: Mapping[str, str]) -> dict[str, str]:
    """Returns captions by label as HTML, with the words marked that differ from the first caption."""
    first, *_ = captions.values()
    return {
        label: escape(caption) if i == 0 else differences(first, caption)[1]
        for i, (label, caption) in enumerate(captions.items())
    }


def check_images(validation_images: Mapping[int, ValidationImage], images: str, image_ids: Sequence[int]) -> None:
    """Raises UserError if files of these images are not in the folder `images`."""
    if not pathlib.Path(images).is_dir():
        raise UserError(f"--images={images} is not a folder; give the folder of the images")
    for image_id in image_ids:
        name = validation_images[image_id].file_name
        if not pathlib.Path(images, name).is_file():
            raise UserError(f"--images={images} has no {name}, the file of image {image_id}; name the right folder")


def _item(runs: Rows, image: ValidationImage, images: str) -> GalleryItem:
    file = pathlib.Path(images, image.file_name)
    try:
        small = thumbnail(file.read_bytes(), SIDE)
    except (OSError, tf.errors.InvalidArgumentError) as error:
        raise UserError(f"{file} cannot be decoded; needed: a whole JPEG, PNG, BMP or GIF file") from error
    captions = {label: of_label[0].captions[image.image_id] for label, of_label in runs.items()}
    return GalleryItem(small, image.image_id, image.file_name, image.references, captions, {})
