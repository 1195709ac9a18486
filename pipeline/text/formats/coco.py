"""COCO captions and Andrej Karpathy's splits: JSON objects with a list of images."""

import posixpath
import sys
from typing import Any

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.text.coco_json import ID, TEXT, Kind, in_order, is_text, reject_ids, rows, values
from spidercap.pipeline.text.formats.names import is_marked, split_of
from spidercap.pipeline.text.formats.source import Contents, Row, Source, by_image

COCO = '{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}'
KARPATHY = '{"images": [{"filename", "split", "sentences": [{"raw"}]}]}'


def is_karpathy(content: Any) -> bool:
    """Returns whether the content of a JSON file has images with sentences."""
    images = content.get("images") if isinstance(content, dict) else None
    return isinstance(images, list) and any(isinstance(image, dict) and "sentences" in image for image in images)


def is_coco(content: Any) -> bool:
    """Returns whether the content of a JSON file has images or annotations."""
    return isinstance(content, dict) and ("images" in content or "annotations" in content)


def read_coco(source: Source) -> Contents:
    """Returns the images and annotations of a COCO captions file.

    What is not trained on may lack one of the two lists, as references and COCO's `image_info` files do.

    Raises:
      UserError: keys or types are wrong, no images are listed, or annotations are of images that are not.
    """
    content = source.content
    images = []
    if source.need_words or content.get("images") is not None:
        images = _images(source, content.get("images"))
    names = by_image(source.path, images)
    columns = {"image_id": ID, "caption": source.caption}
    entries = content.get("annotations", None if source.need_words or not images else [])
    found = rows(source.path, entries, "annotations", columns, COCO)
    if source.need_words:
        unlisted = in_order({i for i, _ in found} - names.keys())
        remedy = "add those images, or remove those annotations"
        reject_ids(source.path, "annotated image ids are not in 'images'", unlisted, remedy, names)
    said = []
    for (image_id, caption), entry in zip(found, entries, strict=True):
        image = names.get(image_id) or Row(image_id)
        said.append(Row(image_id, image.file_name, (caption,), image.split, is_marked(entry)))
    return Contents((*images, *said), typed=True)


def _images(source: Source, entries: Any) -> list[Row]:
    """The listed images; merged files list images twice, which is told."""
    path = source.path
    columns = {"id": ID, "file_name": TEXT} if source.need_words else {"id": ID}
    ids = [i for i, *_ in rows(path, entries, "images", columns, COCO)]
    if source.need_words and not ids:
        raise UserError(f"{path} lists no images; at least one is needed")
    listed = []
    for place, (image_id, entry) in enumerate(zip(ids, entries, strict=True)):
        name = entry.get("file_name")
        listed.append(Row(image_id, name if is_text(name) else "", (), _split(source, place, entry)))
    return _once(path, listed)


def read_karpathy(source: Source) -> Contents:
    """Returns the images of a file of Karpathy's splits with their sentences.

    Raises:
      UserError: keys or types are wrong.
    """
    entries = source.content["images"]
    id_key = next((key for key in ("cocoid", "imgid") if any(_has(entry, key) for entry in entries)), "filename")
    id_kind = TEXT if id_key == "filename" else ID
    sentences = Kind(lambda value: isinstance(value, list), "a list of sentences")
    columns = {"filename": TEXT, "sentences": sentences, id_key: id_kind}
    listed = []
    for place, entry in enumerate(entries):
        name = f"images[{place}]"
        file_name, said, *image_id = values(source.path, name, entry, columns)
        if "filepath" in entry:
            (folder,) = values(source.path, name, entry, {"filepath": TEXT})
            file_name = posixpath.join(folder, file_name)
        captions = tuple(_sentence(source, f"{name}['sentences'][{k}]", sentence) for k, sentence in enumerate(said))
        listed.append(Row(*(image_id or [file_name]), file_name, captions, _split(source, place, entry)))
    return Contents(tuple(_once(source.path, listed)), typed=True)


def _sentence(source: Source, place: str, sentence: Any) -> str:
    """The caption as written, else its tokens."""
    if not _has(sentence, "raw") and _has(sentence, "tokens"):
        tokens = Kind(lambda value: isinstance(value, list) and all(map(source.caption.fits, value)), "a list of texts")
        return " ".join(*values(source.path, place, sentence, {"tokens": tokens}))
    return values(source.path, place, sentence, {"raw": source.caption})[0]


def _has(entry: Any, key: str) -> bool:
    return isinstance(entry, dict) and key in entry


def _split(source: Source, place: int, entry: dict) -> str:
    if "split" not in entry:
        return ""
    return split_of(source.path, f"images[{place}]", str(entry["split"]))


def _once(path: str, listed: list[Row]) -> list[Row]:
    distinct = list(dict.fromkeys(listed))
    if len(distinct) < len(listed):
        repeated = len(listed) - len(distinct)
        print(f"data: {path}: {repeated:,} of {len(listed):,} rows of images are repeated, taken once", file=sys.stderr)
    return distinct
