"""Wrong calls of every public estimator and objective: each is refused by name, with the shape that came."""

import functools
import inspect

import numpy as np
import pytest
import tensorflow as tf

from spidercap.models.rollouts import Rollouts
from spidercap.pipeline.data.batches import Batch
from spidercap.pipeline.training import estimators, objectives
from spidercap.pipeline.training.experience import Experience, WordsDrawn
from spidercap.pipeline.training.shapes import check_shapes
from tests.enumeration import T

N, Q, M = 4, 6, 2


def reals(*shape):
    return tf.zeros(shape)


def integers(*shape):
    return tf.zeros(shape, tf.int32)


def flags(*shape):
    return tf.zeros(shape, tf.bool)


TOKENS = {"tokens": (integers(N, T), [integers(N), integers(N, T, 1)])}
PACKED = {
    "values": (reals(3), [reals(), reals(3, 1)]),
    "baseline": (reals(3), [reals(3, 1), reals(1), reals(2)]),
}
LOSS = PACKED | {
    "sampled": (flags(3), [flags(3, 1), flags(1)]),
    "count": (reals(), [reals(1), reals(3)]),
}
LOG_PROBS = {"log_probs": (reals(3), [reals(3, 1), reals(1, 3), reals()])}
REWARDS = {"sample_rewards": (reals(N), [reals(N, 1), reals(1), reals(N + 1), reals()])}
MASK = {"mask": (flags(3), [flags(3, 1), flags()])}
ESTIMATORS = {  # name -> argument -> (a right one, wrong ones beside right others)
    "token_mask": TOKENS,
    "likelihood_mask": TOKENS,
    "given_mask": TOKENS | {"steps": (integers(), [integers(N), integers(1, 1)])},
    "mixer_weight": {
        "steps": (integers(), [integers(1)]),
        "max_length": (T, []),
        "weight": (0.5, [reals(2), reals(1, 1)]),
    },
    "policy_weights": LOSS,
    "policy_loss": LOG_PROBS | LOSS,
    "baseline_loss": LOSS,
    "likelihood_weights": MASK | {"count": (reals(), [reals(1), reals(3)])},
    "likelihood_loss": LOG_PROBS | {"mask": (flags(3), [flags(3, 1), flags(1), flags(2)])},
    "mixed_weights": {
        "policy": (reals(3), [reals(3, 1), reals()]),
        "likelihood": (reals(3), [reals(3, 1), reals(1), reals(2)]),
        "weight": (reals(), [reals(3), reals(1)]),
    },
    "sample_values": TOKENS | REWARDS,
    "prefix_leaders": TOKENS | {"samples": (M, [0, -1, N - 1, N + 1])},
    "action_values": TOKENS
    | REWARDS
    | {
        "prefix": (integers(Q, 2), [integers(Q), integers(Q, 3), integers(2, Q)]),
        "rollout_rewards": (reals(Q), [reals(Q, 1), reals(1), reals(Q + 1)]),
        "leaders": (integers(N, T), [integers(N), integers(1, T), integers(N, 1)]),
    },
    "leave_one_out": {
        "sample_rewards": (reals(N), [reals(N, 1), reals(), reals(N + 1)]),
        "samples": (M, [1, 0, -1, N - 1, N + 1]),
    },
}
NOT_A_SHAPE = {("mixer_weight", "max_length")}

BATCH = {"features": reals(2, 3), "image_index": integers(2), "tokens": integers(2, T)}
FACTORIES = {  # name -> (right settings, wrong ones beside right others)
    "policy_gradient": (
        {"samples": M, "rollouts": 1},
        [
            {"samples": 0},
            {"rollouts": -1},
            {"rollout_policy": "greedy", "rollouts": 0},
            {"rollout_policy": "greedy", "rollouts": 2},
        ],
    ),
    "mixer": ({"mixer_likelihood_weight": 0.5}, [{"mixer_likelihood_weight": -0.1}, {"mixer_likelihood_weight": 1.1}]),
    "self_critical": ({"samples": M}, [{"samples": 0}]),
    "leave_one_out": ({"samples": M}, [{"samples": 1}, {"samples": 0}]),
    "vine": ({"samples": M, "rollouts": 1}, [{"samples": 0}, {"rollouts": 0}]),
}


def public_functions(module):
    """Names of the functions that a module defines for others."""
    functions = inspect.getmembers(module, inspect.isfunction)
    return {name for name, f in functions if f.__module__ == module.__name__ and not name.startswith("_")}


def rows(table):
    return [
        pytest.param(name, argument, wrong, id=f"{name}-{argument}-{np.shape(wrong) or wrong}")
        for name, arguments in table.items()
        for argument, (_, wrongs) in arguments.items()
        for wrong in wrongs
    ]


def right_call(name):
    return {argument: right for argument, (right, _) in ESTIMATORS[name].items()}


def test_every_function_and_every_argument_is_in_the_tables():
    assert ESTIMATORS.keys() == public_functions(estimators)
    assert FACTORIES.keys() == public_functions(objectives)
    for name, arguments in ESTIMATORS.items():
        assert arguments.keys() == inspect.signature(getattr(estimators, name)).parameters.keys()
        assert {(name, a) for a, (_, wrongs) in arguments.items() if not wrongs} <= NOT_A_SHAPE
    for name, (settings, wrongs) in FACTORIES.items():
        required = {
            p.name for p in inspect.signature(getattr(objectives, name)).parameters.values() if p.default is p.empty
        }
        assert settings.keys() == required - {"captioner", "max_length"} <= {k for wrong in wrongs for k in wrong}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_right_call_passes_also_of_sizes_that_are_unknown_while_tracing(name):
    function, call = getattr(estimators, name), right_call(name)
    expected = function(**call)
    tensors = {a: x for a, x in call.items() if tf.is_tensor(x)}
    numbers = {a: x for a, x in call.items() if not tf.is_tensor(x)}
    specs = {a: tf.TensorSpec([None] * len(x.shape[:1]) + x.shape[1:], x.dtype) for a, x in tensors.items()}
    traced = tf.function(functools.partial(function, **numbers)).get_concrete_function(**specs)
    np.testing.assert_array_equal(traced(**tensors), expected)


@pytest.mark.parametrize(("name", "argument", "wrong"), rows(ESTIMATORS))
def test_a_wrong_argument_of_an_estimator_is_refused(name, argument, wrong):
    call = right_call(name) | {argument: wrong}
    with pytest.raises(ValueError, match=f"^{name}: .* must be .*, got ") as eager:
        getattr(estimators, name)(**call)
    if tf.is_tensor(wrong):
        assert str(eager.value).endswith((f"got {wrong.shape.as_list()}", f"got {N + 1}"))
    with pytest.raises(ValueError, match=f"{name}: .* must be .*, got "):
        tf.function(lambda: getattr(estimators, name)(**call))()


def test_the_message_says_what_came_and_what_is_allowed():
    sampled, count = tf.constant([True]), tf.constant(1.0)
    with pytest.raises(ValueError) as caught:
        estimators.policy_weights(reals(3), reals(3, 1), sampled, count)
    assert str(caught.value) == "policy_weights: baseline must be [n] with n = 3, got [3, 1]"
    with pytest.raises(ValueError) as caught:
        check_shapes("f", prefix=(integers(5, 3), "Q 2"))
    assert str(caught.value) == "f: prefix must be [Q, 2], got [5, 3]"
    with pytest.raises(ValueError) as caught:
        check_shapes("f", tokens=(None, "N T"))
    assert str(caught.value) == "f: tokens must be [N, T], got None"
    with pytest.raises(ValueError) as caught:
        estimators.leave_one_out(reals(5), 2)
    assert str(caught.value) == "leave_one_out: N must be a multiple of samples = 2, got 5"


@pytest.mark.parametrize(
    ("name", "wrong"),
    [(name, wrong) for name, (_, wrongs) in FACTORIES.items() for wrong in [*wrongs, {"max_length": 0}]],
)
def test_wrong_settings_of_an_objective_are_refused(toy, name, wrong):
    settings = {"max_length": T} | FACTORIES[name][0] | wrong
    with pytest.raises(ValueError, match=f"^{name}: .*, got "):
        getattr(objectives, name)(toy[0], **settings)


def made(toy, name):
    return getattr(objectives, name)(toy[0], T, **FACTORIES[name][0])


@pytest.mark.parametrize("name", FACTORIES)
@pytest.mark.parametrize(
    "wrong",
    [{"features": reals(2)}, {"features": reals(3, 3)}, {"image_index": integers(3)}, {"image_index": integers(2, 1)}],
    ids=lambda wrong: ", ".join(f"{k} {v.shape}" for k, v in wrong.items()),
)
def test_a_batch_of_other_shapes_is_not_sampled_from(toy, name, wrong):
    batch = Batch(**BATCH | wrong)
    with pytest.raises(ValueError, match=f"^{name}: .* must be .*, got "):
        made(toy, name).sample(batch, tf.constant([1, 2]), tf.constant(1.0))


@pytest.mark.parametrize("tokens", [None, integers(2), integers(3, T), integers(2, T + 1)])
def test_mixer_needs_a_reference_of_the_full_length_for_each_image(toy, tokens):
    with pytest.raises(ValueError, match=r"^mixer: .* must be .*, got "):
        made(toy, "mixer").sample(Batch(**BATCH | {"tokens": tokens}), tf.constant([1, 2]), tf.constant(1.0))


def experience_of(name):
    """An experience of the shapes that an objective samples, of two images."""
    samples = 1 if name == "mixer" else M
    others = {"policy_gradient": Q, "self_critical": 2}.get(name, 0)
    return Experience(
        reals(2 * samples, 3),
        integers(2 * samples),
        integers(2 * samples, T),
        Rollouts(integers(others, T), integers(others, 2)),
        drawn=WordsDrawn(integers(0, 2), integers(0, 1), reals(0)) if name == "vine" else None,
    )


@pytest.mark.parametrize("name", FACTORIES)
@pytest.mark.parametrize("which", ["samples", "others"])
@pytest.mark.parametrize("wrong", [lambda n: reals(n, 1), lambda n: reals(n + 1), lambda n: reals()])
def test_rewards_of_other_shapes_give_no_credit(toy, name, which, wrong):
    experience, objective = experience_of(name), made(toy, name)
    samples, others = len(experience.tokens), len(experience.rollouts.tokens)
    assert objective.credit(experience, reals(samples), reals(others)).values.shape == [samples, T]
    rewards = (wrong(samples), reals(others)) if which == "samples" else (reals(samples), wrong(others))
    with pytest.raises(ValueError, match=f"^{name}: .*rewards must be .*, got "):
        objective.credit(experience, *rewards)
