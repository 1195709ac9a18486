"""The captions of a COCO captions file by image; bad ones are reported, rejected or left out."""

import collections
import sys
from collections.abc import Mapping
from typing import Any

from spidercap.pipeline.text.coco_json import ID, LONGEST, ImageId, Kind, reject_ids, rows
from spidercap.pipeline.text.tokenizer import has_words

MARKS = ("is_rejected", "is_precanned")  # of VizWiz: not to be used, and "the image is too bad to be described"
LONG = f"of over {LONGEST:,} characters"
WORDLESS = "without words"
MARKED = f"marked {' or '.join(MARKS)}"
SKIP = "leave them out with --skip_bad_captions"


def read_annotations(
    path: str, content: Mapping[str, Any], text: Kind, needed: str, *, skip_bad: bool, need_words: bool
) -> dict[ImageId, list[str]]:
    """Returns the captions of the annotations by image id, in the order of the file.

    Args:
      path: the file, for messages.
      content: what it holds.
      text: the check of a caption.
      needed: the file's format, for messages.
      skip_bad: leave out captions without words, of over LONGEST characters, and with one of MARKS, and report how
        many. An image of which all are left out has an empty list.
      need_words: without `skip_bad`, captions without words are rejected.

    Raises:
      UserError: the file has another format, or holds a caption that is neither taken nor left out.
    """
    entries = content.get("annotations")
    found = rows(path, entries, "annotations", {"image_id": ID, "caption": text}, needed)
    faults = [
        _fault(caption, entry, skip_bad or need_words) for (_, caption), entry in zip(found, entries, strict=True)
    ]
    counts = collections.Counter(filter(None, faults))
    if not skip_bad:
        for fault in (LONG, WORDLESS):
            wrong = dict.fromkeys(i for (i, _), of in zip(found, faults, strict=True) if of == fault)
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
    captions: dict[ImageId, list[str]] = {}
    for (image_id, caption), fault in zip(found, faults, strict=True):
        captions.setdefault(image_id, []).extend([caption] * (not (skip_bad and fault)))
    return captions


def _fault(caption: str, entry: Mapping[str, Any], look_for_words: bool) -> str:
    if len(caption) > LONGEST:
        return LONG
    if look_for_words and not has_words(caption):
        return WORDLESS
    return MARKED if any(entry.get(mark) in (True, "true") for mark in MARKS) else ""
