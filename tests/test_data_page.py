"""The page that shows a data set: its numbers against slow counts, hostile texts, and when it is written again."""

import collections
import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import tensorflow as tf

from spidercap.pipeline import digests, main
from spidercap.pipeline.data.files_source import files_source
from spidercap.pipeline.data.records import Split
from spidercap.pipeline.data.tokens import tokenize_split
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.report import data_panels
from spidercap.pipeline.report.data_facts import (
    caption_facts,
    coverage,
    equal_images,
    repeated_captions,
    shared_images,
    word_counts,
)
from spidercap.pipeline.report.data_page import write_data_page
from spidercap.pipeline.report.histogram import histogram
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.settings.data_settings import DataSettings
from spidercap.pipeline.text.vocabulary import build_vocabulary
from spidercap.pipeline.training import identity

HOSTILE = "<script>alert(1)</script> \"a\" & 'b' \x1b[31m\u202e\u2028\udc80 <!-- </li> a dog"


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Images in memory."""

    images: tuple[bytes, ...]
    in_sequence: bool = False
    read: list = dataclasses.field(default_factory=list)

    def encoded(self, rows):
        self.read.extend(rows)
        return tf.data.Dataset.from_tensor_slices([self.images[row] for row in rows])

    def where(self):
        return "here"


class Page(HTMLParser):
    """The texts of a page by the element they are in, and how often each element comes; fails if one is not closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.counts = [], collections.defaultdict(list), collections.Counter()
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.counts[tag] += 1
        if tag not in ("meta", "img", "path"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.counts[tag] += 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and data.strip():
            self.texts[self.open[-1]].append(data)


def split_of(captions, names=None, keys=None, images=None, **left_out):
    """A split of the captions [I][R]; without images it has features alone."""
    count = len(captions)
    return Split(
        tuple(range(count)),
        tuple(names or (f"{i}.jpg" for i in range(count))),
        tuple(map(tuple, captions)),
        tuple(keys or (f"{id(captions):x}{i:02x}" for i in range(count))),
        images,
        **left_out,
    )


def write(folder, splits, **settings):
    """The text of the page of these splits, and whether it was written."""
    tokens = {name: tokenize_split(split) for name, split in splits.items()}
    settings = DataSettings(**{"min_word_count": 1} | settings)
    vocabulary = build_vocabulary(tokens["train"].words.counted(), settings.min_word_count)
    written = write_data_page(folder / "data.html", splits, tokens, vocabulary, settings, ["a note"])
    return (folder / "data.html").read_text("utf-8"), written


def random_captions(rng, images):
    def caption():
        return " ".join(f"w{n}" for n in rng.geometric(0.15, rng.integers(1, 12))).capitalize() + "."

    return [[caption() for _ in range(rng.integers(1, 6))] for _ in range(images)]


@pytest.fixture
def two():
    """Train and val without anything that comes twice."""
    return {
        "train": split_of([["A dog runs.", "The dog."], ["A cat."]]),
        "val": split_of([["A zebra runs."]], names=["v.jpg"]),
    }


def test_counts_of_captions_and_words_are_those_of_a_slow_count():
    rng = np.random.default_rng(0)
    train, val = (tokenize_split(split_of(random_captions(rng, n))).tokens for n in (40, 20))
    flat = [words for of_image in val for words in of_image]
    facts = caption_facts(val, max_length=6)
    assert facts.count == len(flat) and facts.cut == len([words for words in flat if len(words) >= 6])
    assert facts.distinct == len({" ".join(words) for words in flat})
    assert facts.per_image == (min(map(len, val)), len(flat) / 20, max(map(len, val)))
    assert all(count == len([w for w in flat if len(w) == length]) for length, count in facts.lengths.items())
    assert sum(facts.lengths.values()) == len(flat)

    trained = [word for of_image in train for words in of_image for word in words]
    vocabulary = build_vocabulary(collections.Counter(trained), 5)
    known = {word for word in trained if trained.count(word) >= 5}
    words = [word for words in flat for word in words]
    of_val = coverage(val, vocabulary, most=3)
    assert (of_val.words, of_val.known_words) == (len(words), len([word for word in words if word in known]))
    assert of_val.known_captions == len([words for words in flat if all(word in known for word in words)])
    unknown = sorted({(-words.count(word), word) for word in words if word not in known})
    assert of_val.unknown == tuple((word, -count) for count, word in unknown[:3])
    assert word_counts(val) == {word: words.count(word) for word in set(words)}


def test_images_and_captions_that_come_twice_are_found():
    train = split_of(
        [["A dog.", "a DOG"], ["A cat."], ["Two cats.", "One.", "One!", "one"]], ["a", "b", "c"], ["1", "2", "1"]
    )
    assert equal_images(train) == [("a", "c")]
    found = repeated_captions(tokenize_split(train), most=1)
    assert (found.count, found.images, found.examples) == (3, 2, (("a", "A dog."),))
    val = split_of([["x"], ["y"], ["z"]], ["b", "v", "w"], ["7", "1", "8"])
    (pair,) = shared_images({"train": train, "val": val, "test": split_of([["x"]], ["t"], ["9"])})
    assert (pair.name, pair.other, pair.file_names, pair.of) == ("val", "train", ("b", "v"), 3)


def test_page_shows_every_split_and_both_kinds_of_duplicates(tmp_path):
    train = split_of([["A dog.", "A dog."], ["A cat."]], ["a", "b"], ["1", "1"])
    splits = {"train": train, "val": split_of([["A cow."]], ["v"], ["1"]), "test": split_of([["A cat."]], ["t"])}
    page = Page(write(tmp_path, splits)[0])
    panels = page.texts["h3"]
    assert "training: 1 image with contents of another" in panels
    assert "training: 1 caption equal to another of the same image, in 1 image" in panels
    assert "validation: 1 image of 1 in train, too" in panels and "Unknown words, validation" in panels
    assert "Unknown words, test" not in panels and "Duplicates" in page.texts["h2"]
    assert [heading for heading in page.texts["h2"] if heading.startswith("Samples")] == [
        *("Samples: training", "Samples: validation", "Samples: test")
    ]
    assert page.counts["svg"] == 3 and "Left out" not in page.texts["h2"]


def test_without_duplicates_there_is_no_such_section(tmp_path, two):
    headings = Page(write(tmp_path, two)[0]).texts["h2"]
    assert headings == [
        *("Splits", "Words per caption", "Vocabulary", "Words", "Samples: training", "Samples: validation")
    ]


def test_features_alone_show_names_and_captions(tmp_path, two):
    page = Page(write(tmp_path, two)[0])
    assert page.counts["img"] == 0 and page.counts["article"] == 3
    assert {"A dog runs.", "The dog.", "A cat.", "A zebra runs."} <= set(page.texts["li"])
    assert {"0.jpg", "1.jpg", "v.jpg"} <= set(page.texts["span"])


def test_what_was_left_out_is_listed_with_its_reason(tmp_path, two):
    bad = (("broken.jpg", "it is cut off"), *((f"{n}.jpg", "not in --images") for n in range(99)))
    two["val"] = dataclasses.replace(
        two["val"], images_left_out=bad, captions_left_out=(("v.jpg", HOSTILE, "without words"),)
    )
    two = {n: dataclasses.replace(s, rows_left_out=(("c.csv, line 3", "<b> of 2"),)) for n, s in two.items()}
    page = Page(write(tmp_path, two)[0])
    assert {"validation: 100 images left out", "validation: 1 caption left out"} <= set(page.texts["h3"])
    assert "broken.jpg: it is cut off" in page.texts["li"] and "and 50 more" in page.texts["li"]
    assert page.texts["h3"].count("1 row of the captions files left out") == 1  # both splits are of one file
    assert page.texts["li"].count("c.csv, line 3: <b> of 2") == 1


def test_prepare_shows_the_captions_that_it_left_out(tmp_path, capsys):
    path = tmp_path / "captions.csv"
    path.write_text(
        "image,caption,split,is_rejected\n"
        "a.jpg,A dog runs.,train,\n"
        "a.jpg,&nbsp;,train,\n"
        "<b>.jpg,,train,\n"
        "<b>.jpg,...,train,\n"
        "c.jpg,A cat.,val,\n"
        "c.jpg,A cow.,val,True\n"
        "d.jpg,A horse.\n"
        "e.jpg,A mouse.,test,\n"
    )
    np.savez(tmp_path / "f.npz", **{f"{name}.jpg": np.ones(3, np.float32) for name in "ace"})
    data = (f"--captions={path}", f"--features={tmp_path / 'f.npz'}", "--min_word_count=1", "--skip_bad_captions")
    assert main.main(["main", "--mode=prepare", f"--workdir={tmp_path / 'run'}", "--dataset=files", *data]) == 0
    assert "skipping 4 of 7 captions of" in capsys.readouterr().err
    text = (tmp_path / "run" / "data.html").read_text("utf-8")
    page = Page(text)
    assert [title for title in page.texts["h3"] if title.endswith("left out")] == [
        "training: 1 image left out",
        "training: 3 captions left out",
        "validation: 1 caption left out",
        "1 row of the captions files left out",
    ]
    for line in (
        "&lt;b&gt;.jpg: without a caption that can be used",
        "a.jpg: <q>&amp;nbsp;</q> without words",
        "&lt;b&gt;.jpg: <q></q> without words",
        "&lt;b&gt;.jpg: <q>...</q> without words",
        "c.jpg: <q>A cow.</q> marked is_rejected or is_precanned",
        f"{path}, line 8: 2 fields in place of 4",
    ):
        assert f"<li>{line}</li>" in text


@pytest.mark.parametrize("given", ["images", "features"])
def test_sources_tell_which_images_they_left_out_and_why(tmp_path, given):
    names = ["good.png", "bad.png", "gone.png"]
    listed = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
        "annotations": [{"image_id": i, "caption": "A dog."} for i in range(3)],
    }
    (tmp_path / "t.json").write_text(json.dumps(listed))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "good.png").write_bytes(tf.io.encode_png(np.zeros((8, 8, 3), np.uint8)).numpy())
    (tmp_path / "images" / "bad.png").write_bytes(b"no image")
    np.savez(tmp_path / "f.npz", **{"good.png": np.ones(3, np.float32)})
    where = {"images": str(tmp_path / "images")} if given == "images" else {"features": str(tmp_path / "f.npz")}
    settings = DataSettings(dataset="files", train_captions=str(tmp_path / "t.json"), skip_bad_images=True, **where)
    split = files_source(settings, tmp_path / "cache", ["train"]).load()["train"]
    assert split.file_names == ("good.png",)
    reasons = dict(split.images_left_out)
    assert list(reasons) == ["bad.png", "gone.png"] and reasons["gone.png"] == f"not in --{given}"
    assert reasons["bad.png"] == ("is no image" if given == "images" else "not in --features")


def test_hostile_texts_are_escaped_wherever_they_are_shown(tmp_path):
    splits = {
        name: split_of(
            [[HOSTILE, HOSTILE]] * 2, [HOSTILE, HOSTILE + "2"], ["1", "1"], images_left_out=((HOSTILE,) * 2,)
        )
        for name in ("train", "val")
    }
    text, _ = write(tmp_path, splits)
    page = Page(text)
    assert "script" not in page.counts and not re.search("[\x00-\x09\x0b-\x1f\u202e\u2028]", text)
    shown = [shown for of_tag in page.texts.values() for shown in of_tag if "alert(1)" in shown]
    assert all("<script>" in one or one == "alert(1)" for one in shown) and len(shown) > 10
    assert any(r"\x1b[31m\u202e\u2028\x80" in one for one in shown)


def test_thumbnails_of_a_single_image(tmp_path):
    large = tf.io.encode_jpeg(np.zeros((300, 500, 3), np.uint8)).numpy()
    splits = {name: split_of([["A dog."]], [name], [name], Encoded((large,))) for name in ("train", "val")}
    text, _ = write(tmp_path, splits)
    assert Page(text).counts["img"] == 2 and "1 of 1 images" in text and len(text) < 50_000


def test_samples_are_drawn_by_a_fixed_seed_and_near_the_beginning_where_all_before_must_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(data_panels, "AHEAD", 30)
    small = tf.io.encode_png(np.zeros((8, 8, 3), np.uint8)).numpy()
    captions = [[f"A dog {n}."] for n in range(50)]
    drawn = []
    for number, in_sequence in enumerate((False, False, True)):
        images = Encoded((small,) * 50, in_sequence)
        folder = tmp_path / str(number)
        folder.mkdir()
        text, _ = write(folder, {"train": split_of(captions, images=images), "val": split_of([["A cat."]])})
        assert ("24 of the first 30 of 50 images" in text) == in_sequence
        drawn.append(images.read)
    assert drawn[0] == drawn[1] == sorted(set(drawn[0])) and len(drawn[0]) == len(drawn[2]) == 24
    assert max(drawn[0]) >= 30 > max(drawn[2])


def test_page_is_written_again_only_if_the_data_differ_or_it_is_damaged(tmp_path, two):
    assert write(tmp_path, two)[1] and not write(tmp_path, two)[1]
    assert not digests.fault(tmp_path / "data.html")
    assert write(tmp_path, two, max_length=9)[1] and write(tmp_path, two)[1]
    left_out = dataclasses.replace(two["val"], images_left_out=(("x", "y"),))
    assert write(tmp_path, two | {"val": left_out})[1] and write(tmp_path, two)[1]
    with open(tmp_path / "data.html", "a") as file:
        file.write(" ")
    assert write(tmp_path, two)[1] and not write(tmp_path, two)[1]


def test_a_run_with_a_damaged_or_lost_page_is_not_rejected(tmp_path, two):
    write(tmp_path, two)
    (tmp_path / "encoder.txt").write_text("given 3\n")
    digests.record(tmp_path, ["encoder.txt"])
    config = Config.of(workdir=str(tmp_path))
    (tmp_path / "data.html").write_text("<p>")
    identity.check_identity(config)
    (tmp_path / "data.html").unlink()
    identity.check_identity(config)
    (tmp_path / "encoder.txt").unlink()
    with pytest.raises(UserError, match=r"encoder.txt is lost"):
        identity.check_identity(config)


def test_long_texts_and_many_captions_do_not_make_the_page_large(tmp_path):
    splits = {
        "train": split_of([["a" * 5000] * 3, ["a dog"] * 500] * 15, ["n" * 4000] * 30),
        "val": split_of([["a"]]),
    }
    text, _ = write(tmp_path, splits)
    assert len(text) < 200_000 and "and 470 more" in text


@pytest.mark.parametrize("lengths", [{0: 1}, {5: 2}, {1: 4, 2: 1}, {n: 3 for n in range(1, 300)}, {3: 5000, 900: 2}])
@pytest.mark.parametrize("max_length", [2, 20, 1000])
def test_histogram_draws_every_caption_or_says_how_many_it_does_not(lengths, max_length):
    text = histogram("a <title>", lengths, max_length, "c0")
    Page(text)
    drawn = sum(int(count) for count in re.findall(r"words: (\d+) captions", text.replace(",", "")))
    left = re.search(r"Not drawn: (\d+) captions", text)
    assert drawn + int(left[1] if left else 0) == sum(lengths.values())
    assert bool(left) == (900 in lengths) and "nan" not in text and text.count("<rect") <= 60
    edges = [float(x) for x in re.findall(r'<rect x="([\d.]+)"', text)]
    assert min(edges) >= 58 and max(edges) < 468
