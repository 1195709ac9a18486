"""The record of an image, the same in every data set."""

import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from spidercap.pipeline.text.coco_json import ImageId

SPLITS = ("train", "val")


class Source(NamedTuple):
    """Where a data set comes from."""

    fingerprint: str  # changes with the contents; names its folder in the cache
    build: Callable[[pathlib.Path], tfds.core.DatasetBuilder]  # folder -> the data set in it


def feature_spec(int64_ids: bool = True) -> tfds.features.FeaturesDict:
    """Returns the features of one example: an encoded image, its id, its file name, its captions as written.

    Ids are stored as int64, or as JSON text if one of the data set is something else.
    """
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "image_id": tfds.features.Scalar(np.int64) if int64_ids else tfds.features.Text(),
            "file_name": tfds.features.Text(),
            "captions": tfds.features.Sequence(tfds.features.Text()),
        }
    )


def fits_int64(image_id: ImageId) -> bool:
    """Returns whether the id is an integer of 64 bits."""
    return isinstance(image_id, int) and -(2**63) <= image_id < 2**63


def stored_id(image_id: ImageId, int64_ids: bool) -> int | str:
    """Returns the id as `feature_spec` stores it."""
    return image_id if int64_ids else json.dumps(image_id)


def id_of(stored: Any) -> ImageId:
    """Returns the id of an example, of either feature, as it was given."""
    return json.loads(stored) if isinstance(stored, bytes) else int(stored)
