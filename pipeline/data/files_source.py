"""Your own images, or features of them, with captions in files."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import tensorflow as tf

from spidercap.pipeline.data.caption_splits import read_splits
from spidercap.pipeline.data.given_features import GivenFeatures, feature_keys, open_features
from spidercap.pipeline.data.image_files import skip_or_reject
from spidercap.pipeline.data.image_index import Checked, ImageIndex
from spidercap.pipeline.data.image_places import Place, places_of, split_folders
from spidercap.pipeline.data.records import Source, Split, digest_of
from spidercap.pipeline.data.streams import CALLS, untuned
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.data_settings import DataSettings
from spidercap.pipeline.text.listing import Listed, Listing

# Why an image was left out.
NOT_FOUND, NO_FEATURES = "not in --images", "not in --features"
NO_CAPTION = "without a caption that can be used"


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """Images that are read from where they lie."""

    in_sequence: ClassVar[bool] = False
    paths: tuple[str, ...]  # [I]

    def encoded(self, rows: Sequence[int]) -> tf.data.Dataset:
        """Returns the encoded images (scalar strings) of ascending rows of the split, in that order."""
        paths = tf.data.Dataset.from_tensor_slices(tf.constant([self.paths[row] for row in rows], tf.string))
        return untuned(paths.map(tf.io.read_file, num_parallel_calls=CALLS))

    def of(self, rows: Sequence[int]) -> "ImageFiles":
        """Returns the images of ascending rows alone."""
        return ImageFiles(tuple(self.paths[row] for row in rows))

    def where(self) -> str:
        """Returns where the images are, and what to do if they cannot be read, as the end of a message."""
        return "restore the file, then run the same command again"


def files_source(settings: DataSettings, cache: pathlib.Path, wanted: Iterable[str]) -> Source:
    """Returns the wanted splits that the captions files hold.

    What is known of the images is kept in the cache folder: files that do not change are read and decoded once.

    Raises:
      UserError: captions cannot be used, or images or features are missing or cannot be read.
    """
    listed = read_splits(settings, wanted)
    splits = (_with_features if settings.features else _with_images)(settings, listed, cache)
    splits = {name: _with_left_out(split, *listed[name]) for name, split in splits.items()}
    return Source({name: fingerprint(split) for name, split in splits.items()}, lambda: splits)


def fingerprint(split: Split) -> str:
    """Returns hex digits that change with any id, name, caption or image of a split."""
    rows = zip(split.image_ids, split.file_names, split.captions, split.keys, strict=True)
    return f"files-{digest_of(rows)}"


def _with_left_out(split: Split, path: str, listing: Listing) -> Split:
    """The split with what was left out of its captions file, too."""
    whole = (*listing.images, *listing.without_captions)
    return dataclasses.replace(
        split,
        images_left_out=(*split.images_left_out, *((_name(one), NO_CAPTION) for one in listing.without_captions)),
        captions_left_out=tuple((_name(one), *left_out) for one in whole for left_out in one.left_out),
        rows_left_out=tuple((f"{path}, {place}", reason) for place, reason in listing.unread),
    )


def _with_images(
    settings: DataSettings, listed: Mapping[str, tuple[str, Listing]], cache: pathlib.Path
) -> dict[str, Split]:
    folders = split_folders(settings.images)
    for path, of_split in listed.values():
        if not any(one.file_name for one in of_split.images):
            raise UserError(f"{path} names no image files; add a column or key file_name")
    places = {
        name: places_of(path, [one.file_name for one in of_split.images], folders, settings.skip_bad_images)
        for name, (path, of_split) in listed.items()
    }
    checked = _checked(settings, (place for of_split in places.values() for place in of_split.values()), cache)
    return {name: _of_images(of.images, places[name], checked, path) for name, (path, of) in listed.items()}


def _checked(settings: DataSettings, places: Iterable[Place], cache: pathlib.Path) -> dict[Place, Checked]:
    """What is known of the images; raises UserError for those that cannot be used, unless they are to be left out."""
    by_folder: dict[str, dict[str, None]] = {}
    for place in places:
        by_folder.setdefault(place.folder, {})[place.name] = None
    found = {
        Place(folder, name): checked
        for folder, names in by_folder.items()
        for name, checked in ImageIndex(folder, cache).check(names, settings.max_pixels).items()
    }
    faults = {pathlib.Path(*place): checked.fault for place, checked in found.items() if checked.fault}
    skip_or_reject(faults, len(found), settings.skip_bad_images)
    return found


def _of_images(
    rows: Sequence[Listed], places: Mapping[str, Place], checked: Mapping[Place, Checked], path: str
) -> Split:
    faults = [checked[places[one.file_name]].fault if one.file_name in places else NOT_FOUND for one in rows]
    left_out = tuple((one.file_name, fault) for one, fault in zip(rows, faults, strict=True) if fault)
    rows = [one for one, fault in zip(rows, faults, strict=True) if not fault]
    if not rows:
        raise UserError(f"{path}: no image can be used; at least one is needed")
    placed = [places[one.file_name] for one in rows]
    return Split(
        tuple(one.image_id for one in rows),
        tuple(place.name for place in placed),
        tuple(one.captions for one in rows),
        tuple(checked[place].digest for place in placed),
        ImageFiles(tuple(os.path.abspath(os.path.join(*place)) for place in placed)),
        left_out,
    )


def _with_features(
    settings: DataSettings, listed: Mapping[str, tuple[str, Listing]], cache: pathlib.Path
) -> dict[str, Split]:
    with open_features(settings.features, cache) as given:
        return {name: _of_features(given, path, of.images, settings) for name, (path, of) in listed.items()}


def _of_features(given: GivenFeatures, path: str, rows: Sequence[Listed], settings: DataSettings) -> Split:
    keys = feature_keys(given, path, rows, settings.skip_bad_images)
    found = [one for one in rows if one.image_id in keys]
    return Split(
        tuple(one.image_id for one in found),
        tuple(_name(one) for one in found),
        tuple(one.captions for one in found),
        tuple(keys[one.image_id] for one in found),
        None,
        tuple((_name(one), NO_FEATURES) for one in rows if one.image_id not in keys),
    )


def _name(one: Listed) -> str:
    return one.file_name or str(one.image_id)
