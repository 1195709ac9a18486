"""Images on a page: each with its references and captions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.report.attention_maps import WordMaps, map_list
from spidercap.pipeline.report.charts import Colours, number
from spidercap.pipeline.report.data_uris import data_uri
from spidercap.pipeline.report.word_differences import differences
from spidercap.pipeline.text.coco_json import ImageId
from spidercap.pipeline.text.printable import printable


@dataclass(frozen=True)
class GalleryItem:
    """An image (JPEG or PNG bytes, or none), its references, and by stage name its captions and their scores.

    `maps` show the attention of the last stage, if the captioner attends to cells of the image.
    """

    image: bytes
    image_id: ImageId
    file_name: str
    references: Sequence[str]
    captions: Mapping[str, str]
    scores: Mapping[str, float]
    maps: WordMaps | None = None


def card(item: GalleryItem, colours: Colours, metric: str, texts: Mapping[str, str]) -> str:
    """Returns an image with its captions, in the order of `colours`.

    Args:
      metric: the metric of the scores; '' to show none.
      texts: the captions as HTML.
    """
    references = "".join(f"<li>{escape(reference)}</li>" for reference in item.references)
    references = f'<ul class="references">{references}</ul>' if references else ""
    names = [name for name in colours if name in item.captions]
    captions = "\n".join(
        f'<div class="{colours[name]}"><dt><i></i>{escape(name)}'
        f"{_scored(item, name, metric)}</dt>"
        f"<dd>{texts[name] or '<em>(empty)</em>'}</dd></div>"
        for name in names
    )
    captions = f"<dl>\n{captions}\n</dl>" if captions else ""
    label = f"<span>{escape(printable(item.file_name))}</span> <span>{escape(printable(item.image_id))}</span>"
    image = f'<img alt="" src="{_data_uri(item)}">' if item.image else ""  # of features there is no image
    kind = "" if image else ' class="plain"'
    maps = f"{map_list(item.maps)}\n" if item.maps else ""
    return (
        f"<article{kind}>\n<figure>{image}<figcaption>{label}</figcaption></figure>\n"
        f"<div>\n{references}\n{captions}\n</div>\n{maps}</article>"
    )


def _scored(item: GalleryItem, name: str, metric: str) -> str:
    number_of = number(item.scores.get(name, math.nan), 3)
    return f'<span title="{escape(metric)}">{number_of}</span>' if metric else ""


def ends_marked(item: GalleryItem, colours: Colours) -> dict[str, str]:
    """Returns the captions as HTML, with the differences of the first and the last one marked."""
    names = [name for name in colours if name in item.captions]
    texts = {name: escape(item.captions[name]) for name in names}
    if len(names) > 1:
        texts[names[0]], texts[names[-1]] = differences(item.captions[names[0]], item.captions[names[-1]])
    return texts


def _data_uri(item: GalleryItem) -> str:
    uri = data_uri(item.image)
    if not uri:
        raise UserError(
            f"image {item.image_id} ({item.file_name}) starts with {item.image[:8]!r}; "
            "the report page takes JPEG and PNG; convert the image to one of them"
        )
    return uri
