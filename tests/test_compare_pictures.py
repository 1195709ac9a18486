"""Curves, gallery and captions side by side, of made-up workdirs whose numbers are known."""

import base64
import dataclasses
import itertools
import random
import xml.etree.ElementTree

import pytest
import tensorflow as tf

from benchmarks import compare
from benchmarks.compare_curves import captions_scored
from benchmarks.compare_gallery import against_first
from benchmarks.compare_runs import read_rows
from benchmarks.lines import COLOURS, LETTER, Name, Panel, line_panels, name_shifts
from tests.finished_runs import CAPTIONS, SVG, failed, make_run, references_file, row, table_of, texts_of
from tests.test_report import Parsed


class TestCurves:
    def test_a_line_for_every_run_and_the_start_as_a_level(self, tmp_path, capsys):
        mle = [make_run(tmp_path / f"mle_{v}", metrics={"CIDEr": v}) for v in (0.4, 0.5)]
        history = [row(k, CIDEr=0.5 + k / 100, captions_scored=7 * k) for k in (1, 2, 3)]
        pg = [make_run(tmp_path / f"pg_{i}", history=history) for i in range(2)]
        out = tmp_path / "deep" / "c.svg"
        names = f"MLE={mle[0]},{mle[1]};K = 3={pg[0]},{pg[1]}"
        assert compare.main([f"--runs={names}", f"--curves={out}", "--metric=CIDEr"]) == 0
        said, shown = capsys.readouterr().out, texts_of(out.read_text())
        assert "no line for" not in said and "not known" not in said
        assert shown.count("MLE: 0.450") == 2 and shown.count("K = 3") == 2 and "MLE" not in shown
        assert "captions scored in training" in shown and "Validation CIDEr of 3 images while training" in shown
        drawn = xml.etree.ElementTree.fromstring(out.read_text())
        assert len(list(drawn.iter(f"{SVG}circle"))) == 2 * 2 * 3
        assert sum("stroke-dasharray" in path.attrib for path in drawn.iter(f"{SVG}path")) == 2

    def test_a_higher_score_stands_higher_and_a_later_one_further_right(self, tmp_path):
        history = [row(k, CIDEr=v, captions_scored=k) for k, v in ((1, 0.2), (2, 0.3), (3, 0.1))]
        run = make_run(tmp_path / "a", history=history)
        assert compare.main([f"--runs=a={run}", f"--curves={tmp_path / 'c.svg'}"]) == 0
        drawn = xml.etree.ElementTree.parse(tmp_path / "c.svg")
        places = [(float(c.get("cx")), float(c.get("cy"))) for c in drawn.iter(f"{SVG}circle")][:3]
        (x1, y1), (x2, y2), (x3, y3) = places
        assert x1 < x2 < x3 and x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
        assert y3 > y1 > y2 and y1 - y2 == pytest.approx(y3 - y1, abs=0.2)

    @pytest.mark.parametrize(
        ("stage", "settings", "an_image"),
        [
            ("leave_one_out", {"samples": 5}, 5),
            ("scst-2", {"samples": 5}, 6),
            ("mixer", {}, 1),
            ("pg", {"samples": 2, "rollouts": 0}, 2),
            ("pg", {"samples": 2, "rollouts": 3}, None),
        ],
    )
    def test_captions_scored_are_known_where_their_number_is_fixed(self, tmp_path, stage, settings, an_image):
        history = [row(1, stage), row(2, stage)]
        stages = f"{stage.partition('-')[0]}:1"
        run = make_run(tmp_path / "a", stage=stage, history=history, stages=stages, **settings)
        (read,) = read_rows(f"a={run}")["a"]
        assert captions_scored(read) == (None if an_image is None else [8 * an_image, 16 * an_image])

    def test_images_stand_in_where_captions_are_not_known(self, tmp_path, capsys):
        history = [row(1, CIDEr=0.5), row(2, CIDEr=0.6)]
        old = make_run(tmp_path / "old", history=history)
        new = make_run(tmp_path / "new", history=[dataclasses.replace(v, captions_scored=9) for v in history])
        assert compare.main([f"--runs=old={old};new={new}", f"--curves={tmp_path / 'c.svg'}"]) == 0
        assert f"{old}: numbers of scored captions are not known" in capsys.readouterr().out
        shown = texts_of((tmp_path / "c.svg").read_text())
        assert "images seen in training" in shown and "captions scored in training" not in shown

    def test_the_start_is_scored_on_the_pictures_of_the_curves(self, tmp_path, capsys):
        """Two of three pictures: those of which the start said the very reference."""
        references = references_file(tmp_path / "val.json")
        mle = make_run(tmp_path / "mle", (*CAPTIONS[:2], "nothing right here"), metrics={"BLEU-1": 0.1})
        history = [row(1, CIDEr=0.5, captions_scored=1, **{"BLEU-1": 0.5}), row(2, CIDEr=0.5, captions_scored=2)]
        pg = make_run(tmp_path / "pg", history=history, val_images=2)
        command = [f"--runs=MLE={mle};PG={pg}", f"--curves={tmp_path / 'c.svg'}", "--metric=BLEU-1"]
        assert compare.main(command) == 0
        assert "no line for MLE" in capsys.readouterr().out
        assert not any(text.startswith("MLE") for text in texts_of((tmp_path / "c.svg").read_text()))
        assert compare.main([*command, f"--references={references}"]) == 0
        assert "MLE: 1.000" in texts_of((tmp_path / "c.svg").read_text())

    def test_the_start_validated_on_the_same_pictures_is_as_it_was_kept(self, tmp_path):
        history = [row(1, CIDEr=0.3), row(2, CIDEr=0.35), row(3, CIDEr=0.33)]
        settings = {"val_images": 2, "rollouts": 0, "history": history}
        mle, pg = make_run(tmp_path / "mle", **settings), make_run(tmp_path / "pg", **settings)
        assert compare.main([f"--runs=MLE={mle};PG={pg}", f"--curves={tmp_path / 'c.svg'}"]) == 0
        assert "MLE: 0.350" in texts_of((tmp_path / "c.svg").read_text())

    def test_the_start_is_as_it_was_while_training_whatever_was_searched_for_since(self, tmp_path):
        beam = {"decode": "beam", "beam_width": 3}
        history = [row(2, "mle", CIDEr=0.35), row(2, CIDEr=0.4, captions_scored=2)]
        mle = make_run(tmp_path / "mle", stage="mle", metrics={"CIDEr": 0.9}, history=history, decoding=beam)
        pg = make_run(tmp_path / "pg", history=history)
        assert compare.main([f"--runs=MLE={mle};PG={pg}", f"--curves={tmp_path / 'c.svg'}"]) == 0
        assert "MLE: 0.350" in texts_of((tmp_path / "c.svg").read_text())

    def test_what_cannot_be_compared_is_refused(self, tmp_path, capsys):
        history = [row(1, CIDEr=0.5)]
        a = make_run(tmp_path / "a", history=history)
        b = make_run(tmp_path / "b", history=history, val_images=2)
        out = f"--curves={tmp_path / 'c.svg'}"
        assert "MLE, the start of the others, is the only label" in failed(capsys, f"--runs=MLE={a}", out)
        assert "no validations of stage pg with SPICE" in failed(capsys, f"--runs=a={a}", out, "--metric=SPICE")
        assert "was validated on 2 images" in failed(capsys, f"--runs=a={a};b={b}", out)
        assert "did you mean CIDEr?" in failed(capsys, f"--runs=a={a}", out, "--metric=cider")
        assert not (tmp_path / "c.svg").exists()


class TestLines:
    def test_names_do_not_cover_each_other(self):
        """Twelve lines that end within a few pixels of each other, below a level that ends there too."""
        rng = random.Random(0)
        names = [Name(f"line number {i}", "#000", 500 + rng.uniform(0, 40), 200 + rng.uniform(0, 9)) for i in range(12)]
        level = Name("start", "#000", 560, 204)
        shifts = name_shifts(names, [level], [], (50, 350))
        boxes = [name.box(shift) for name, shift in zip(names, shifts, strict=True)] + [level.box()]
        for (l1, r1, t1, b1), (l2, r2, t2, b2) in itertools.combinations(boxes, 2):
            assert r1 <= l2 or r2 <= l1 or b1 <= t2 or b2 <= t1
        assert name_shifts(names[:1], [], [], (50, 350)) == [0]

    def test_a_name_goes_out_of_a_lines_way(self):
        through = [(0.0, 200.0), (800.0, 200.0)]
        assert abs(name_shifts([Name("a", "#000", 400, 200)], [], [through], (50, 350))[0]) >= 7

    def test_names_have_room_and_lines_a_look_of_their_own(self):
        names = [f"a rather long name of a run {i}" for i in range(len(COLOURS) + 1)]
        lines = {name: [[(1.0, i), (2.0, i)]] for i, name in enumerate(names)}
        svg = xml.etree.ElementTree.fromstring(line_panels("t", "CIDEr", [Panel("seconds", lines)]))
        width = float(svg.get("width"))
        written = [t for t in svg.iter(f"{SVG}text") if t.text in names]
        assert len(written) == len(names) and all(float(t.get("x")) + LETTER * len(t.text) < width for t in written)
        looks = [(p.get("stroke"), p.get("stroke-dasharray")) for p in svg.iter(f"{SVG}path") if p.get("stroke-width")]
        assert len(set(looks)) == len(names)


class TestPictures:
    IDS = tuple(range(10, 22))

    @pytest.fixture
    def runs(self, tmp_path):
        """Two labels, of which one has two seeds; a folder of pictures, one of them large."""
        captions = {name: [f"{name} sees number {i}" for i in self.IDS] for name in ("mle", "pg", "other")}
        for name, said in captions.items():
            make_run(tmp_path / name, said, ids=self.IDS)
        references_file(tmp_path / "val.json", self.IDS, [f"<b> & number {i}" for i in self.IDS])
        (tmp_path / "images").mkdir()
        for i in self.IDS:
            pixels = tf.fill([150, 400 if i == 12 else 200, 3], tf.constant(i, tf.uint8))
            (tmp_path / "images" / f"{i}.jpg").write_bytes(tf.io.encode_jpeg(pixels).numpy())
        return [
            f"--runs=MLE={tmp_path / 'mle'};PG={tmp_path / 'pg'},{tmp_path / 'other'}",
            f"--references={tmp_path / 'val.json'}",
            f"--images={tmp_path / 'images'}",
        ]

    def page(self, path):
        page = Parsed(path.read_text())
        return page, [text.split()[0] for text in page.texts("figcaption")]

    def test_the_gallery_shows_each_picture_once_with_all_captions(self, runs, tmp_path):
        out = tmp_path / "new" / "g.html"
        assert compare.main([*runs, f"--gallery={out}", "--pictures=12"]) == 0
        page, names = self.page(out)
        assert sorted(names) == [f"{i}.jpg" for i in self.IDS]
        for name, text in zip(names, page.texts("article"), strict=True):
            number = name.removesuffix(".jpg")
            assert f"<b> & number {number}" in text and "Another | one." in text
            assert (
                f"mle sees number {number}" in text and f"pg sees number {number}" in text and "other sees" not in text
            )
            assert "–" not in text  # no scores, and none missed
        for uri, name in zip(page.attributes("img", "src"), names, strict=True):
            head, _, data = uri.partition(",")
            pixels = tf.io.decode_image(base64.b64decode(data))
            assert head == "data:image/jpeg;base64"
            assert pixels.shape == ((90, 240, 3) if name == "12.jpg" else (150, 200, 3))
            assert int(pixels[5, 5, 0]) == pytest.approx(int(name.removesuffix(".jpg")), abs=2)
        assert page.texts("mark") == ["pg"] * 12
        assert "script" not in out.read_text() and "prefers-color-scheme: dark" in out.read_text()

    def test_pictures_are_drawn_by_the_seed(self, runs, tmp_path, capsys):
        drawn = []
        for seed in (0, 0, 1):
            assert compare.main([*runs, f"--gallery={tmp_path / 'g.html'}", "--pictures=5", f"--seed={seed}"]) == 0
            drawn.append(self.page(tmp_path / "g.html")[1])
        assert drawn[0] == drawn[1] == [f"{i}.jpg" for i in random.Random(0).sample(self.IDS, 5)] != drawn[2]
        capsys.readouterr()
        assert compare.main([*runs, "--side_by_side=5", "--seed=1"]) == 0
        _, listed = capsys.readouterr().out.split("\n\n")
        table = table_of(listed)
        assert list(table) == drawn[2]
        number = drawn[2][0].removesuffix(".jpg")
        assert list(table[drawn[2][0]].values())[1:] == [
            f"<b> & number {number}",
            f"mle sees number {number}",
            f"pg sees number {number}",
        ]

    def test_words_are_marked_against_the_first_caption(self):
        texts = against_first({"a": "a <b> dog", "b": "a <b> cat", "c": "a big <b> dog"})
        assert list(texts.values()) == [
            "a &lt;b&gt; dog",
            "a &lt;b&gt; <mark>cat</mark>",
            "a <mark>big</mark> &lt;b&gt; dog",
        ]

    def test_mistakes(self, runs, tmp_path, capsys):
        gallery = f"--gallery={tmp_path / 'g.html'}"
        assert "--gallery needs --references and --images too" in failed(capsys, runs[0], gallery)
        assert "--side_by_side needs --references too" in failed(capsys, runs[0], "--side_by_side=2")
        assert "--pictures=40, but the runs have 12" in failed(capsys, *runs, gallery)
        assert "--side_by_side=13, but the runs have 12" in failed(capsys, *runs, "--side_by_side=13")
        command = [*runs, gallery, "--pictures=12"]
        assert "none is not a folder" in failed(capsys, *command, f"--images={tmp_path / 'none'}")
        (tmp_path / "images" / "13.jpg").write_bytes(b"no picture")
        assert "13.jpg cannot be decoded" in failed(capsys, *command)
        (tmp_path / "images" / "13.jpg").unlink()
        assert "has no 13.jpg, the file of image 13" in failed(capsys, *command)
        references_file(tmp_path / "val.json", self.IDS[:-1], ["a"] * 11)
        assert "1 validation images of the runs have no references (21)" in failed(capsys, *command)
        assert not (tmp_path / "g.html").exists()
        reference = tmp_path / "val.json"
        assert "is an input file" in failed(capsys, *runs, f"--gallery={reference}")
