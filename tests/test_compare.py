"""Runs side by side, on made-up workdirs whose numbers are known: the table, and what is refused."""

import json
import shutil
import statistics

import pytest

from benchmarks import compare, spice_fast, spice_gap
from benchmarks.compare_runs import read_rows
from benchmarks.compare_table import cells, chosen_columns
from tests.finished_runs import failed, make_run, row, table_of


class TestTable:
    def test_mean_and_spread_over_seeds(self, tmp_path, capsys):
        values = (0.4012, 0.4234, 0.4567)
        runs = [make_run(tmp_path / f"pg_{v}", metrics={"CIDEr": v}, seconds=v * 600) for v in values]
        one = make_run(tmp_path / "one", metrics={"CIDEr": 0.3})
        names = f"PG={','.join(map(str, runs))};one={one}"
        assert compare.main([f"--runs={names}", f"--json={tmp_path / 'out' / 't.json'}"]) == 0
        table = table_of(capsys.readouterr().out)
        mean, spread = statistics.mean(values), statistics.stdev(values)
        assert table["PG"]["CIDEr"] == f"**{mean:.3f}** ± {spread:.3f}" and table["PG"]["seeds"] == "3"
        assert table["one"]["CIDEr"] == "0.300" and table["one"]["seeds"] == "1"
        assert table["PG"]["minutes"] == f"{mean * 10:.1f} ± {spread * 10:.1f}"
        assert table["one"]["SPICE"] == "—" and "SPICE-fast" not in table["one"]
        written = json.loads((tmp_path / "out" / "t.json").read_text())
        assert [r["label"] for r in written] == ["PG", "one"] and written[0]["runs"][1]["workdir"] == str(runs[1])
        cell = written[0]["columns"]["CIDEr"]
        assert cell["values"] == list(values) and cell["spread"] == pytest.approx(spread)
        assert written[1]["columns"]["CIDEr"]["spread"] is None and written[1]["columns"]["SPICE"]["mean"] is None

    def test_a_mean_takes_all_seeds(self, tmp_path, capsys):
        runs = [make_run(tmp_path / "a", metrics={"SPICE": 0.1}), make_run(tmp_path / "b")]
        assert compare.main([f"--runs=PG={runs[0]},{runs[1]}"]) == 0
        assert table_of(capsys.readouterr().out)["PG"]["SPICE"] == "—"

    def test_the_best_is_bold_with_what_looks_the_same(self, tmp_path, capsys):
        runs = {v: make_run(tmp_path / str(v), metrics={"CIDEr": v}) for v in (0.3, 0.50001, 0.50002)}
        assert compare.main(["--runs=" + ";".join(f"{v}={run}" for v, run in runs.items())]) == 0
        table = table_of(capsys.readouterr().out)
        assert [table[str(v)]["CIDEr"] for v in runs] == ["0.300", "**0.500**", "**0.500**"]
        assert all("**" not in r["mean length"] for r in table.values())

    def test_captions_are_counted(self, tmp_path, capsys):
        ends = ("a dog with a", "one two three four five six", "a dog", "the")
        again = ("a b c a b c", "a a a a", "a b c a b", "")
        for name, captions in (("ends", ends), ("again", again)):
            make_run(tmp_path / name, captions, ids=(1, 2, 3, 4))
        runs = f"--runs=ends={tmp_path / 'ends'};again={tmp_path / 'again'}"
        assert compare.main([runs, "--columns=repeated trigrams, bad endings"]) == 0
        table = table_of(capsys.readouterr().out)
        assert list(table["ends"]) == ["", "seeds", "repeated trigrams, %", "bad endings, %"]
        assert table["ends"]["bad endings, %"] == "75.0" and table["ends"]["repeated trigrams, %"] == "0.0"
        # 'a a a a' contains 'a a a' twice, and ends in an article; the first has all six words.
        assert table["again"]["bad endings, %"] == "50.0" and table["again"]["repeated trigrams, %"] == "50.0"

    def test_the_last_stage_counts_unless_another_is_named(self, tmp_path, capsys):
        rows = [row(2, "mle", epoch=7.0), row(1), row(2), row(3)]
        run = make_run(tmp_path / "a", metrics={"CIDEr": 0.9}, history=rows)
        (run / "results" / "val" / "mle.metrics.json").write_text('{"CIDEr": 0.1}')
        (tmp_path / "rows.txt").write_text(f"# all\n\nlast={run}\nfirst = {run}:mle\n")
        assert compare.main([f"--runs=@{tmp_path / 'rows.txt'}"]) == 0
        table = table_of(capsys.readouterr().out)
        assert (table["last"]["CIDEr"], table["last"]["best epoch"]) == ("**0.900**", "0.50")
        assert (table["first"]["CIDEr"], table["first"]["best epoch"]) == ("0.100", "7.00")

    def test_a_workdir_without_checkpoints_serves(self, tmp_path, capsys):
        run = make_run(tmp_path / "a", history=[row(2)])
        shutil.rmtree(run / "checkpoints")
        assert compare.main([f"--runs=a={run}", "--columns=best epoch"]) == 0
        assert table_of(capsys.readouterr().out)["a"]["best epoch"] == "—"

    def test_other_ways_to_search_are_told(self, tmp_path, capsys):
        beam = {"decode": "beam", "beam_width": 3, "n_best": 0}
        runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", decoding=beam)]
        assert compare.main([f"--runs=one={runs[0]}"]) == 0
        assert "decoded differently" not in capsys.readouterr().out
        assert compare.main([f"--runs=one={runs[0]};two|={runs[1]}"]) == 0
        said = capsys.readouterr().out
        assert "one: greedy; two|: decode beam, beam_width 3" in said and "two\\|" in said

    def test_cells_of_no_number_are_absent(self, tmp_path):
        run = make_run(tmp_path / "a", metrics={"CIDEr": float("nan"), "SPICE": None})
        assert compare.main([f"--runs=a={run}", f"--json={tmp_path / 't.json'}"]) == 0
        rows = read_rows(f"a={run}")
        assert all(cell.mean is None for cell in cells(rows, chosen_columns("CIDEr,SPICE"))["a"].values())


class TestCourse:
    def test_the_best_within_seconds_counts_the_warm_up(self, tmp_path, capsys):
        # make_run's baseline takes 30 seconds, which come before the stage's own 10 a step.
        histories = [[row(s, CIDEr=v, SPICE=0.1) for s, v in enumerate(vs, 1)] for vs in ((3, 1, 4), (5, 3, 2))]
        runs = [make_run(tmp_path / str(i), history=h, seconds=30.0) for i, h in enumerate(histories)]
        lone = make_run(
            tmp_path / "lone", stage="scst", history=[row(1, "scst"), row(9, "scst", CIDEr=2.5)], seconds=0.0
        )
        start = make_run(tmp_path / "start")
        assert compare.main([f"--runs=MLE={start};PG={runs[0]},{runs[1]};lone={lone}", "--within=39,40,59.9,60"]) == 0
        table = table_of(capsys.readouterr().out.split("\n\n")[1])
        assert list(table["PG"]) == [
            *("", "seeds", "CIDEr within 39 s", "CIDEr within 40 s", "CIDEr within 59.9 s", "CIDEr within 60 s"),
            *("best", "last", "worst", "warm-up, s"),
        ]
        assert list(table["PG"].values()) == [
            *("PG", "2", "—", "4.000 ± 1.414", "4.000 ± 1.414", "4.500 ± 0.707"),
            *("**4.500** ± 0.707", "**3.000** ± 1.414", "1.500 ± 0.707", "30 ± 0"),
        ]
        assert list(table) == ["PG", "lone"]
        assert list(table["lone"].values()) == ["lone", "1", *["—"] * 4, "2.500", "2.500", "**2.500**", "0"]

    @pytest.mark.parametrize("text", ["a", "0", "-1", "60,nan", ",", "inf"])
    def test_seconds_that_are_none(self, tmp_path, capsys, text):
        message = failed(capsys, f"--runs=a={make_run(tmp_path / 'a')}", f"--within={text}")
        assert "seconds above 0 separated by commas, such as 120,240" in message

    def test_nothing_but_the_start(self, tmp_path, capsys):
        assert "--within: MLE, the start of the others, is the only label" in failed(
            capsys, f"--runs=MLE={make_run(tmp_path / 'a')}", "--within=1"
        )

    def test_runs_without_the_metric(self, tmp_path, capsys):
        run = make_run(tmp_path / "a", history=[row(1, CIDEr=1.0)])
        message = failed(capsys, f"--runs=a={run}", "--within=60", "--metric=SPICE")
        assert "has no validations of stage pg with SPICE" in message and "seeds" not in message


class TestMistakes:
    @pytest.mark.parametrize(
        ("runs", "message"),
        [
            ("", "names no runs"),
            ("a", "'a' is not label=workdir"),
            ("a=", "'a=' is not label=workdir"),
            ("a={run};a={run}", "a comes twice"),
            ("a={run},{run}:mle", "twice; name each workdir once"),
            ("a={run}/none", "none is not a folder"),
            ("a={run}/results", "has no summary.json; let its training finish"),
            ("a={run}:scst", "has not finished stage scst that trains the policy; finished are: mle, pg"),
            ("a={run}:baseline", "has not finished stage baseline"),
            ("@{run}/none", "cannot be read"),
            ("a={run};b={other}", "of which 2 are the same"),
        ],
    )
    def test_runs_that_cannot_serve(self, tmp_path, capsys, runs, message):
        places = {"run": make_run(tmp_path / "run"), "other": make_run(tmp_path / "other", ids=(7, 3, 6))}
        assert message in failed(capsys, f"--runs={runs.format(**places)}")

    @pytest.mark.parametrize(
        ("file", "content", "message"),
        [
            ("summary.json", "{}", "has no list 'stages'"),
            ("summary.json", "[", "is not JSON"),
            ("summary.json", '{"stages": []}', "has not finished a stage that trains the policy; finished are: none"),
            ("summary.json", '{"stages": [{"name": "pg"}]}', "'moves_policy' of stages[0] is missing"),
            ("results/val/pg.json", "[]", "holds no captions"),
            ("results/val/pg.json", '[{"image_id": 1}]', "'caption' of results[0] is missing"),
            ("results/val/pg.metrics.json", '{"CIDEr": "high"}', "holds no scores"),
            ("config.json", "{}", "was written by another version"),
            ("checkpoints/ckpt-1/progress.json", "nothing", "is damaged: progress.json is damaged or was changed"),
        ],
    )
    def test_files_gone_wrong(self, tmp_path, capsys, file, content, message):
        run = make_run(tmp_path / "run")
        (run / file).write_text(content)
        assert message in failed(capsys, f"--runs=a={run}")

    def test_unknown_column(self, tmp_path, capsys):
        error = failed(capsys, "--runs=a=none", "--columns=Cider")
        assert "--columns: unknown 'Cider' (did you mean CIDEr?)" in error

    def test_outputs_are_checked_before_anything_is_read(self, tmp_path, capsys):
        (tmp_path / "file").write_text("")
        for flag in compare.WRITTEN:
            for path, message in ((tmp_path, "is a folder"), (tmp_path / "file" / "x", "cannot be written")):
                assert f"--{flag}={path} {message}" in failed(capsys, "--runs=a=none", f"--{flag}={path}")

    def test_so_do_the_commands_on_spice_fast(self, tmp_path, capsys):
        (tmp_path / "file").write_text("")
        bad = tmp_path / "file" / "x"
        assert spice_gap.main(["--workdirs=none", f"--output={bad}"]) == 1
        assert capsys.readouterr().err.startswith(f"error: --output={bad} cannot be written")
        assert spice_fast.main(["--references=none", "--results=none", f"--json={bad}"]) == 1
        assert capsys.readouterr().err.startswith(f"error: --json={bad} cannot be written")
        assert spice_fast.main(["--references=none", "--results=none", "--json=none"]) == 1
        assert "--json=none is an input file" in capsys.readouterr().err
