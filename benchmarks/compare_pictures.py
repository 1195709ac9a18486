"""The validation pictures of a comparison: their references, which of them are shown, captions side by side."""

import dataclasses
import random
from collections.abc import Collection, Mapping, Sequence

from benchmarks.compare_runs import Rows
from benchmarks.compare_table import in_cell
from spidercap.pipeline.data.coco_folder import NEEDED
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.text.coco_json import ANY_TEXT, ID, TEXT, read_json, refuse, rows


@dataclasses.dataclass(frozen=True)
class Picture:
    """What is known of a picture beside its pixels."""

    image_id: int
    file_name: str
    references: tuple[str, ...]


def read_pictures(path: str, image_ids: Collection[int]) -> dict[int, Picture]:
    """Returns the pictures of a COCO captions file, by id, of which `image_ids` must be some.

    Raises:
      UserError: no such file, a picture that is not in it or has no reference.
    """
    content = read_json(path, "a COCO captions file")
    if not isinstance(content, dict):
        raise UserError(f"{path} is no JSON object, so it is no COCO captions file; needed: {NEEDED}")
    names = dict(rows(path, content.get("images"), "images", {"id": ID, "file_name": TEXT}, NEEDED))
    columns = {"image_id": ID, "caption": ANY_TEXT}
    captions: dict[int, list[str]] = {}
    for image_id, caption in rows(path, content.get("annotations"), "annotations", columns, NEEDED):
        captions.setdefault(image_id, []).append(caption)
    unknown = sorted(i for i in image_ids if i not in names or i not in captions)
    refuse(path, "of the runs' pictures have no references", unknown, "name the captions that the runs validated on")
    return {i: Picture(i, names[i], tuple(captions[i])) for i in names if i in captions}


def drawn_ids(image_ids: Collection[int], flag: str, count: int, seed: int) -> list[int]:
    """Returns `count` of the ids, drawn by the seed whatever their order.

    Raises:
      UserError: there are fewer; `flag` asked for them.
    """
    if count > len(image_ids):
        raise UserError(f"--{flag}={count}, but the runs have {len(image_ids)} validation pictures; ask for fewer")
    return random.Random(seed).sample(sorted(image_ids), count)


def side_by_side(runs: Rows, pictures: Mapping[int, Picture], image_ids: Sequence[int]) -> str:
    """Returns the captions of some pictures as a Markdown table: name, first reference, a column a label.

    A label's captions are those of its first run.
    """
    lines = [["picture", "a reference", *map(in_cell, runs)], ["---"] * (2 + len(runs))]
    for image_id in image_ids:
        picture = pictures[image_id]
        said = [of_label[0].captions[image_id] for of_label in runs.values()]
        lines.append([in_cell(cell) for cell in (picture.file_name, picture.references[0], *said)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
