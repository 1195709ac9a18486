"""What is on the disk is whole or not there, whenever the power is cut; what was damaged is never used silently."""

import os
import pathlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from spidercap.models.baseline import Baseline
from spidercap.models.captioners import CAPTIONERS
from spidercap.models.scene_parser import SceneParser, SceneParserSizes
from spidercap.pipeline import digests, files
from spidercap.pipeline.errors import Interrupted, UserError
from spidercap.pipeline.settings.config import stage_labels
from spidercap.pipeline.training.checkpoint_files import (
    checkpoint_fault,
    checkpoint_of,
    checkpoints,
    newest_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from spidercap.pipeline.training.kept import build_models, load_kept
from spidercap.pipeline.training.run_files import kept_folder
from tests.damage import flip
from tests.tiny_runs import VOCABULARY, assert_same_end, config_of, make_arrays, run


class PowerCut(BaseException):
    """No code handles it."""


def weights_of(value):
    return tf.train.Checkpoint(v=tf.Variable([float(value)] * 100))


def value_of(path):
    weights = weights_of(0)
    read_checkpoint(path, weights).assert_consumed()
    return float(weights.v[0])


@pytest.fixture
def calls(monkeypatch):
    """What is synced, renamed and deleted, in order, as (function, name); it cuts the power before call `cut_at`."""
    seen = []

    def watched(module, name):
        function = getattr(module, name)

        def call(*args, **kwargs):
            if len(seen) == calls_made.cut_at:
                raise PowerCut
            target = os.readlink(f"/proc/self/fd/{args[0]}") if name == "fsync" else args[0]
            seen.append((name, pathlib.Path(target).name))
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, call)

    class calls_made:
        cut_at, made = None, seen

    for module, name in ((os, "fsync"), (os, "replace"), (os, "rename"), (shutil, "rmtree")):
        watched(module, name)
    return calls_made


def test_a_file_is_synced_before_it_is_renamed_and_its_folder_after(tmp_path, calls):
    files.write_text(tmp_path / "new" / "a.txt", "text")
    aside = files.aside_of(tmp_path / "a.txt").name
    assert calls.made == [
        *[("fsync", tmp_path.name)],  # that holds the folder `new`
        *[("fsync", aside), ("replace", aside), ("fsync", "new")],
    ]
    assert (tmp_path / "new" / "a.txt").read_text() == "text"


def test_an_older_checkpoint_goes_when_the_next_is_on_the_disk(tmp_path, calls):
    write_checkpoint(tmp_path, weights_of(1), keep=1, progress="{}")
    calls.made.clear()
    write_checkpoint(tmp_path, weights_of(2), keep=1, progress="{}")
    names = [name for name, _ in calls.made]
    assert names.index("replace") == len(set(os.listdir(tmp_path / "ckpt-2"))) + 1  # all files and their folder
    deleted = next(k for k, (_, name) in enumerate(calls.made) if name == "ckpt-1")
    assert calls.made[names.index("replace") + 1] == ("fsync", tmp_path.name)
    assert deleted > names.index("replace") + 1
    assert os.listdir(tmp_path) == ["ckpt-2"]


MODELS = {
    **{kind: lambda made=made: made(9, 6, 64, 5, 0.0) for kind, made in CAPTIONERS.items()},
    "baseline": lambda: Baseline(5, 5),
    "parser": lambda: SceneParser(SceneParserSizes(10, 8, 3, 4, 4, 4)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_checkpoint_holds_every_weight(tmp_path, name):
    saved, other = MODELS[name](), MODELS[name]()
    rng = np.random.default_rng(0)
    for weight in saved.weights:
        weight.assign(rng.normal(size=weight.shape))
    write_checkpoint(tmp_path, checkpoint_of({"model": saved}), keep=1)
    status = read_checkpoint(newest_checkpoint(tmp_path), checkpoint_of({"model": other}))
    status.assert_consumed().assert_existing_objects_matched()
    assert len(other.weights) == len(saved.weights)
    for a, b in zip(saved.weights, other.weights, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)


def test_weights_that_are_not_all_there_are_told_of(tmp_path):
    config, arrays = config_of(tmp_path, stages="mle:0.5,mle:0.5"), make_arrays()
    with pytest.raises(Interrupted):
        run(config, arrays, 1)
    captioner, baseline = build_models(config, VOCABULARY, 5)
    part = tf.train.Checkpoint(baseline=baseline)
    label = stage_labels(config)[0]
    write_checkpoint(kept_folder(tmp_path, label), part, keep=1)
    with pytest.raises(UserError, match="are of another model, or not all of it; use the same model flags, or train"):
        load_kept(tmp_path, label, captioner, baseline)
    progress = (newest_checkpoint(tmp_path / "checkpoints") / "progress.json").read_text()
    write_checkpoint(tmp_path / "checkpoints", part, keep=2, progress=progress)
    with pytest.raises(UserError, match="does not hold all weights; train again, in another --workdir"):
        run(config, arrays)


def test_a_model_whose_weights_would_be_left_out_is_refused():
    class Listed(keras.Model):
        def __init__(self):
            super().__init__()
            self.rows = [keras.layers.Dense(2, name="hidden")]
            self.rows[0].build((None, 3))
            self.built = True

    with pytest.raises(
        TypeError, match="checkpoints would not hold hidden/kernel, hidden/bias; make the layers attrib"
    ):
        checkpoint_of({"captioner": Listed()})


def test_a_power_cut_at_any_point_leaves_a_whole_checkpoint(tmp_path, calls):
    """What was not synced is lost: it is emptied here."""
    for cut_at in range(100):
        folder = tmp_path / str(cut_at)
        calls.cut_at = None
        write_checkpoint(folder, weights_of(1), keep=2, progress="{}")
        write_checkpoint(folder, weights_of(2), keep=2, progress="{}")
        calls.made.clear()
        calls.cut_at = cut_at
        try:
            write_checkpoint(folder, weights_of(3), keep=2, progress="{}")
        except PowerCut:
            newest = newest_checkpoint(folder)
            assert value_of(newest) == {"ckpt-2": 2.0, "ckpt-3": 3.0}[newest.name]
        else:
            break
    assert cut_at == len(calls.made) > 8
    assert value_of(newest_checkpoint(folder)) == 3


DAMAGE = {
    "flipped": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "empty": lambda path: path.write_bytes(b""),
    "lost": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, capsys, damage):
    for value in (1, 2):
        path = write_checkpoint(tmp_path, weights_of(value), keep=2, progress="{}")
    names = sorted(file.name for file in path.iterdir())
    assert names == ["digests.json", "progress.json", "weights.data-00000-of-00001", "weights.index"]
    for name in names:
        other = shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name}-{name}")
        DAMAGE[damage](other / "ckpt-2" / name)
        newest = newest_checkpoint(other, tell=True)
        assert value_of(newest) == 1
        told = capsys.readouterr().err
        assert told.count("\n") == 1 and "ckpt-2 is damaged" in told and f"going on from {newest}" in told
        assert name in told or damage == "flipped"  # of digests.json: an entry differs
        DAMAGE[damage](other / "ckpt-1" / name)
        with pytest.raises(UserError, match="no other checkpoint is whole"):
            newest_checkpoint(other)


def test_numbers_go_on_after_a_damaged_checkpoint(tmp_path):
    for value in range(1, 13):
        write_checkpoint(tmp_path, weights_of(value), keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["ckpt-11", "ckpt-12"]  # 9 is not after 12
    (tmp_path / "ckpt-12" / "weights.index").unlink()
    assert value_of(write_checkpoint(tmp_path, weights_of(13), keep=2)) == 13
    assert newest_checkpoint(tmp_path).name == "ckpt-13"
    assert checkpoint_fault(tmp_path / "ckpt-12") == "weights.index is lost"


def test_digests_of_files_written_at_different_times(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        digests.record(tmp_path, [name])
    assert digests.faults(tmp_path, digests.recorded(tmp_path)) == {}
    (tmp_path / "a").write_text("b")
    (tmp_path / "b").unlink()
    (tmp_path / "c").write_text("c")
    assert digests.faults(tmp_path, digests.recorded(tmp_path)) == {"a": "is damaged or was changed", "b": "is lost"}
    assert digests.fault(tmp_path / "c") == "has no digest"
    for content in ("", "[]", "{"):
        (tmp_path / "digests.json").write_text(content)
        assert digests.fault(tmp_path / "c") == "has a damaged digests.json beside it"
        with pytest.raises(UserError, match=r"digests.json is damaged"):
            digests.faults(tmp_path, digests.recorded(tmp_path))


def test_left_overs_of_processes_that_ended_are_swept(tmp_path):
    other_host = tmp_path / ".writing-elsewhere-7-a.json"
    mine = files.aside_of(tmp_path / "b.json")
    alive = tmp_path / mine.name.replace(f"-{os.getpid()}-", f"-{os.getppid()}-")
    for path in (other_host, mine, alive, tmp_path / "a.json"):
        path.write_text("")
    files.sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([alive.name, other_host.name, "a.json"])
    os.utime(other_host, (0, 0))
    files.sweep(tmp_path)
    assert not other_host.exists()


def test_a_disk_that_is_full_is_told_with_the_file_and_the_room(tmp_path):
    with pytest.raises(UserError) as caught, files.written_aside(tmp_path / "a.npy", 3 << 20):
        raise OSError(28, "No space left on device")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'a.npy'} cannot be written (no space left on the disk; about 3.0 MiB are ")
    assert "MiB are free" in message
    with pytest.raises(UserError, match="no space left on the disk"), files.disk_errors(tmp_path):
        raise tf.errors.ResourceExhaustedError(None, None, f"{tmp_path}/x; No space left on device")
    shutil.rmtree(tmp_path)
    with pytest.raises(UserError, match="cannot be written"), files.disk_errors(tmp_path / "gone" / "a"):
        (tmp_path / "gone" / "a").write_text("")


# Runs


def test_lost_weights_and_lost_checkpoints_are_told_at_the_start(tmp_path):
    arrays, config = make_arrays(), config_of(tmp_path / "run", stages="mle:1,baseline:1,pg:2")
    with pytest.raises(Interrupted):
        run(config, arrays, 4)  # within pg, which has kept weights
    for label in ("mle", "baseline", "pg"):
        other = shutil.copytree(tmp_path / "run", tmp_path / label)
        shutil.rmtree(other / "kept" / label)
        with pytest.raises(UserError, match=f"{label} is lost; restore it from a copy"):
            run(config.with_values(workdir=str(other)), arrays)
        shutil.copytree(tmp_path / "run" / "kept" / label, other / "kept" / label)
        shutil.rmtree(other / "checkpoints")
        with pytest.raises(UserError, match="checkpoints is lost"):
            run(config.with_values(workdir=str(other)), arrays)


def test_a_run_goes_on_from_the_checkpoint_before_to_the_same_end(tmp_path, capsys):
    arrays, whole = make_arrays(), run(config_of(tmp_path / "whole", stages="mle:3"), make_arrays())
    config = config_of(tmp_path / "run", stages="mle:3")
    with pytest.raises(Interrupted):
        run(config, arrays, 3)
    newest = newest_checkpoint(tmp_path / "run" / "checkpoints")
    flip(newest / "weights.data-00000-of-00001")
    assert_same_end(run(config, arrays), whole)
    assert f"{newest} is damaged: weights.data-00000-of-00001 is damaged" in capsys.readouterr().err
