"""Users' own pictures: what is taken, what is refused and how it is named, and what comes back from the cache."""

import json

import numpy as np
import pytest
import tensorflow as tf

from spidercap.pipeline.data.image_files import readable_files
from spidercap.pipeline.data.prepare import prepare_data
from spidercap.pipeline.data.records import read_images
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.config import Config
from tests.files import coco, read_captions, write

PIXELS = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
JPEG = tf.io.encode_jpeg(PIXELS).numpy()
PNG = tf.io.encode_png(PIXELS).numpy()
NOT_WHOLE = {"text.jpg": b"no picture", "zero.jpg": b"", "half.jpg": JPEG[: len(JPEG) // 2], "end.png": PNG[:-9]}


@pytest.fixture
def pictures(tmp_path):
    """A folder with 0.jpg ... 4.jpg and deep/5.png."""
    for i in range(5):
        write(tmp_path / "pictures" / f"{i}.jpg", JPEG)
    write(tmp_path / "pictures" / "deep" / "5.png", PNG)
    return tmp_path / "pictures"


def with_image(**changes):
    content = coco({0: "0.jpg", 1: "1.jpg"})
    content["images"][1].update(changes)
    return content


def with_annotation(**changes):
    content = coco({0: "0.jpg", 1: "1.jpg"})
    content["annotations"][3].update(changes)
    return content


def test_captions_are_read_in_the_order_of_ids(tmp_path, pictures):
    names = {2**63 - 1: "deep/5.png", 7: "./0.jpg", 0: "1.jpg"}
    content = coco(names)
    content["annotations"][0]["caption"] = "  Zwei Hünde\u2028🐕\nrun  "
    path = write(tmp_path / "c.json", b"\xef\xbb\xbf" + json.dumps(content).encode())
    entries = read_captions(str(path), str(pictures))
    assert [(e.image_id, e.file_name) for e in entries] == sorted(names.items())
    assert entries[2].captions == ("  Zwei Hünde\u2028🐕\nrun  ", f"Caption 2 of {2**63 - 1}.")


def test_real_captions_are_taken(data_folder):
    flickr = data_folder / "flickr8k"
    entries = read_captions(str(flickr / "captions_train.json"), str(flickr / "images"))
    assert len(entries) == 6000 and all(len(e.captions) == 5 for e in entries)


@pytest.mark.parametrize(
    "content, shown",
    [
        (b"", "is empty"),
        (b'{"images": [', "is not JSON"),
        ("{}".encode("utf-16"), "is text in UTF-16"),
        (b"[" * 100_000, "is not JSON"),
        ([], "holds no captions; "),
        (b"7", "is the JSON value 7, which is no captions file; needed is one of: "),
        ({"annotations": []}, "has no list 'images'"),
        ({"images": {}, "annotations": []}, "has no list 'images'"),
        ({"images": [{"id": 0, "file_name": "0.jpg"}]}, "has no list 'annotations'"),
        ({"images": [], "annotations": []}, "lists no images"),
        ({"images": ["0.jpg"], "annotations": []}, "'id' of images[0] is missing"),
        (with_image(id="1"), "1 annotated image ids are not in 'images' (1); 1 here is '1' there"),
        (with_image(id=float("nan")), "'id' of images[1] is nan; needed: a finite number or text"),
        (with_image(id=float("inf")), "'id' of images[1] is inf"),
        (with_image(id=[1]), "'id' of images[1] is [1]"),
        (with_image(id="\ud800"), "'id' of images[1] is '\\ud800'"),
        (with_image(id=True), "'id' of images[1] is True"),
        (with_image(id=None), "'id' of images[1] is None"),
        (with_image(file_name=5), "'file_name' of images[1] is 5; needed: text"),
        (with_image(file_name="\ud800.jpg"), "'file_name' of images[1] is '\\ud800.jpg'"),
        (with_annotation(image_id="1"), "are not in 'images' (\"1\"); '1' here is 1 there, but text never equals"),
        (with_annotation(image_id=None), "'image_id' of annotations[3] is None"),
        (with_annotation(caption=None), "'caption' of annotations[3] is None; needed: text"),
        (with_annotation(caption=["a", "dog"]), "'caption' of annotations[3] is ['a', 'dog']"),
        (with_annotation(caption="a \ud83d dog"), "'caption' of annotations[3] is 'a \\ud83d dog'; needed: text"),
        (with_annotation(caption=""), "1 images have a caption without words (1)"),
        (with_annotation(caption=" .\n"), "1 images have a caption without words (1)"),
        (with_annotation(caption="\U0001d41d\U0001f415"), "1 images have a caption without words (1)"),
        (with_annotation(caption="&nbsp;"), "leave them out with --skip_bad_captions"),
        (with_annotation(caption="dog " * 2501), "1 images have a caption of over 10,000 characters (1)"),
        (with_annotation(image_id=9), "(9); add those images, or remove those annotations"),
        (with_image(id=0), "1 image ids come twice with different files (0)"),
        (with_image(file_name="nowhere.jpg"), "1 images are not in --images="),
        (with_image(file_name="deep"), "1 images are not in --images="),
        (with_image(file_name=""), "1 images are not in --images="),
        (with_image(file_name="a\0.jpg"), "1 images are not in --images="),
        (with_image(file_name="deep/../1.jpg"), "1 file names are outside of --images="),
        (with_image(file_name="/etc/hostname"), "1 file names are absolute paths"),
    ],
)
def test_captions_that_cannot_be_used_are_named(tmp_path, pictures, content, shown):
    path = write(tmp_path / "c.json", content)
    with pytest.raises(UserError) as caught:
        read_captions(str(path), str(pictures))
    message = str(caught.value)
    assert message.startswith(str(path)) and shown in message
    assert "\n" not in message and "; " in message  # one line, with a remedy


def test_of_many_mistakes_the_first_are_listed_and_all_are_counted(tmp_path, pictures):
    path = write(tmp_path / "c.json", coco({i: f"{i}.jpg" for i in range(12)}))
    with pytest.raises(UserError, match=r"7 images are not in .*\(5.jpg, 6.jpg, 7.jpg, \.\.\.\); "):
        read_captions(str(path), str(pictures))
    content = coco({i: f"{i}.jpg" for i in range(5)})
    content["annotations"] = content["annotations"][:2]
    with pytest.raises(UserError, match=r"4 images have no caption \(1, 2, 3, \.\.\.\); "):
        read_captions(str(write(path, content)), str(pictures))


def test_files_that_are_not_there_are_named(tmp_path, pictures):
    with pytest.raises(UserError, match=r"none.json cannot be read .*; a captions file is needed"):
        read_captions(str(tmp_path / "none.json"), str(pictures))
    with pytest.raises(UserError, match=r"cannot be read .Is a directory"):
        read_captions(str(tmp_path), str(pictures))
    path = write(tmp_path / "c.json", coco({0: "0.jpg"}))
    for no_folder in (tmp_path / "none", path):
        with pytest.raises(UserError, match="is not a folder; give the folder of the images"):
            read_captions(str(path), str(no_folder))


@pytest.mark.parametrize("name", NOT_WHOLE)
def test_pictures_that_are_not_whole_are_named_or_left_out(pictures, capsys, name):
    bad = write(pictures / name, NOT_WHOLE[name])
    good = [pictures / "0.jpg", pictures / "deep" / "5.png"]
    files = [good[0], bad, good[1]]
    with pytest.raises(UserError, match=f"1 of 3 images cannot be decoded .*{name}.*--skip_bad_images"):
        readable_files(files, skip_bad_images=False)
    assert readable_files(files, skip_bad_images=True) == good
    assert f"skipping 1 of 3 images that cannot be decoded: {bad}" in capsys.readouterr().err


def test_leaving_out_all_pictures_is_refused(pictures):
    files = [write(pictures / name, content) for name, content in NOT_WHOLE.items()]
    with pytest.raises(UserError, match=r"4 of 4 images cannot be decoded \(.*, \.\.\.\).*; replace them$"):
        readable_files(files, skip_bad_images=True)


def test_every_kind_of_picture_is_whole(tmp_path):
    still = tf.io.decode_png(PNG)
    files = {
        "grey.jpg": tf.io.encode_jpeg(still[..., :1]).numpy(),
        "progressive.jpeg": tf.io.encode_jpeg(still, progressive=True).numpy(),
        "transparent.png": tf.io.encode_png(tf.concat([still, still[..., :1]], -1)).numpy(),
        "deep.png": tf.io.encode_png(tf.cast(still, tf.uint16)).numpy(),
    }
    paths = [write(tmp_path / name, content) for name, content in files.items()]
    assert readable_files(paths, skip_bad_images=False) == paths


@pytest.fixture
def config(tmp_path, pictures):
    """Settings whose splits share 2.jpg, under another id."""
    train = write(tmp_path / "train.json", coco({2**63 - 1: "0.jpg", 3: "1.jpg", 4: "2.jpg"}))
    val = write(tmp_path / "val.json", coco({0: "2.jpg", 3: "deep/5.png"}))
    return Config.of(
        workdir=str(tmp_path / "run"),
        dataset="folder",
        images=str(pictures),
        train_captions=str(train),
        val_captions=str(val),
    )


def test_splits_are_what_was_written_though_they_share_images(config):
    splits = prepare_data(config)
    train, val = splits["train"], splits["val"]
    assert train.image_ids == (3, 4, 2**63 - 1) and train.file_names == ("1.jpg", "2.jpg", "0.jpg")
    assert dict(zip(val.image_ids, val.captions, strict=True)) == {
        i: (f"Caption 1 of {i}.", f"Caption 2 of {i}.") for i in (0, 3)
    }
    assert read_images(val, [1, 0]) == {0: JPEG, 1: PNG}
    assert train.keys[1] == val.keys[0] and list(splits) == ["train", "val"]


def test_a_broken_image_stops_preparation_or_is_left_out(config, pictures):
    write(pictures / "2.jpg", JPEG[:-20])
    for _ in range(2):  # the second time, the index knows it
        with pytest.raises(UserError, match=r"1 of 4 images .*2.jpg"):
            prepare_data(config)
    splits = prepare_data(config.with_values(skip_bad_images=True))
    assert splits["train"].image_ids == (3, 2**63 - 1) and splits["val"].file_names == ("deep/5.png",)


def test_a_split_without_any_whole_image_is_rejected(config, pictures):
    write(pictures / "2.jpg", b"")
    write(pictures / "deep" / "5.png", PNG[:40])
    with pytest.raises(UserError, match=r"val.json: no image can be used"):
        prepare_data(config.with_values(skip_bad_images=True))
