"""Features: those of each picture, in order, computed once, by a network that is traced once."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from spidercap.models.images import LEAST_SEEN, decode_image, draw_view, resize_image
from spidercap.pipeline.data import features, prepare
from spidercap.pipeline.data.features import all_features, split_features
from spidercap.pipeline.data.prepare import image_records, prepare_data, read_captions
from spidercap.pipeline.data.records import SPLITS
from spidercap.pipeline.settings.config import Config


class CountedCalls(keras.Model):
    """Means of the colours; `calls` counts how often Python runs it, which is when it is traced."""

    calls = 0

    def call(self, images, training=None):
        self.calls += 1
        return keras.ops.mean(images, axis=(1, 2))


@pytest.fixture
def config(tmp_path):
    return Config.of(workdir=str(tmp_path / "run"), scenes_train=5, scenes_val=3, image_size=32)


def test_all_splits_share_one_trace_whatever_their_last_batch(config, monkeypatch):
    monkeypatch.setattr(features, "BATCH", 2)
    data, encoder = prepare_data(config), CountedCalls()
    found = all_features(config, data, encoder, dict.fromkeys(SPLITS, 1))
    assert encoder.calls == 1
    for split, size in zip(SPLITS, (5, 3), strict=True):
        pictures = [resize_image(decode_image(record), 32) for record in image_records(data, split)]
        np.testing.assert_allclose(found[split][:, 0], np.mean(pictures, axis=(1, 2)), rtol=1e-5)
        assert found[split].shape == (size, 1, 3) and found[split].dtype == np.float32


def test_what_is_in_the_cache_is_not_computed_again(config):
    data, encoder = prepare_data(config), CountedCalls()
    first = split_features(config, data, encoder, "val")
    again = CountedCalls()
    np.testing.assert_array_equal(split_features(config, data, again, "val"), first)
    assert (encoder.calls, again.calls) == (1, 0)


def test_more_views_cost_only_the_new_ones_and_the_first_is_the_whole_picture(config):
    data, encoder = prepare_data(config), CountedCalls()
    whole = split_features(config, data, encoder, "train")
    two = all_features(config, data, encoder, {"train": 2})["train"]
    files = {path: path.stat().st_mtime_ns for path in config.cache_path().glob("features/*/*.npy")}
    three = all_features(config, data, encoder, {"train": 3})["train"]
    assert three.shape == (5, 3, 3)
    np.testing.assert_array_equal(two[:, 0], whole)
    np.testing.assert_array_equal(three[:, :2], two)
    assert all(path.stat().st_mtime_ns == time for path, time in files.items())
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (np.abs(three[:, a] - three[:, b]).max(axis=1) > 0).all()


@pytest.mark.parametrize("content", ["", "cut", "reversed", "no digest"])
def test_a_file_of_the_cache_that_went_wrong_is_named_and_made_again(config, content, capsys):
    data, encoder = prepare_data(config), CountedCalls()
    all_features(config, data, encoder, {"train": 2})
    (path,) = config.cache_path().glob("features/*/train-view1.npy")
    whole = np.load(path)
    if content == "reversed":
        np.save(path, whole[::-1])
    elif content == "no digest":
        (path.parent / "digests.json").unlink()
    else:
        path.write_bytes(path.read_bytes()[:-5] if content == "cut" else b"")
    np.testing.assert_array_equal(all_features(config, data, encoder, {"train": 2})["train"][:, 1], whole)
    told = "has no digest" if content == "no digest" else "is damaged or was changed"
    assert f"train-view1.npy {told}; its features are computed again" in capsys.readouterr().err
    all_features(config, data, encoder, {"train": 2})
    assert not capsys.readouterr().err


def test_views_are_those_of_their_picture_whatever_the_order_of_threads(config):
    data = prepare_data(config)
    found = np.concatenate(list(features.pixels(image_records(data, "train"), 32, view=2)))
    for number, record in enumerate(image_records(data, "train")):
        alone = resize_image(draw_view(decode_image(record), tf.constant([2, number], tf.int64)), 32)
        np.testing.assert_array_equal(found[number], alone)


def test_a_view_is_a_part_of_its_picture_mirrored_or_not():
    """Every pixel tells where it comes from, so the part can be read off."""
    height, width = 40, 60
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    image = tf.constant(np.stack([rows, columns, rows * 0], axis=2), tf.uint8)
    mirrored, sizes, corners = [], [], []
    for k in range(200):
        view = draw_view(image, tf.constant([k, 1], tf.int64)).numpy()
        mirrored.append(view[0, 0, 1] > view[0, -1, 1])
        if mirrored[-1]:
            view = view[:, ::-1]
        top, left = view[0, 0, :2]
        np.testing.assert_array_equal(view, image[top : top + view.shape[0], left : left + view.shape[1]])
        sizes.append(view.shape[:2])
        corners.append((top, left))
    assert 70 < sum(mirrored) < 130
    sizes, corners = np.array(sizes), np.array(corners)
    assert (sizes.min(axis=0) >= LEAST_SEEN * np.array([height, width]) - 1).all()
    assert (sizes.max(axis=0) <= [height, width]).all() and (sizes.max(axis=0) >= [height - 1, width - 2]).all()
    assert (corners.min(axis=0) == 0).all()
    assert ((corners + sizes).max(axis=0) == [height, width]).all()


def test_a_picture_of_one_pixel_has_views():
    assert draw_view(tf.zeros([1, 1, 3], tf.uint8), tf.constant([0, 0], tf.int64)).shape == (1, 1, 3)


def test_views_in_caches_are_still_what_is_drawn():
    """Files of the cache are known by a view's number alone: who draws otherwise must name them otherwise."""
    image = tf.cast(tf.reshape(tf.range(40 * 60 * 3) % 251, [40, 60, 3]), tf.uint8)
    view = draw_view(image, tf.constant([3, 7], tf.int64)).numpy()
    assert (view.shape, view[0, 0, 0], view[-1, -1, 0]) == ((30, 56, 3), 32, 67)


@pytest.mark.parametrize("damage", ["cut", "lost", "no digest"])
def test_a_damaged_data_set_is_prepared_again(config, capsys, damage):
    before = read_captions(prepare_data(config), "train").captions
    (root,) = {path.parent for path in config.cache_path().glob("data/**/digests.json")}
    files = sorted(path for path in root.iterdir() if path.name != "digests.json")
    assert len(files) == 4  # what describes them; the records of each split
    for file in files[::3] if damage != "no digest" else [root / "digests.json"]:
        file.unlink() if damage != "cut" else file.write_bytes(file.read_bytes()[:-9])
        assert read_captions(prepare_data(config), "train").captions == before
        assert capsys.readouterr().err.count("the data set is prepared again") == 1
        prepare_data(config)
        assert "prepared again" not in capsys.readouterr().err


def test_a_data_set_without_any_digest_is_not_trusted(tmp_path):
    (tmp_path / "1.0.0").mkdir()
    assert prepare._fault(tmp_path) == "is not whole"
    (tmp_path / "1.0.0" / "digests.json").write_text("{}")
    assert prepare._fault(tmp_path) == "its digests.json is empty"
