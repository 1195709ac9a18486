"""Updates that are no numbers: not a weight, optimizer slot or count changes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from spidercap.pipeline.data.batches import Batch
from spidercap.pipeline.training.rewards import Reward
from spidercap.pipeline.training.steps import likelihood_step, policy_gradient_step, update
from tests import plain
from tests.conftest import make_toy
from tests.variants import OBJECTIVES, adam, learned_baseline

T = 3
WORDS = np.array([[4, 5, 2], [6, 2, 0]], np.int32)


def variables_of(trackables):
    return [v for t in trackables for v in (t.variables if isinstance(t, keras.Optimizer) else t.weights)]


def state_of(*trackables):
    """Everything that an update could change: weights, slots, iterations."""
    return [v.numpy() for v in variables_of(trackables)]


def give(trackables, values):
    """Gives what `state_of` returned back."""
    for variable, value in zip(variables_of(trackables), values, strict=True):
        variable.assign(value)


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
            hidden = tf.reshape(plain.hidden(captioner, tf.constant(features), tf.constant(WORDS)), [-1, 5])
            loss = tf.reduce_sum(plain.logits(captioner, hidden)[:, 4:])
            expected = baseline(hidden, tf.zeros([6], tf.int32))
            baseline_loss = tf.reduce_sum((expected - 1) ** 2)
        mine = tape.gradient(loss, captioner.trainable_variables)
        return mine, tape.gradient(baseline_loss, baseline.trainable_variables), [loss, baseline_loss]

    return captioner, baseline, adam(captioner, global_clipnorm=5.0), adam(baseline, global_clipnorm=5.0), gradients


def updating(learners, compiled):
    """Returns (place, wrong) -> update's logs, with `wrong` added to gradient or loss number `place`."""
    _, _, optimizer, baseline_optimizer, gradients = learners

    def step(place, wrong):
        mine, other, losses = gradients()
        numbers = [spoilt(x, tf.where(place == i, wrong, 0.0)) for i, x in enumerate([*mine, *other, *losses])]
        mine, other = numbers[: len(mine)], numbers[len(mine) : -len(losses)]
        return update([(optimizer, mine), (baseline_optimizer, other)], numbers[-len(losses) :])

    step = tf.function(step) if compiled else step
    return lambda place, wrong: step(tf.constant(place), tf.constant(wrong))


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_one_wrong_number_anywhere_keeps_everything_as_it_was(learners, compiled):
    mine, other, losses = learners[-1]()
    assert any(isinstance(g, tf.IndexedSlices) for g in mine)
    before = state_of(*learners[:-1])
    step = updating(learners, compiled)
    for place in range(len([*mine, *other, *losses])):
        for wrong in (np.nan, np.inf, -np.inf):
            assert step(place, wrong).skipped == 1
            assert_same(before, state_of(*learners[:-1]))
    assert step(0, 0.0).skipped == 0


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_an_update_of_numbers_is_applied_by_every_optimizer(learners, compiled):
    captioner, baseline, optimizer, baseline_optimizer, gradients = learners
    mine, _, _ = gradients()
    squares = sum(np.sum(np.square(tf.convert_to_tensor(g))) for g in mine)
    before = state_of(captioner), state_of(baseline)
    logs = updating(learners, compiled)(0, 0.0)
    assert logs.skipped == 0
    assert float(logs.gradient_norm) == pytest.approx(np.sqrt(squares), rel=1e-5)
    assert float(logs.gradient_norm) > 5  # before it was clipped
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


def step_of(name, toy, poisoned):
    """Returns a train step, and what its updates could change."""
    captioner, baseline, _ = toy
    optimizer = adam(captioner, global_clipnorm=5.0)
    if name.startswith("mle"):
        own = name == "mle reading its own words"
        step = likelihood_step(captioner, optimizer, feature_dropout=0.1, scheduled_sampling=own)
        return step, (captioner, optimizer)
    objective, _, host = name.partition(" ")
    learned = learned_baseline(objective, baseline, T)
    baseline_optimizer = adam(learned, global_clipnorm=5.0)
    if objective == "warm-up":
        objective, optimizer = "pg", None
    step = policy_gradient_step(
        captioner,
        learned,
        reward_of(bool(host), poisoned),
        OBJECTIVES[objective](captioner, T),
        optimizer,
        baseline_optimizer,
        feature_dropout=0.1,
    )
    return step, [t for t in (captioner, learned, optimizer, baseline_optimizer) if t is not None]


@pytest.fixture(scope="module")
def new_step():
    """name -> (toy, its train step, what updates could change, whether the reward is poisoned).

    A step is traced once: who asks again finds the numbers with which it was made.
    """
    made, begun = {}, {}

    def step(name):
        if name not in made:
            toy, poisoned = make_toy(), tf.Variable(False)
            made[name] = toy, *step_of(name, toy, poisoned), poisoned
            begun[name] = state_of(*made[name][2])
        _, _, changed, poisoned = made[name]
        give(changed, begun[name])
        poisoned.assign(False)
        return made[name]

    return step


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
        "vine",
        "vine on the host",
    ],
)
def test_a_poisoned_batch_leaves_no_trace(new_step, name):
    """The next batch teaches exactly what it would have taught without the poisoned ones before it."""
    (_, _, features), step, changed, poisoned = new_step(name)
    begun = state_of(*changed)

    def learn(features, seed):
        batch = Batch(tf.constant(features), tf.constant([0, 1]), tf.constant(WORDS))
        logs = step(batch, tf.constant([seed, 1]), tf.constant(1.0))
        return float(logs.skipped)

    assert [learn(features, seed) for seed in (1, 2)] == [0, 0]
    clean = state_of(*changed)
    assert any((a != b).any() for a, b in zip(begun, clean, strict=True))
    give(changed, begun)
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


@pytest.mark.parametrize("name", ["mle", "pg", "scst", "leave_one_out", "vine"])
@pytest.mark.parametrize("place", ["kernel", "bias"])
def test_weights_that_are_no_numbers_are_told_and_nothing_breaks(new_step, name, place):
    """Only the projection's: states are numbers, logits are not, and no word beyond the vocabulary is said."""
    (captioner, _, features), step, changed, _ = new_step(name)
    weight = getattr(captioner.words, place)
    weight.assign(tf.fill(weight.shape, np.nan))
    before = state_of(*changed)
    batch = Batch(tf.constant(features), tf.constant([0, 1]), tf.constant(WORDS))
    assert float(step(batch, tf.constant([1, 1]), tf.constant(1.0)).skipped) == 1
    assert_same(before, state_of(*changed))
