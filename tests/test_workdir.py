"""The workdir at the door: damaged, foreign, linked, read-only and strangely named ones."""

import errno
import json
import os
import pathlib
import signal

import numpy as np
import pytest

from spidercap.pipeline import digests, main
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.metrics.document_frequencies import load_document_frequencies
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.settings.flags import parse
from spidercap.pipeline.text.vocabulary import Vocabulary
from spidercap.pipeline.training import identity, kept, workdir
from tests.tiny_runs import VOCABULARY, make_arrays

MODES = ("prepare", "train", "evaluate", "caption", "export")


@pytest.fixture
def prepared(tmp_path):
    """A workdir as `prepare` leaves it; its encoder is a few bytes."""
    config = Config.of(workdir=str(tmp_path / "run"), mode="prepare", units=8)
    folder = config.workdir_path()
    folder.mkdir()
    (folder / "config.json").write_text(config.to_json())
    (folder / "vocabulary.json").write_text(VOCABULARY.to_json())
    for name in ("data.json", "images.npz", "encoder.txt", "encoder.keras"):
        (folder / name).write_text(f"{name} of the run")
    digests.record(folder, (*identity.IDENTITY, identity.ENCODER))
    return config


def opened(config, mode):
    more = {"images": "a.jpg"} if mode == "caption" else {}
    with workdir.open_workdir(config.with_values(mode=mode, **more)):
        pass


@pytest.mark.parametrize("name", identity.IDENTITY)
@pytest.mark.parametrize("damage", ["changed", "empty", "lost"])
def test_a_damaged_file_of_a_prepared_run_is_named(prepared, name, damage):
    """Even one that is still readable: another max_length, swapped words, another network."""
    path = prepared.workdir_path() / name
    text = path.read_text()
    if damage == "lost":
        path.unlink()
    else:
        path.write_text(text.replace("20", "21").replace('"a"', '"b"') + " " if damage == "changed" else "")
    what = "is lost" if damage == "lost" else "is damaged or was changed"
    (prepared.workdir_path() / "kept").mkdir()
    for mode in MODES:
        with pytest.raises(UserError, match=f"{name} {what}; restore it from a copy, or name a new --workdir"):
            opened(prepared, mode)


def test_a_damaged_digest_is_told_as_what_it_may_be(prepared):
    """The file and its digest do not match: nothing tells which of the two was changed."""
    path = prepared.workdir_path() / "digests.json"
    kept = json.loads(path.read_text())
    changed = kept["data.json"].translate(str.maketrans("0123456789abcdef", "123456789abcdef0"))
    path.write_text(json.dumps(kept | {"data.json": changed}))
    (prepared.workdir_path() / "kept").mkdir()
    with pytest.raises(UserError, match=r"data.json is damaged .* \(if it is sound, .*/digests.json is not\)"):
        opened(prepared, "evaluate")


@pytest.mark.parametrize("content", [None, "", "{}", "[1]"])
def test_lost_digests_are_told(prepared, content):
    path = prepared.workdir_path() / "digests.json"
    (prepared.workdir_path() / "checkpoints").mkdir()
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=r"digests.json is (lost|damaged)"):
        opened(prepared, "train")


def test_a_start_that_failed_may_leave_anything(prepared):
    """Before the data are prepared, nothing in a workdir is read."""
    folder = prepared.workdir_path()
    (folder / "digests.json").unlink()
    for name in identity.IDENTITY:
        (folder / name).write_text("")
    opened(prepared, "train")
    assert (folder / "config.json").read_text() == prepared.to_json()


def test_damaged_document_frequencies_are_counted_again(prepared, capsys):
    arrays, vocabulary = make_arrays(), Vocabulary(tuple("abcdefghijkl"), ())
    whole = kept.kept_frequencies(prepared, arrays.references, vocabulary)
    path = prepared.workdir_path() / "document_frequencies.npz"
    assert not capsys.readouterr().err
    saved = dict(np.load(path))
    np.savez(path, **saved | {"counts1": saved["counts1"] + 1})
    again = kept.kept_frequencies(prepared, arrays.references, vocabulary)
    assert "is damaged or was changed; the document frequencies are counted again" in capsys.readouterr().err
    for frequencies in (again, load_document_frequencies(path)):
        np.testing.assert_array_equal(frequencies.counts[0], whole.counts[0])
    opened(prepared, "train")


def test_a_lock_that_is_a_link_is_not_followed(prepared, tmp_path):
    (tmp_path / "precious").write_text("precious")
    (prepared.workdir_path() / ".lock").symlink_to(tmp_path / "precious")
    for mode in MODES:
        with pytest.raises(UserError, match=r"\.lock is a link; delete it"):
            opened(prepared, mode)
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("flag", ["workdir", "cache_dir", "export_dir"])
@pytest.mark.parametrize("name", ["exp[1]", "a\\b", "what?", "*", "a\udcff"])
def test_paths_that_tensorflow_cannot_read_are_refused(prepared, tmp_path, flag, name):
    config = prepared.with_values(**{flag: str(tmp_path / name / "run")})
    with pytest.raises(UserError, match=f"--{flag}=.*name another folder"):
        opened(config, "train")
    assert os.listdir(tmp_path) == ["run"]


def test_left_overs_are_swept_at_the_next_start(prepared):
    folder = prepared.workdir_path()
    names = ["export", "checkpoints", "kept/mle", "results/val", "../cache/features/x/view0", "."]
    dead = [folder / name / ".writing-nowhere-1-a" for name in names]
    for path in dead:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir()
        os.utime(path, (0, 0))
    opened(prepared, "evaluate" if (folder / "kept" / "mle" / "ckpt-1").exists() else "train")
    assert not [path for path in dead if path.exists()]


def read_only(monkeypatch, folder):
    """Makes the folder look like one of a disk that is mounted for reading."""
    may, opens = os.access, os.open
    monkeypatch.setattr(os, "access", lambda path, mode: not (mode & os.W_OK) and may(path, mode))

    def refuse(path, flags, *more, **named):
        if flags & (os.O_CREAT | os.O_RDWR | os.O_WRONLY) and str(path).startswith(str(folder)):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return opens(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", refuse)


def test_a_workdir_that_is_read_only_serves_to_caption(prepared, monkeypatch):
    read_only(monkeypatch, prepared.workdir_path())
    opened(prepared, "caption")
    with pytest.raises(UserError, match="has kept no weights"):  # it came as far as that
        opened(prepared, "evaluate")
    with pytest.raises(UserError, match="is not writable"):
        opened(prepared, "train")


# The command line


@pytest.mark.parametrize(
    "words",
    [
        "caption --workdir=W --images=a.jpg --metrics=cider",
        "train --workdir=W --references=r.json",
        "evaluate --workdir=W --results=r.json",
        "export --workdir=W --images=a.jpg",
        "evaluate --workdir=W --log_every=3",
        "score --references=r --results=s --decode=beam",
        "score --references=r --results=s --units=3",
        "score --references=r --results=s --workdir=W",
        "caption --workdir=W --images=a.jpg --jit",
    ],
)
def test_flags_that_a_mode_does_not_read_are_refused(prepared, words):
    mode, *flags = words.replace("=W", f"={prepared.run.workdir}").split()
    with pytest.raises(UserError, match=rf"{flags[-1].split('=')[0]} is not read by --mode={mode}, but by "):
        parse(["main", f"--mode={mode}", *flags])


def test_flagfiles_may_serve_several_modes(prepared, tmp_path):
    (tmp_path / "a.flags").write_text("--log_every=3\n--units=8\n")
    config = parse(["main", "--mode=export", f"--workdir={prepared.run.workdir}", f"--flagfile={tmp_path / 'a.flags'}"])
    assert config.run.log_every == 3


def test_a_workdir_of_somebody_else_chooses_no_folder_to_write_to(prepared, tmp_path, capsys):
    theirs = prepared.with_values(export_dir="/etc/a", cache_dir="/etc/b", corenlp="/etc/c", metric_cache_dir="/etc/d")
    (prepared.workdir_path() / "config.json").write_text(theirs.to_json())
    for mode, told in (
        ("export", ["export_dir"]),
        ("evaluate", ["cache_dir", "metric_cache_dir", "corenlp"]),
        ("caption", ["export_dir"]),
    ):
        words = ["main", f"--mode={mode}", f"--workdir={prepared.run.workdir}"]
        config = parse(words + ["--images=a.jpg"] * (mode == "caption"))
        assert config.export_path() == prepared.export_path() and config.cache_path() == prepared.cache_path()
        assert (config.metrics.corenlp, config.metrics.metric_cache_dir) == ("", "")
        lines = capsys.readouterr().err.splitlines()
        assert [line.split("=")[0] for line in lines] == [f"--{name}" for name in told]
        assert all("is not taken over; give it again" in line for line in lines)
    words = ["main", "--mode=export", f"--workdir={prepared.run.workdir}", f"--export_dir={tmp_path}"]
    assert parse(words).export_path() == tmp_path
    assert not capsys.readouterr().err


def test_flagfiles_that_never_end_are_refused(tmp_path, capsys):
    (tmp_path / "loop.flags").symlink_to(tmp_path / "loop.flags")
    for k in range(990):
        (tmp_path / f"{k}.flags").write_text(f"--flagfile={tmp_path / f'{k + 1}.flags'}\n")
    for name, told in (("loop", "cannot be read"), ("0", "allowed: 20")):
        assert main.main(["main", f"--flagfile={tmp_path / name}.flags"]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: flagfile ") and told in line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_outside_of_training_ends_with_a_line(monkeypatch, capsys, request, number):
    monkeypatch.setattr(main, "score_files", lambda config: os.kill(os.getpid(), number))
    if number == signal.SIGINT:  # ignored where tests run in the background
        before_test = signal.signal(number, signal.default_int_handler)
        request.addfinalizer(lambda: signal.signal(number, before_test))
    before = signal.getsignal(number)
    assert main.main(["main", "--mode=score", "--references=a", "--results=b"]) == 130
    assert capsys.readouterr().err == "stopped. The same command resumes from what was last saved.\n"
    assert signal.getsignal(number) == before


def test_control_characters_do_not_reach_the_terminal(capsys):
    assert main.main(["main", "--mode=score", "--references=a\x1b[31m\x07", "--results=b"]) == 1
    assert "\x1b" not in capsys.readouterr().err


def test_a_path_that_is_gone_while_running_is_one_line(prepared, capsys):
    with pytest.raises(UserError, match="cannot be written"):
        identity.keep_identity(prepared.with_values(workdir="/proc/nowhere/run"), "vocabulary.json", "x")
    assert pathlib.Path(prepared.run.workdir).exists()
