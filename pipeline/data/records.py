"""The record of an image, the same in every data set."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

SPLITS = ("train", "val")


class Source(NamedTuple):
    """Where a data set comes from."""

    fingerprint: str  # changes with the contents; names its folder in the cache
    build: Callable[[pathlib.Path], tfds.core.DatasetBuilder]  # folder -> the data set in it


def feature_spec() -> tfds.features.FeaturesDict:
    """Returns the features of one example: an encoded image, its id, its file name, its captions as written."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "image_id": tfds.features.Scalar(np.int64),
            "file_name": tfds.features.Text(),
            "captions": tfds.features.Sequence(tfds.features.Text()),
        }
    )
