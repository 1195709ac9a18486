"""Runs in which updates are no numbers: they are counted, many stop the run, and a resumed one remembers."""

import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf

from spidercap.pipeline.errors import Interrupted, UserError
from spidercap.pipeline.training.checkpoint_files import newest_checkpoint
from spidercap.pipeline.training.progress import read_progress
from spidercap.pipeline.training.rewards import Reward
from tests.tiny_runs import assert_same_end, config_of, make_arrays, poison, run


def float_values(checkpoint):
    """The numbers in a checkpoint's float variables."""
    reader = tf.train.load_checkpoint(str(checkpoint / "weights"))
    names = [name for name, dtype in reader.get_variable_to_dtype_map().items() if dtype == tf.float32]
    return np.concatenate([np.ravel(reader.get_tensor(name)) for name in names])


def test_a_few_poisoned_batches_are_counted_by_stage(tmp_path, monkeypatch, capsys):
    poison(monkeypatch, [1, 2, 5])
    weights, progress = run(config_of(tmp_path, stages="mle:1,pg:1"), make_arrays())
    assert all(np.isfinite(w).all() for w in weights)
    # Steps 0 to 6 of mle, 0 to 2 of pg.
    assert [(stage.steps, stage.skipped_updates) for stage in progress.finished] == [(7, 3), (3, 2)]
    assert all("were NaN or infinite" in text for stage in progress.finished for text in stage.warnings)
    assert [len(stage.warnings) for stage in progress.finished] == [1, 1]
    told = [line for line in capsys.readouterr().err.splitlines() if "were NaN or infinite" in line]
    assert len(told) == 2
    assert told[0].startswith("warning: mle step 3: ") and "2 updates" in told[0]
    assert told[1].startswith("warning: pg step 3: ") and "2 updates" in told[1]


@pytest.mark.parametrize(("first", "saved_at"), [(8, 6), (6, 3), (3, 0)])
def test_poison_without_an_end_stops_the_run_and_names_a_good_checkpoint(tmp_path, monkeypatch, first, saved_at):
    """Checkpoints come every 3 steps; the newest may be the cause if nothing could be learned from it."""
    poison(monkeypatch, range(first, 21))
    with pytest.raises(UserError) as caught:
        run(config_of(tmp_path, stages="mle:3", log_every=1, max_skipped=3), make_arrays())
    message = str(caught.value)
    assert f"mle: 3 updates were skipped by step {first + 3}" in message
    newest = newest_checkpoint(tmp_path / "checkpoints")
    assert read_progress(newest).step == first // 3 * 3  # nothing was saved after a skipped update
    named = pathlib.Path(re.search(r"last good checkpoint is (\S+);", message)[1])
    assert read_progress(named).step == saved_at
    assert np.isfinite(float_values(named)).all()


def test_a_stopped_run_goes_on_with_a_higher_limit(tmp_path, monkeypatch):
    poison(monkeypatch, [4, 6, 7])
    with pytest.raises(UserError, match="--max_skipped"):
        run(config_of(tmp_path, stages="mle:2", log_every=1, max_skipped=2), make_arrays())
    stopped = run(config_of(tmp_path, stages="mle:2", max_skipped=4, log_every=1), make_arrays())
    whole = run(config_of(tmp_path / "whole", stages="mle:2", max_skipped=4, log_every=1), make_arrays())
    assert_same_end(stopped, whole)
    assert whole[1].finished[0].skipped_updates == 3


def test_a_kill_between_skipped_updates_changes_nothing(tmp_path, monkeypatch, capsys):
    """Validations come every 3 steps; step 9 is skipped, so who is stopped there goes back to step 6."""
    poison(monkeypatch, [3, 8, 9, 14])
    whole = run(config_of(tmp_path / "whole", stages="mle:3"), make_arrays())
    assert whole[1].finished[0].skipped_updates == 4
    for stop_at in (2, 3):
        capsys.readouterr()
        workdir = tmp_path / f"stopped at {3 * stop_at}"
        with pytest.raises(Interrupted):
            run(config_of(workdir, stages="mle:3"), make_arrays(), stop_at)
        progress = read_progress(newest_checkpoint(workdir / "checkpoints"))
        assert (progress.step, progress.skipped) == (6, 1)
        assert_same_end(run(config_of(workdir, stages="mle:3"), make_arrays()), whole)
        assert capsys.readouterr().err.count("were NaN or infinite") == 1


def test_captions_are_warned_of_once_also_over_a_resume(tmp_path, capsys):
    """Every caption earns 0.3, whatever it says."""
    equal = Reward({"cider": 1.0}, lambda c, i: {"cider": tf.fill(tf.shape(i), 0.3)}, {})
    config = config_of(tmp_path, stages="pg:4", log_every=1, samples=3, rollouts=0)
    with pytest.raises(Interrupted):
        run(config, make_arrays(), 2, reward=equal)
    _, progress = run(config, make_arrays(), reward=equal)
    err = capsys.readouterr().err
    (told,) = (line for line in err.splitlines() if "have the same reward" in line)
    assert told.startswith("warning: pg step 1: all 21 captions of a batch have the same reward (0.300)")
    assert sum("have the same reward" in text for text in progress.finished[0].warnings) == 1
    assert progress.finished[0].skipped_updates == 0
