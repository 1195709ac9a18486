"""The page of --mode=compare, of made-up workdirs whose numbers are known: tables, curves and captions side by side."""

import base64
import re

import pytest
import tensorflow as tf

from spidercap.pipeline.report.compare.gallery import against_first
from tests.finished_runs import compared, failed, make_run, make_unfinished, references_file, row
from tests.test_report import HOSTILE, Parsed


def lines_of(parsed, chart):
    """The points of each line of a chart, by its class."""
    figures = [i for i, (tag, attrs, _) in enumerate(parsed.elements) if attrs.get("class") == "chart"] + [None]
    found, kind = {}, None
    for tag, attrs, _ in parsed.elements[figures[chart] : figures[chart + 1]]:
        kind = attrs["class"].split()[-1] if tag == "g" else kind
        if tag == "polyline":
            pairs = [tuple(map(float, pair.split(","))) for pair in attrs["points"].split()]
            found.setdefault(kind, []).append(pairs)
    return found


class TestTables:
    def test_mean_spread_and_what_differs(self, tmp_path, capsys):
        runs = [make_run(tmp_path / f"pg_{i}", metrics={"CIDEr": 0.4 + i / 10}, seed=i) for i in range(2)]
        other = make_run(tmp_path / "big", metrics={"CIDEr": 0.3}, units=7, history=[row(1, CIDEr=0.2)])
        out = tmp_path / "deep" / "c.html"
        said = compared(capsys, f"{runs[0]},{runs[1]},{other}", f"--output={out}")
        assert said.splitlines()[-1] == f"page: {out}"
        page = Parsed(out.read_text())
        assert page.texts("h1") == ["3 runs on validation images"]
        assert page.texts("h2") == [
            *("Scores on validation", "Settings that differ", "Curves", "Captions side by side", "Runs")
        ]
        cells = page.texts("td")
        assert "0.450 ± 0.071" in cells and "0.450" in page.texts("b")
        assert cells[cells.index("512") + 1] == "7" and "units" in page.texts("th")
        assert str(other) in cells

    def test_unfinished_runs_and_hostile_names_are_told(self, tmp_path, capsys):
        part = make_unfinished(tmp_path / "b", [row(1, "mle", CIDEr=0.4)])
        out = tmp_path / "c.html"
        compared(capsys, f"{HOSTILE.replace(',', '')}={make_run(tmp_path / 'a')},{part}", f"--output={out}")
        page = Parsed(out.read_text())
        assert "script" not in {tag for tag, _, _ in page.elements} and any(HOSTILE in t for t in page.texts("th"))
        assert any("is unfinished, mle at step 5" in note for note in page.texts("li"))
        assert not re.search(r"https?:|//\w|@import|url\(|<script|<link|\shref=", out.read_text())

    def test_a_failed_comparison_leaves_the_old_page(self, tmp_path, capsys):
        (tmp_path / "c.html").write_text("old")
        failed(capsys, f"{make_run(tmp_path / 'a')},none", f"--output={tmp_path / 'c.html'}")
        assert (tmp_path / "c.html").read_text() == "old"


class TestCurves:
    def test_a_line_for_every_run_over_three_axes(self, tmp_path, capsys):
        histories = [
            [row(k, **{"CIDEr": 0.5 + k / 100 + i, "BLEU-4": 0.1}, captions_scored=7 * k) for k in (1, 2, 3)]
            for i in range(2)
        ]
        runs = [make_run(tmp_path / f"pg_{i}", history=h, best_metric="BLEU-4") for i, h in enumerate(histories)]
        mle = make_run(
            tmp_path / "m", stage="mle", history=[row(1, "mle", CIDEr=0.2, captions_scored=0), row(2, "mle", CIDEr=0.4)]
        )
        out = tmp_path / "c.html"
        compared(capsys, f"{runs[0]},{runs[1]},{mle}", f"--output={out}")
        page = Parsed(out.read_text())
        assert page.texts("h3") == ["BLEU-4 on validation"] * 3 + ["CIDEr on validation"] * 3
        axes = ["images seen in the stage", "captions scored in the stage", "seconds of the stage, with validations"]
        assert page.texts("text", "label x") == axes * 2
        seen, scored, seconds = (lines_of(page, i) for i in range(3, 6))
        assert [len(line) for line in seen["c0"]] == [3, 3] and [len(line) for line in seen["c1"]] == [2]
        assert "c1" not in scored and [len(line) for line in seconds["c0"]] == [3, 3]
        first, second = seen["c0"]
        assert first[0][0] < first[1][0] < first[2][0] and first[2][1] < first[0][1] and second[0][1] < first[2][1]
        assert "m (no values)" in page.texts("li") and page.texts("li").count("pg") == 6
        compared(capsys, f"{runs[0]},{runs[1]}", f"--output={out}", "--curve_metric=CIDEr")
        assert len(Parsed(out.read_text()).texts("h3")) == 3

    def test_validations_of_other_images_are_told(self, tmp_path, capsys):
        runs = [make_run(tmp_path / f"a{n}", val_images=n) for n in (0, 2)]
        said = compared(capsys, f"{runs[0]},{runs[1]}")
        assert "was validated with --val_images=2" in said and "their curves are of different images" in said


class TestCaptions:
    IDS = tuple(range(10, 22))

    @pytest.fixture
    def runs(self, tmp_path):
        """Two labels, of which one has two seeds; a folder of images, one of them large."""
        for name in ("mle", "pg", "other"):
            make_run(tmp_path / name, [f"{name} sees number {i}" for i in self.IDS], ids=self.IDS)
        references_file(tmp_path / "val.json", self.IDS, [f"<b> & number {i}" for i in self.IDS])
        (tmp_path / "images").mkdir()
        for i in self.IDS:
            pixels = tf.fill([150, 400 if i == 12 else 200, 3], tf.constant(i, tf.uint8))
            (tmp_path / "images" / f"{i}.jpg").write_bytes(tf.io.encode_jpeg(pixels).numpy())
        return f"MLE={tmp_path / 'mle'},PG={tmp_path / 'pg'},PG={tmp_path / 'other'}"

    def flags(self, tmp_path):
        return [f"--references={tmp_path / 'val.json'}", f"--images={tmp_path / 'images'}"]

    def test_each_image_once_with_all_captions(self, runs, tmp_path, capsys):
        out = tmp_path / "c.html"
        compared(capsys, runs, f"--output={out}", *self.flags(tmp_path))
        page = Parsed(out.read_text())
        names = [text.split()[0] for text in page.texts("figcaption")]
        assert sorted(names) == [f"{i}.jpg" for i in self.IDS]
        for name, text in zip(names, page.texts("article"), strict=True):
            number = name.removesuffix(".jpg")
            assert f"<b> & number {number}" in text and "Another | one." in text
            assert f"mle sees number {number}" in text and f"pg sees number {number}" in text
            assert "other sees" not in text and "–" not in text  # no scores, and none missed
        for uri, name in zip(page.attributes("img", "src"), names, strict=True):
            head, _, data = uri.partition(",")
            pixels = tf.io.decode_image(base64.b64decode(data))
            assert head == "data:image/jpeg;base64"
            assert pixels.shape == ((90, 240, 3) if name == "12.jpg" else (150, 200, 3))
            assert int(pixels[5, 5, 0]) == pytest.approx(int(name.removesuffix(".jpg")), abs=2)
        assert page.texts("mark") == ["pg"] * 12

    def test_the_same_images_are_drawn_again(self, runs, tmp_path, capsys):
        drawn = []
        for flags in (self.flags(tmp_path), self.flags(tmp_path)[:1], []):
            compared(capsys, runs, f"--output={tmp_path / 'c.html'}", "--examples=5", *flags)
            page = Parsed((tmp_path / "c.html").read_text())
            drawn.append([re.search(r"number (\d+)", text)[1] for text in page.texts("article")])
            assert len(page.texts("article")) == 5 and bool(page.texts("ul", "references")) == bool(flags)
        assert drawn[0] == drawn[1] == drawn[2] != sorted(drawn[0])

    def test_words_are_marked_against_the_first_caption(self):
        texts = against_first({"a": "a <b> dog", "b": "a <b> cat", "c": "a big <b> dog"})
        assert list(texts.values()) == [
            "a &lt;b&gt; dog",
            "a &lt;b&gt; <mark>cat</mark>",
            "a <mark>big</mark> &lt;b&gt; dog",
        ]

    def test_mistakes(self, runs, tmp_path, capsys):
        command = [runs, f"--output={tmp_path / 'c.html'}", *self.flags(tmp_path)]
        assert "none is not a folder" in failed(capsys, *command[:3], f"--images={tmp_path / 'none'}")
        (tmp_path / "images" / "13.jpg").write_bytes(b"no picture")
        assert "13.jpg cannot be decoded" in failed(capsys, *command)
        (tmp_path / "images" / "13.jpg").unlink()
        assert "has no 13.jpg, the file of image 13" in failed(capsys, *command)
        references_file(tmp_path / "val.json", self.IDS[:-1], ["a"] * 11)
        assert "1 images of the runs have no references (21)" in failed(capsys, *command)
        assert not (tmp_path / "c.html").exists()
