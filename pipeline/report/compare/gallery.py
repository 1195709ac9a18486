"""The captions of a comparison side by side: images with the caption of every row."""

import pathlib
from collections.abc import Mapping, Sequence
from html import escape

from spidercap.pipeline.data.file_names import real_names
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.quiet_start import import_tensorflow
from spidercap.pipeline.report.cards import GalleryItem, card
from spidercap.pipeline.report.charts import Colours
from spidercap.pipeline.report.compare.groups import Rows
from spidercap.pipeline.report.compare.images import ListedImage
from spidercap.pipeline.report.word_differences import differences
from spidercap.pipeline.text.coco_json import ImageId

SIDE = 240  # pixels of an image's longer side


def cards(rows: Rows, listed: Mapping[ImageId, ListedImage], folder: str, ids: Sequence[ImageId], colours: Colours):
    """Returns a card for each of the images; a row's captions are those of its first run that has any.

    Args:
      rows: the runs.
      listed: names and references, if they are known.
      folder: of the images; '' shows none.
      ids: the images.
      colours: a CSS class for each row.

    Raises:
      UserError: an image is not in the folder, or cannot be decoded.
    """
    said = {label: next((run.captions for run in of_row if run.captions), {}) for label, of_row in rows.items()}
    files = image_files(listed, folder, ids) if folder else {}
    items = []
    for image_id in ids:
        known = listed.get(image_id, ListedImage(image_id, "", ()))
        image = _thumbnail(files[image_id]) if files else b""
        captions = {label: of_row[image_id] for label, of_row in said.items() if of_row}
        items.append(GalleryItem(image, image_id, known.file_name, known.references, captions, {}))
    return [card(item, colours, "", against_first(item.captions)) for item in items]


def against_first(captions: Mapping[str, str]) -> dict[str, str]:
    """Returns captions by label as HTML, with the words marked that differ from the first caption."""
    first, *_ = captions.values()
    return {
        label: escape(caption) if i == 0 else differences(first, caption)[1]
        for i, (label, caption) in enumerate(captions.items())
    }


def image_files(
    listed: Mapping[ImageId, ListedImage], folder: str, ids: Sequence[ImageId]
) -> dict[ImageId, pathlib.Path]:
    """Returns the file of each image; raises UserError if one is not in the folder."""
    if not pathlib.Path(folder).is_dir():
        raise UserError(f"--images={folder} is not a folder; give the folder of the images")
    names = {image_id: listed[image_id].file_name for image_id in ids}
    real = real_names(names.values(), folder)
    for image_id, name in names.items():
        if name not in real:
            raise UserError(f"--images={folder} has no {name}, the file of image {image_id}; name the right folder")
    return {image_id: pathlib.Path(folder, real[name]) for image_id, name in names.items()}


def _thumbnail(file: pathlib.Path) -> bytes:
    # TensorFlow, which takes seconds to import, decodes them; without --images a comparison needs none of it.
    import_tensorflow()
    import tensorflow as tf

    from spidercap.pipeline.report.results import thumbnail

    try:
        return thumbnail(file.read_bytes(), SIDE)
    except (OSError, tf.errors.InvalidArgumentError) as error:
        raise UserError(f"{file} cannot be decoded; needed: a whole JPEG, PNG, BMP or GIF file") from error
