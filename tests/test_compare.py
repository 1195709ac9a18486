"""--mode=compare on made-up workdirs whose numbers are known: rows, tables, what is unfinished, and what is refused."""

import json
import shutil
import statistics
import subprocess
import sys

import pytest

from benchmarks import spice_fast, spice_gap
from spidercap.pipeline.digests import record
from spidercap.pipeline.report.compare.groups import grouped
from spidercap.pipeline.report.compare.places import common_name, parse_places
from spidercap.pipeline.report.compare.runs import read_runs
from spidercap.pipeline.report.compare.table import COLUMNS, cells
from spidercap.pipeline.training.progress import FinishedStage
from tests.conftest import ROOT
from tests.finished_runs import compared, failed, make_run, make_unfinished, references_file, row, table_of


def rows_of(text):
    runs, _ = read_runs(parse_places(text))
    return grouped(runs)


class TestRows:
    def test_runs_that_differ_only_in_the_seed_are_one(self, tmp_path):
        for seed in (0, 1):
            make_run(tmp_path / f"mle_{seed}", seed=seed)
            make_run(tmp_path / f"pg_{seed}", seed=seed, warm_start=str(tmp_path / f"mle_{seed}"))
            make_run(tmp_path / f"hot-s{seed}", seed=seed, temperature="0.5", stages="mle:1,pg:1")
        names = ("pg_0", "mle_1", "pg_1", "hot-s0", "mle_0", "hot-s1")
        rows = rows_of(",".join(str(tmp_path / name) for name in names))
        assert {label: [run.workdir.name for run in of_row] for label, of_row in rows.items()} == {
            "pg": ["pg_0", "pg_1"],
            "mle": ["mle_1", "mle_0"],
            "hot": ["hot-s0", "hot-s1"],
        }

    def test_a_spelling_of_a_setting_is_none_of_its_own(self, tmp_path):
        runs = [
            make_run(tmp_path / f"a{i}", learning_rate=rate)
            for i, rate in enumerate(("pg:1e-3", "pg:0.001", "pg:2e-3"))
        ]
        rows = rows_of(",".join(map(str, runs)))
        assert [len(of_row) for of_row in rows.values()] == [2, 1]

    def test_other_starts_and_other_data_are_other_rows(self, tmp_path):
        for name, units in (("small", 3), ("large", 4)):
            make_run(tmp_path / name, units=units)
        starts = [make_run(tmp_path / f"from_{n}", warm_start=str(tmp_path / n)) for n in ("small", "large")]
        assert len(rows_of(",".join(map(str, starts)))) == 2
        same = [make_run(tmp_path / f"data_{i}") for i in range(2)]
        for i, run in enumerate(same):
            (run / "data.json").write_text(json.dumps({"train": str(i), "val": "1"}))
        assert list(rows_of(",".join(map(str, same)))) == ["data_0", "data_1"]

    def test_labels_and_stages_may_be_given(self, tmp_path, capsys):
        runs = [make_run(tmp_path / f"r_{i}", metrics={"CIDEr": 0.9}) for i in range(2)]
        for run in runs:
            (run / "results" / "val" / "mle.metrics.json").write_text('{"CIDEr": 0.1}')
        names = f"K = 1={runs[0]},K = 1={runs[1]},start={runs[0]}:mle,{runs[1]}:mle"
        table = table_of(compared(capsys, names))
        assert list(table) == ["K = 1", "start", "r_1"] and table["K = 1"]["seeds"] == "2"
        assert (table["start"]["CIDEr"], table["K = 1"]["CIDEr"]) == ("0.100", "**0.900** ± 0.000")

    def test_a_label_over_other_settings_is_told(self, tmp_path, capsys):
        runs = [make_run(tmp_path / f"r_{i}", units=3 + i) for i in range(2)]
        said = compared(capsys, f"a={runs[0]},a={runs[1]}")
        assert "a: its runs differ in more than the seed (units: 3, 4)" in said

    @pytest.mark.parametrize(
        ("names", "label"),
        [
            (("pg_0", "pg_1"), "pg"),
            (("pg_1", "pg_10"), "pg"),
            (("k3-s0", "k3-s1"), "k3"),
            (("x.seed1", "x.seed2"), "x"),
            (("a", "b"), "a"),
            (("pg_0",), "pg_0"),
        ],
    )
    def test_a_row_is_named_by_its_folders(self, tmp_path, names, label):
        assert common_name([tmp_path / name for name in names]) == label


class TestTable:
    def test_mean_and_spread_over_seeds(self, tmp_path, capsys):
        values = (0.4012, 0.4234, 0.4567)
        runs = [
            make_run(tmp_path / f"pg_{i}", metrics={"CIDEr": v}, seconds=v * 600, seed=i) for i, v in enumerate(values)
        ]
        one = make_run(tmp_path / "one", metrics={"CIDEr": 0.3}, units=7)
        names = ",".join(map(str, [*runs, one]))
        table = table_of(compared(capsys, names))
        mean, spread = statistics.mean(values), statistics.stdev(values)
        assert table["pg"]["CIDEr"] == f"**{mean:.3f}** ± {spread:.3f}" and table["pg"]["seeds"] == "3"
        assert table["one"]["CIDEr"] == "0.300" and table["one"]["seeds"] == "1"
        assert table["pg"]["minutes"] == f"{mean * 10:.1f} ± {spread * 10:.1f}"
        assert "SPICE" not in table["one"]
        written = json.loads(compared(capsys, names, "--json"))
        (heading, listed), *_ = written["tables"].items()
        assert heading == "Scores on validation" and [r["label"] for r in listed] == ["pg", "one"]
        assert [run["seed"] for run in listed[0]["runs"]] == [0, 1, 2]
        cell = listed[0]["columns"]["CIDEr"]
        assert cell["values"] == list(values) and cell["spread"] == pytest.approx(spread)
        assert listed[1]["columns"]["CIDEr"]["spread"] is None

    def test_a_mean_takes_all_seeds(self, tmp_path, capsys):
        runs = [make_run(tmp_path / "a_0", metrics={"SPICE": 0.1}), make_run(tmp_path / "a_1")]
        assert table_of(compared(capsys, f"{runs[0]},{runs[1]}"))["a"]["SPICE"] == "—"

    def test_the_best_is_bold_with_what_looks_the_same(self, tmp_path, capsys):
        runs = {v: make_run(tmp_path / str(v), metrics={"CIDEr": v}) for v in (0.3, 0.50001, 0.50002)}
        table = table_of(compared(capsys, ",".join(f"{v}={run}" for v, run in runs.items())))
        assert [table[str(v)]["CIDEr"] for v in runs] == ["0.300", "**0.500**", "**0.500**"]
        assert all("**" not in r["mean length"] for r in table.values())

    def test_captions_are_counted(self, tmp_path, capsys):
        ends = ("a dog with a", "one two three four five six", "a dog", "the")
        again = ("a b c a b c", "a a a a", "a b c a b", "")
        for name, captions in (("ends", ends), ("again", again)):
            make_run(tmp_path / name, captions, ids=(1, 2, 3, 4))
        table = table_of(compared(capsys, f"ends={tmp_path / 'ends'},again={tmp_path / 'again'}"))
        assert table["ends"]["bad endings, %"] == "75.0" and table["ends"]["repeated trigrams, %"] == "0.0"
        # 'a a a a' contains 'a a a' twice, and ends in an article; the first has all six words.
        assert table["again"]["bad endings, %"] == "50.0" and table["again"]["repeated trigrams, %"] == "50.0"

    def test_a_workdir_without_checkpoints_serves(self, tmp_path, capsys):
        runs = [make_run(tmp_path / name, history=[row(2)], units=3 + i) for i, name in enumerate("ab")]
        shutil.rmtree(runs[0] / "checkpoints")
        table = table_of(compared(capsys, f"{runs[0]},{runs[1]}"))
        assert (table["a"]["best epoch"], table["b"]["best epoch"]) == ("—", "0.50")

    def test_other_ways_to_search_are_told(self, tmp_path, capsys):
        beam = {"decode": "beam", "beam_width": 3, "n_best": 0}
        runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", decoding=beam), make_run(tmp_path / "c")]
        assert "decoded differently" not in compared(capsys, f"{runs[0]},{runs[2]}")
        said = compared(capsys, f"one={runs[0]},two|={runs[1]}")
        assert "one: greedy; two|: decode beam, beam_width 3" in said and "two\\|" in said

    def test_cells_of_no_number_are_absent(self, tmp_path):
        for name in "ab":
            make_run(tmp_path / name, metrics={"CIDEr": float("nan"), "SPICE": None})
        rows = rows_of(f"a={tmp_path / 'a'},b={tmp_path / 'b'}")
        columns = {name: COLUMNS[name] for name in ("CIDEr", "SPICE")}
        assert all(cell.mean is None for cell in cells(rows, columns)["a"].values())

    def test_test_counts_where_all_were_scored_on_it(self, tmp_path, capsys):
        runs = [make_run(tmp_path / name) for name in ("r_0", "r_1")]
        for run in runs:
            shutil.copytree(run / "results" / "val", run / "results" / "test")
            (run / "results" / "test" / "pg.metrics.json").write_text('{"CIDEr": 0.25}')
        names = f"{runs[0]},{runs[1]}"
        said = compared(capsys, names)
        assert "Scores on test" in said and table_of(said)["r"]["CIDEr"] == "0.250 ± 0.000"
        assert table_of(compared(capsys, names, "--split=val"))["r"]["CIDEr"] == "0.500 ± 0.000"
        shutil.rmtree(runs[0] / "results" / "test")
        assert "Scores on validation" in compared(capsys, names)
        assert "r_0 was not scored on test; run --mode=evaluate --split=test" in failed(capsys, names, "--split=test")


class TestCourse:
    def test_the_best_within_seconds_counts_the_warm_up(self, tmp_path, capsys):
        # make_run's baseline takes 30 seconds, which come before the stage's own 10 a step.
        histories = [[row(s, CIDEr=v, SPICE=0.1) for s, v in enumerate(vs, 1)] for vs in ((3, 1, 4), (5, 3, 2))]
        runs = [make_run(tmp_path / f"pg_{i}", history=h, seconds=30.0) for i, h in enumerate(histories)]
        history = [row(1, "scst"), row(9, "scst", CIDEr=2.5)]
        lone = make_run(tmp_path / "lone", stage="scst", history=history, seconds=0.0)
        said = compared(capsys, f"{runs[0]},{runs[1]},{lone}", "--within=39,40,59.9,60")
        table = table_of(said.split("while training:")[1])
        assert list(table["pg"]) == [
            *("", "seeds", "CIDEr within 39 s", "CIDEr within 40 s", "CIDEr within 59.9 s", "CIDEr within 60 s"),
            *("best", "last", "worst", "warm-up, s"),
        ]
        assert list(table["pg"].values()) == [
            *("pg", "2", "—", "4.000 ± 1.414", "4.000 ± 1.414", "4.500 ± 0.707"),
            *("**4.500** ± 0.707", "**3.000** ± 1.414", "1.500 ± 0.707", "30 ± 0"),
        ]
        assert list(table["lone"].values()) == ["lone", "1", *["—"] * 4, "2.500", "2.500", "**2.500**", "0"]

    @pytest.mark.parametrize("text", ["a", "0", "-1", "60,nan", ",", "inf"])
    def test_seconds_that_are_none(self, capsys, text):
        message = failed(capsys, "a,b", f"--within={text}")
        assert "seconds above 0 separated by commas, such as 120,240" in message

    def test_runs_without_the_metric(self, tmp_path, capsys):
        runs = [make_run(tmp_path / name, history=[row(1, CIDEr=1.0)]) for name in "ab"]
        message = failed(capsys, f"{runs[0]},{runs[1]}", "--within=60", "--curve_metric=SPICE")
        assert "has no validations of stage pg with SPICE" in message


def test_a_validation_that_is_not_a_number_counts_as_none(tmp_path, capsys):
    history = [row(1, CIDEr=float("nan")), row(2, CIDEr=0.2), row(3, CIDEr=float("nan"))]
    runs = [make_run(tmp_path / name, history=history) for name in "ab"]
    said = compared(capsys, f"{runs[0]},{runs[1]}", "--within=1000")
    table = table_of(said[said.index("CIDEr while training") :])
    ends = ("best", "last", "worst")
    assert [{of[name] for name in ends} for of in table.values()] == [{"0.200 ± 0.000"}]


STAGE = {"name": "pg", "moves_policy": True, "seconds": 1, "best_step": 1}


class TestUnfinished:
    def test_what_is_there_is_shown_and_told(self, tmp_path, capsys):
        whole = make_run(tmp_path / "pg_0", metrics={"CIDEr": 0.6})
        history = [row(1, "mle", CIDEr=0.4, seconds=20.0), row(2, "mle", CIDEr=0.45)]
        part = make_unfinished(tmp_path / "pg_1", history, seed=1)
        said = compared(capsys, f"{whole},{part}")
        table = table_of(said)
        assert list(table) == ["pg_0", "pg_1 (unfinished)"]
        shown = table["pg_1 (unfinished)"]
        assert (shown["CIDEr"], shown["bad endings, %"], shown["best epoch"]) == ("0.450", "—", "0.50")
        assert f"{part} is unfinished, mle at step 5; its scores are of the best validation while training" in said

    def test_a_stage_that_is_trained_is_told_as_not_evaluated(self, tmp_path, capsys):
        stage = FinishedStage("mle", True, images_seen=9, seconds=60.0, steps=2, best_step=1)
        part = make_unfinished(tmp_path / "b", [row(1, "mle", CIDEr=0.4)], finished=[stage], stages="mle:1")
        said = compared(capsys, f"{make_run(tmp_path / 'a')},{part}")
        assert f"{part} is trained, but not evaluated yet" in said
        assert table_of(said)["b (unfinished)"]["minutes"] == "1.0"

    def test_before_the_first_validation(self, tmp_path, capsys):
        part = make_unfinished(tmp_path / "b", [])
        said = compared(capsys, f"{make_run(tmp_path / 'a')},{part}", f"--output={tmp_path / 'c.html'}")
        assert f"{part} is unfinished, mle at step 5, without a validation yet; it has no scores, and it has no" in said
        assert table_of(said)["b (unfinished)"]["CIDEr"] == "—"

    def test_a_validation_is_no_score_on_the_test_split(self, tmp_path, capsys):
        done = make_run(tmp_path / "a")
        (done / "results" / "val").rename(done / "results" / "test")
        part = make_unfinished(tmp_path / "b", [row(2, "mle", CIDEr=0.9)])
        said = compared(capsys, f"{done},{part}")
        assert said.startswith("Scores on test:")
        assert table_of(said)["b (unfinished)"]["CIDEr"] == "—"
        assert f"{part} is unfinished, mle at step 5; it has no scores, and it has no captions to show" in said

    def test_all_may_be_unfinished(self, tmp_path, capsys):
        parts = [make_unfinished(tmp_path / f"b_{i}", [row(2, "mle", CIDEr=0.5)], seed=i) for i in range(2)]
        said = compared(capsys, f"{parts[0]},{parts[1]}", f"--output={tmp_path / 'c.html'}")
        assert table_of(said)["b (unfinished)"]["CIDEr"] == "0.500 ± 0.000"

    def test_before_the_first_checkpoint(self, tmp_path, capsys):
        part = make_unfinished(tmp_path / "b", [])
        shutil.rmtree(part / "checkpoints")
        assert f"{part} has trained nothing yet" in failed(capsys, f"{make_run(tmp_path / 'a')},{part}")


class TestMistakes:
    @pytest.mark.parametrize(
        ("runs", "message"),
        [
            ("", "names 0 of the two or more runs to compare"),
            ("{run}", "names 1 of the two or more runs"),
            ("{run},{run}", "twice; name each run once"),
            ("{run},a={run}/", "twice; name each run once"),
            ("{run},{run}:pg", "names stage pg of {run} twice; name each once"),
            ("{run},x\0y", "holds a zero byte"),
            ("{run},{run}/loop", "holds no run"),
            ("{run},{run}/none", "none holds no run (there is no such folder)"),
            ("{run},{run}/results", "results holds no run (no config.json)"),
            ("{run},{run}:scst", "has no stage scst that trains the captioner and was validated; there are: mle, pg"),
            ("{run},{run}:baseline", "has no stage baseline"),
            ("{run},{other}", "of which 2 are the same); compare runs of one val split"),
        ],
    )
    def test_runs_that_cannot_serve(self, tmp_path, capsys, runs, message):
        places = {"run": make_run(tmp_path / "run"), "other": make_run(tmp_path / "other", ids=(7, 3, 6))}
        (places["run"] / "loop").symlink_to(places["run"] / "loop")
        assert message.format(**places) in failed(capsys, runs.format(**places))

    def test_other_references_are_told(self, tmp_path, capsys):
        runs = [make_run(tmp_path / name) for name in "ab"]
        for run in runs:
            (run / "data.json").write_text(json.dumps({"train": "0", "val": run.name}))
        said = compared(capsys, f"{runs[0]},{runs[1]}")
        assert f"{runs[1]} has other captions or images of val than {runs[0]}" in said and "of test" not in said

    def test_other_references_of_the_test_split_are_told(self, tmp_path, capsys):
        runs = [make_run(tmp_path / name) for name in "ab"]
        for run in runs:
            (run / "results" / "val").rename(run / "results" / "test")
            (run / "data.json").write_text(json.dumps({"val": "0", "test": run.name}))
        said = compared(capsys, f"{runs[0]},{runs[1]}")
        assert f"{runs[1]} has other captions or images of test than {runs[0]}" in said and "of val" not in said

    @pytest.mark.parametrize("output", ["a/config.json", "a/results/val/pg.json", "b/new/page.html", "images/7.jpg"])
    def test_what_is_read_is_not_replaced(self, tmp_path, capsys, output):
        runs = [make_run(tmp_path / name) for name in "ab"]
        (tmp_path / "images").mkdir()
        references = references_file(tmp_path / "r.json")
        flags = (f"--images={tmp_path / 'images'}", f"--references={references}", f"--output={tmp_path / output}")
        before = (runs[0] / "config.json").read_text()
        assert "which is only read; name a file elsewhere" in failed(capsys, f"{runs[0]},{runs[1]}", *flags)
        assert (runs[0] / "config.json").read_text() == before and not (runs[1] / "new").exists()

    def test_runs_of_one_seed_are_told(self, tmp_path, capsys):
        runs = [make_run(tmp_path / f"pg_{i}") for i in range(2)]
        assert "pg: runs of the same seed count as several" in compared(capsys, f"{runs[0]},{runs[1]}")

    @pytest.mark.parametrize(
        ("file", "content", "message"),
        [
            ("summary.json", "{}", "has no list 'stages'"),
            ("summary.json", "[", "is not JSON"),
            ("summary.json", '{"stages": [{"name": "pg"}]}', "'moves_policy' of stages[0] is missing"),
            ("results/val/pg.json", "[]", "holds no captions"),
            ("results/val/pg.json", '[{"image_id": 1}]', "'caption' of results[0] is missing"),
            ("results/val/pg.metrics.json", '{"CIDEr": "high"}', "holds no scores"),
            ("config.json", "{}", "was written by another version"),
            ("summary.json", json.dumps({"decoding": ["x"], "stages": [STAGE]}), "is damaged (decoding is ['x'])"),
            ("results/val/pg.metrics.json", f'{{"CIDEr": {10**400}}}', "holds no scores"),
            ("checkpoints/ckpt-1/progress.json", "nothing", "is damaged: progress.json is damaged or was changed"),
        ],
    )
    def test_files_gone_wrong(self, tmp_path, capsys, file, content, message):
        runs = [make_run(tmp_path / name) for name in "ab"]
        (runs[0] / file).write_text(content)
        assert message in failed(capsys, f"{runs[0]},{runs[1]}")

    @pytest.mark.parametrize(("name", "value"), [("max_length", "six"), ("warm_start", 5), ("best_metric", ["x"])])
    def test_settings_of_another_kind(self, tmp_path, capsys, name, value):
        runs = [make_run(tmp_path / name) for name in "ab"]
        config = json.loads((runs[0] / "config.json").read_text())
        (runs[0] / "config.json").write_text(json.dumps(config | {name: value}))
        assert f"config.json is damaged ({name} is {value!r})" in failed(capsys, f"{runs[0]},{runs[1]}")

    def test_a_validation_that_is_no_number(self, tmp_path, capsys):
        runs = [make_run(tmp_path / name, history=[row(1, CIDEr=0.1)]) for name in "ab"]
        (checkpoint,) = (runs[0] / "checkpoints").iterdir()
        content = json.loads((checkpoint / "progress.json").read_text())
        content["history"][0]["CIDEr"] = "high"
        (checkpoint / "progress.json").write_text(json.dumps(content))
        record(checkpoint, ["progress.json"])
        assert "CIDEr is no number" in failed(capsys, f"{runs[0]},{runs[1]}")

    def test_flags_are_checked_before_anything_is_read(self, tmp_path, capsys):
        assert "did you mean CIDEr?" in failed(capsys, "a,b", "--curve_metric=cider")
        (tmp_path / "file").write_text("")
        for path, message in ((tmp_path, "is a folder"), (tmp_path / "file" / "x", "cannot be written")):
            assert f"--output={path} {message}" in failed(capsys, "a,b", f"--output={path}")
        assert "is an input file" in failed(
            capsys, "a,b", f"--output={tmp_path / 'file'}", f"--references={tmp_path / 'file'}"
        )
        assert "--images needs --references too" in failed(capsys, "a,b", f"--images={tmp_path}")
        assert "--workdir is not read by --mode=compare" in failed(capsys, "a,b", "--workdir=x")

    def test_so_do_the_commands_on_spice_fast(self, tmp_path, capsys):
        (tmp_path / "file").write_text("")
        bad = tmp_path / "file" / "x"
        assert spice_gap.main(["--workdirs=none", f"--output={bad}"]) == 1
        assert capsys.readouterr().err.startswith(f"error: --output={bad} cannot be written")
        assert spice_fast.main(["--references=none", "--results=none", f"--json={bad}"]) == 1
        assert capsys.readouterr().err.startswith(f"error: --json={bad} cannot be written")
        assert spice_fast.main(["--references=none", "--results=none", "--json=none"]) == 1
        assert "--json=none is an input file" in capsys.readouterr().err


def test_tensorflow_is_not_imported(tmp_path):
    names = f"{make_run(tmp_path / 'a')},{make_unfinished(tmp_path / 'b', [row(1, 'mle', CIDEr=0.5)])}"
    script = (
        "import sys, spidercap.pipeline.main\n"
        f"words = ['main', '--mode=compare', '--workdirs={names}', '--output={tmp_path / 'c.html'}']\n"
        "code = spidercap.pipeline.main.main(words)\n"
        "slow = {'tensorflow', 'keras', 'tensorflow_datasets', 'jpype'} & set(sys.modules)\n"
        "sys.exit(f'imported {slow}' if slow else code)"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "") and (tmp_path / "c.html").exists()
