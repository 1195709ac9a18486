"""Updates that are no numbers: not a weight, optimizer slot or count changes; a run counts them and stops at many."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.baseline import StepBaseline
from pipeline import objectives
from pipeline.errors import Interrupted, UserError
from pipeline.inputs import Batch
from pipeline.progress import read_progress
from pipeline.rewards import Reward
from pipeline.steps import likelihood_step, policy_gradient_step, update
from pipeline.watch import SKIPPED
from tests.tiny_runs import assert_same_end, config_of, make_arrays, poison, run

T = 3
WORDS = np.array([[4, 5, 2], [6, 2, 0]], np.int32)


def adam(model):
    optimizer = keras.optimizers.Adam(0.05, global_clipnorm=5.0)
    optimizer.build(model.trainable_variables)
    return optimizer


def variables_of(trackables):
    return [v for t in trackables for v in (t.variables if isinstance(t, keras.Optimizer) else t.weights)]


def state_of(*trackables):
    """Everything that an update could change: weights, slots, iterations."""
    return [v.numpy() for v in variables_of(trackables)]


def assert_same(before, after):
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def spoilt(numbers, wrong):
    """The gradient, or loss, with `wrong` added to its last number; the gradient of the embedding is sparse."""
    if isinstance(numbers, tf.IndexedSlices):
        return tf.IndexedSlices(spoilt(numbers.values, wrong), numbers.indices, numbers.dense_shape)
    flat = tf.reshape(numbers, [-1])
    return tf.reshape(tf.tensor_scatter_nd_add(flat, [[tf.size(flat) - 1]], [wrong]), tf.shape(numbers))


@pytest.fixture
def learners(toy):
    """(captioner, baseline, their optimizers, a function that gives gradients and losses of both)."""
    captioner, baseline, features = toy

    def gradients():
        with tf.GradientTape(persistent=True) as tape:
            hidden = tf.reshape(captioner.hidden(tf.constant(features), tf.constant(WORDS)), [-1, 5])
            loss = tf.reduce_sum(captioner.logits(hidden)[:, 4:])
            expected = baseline(hidden, tf.zeros([6], tf.int32))
            baseline_loss = tf.reduce_sum((expected - 1) ** 2)
        mine = tape.gradient(loss, captioner.trainable_variables)
        return mine, tape.gradient(baseline_loss, baseline.trainable_variables), [loss, baseline_loss]

    return captioner, baseline, adam(captioner), adam(baseline), gradients


def updating(learners, compiled):
    """Returns (place, wrong) -> update's logs, with `wrong` added to gradient or loss number `place`."""
    _, _, optimizer, baseline_optimizer, gradients = learners

    def step(place, wrong):
        mine, other, losses = gradients()
        numbers = [spoilt(x, tf.where(place == i, wrong, 0.0)) for i, x in enumerate([*mine, *other, *losses])]
        mine, other = numbers[: len(mine)], numbers[len(mine) : -len(losses)]
        return update([(optimizer, mine), (baseline_optimizer, other)], numbers[-len(losses) :])

    step = tf.function(step) if compiled else step
    return lambda place, wrong: {k: float(v) for k, v in step(tf.constant(place), tf.constant(wrong)).items()}


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_one_wrong_number_anywhere_keeps_everything_as_it_was(learners, compiled):
    mine, other, losses = learners[-1]()
    assert any(isinstance(g, tf.IndexedSlices) for g in mine)
    before = state_of(*learners[:-1])
    step = updating(learners, compiled)
    for place in range(len([*mine, *other, *losses])):
        for wrong in (np.nan, np.inf, -np.inf):
            assert step(place, wrong)["skipped updates"] == 1
            assert_same(before, state_of(*learners[:-1]))
    assert step(0, 0.0)["skipped updates"] == 0


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_an_update_of_numbers_is_applied_by_every_optimizer(learners, compiled):
    captioner, baseline, optimizer, baseline_optimizer, gradients = learners
    mine, _, _ = gradients()
    squares = sum(np.sum(np.square(g.values if isinstance(g, tf.IndexedSlices) else g)) for g in mine)
    before = state_of(captioner), state_of(baseline)
    logs = updating(learners, compiled)(0, 0.0)
    assert logs["skipped updates"] == 0
    assert logs["gradient norm"] == pytest.approx(np.sqrt(squares), rel=1e-5)
    assert logs["gradient norm"] > 5  # before it was clipped
    for old, new in zip(before, (state_of(captioner), state_of(baseline)), strict=True):
        assert any((a != b).any() for a, b in zip(old, new, strict=True))
    assert [int(o.iterations) for o in (optimizer, baseline_optimizer)] == [1, 1]


def reward_of(on_host, poisoned):
    """Pays for long captions of large ids; no number for all of a batch while `poisoned` is true."""

    def score(captions, image_index):
        del image_index
        paid = tf.cast(tf.reduce_sum(captions, axis=1), tf.float32)
        return tf.where(poisoned, np.nan, paid)

    if on_host:
        return Reward({"meteor": 0.1}, lambda c, i: {}, {"meteor": lambda c, i: score(c, i).numpy()})
    return Reward({"cider": 0.1}, lambda c, i: {"cider": score(c, i)}, {})


def objective_of(name, captioner):
    return {
        "pg": lambda: objectives.policy_gradient(captioner, T, samples=2, rollouts=2, shared=True),
        "reinforce": lambda: objectives.policy_gradient(captioner, T, samples=1, rollouts=0),
        "mixer": lambda: objectives.mixer(captioner, T, likelihood_weight=0.5),
        "scst": lambda: objectives.self_critical(captioner, T, samples=2),
        "leave_one_out": lambda: objectives.leave_one_out(captioner, T, samples=2),
    }[name]()


def step_of(name, toy, poisoned):
    """Returns a train step, and what its updates could change."""
    captioner, baseline, _ = toy
    optimizer = adam(captioner)
    if name.startswith("mle"):
        own = name == "mle reading its own words"
        step = likelihood_step(captioner, optimizer, feature_dropout=0.1, scheduled_sampling=own)
        return step, (captioner, optimizer)
    objective, _, host = name.partition(" ")
    learned = StepBaseline(5, T) if objective == "mixer" else baseline
    if objective in ("scst", "leave_one_out"):
        learned = None
    baseline_optimizer = None if learned is None else adam(learned)
    if objective == "warm-up":
        objective, optimizer = "pg", None
    step = policy_gradient_step(
        captioner,
        learned,
        reward_of(bool(host), poisoned),
        objective_of(objective, captioner),
        optimizer,
        baseline_optimizer,
        feature_dropout=0.1,
    )
    return step, [t for t in (captioner, learned, optimizer, baseline_optimizer) if t is not None]


@pytest.mark.parametrize(
    "name",
    [
        "mle",
        "mle reading its own words",
        "warm-up",
        "pg",
        "pg on the host",
        "reinforce",
        "mixer",
        "scst",
        "leave_one_out",
    ],
)
def test_a_poisoned_batch_leaves_no_trace(toy, name):
    """The next batch teaches exactly what it would have taught without the poisoned ones before it."""
    features = toy[2]
    poisoned = tf.Variable(False)
    step, changed = step_of(name, toy, poisoned)
    begun = state_of(*changed)

    def learn(features, seed):
        batch = Batch(tf.constant(features), tf.constant([0, 1]), tf.constant(WORDS))
        logs = step(batch, tf.constant([seed, 1]), tf.constant(1.0))
        return float(logs[SKIPPED])

    assert [learn(features, seed) for seed in (1, 2)] == [0, 0]
    clean = state_of(*changed)
    assert any((a != b).any() for a, b in zip(begun, clean, strict=True))
    for variable, value in zip(variables_of(changed), begun, strict=True):
        variable.assign(value)
    assert learn(features, 1) == 0
    after_one = state_of(*changed)
    # An infinite feature saturates the LSTM: the losses are numbers, the captioner's gradients are not.
    for wrong in (np.nan, np.inf) if name != "warm-up" else (np.nan,):
        assert learn(np.array([features[0], [0, wrong, 0]], np.float32), 3) == 1
        assert_same(after_one, state_of(*changed))
    if not name.startswith("mle"):
        poisoned.assign(True)
        assert learn(features, 4) == 1
        assert_same(after_one, state_of(*changed))
        poisoned.assign(False)
    assert learn(features, 2) == 0
    assert_same(clean, state_of(*changed))


def float_values(checkpoint):
    """The numbers in a checkpoint's float variables."""
    reader = tf.train.load_checkpoint(checkpoint)
    names = [name for name, dtype in reader.get_variable_to_dtype_map().items() if dtype == tf.float32]
    return np.concatenate([np.ravel(reader.get_tensor(name)) for name in names])


def test_a_few_poisoned_batches_are_counted_by_stage(tmp_path, monkeypatch, capsys):
    poison(monkeypatch, [1, 2, 5])
    weights, progress = run(config_of(tmp_path, stages="mle:1,pg:1"), make_arrays())
    assert all(np.isfinite(w).all() for w in weights)
    # Steps 0 to 6 of mle, 0 to 2 of pg.
    assert [(row["steps"], row["skipped_updates"]) for row in progress.finished] == [(7, 3), (3, 2)]
    assert all("were no numbers" in text for row in progress.finished for text in row["warnings"])
    assert [len(row["warnings"]) for row in progress.finished] == [1, 1]
    told = [line for line in capsys.readouterr().err.splitlines() if "were no numbers" in line]
    assert len(told) == 2
    assert told[0].startswith("warning: mle step 3: ") and "2 updates" in told[0]
    assert told[1].startswith("warning: pg step 3: ") and "2 updates" in told[1]


@pytest.mark.parametrize(("first", "saved_at"), [(8, 6), (6, 3), (3, None)])
def test_poison_without_an_end_stops_the_run_and_names_a_good_checkpoint(tmp_path, monkeypatch, first, saved_at):
    """Checkpoints come every 3 steps; the newest may be the cause if nothing could be learned from it."""
    poison(monkeypatch, range(first, 21))
    with pytest.raises(UserError) as caught:
        run(config_of(tmp_path, stages="mle:3", log_every=1, max_skipped=3), make_arrays())
    message = str(caught.value)
    assert f"mle: 3 updates were skipped by step {first + 3}" in message
    assert ("no good checkpoint" in message) == (saved_at is None)
    newest = tf.train.latest_checkpoint(str(tmp_path / "checkpoints"))
    assert read_progress(newest).step == first // 3 * 3  # nothing was saved after a skipped update
    if saved_at is not None:
        named = re.search(r"last good checkpoint is (\S+);", message)[1]
        assert read_progress(named).step == saved_at
        assert np.isfinite(float_values(named)).all()


def test_a_stopped_run_goes_on_with_a_higher_limit(tmp_path, monkeypatch):
    poison(monkeypatch, [4, 6, 7])
    with pytest.raises(UserError, match="--max_skipped"):
        run(config_of(tmp_path, stages="mle:2", log_every=1, max_skipped=2), make_arrays())
    stopped = run(config_of(tmp_path, stages="mle:2", max_skipped=4, log_every=1), make_arrays())
    whole = run(config_of(tmp_path / "whole", stages="mle:2", max_skipped=4, log_every=1), make_arrays())
    assert_same_end(stopped, whole)
    assert whole[1].finished[0]["skipped_updates"] == 3


def test_a_kill_between_skipped_updates_changes_nothing(tmp_path, monkeypatch, capsys):
    """Validations come every 3 steps; step 9 is skipped, so who is stopped there goes back to step 6."""
    poison(monkeypatch, [3, 8, 9, 14])
    whole = run(config_of(tmp_path / "whole", stages="mle:3"), make_arrays())
    assert whole[1].finished[0]["skipped_updates"] == 4
    for stop_at in (2, 3):
        capsys.readouterr()
        workdir = tmp_path / f"stopped at {3 * stop_at}"
        with pytest.raises(Interrupted):
            run(config_of(workdir, stages="mle:3"), make_arrays(), stop_at)
        progress = read_progress(tf.train.latest_checkpoint(str(workdir / "checkpoints")))
        assert (progress.step, progress.skipped) == (6, 1)
        assert_same_end(run(config_of(workdir, stages="mle:3"), make_arrays()), whole)
        assert capsys.readouterr().err.count("were no numbers") == 1


def test_captions_are_warned_of_once_also_over_a_resume(tmp_path, capsys):
    """Every caption earns 0.3, whatever it says."""
    equal = Reward({"cider": 1.0}, lambda c, i: {"cider": tf.fill(tf.shape(i), 0.3)}, {})
    config = config_of(tmp_path, stages="pg:4", log_every=1, samples=3, rollouts=0)
    with pytest.raises(Interrupted):
        run(config, make_arrays(), 2, reward=equal)
    _, progress = run(config, make_arrays(), reward=equal)
    err = capsys.readouterr().err
    (told,) = (line for line in err.splitlines() if "earned the same reward" in line)
    assert told.startswith("warning: pg step 1: all 21 captions of a batch earned the same reward (0.300)")
    assert sum("earned the same reward" in text for text in progress.finished[0]["warnings"]) == 1
    assert progress.finished[0]["skipped_updates"] == 0
