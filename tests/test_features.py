"""Features: those of each picture, in order, computed once, by a network that is traced once."""

import dataclasses
import shutil
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from spidercap.models.encoder import build_encoder
from spidercap.models.images import LEAST_SEEN, decode_image, draw_view, resize_image
from spidercap.pipeline.data import features, rendered, shard_work
from spidercap.pipeline.data.feature_store import Features, FeatureStore, shard_path, stored_bytes, write_shard
from spidercap.pipeline.data.features import all_features
from spidercap.pipeline.data.prepare import prepare_data
from spidercap.pipeline.data.records import NEEDED, read_images
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.config import Config


class CountedCalls(keras.Model):
    """Means of the colours; `calls` counts how often Python runs it, which is when it is traced."""

    calls = 0
    outputs = (keras.KerasTensor([None, 3]),)

    def call(self, images, training=None):
        self.calls += 1
        return keras.ops.mean(images, axis=(1, 2))


def config_in(folder):
    return Config.of(workdir=str(folder / "run"), scenes_train=5, scenes_val=3, image_size=32)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A cache with the data set alone, which takes seconds to draw."""
    config = config_in(tmp_path_factory.mktemp("prepared"))
    prepare_data(config)
    return config.cache_path()


@pytest.fixture
def config(prepared, tmp_path):
    config = config_in(tmp_path)
    shutil.copytree(prepared, config.cache_path())
    return config


def one_of(found):
    """All features of a split, float32 [I, N, F]."""
    images = np.arange(len(found))
    return np.stack([found.gather(images, view) for view in range(found.shape[1])], axis=1)


def test_all_splits_share_one_trace_whatever_their_last_batch(config, monkeypatch):
    monkeypatch.setattr(shard_work, "BATCH", 2)
    splits, encoder = prepare_data(config), CountedCalls()
    found = all_features(config, splits, encoder, dict.fromkeys(NEEDED, 1))
    assert encoder.calls == 1
    for split, size in zip(NEEDED, (5, 3), strict=True):
        images = [resize_image(decode_image(record), 32) for record in read_images(splits[split], range(size)).values()]
        np.testing.assert_allclose(found[split].view()[:], np.mean(images, axis=(1, 2)), rtol=1e-5)
        assert found[split].shape == (size, 1, 3) and found[split].view()[:].dtype == np.float32


def test_more_views_cost_only_the_new_ones_and_the_first_is_the_whole_image(config):
    splits, encoder = {"train": prepare_data(config)["train"]}, CountedCalls()
    two = one_of(all_features(config, splits, encoder, {"train": 2})["train"])
    files = {path: path.stat().st_mtime_ns for path in config.cache_path().glob("features/*/*/*/*.npy")}
    again = CountedCalls()
    assert all_features(config, splits, again, {"train": 2})["train"].shape == (5, 2, 3) and again.calls == 0
    three = one_of(all_features(config, splits, encoder, {"train": 3})["train"])
    np.testing.assert_array_equal(three[:, :2], two)
    assert len(files) == 2 and all(path.stat().st_mtime_ns == time for path, time in files.items())
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (np.abs(three[:, a] - three[:, b]).max(axis=1) > 0).all()


@pytest.mark.parametrize("content", ["", "cut", "reversed", "no digest"])
def test_a_shard_that_went_wrong_is_named_and_left_out(tmp_path, content, capsys):
    keys, rows = [f"{k:064x}"[::-1] for k in range(5)], np.arange(15, dtype=np.float32).reshape(5, 3)
    FeatureStore(tmp_path).add(keys[:3], rows[:3])
    store = FeatureStore(tmp_path)
    store.add(keys[3:], rows[3:])
    found = Features(store.shards, store.places([*keys[::-1], keys[1]])[:, None])
    np.testing.assert_array_equal(found.view()[:], rows[[4, 3, 2, 1, 0, 1]])
    np.testing.assert_array_equal(found.view(images=2)[:], rows[[4, 3]])
    path = shard_path(tmp_path, keys[:3])
    if content == "reversed":
        np.save(path, np.load(path)[::-1])
    elif content == "no digest":
        (path.parent / "digests.json").unlink()
    else:
        path.write_bytes(path.read_bytes()[:-5] if content == "cut" else b"")
    damaged = FeatureStore(tmp_path)
    told = "has no digest" if content == "no digest" else "is damaged or was changed"
    assert f"{path} {told}; its features are computed again" in capsys.readouterr().err
    assert damaged.missing([*keys, keys[0]]) == [0, 1, 2]
    with pytest.raises(KeyError):
        damaged.places(keys)
    damaged.add(keys[:3], rows[:3])
    np.testing.assert_array_equal(Features(damaged.shards, damaged.places(keys)[:, None]).view()[:], rows)
    assert FeatureStore(tmp_path).missing(keys) == [] and not capsys.readouterr().err


def shards_in(config):
    """The bytes of all shards by their path."""
    folder = config.cache_path() / "features"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("*/view*/*/features.npy")}


def test_work_that_stops_keeps_its_shards_and_ends_with_the_same(config, monkeypatch):
    monkeypatch.setattr(features, "SHARD", 2)
    monkeypatch.setattr(shard_work, "BATCH", 2)
    splits, encoder = {"train": prepare_data(config)["train"]}, CountedCalls()
    plain, made = shard_work.write_shard, []

    def write(folder, keys, rows):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(keys)
        return plain(folder, keys, rows)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shard_work, "write_shard", write)
        all_features(config, splits, encoder, {"train": 1})
    before = shards_in(config)
    whole = one_of(all_features(config, splits, encoder, {"train": 1})["train"])
    after = shards_in(config)
    assert len(before) == 2 and len(after) == 3 and before.items() <= after.items()
    images = [resize_image(decode_image(one), 32) for one in read_images(splits["train"], range(5)).values()]
    np.testing.assert_allclose(whole[:, 0], np.mean(images, axis=(1, 2)), rtol=1e-5)


@pytest.mark.parametrize(
    "room, told",
    [(0, "error"), *(pytest.param(*case, marks=pytest.mark.long) for case in ((10**9, ""), (10**12, "GiB")))],
)
def test_room_for_all_features_is_checked_before_the_first(config, monkeypatch, capsys, room, told):
    """5 images in 3 views and 3 in one, maps of float16 that take 1.9 GiB each."""
    encoder = CountedCalls()
    large = keras.KerasTensor([None, 1000, 1000, 1000 if told else 10])
    monkeypatch.setattr(CountedCalls, "outputs", (large,))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=room))
    splits, views = prepare_data(config), {"train": 3, "val": 1}
    if told == "error":
        with pytest.raises(UserError, match=r"18 views of images take 33\.5 GiB, and 0\.0 GiB are free in .*--views"):
            all_features(config, splits, encoder, views)
        assert not encoder.calls and not (config.cache_path() / "features").exists()
        return
    all_features(config, splits, encoder, views)
    assert ("18 views of images take 33.5 GiB" in capsys.readouterr().out) == bool(told)
    capsys.readouterr()
    all_features(config, splits, encoder, views)  # nothing is missing
    assert "GiB" not in capsys.readouterr().out


def test_the_size_of_large_features_is_told_before_the_first(config, monkeypatch, capsys):
    monkeypatch.setattr(CountedCalls, "outputs", (keras.KerasTensor([None, 1000, 1000, 1000]),))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=10**12))

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(features, "compute_shards", stop)
    with pytest.raises(KeyboardInterrupt):
        all_features(config, prepare_data(config), CountedCalls(), {"train": 3, "val": 1})
    assert "features of 18 views of images take 33.5 GiB in " in capsys.readouterr().out


def test_bytes_of_a_row_are_those_of_a_shard(tmp_path):
    for shape, dtype in (([5], "float32"), ([4, 5], "float32"), ([3, 3, 6], "float32"), ([3, 3, 3], "uint8")):
        rows = np.load(write_shard(tmp_path / dtype / str(len(shape)), ["1", "2"], np.zeros([2, *shape], dtype)))
        assert rows.nbytes == 2 * stored_bytes(shape, dtype)


def test_images_of_another_data_set_are_not_computed_again(config):
    splits = prepare_data(config)
    all_features(config, splits, CountedCalls(), dict.fromkeys(NEEDED, 1))
    both = dataclasses.replace(splits["val"], keys=splits["val"].keys[::-1])
    again = CountedCalls()
    found = all_features(config, {"test": both}, again, {"test": 1})["test"]
    assert again.calls == 0
    expected = all_features(config, {"val": splits["val"]}, again, {"val": 1})["val"]
    np.testing.assert_array_equal(found.view()[::-1], expected.view()[:])


def test_views_are_those_of_their_image_whatever_the_order_of_threads(config):
    split = prepare_data(config)["train"]
    found = np.concatenate(list(shard_work.pixels(split.images.encoded(range(5)), split.keys, 32, view=2)))
    for row, record in read_images(split, range(5)).items():
        seed = tf.constant([2, shard_work.view_seed(split.keys[row])], tf.int64)
        np.testing.assert_array_equal(found[row], resize_image(draw_view(decode_image(record), seed), 32))


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
    before = prepare_data(config)["train"].captions
    (root,) = {path.parent for path in config.cache_path().glob("data/*/**/digests.json")}
    files = sorted(path for path in root.iterdir() if path.name != "digests.json")
    assert len(files) == 4  # what describes them; the records of each split
    for file in files[::3] if damage != "no digest" else [root / "digests.json"]:
        file.unlink() if damage != "cut" else file.write_bytes(file.read_bytes()[:-9])
        assert prepare_data(config)["train"].captions == before
        assert capsys.readouterr().err.count("the data set is prepared again") == 1
        prepare_data(config)
        assert "prepared again" not in capsys.readouterr().err


def test_a_data_set_without_any_digest_is_not_trusted(tmp_path):
    (tmp_path / "1.0.0").mkdir()
    assert rendered._fault(tmp_path) == "is not whole"
    (tmp_path / "1.0.0" / "digests.json").write_text("{}")
    assert rendered._fault(tmp_path) == "its digests.json is empty"


class TestParts:
    def test_shards_with_more_parts_and_with_less(self, tmp_path):
        rng = np.random.default_rng(0)
        few, many = (rng.normal(size=(2, count, 3)).astype(np.float32) for count in (2, 4))
        store = FeatureStore(tmp_path)
        store.add(["a" * 64, "b" * 64], few)
        store.add(["c" * 64, "d" * 64], many)
        features = Features(store.shards, store.places(["c" * 64, "a" * 64, "d" * 64])[:, None])
        assert features.shape == (3, 1, 4, 3)
        assert all(shard.dtype == np.float16 for shard in store.shards)
        found = features.gather(np.array([1, 0, 2]))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found[0], np.pad(few[0], [(0, 2), (0, 0)]), atol=1e-3)
        np.testing.assert_allclose(found[1:], many, atol=2e-3)
        view = features.view(images=2)
        assert view.shape == (2, 4, 3) and view[1:].shape == (1, 4, 3)

    def test_numbers_that_are_too_large_for_them_are_refused(self, tmp_path):
        with pytest.raises(UserError, match=r"float16, and 70,000 is too large; .* 65,504"):
            write_shard(tmp_path, ["a" * 64], np.full([1, 2, 3], 7e4, np.float32))

    def test_the_mean_of_an_encoders_cells_are_its_features(self):
        pixels = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
        cells, mean = (build_encoder("VGG16", "random", 64, grid=grid)(pixels).numpy() for grid in (True, False))
        assert cells.shape == (2, 4, 512)
        np.testing.assert_allclose(cells.mean(axis=1), mean, rtol=1e-4, atol=1e-6)
