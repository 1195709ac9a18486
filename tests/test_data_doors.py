"""Ways into training: splits, folders, features and data sets of others, and what is rejected at the door."""

import contextlib
import copy
import dataclasses
import itertools
import os
import struct
from collections import Counter

import h5py
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from spidercap.pipeline.data import given_features, tfds_source, tfds_splits
from spidercap.pipeline.data.caption_splits import read_splits, split_of
from spidercap.pipeline.data.feature_files import open_feature_file
from spidercap.pipeline.data.files_source import files_source
from spidercap.pipeline.data.given_features import open_features
from spidercap.pipeline.data.image_places import Place, places_of, split_folders
from spidercap.pipeline.data.overlap import images_of, report_overlap
from spidercap.pipeline.data.prepare import prepare_data
from spidercap.pipeline.data.records import SPLITS, Split, read_images
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.settings.data_settings import DataSettings
from spidercap.pipeline.text.listing import Listed
from tests.files import coco, write
from tests.test_folder import JPEG, PNG

KARPATHY = {
    "images": [
        {
            "filepath": "train2014",
            "filename": f"{i}.jpg",
            "cocoid": i,
            "split": split,
            "sentences": [{"raw": f"Dog {i}."}],
        }
        for i, split in enumerate(["train", "restval", "val", "test", "train"])
    ]
}


def settings_of(**changes):
    """DataSettings of files, with paths as text."""
    return DataSettings(
        dataset="files", **{k: os.fspath(v) if isinstance(v, os.PathLike) else v for k, v in changes.items()}
    )


class TestSplits:
    def test_a_file_that_names_them(self, tmp_path):
        settings = settings_of(captions=write(tmp_path / "k.json", KARPATHY))
        found = read_splits(settings, ["train", "val", "test"])
        assert {n: [one.image_id for one in of.images] for n, (_, of) in found.items()} == {
            "train": [0, 1, 4],
            "val": [2],
            "test": [3],
        }
        assert found["train"][1].images[1].file_name == "train2014/1.jpg"

    def test_such_a_file_for_one_split_gives_that_split(self, tmp_path, capsys):
        path = write(tmp_path / "k.json", KARPATHY)
        rows = read_splits(settings_of(test_captions=path), ["test"])["test"][1].images
        assert [one.image_id for one in rows] == [3]
        assert "names splits; 1 of its 5 images are test" in capsys.readouterr().err

    def test_fractions_are_about_right_and_stable_when_images_are_added(self, tmp_path):
        settings = settings_of(captions="x", val_fraction=0.2, test_fraction=0.1)
        drawn = {name: split_of(name, settings) for name in map(str, range(3000))}
        counts = Counter(drawn.values())
        assert abs(counts["val"] - 600) < 70 and abs(counts["test"] - 300) < 50
        path = write(tmp_path / "few.json", coco({i: f"{i}" for i in range(20)}))
        few = read_splits(settings_of(captions=path, val_fraction=0.2, test_fraction=0.1), ["train", "val", "test"])
        assert {one.file_name: n for n, (_, of) in few.items() for one in of.images} == {
            str(i): drawn[str(i)] for i in range(20)
        }
        other = settings_of(captions="x", val_fraction=0.2, test_fraction=0.1, split_seed=1)
        assert sum(split_of(name, other) == split for name, split in drawn.items()) < 2000

    def test_a_share_of_the_training_captions_validates(self, tmp_path):
        path = write(tmp_path / "t.json", coco({i: f"{i}" for i in range(20)}))
        found = read_splits(settings_of(train_captions=path, val_fraction=0.3), ["train", "val", "test"])
        assert list(found) == ["train", "val"] and sum(len(of.images) for _, of in found.values()) == 20

    @pytest.mark.parametrize("named", [True, False])
    def test_what_was_left_out_is_of_the_split_of_its_image(self, tmp_path, named):
        images = [
            {"filename": f"{i}", "sentences": [{"raw": "Dog."} for _ in range(i % 3)] + [{"raw": "!"}] * (i % 4)}
            for i in range(60)
        ]
        if named:
            images = [one | {"split": SPLITS[i // 3 % 3]} for i, one in enumerate(images)]
        fractions = {} if named else {"val_fraction": 0.3, "test_fraction": 0.3}
        settings = settings_of(captions=write(tmp_path / "k.json", {"images": images}), skip_bad_captions=True)
        settings = dataclasses.replace(settings, **fractions)
        found = read_splits(settings, SPLITS)
        whole = [one for _, of in found.values() for one in (*of.images, *of.without_captions)]
        for name, (_, of) in found.items():
            for one in (*of.images, *of.without_captions):
                assert name == (SPLITS[int(one.file_name) // 3 % 3] if named else split_of(one.file_name, settings))
        assert len(whole) == 60 and {one.file_name: (len(one.captions), one.left_out) for one in whole} == {
            f"{i}": (i % 3, (("!", "without words"),) * (i % 4)) for i in range(60)
        }
        assert all(one.captions for _, of in found.values() for one in of.images)

    def test_what_is_rejected(self, tmp_path):
        plain = write(tmp_path / "t.json", coco({0: "0", 1: "1"}))
        named = write(tmp_path / "k.json", KARPATHY)
        some = copy.deepcopy(KARPATHY)
        del some["images"][0]["split"]
        some = write(tmp_path / "k2.json", some)
        for settings, wanted, shown in (
            ({"captions": plain}, "val", "does not say which images are train, val and test; add --val_fraction"),
            ({"captions": named, "val_fraction": 0.1}, "val", "names the splits of its images itself; leave out"),
            (
                {"train_captions": plain, "val_captions": plain},
                "val",
                "--train_captions and --val_captions are the same",
            ),
            ({"train_captions": plain, "val_captions": tmp_path / "." / "t.json"}, "val", "are the same file"),
            (
                {"train_captions": plain, "val_fraction": 1e-6},
                "val",
                "has no images of the split val; raise --val_fraction, or draw others by --split_seed",
            ),
            (
                {"captions": plain, "val_fraction": 0.9, "test_fraction": 0.9},
                "val",
                "split train; lower --val_fraction and --test_fraction",
            ),
            ({"captions": plain, "val_fraction": 0.5, "val_captions": named}, "val", "both give the split val; leave"),
            (
                {"captions": plain, "val_fraction": 0.5, "test_captions": plain},
                "test",
                "--test_captions and --captions are the same file",
            ),
            (
                {"captions": some},
                "val",
                r"k2.json: 1 images have no split, but others do \(.*\); name the split of each",
            ),
            ({"train_captions": plain, "val_captions": some}, "val", "1 images have no split, but others do"),
        ):
            with pytest.raises(UserError, match=shown):
                read_splits(settings_of(**settings), ["train", wanted])

    def test_overlap_is_counted_by_contents_and_names(self, capsys):
        def split(names, keys):
            return Split(tuple(names), tuple(names), (("a dog",),) * len(names), tuple(keys), None)

        train, val = split("abc", "123"), split("cde", "452")
        report_overlap({"train": train, "val": val}, {})
        told = capsys.readouterr().err
        assert "warning: 2 of 3 images of val are in train, too, by contents or by file name (c, e)" in told
        report_overlap({"test": split("x", "3")}, {"train": images_of(train), "val": images_of(val)})
        told = capsys.readouterr().err
        assert "1 of 1 images of test are in train" in told and "val" not in told
        report_overlap({"train": train, "val": split("xy", "89")}, {})
        assert capsys.readouterr().err == ""


class TestFolders:
    @pytest.fixture
    def folders(self, tmp_path):
        for name in (
            "train2014/a.jpg",
            "val2014/b.jpg",
            "val2014/deep/c.jpg",
            "train2014/twice.jpg",
            "val2014/twice.jpg",
        ):
            write(tmp_path / name, JPEG)
        return [str(tmp_path / "train2014"), str(tmp_path / "val2014")]

    def test_names_are_found_in_several_and_in_sub_folders(self, folders, capsys):
        train, val = folders
        found = places_of("c.json", ["a.jpg", "b.jpg", "c.jpg", "val2014/twice.jpg"], folders, False)
        assert found == {
            "a.jpg": Place(train, "a.jpg"),
            "b.jpg": Place(val, "b.jpg"),
            "c.jpg": Place(val, "deep/c.jpg"),
            "val2014/twice.jpg": Place(val, "twice.jpg"),
        }
        assert "2 of 4 images are found by name in sub-folders" in capsys.readouterr().err

    def test_a_name_that_fits_several_is_rejected(self, folders):
        with pytest.raises(
            UserError, match=r"1 file names fit several files in --images=.* \(twice.jpg\); write their p"
        ):
            places_of("c.json", ["twice.jpg"], folders, False)
        with pytest.raises(UserError, match=r"1 images are not in --images=.*\(d.jpg\)"):
            places_of("c.json", ["d.jpg"], folders, False)

    def test_ten_thousand_missing_images_are_a_count_and_the_first(self, folders):
        with pytest.raises(UserError, match=r"10000 images are not in .*\(0.jpg, 1.jpg, 2.jpg, \.\.\.\)") as caught:
            places_of("c.json", [f"{i}.jpg" for i in range(10_000)], folders, False)
        assert len(str(caught.value)) < 500

    def test_the_list_of_folders(self, folders, tmp_path):
        assert split_folders(",".join(folders)) == folders
        write(tmp_path / "a,b" / "x.jpg", JPEG)
        assert split_folders(str(tmp_path / "a,b")) == [str(tmp_path / "a,b")]
        with pytest.raises(UserError, match="nowhere is not a folder"):
            split_folders(f"{folders[0]},nowhere")


VECTORS = {f"{i}.jpg": np.arange(3, dtype=np.float32) + i for i in range(4)}


def npz(path, vectors):
    np.savez(path, **vectors)


def npz_table(path, vectors):
    np.savez(path, ids=np.array(list(vectors)), features=np.stack(list(vectors.values())))


def npy(path, vectors):
    np.save(path, np.stack(list(vectors.values())))
    path.with_suffix(".txt").write_text("\n".join(vectors) + "\n")


def h5(path, vectors):
    with h5py.File(path, "w") as file:
        for name, vector in vectors.items():
            file[name] = vector


def h5_table(path, vectors):
    with h5py.File(path, "w") as file:
        file["ids"], file["features"] = list(vectors), np.stack(list(vectors.values()))


def tfrecord(path, vectors):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name, vector in vectors.items():
            feature = {
                "file_name": tf.train.Feature(bytes_list=tf.train.BytesList(value=[name.encode()])),
                "features": tf.train.Feature(float_list=tf.train.FloatList(value=vector.ravel())),
                "shape": tf.train.Feature(int64_list=tf.train.Int64List(value=vector.shape)),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


KINDS = [(npz, ".npz"), (npz_table, ".npz"), (npy, ".npy"), (h5, ".h5"), (h5_table, ".h5"), (tfrecord, ".tfrecord")]


class TestFeatures:
    @pytest.mark.parametrize(("make", "suffix"), KINDS)
    def test_every_format_holds_the_same(self, tmp_path, make, suffix):
        path = tmp_path / f"f{suffix}"
        make(path, VECTORS)
        with open_features(str(path)) as given:
            assert sorted(given.names) == sorted(VECTORS) and given.size == 3
            np.testing.assert_array_equal(given.rows(list(VECTORS), False), np.stack(list(VECTORS.values())))

    @pytest.mark.parametrize(("make", "suffix"), KINDS)
    def test_grids_are_averaged(self, tmp_path, make, suffix):
        grids = {name: np.stack([vector, vector + 2, vector + 4, vector]) for name, vector in VECTORS.items()}
        make(tmp_path / f"f{suffix}", grids)
        with open_features(str(tmp_path / f"f{suffix}")) as given:
            np.testing.assert_array_equal(given.rows(["2.jpg"], False), grids["2.jpg"].mean(axis=0)[None])

    def test_splits_by_id_name_or_stem_from_several_files(self, tmp_path, monkeypatch):
        npz(tmp_path / "a.npz", {"0.jpg": VECTORS["0.jpg"], "1": VECTORS["1.jpg"]})
        h5(tmp_path / "b.h5", {"photo": VECTORS["2.jpg"], "spare": VECTORS["3.jpg"]})
        train = write(tmp_path / "t.json", coco({7: "0.jpg", 1: "x.jpg"}))
        val = write(tmp_path / "v.json", coco({9: "photo.png"}))
        config = Config.of(
            workdir=str(tmp_path / "run"),
            dataset="files",
            features=f"{tmp_path}/a.npz, {tmp_path}/b.h5",
            train_captions=str(train),
            val_captions=str(val),
        )
        splits = prepare_data(config)
        assert splits["train"].images is None and read_images(splits["train"], [0]) == {}
        found = given_features.given_features(config, splits)
        np.testing.assert_array_equal(found["train"].view()[:], [VECTORS["1.jpg"], VECTORS["0.jpg"]])
        np.testing.assert_array_equal(found["val"].view()[:], [VECTORS["2.jpg"]])
        monkeypatch.setattr(given_features.GivenFeatures, "rows", lambda *args: pytest.fail("read again"))
        given_features.given_features(config, splits)

    @pytest.mark.parametrize(
        ("vectors", "shown"),
        [
            (
                {"0.jpg": np.zeros(3)},
                r"1 of 2 images have no features in --features \(1.jpg\); names there are such as 0",
            ),
            ({"0.jpg": np.zeros(3), "1.jpg": np.zeros(4)}, "the features of 1.jpg have size 4, those of 0.jpg 3; give"),
            ({"0.jpg": np.zeros(3), "1.jpg": np.array([0, 1, np.nan])}, "the features of 1.jpg are NaN or infinite"),
            ({"0.jpg": np.zeros((2, 2, 2))}, r"of 0.jpg are float64 \[2, 2, 2\]; needed: numbers"),
            ({"0.jpg": np.array(["a"])}, "needed: numbers"),
            ({}, "holds no features"),
        ],
    )
    def test_bad_features_are_named(self, tmp_path, vectors, shown):
        npz(tmp_path / "f.npz", vectors)
        path = write(tmp_path / "t.json", coco({0: "0.jpg", 1: "1.jpg"}))
        settings = {
            "features": f"{tmp_path}/f.npz",
            "train_captions": str(path),
            "val_captions": str(tmp_path / "v.json"),
        }
        config = Config.of(workdir=str(tmp_path / "run"), dataset="files", **settings)
        with pytest.raises(UserError, match=shown) as caught:
            splits = files_source(config.data, config.cache_path(), ["train"]).load()
            given_features.given_features(config, splits)
        assert "\n" not in str(caught.value)

    def test_one_name_does_not_serve_several_images(self, tmp_path):
        """Found by the last part of the path, or by the id of another image."""
        npz(tmp_path / "f.npz", {"x.jpg": np.zeros(3), "12": np.ones(3), "same.jpg": np.zeros(3)})
        given = open_features(str(tmp_path / "f.npz"))
        with given as opened:
            for names, shown in (
                (
                    {1: "a/x.jpg", 2: "b/x.jpg"},
                    r"1 names in --features fit several images \(x.jpg: a/x.jpg and b/x.jpg\)",
                ),
                ({12: "other.jpg", 3: "12.jpg"}, r"\(12: other.jpg and 12.jpg\); name features by ids, or by whole"),
            ):
                rows = [Listed(image_id, name, ("a dog",)) for image_id, name in names.items()]
                with pytest.raises(UserError, match=shown):
                    given_features.feature_keys(opened, "t.json", rows, False)
            rows = [Listed(image_id, "same.jpg", ("a dog",)) for image_id in (1, 2)]
            assert len(set(given_features.feature_keys(opened, "t.json", rows, False).values())) == 1

    @pytest.mark.parametrize("compressed", [False, True])
    def test_damage_anywhere_in_a_file_is_one_line(self, tmp_path, compressed):
        whole = tmp_path / "whole.npz"
        (np.savez_compressed if compressed else np.savez)(whole, **{f"{i}.jpg": np.arange(9.0) * i for i in range(4)})
        content = whole.read_bytes()
        told = 0
        for place in (*range(0, len(content), 7), None):
            damaged = content[: len(content) // 2] if place is None else bytearray(content)
            if place is not None:
                damaged[place] ^= 0x5A
            (tmp_path / "f.npz").write_bytes(damaged)
            try:
                with open_features(str(tmp_path / "f.npz")) as given:
                    given.rows(given.names, False)
            except UserError as error:
                told += "\n" not in str(error)
        assert told > len(content) / 7 / 3  # the rest is in what no one reads, such as dates

    def test_names_of_another_kind_are_named(self, tmp_path):
        feature = {"features": tf.train.Feature(float_list=tf.train.FloatList(value=[1.0]))}
        for name, kind, shown in (
            (
                "file_name",
                tf.train.Feature(bytes_list=tf.train.BytesList(value=[])),
                "neither a text nor a whole number",
            ),
            ("image_id", tf.train.Feature(float_list=tf.train.FloatList(value=[1.0])), "neither a text nor a whole"),
            ("", None, "has nothing in record 0"),
        ):
            given = feature | {name: kind} if name else {}
            with tf.io.TFRecordWriter(str(tmp_path / "f.tfrecord")) as writer:
                writer.write(tf.train.Example(features=tf.train.Features(feature=given)).SerializeToString())
            with pytest.raises(UserError, match=shown), open_features(str(tmp_path / "f.tfrecord")):
                pass
        np.savez(tmp_path / "f.npz", ids=np.array([["a"], ["b"]]), features=np.zeros([2, 3]))
        with (
            pytest.raises(UserError, match=r"ids of shape \[2, 1\]"),
            open_features(str(tmp_path / "f.npz")),
        ):
            pass

    def test_bad_files_are_named(self, tmp_path):
        np.save(tmp_path / "lonely.npy", np.zeros((2, 3)))
        np.savez(tmp_path / "no_ids.npz", features=np.zeros((2, 3)))
        np.savez(tmp_path / "few_ids.npz", features=np.zeros((2, 3)), ids=["a"])
        np.savez(tmp_path / "pickled.npz", a=np.array([{}], object))
        for suffix in ("npy", "npz", "h5", "tfrecord"):
            (tmp_path / f"text.{suffix}").write_text("not features")
        for name, shown in (
            ("none.npz", "is not a file; give a file"),
            ("text.npy", "cannot be read"),
            ("text.npz", "cannot be read"),
            ("text.h5", "cannot be read"),
            ("text.tfrecord", "cannot be read"),
            ("lonely.npy", "has no names, because .*lonely.txt does not exist; needed: an array"),
            ("no_ids.npz", "holds 'features', but no ids"),
            ("few_ids.npz", r"holds 1 names and features \[2, 3\]"),
            ("pickled.npz", "cannot be read"),
        ):
            with pytest.raises(UserError, match=shown), contextlib.ExitStack() as stack:
                open_feature_file(str(tmp_path / name), stack)
        npz(tmp_path / "a.npz", {"x": np.zeros(3)})
        npz(tmp_path / "b.npz", {"x": np.zeros(3)})
        npz(tmp_path / "c.npz", {"y": np.zeros(4)})
        for other, shown in (("b", r"b.npz: 1 names are in another file .*, too \(x\)"), ("c", "of different sizes")):
            with pytest.raises(UserError, match=shown), open_features(f"{tmp_path}/a.npz,{tmp_path}/{other}.npz"):
                pass


SIZES = {"train": range(4), "restval": range(4, 6), "val": range(6, 8), "test": range(8, 10)}


class Nested(tfds.core.GeneratorBasedBuilder):
    """A data set with the splits and the features of coco_captions/2014."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "image/filename": tfds.features.Text(),
            "image/id": np.int64,
            "captions": tfds.features.Sequence({"text": tfds.features.Text(), "id": np.int64}),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(numbers) for name, numbers in SIZES.items()}

    def _generate_examples(self, numbers):
        for k in numbers:
            yield (
                k,
                {
                    "image": JPEG if k % 2 else PNG,
                    "image/filename": f"{k}.jpg",
                    "image/id": 100 + k,
                    "captions": [{"text": f"Dog {k}.", "id": 9}, {"text": f"Cat {k}.", "id": 8}],
                },
            )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    tfds.disable_progress_bar()
    Nested(data_dir=folder).download_and_prepare()
    return folder


def record_places(folder, splits):
    """The file, the start and the size of each record of these splits, in the order of their files."""
    for file in itertools.chain.from_iterable(sorted(folder.glob(f"*-{name}.tfrecord-*")) for name in splits):
        content, start = file.read_bytes(), 0
        while start < len(content):
            (size,) = struct.unpack_from("<Q", content, start)
            yield file, start + 12, size
            start += 12 + size + 4  # a size and its checksum; the record and its checksum


class TestTfds:
    def splits_of(self, tmp_path, prepared, dataset="tfds:nested", **more):
        settings = ({"tfds_captions": "captions/text"} if dataset != "coco" else {}) | more
        return prepare_data(Config.of(workdir=str(tmp_path / "r"), dataset=dataset, data_dir=str(prepared), **settings))

    def test_nested_features_of_a_prepared_data_set(self, tmp_path, prepared):
        splits = self.splits_of(tmp_path, prepared, tfds_id="image/id")
        assert {n: sorted(s.image_ids) for n, s in splits.items()} == {
            n: [100 + k for k in SIZES[n]] for n in ("train", "val", "test")
        }
        val = splits["val"]
        assert val.captions == tuple((f"Dog {i - 100}.", f"Cat {i - 100}.") for i in val.image_ids)
        assert read_images(val, [1, 0]) == {row: JPEG if i % 2 else PNG for row, i in enumerate(val.image_ids)}

    def test_splits_by_expressions(self, tmp_path, prepared):
        splits = self.splits_of(tmp_path, prepared, tfds_splits="train[:2];train[2:3]")
        assert {n: s.image_ids for n, s in splits.items()} == {"train": (0, 1), "val": (0,)}
        texts = [captions[0] for split in splits.values() for captions in split.captions]
        assert len(set(texts)) == 3

    def test_coco_with_the_splits_of_karpathy_and_of_the_paper(self, tmp_path, prepared, monkeypatch):
        monkeypatch.setattr(tfds_source, "COCO", "nested")
        monkeypatch.setattr(tfds_source, "HELD_OUT", 1)
        ids = {name: [100 + k for k in numbers] for name, numbers in SIZES.items()}
        splits = self.splits_of(tmp_path, prepared, dataset="coco")
        assert sorted(splits["train"].image_ids) == ids["train"] + ids["restval"]
        assert sorted(splits["val"].image_ids) == ids["val"] and sorted(splits["test"].image_ids) == ids["test"]
        assert set(splits["val"].file_names) == {"6.jpg", "7.jpg"}
        splits = self.splits_of(tmp_path, prepared, dataset="coco", coco_split="paper")
        assert list(splits) == ["train", "val"] and len(splits["val"]) == 1
        together = sorted(splits["train"].image_ids + splits["val"].image_ids)
        assert together == sorted(i for of in ids.values() for i in of) and splits["val"].image_ids[0] in ids["restval"]

    @pytest.mark.parametrize("split", ["all", "train[3:1]+train[1:]+restval", "val[-1:] + train[25%:75%]+train"])
    def test_a_part_of_a_split_has_the_order_of_the_whole(self, tmp_path, split):
        builder = Nested(data_dir=tmp_path)
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=2))

        def ids(instruction):
            return [int(one["image/id"]) for one in tfds_splits.records(builder, instruction, "image")]

        whole = ids(split)
        for first, end in itertools.combinations(range(len(whole) + 1), 2):
            assert ids(tfds_splits.part_of_split(builder, split, first, end)) == whole[first:end]

    @pytest.mark.parametrize(
        ("split", "left"),
        [("train+restval", []), ("train[1:]+restval[:1]", [0, 5]), ("restval[50%:] + train[:-1]", [0, 5])],
    )
    def test_a_shard_reads_its_own_records_alone(self, tmp_path, split, left):
        Nested(data_dir=tmp_path).download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=2))
        images = self.splits_of(tmp_path, tmp_path, tfds_splits=f"{split};val")["train"].images
        (folder,) = tmp_path.glob("nested/*")
        names = ("restval", "train") if split.startswith("restval") else ("train", "restval")
        places = [place for number, place in enumerate(record_places(folder, names)) if number not in left]
        assert len({file for file, _, _ in places}) >= 3
        whole = list(images.encoded(range(len(places))).as_numpy_iterator())
        sound = {file: file.read_bytes() for file, _, _ in record_places(folder, SIZES)}
        for rows in ([0], [1, 2], [0, 2], [3], [len(places) - 1]):
            for file, start, size in record_places(folder, SIZES):
                if (file, start, size) not in places[rows[0] : rows[-1] + 1]:
                    with open(file, "r+b") as opened:
                        opened.seek(start)
                        opened.write(bytes(size))
            part = images.of(rows)
            assert list(part.encoded(range(len(rows))).as_numpy_iterator()) == [whole[row] for row in rows]
            assert list(images.encoded(rows).as_numpy_iterator()) == [whole[row] for row in rows]
            for file, content in sound.items():
                file.write_bytes(content)

    @pytest.mark.parametrize(
        ("changes", "shown"),
        [
            ({"dataset": "tfds:no_such_set"}, "TensorFlow Datasets has no no_such_set"),
            (
                {"dataset": "coco"},
                r"coco_captions/2014/.* is not prepared in .*; name the folder .*, or add --download",
            ),
            ({"tfds_captions": "caption"}, r"--tfds_captions=caption is not a feature of .*; allowed: .*captions/text"),
            ({"tfds_splits": "train"}, "names 1 splits; needed: two or three"),
            ({"tfds_splits": "train;tset"}, "has no split 'tset'; allowed: train, restval, val, test, and parts"),
        ],
    )
    def test_what_is_rejected(self, tmp_path, prepared, changes, shown):
        with pytest.raises(UserError, match=shown):
            self.splits_of(tmp_path, prepared, **changes)


class TestParts:
    """Features of parts of an image, for captioners that attend."""

    @pytest.mark.parametrize(("make", "suffix"), [(npz, ".npz"), (h5, ".h5"), (tfrecord, ".tfrecord")])
    def test_images_may_have_different_numbers_of_them(self, tmp_path, make, suffix):
        parts = {f"{i}.jpg": np.full([1 + i, 3], 1 + i, np.float32) for i in range(3)}
        make(tmp_path / f"f{suffix}", parts)
        with open_features(str(tmp_path / f"f{suffix}")) as given:
            found = given.rows(["1.jpg", "0.jpg"], True)
            np.testing.assert_array_equal(found, [[[2] * 3, [2] * 3], [[1] * 3, [0] * 3]])
            assert given.rows([], True).shape == (0, 0, 3)

    def test_vectors_are_refused(self, tmp_path):
        npz(tmp_path / "f.npz", VECTORS)
        with (
            open_features(str(tmp_path / "f.npz")) as given,
            pytest.raises(UserError, match=r"are \[3\], without parts .* --decoder=lstm"),
        ):
            given.rows(["1.jpg"], True)

    def test_parts_of_another_size_not_finite_or_of_zeros(self, tmp_path):
        parts = {"a": np.ones([2, 3]), "b": np.ones([2, 4]), "c": np.full([2, 3], np.inf), "d": np.zeros([2, 3])}
        npz(tmp_path / "f.npz", parts)
        with open_features(str(tmp_path / "f.npz")) as given:
            wrongs = {"b": "have size 4, those of a 3", "c": "are NaN or infinite", "d": "are all 0"}
            for name, wrong in wrongs.items():
                with pytest.raises(UserError, match=f"features of {name} {wrong}"):
                    given.rows([name], True)
