"""Each compiled step is traced once, however many words its captions have and however many rollouts there are."""

import numpy as np
import pytest
import tensorflow as tf

from spidercap.models import decoding
from spidercap.models.special_tokens import END
from spidercap.pipeline.data.batches import Batch
from spidercap.pipeline.training.rewards import Reward
from spidercap.pipeline.training.steps import likelihood_step, policy_gradient_step
from tests.variants import OBJECTIVES, adam, learned_baseline

T = 6
LEVEL = tf.constant(1.0)
ROLLED_OUT = ("pg", "greedy rollouts")


def batches(features, count):
    """Batches of true captions of very different lengths."""
    rng = np.random.default_rng(0)
    for i in range(4):
        words = np.zeros((count, T), np.int32)
        for row in words:
            length = rng.integers(1, T + 1) if i else T
            row[: length - 1], row[length - 1] = 4, END
        pictures = tf.constant(rng.normal(size=(count, features.shape[1])), tf.float32)
        yield Batch(pictures, tf.zeros([count], tf.int32), tf.constant(words))


def counted_reward(traces, on_host):
    """A caption's number of words; counts how often its compiled part is traced."""

    def compiled(captions, image_index):
        del image_index
        traces.append("reward")
        return {"cider": tf.cast(decoding.lengths(captions), tf.float32)}

    host = {"meteor": lambda captions, images: np.ones(len(captions))}
    return Reward({"cider": 1.0} | dict.fromkeys(host if on_host else (), 1.0), compiled, host if on_host else {})


@pytest.mark.parametrize("on_host", [False, True], ids=["compiled", "on the host"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_on_a_reward_is_traced_once_a_size(toy, name, on_host):
    captioner, baseline, features = toy
    traces = []
    reward = counted_reward(traces, on_host)
    objective = OBJECTIVES[name](captioner, T)
    counted = objective._replace(
        sample=lambda *args: traces.append("sample") or objective.sample(*args),
        credit=lambda *args: traces.append("credit") or objective.credit(*args),
    )
    learned = learned_baseline(name, baseline, T)
    step = policy_gradient_step(
        captioner, learned, reward, counted, adam(captioner), adam(learned), feature_dropout=0.0
    )
    rollouts, sampler = set(), tf.function(objective.sample)
    for i, batch in enumerate(batches(features, 3)):
        if name != "mixer":
            batch = batch._replace(tokens=None)
        step(batch, tf.constant([i, 1]), LEVEL)
        if name in ROLLED_OUT:
            rollouts.add(len(sampler(batch, tf.constant([i, 1]), LEVEL).rollouts.tokens))
    assert sorted(traces) == ["credit", "reward", "sample"]
    assert len(rollouts) > 1 or name not in ROLLED_OUT  # so that rows do vary


@pytest.mark.parametrize("scheduled_sampling", [False, True])
def test_a_likelihood_step_is_traced_once_a_size(toy, scheduled_sampling):
    captioner, _, features = toy
    traces = []
    hidden = captioner.hidden
    captioner.hidden = lambda *args, **more: traces.append(1) or hidden(*args, **more)
    step = likelihood_step(captioner, adam(captioner), feature_dropout=0.0, scheduled_sampling=scheduled_sampling)
    for i, batch in enumerate(batches(features, 3)):
        step(batch, tf.constant([i, 1]), tf.constant(i / 4))
    assert len(traces) == 1
    for i, batch in enumerate(batches(features, 2)):
        step(batch, tf.constant([i, 1]), tf.constant(i / 4))
    assert len(traces) == 2
