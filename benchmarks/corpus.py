"""Captions for benchmarks: of a COCO captions file, else of synthetic scenes."""

import dataclasses
import gzip
import itertools
import json
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from spidercap.models.special_tokens import PAD
from spidercap.pipeline.data.scenes.captions import write_captions
from spidercap.pipeline.data.scenes.layout import plan_layout
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.text.coco_json import ANY_TEXT, ID, ImageId, rows
from spidercap.pipeline.text.tokenizer import has_words, tokenize

REFERENCES = 5  # per image
LONGEST = 20  # words of a candidate, about the maximum length of a captioner
NEEDED = '{"annotations": [{"image_id", "caption"}]}'
DATA = "SPIDERCAP_DATA"  # environment variable: a folder with coco/captions_*.json or .json.gz


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Images with five references each."""

    source: str  # as text
    raw: tuple[tuple[str, ...], ...]  # [I][REFERENCES], as written
    references: tuple[tuple[str, ...], ...]  # the same, tokenised, words split by one space

    def candidates(self, count: int) -> list[str]:
        """Returns `count` captions, caption n for image n % I.

        Each starts like a reference of its image and ends like one of another image, so that n-grams of every order
        match and fail to match, as in captions of a captioner.
        """
        images = len(self.references)
        made = []
        for row in range(count):
            turn, image = divmod(row, images)
            own = self.references[image][turn % REFERENCES].split()
            other = self.references[(image + turn + 1) % images][row % REFERENCES].split()
            made.append(" ".join([*own[: (len(own) + 1) // 2], *other[len(other) // 2 :]][:LONGEST]))
        return made

    def ids(self, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray, int]:
        """Returns references int32 `[I, R, L]`, `captions` int32 `[N, T]` and the number of ids, PAD included."""
        words: dict[str, int] = {}  # from 1 on, as 0 is PAD
        encoded = _array(captions, words)
        truth = _array([caption for of_image in self.references for caption in of_image], words)
        return truth.reshape(len(self.references), REFERENCES, -1), encoded, len(words) + 1


def read_corpus(references: str, images: int) -> Corpus:
    """Returns the first `images` images that have five captions.

    Args:
      references: a COCO captions file (.json or .json.gz); '' for the one in the folder $SPIDERCAP_DATA, or, if that
        is not set, captions of synthetic scenes.

    Raises:
      UserError: the file is missing, in another format, or has fewer such images.
    """
    path = pathlib.Path(references) if references else _file_in(os.environ.get(DATA, ""))
    if path is None:
        generators = (np.random.default_rng((0, index)) for index in range(images))
        return _tokenised("synthetic scenes", [write_captions(plan_layout(rng), rng) for rng in generators])
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read ({error}); needed: a COCO captions file, {NEEDED}") from error
    annotations = content.get("annotations") if isinstance(content, dict) else None
    of_image: dict[ImageId, list[str]] = {}
    for image, caption in rows(str(path), annotations, "annotations", {"image_id": ID, "caption": ANY_TEXT}, NEEDED):
        if has_words(caption):
            of_image.setdefault(image, []).append(caption)
    full = (captions[:REFERENCES] for captions in of_image.values() if len(captions) >= REFERENCES)
    chosen = list(itertools.islice(full, images))
    if len(chosen) < images:
        raise UserError(
            f"{path} has {len(chosen)} images of {REFERENCES} captions, {images} are needed; "
            "give a larger file (--references) or fewer captions (--captions)"
        )
    return _tokenised(path.name, chosen)


def _tokenised(source: str, images: Sequence[Sequence[str]]) -> Corpus:
    tokenised = tuple(tuple(" ".join(tokenize(caption)) for caption in of_image) for of_image in images)
    return Corpus(source, tuple(map(tuple, images)), tokenised)


def _file_in(folder: str) -> pathlib.Path | None:
    """Returns the first captions file in a folder of data; None without a folder."""
    if not folder:
        return None
    found = sorted(pathlib.Path(folder, "coco").glob("captions_*.json*"))
    if not found:
        raise UserError(f"{DATA}={folder} has no coco/captions_*.json or .json.gz; put one there, or unset {DATA}")
    return found[0]


def _array(captions: Sequence[str], words: dict[str, int]) -> np.ndarray:
    """Returns ids int32 `[N, T]`, padded; adds new words to `words`."""
    split = [caption.split() for caption in captions]
    array = np.full([len(split), max(map(len, split))], PAD, np.int32)
    for row, caption in zip(array, split, strict=True):
        row[: len(caption)] = [words.setdefault(word, len(words) + 1) for word in caption]
    return array
