"""What is warned of while training on rewards, when a run is stopped, and what a resumed run remembers of it."""

import types

import numpy as np
import pytest
import tensorflow as tf

from spidercap.models.special_tokens import END
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.training.path_logs import path_logs
from spidercap.pipeline.training.progress import Progress, read_progress
from spidercap.pipeline.training.watch import SCORED, SKIPPED, Watch
from tests.oracles import padded

PATHS, REFERENCE_LENGTH = 64, 10.0
HEALTHY = {
    "entropy": 1.2,
    "reward": 0.3,
    "spread of rewards": 0.2,
    "caption length": 9.0,
    "never ended": 0.02,
    "repeated n-grams": 0.01,
    "distinct captions": 0.95,
    SKIPPED: 0.0,
}


def watch_of(progress=None, paths=PATHS, limit=10, images=None, steps=100):
    stage = types.SimpleNamespace(
        label="pg",
        paths_per_step=paths,
        images_per_step=paths if images is None else images,
        reference_length=REFERENCE_LENGTH,
        steps=steps,
    )
    return Watch(Progress() if progress is None else progress, stage, limit)


def seen(watch, *skipped):
    """Shows the watch a step for each letter: a(pplied) or s(kipped)."""
    for letter in "".join(skipped):
        watch.see({SKIPPED: tf.constant(float(letter == "s"))})
    return watch


def test_healthy_captions_are_not_warned_of():
    progress = Progress()
    assert seen(watch_of(progress), "aaa").warnings(HEALTHY) == []
    assert (progress.warned, progress.skipped) == ({}, 0)


def test_many_captions_are_counted_one_by_one():
    """Beyond what float32 can tell apart; those of a skipped update were scored too."""
    progress = Progress(scored=5)
    watch = watch_of(progress)
    for scored in (2.0**24, 1.0):
        watch.see({SKIPPED: tf.constant(1.0), SCORED: tf.constant(scored)})
    watch.see({SKIPPED: tf.constant(0.0)})  # likelihood scores none
    for _ in range(2):
        watch.read()
        assert progress.scored == 5 + 2**24 + 1


@pytest.mark.parametrize(
    ("kind", "wrong", "just_right", "number", "remedy"),
    [
        ("entropy", {"entropy": 0.0499}, {"entropy": 0.05}, "0.050 nats", "lower --learning_rate"),
        ("entropy", {"entropy": 0.0}, {"entropy": 0.06}, "0.000 nats", "stop earlier"),
        ("length", {"caption length": 4.99}, {"caption length": 5.0}, "5.0 words", "--end_token_in_reward"),
        ("length", {"caption length": 1.0}, {"caption length": 5.1}, "references have 10.0", "add CIDEr to --reward"),
        ("repeated", {"repeated n-grams": 0.151}, {"repeated n-grams": 0.15}, "15%", "add CIDEr to --reward"),
        ("repeated", {"repeated n-grams": 1.0}, {"repeated n-grams": 0.14}, "100%", "add CIDEr to --reward"),
        (
            "distinct",
            {"distinct captions": 6 / 64},
            {"distinct captions": 7 / 64},
            "are only 6",
            "lower --learning_rate",
        ),
        ("distinct", {"distinct captions": 1 / 64}, {"distinct captions": 0.1}, "64 pictures", "by likelihood first"),
        ("constant", {"spread of rewards": 0.0}, {"spread of rewards": 1e-3}, "(0.300)", "another --reward"),
        (
            "constant",
            {"spread of rewards": 0.0, "reward": 0.0},
            {"spread of rewards": 1e-3, "reward": 0.0},
            "all 64 captions",
            "by likelihood first",
        ),
        (
            "constant",
            {"spread of rewards": 0.0, "reward": -2.0},
            {"spread of rewards": 1e-3, "reward": -2.0},
            "(-2.000)",
            "another --reward",
        ),
        ("endless", {"never ended": 0.51}, {"never ended": 0.5}, "51%", "raise it"),
        ("endless", {"never ended": 1.0}, {"never ended": 0.4}, "100%", "--max_length"),
    ],
)
def test_each_fault_is_told_once_with_its_number_and_a_remedy(kind, wrong, just_right, number, remedy):
    progress = Progress()
    watch = watch_of(progress)
    assert watch.warnings(HEALTHY | just_right) == []
    (text,) = watch.warnings(HEALTHY | wrong)
    assert number in text and remedy in text
    assert "\n" not in text
    assert watch.warnings(HEALTHY | wrong) == []
    assert progress.warned == {kind: text}


def test_one_fault_does_not_silence_another():
    progress = Progress()
    watch = watch_of(progress)
    assert len(watch.warnings(HEALTHY | {"entropy": 0.0})) == 1
    assert len(watch.warnings(HEALTHY | {"entropy": 0.0, "never ended": 1.0, "caption length": 1.0})) == 2
    assert sorted(progress.warned) == ["endless", "entropy", "length"]


@pytest.mark.parametrize(("paths", "count"), [(19, 0), (20, 1)])
def test_few_paths_may_well_be_alike(paths, count):
    assert len(watch_of(paths=paths).warnings(HEALTHY | {"distinct captions": 0.05})) == count


@pytest.mark.parametrize(("paths", "count"), [(1, 0), (2, 1)])
def test_one_path_has_no_spread(paths, count):
    assert len(watch_of(paths=paths).warnings(HEALTHY | {"spread of rewards": 0.0})) == count


def test_stages_that_sample_nothing_are_not_judged_by_their_captions():
    """Likelihood logs no captions at all; mixer's first steps log those that were given."""
    bad = {"entropy": 0.0, "repeated n-grams": 1.0, "spread of rewards": 0.0, "never ended": 1.0}
    assert watch_of(paths=0).warnings({"loss": 3.0, SKIPPED: 0.0}) == []
    assert watch_of().warnings(HEALTHY | bad | {"words given": 0.1}) == []
    assert len(watch_of().warnings(HEALTHY | bad | {"words given": 0.0})) == len(bad)


def logs_of(captions, rewards):
    """What a step logs of captions of up to 12 words that were sampled by a policy of some entropy."""
    words = tf.constant(padded(captions, 12))
    logs = path_logs(words, tf.constant(rewards, tf.float32), {})
    return {name: float(x) for name, x in logs.items()} | {"entropy": 1.0, SKIPPED: 0.0}


def healthy_captions():
    rng = np.random.default_rng(0)
    return [[int(w) for w in rng.integers(4, 500, rng.integers(7, 11))] + [END] for _ in range(PATHS)]


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [
        (None, lambda captions, rewards: (captions, rewards)),
        ("length", lambda captions, rewards: ([c[:3] + [END] for c in captions], rewards)),
        ("repeated", lambda captions, rewards: ([c[:2] * 4 + [END] for c in captions], rewards)),
        ("distinct", lambda captions, rewards: ([captions[i % 6] for i in range(PATHS)], rewards)),
        ("endless", lambda captions, rewards: ([c[:6] * 2 if i % 3 else c for i, c in enumerate(captions)], rewards)),
        ("constant", lambda captions, rewards: (captions, [0.0] * PATHS)),
    ],
)
def test_made_captions_are_warned_of_for_what_is_wrong_with_them(kind, spoil):
    progress = Progress()
    rewards = np.random.default_rng(1).uniform(0, 2, PATHS)
    captions, rewards = spoil(healthy_captions(), rewards)
    watch_of(progress).warnings(logs_of(captions, rewards))
    assert set(progress.warned) - ({"repeated"} if kind == "endless" else set()) == ({kind} if kind else set())


@pytest.mark.parametrize("reward", [0.1, 0.3, 1 / 3, 2.7, -0.7, 1e-4])
@pytest.mark.parametrize("paths", [2, 7, 100, 320])
def test_equal_rewards_are_seen_through_rounding(reward, paths):
    """The mean of 320 times 0.3 is not 0.3 in float32, so their spread is not 0."""
    progress = Progress()
    captions = [[4 + i, *range(400, 408), END] for i in range(paths)]
    watch_of(progress, paths=paths).warnings(logs_of(captions, [reward] * paths))
    assert list(progress.warned) == ["constant"]
    one_other = [reward] * (paths - 1) + [reward * 1.01]
    assert watch_of(paths=paths).warnings(logs_of(captions, one_other)) == []


def test_skipped_updates_are_counted_and_told_once():
    progress = Progress()
    watch = seen(watch_of(progress), "aasas")
    (text,) = watch.warnings(HEALTHY | {SKIPPED: 1.0})
    assert "2 updates" in text and "--max_skipped of them stop the run" in text and "lower --learning_rate" in text
    assert progress.skipped == 2
    assert seen(watch, "sas").warnings(HEALTHY) == []
    assert progress.skipped == 4
    assert "in 1 update, " in seen(watch_of(), "s").warnings(HEALTHY)[0]


def test_captions_of_a_skipped_step_are_not_judged():
    """A policy without numbers says the same word for ever."""
    nonsense = {"entropy": np.nan, "never ended": 1.0, "distinct captions": 0.01, SKIPPED: 1.0}
    progress = Progress()
    seen(watch_of(progress), "s").warnings(HEALTHY | nonsense)
    assert list(progress.warned) == [SKIPPED]


@pytest.mark.parametrize(("steps", "sound"), [("", True), ("a", True), ("s", False), ("sa", True), ("as", False)])
def test_a_state_is_sound_if_it_came_from_an_applied_update(steps, sound):
    progress = Progress()
    assert seen(watch_of(progress), steps).is_sound() is sound
    assert progress.skipped == steps.count("s")


@pytest.mark.parametrize(
    ("before", "since", "checkpoints", "named"),
    [
        ("", "ss", [], None),
        ("aa", "ass", [], None),
        ("a", "ss", ["ckpt-1"], None),
        ("a", "ass", ["ckpt-1"], "ckpt-1"),
        ("aa", "ss", ["ckpt-1", "ckpt-2"], "ckpt-1"),
        ("aa", "sas", ["ckpt-1", "ckpt-2"], "ckpt-2"),
        ("sa", "ss", ["ckpt-4", "ckpt-5"], "ckpt-4"),
    ],
)
def test_a_run_is_stopped_with_the_last_good_checkpoint(before, since, checkpoints, named):
    """Good is a checkpoint after which an update could be applied; `before` is what came before the newest one."""
    watch = seen(watch_of(limit=2), before)
    watch.saved()
    with pytest.raises(UserError) as caught:
        seen(watch, since).check(checkpoints)
    message = str(caught.value)
    assert f"the last good checkpoint is {named};" in message or named is None
    assert ("no checkpoint is known to be good" in message) == (named is None)
    assert f"pg: {(before + since).count('s')} updates" in message
    assert "lower --learning_rate" in message and "--max_skipped" in message


def test_fewer_skipped_updates_than_the_limit_do_not_stop_a_run():
    watch = seen(watch_of(limit=3), "sasaaaa")
    watch.check(["ckpt-1"])
    with pytest.raises(UserError, match="3 updates"):
        seen(watch, "s").check(["ckpt-1"])


def through_a_checkpoint(progress, folder):
    variable = tf.Variable("", dtype=tf.string)
    progress.store(variable)
    return read_progress(tf.train.Checkpoint(progress=variable).save(str(folder / "ckpt")))


def test_a_resumed_run_remembers_what_was_told_and_skipped(tmp_path):
    progress = Progress(stage=1, step=5)
    seen(watch_of(progress), "sas").warnings(HEALTHY | {"entropy": 0.0})
    resumed = through_a_checkpoint(progress, tmp_path)
    assert resumed == progress
    watch = seen(watch_of(resumed, limit=3), "a")
    assert watch.warnings(HEALTHY | {"entropy": 0.0}) == []
    watch.check([])
    with pytest.raises(UserError, match="3 updates"):
        seen(watch, "s").check([])


def test_the_next_stage_begins_with_a_clean_slate():
    progress = Progress()
    seen(watch_of(progress), "s").warnings(HEALTHY | {"entropy": 0.0})
    told = progress.warned
    progress.next_stage()
    watch = watch_of(progress, limit=1)
    watch.check([])
    assert len(watch.warnings(HEALTHY | {"entropy": 0.0})) == 1
    assert (list(progress.warned), progress.skipped) == (["entropy"], 0)
    assert sorted(told) == ["entropy", SKIPPED]  # what the finished stage is said to have been warned of


@pytest.mark.parametrize(("step", "named"), [(0, "ckpt-2"), (5, "ckpt-1")])
def test_what_a_stage_begins_with_is_good_and_what_a_run_resumes_from_unproven(step, named):
    """Weights that are handed on were validated; those of a checkpoint within a stage may be the cause."""
    with pytest.raises(UserError, match=f"the last good checkpoint is {named};"):
        seen(watch_of(Progress(stage=1, step=step), limit=2), "ss").check(["ckpt-1", "ckpt-2"])


def test_many_paths_of_few_pictures_may_coincide():
    """5 different ones of 320 are too few for 64 pictures, 20 are enough; of 2 pictures nothing is said."""
    assert len(watch_of(paths=320, images=64).warnings(HEALTHY | {"distinct captions": 5 / 320})) == 1
    assert watch_of(paths=320, images=64).warnings(HEALTHY | {"distinct captions": 20 / 320}) == []
    assert watch_of(paths=100, images=2).warnings(HEALTHY | {"distinct captions": 2 / 100}) == []


def test_where_every_update_fails_a_higher_limit_is_no_remedy():
    with pytest.raises(UserError) as caught:
        seen(watch_of(limit=10, steps=3), "sss").check([])
    assert "3 updates" in str(caught.value) and "--max_skipped" not in str(caught.value)
