"""The page is parsed back: what a reader sees, what a browser loads, and what survives a failed write."""

import base64
import math
import os
import pathlib
import re
from html.parser import HTMLParser

import pytest

from spidercap.pipeline.data.records import Split
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.evaluation.evaluate import Evaluation
from spidercap.pipeline.report import page as report_page
from spidercap.pipeline.report.cards import GalleryItem
from spidercap.pipeline.report.charts import Curve
from spidercap.pipeline.report.page import StageResult, write_report
from spidercap.pipeline.report.results import SplitResults, _gallery

JPEG = b"\xff\xd8\xff\xe0 a picture"
PNG = b"\x89PNG\r\n\x1a\n another"
HOSTILE = "<script>alert('x')</script> & \"quoted\" </style></details>"
VOID = {"meta", "img", "br", "hr", "link", "input"}
PLOT = (58, 468, 30, 246)  # left, right, top, bottom of a chart's plotting area


class Parsed(HTMLParser):
    """Elements as (tag, attributes, text with that of the children), in the order of their opening tags."""

    def __init__(self, page: str):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(page)
        self.close()
        assert not self._open, f"never closed: {[element[0] for element in self._open]}"

    def handle_starttag(self, tag, attrs):
        assert len(attrs) == len(dict(attrs)), f"attribute given twice: {tag} {attrs}"
        self.elements.append([tag, dict(attrs), ""])
        if tag not in VOID:
            self._open.append(self.elements[-1])

    def handle_startendtag(self, tag, attrs):
        self.elements.append([tag, dict(attrs), ""])

    def handle_endtag(self, tag):
        assert self._open and self._open[-1][0] == tag, f"</{tag}> closes {self._open[-1:]}"
        self._open.pop()

    def handle_data(self, data):
        for element in self._open:
            element[2] += data

    def texts(self, tag: str, kind: str | None = None) -> list[str]:
        return [text for name, attrs, text in self.elements if name == tag and kind in (None, attrs.get("class"))]

    def attributes(self, tag: str, key: str) -> list[str]:
        return [attrs[key] for name, attrs, _ in self.elements if name == tag and key in attrs]


def _item(number=1, captions=None, scores=None, **changed):
    fields = {
        "image": JPEG,
        "image_id": number,
        "file_name": f"{number}.jpg",
        "references": [f"reference {number}"],
        "captions": {"mle": f"mle {number}", "pg": f"pg {number}"} if captions is None else captions,
        "scores": {"mle": 0.5, "pg": 0.75} if scores is None else scores,
    }
    return GalleryItem(**(fields | changed))


def _stage(name, seconds=5.0, **metrics):
    return StageResult(name, {key.replace("_", " "): value for key, value in metrics.items()}, 1000, seconds)


def _write(path, **changed):
    fields = {
        "title": "a run",
        "metric": "CIDEr",
        "settings": {},
        "stages": [_stage("mle", CIDEr=0.4), _stage("pg", CIDEr=0.5)],
        "curves": [],
        "best": [],
        "worst": [],
    }
    write_report(path, **(fields | changed))
    return path.read_text("utf-8")


@pytest.fixture
def page(tmp_path):
    return lambda **changed: Parsed(_write(tmp_path / "report.html", **changed))


def _rows(parsed):
    """The table's cells row by row; a best value stands in asterisks."""
    cells = [element for element in parsed.elements if element[0] in ("tr", "th", "td", "b")]
    rows = []
    for tag, _, text in cells:
        if tag == "tr":
            rows.append([])
        elif tag == "b":
            rows[-1][-1] = f"*{text}*"
        else:
            rows[-1].append(text)
    return rows


def _lines(parsed):
    """Coordinates of every polyline."""
    lines = parsed.attributes("polyline", "points")
    return [[tuple(map(float, pair.split(","))) for pair in line.split()] for line in lines]


# ---- the whole page ----


def test_hostile_text_is_shown_and_never_becomes_markup(page):
    stage = StageResult(HOSTILE, {HOSTILE: 1.5}, 1, 1.0)
    hostile = {HOSTILE: HOSTILE, "middle": HOSTILE, "other": f"{HOSTILE} more"}
    item = _item(captions=hostile, references=[HOSTILE], file_name=HOSTILE)
    parsed = page(
        title=HOSTILE,
        notes=[HOSTILE],
        settings={HOSTILE: HOSTILE},
        stages=[stage],
        curves=[Curve(HOSTILE, HOSTILE, HOSTILE, {HOSTILE: [(1, 1)], "empty": []})],
        best=[item],
        worst=[item],
    )
    assert "script" not in {tag for tag, _, _ in parsed.elements}
    assert parsed.texts("h1") == parsed.texts("title")[:1] == [HOSTILE]
    # Note, stage, metric, setting (2), chart (title, its label for the blind, legend, axes (2)), two cards of
    # file name, reference, one hostile stage name and three captions.
    shown = ["li", "th", "dt", "dd", "h3", "text", "figcaption"]
    count = sum(text.count(HOSTILE) for tag in shown for text in parsed.texts(tag))
    assert count == 1 + 2 + 2 + 1 + 1 + 2 + 2 * (1 + 1 + 1 + 3)
    assert parsed.attributes("svg", "aria-label") == [HOSTILE]


def test_page_loads_nothing_from_outside(page, tmp_path):
    curves = [Curve("c", "x", "y", {"mle": [(1, 2), (2, 3)]})]
    parsed = page(curves=curves, best=[_item(1)], worst=[_item(2, image=PNG)])
    sources = parsed.attributes("img", "src")
    assert [source.split(",")[0] for source in sources] == ["data:image/jpeg;base64", "data:image/png;base64"]
    assert [base64.b64decode(source.split(",")[1]) for source in sources] == [JPEG, PNG]
    text = (tmp_path / "report.html").read_text("utf-8")
    assert not re.search(r"https?:|//\w|@import|url\(|<script|<link|\shref=|\son\w+=", re.sub('base64,[^"]*', "", text))
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text


def test_head_and_settings(page):
    parsed = page(notes=["first note", "second note"], settings={"stages": "mle:8,pg:5", "clip": None, "rate": 1e-3})
    assert parsed.texts("li") == ["first note", "second note"]
    assert parsed.texts("summary") == ["Settings (3)"]
    assert parsed.texts("dt") == ["stages", "clip", "rate"]
    assert parsed.texts("dd") == ["mle:8,pg:5", "None", "0.001"]
    assert not parsed.attributes("details", "open")


# ---- the table ----


def test_table_marks_the_best_and_gives_the_change(page):
    stages = [
        _stage("mle", 200, CIDEr=0.4, loss=2.5, mean_length=10.9, distinct_captions=755.0),
        _stage("baseline", 45),
        _stage("pg", 3725, CIDEr=0.42, loss=3.0, mean_length=8.6, distinct_captions=1422.0),
    ]
    assert _rows(page(stages=stages)) == [
        ["stage", "CIDEr", "loss", "mean length", "distinct captions", "images seen", "time"],
        ["mle", "0.400", "*2.500*", "10.900", "755", "1,000", "3 min 20 s"],
        ["baseline", "–", "–", "–", "–", "1,000", "45 s"],
        ["pg", "*0.420*", "3.000", "8.600", "*1,422*", "1,000", "1 h 2 min"],
        ["change", "+5.0%", "+20.0%", "−21.1%", "+88.3%", "", ""],
    ]


def test_what_looks_equal_is_equally_bold(page):
    stages = [_stage("mle", A=0.50001, B=0.5), _stage("pg", A=0.50002, B=0.50003), _stage("scst", A=0.5, B=0.4)]
    rows = _rows(page(stages=stages))
    assert [row[1] for row in rows[1:4]] == ["0.500"] * 3  # none is better by what is printed
    assert [row[2] for row in rows[1:4]] == ["*0.500*", "*0.500*", "0.400"]


def test_a_stage_without_scores_is_explained(page):
    curves = [Curve("c", "x", "y", {"mle": [(1, 2)]})]
    hint = "No curve and no row for baseline (1 min 5 s): only the baseline was trained, and captions were those of the"
    assert any(hint in text for text in page(curves=curves, unscored={"baseline": 65.0}).texts("p", "hint"))
    assert not page(curves=curves).texts("p", "hint")


def test_change_without_a_first_value_or_from_zero_is_left_open(page):
    stages = [_stage("mle", A=0.0, B=math.nan), _stage("pg", A=0.5, B=1.5, C=2.5)]
    rows = _rows(page(stages=stages))
    assert rows[1][1:4] == ["0.000", "–", "–"]
    assert rows[2][1:4] == ["*0.500*", "1.500", "2.500"]  # nothing to be better than in B and C
    assert rows[3][1:4] == ["–", "–", "–"]


def test_one_stage_has_no_change_and_no_stage_no_table(page):
    assert [row[0] for row in _rows(page(stages=[_stage("mle", CIDEr=0.4)]))] == ["stage", "mle"]
    parsed = page(stages=[], best=[_item(1, captions={"mle": "only caption"})])
    assert _rows(parsed) == []
    assert parsed.texts("dd") == ["only caption"]


@pytest.mark.parametrize("seconds, text", [(0, "0 s"), (59.7, "1 min 0 s"), (3599.6, "1 h 0 min"), (math.nan, "–")])
def test_duration(page, seconds, text):
    assert _rows(page(stages=[_stage("mle", seconds)]))[1][-1] == text


# ---- the charts ----


def test_chart_skips_nan_and_keeps_every_point_inside(page):
    points = [(0, 1.0), (1, math.nan), (2, -3.0), (3, math.inf), (4, 2.5)]
    parsed = page(curves=[Curve("c", "x", "y", {"mle": points})])
    (line,) = _lines(parsed)
    left, right, top, bottom = PLOT
    assert len(line) == 3
    assert all(left <= x <= right and top <= y <= bottom for x, y in line)
    assert line[0][0] < line[1][0] < line[2][0]
    assert line[2][1] < line[0][1] < line[1][1]  # up the page is down in SVG's y
    assert parsed.texts("title")[1:] == ["mle: 1 at 0", "mle: -3 at 2", "mle: 2.5 at 4"]


@pytest.mark.parametrize("points", [[(3, 0.4)], [(0, 0.0)], [(1, 7.0), (2, 7.0)], [(1, 1e30), (2, 1e-30)]])
def test_chart_of_one_point_or_one_value_stands_inside(page, points):
    (line,) = _lines(page(curves=[Curve("c", "x", "y", {"mle": points})]))
    assert len(line) == len(points)
    assert all(PLOT[0] <= x <= PLOT[1] and PLOT[2] <= y <= PLOT[3] for x, y in line)


@pytest.mark.parametrize("series", [{}, {"mle": []}, {"mle": [(1, math.nan)]}])
def test_chart_without_values_says_so(page, series):
    parsed = page(curves=[Curve("c", "x", "y", series)])
    assert parsed.texts("p", "empty") == ["No values yet."]
    assert parsed.texts("svg") == []


def test_series_without_values_is_named_in_the_legend(page):
    parsed = page(curves=[Curve("c", "x", "y", {"mle": [(1, 2)], "pg": []})])
    assert parsed.texts("li") == ["mle", "pg (no values)"]
    assert len(_lines(parsed)) == 1


@pytest.mark.parametrize(
    "values, labels",
    [
        ([0.183, 0.42], ["0.15", "0.20", "0.25", "0.30", "0.35", "0.40", "0.45"]),
        ([755, 422], ["400", "500", "600", "700", "800"]),
        ([1, 2], ["1", "2"]),
        ([1, 12], ["0", "2", "4", "6", "8", "10", "12"]),
        ([-1.0, 1.5], ["−1.0", "−0.5", "0", "0.5", "1.0", "1.5"]),
        ([0, 60_000], ["0", "10k", "20k", "30k", "40k", "50k", "60k"]),
        ([0, 2_500_000], ["0", "0.5M", "1.0M", "1.5M", "2.0M", "2.5M"]),
        ([5e-5, 1e-4], ["0.5e−4", "0.6e−4", "0.7e−4", "0.8e−4", "0.9e−4", "1.0e−4"]),
    ],
)
def test_ticks_are_round_and_stand_at_their_values(page, values, labels):
    parsed = page(curves=[Curve("c", "x", "y", {"mle": list(enumerate(values))})])
    assert parsed.texts("text", "tick y") == labels
    ys = [float(attrs["y"]) for tag, attrs, _ in parsed.elements if attrs.get("class") == "tick y"]
    assert ys == pytest.approx([PLOT[3] + 4 + (PLOT[2] - PLOT[3]) * i / (len(ys) - 1) for i in range(len(ys))], abs=0.1)


def test_a_name_has_one_colour_everywhere(page):
    curves = [
        Curve("a", "x", "y", {"reward": [(1, 1)], "pg": [(1, 2)]}),
        Curve("b", "x", "y", {"pg": [(1, 2)]}),
    ]
    parsed = page(curves=curves, best=[_item()])
    named = {}
    for tag, attrs, text in parsed.elements:
        if tag in ("th", "li", "g", "div") and re.search(r"\bc\d", attrs.get("class", "")):
            name = re.match("mle|pg|reward", text).group()
            named.setdefault(name, set()).add(attrs["class"].removeprefix("line "))
    assert named == {"mle": {"c0"}, "pg": {"c1"}, "reward": {"c2"}}


def test_a_ninth_name_differs_from_the_first(page):
    parsed = page(stages=[_stage(f"s{i}") for i in range(9)])
    classes = [attrs["class"] for tag, attrs, text in parsed.elements if tag == "th" and re.match(r"s\d", text)]
    assert len(set(classes)) == 9


# ---- the gallery ----


def test_cards_are_sorted_by_the_last_stage_and_unscored_ones_come_last(page):
    scores = [{"pg": 0.2, "mle": 9}, {"pg": 1.5, "mle": 0}, {"mle": 5}, {"pg": math.nan}, {"pg": 0.7}]
    items = [_item(i, scores=score) for i, score in enumerate(scores)]
    parsed = page(best=items, worst=items)
    numbers = [int(re.search(r"(\d)$", text).group()) for text in parsed.texts("figcaption")]
    assert numbers == [1, 4, 0, 2, 3, 0, 4, 1, 2, 3]
    assert parsed.texts("h2")[1:] == ["Best first", "Worst first"]


def test_every_reference_caption_and_score_is_there_in_the_order_of_the_stages(page):
    captions = {"pg": "a dog runs", "mle": "a dog", "later": "words of no known stage"}
    item = _item(captions=captions, scores={"mle": 0.25, "pg": 1.5}, references=["one", "two"])
    parsed = page(best=[item])
    assert parsed.texts("li") == ["one", "two"]
    assert parsed.texts("dd") == ["a dog", "a dog runs", "words of no known stage"]
    assert parsed.texts("dt") == ["mle0.250", "pg1.500", "later–"]


def test_card_with_empty_or_no_captions(page):
    parsed = page(best=[_item(1, captions={"mle": "a dog", "pg": ""}), _item(2, captions={}, references=[])])
    assert parsed.texts("dd") == ["a dog", "(empty)"]
    assert len(parsed.texts("article")) == 2


def test_words_that_differ_are_marked(page):
    captions = {"mle": "a man in a red shirt", "middle": "a tree", "pg": "a young man in a shirt on grass"}
    stages = [_stage(name) for name in captions]
    assert page(stages=stages, best=[_item(captions=captions)]).texts("mark") == ["red", "young", "on grass"]
    assert page(best=[_item(captions={"mle": "a dog", "pg": "a dog"})]).texts("mark") == []
    assert page(best=[_item(captions={"pg": "a dog"})]).texts("mark") == []


# ---- the file ----


def _half_written(path: pathlib.Path, data: bytes) -> int:
    with open(path, "wb") as file:
        file.write(data[:100])
    raise OSError("disk full")


def _not_renamed(*_):
    raise OSError("no rename")


@pytest.mark.parametrize(
    "owner, name, failing",
    [(pathlib.Path, "write_bytes", _half_written), (report_page.os, "replace", _not_renamed)],
)
def test_a_failed_write_leaves_the_old_page_and_nothing_else(tmp_path, monkeypatch, owner, name, failing):
    path = tmp_path / "report.html"
    old = _write(path, title="old")
    with monkeypatch.context() as patched, pytest.raises(UserError):
        patched.setattr(owner, name, failing)
        _write(path, title="new")
    assert path.read_text("utf-8") == old
    assert os.listdir(tmp_path) == ["report.html"]
    assert "new" in _write(path, title="new")
    assert os.listdir(tmp_path) == ["report.html"]


def test_unknown_picture_is_refused_and_the_old_page_stays(tmp_path):
    path = tmp_path / "report.html"
    old = _write(path)
    with pytest.raises(UserError, match=r"image 7 \(7\.jpg\) starts with b'GIF89a'.*JPEG and PNG"):
        _write(path, best=[_item(7, image=b"GIF89a")])
    assert path.read_text("utf-8") == old


def test_a_file_name_that_is_not_utf8_does_not_stop_the_page(page):
    name = os.fsdecode(b"caf\xe9.jpg")
    assert page(best=[_item(3, file_name=name)]).texts("figcaption") == [r"caf\xe9.jpg 3"]


@pytest.mark.parametrize("images, best, worst", [(1, [0], []), (2, [1], [0]), (5, [4, 3, 2], [0, 1]), (30, 12, 12)])
def test_the_gallery_shows_each_image_of_few_once(images, best, worst):
    """Of 30 images there are twelve at each end."""
    scores = tuple({"CIDEr": i / 10} for i in range(images))
    names = tuple(f"{i}" for i in range(images))
    split = Split(names, names, (("a dog",),) * images, names, None)
    evaluations = {"mle": Evaluation(("a cat",) * images, {"CIDEr": 1.0}, scores)}
    found = _gallery(SplitResults("val", "val", split, None, evaluations), evaluations, "CIDEr", None)
    for items, expected in zip(found, (best, worst), strict=True):
        if isinstance(expected, int):
            assert len(items) == expected
        else:
            assert [int(item.image_id) for item in items] == expected
