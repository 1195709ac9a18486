"""The loop: a run that was stopped anywhere ends with the same numbers as one that was not."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from spidercap.pipeline.data.batches import caption_batches, image_batches
from spidercap.pipeline.errors import Interrupted, UserError
from spidercap.pipeline.evaluation.evaluate import Evaluation, build_decoder
from spidercap.pipeline.settings.config import Config, stage_labels
from spidercap.pipeline.training.checkpoint_files import newest_checkpoint
from spidercap.pipeline.training.kept import build_models, last_kept, load_kept
from spidercap.pipeline.training.progress import read_progress
from spidercap.pipeline.training.stages import build_stage
from spidercap.pipeline.training.strategies import check_batch, scope_of
from tests import tiny_runs
from tests.tiny_runs import IMAGES, LENGTH, VIEWS, VOCABULARY, assert_same_end, cider_of, config_of, make_arrays, run

ALL = {  # scst resumes as leave_one_out does; s is 6 6 4 2 2 0 0 in the seven steps of mixer
    "stages": "mle:1,baseline:1,pg:1,mixer:1,leave_one_out:1",
    "learning_rate": ",".join(f"{name}:1e-2" for name in ("mle", "baseline", "pg", "mixer", "scst", "leave_one_out")),
    "samples": 2,
    "mixer_step": 2,
    "mixer_epochs": 0.2,
}


@pytest.fixture
def arrays():
    return make_arrays()


def newest(workdir):
    return read_progress(newest_checkpoint(workdir / "checkpoints"))


def test_resumed_equals_uninterrupted(tmp_path, arrays):
    """One run is stopped five times: within mle, at its end, within pg, mixer and leave_one_out; another never."""
    whole = run(config_of(tmp_path / "whole", **ALL), arrays)
    config = config_of(tmp_path / "stopped", **ALL)
    places = []
    for validation in (2, 1, 1, 2, 3):
        with pytest.raises(Interrupted):
            run(config, arrays, validation)
        progress = newest(tmp_path / "stopped")
        places.append((stage_labels(config)[progress.stage], progress.step))
    assert places == [("mle", 6), ("mle", 7), ("pg", 2), ("mixer", 3), ("leave_one_out", 2)]
    resumed = run(config, arrays)
    assert_same_end(resumed, whole)
    assert [row.name for row in resumed[1].finished] == stage_labels(config)
    # Started once more, a finished run trains nothing and holds the same weights.
    assert_same_end(run(config, arrays), whole)


@pytest.mark.long
def test_a_run_goes_on_with_another_number_of_devices(tmp_path, arrays):
    """Two devices until the middle of pg, then one: weights of two devices are read by one, and the end is the same."""
    changes = {"stages": "mle:1,baseline:1,pg:2", "learning_rate": "mle:1e-2,baseline:1e-2,pg:1e-3", "samples": 2}
    whole = run(config_of(tmp_path / "whole", **changes), arrays)
    config = config_of(tmp_path / "moved", **changes)
    with scope_of("mirrored"), pytest.raises(Interrupted):
        run(config, arrays, 4)
    progress = newest(tmp_path / "moved")
    assert stage_labels(config)[progress.stage] == "pg"
    assert progress.step > 0
    moved = run(config, arrays)
    for a, b in zip(moved[0], whole[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    for a, b in zip(moved[1].history, whole[1].history, strict=True):
        assert a.metrics == pytest.approx(b.metrics, rel=1e-4)


class Counting:
    """A reward on the host that counts what it is asked for."""

    is_compiled, count = False, 0

    def __init__(self, reward):
        self.total, self._reward = reward.total, reward

    def scores(self, captions, image_index):
        self.count += len(captions)
        return self._reward.scores(captions, image_index)


def test_validations_tell_how_many_captions_were_scored(tmp_path, arrays):
    changes = ALL | {"stages": "mle:1,pg:1,mixer:1,scst:1,leave_one_out:1", "log_every": 2}
    reward = Counting(cider_of(arrays))
    _, progress = run(config_of(tmp_path, **changes), arrays, reward=reward)
    last = {row.stage: row for row in progress.history}
    assert sum(row.captions_scored for row in last.values()) == reward.count
    an_image = {name: row.captions_scored / row.images_seen for name, row in last.items()}
    assert an_image.pop("pg") > 2 + 3  # K = 3 rollouts from all prefixes of M = 2 paths
    assert an_image == {"mle": 0, "mixer": 1, "scst": 3, "leave_one_out": 2}
    first = next(row for row in progress.history if row.stage == "scst")
    assert 0 < first.captions_scored == first.images_seen * 3


def test_best_weights_are_handed_on(tmp_path, arrays):
    """What a stage hands on is what validated best, not what came last."""
    # Wild enough to fall again.
    config = config_of(tmp_path, stages="mle:4", learning_rate="mle:0.3", decay="mle:1", seed=1)
    weights, progress = run(config, arrays)
    scores = [row.metrics["CIDEr"] for row in progress.history]
    assert progress.finished[0].best_step == progress.history[int(np.argmax(scores))].step
    assert np.argmax(scores) < len(scores) - 1
    captioner, baseline = build_models(config, VOCABULARY, 5)
    load_kept(tmp_path, "mle", captioner, baseline)
    for a, b in zip(weights, captioner.weights + baseline.weights, strict=True):
        np.testing.assert_array_equal(a, b.numpy())
    words = build_decoder(captioner, LENGTH)(arrays.features[:, 0]).tokens[:, 0]
    score = np.mean(cider_of(arrays).scores(tf.constant(words), tf.range(IMAGES))["cider"])
    assert float(score) == pytest.approx(max(scores), abs=1e-5)


def test_weights_of_a_stage_at_work_are_not_taken_for_handed_on(tmp_path, arrays):
    """Whoever begins with this run gets what the last finished stage handed on, though pg has kept weights too."""
    config = config_of(tmp_path, stages="mle:1,pg:2")
    for validation, kept in ((1, "mle"), (3, "mle")):  # within mle, within pg
        with pytest.raises(Interrupted):
            run(config, arrays, validation)
        assert last_kept(config) == kept
    assert list((tmp_path / "kept" / "pg").glob("ckpt-*"))
    run(config, arrays)
    assert last_kept(config) == "pg"


def test_patience_ends_a_stage(tmp_path, arrays):
    config = config_of(tmp_path, stages="mle:50", learning_rate="mle:0.3", decay="mle:1", patience=2)
    _, progress = run(config, arrays)
    scores = [row.metrics["CIDEr"] for row in progress.history]
    assert len(scores) < 100
    assert max(scores[-2:]) <= max(scores[:-2])
    assert progress.finished[0].steps == progress.history[-1].step


def test_baseline_stage_leaves_the_captioner_alone(tmp_path, arrays):
    config = config_of(tmp_path, stages="mle:1,baseline:2")
    run(config, arrays)
    kept = {}
    for label in ("mle", "baseline"):
        captioner, baseline = build_models(config, VOCABULARY, 5)
        load_kept(tmp_path, label, captioner, baseline)
        kept[label] = [w.numpy() for w in captioner.weights], [w.numpy() for w in baseline.weights]
    for a, b in zip(kept["mle"][0], kept["baseline"][0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(kept["mle"][1], kept["baseline"][1], strict=True))


def test_a_loss_that_is_no_number_stops_the_run(tmp_path, arrays):
    spoilt = dataclasses.replace(arrays, features=np.full_like(arrays.features, np.nan))
    with pytest.raises(UserError, match="lower --learning_rate"):
        run(config_of(tmp_path, stages="mle:1", log_every=1), spoilt)


def test_progress_lies_in_the_checkpoint(tmp_path, arrays):
    run(config_of(tmp_path, stages="mle:1"), arrays)
    progress = newest(tmp_path)
    assert (progress.stage, progress.step) == (1, 0)
    assert progress.finished[0].images_seen == 7 * 7  # 48 captions, 7 a step
    assert progress.finished[0].seconds > 0


@pytest.mark.parametrize(("batches", "size"), [(caption_batches, IMAGES * 2), (image_batches, IMAGES)])
def test_batches_run_through_the_data_and_can_begin_anywhere(arrays, batches, size):
    def seen(first, steps):
        return [tf.nest.map_structure(as_array, batch) for batch in batches(arrays, 5, first, steps, (1, 0))]

    whole, views = seen(0, 30), []
    assert len(whole) == 30
    for batch, again in zip(whole[11:], seen(11, 30), strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, batch, again)
    for batch in whole:
        assert len(batch.features) == len(batch.image_index) == 5
        same = (batch.features[:, None] == arrays.features[batch.image_index]).all(axis=2)
        np.testing.assert_array_equal(same.sum(axis=1), 1)  # one view of the right picture
        views.append(same.argmax(axis=1))
    counts = np.bincount(np.concatenate(views), minlength=VIEWS)
    assert (counts > 0.8 * 30 * 5 / VIEWS).all()
    assert any(len(set(of_batch)) == VIEWS for of_batch in views)
    # Batches of captions go by captions, those of pictures by pictures.
    images = np.concatenate([batch.image_index for batch in whole])
    if size == IMAGES:
        assert all(batch.tokens is None for batch in whole)
        rows, expected = images[:, None], np.arange(IMAGES)[:, None]
    else:
        rows = np.column_stack([images, np.concatenate([batch.tokens for batch in whole])])
        expected = np.column_stack([arrays.image_index, arrays.tokens])
    for epoch in range(30 * 5 // size):
        part = rows[epoch * size : (epoch + 1) * size]
        np.testing.assert_array_equal(by_rows(part), by_rows(expected))
    assert (rows[:size] != rows[size : 2 * size]).any()


def as_array(tensor):
    return None if tensor is None else tensor.numpy()


def by_rows(table):
    """Rows in their lexical order."""
    return table[np.lexsort(table.T[::-1])]


def test_stage_labels_are_unique():
    config = Config.of(workdir="x", stages="mle:1,pg:1,mle:2,pg:1,pg:1")
    assert stage_labels(config) == ["mle", "pg", "mle-2", "pg-2", "pg-3"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"stages": "mixer:1", "mixer_step": 3, "mixer_epochs": 0.5}, "s falls only to 3; it reaches 0 in 1 epochs"),
        ({"stages": "mixer:1.4", "mixer_step": 3, "mixer_epochs": 0.5}, None),  # 0 from step 7 on
        ({"stages": "mixer:1", "mixer_epochs": 5}, "s stays at 6, which is likelihood alone"),
        ({"stages": "mle:1", "scheduled_sampling": 0.3}, "no sampled token will be fed"),
        ({"stages": "mle:1", "scheduled_sampling": 0.3, "scheduled_sampling_epochs": 0.5}, None),
    ],
)
def test_a_schedule_that_comes_to_nothing_is_noted(tmp_path, arrays, changes, told):
    """T = 6, epochs of 7 steps."""
    config = config_of(tmp_path, **changes)
    stage = build_stage(config, 0, *build_models(config, VOCABULARY, 5), arrays, cider_of(arrays))
    note = stage.notes.get("schedule", "")
    assert note == "" if told is None else told in note


def test_a_remark_on_validation_scores_is_printed_once_a_stage(tmp_path, arrays, capsys, monkeypatch):
    counts = iter(range(1, 100))

    def made(*values):
        return Evaluation(*values, remarks={"spice": f"SPICE read only the first 60 words of {next(counts)} captions"})

    monkeypatch.setattr(tiny_runs, "Evaluation", made)
    _, progress = run(config_of(tmp_path, stages="mle:1,pg:1"), arrays)
    told = [line for line in capsys.readouterr().err.splitlines() if "SPICE read" in line]
    assert len(progress.history) > 2 == len(told)
    assert told[0].startswith("warning: mle step ") and told[1].startswith("warning: pg step ")
    assert [len(stage.warnings) for stage in progress.finished] == [1, 1]


@pytest.mark.parametrize("epochs", [5, 0.5], ids=["too slow", "in time"])
def test_a_note_is_told_before_the_first_step(tmp_path, arrays, capsys, epochs):
    changes = {"stages": "mle:1", "scheduled_sampling": 0.3, "scheduled_sampling_epochs": epochs}
    _, progress = run(config_of(tmp_path, **changes), arrays)
    schedule = [w for w in progress.finished[0].warnings if w.startswith("step 0: ")]
    assert len(schedule) == (epochs == 5)
    assert all(f"warning: mle {w}" in capsys.readouterr().err for w in schedule)


def test_every_device_has_something_to_do(capsys):
    check_batch(1)
    with scope_of("mirrored"):
        with pytest.raises(UserError, match="less than the 2 devices that train together; raise it"):
            check_batch(1)
        check_batch(3)
    assert capsys.readouterr().out == "devices: 2, each with 1 or 2 of the 3 images or captions of a batch\n"
