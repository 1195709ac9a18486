"""Which images of the captions files train, validate and test."""

import collections
import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

from spidercap.pipeline.data.records import SPLITS
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.data_settings import DataSettings
from spidercap.pipeline.text.coco_json import reject
from spidercap.pipeline.text.listing import Listed, Listing, read_whole_listing

Read = Callable[[str], Listing]


def read_splits(settings: DataSettings, wanted: Iterable[str]) -> dict[str, tuple[str, Listing]]:
    """Returns by split the captions file and its images, for the wanted splits that the settings name.

    A file that names splits itself, given as --val_captions, is read for its split val alone.

    Raises:
      UserError: a file cannot be used, a split is empty, or two splits are the same file.
    """
    files = {name: getattr(settings, f"{name}_captions") for name in SPLITS}
    # Other test captions are welcome at any time, as they choose nothing.
    if settings.val_captions and settings.val_fraction:
        raise UserError("--val_captions and --val_fraction both give the split val; leave out one")
    read = _reader(settings)
    _reject_same({f"--{name}_captions": path for name, path in files.items()} | {"--captions": settings.captions}, read)
    together = settings.captions or (settings.train_captions if _has_fractions(settings) else "")
    found: dict[str, tuple[str, Listing]] = {}
    for name in wanted:
        if files[name] and not (name == "train" and together):
            found[name] = (files[name], _of_split(read(files[name]), name, files[name]))
        elif together:
            of_split = _shared(read(together), together, settings)[name]
            if of_split.images or name != "test":
                found[name] = (together, of_split)
    empty = [(name, path) for name, (path, of_split) in found.items() if not of_split.images]
    for name, path in empty:
        raise UserError(f"{path} has no images of the split {name}; {_remedy(name, path == together, settings)}")
    return found


def _remedy(name: str, is_shared: bool, settings: DataSettings) -> str:
    """What to do about a split without images."""
    if is_shared and _has_fractions(settings):
        drawn = "lower --val_fraction and --test_fraction" if name == "train" else f"raise --{name}_fraction"
        return f"{drawn}, or draw others by --split_seed"
    other = f", or --{name}_fraction" if name != "train" else ""
    return f"give --{name}_captions, or a file that holds some{other}"


def split_of(name: str, settings: DataSettings) -> str:
    """Returns the split of an image that was drawn by its name: others that are added do not move it."""
    digest = hashlib.sha256(f"{settings.split_seed}:{name}".encode()).digest()
    drawn = int.from_bytes(digest[:8], "big") / 2**64
    if drawn < settings.test_fraction:
        return "test"
    return "val" if drawn < settings.test_fraction + settings.val_fraction else "train"


def _reader(settings: DataSettings) -> Read:
    """Reads each file once."""
    known: dict[str, Listing] = {}

    def read(path: str) -> Listing:
        if path not in known:
            known[path] = read_whole_listing(path, skip_bad_captions=settings.skip_bad_captions, need_words=True)
        return known[path]

    return read


def _reject_same(files: Mapping[str, str], read: Read) -> None:
    """Raises UserError if two splits are one file that does not name splits."""
    by_file = collections.defaultdict(list)
    for name, path in files.items():
        if path:
            by_file[os.path.realpath(path)].append(name)
    for names in by_file.values():
        if len(names) > 1 and not _names_splits(read(files[names[0]])):
            flags = " and ".join(names)
            raise UserError(
                f"{flags} are the same file ({files[names[0]]}), so scores would be of images that choose the weights; "
                "name another file, or use --val_fraction and --test_fraction"
            )


def _names_splits(listing: Listing) -> bool:
    return any(one.split for one in listing.images)


def _check_named(listing: Listing, path: str) -> None:
    """Raises UserError if a file that names splits does not name that of each image."""
    without = [one.file_name or str(one.image_id) for one in listing.images if not one.split]
    reject(path, "images have no split, but others do", without, "name the split of each, or of none")


def _of_split(listing: Listing, name: str, path: str) -> Listing:
    """The images of a file that is given for one split."""
    if not _names_splits(listing):
        return listing
    _check_named(listing, path)
    kept, without = ([one for one in rows if one.split == name] for rows in (listing.images, listing.without_captions))
    print(f"data: {path} names splits; {len(kept):,} of its {len(listing.images):,} images are {name}", file=sys.stderr)
    return Listing(kept, without, listing.unread)


def _has_fractions(settings: DataSettings) -> bool:
    return settings.val_fraction > 0 or settings.test_fraction > 0


def _shared(listing: Listing, path: str, settings: DataSettings) -> dict[str, Listing]:
    """The images of one file by split: as it names them, or as the fractions say."""
    named = _names_splits(listing)
    if named:
        _check_named(listing, path)
    if named and _has_fractions(settings):
        raise UserError(f"{path} names the splits of its images itself; leave out --val_fraction and --test_fraction")
    if not named and not _has_fractions(settings):
        raise UserError(
            f"{path} does not say which images are train, val and test; add --val_fraction=0.1, or give "
            "--train_captions and --val_captions"
        )

    def by_split(rows: Sequence[Listed]) -> dict[str, list[Listed]]:
        found: dict[str, list[Listed]] = {name: [] for name in SPLITS}
        for one in rows:
            name = one.split if named else split_of(one.file_name or str(one.image_id), settings)
            if name:
                found[name].append(one)
        return found

    images, without = by_split(listing.images), by_split(listing.without_captions)
    return {name: Listing(images[name], without[name], listing.unread) for name in SPLITS}
