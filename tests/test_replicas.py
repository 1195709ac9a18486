"""Steps on two devices are those of one on the whole batch: weights, optimizers, baselines and logs.

A few cases; `make devices-check` has all objectives.
"""

import numpy as np
import pytest
import tensorflow as tf

from spidercap.pipeline.data.batches import Parts, image_batches
from spidercap.pipeline.training.rewards import Reward
from spidercap.pipeline.training.strategies import mirrored
from tests.toy_training import REWARDS, STEPS, arrays, assert_as_on_one_device, rewarded


@pytest.mark.parametrize(
    ("name", "batch_size", "options"),
    [
        ("mle", 5, {}),
        ("pg", 5, {"reward": "host"}),
        ("mixer", 4, {}),
        ("vine", 5, {"likelihood_weight": 0.5}),
    ],
)
def test_two_devices_are_one(name, batch_size, options):
    assert_as_on_one_device(name, batch_size, mirrored(), **options)


def test_one_replica_without_finite_gradients_stops_the_update_of_both(monkeypatch):
    class Bad(Reward):
        def compiled_scores(self, captions, image_index):
            scores = super().compiled_scores(captions, image_index)
            # Of one image alone, which one replica has.
            return {term: tf.where(image_index == 2, float("nan"), score) for term, score in scores.items()}

    monkeypatch.setitem(REWARDS, "bad", lambda: Bad({"cider": 1.0}, rewarded, {}))
    logs = assert_as_on_one_device("leave_one_out", 4, mirrored(), reward="bad")
    assert 0 < sum(of_step["skipped updates"] for of_step in logs) < STEPS


@pytest.mark.parametrize(("batch_size", "count"), [(6, 2), (7, 2), (7, 3), (3, 3)])
def test_parts_are_the_whole_batch(batch_size, count):
    whole = list(image_batches(arrays(), batch_size, 1, 5, (1, 0), with_captions=True).as_numpy_iterator())
    parts = [
        list(image_batches(arrays(), batch_size, 1, 5, (1, 0), True, Parts(first, here, count)).as_numpy_iterator())
        for first, here in [(0, 1), (1, count - 1)]
    ]
    for step, batch in enumerate(whole):
        some = [parts[0][step], *parts[1][step * (count - 1) : (step + 1) * (count - 1)]]
        assert [part.first for part in some] == [i * batch_size // count for i in range(count)]
        for field in ("features", "image_index", "tokens"):
            np.testing.assert_array_equal(np.concatenate([getattr(p, field) for p in some]), getattr(batch, field))
