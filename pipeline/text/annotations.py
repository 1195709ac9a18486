"""The captions of a captions file by image; bad ones are reported, rejected or left out."""

import collections
import sys
from collections.abc import Sequence
from typing import NamedTuple

from spidercap.pipeline.text.coco_json import LONGEST, ImageId, reject_ids
from spidercap.pipeline.text.formats.names import MARKS
from spidercap.pipeline.text.formats.source import Row
from spidercap.pipeline.text.tokenizer import has_words

LONG = f"of over {LONGEST:,} characters"
WORDLESS = "without words"
MARKED = f"marked {' or '.join(MARKS)}"
SKIP = "leave them out with --skip_bad_captions"


class Captions(NamedTuple):
    """The captions of an image."""

    taken: list[str]
    left_out: list[tuple[str, str]]  # each with the reason


def usable_captions(path: str, rows: Sequence[Row], *, skip_bad: bool, need_words: bool) -> dict[ImageId, Captions]:
    """Returns the captions of the rows by image id, in the order of the file.

    Args:
      path: the file, for messages.
      rows: what it holds.
      skip_bad: leave out captions without words, of over LONGEST characters, and with one of MARKS, and report how
        many. An image of which all are left out has none.
      need_words: without `skip_bad`, captions without words are rejected.

    Raises:
      UserError: the file holds a caption that is neither taken nor left out.
    """
    found = [(row, caption) for row in rows for caption in row.captions]
    faults = [_fault(caption, row.marked, skip_bad or need_words) for row, caption in found]
    counts = collections.Counter(filter(None, faults))
    if not skip_bad:
        for fault in (LONG, WORDLESS):
            wrong = dict.fromkeys(row.image_id for (row, _), of in zip(found, faults, strict=True) if of == fault)
            reject_ids(path, f"images have a caption {fault}", wrong, f"fix or remove those captions, or {SKIP}")
        if counts[MARKED]:
            print(
                f"data: {path}: {counts[MARKED]:,} of {len(found):,} captions are {MARKED} and used as any others; "
                "--skip_bad_captions leaves them out",
                file=sys.stderr,
            )
    elif counts:
        listed = ", ".join(f"{count:,} {fault}" for fault, count in counts.items())
        print(f"skipping {counts.total():,} of {len(found):,} captions of {path}: {listed}", file=sys.stderr)
    captions: dict[ImageId, Captions] = {}
    for (row, caption), fault in zip(found, faults, strict=True):
        of_image = captions.setdefault(row.image_id, Captions([], []))
        if skip_bad and fault:
            of_image.left_out.append((caption, fault))
        else:
            of_image.taken.append(caption)
    return captions


def _fault(caption: str, marked: bool, look_for_words: bool) -> str:
    if len(caption) > LONGEST:
        return LONG
    if look_for_words and not has_words(caption):
        return WORDLESS
    return MARKED if marked else ""
