"""The gallery of a comparison: a page of images, each with its references and the caption of every label."""

import pathlib
from collections.abc import Mapping, Sequence
from html import escape

import tensorflow as tf

from benchmarks.compare_images import ValidationImage
from benchmarks.compare_runs import Rows
from spidercap.pipeline.data.file_names import real_names
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import write_text
from spidercap.pipeline.report.page import GalleryItem, card, class_names, differences, head, page, section
from spidercap.pipeline.report.results import thumbnail
from spidercap.pipeline.text.coco_json import ImageId

SIDE = 240  # pixels of an image's longer side
HINT = "Words that differ from the first caption are marked."


def write_gallery(
    path: pathlib.Path,
    runs: Rows,
    validation_images: Mapping[ImageId, ValidationImage],
    images: str,
    image_ids: Sequence[ImageId],
    notes: Sequence[str],
) -> None:
    """Writes the page, whole or not at all; a label's captions are those of its first run.

    Raises:
      UserError: an image is not in the folder `images`, or cannot be decoded.
      OSError: the page cannot be written.
    """
    colours = class_names(list(runs))
    chosen = [validation_images[image_id] for image_id in image_ids]
    real = real_names((image.file_name for image in chosen), images)
    files = [pathlib.Path(images, real.get(image.file_name, image.file_name)) for image in chosen]
    items = [_item(runs, image, file) for image, file in zip(chosen, files, strict=True)]
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


def check_images(
    validation_images: Mapping[ImageId, ValidationImage], images: str, image_ids: Sequence[ImageId]
) -> None:
    """Raises UserError if files of these images are not in the folder `images`."""
    if not pathlib.Path(images).is_dir():
        raise UserError(f"--images={images} is not a folder; give the folder of the images")
    names = {image_id: validation_images[image_id].file_name for image_id in image_ids}
    real = real_names(names.values(), images)
    for image_id, name in names.items():
        if name not in real:
            raise UserError(f"--images={images} has no {name}, the file of image {image_id}; name the right folder")


def _item(runs: Rows, image: ValidationImage, file: pathlib.Path) -> GalleryItem:
    try:
        small = thumbnail(file.read_bytes(), SIDE)
    except (OSError, tf.errors.InvalidArgumentError) as error:
        raise UserError(f"{file} cannot be decoded; needed: a whole JPEG, PNG, BMP or GIF file") from error
    captions = {label: of_label[0].captions[image.image_id] for label, of_label in runs.items()}
    return GalleryItem(small, image.image_id, image.file_name, image.references, captions, {})
