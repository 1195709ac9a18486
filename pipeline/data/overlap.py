"""Images that are in two splits."""

import hashlib
import itertools
import pathlib
import sys
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from spidercap.pipeline.data.records import Split
from spidercap.pipeline.files import written_aside
from spidercap.pipeline.text.coco_json import first

SIZE = 8  # bytes of a digest; two of a million images are alike once in 10^7 data sets


class Images(NamedTuple):
    """What the images of a split are compared by: digests, uint64 `[I]` each."""

    contents: np.ndarray
    names: np.ndarray


def images_of(split: Split) -> Images:
    """Returns the images of a split."""
    return Images(_digests(split.keys), _digests(split.file_names))


def shared(one: Images, other: Images) -> np.ndarray:
    """Returns bool `[I]`: which images of `other` are in `one` by contents or by file name."""
    return np.isin(other.contents, one.contents) | np.isin(other.names, one.names)


def report_overlap(splits: Mapping[str, Split], kept: Mapping[str, Images]) -> None:
    """Reports on stderr how many images of a split are in another one, of those that are read or of those kept."""
    known = {name: images_of(split) for name, split in splits.items()}
    pairs = itertools.combinations(known | {n: images for n, images in kept.items() if n not in known}, 2)
    for one, other in pairs:
        if one not in splits and other not in splits:
            continue
        where, name = (one, other) if other in splits else (other, one)
        rows = np.flatnonzero(shared((known | kept)[where], known[name]))
        if len(rows):
            print(
                f"warning: {len(rows):,} of {len(splits[name]):,} images of {name} are in {where}, too, by contents or "
                f"by file name ({first([splits[name].file_names[row] for row in rows[:9]])}); scores of {name} are "
                "then too high; remove them from one of the two",
                file=sys.stderr,
            )


def report_learned(splits: Mapping[str, Split], run: str, learned: Images) -> None:
    """Reports on stderr how many images of val and test are among those that another run, a start, was trained on."""
    for name in (name for name in splits if name != "train"):
        own, files = images_of(splits[name]), splits[name].file_names
        same = np.isin(own.contents, learned.contents)
        for rows, what, then in (
            (np.flatnonzero(same), "are among those that", f"scores of {name} are then too high"),
            (np.flatnonzero(shared(learned, own) & ~same), "have names of those that", "they may be the same ones"),
        ):
            if len(rows):
                named = first([files[row] for row in rows[:9]])
                print(
                    f"warning: {len(rows):,} of {len(files):,} images of {name} {what} {run} was trained on ({named}); "
                    f"{then}; to score what it never saw, share the images out as there: the same captions, "
                    "--val_fraction, --test_fraction and --split_seed",
                    file=sys.stderr,
                )


def save_images(path: pathlib.Path, splits: Mapping[str, Split]) -> None:
    """Writes the images of the splits, for comparison with splits that come later."""
    arrays = {f"{name}_{kind}": a for name, split in splits.items() for kind, a in images_of(split)._asdict().items()}
    with written_aside(path) as aside:
        np.savez(aside, **arrays)


def load_images(path: pathlib.Path) -> dict[str, Images]:
    """Returns what `save_images` wrote, by split."""
    with np.load(path, allow_pickle=False) as arrays:
        names = [key.removesuffix("_names") for key in arrays.files if key.endswith("_names")]
        return {name: Images(arrays[f"{name}_contents"], arrays[f"{name}_names"]) for name in names}


def _digests(texts: tuple[str, ...]) -> np.ndarray:
    found = b"".join(hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:SIZE] for text in texts)
    return np.frombuffer(found, np.uint64).copy()
