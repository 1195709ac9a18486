"""Features: those of each picture, in order, computed once, by a network that is traced once."""

import keras
import numpy as np
import pytest

from models.encoder import decode_image, resize_image
from pipeline import features
from pipeline.config import Config
from pipeline.datasets.prepare import image_records, prepare_data
from pipeline.datasets.records import SPLITS
from pipeline.features import all_features, split_features


class CountedCalls(keras.Model):
    """Means of the colours; `calls` counts how often Python runs it, which is when it is traced."""

    calls = 0

    def call(self, images, training=None):
        self.calls += 1
        return keras.ops.mean(images, axis=(1, 2))


@pytest.fixture
def config(tmp_path):
    return Config(workdir=str(tmp_path / "run"), scenes_train=5, scenes_val=3, image_size=32)


def test_all_splits_share_one_trace_whatever_their_last_batch(config, monkeypatch):
    monkeypatch.setattr(features, "BATCH", 2)
    data, encoder = prepare_data(config), CountedCalls()
    found = all_features(config, data, encoder, SPLITS)
    assert encoder.calls == 1
    for split, size in zip(SPLITS, (5, 3), strict=True):
        pictures = [resize_image(decode_image(record), 32) for record in image_records(data, split)]
        np.testing.assert_allclose(found[split], np.mean(pictures, axis=(1, 2)), rtol=1e-5)
        assert found[split].shape == (size, 3) and found[split].dtype == np.float32


def test_what_is_in_the_cache_is_not_computed_again(config):
    data, encoder = prepare_data(config), CountedCalls()
    first = split_features(config, data, encoder, "val")
    again = CountedCalls()
    np.testing.assert_array_equal(split_features(config, data, again, "val"), first)
    assert (encoder.calls, again.calls) == (1, 0)
