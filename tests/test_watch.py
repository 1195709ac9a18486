"""What is warned of while training on rewards, when a run is stopped, and what a resumed run remembers of it."""

import types

import numpy as np
import pytest
import tensorflow as tf

from spidercap.models.special_tokens import END
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.training.advice import remedies
from spidercap.pipeline.training.checkpoint_files import PROGRESS
from spidercap.pipeline.training.logs import PolicyLogs, SampleLogs, StepLogs, as_floats
from spidercap.pipeline.training.progress import Progress, read_progress
from spidercap.pipeline.training.sample_logs import sample_logs, sample_statistics
from spidercap.pipeline.training.watch import SKIPPED, Watch
from tests.oracles import padded

SAMPLES, REFERENCE_LENGTH = 64, 10.0
HEALTHY = {
    "entropy": 1.2,
    "reward": 0.3,
    "reward_std": 0.2,
    "length": 9.0,
    "unfinished": 0.02,
    "repeated_trigrams": 0.01,
    "distinct": 0.95,
    "skipped": 0.0,
}


def step_logs(values):
    """What a step logs, with the values of any of its fields, the nested ones too."""

    def of(kind):
        return {name: value for name, value in values.items() if name in kind._fields}

    policy = PolicyLogs(advantage_std=1.0, **of(PolicyLogs))
    samples = SampleLogs(best_reward=1.0, metrics={}, **of(SampleLogs))
    return StepLogs(loss=1.0, gradient_norm=1.0, policy=policy, samples=samples, **of(StepLogs))


def counted(skipped, scored=None):
    """What a step logs of what is counted, as tensors."""
    return StepLogs(tf.constant(1.0), tf.constant(1.0), tf.constant(skipped), scored=scored)


def watch_of(progress=None, samples=SAMPLES, limit=10, images=None, steps=100):
    stage = types.SimpleNamespace(
        label="pg",
        samples_per_step=samples,
        images_per_step=samples if images is None else images,
        reference_length=REFERENCE_LENGTH,
        steps=steps,
        remedies=remedies(Config.of(workdir="w", reward="bleu4", end_token_in_reward=False), "pg"),
    )
    return Watch(Progress() if progress is None else progress, stage, limit)


def seen(watch, *skipped):
    """Shows the watch a step for each letter: a(pplied) or s(kipped)."""
    for letter in "".join(skipped):
        watch.see(counted(float(letter == "s")))
    return watch


def test_healthy_captions_are_not_warned_of():
    progress = Progress()
    assert seen(watch_of(progress), "aaa").warnings(step_logs(HEALTHY)) == []
    assert (progress.warned, progress.skipped) == ({}, 0)


def test_many_captions_are_counted_one_by_one():
    """Beyond what float32 can tell apart; those of a skipped update were scored too."""
    progress = Progress(scored=5)
    watch = watch_of(progress)
    for scored in (2.0**24, 1.0):
        watch.see(counted(1.0, tf.constant(scored)))
    watch.see(counted(0.0))  # likelihood scores none
    for _ in range(2):
        watch.read()
        assert progress.scored == 5 + 2**24 + 1


@pytest.mark.parametrize(
    ("kind", "wrong", "just_right", "number", "remedy"),
    [
        ("entropy", {"entropy": 0.0499}, {"entropy": 0.05}, "0.050 nats", "lower --learning_rate"),
        ("entropy", {"entropy": 0.0}, {"entropy": 0.06}, "0.000 nats", "stop earlier"),
        ("length", {"length": 4.99}, {"length": 5.0}, "5.0 tokens", "--end_token_in_reward"),
        ("length", {"length": 1.0}, {"length": 5.1}, "references have 10.0", "add CIDEr to --reward"),
        ("repeated", {"repeated_trigrams": 0.151}, {"repeated_trigrams": 0.15}, "15%", "add CIDEr to --reward"),
        ("repeated", {"repeated_trigrams": 1.0}, {"repeated_trigrams": 0.14}, "100%", "add CIDEr to --reward"),
        (
            "distinct",
            {"distinct": 6 / 64},
            {"distinct": 7 / 64},
            "are only 6",
            "lower --learning_rate",
        ),
        ("distinct", {"distinct": 1 / 64}, {"distinct": 0.1}, "64 images", "by likelihood first"),
        ("constant", {"reward_std": 0.0}, {"reward_std": 1e-3}, "(0.300)", "another --reward"),
        (
            "constant",
            {"reward_std": 0.0, "reward": 0.0},
            {"reward_std": 1e-3, "reward": 0.0},
            "all 64 captions",
            "by likelihood first",
        ),
        (
            "constant",
            {"reward_std": 0.0, "reward": -2.0},
            {"reward_std": 1e-3, "reward": -2.0},
            "(-2.000)",
            "another --reward",
        ),
        ("endless", {"unfinished": 0.51}, {"unfinished": 0.5}, "51%", "raise it"),
        ("endless", {"unfinished": 1.0}, {"unfinished": 0.4}, "100%", "--max_length"),
    ],
)
def test_each_fault_is_told_once_with_its_number_and_a_remedy(kind, wrong, just_right, number, remedy):
    progress = Progress()
    watch = watch_of(progress)
    assert watch.warnings(step_logs(HEALTHY | just_right)) == []
    (text,) = watch.warnings(step_logs(HEALTHY | wrong))
    assert number in text and remedy in text
    assert "\n" not in text
    assert watch.warnings(step_logs(HEALTHY | wrong)) == []
    assert progress.warned == {kind: text}


def test_one_fault_does_not_silence_another():
    progress = Progress()
    watch = watch_of(progress)
    assert len(watch.warnings(step_logs(HEALTHY | {"entropy": 0.0}))) == 1
    assert len(watch.warnings(step_logs(HEALTHY | {"entropy": 0.0, "unfinished": 1.0, "length": 1.0}))) == 2
    assert sorted(progress.warned) == ["endless", "entropy", "length"]


@pytest.mark.parametrize(("samples", "count"), [(19, 0), (20, 1)])
def test_few_samples_may_well_be_alike(samples, count):
    assert len(watch_of(samples=samples).warnings(step_logs(HEALTHY | {"distinct": 0.05}))) == count


@pytest.mark.parametrize(("samples", "count"), [(1, 0), (2, 1)])
def test_one_sample_has_no_std(samples, count):
    assert len(watch_of(samples=samples).warnings(step_logs(HEALTHY | {"reward_std": 0.0}))) == count


def test_stages_that_sample_nothing_are_not_judged_by_their_captions():
    """Likelihood logs no captions at all; mixer's first steps log those that were given."""
    bad = {"entropy": 0.0, "repeated_trigrams": 1.0, "reward_std": 0.0, "unfinished": 1.0}
    assert watch_of(samples=0).warnings(StepLogs(loss=3.0, gradient_norm=1.0, skipped=0.0)) == []
    assert watch_of().warnings(step_logs(HEALTHY | bad | {"given_tokens": 0.1})) == []
    assert len(watch_of().warnings(step_logs(HEALTHY | bad | {"given_tokens": 0.0}))) == len(bad)


def logs_of(captions, rewards):
    """What a step logs of captions of up to 12 words that were sampled by a policy of some entropy."""
    tokens = tf.constant(padded(captions, 12))
    samples = sample_logs(sample_statistics(tokens, tf.constant(rewards, tf.float32), {}), tokens)
    return as_floats(step_logs(HEALTHY)._replace(samples=samples))


def healthy_captions():
    rng = np.random.default_rng(0)
    return [[int(w) for w in rng.integers(4, 500, rng.integers(7, 11))] + [END] for _ in range(SAMPLES)]


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [
        (None, lambda captions, rewards: (captions, rewards)),
        ("length", lambda captions, rewards: ([[*c[:3], END] for c in captions], rewards)),
        ("repeated", lambda captions, rewards: ([c[:2] * 4 + [END] for c in captions], rewards)),
        ("distinct", lambda captions, rewards: ([captions[i % 6] for i in range(SAMPLES)], rewards)),
        ("endless", lambda captions, rewards: ([c[:6] * 2 if i % 3 else c for i, c in enumerate(captions)], rewards)),
        ("constant", lambda captions, rewards: (captions, [0.0] * SAMPLES)),
    ],
)
def test_made_captions_are_warned_of_for_what_is_wrong_with_them(kind, spoil):
    progress = Progress()
    rewards = np.random.default_rng(1).uniform(0, 2, SAMPLES)
    captions, rewards = spoil(healthy_captions(), rewards)
    watch_of(progress).warnings(logs_of(captions, rewards))
    assert set(progress.warned) - ({"repeated"} if kind == "endless" else set()) == ({kind} if kind else set())


@pytest.mark.parametrize("reward", [0.1, 0.3, 1 / 3, 2.7, -0.7, 1e-4])
@pytest.mark.parametrize("samples", [2, 7, 100, 320])
def test_equal_rewards_are_seen_through_rounding(reward, samples):
    """The mean of 320 times 0.3 is not 0.3 in float32, so their std is not 0."""
    progress = Progress()
    captions = [[4 + i, *range(400, 408), END] for i in range(samples)]
    watch_of(progress, samples=samples).warnings(logs_of(captions, [reward] * samples))
    assert list(progress.warned) == ["constant"]
    one_other = [reward] * (samples - 1) + [reward * 1.01]
    assert watch_of(samples=samples).warnings(logs_of(captions, one_other)) == []


def test_skipped_updates_are_counted_and_told_once():
    progress = Progress()
    watch = seen(watch_of(progress), "aasas")
    (text,) = watch.warnings(step_logs(HEALTHY | {"skipped": 1.0}))
    assert "2 updates" in text and "--max_skipped of them stop the run" in text and "lower --learning_rate" in text
    assert progress.skipped == 2
    assert seen(watch, "sas").warnings(step_logs(HEALTHY)) == []
    assert progress.skipped == 4
    assert "in 1 update, " in seen(watch_of(), "s").warnings(step_logs(HEALTHY))[0]


def test_captions_of_a_skipped_step_are_not_judged():
    """A policy whose weights are NaN generates the same token for ever."""
    nonsense = {"entropy": np.nan, "unfinished": 1.0, "distinct": 0.01, "skipped": 1.0}
    progress = Progress()
    seen(watch_of(progress), "s").warnings(step_logs(HEALTHY | nonsense))
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
    (folder / PROGRESS).write_text(progress.to_json())
    return read_progress(folder)


def test_a_resumed_run_remembers_what_was_told_and_skipped(tmp_path):
    progress = Progress(stage=1, step=5)
    seen(watch_of(progress), "sas").warnings(step_logs(HEALTHY | {"entropy": 0.0}))
    resumed = through_a_checkpoint(progress, tmp_path)
    assert resumed == progress
    watch = seen(watch_of(resumed, limit=3), "a")
    assert watch.warnings(step_logs(HEALTHY | {"entropy": 0.0})) == []
    watch.check([])
    with pytest.raises(UserError, match="3 updates"):
        seen(watch, "s").check([])


def test_the_next_stage_begins_with_a_clean_slate():
    progress = Progress()
    seen(watch_of(progress), "s").warnings(step_logs(HEALTHY | {"entropy": 0.0}))
    told = progress.warned
    progress.next_stage()
    watch = watch_of(progress, limit=1)
    watch.check([])
    assert len(watch.warnings(step_logs(HEALTHY | {"entropy": 0.0}))) == 1
    assert (list(progress.warned), progress.skipped) == (["entropy"], 0)
    assert sorted(told) == ["entropy", SKIPPED]  # what the finished stage is said to have been warned of


@pytest.mark.parametrize(("step", "named"), [(0, "ckpt-2"), (5, "ckpt-1")])
def test_what_a_stage_begins_with_is_good_and_what_a_run_resumes_from_unproven(step, named):
    """Weights that are handed on were validated; those of a checkpoint within a stage may be the cause."""
    with pytest.raises(UserError, match=f"the last good checkpoint is {named};"):
        seen(watch_of(Progress(stage=1, step=step), limit=2), "ss").check(["ckpt-1", "ckpt-2"])


def test_many_samples_of_few_pictures_may_coincide():
    """5 different ones of 320 are too few for 64 pictures, 20 are enough; of 2 pictures nothing is said."""
    assert len(watch_of(samples=320, images=64).warnings(step_logs(HEALTHY | {"distinct": 5 / 320}))) == 1
    assert watch_of(samples=320, images=64).warnings(step_logs(HEALTHY | {"distinct": 20 / 320})) == []
    assert watch_of(samples=100, images=2).warnings(step_logs(HEALTHY | {"distinct": 2 / 100})) == []


def test_where_every_update_fails_a_higher_limit_is_no_remedy():
    with pytest.raises(UserError) as caught:
        seen(watch_of(limit=10, steps=3), "sss").check([])
    assert "3 updates" in str(caught.value) and "--max_skipped" not in str(caught.value)
