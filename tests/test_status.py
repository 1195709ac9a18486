"""--mode=status: where a run stands, at every point of its life, told by its folder alone."""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import subprocess
import sys

import pytest

from spidercap.pipeline import digests
from spidercap.pipeline.main import main
from spidercap.pipeline.report import status as module
from spidercap.pipeline.report.stage_status import StageStatus, seconds_left
from spidercap.pipeline.training.progress import Progress, read_progress
from spidercap.pipeline.training.run_files import checkpoint_folder
from tests.conftest import ROOT
from tests.tiny_runs import IMAGES, config_of, make_arrays, run

SIZES = {"train": {"images": IMAGES, "captions": IMAGES * 2}, "val": {"images": IMAGES, "captions": IMAGES * 2}}
# Of the tiny run of mle:3,baseline:1,pg:2 by batches of 7.
PLANNED = {"mle": 21, "baseline": 3, "pg": 7}
WHOLE, KILLED = "whole", "killed"


def prepared(folder):
    """Returns the Config of a tiny run, and makes its folder as preparation leaves it, as far as is read."""
    config = config_of(folder)
    folder.mkdir()
    (folder / "config.json").write_text(config.to_json())
    (folder / "splits.json").write_text(json.dumps(SIZES))
    (folder / "encoder.txt").write_text("given 5\n")
    digests.record(folder, ["encoder.txt"])
    return config


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of a run, and what a kill at its third validation would have left of it."""
    config = prepared(tmp_path_factory.mktemp("status") / "run")
    folder, killed = config.workdir_path(), tmp_path_factory.mktemp("killed") / "run"
    run(config, make_arrays(), stop_at=3, stop=lambda: shutil.copytree(folder, killed))
    return {WHOLE: folder, KILLED: killed}


@pytest.fixture
def copied(runs, tmp_path):
    def copy(name):
        return shutil.copytree(runs[name], tmp_path / "run")

    return copy


@pytest.fixture
def told(capsys):
    """Runs the command on a folder; returns its JSON and its text."""

    def tell(folder, code=0):
        found = []
        for more in (["--json"], []):
            assert main(["main", "--mode=status", f"--workdir={folder}", *more]) == code
            found.append(capsys.readouterr())
        as_json, text = found
        return json.loads(as_json.out), text.out

    return tell


def refused(folder, capsys):
    """What is told, in one line, with or without --json."""
    lines = set()
    for more in ([], ["--json"]):
        assert main(["main", "--mode=status", f"--workdir={folder}", *more]) == 1
        out, error = capsys.readouterr()
        assert (out, error.count("\n"), error[:7]) == ("", 1, "error: ")
        lines.add(error)
    assert len(lines) == 1
    return lines.pop()


def progress_of(folder, number=-1):
    paths = sorted(checkpoint_folder(folder).iterdir(), key=lambda path: int(path.name[5:]))
    return paths[number], read_progress(paths[number])


def rewrite(path, progress):
    """Replaces the progress of a checkpoint, as if the run had written it so."""
    (path / "progress.json").write_text(progress.to_json())
    digests.record(path, ["progress.json"])


@contextlib.contextmanager
def used(folder):
    """Locks the folder as a run does."""
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    yield
    os.close(handle)


def test_in_the_middle_of_a_stage(runs, told):
    status, text = told(runs[KILLED])
    path, progress = progress_of(runs[KILLED])
    assert (progress.stage, status["state"], status["stage"], status["stage_number"]) == (0, "unfinished", "mle", 1)
    stage = status["stages"][0]
    assert 0 < stage["steps"] == progress.step < 21
    assert [of["state"] for of in status["stages"]] == ["current", "planned", "planned"]
    assert {of["label"]: of["planned_steps"] for of in status["stages"]} == PLANNED
    assert stage["images_seen"] == status["images_seen"] == progress.step * 7
    assert stage["epoch"] == pytest.approx(progress.step * 7 / (IMAGES * 2))
    assert status["rate"] == pytest.approx(progress.step * 7 / progress.seconds)
    assert status["seconds_left"]["stage"] == pytest.approx(progress.seconds / progress.step * (21 - progress.step))
    assert status["seconds_left"]["run"] is None  # nothing is known of the pace of other stages
    assert status["checkpoint"]["path"] == str(path) and status["checkpoint"]["age"] >= 0
    assert stage["latest"] == dataclasses.asdict(progress.history[-1])
    assert stage["best"]["step"] == progress.best_step
    for shown in (
        *("stopped; the same command resumes", "mle, 1 of 3", f"{progress.step} of 21 (", "captions a second"),
        *("not known yet for the 2 after it", str(path), f"mle step {progress.step} ", "by CIDEr and the latest:"),
    ):
        assert shown in text
    assert (status["report"], status["export"], status["scores"]) == (None, None, {})


def test_between_two_stages(copied, told):
    """The checkpoint that ends mle is made the newest one."""
    folder = copied(WHOLE)
    path, progress = progress_of(folder)
    first = progress.finished[0]
    rows = [row for row in progress.history if row.stage == "mle"]
    rewrite(path, Progress(stage=1, history=rows, finished=[first]))
    status, text = told(folder)
    assert [of["state"] for of in status["stages"]] == ["finished", "current", "planned"]
    assert (status["stage"], status["rate"], status["seconds_left"]) == ("baseline", None, None)
    assert (status["images_seen"], status["captions_scored"]) == (first.images_seen, 0)
    assert "baseline, 2 of 3" in text and "0 of 3 (0%)" in text and "time left" not in text
    assert f"mle step {first.best_step} " in text


def test_the_steps_that_are_planned_are_those_that_are_taken(runs, told):
    status, text = told(runs[WHOLE])
    assert {of["label"]: of["steps"] for of in status["stages"]} == PLANNED
    assert {of["label"]: of["planned_steps"] for of in status["stages"]} == PLANNED
    assert (status["state"], status["stage"], status["stage_number"]) == ("trained", None, None)
    _, progress = progress_of(runs[WHOLE])
    assert status["captions_scored"] == sum(stage.captions_scored for stage in progress.finished) > 0
    assert status["stages"][1]["best"] is None  # the baseline is not validated
    assert "not evaluated and exported; the same command goes on" in text
    assert "by CIDEr:" in text and "baseline step" not in text


def test_a_finished_run_names_its_report_and_model(copied, told):
    folder = copied(WHOLE)
    labels = list(PLANNED)
    scores = {label: {"CIDEr": 0.25 * k, "SPICE Object": 0.9} for k, label in enumerate(labels)}
    content = {"stages": [{"name": label} for label in labels], "splits": {"test": {"images": 5, "metrics": scores}}}
    (folder / "summary.json").write_text(json.dumps(content))
    for version in ("2", "10"):
        (folder / "export" / version).mkdir(parents=True)
        (folder / "export" / version / "saved_model.pb").touch()
    status, text = told(folder)
    assert (status["state"], status["scores"]) == ("finished", {"test": scores})
    assert (status["report"], status["export"]) == (str(folder / "report.html"), str(folder / "export" / "10"))
    for shown in (f"{folder}: finished\n", f"{folder}/report.html\n", f"{folder}/export/10\n", "on test", "0.500"):
        assert shown in text
    assert "Object" not in text
    shutil.rmtree(folder / "export")
    assert told(folder)[0]["state"] == "trained"


def test_an_evaluation_before_the_end_does_not_finish_a_run(copied, told, capsys):
    folder = copied(KILLED)
    (folder / "summary.json").write_text(json.dumps({"stages": [{"name": "mle"}]}))
    status, _ = told(folder)
    assert (status["state"], status["report"]) == ("unfinished", None)
    (folder / "summary.json").write_text("{")
    assert "summary.json cannot be read" in refused(folder, capsys)


def test_without_a_checkpoint(tmp_path, told):
    config = prepared(tmp_path / "run")
    status, text = told(config.workdir_path())
    assert (status["state"], status["checkpoint"], status["stage"]) == ("prepared", None, None)
    assert {of["state"] for of in status["stages"]} == {"planned"} and "nothing is trained yet" in text
    with used(config.workdir_path()):
        assert "there is no checkpoint yet; a process uses" in told(config.workdir_path())[1]
    (config.workdir_path() / "digests.json").unlink()
    status, text = told(config.workdir_path())
    assert status["state"] == "begun" and "its data are not prepared" in text


def test_a_process_that_uses_the_folder_is_told_of(copied, told):
    folder = copied(KILLED)
    assert told(folder)[0]["in_use"] is False
    with used(folder):
        status, text = told(folder)
        assert status["in_use"] is True and "in training; a process uses its folder now" in text
    (folder / ".lock").unlink(missing_ok=True)
    (folder / ".lock").symlink_to(folder / "config.json")
    status, text = told(folder)
    assert status["in_use"] is None and "cannot be told" in text


def test_nothing_is_written_and_the_lock_is_free_again(copied, told):
    folder = copied(KILLED)
    (folder / ".writing-elsewhere-1-x").touch()
    seen = {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}
    told(folder)
    assert {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]} == seen
    with used(folder):
        pass


@pytest.mark.parametrize("damage", ["progress.json", "digests.json"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(copied, told, capsys, damage):
    folder = copied(KILLED)
    newest, _ = progress_of(folder)
    before, progress = progress_of(folder, -2)
    (newest / damage).write_text("{")
    status, _ = told(folder)
    assert status["checkpoint"]["path"] == str(before)
    current = next(of for of in status["stages"] if of["state"] == "current")
    assert current["steps"] == progress.step
    main(["main", "--mode=status", f"--workdir={folder}"])
    assert f"{newest} is damaged" in capsys.readouterr().err
    (before / damage).write_text("{")
    assert "is damaged" in (error := refused(folder, capsys)) and "no other checkpoint is whole" in error


def test_a_checkpoint_that_goes_while_it_is_read(copied, told, monkeypatch):
    """The run has written two more meanwhile."""
    folder = copied(KILLED)
    path, _ = progress_of(folder)
    read = module.newest_checkpoint

    def slow(parent, tell):
        found = read(parent, tell)
        if found == path:
            shutil.copytree(path, path.with_name("ckpt-99"))
            shutil.rmtree(path)
        return found

    monkeypatch.setattr(module, "newest_checkpoint", slow)
    assert told(folder)[0]["checkpoint"]["path"].endswith("ckpt-99")


def test_lost_checkpoints_are_told(copied, capsys):
    folder = copied(KILLED)
    shutil.rmtree(folder / "checkpoints")
    assert "has kept weights, but" in refused(folder, capsys)


def test_what_is_no_run_is_refused(tmp_path, capsys):
    assert f"{tmp_path / 'none'} holds no run (there is no such folder)" in refused(tmp_path / "none", capsys)
    assert f"{tmp_path} holds no run (no config.json)" in refused(tmp_path, capsys)
    (tmp_path / "config.json").write_text("[]")
    assert "holds no settings" in refused(tmp_path, capsys)
    assert main(["main", "--mode=status"]) == 1
    assert "no --workdir given" in capsys.readouterr().err
    assert main(["main", "--mode=train", "--workdir=w", "--json"]) == 1
    assert "--json is not read by --mode=train, but by status" in capsys.readouterr().err


def test_warnings_and_skipped_updates_are_told(copied, told):
    folder = copied(WHOLE)
    path, progress = progress_of(folder)
    first = dataclasses.replace(progress.finished[0], warnings=("step 3: too\x1b[31m red",), skipped_updates=2)
    rewrite(path, Progress(stage=1, step=2, seconds=1.0, skipped=1, warned={"a": "step 2: no\nend"}, finished=[first]))
    status, text = told(folder)
    assert [of["warnings"] for of in status["stages"]] == [["step 3: too\x1b[31m red"], ["step 2: no\nend"], []]
    assert [of["skipped_updates"] for of in status["stages"]] == [2, 1, 0]
    assert "warning: mle step 3: too\\x1b[31m red\n" in text and "warning: baseline step 2: no\\nend\n" in text
    assert "2 updates of mle, 1 update of baseline" in text


def test_sizes_that_are_not_known_leave_out_what_needs_them(copied, told):
    folder = copied(KILLED)
    (folder / "splits.json").write_text("")
    status, text = told(folder)
    _, progress = progress_of(folder)
    assert status["stages"][0]["planned_steps"] is None and status["seconds_left"] is None
    assert f"step:        {progress.step}\n" in text and status["rate"]


def test_the_time_left_is_known_if_the_pace_of_all_stages_is():
    def stage(kind, state, steps=0, planned=10, seconds=0.0):
        more = {"planned_epochs": 1.0, "unit": "image", "label": kind, "kind": kind}
        return StageStatus(state=state, steps=steps, planned_steps=planned, seconds=seconds, **more)

    done, now = stage("mle", "finished", 10, seconds=10.0), stage("pg", "current", 4, seconds=8.0)
    assert dataclasses.astuple(seconds_left([done, now])) == (12.0, 12.0)
    assert dataclasses.astuple(seconds_left([done, now, stage("mle", "planned")])) == (12.0, 22.0)
    assert dataclasses.astuple(seconds_left([done, now, stage("scst", "planned")])) == (12.0, None)
    assert seconds_left([done, stage("pg", "current")]) is None
    assert seconds_left([done]) is None


def test_rows_of_an_earlier_version_are_read(copied, told):
    """It did not store the captions that a finished stage had scored."""
    folder = copied(WHOLE)
    path, progress = progress_of(folder)
    content = json.loads(progress.to_json())
    for row in content["finished"]:
        del row["captions_scored"]
    (path / "progress.json").write_text(json.dumps(content))
    digests.record(path, ["progress.json"])
    status, text = told(folder)
    assert [of["captions_scored"] for of in status["stages"]][:2] == [0, None]
    assert status["captions_scored"] is None and status["stages"][2]["captions_scored"] > 0
    assert "captions scored" not in text


def test_progress_of_a_later_version_is_refused(copied, capsys):
    folder = copied(KILLED)
    path, progress = progress_of(folder)
    (path / "progress.json").write_text(json.dumps(json.loads(progress.to_json()) | {"hoops": 3}))
    digests.record(path, ["progress.json"])
    assert "was written by another version" in refused(folder, capsys)


def test_tensorflow_is_not_imported(runs):
    script = (
        "import sys, spidercap.pipeline.main\n"
        f"code = spidercap.pipeline.main.main(['main', '--mode=status', '--workdir={runs[KILLED]}', '--json'])\n"
        "slow = {'tensorflow', 'keras', 'tensorflow_datasets', 'jpype'} & set(sys.modules)\n"
        "sys.exit(f'imported {slow}' if slow else code)"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert json.loads(ran.stdout)["workdir"] == str(runs[KILLED])


def test_json_of_the_flagfile_of_training_is_not_taken_over(tmp_path, capsys):
    config = prepared(tmp_path / "run")
    saved = json.loads(config.to_json()) | {"json": True}
    (config.workdir_path() / "config.json").write_text(json.dumps(saved))
    assert main(["main", "--mode=status", f"--workdir={config.run.workdir}"]) == 0
    assert capsys.readouterr().out.startswith("run: ")
