"""The figure of validation curves for the documents, of made-up workdirs whose numbers are known."""

import itertools
import random
import xml.etree.ElementTree

import pytest

from benchmarks import curves
from benchmarks.lines import COLOURS, LETTER, Name, Panel, line_panels, name_shifts
from tests.finished_runs import CAPTIONS, SVG, make_run, references_file, row, texts_of


def refused(capsys, *arguments):
    assert curves.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


class TestCurves:
    def test_a_line_for_every_run_and_the_start_as_a_level(self, tmp_path, capsys):
        mle = [make_run(tmp_path / f"mle_{v}", metrics={"CIDEr": v}) for v in (0.4, 0.5)]
        history = [row(k, CIDEr=0.5 + k / 100, captions_scored=7 * k) for k in (1, 2, 3)]
        pg = [make_run(tmp_path / f"pg_{i}", history=history) for i in range(2)]
        out = tmp_path / "deep" / "c.svg"
        names = f"MLE={mle[0]},MLE={mle[1]},K = 3={pg[0]},K = 3={pg[1]}"
        assert curves.main([f"--workdirs={names}", f"--output={out}", "--metric=CIDEr"]) == 0
        assert capsys.readouterr() == ("", "")
        shown = texts_of(out.read_text())
        assert shown.count("MLE: 0.450") == 2 and shown.count("K = 3") == 2 and "MLE" not in shown
        assert "captions scored in training" in shown and "Validation CIDEr of 3 images while training" in shown
        drawn = xml.etree.ElementTree.fromstring(out.read_text())
        assert len(list(drawn.iter(f"{SVG}circle"))) == 2 * 2 * 3
        assert sum("stroke-dasharray" in path.attrib for path in drawn.iter(f"{SVG}path")) == 2

    def test_a_higher_score_stands_higher_and_a_later_one_further_right(self, tmp_path):
        history = [row(k, CIDEr=v, captions_scored=k) for k, v in ((1, 0.2), (2, 0.3), (3, 0.1))]
        runs = ",".join(str(make_run(tmp_path / name, history=history)) for name in ("a_0", "a_1"))
        assert curves.main([f"--workdirs={runs}", f"--output={tmp_path / 'c.svg'}"]) == 0
        drawn = xml.etree.ElementTree.parse(tmp_path / "c.svg")
        places = [(float(c.get("cx")), float(c.get("cy"))) for c in drawn.iter(f"{SVG}circle")][:3]
        (x1, y1), (x2, y2), (x3, y3) = places
        assert x1 < x2 < x3 and x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
        assert y3 > y1 > y2 and y1 - y2 == pytest.approx(y3 - y1, abs=0.2)

    def test_the_start_is_scored_on_the_images_of_the_curves(self, tmp_path, capsys):
        """Two of three images: those for which the start generated the very reference."""
        references = references_file(tmp_path / "val.json")
        mle = make_run(tmp_path / "mle", (*CAPTIONS[:2], "nothing right here"), metrics={"BLEU-1": 0.1})
        history = [row(1, CIDEr=0.5, captions_scored=1, **{"BLEU-1": 0.5}), row(2, CIDEr=0.5, captions_scored=2)]
        pg = make_run(tmp_path / "pg", history=history, val_images=2)
        command = [f"--workdirs=MLE={mle},PG={pg}", f"--output={tmp_path / 'c.svg'}", "--metric=BLEU-1"]
        assert curves.main(command) == 0
        assert "no line for MLE" in capsys.readouterr().err
        assert not any(text.startswith("MLE") for text in texts_of((tmp_path / "c.svg").read_text()))
        assert curves.main([*command, f"--references={references}"]) == 0
        assert "MLE: 1.000" in texts_of((tmp_path / "c.svg").read_text())

    def test_the_start_is_as_it_was_while_training_whatever_was_searched_for_since(self, tmp_path):
        beam = {"decode": "beam", "beam_width": 3}
        history = [row(2, "mle", CIDEr=0.35), row(2, CIDEr=0.4, captions_scored=2)]
        mle = make_run(tmp_path / "mle", stage="mle", metrics={"CIDEr": 0.9}, history=history[:1], decoding=beam)
        pg = make_run(tmp_path / "pg", history=history)
        assert curves.main([f"--workdirs=MLE={mle},PG={pg}", f"--output={tmp_path / 'c.svg'}"]) == 0
        assert "MLE: 0.350" in texts_of((tmp_path / "c.svg").read_text())

    def test_what_cannot_be_drawn_is_refused(self, tmp_path, capsys):
        history = [row(1, CIDEr=0.5, captions_scored=1)]
        a, c = (make_run(tmp_path / name, history=history) for name in "ac")
        b = make_run(tmp_path / "b", history=history, val_images=2)
        old = make_run(tmp_path / "old", history=[row(1, CIDEr=0.5)])
        out = f"--output={tmp_path / 'c.svg'}"
        assert "MLE, the start of the others, is the only row" in refused(capsys, f"--workdirs=MLE={a},MLE={c}", out)
        assert "no validations of stage pg with SPICE" in refused(capsys, f"--workdirs={a},{c}", out, "--metric=SPICE")
        assert "was validated on 2 images" in refused(capsys, f"--workdirs=a={a},b={b}", out)
        assert "does not tell how many captions it scored" in refused(capsys, f"--workdirs={a},{old}", out)
        assert "did you mean CIDEr?" in refused(capsys, f"--workdirs={a},{c}", out, "--metric=cider")
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
