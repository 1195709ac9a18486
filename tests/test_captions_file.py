"""Captions of any kind: ids, repeated rows, names in another normalisation, what is left out, what is cut."""

import dataclasses
import json
import unicodedata

import numpy as np
import pytest

from spidercap.pipeline.data import file_names
from spidercap.pipeline.data.batches import TrainingArrays, caption_batches
from spidercap.pipeline.data.caption_lengths import check_lengths
from spidercap.pipeline.data.file_names import real_names
from spidercap.pipeline.data.prepare import prepare_data
from spidercap.pipeline.data.records import Split, read_images
from spidercap.pipeline.data.tokens import tokenize_split, training_arrays
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.evaluation.evaluate import Evaluation, n_best_json, results_json, scores_json
from spidercap.pipeline.report.compare.gallery import image_files
from spidercap.pipeline.report.compare.images import ListedImage, drawn_ids
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.text.tokenizer import has_words, tokenize
from spidercap.pipeline.text.vocabulary import build_vocabulary
from tests.files import coco, read_captions, write
from tests.test_folder import JPEG, PNG

COMPOSED = "caf\u00e9/\u00fc.jpg"
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)


@pytest.fixture
def read(tmp_path):
    """Writes content and 0.jpg to 4.jpg; returns what is read."""
    for i in range(5):
        write(tmp_path / "pictures" / f"{i}.jpg", PNG if i else JPEG)

    def read_content(content, **skip):
        return read_captions(str(write(tmp_path / "c.json", content)), str(tmp_path / "pictures"), **skip)

    return read_content


def five():
    return coco({i: f"{i}.jpg" for i in range(5)})


class TestIds:
    IDS = ("16", 16, -3, "a\\b", "a/b", 2**70, "é", 0.5)

    def test_any_key_is_an_id(self, tmp_path):
        names = {i: "0.jpg" for i in self.IDS}  # the same picture under every id
        write(tmp_path / "pictures" / "0.jpg", JPEG)
        train, val = write(tmp_path / "t.json", coco(names)), write(tmp_path / "v.json", coco({16: "0.jpg"}))
        config = Config.of(
            workdir=str(tmp_path / "run"),
            dataset="coco_json",
            images=str(tmp_path / "pictures"),
            train_captions=str(train),
            val_captions=str(val),
        )
        splits = prepare_data(config)
        train = splits["train"]
        assert sorted(map(repr, train.image_ids)) == sorted(map(repr, self.IDS))
        pairs = zip(train.image_ids, train.captions, strict=True)
        assert all(c == (f"Caption 1 of {i}.", f"Caption 2 of {i}.") for i, c in pairs)
        assert list(read_images(train, range(len(self.IDS))).values()) == [JPEG] * len(self.IDS)
        assert splits["val"].image_ids == (16,)

    def test_a_whole_float_is_an_integer(self, read):
        content = five()
        content["annotations"] = [{**row, "image_id": float(row["image_id"])} for row in content["annotations"]]
        assert [repr(e.image_id) for e in read(content)] == ["0", "1", "2", "3", "4"]

    def test_files_of_results_keep_them(self):
        evaluation = Evaluation(("a", "b"), {}, (), ((("a", -1.0),), (("b", -2.0),)))
        split = tokenize_split(_captions((7, "x"), [["a dog"], ["a cat"]]))
        assert results_json(split, evaluation) == [{"image_id": 7, "caption": "a"}, {"image_id": "x", "caption": "b"}]
        assert [row["image_id"] for row in json.loads(json.dumps(n_best_json(split, evaluation)))] == [7, "x"]
        scored = dataclasses.replace(evaluation, images=({"CIDEr": 0.5}, {"CIDEr": 1.5}))
        rows = [{"image_id": 7, "scores": {"CIDEr": 0.5}}, {"image_id": "x", "scores": {"CIDEr": 1.5}}]
        assert scores_json(split, scored) == rows
        told = {"SPICE-fast parser": "3.1a2b3c"}
        scored = dataclasses.replace(scored, versions=told)
        assert scores_json(split, scored) == [{**row, "versions": told} for row in rows]

    def test_comparisons_draw_from_ids_of_several_types(self):
        assert sorted(map(str, drawn_ids([5, "x", 3], 3))) == ["3", "5", "x"]


class TestRows:
    def test_repeated_rows_are_taken_once(self, read, capsys):
        content = five()
        content["images"] += content["images"][:2]
        assert len(read(content)) == 5
        assert "2 of 7 rows of images are repeated, taken once" in capsys.readouterr().err

    def test_missing_files_are_left_out(self, read, capsys):
        content = coco({i: f"{i}.jpg" for i in range(3, 7)})
        with pytest.raises(
            UserError, match=r"2 images are not in .*\(5.jpg, 6.jpg\).*leave them out with --skip_bad_i"
        ):
            read(content)
        assert [e.image_id for e in read(content, skip_bad_images=True)] == [3, 4]
        assert "skipping 2 of 4 images of" in (told := capsys.readouterr().err) and "5.jpg, 6.jpg" in told
        with pytest.raises(UserError, match=r"1 images are not in .*; put them there, or name another folder$"):
            read(coco({5: "5.jpg"}), skip_bad_images=True)

    def test_bad_captions_are_left_out(self, read, capsys):
        content = five()
        rows = content["annotations"]
        rows[0]["caption"], rows[2]["caption"], rows[3]["caption"] = "dog " * 2501, "\U0001f415", "\U00020000"
        rows[4]["is_rejected"] = rows[6]["is_precanned"] = True
        entries = read(content, skip_bad_captions=True)
        assert {e.image_id: len(e.captions) for e in entries} == {0: 1, 2: 1, 3: 1, 4: 2}
        told = capsys.readouterr().err
        assert "skipping 5 of 10 captions of" in told and "skipping 1 of 5 images of" in told
        assert "1 of over 10,000 characters, 2 without words, 2 marked is_rejected or is_precanned" in told
        content["annotations"] = rows[2:4]
        with pytest.raises(UserError, match="no image has a caption that can be used"):
            read(content, skip_bad_captions=True)

    def test_marked_captions_are_used_and_counted(self, read, capsys):
        content = five()
        content["annotations"][4]["is_rejected"] = True
        assert len(read(content)[2].captions) == 2
        told = capsys.readouterr().err
        assert "1 of 10 captions are marked" in told and "--skip_bad_captions" in told


class TestFileNames:
    @pytest.mark.parametrize(("given", "real"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
    def test_they_are_found_in_another_normalisation(self, tmp_path, given, real):
        write(tmp_path / real, JPEG)
        assert real_names([given, "none.jpg", "a\0", ""], str(tmp_path)) == {given: real}
        files = image_files({1: ListedImage(1, given, ("a",))}, str(tmp_path), [1])
        assert files == {1: tmp_path / real}

    def test_a_name_that_is_there_is_itself(self, tmp_path, monkeypatch):
        for name in (COMPOSED, DECOMPOSED):
            write(tmp_path / name, JPEG)
        monkeypatch.setattr(file_names.os, "listdir", lambda folder: pytest.fail("the folder was listed"))
        assert real_names([COMPOSED, DECOMPOSED], str(tmp_path)) == {n: n for n in (COMPOSED, DECOMPOSED)}

    def test_a_name_that_fits_several_is_refused(self, tmp_path):
        write(tmp_path / "é.jpg", JPEG)
        write(tmp_path / "\u00e9\u0301.jpg", JPEG)
        for name in ("x\u00e9\u0323.jpg", "xe\u0323\u0301.jpg"):
            write(tmp_path / name, JPEG)
        with pytest.raises(UserError, match="1 file names fit several files"):
            real_names(["x\u1eb9\u0301.jpg"], str(tmp_path))


class TestLengths:
    @staticmethod
    def lines(capsys, counts, max_length):
        """What is told of captions of so many words, one an image."""
        check_lengths(np.array(counts), max_length)
        return capsys.readouterr().err

    def test_the_end_token_counts(self, capsys):
        assert self.lines(capsys, [4, 3, 1], 5) == ""
        told = self.lines(capsys, [5, 3, 1], 5)
        assert "warning: 1 of 3 training captions are longer than --max_length=5" in told
        assert "0.00% of all words; --max_length=6 would hold 100% of them" in told

    def test_few_are_no_warning(self, capsys):
        told = self.lines(capsys, [9] + [3] * 199, 5)
        assert told.startswith("data: 1 of 200 training captions") and told.count("\n") == 1

    def test_the_value_that_holds_nearly_all(self, capsys):
        told = self.lines(capsys, [500] + [30] * 50 + [4] * 149, 20)
        assert "warning: 51 of 200" in told and "--max_length=31 would hold 99% of them" in told

    def test_nearly_all_are_refused(self, capsys):
        with pytest.raises(
            UserError, match=r"40 of 40 .* hardly learn to end a caption; --max_length=61 would hold 100%"
        ):
            self.lines(capsys, [60] * 40, 20)
        assert "warning: 9 of 10" in self.lines(capsys, [60] * 9 + [3], 20)
        with pytest.raises(UserError, match="1000 is the most, so shorten those captions"):
            self.lines(capsys, [2000] * 10, 20)


class TestShapes:
    def test_images_may_differ_in_captions_and_a_batch_may_be_larger_than_the_data(self):
        split = tokenize_split(_captions((0, 1), [["a dog runs"], ["a cat", "a bird sits on it"]]))
        vocabulary = build_vocabulary(split.words.counted(), 1)
        arrays = training_arrays(split, vocabulary, np.zeros([2, 1, 3], np.float32), 20)
        assert isinstance(arrays, TrainingArrays) and arrays.image_index.tolist() == [0, 1, 1]
        (batch,) = caption_batches(arrays, 50, 0, 1, (0, 0))
        assert set(batch.image_index.numpy().tolist()) == {0, 1} and batch.tokens.shape[0] == 50


@pytest.mark.parametrize(
    "caption", ["", " .\n", "&nbsp;", "\U0001f415", "\u3220", "a", "&amp;", "<b>", "...x", "²", "٣"]
)
def test_has_words_agrees_with_the_tokenizer(caption):
    assert has_words(caption) == bool(tokenize(caption))


def _captions(ids, captions):
    names = tuple(f"{i}.jpg" for i in ids)
    return Split(tuple(ids), names, tuple(map(tuple, captions)), names, None)
