"""TEMPORARY."""

import dataclasses
from spidercap.pipeline.text.coco_json import *
from spidercap.pipeline.text.annotations import *
from spidercap.pipeline.text.coco_json import ImageId, in_order, read_json, rows


@dataclasses.dataclass(frozen=True)
class Listed:
    image_id: ImageId
    file_name: str
    captions: tuple[str, ...]
    split: str = ""


def read_listing(path, *, skip_bad_captions=False, need_words=True):
    content = read_json(path, "captions")
    names = dict(rows(path, content.get("images"), "images", {"id": ID, "file_name": TEXT}, ""))
    captions = read_annotations(path, content, TEXT, "", skip_bad=skip_bad_captions, need_words=need_words)
    return [Listed(i, names[i], tuple(captions[i])) for i in in_order(names) if captions.get(i)]
