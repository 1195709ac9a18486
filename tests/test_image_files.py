"""Image files: which are taken, how the others are named, and that a change of any of them is noticed."""

import base64
import contextlib
import errno
import io
import os
import pathlib
import re
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from spidercap.pipeline.data import image_files, image_index, shard_work
from spidercap.pipeline.data.files_source import ImageFiles, files_source
from spidercap.pipeline.data.image_files import fault, in_threads, readable_files, reason_of, skip_or_reject, suffix_of
from spidercap.pipeline.data.image_index import ImageIndex
from spidercap.pipeline.data.records import read_images, reading
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.evaluation import caption_files, image_paths
from spidercap.pipeline.settings.data_settings import DataSettings
from spidercap.pipeline.text.printable import printable
from tests.files import coco, write
from tests.test_folder import JPEG, PNG

GIF = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
)
BMP = b"BM:\0\0\0\0\0\0\0" + b"6\0\0\0" + b"(\0\0\0\1\0\0\0\1\0\0\0\1\0\x18\0" + bytes(24) + b"\1\2\3\0"
WEBP = base64.b64decode("UklGRiIAAABXRUJQVlA4IBYAAAAwAQCdASoBAAEADsD+JaQAA3AAAAAA")


# Which files of a folder are images


@pytest.mark.parametrize(
    "content, suffix",
    [(JPEG, ".jpg"), (PNG, ".png"), (GIF, ".gif"), (BMP, ".bmp"), (WEBP, ".webp")]
    + [(c, "") for c in (b"", b"B", b"BMW drivers, a list of them", b"II*\0 a TIFF", b"RIFF\0\0\0\0WAVEfmt ")],
)
def test_images_are_known_by_their_first_bytes(content, suffix):
    assert suffix_of(content) == suffix
    assert bool(suffix) == (not fault(content))


def test_a_folder_gives_all_its_images_and_names_the_others(tmp_path, capsys):
    contents = {"a.jpg": JPEG, "b.WEBP": WEBP, "c.jfif": JPEG, "d": PNG, "e.txt": GIF, "sub/f.jpe": JPEG, "g.png": b""}
    for name in contents:
        write(tmp_path / name, contents[name])
    for name in ("d.tiff", "sub/notes.txt", "x.heic", ".DS_Store", "._a.jpg", ".thumbs/h.jpg"):
        write(tmp_path / name, b"II*\0")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "link").symlink_to(tmp_path / "sub")
    found = image_paths.image_files(str(tmp_path))
    assert [str(f.relative_to(tmp_path)) for f in found] == sorted(contents)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: 5 files of {tmp_path} are left out, because they are not JPEG, PNG, GIF, BMP and")
    assert line.endswith(": d.tiff, gone.jpg, link, sub/notes.txt, x.heic")


def test_of_many_files_that_are_left_out_ten_are_named(tmp_path, capsys):
    for i in range(13):
        write(tmp_path / f"{i:02}.txt", b"text")
    with pytest.raises(UserError, match=r"holds no images, but 13 other files \(00.txt, .*, 09.txt, 3 more\); allowed"):
        image_paths.image_files(str(tmp_path))
    write(tmp_path / "a", PNG)
    assert image_paths.image_files(str(tmp_path)) == [tmp_path / "a"]
    assert capsys.readouterr().err.endswith("08.txt, 09.txt, 3 more\n")


def test_a_folder_without_any_file_is_an_error(tmp_path):
    with pytest.raises(UserError, match="holds no images; allowed: JPEG"):
        image_paths.image_files(str(tmp_path))


def test_folders_that_cannot_be_listed_are_named(tmp_path, capsys, monkeypatch):
    write(tmp_path / "a.jpg", JPEG)
    write(tmp_path / "shut" / "b.jpg", JPEG)
    scan = os.scandir

    def scandir(path):
        if str(path).endswith("shut"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match=r"the folder .*shut cannot be read \(Permission denied\).*--skip_bad_images"):
        image_paths.image_files(str(tmp_path))
    assert image_paths.image_files(str(tmp_path), skip_bad_images=True) == [tmp_path / "a.jpg"]
    assert "shut cannot be read (Permission denied); its files are left out" in capsys.readouterr().err


# Paths with commas and blanks


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with files whose names have commas and blanks."""
    for name in ("dog, running.jpg", "a", "b", "a,b", "b,c", " c ", ",d", "e,", "f,g,h", "in,out/x.jpg"):
        write(tmp_path / name, JPEG)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "value, paths",
    [
        ("dog, running.jpg", ["dog, running.jpg"]),
        ("a,dog, running.jpg,b", ["a", "dog, running.jpg", "b"]),
        ("a , dog, running.jpg ", ["a", "dog, running.jpg"]),
        ("a,b", ["a,b"]),
        ("a,b,b", ["a,b", "b"]),
        ("a,b,c", ["a", "b,c"]),  # the longest first path would leave "c", which is not there
        ("b,a", ["b", "a"]),
        ("a,, b,", ["a", "b"]),
        (" c ", [" c "]),
        ("a, c ", ["a", " c "]),
        (",d,a", [",d", "a"]),
        ("a,e,", ["a", "e,"]),
        ("f,g,h,in,out,f,g,h", ["f,g,h", "in,out", "f,g,h"]),
        ("in,out/x.jpg,a", ["in,out/x.jpg", "a"]),
    ],
)
def test_commas_and_blanks_of_existing_paths_stay(here, value, paths):
    assert image_paths.split_paths(value) == [pathlib.Path(path) for path in paths]


@pytest.mark.parametrize(
    "value, message",
    [
        ("", "--images= names no files"),
        (" , ", "--images= ,  names no files"),
        ("cat, running.jpg", "--images: cat does not exist; name image files or folders, separated by commas"),
        ("a,none,b", "--images: none does not exist"),
        ("a,b,none", "--images: none does not exist"),
        ("a\0", r"--images: a\x00 does not exist"),
        ("no\x1b[31m", r"--images: no\x1b[31m does not exist"),
        ("x" * 300, "File name too long"),
        ("a/b", "--images: a/b does not exist"),
    ],
)
def test_paths_that_are_not_there_are_named(here, value, message):
    with pytest.raises(UserError) as caught:
        image_paths.split_paths(value)
    assert message in str(caught.value)


def test_a_long_list_is_split_in_no_time(here):
    names = ["a", "dog, running.jpg"] * 100
    assert [str(path) for path in image_paths.split_paths(",".join(["b", *names]))] == ["b", *names]


# Bad files


@pytest.fixture
def failing(monkeypatch):
    """Makes reading of files whose names begin with an error's name fail with it, by any way of opening."""
    opened = io.open

    def fails(file, *args, **kwargs):
        code = getattr(errno, str(os.path.basename(file)).split("_")[0], 0) if not isinstance(file, int) else 0
        if code:
            raise OSError(code, os.strerror(code))  # as `read` raises it: without the name
        return opened(file, *args, **kwargs)

    monkeypatch.setattr(io, "open", fails)
    monkeypatch.setattr("builtins.open", fails)


def test_files_that_cannot_be_read_are_bad_ones(tmp_path, failing, capsys):
    good, locked, broken = (tmp_path / name for name in ("good.jpg", "EACCES_.jpg", "EIO_.jpg"))
    write(good, JPEG)
    with pytest.raises(UserError, match=r"1 of 2 images cannot be decoded \(.*EIO_.jpg\): Input/output error; allowed"):
        readable_files([good, broken], skip_bad_images=False)
    assert not capsys.readouterr().err  # the message says it all
    with pytest.raises(UserError, match=r"2 of 3 images cannot be decoded \(.*EACCES_.jpg, .*EIO_.jpg\); allowed"):
        readable_files([broken, good, locked], skip_bad_images=False)
    lines = [f"  {locked} (Permission denied)", f"  {broken} (Input/output error)"]
    assert capsys.readouterr().err.splitlines() == ["images that cannot be decoded:", *lines]
    assert readable_files([broken, good, locked], skip_bad_images=True) == [good]
    first = "warning: skipping 2 of 3 images that cannot be decoded:"
    assert capsys.readouterr().err.splitlines() == [first, *lines]


def test_of_many_bad_files_a_hundred_are_named(capsys):
    skip_or_reject({pathlib.Path(f"{i:03}.jpg"): "empty" for i in range(103)}, 200, skip_bad_images=True)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 102 and lines[100:] == ["  099.jpg (empty)", "  and 3 more"]


def test_reasons_are_without_what_only_programmers_can_read():
    assert fault(b"") == "is empty"
    assert fault(b"no image") == "is no image"
    assert reason_of(tf.errors.DataLossError(None, None, "{{node a}} truncated [Op:b] name:")) == "truncated"


def test_large_images_wait_for_each_other(monkeypatch):
    """At most two are decoded at a time, however many threads there are."""
    monkeypatch.setattr(image_files, "LARGE", 64 * 64 - 1)
    inside, most, lock = [], [], threading.Lock()

    def read(image_bytes, max_pixels, most_pixels=None):
        if most_pixels is None:
            inside.append(1)
            most.append(len(inside))
            with lock:
                time.sleep(0.01)
            inside.pop()
        return plain(image_bytes, max_pixels)

    plain = image_files.read_image
    monkeypatch.setattr(image_files, "read_image", read)
    assert list(in_threads(fault, [PNG] * 12, "work", 6)) == [""] * 12
    assert len(most) == 12 and max(most) <= 2


@pytest.mark.parametrize("limit", [64 * 64 - 1, 64 * 64])
def test_pixels_of_large_images_wait_and_are_those_of_others(monkeypatch, limit):
    """Whether an image counts as large changes nothing but who is inside at a time."""
    records = [tf.io.encode_png(np.full([64, 64, 3], 40 * i, np.uint8)) for i in range(5)]
    expected = np.concatenate(list(shard_work.pixels(records, ["0" * 16] * 5, 32)))
    np.testing.assert_allclose(expected[:, 0, 0, 0], [0, 40, 80, 120, 160], rtol=1e-6)
    monkeypatch.setattr(image_files, "LARGE", limit)
    entered = []

    class Counted(contextlib.nullcontext):
        def __enter__(self):
            entered.append(1)

    monkeypatch.setattr(image_files, "_large", Counted())
    found = np.concatenate(list(shard_work.pixels(records, ["0" * 16] * 5, 32)))
    np.testing.assert_array_equal(found, expected)
    assert len(entered) == 5 * (limit < 64 * 64)


@pytest.mark.parametrize("changed", [b"", JPEG[: len(JPEG) // 2], b"words"])
def test_a_file_that_changed_after_its_check_is_told_in_a_line(tmp_path, changed):
    paths = tuple(str(write(tmp_path / f"{i}.png", data)) for i, data in enumerate((PNG, changed, PNG)))
    found = shard_work.pixels(ImageFiles(paths).encoded(range(3)), ["0" * 16] * 3, 32)
    with pytest.raises(UserError) as caught, reading(ImageFiles(paths)):
        list(found)
    assert re.match(r"images cannot be read \(one is [a-z ]+\); restore the file", str(caught.value))


def test_images_of_too_many_pixels_are_named_and_not_decoded(monkeypatch, tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(PNG)
    plain, seen = image_files.read_image, []
    monkeypatch.setattr(image_files, "read_image", lambda *limits: seen.append(plain(*limits)) or seen[-1])
    with pytest.raises(UserError, match=r"has 64 x 64 pixels, more than the 4095 allowed"):
        readable_files([tmp_path / "a.png"], skip_bad_images=False, max_pixels=64 * 64 - 1)
    assert [one.image.shape for one in seen] == [(0, 0, 3)]


def test_work_in_threads_comes_in_order_and_ends_with_the_caller():
    done = []
    results = in_threads(lambda i: done.append(i) or -i, range(1000), "work", 4)
    assert [next(results) for _ in range(3)] == [0, -1, -2]
    results.close()
    assert list(in_threads(abs, [-3, 2], "work", 2)) == [3, 2]


class Captioner:
    """Captions every image that can be decoded with its length, and raises what TensorFlow does for others."""

    max_pixels = 10_000

    def caption_bytes(self, encoded, seed=None):
        for image in encoded:
            tf.io.decode_image(tf.constant(image))
        return [[(str(len(image)), 0.0)] for image in encoded]


def test_files_that_vanish_or_change_while_captions_are_made_are_named_or_skipped(tmp_path, capsys):
    good = write(tmp_path / "good.jpg", JPEG)
    files = [tmp_path / "gone.jpg", good, write(tmp_path / "cut.jpg", JPEG[:50])]
    with pytest.raises(UserError, match=r"2 of 3 images cannot be decoded \(.*cut.jpg, .*gone.jpg\)"):
        list(caption_files.caption_files(Captioner(), files))
    captions = [(good, [(str(len(JPEG)), 0.0)])]
    assert list(caption_files.caption_files(Captioner(), files, skip_bad_images=True)) == captions
    assert "gone.jpg (No such file or directory)" in capsys.readouterr().err


# Names


@pytest.mark.parametrize("name", ["dog.jpg", "dog, running.jpg", "Hündin 犬.jpg", "🐕‍🦺.jpg", "a\u00a0b"])
def test_ordinary_names_are_printed_as_they_are(name):
    assert printable(name) == printable(pathlib.Path(name)) == name


def test_control_characters_and_bytes_are_escaped():
    name = os.fsdecode(b"a\x1b[2J\n\r\x07\x9f\xff.jpg") + "\u202e\u2028\x85"
    assert printable(name) == r"a\x1b[2J\n\r\x07\x9f\xff.jpg\u202e\u2028\x85"
    assert printable(name).isascii()


def test_hostile_names_reach_no_message(tmp_path, capsys):
    bad = pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/\x1b[31m\n\xff.jpg"))
    good = write(tmp_path / "good.jpg", JPEG)
    with pytest.raises(UserError) as caught:
        readable_files([bad, good], skip_bad_images=False)
    readable_files([bad, good], skip_bad_images=True)
    for text in (str(caught.value), capsys.readouterr().err.rstrip("\n")):
        assert text.isprintable() and r"/\x1b[31m\n\xff.jpg" in text


# Contents count


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Settings of a folder with three images; files count as settled at once."""
    monkeypatch.setattr(image_index, "SETTLED", -(10**12))
    for i in range(3):
        write(tmp_path / "images" / f"{i}.bmp", BMP[:-4] + bytes([i, 0, 0, 0]))
    paths = [write(tmp_path / f"{s}.json", coco(n)) for s, n in (("t", {0: "0.bmp", 1: "1.bmp"}), ("v", {2: "2.bmp"}))]
    return DataSettings(
        dataset="coco_json",
        images=str(tmp_path / "images"),
        train_captions=str(paths[0]),
        val_captions=str(paths[1]),
    )


def fingerprints(settings, cache):
    return files_source(settings, cache, ["train", "val"]).fingerprints


def test_swapped_images_of_one_size_are_noticed(settings, tmp_path):
    """Though their sizes and times are the same as before."""
    first, second = (tmp_path / "images" / f"{i}.bmp" for i in (0, 1))
    for file in (first, second):
        os.utime(file, ns=(0, 0))
    before = fingerprints(settings, tmp_path / "cache")
    assert fingerprints(settings, tmp_path / "cache") == before
    a, b = first.read_bytes(), second.read_bytes()
    for file, content in ((first, b), (second, a)):
        file.write_bytes(content)
        os.utime(file, ns=(0, 0))
    swapped = fingerprints(settings, tmp_path / "cache")
    assert swapped["train"] != before["train"] and swapped["val"] == before["val"]
    first.rename(tmp_path / "aside")
    second.rename(first)
    (tmp_path / "aside").rename(second)
    assert fingerprints(settings, tmp_path / "cache") == before


def test_only_files_that_changed_are_read_again(settings, tmp_path, monkeypatch):
    names, read = ["0.bmp", "1.bmp"], []
    plain = ImageIndex._read
    monkeypatch.setattr(ImageIndex, "_read", lambda self, name, most: read.append(name) or plain(self, name, most))

    def find(limit=100):
        read.clear()
        found = ImageIndex(settings.images, tmp_path / "cache").check([*names, *names], limit)
        assert sorted(found) == names
        return found, sorted(read)

    found, first = find()
    assert first == names and find() == (found, []) and not any(one.fault for one in found.values())
    large, again = find(limit=0)
    assert again == names and all("more than" in one.fault for one in large.values())
    assert find() == (found, names)
    write(tmp_path / "images" / "1.bmp", BMP)
    changed, again = find()
    assert again == ["1.bmp"] and changed["0.bmp"] == found["0.bmp"] and changed["1.bmp"] != found["1.bmp"]
    (path,) = [p for p in (tmp_path / "cache" / "images").iterdir() if p.name != "digests.json"]
    for damage in (path.read_text().replace("bmp", "png"), "[]", "{"):
        path.write_text(damage)
        assert find() == (changed, names)
    path.unlink()
    assert find() == (changed, names)


def test_files_that_changed_just_now_are_read_again(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(image_index, "SETTLED", 10**12)
    ImageIndex(settings.images, tmp_path / "cache").check(["0.bmp"], 100)
    assert not (tmp_path / "cache").exists()


def test_an_index_that_cannot_be_written_is_a_warning(settings, tmp_path, capsys):
    cache = write(tmp_path / "cache", b"a file")
    assert len(ImageIndex(settings.images, cache).check(["0.bmp"], 100)) == 1
    assert "warning: " in capsys.readouterr().err


def test_images_that_cannot_be_read_are_named_or_left_out(settings, tmp_path, failing):
    write(tmp_path / "t.json", coco({0: "0.bmp", 1: "EIO_1.bmp"}))
    (tmp_path / "images" / "1.bmp").rename(tmp_path / "images" / "EIO_1.bmp")
    with pytest.raises(UserError, match=r"1 of 3 images cannot be decoded \(.*EIO_1.bmp\): Input/output error"):
        files_source(settings, tmp_path / "cache", ["train", "val"])
    skipping = DataSettings(**{**vars(settings), "skip_bad_images": True})
    assert files_source(skipping, tmp_path / "cache", ["train"]).load()["train"].image_ids == (0,)


def test_images_that_vanish_later_are_named(settings, tmp_path):
    split = files_source(settings, tmp_path / "cache", ["train"]).load()["train"]
    (tmp_path / "images" / "1.bmp").unlink()
    with pytest.raises(
        UserError, match=r"images cannot be read \(.*1\.bmp; No such file or directory\); restore the fi"
    ):
        read_images(split, [0, 1])


@pytest.mark.parametrize("before", [False, True])
def test_models_run_as_traced_only_within_the_block(before):
    options = tf.config.optimizer
    options.set_experimental_options({"disable_meta_optimizer": before})
    seen = lambda: options.get_experimental_options()["disable_meta_optimizer"]  # noqa: E731
    with pytest.raises(KeyError), caption_files.as_traced(True):
        assert seen()
        raise KeyError
    assert seen() == before
    with caption_files.as_traced(False):
        assert seen() == before
