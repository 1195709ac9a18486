"""Whole runs of the training loop, of seconds: made-up features and captions, no pictures, no files but the workdir."""

import dataclasses
import functools
import json
import os
import signal
from unittest import mock

import numpy as np
import tensorflow as tf

from spidercap.models.special_tokens import END, PAD
from spidercap.pipeline.data.batches import TrainingArrays
from spidercap.pipeline.evaluation.evaluate import Evaluation
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.text.vocabulary import Vocabulary
from spidercap.pipeline.training import loop, stages
from spidercap.pipeline.training.checkpoints import Models
from spidercap.pipeline.training.kept import build_models, load_warm_start
from spidercap.pipeline.training.loop import train
from spidercap.pipeline.training.rewards import build_reward, reward_frequencies
from spidercap.pipeline.training.strategies import scope_of
from spidercap.pipeline.workers import ALONE
from tests import traced_once
from tests.oracles import padded

IMAGES, VIEWS, WORDS, LENGTH = 24, 3, 12, 6
VOCABULARY = Vocabulary(tuple("abcdefghijkl"), ())


class Silent:
    """A board that writes nothing."""

    def begin(self, sizes, shown):
        pass

    def flush(self):
        return {}

    def scalars(self, step, group, values):
        pass

    def validation(self, step, evaluation):
        pass

    def finish(self, step, metrics):
        pass


def make_arrays():
    """Returns TrainingArrays of IMAGES images, VIEWS views and two captions of each."""
    rng = np.random.default_rng(0)
    captions = [[int(w) for w in rng.integers(4, WORDS, rng.integers(2, 5))] + [END] for _ in range(IMAGES * 2)]
    words = padded(captions, LENGTH)
    features = rng.normal(size=(IMAGES, VIEWS, 5)).astype(np.float32)
    return TrainingArrays(
        features, words, np.repeat(np.arange(IMAGES, dtype=np.int32), 2), words.reshape(IMAGES, 2, -1)
    )


def config_of(workdir, **changes):
    """Returns the Config of a tiny run."""
    settings = {
        "workdir": str(workdir),
        "stages": "mle:3,baseline:1,pg:2",
        "learning_rate": "mle:1e-2,baseline:1e-2,pg:1e-2",
        "batch_size": 7,
        "units": 8,
        "embedding_size": 6,
        "baseline_units": 5,
        "max_length": LENGTH,
        "log_every": 3,
        "evaluate_every": 0.5,
    }
    return Config.of(**settings | changes)


def cider_of(arrays):
    """Returns the reward CIDEr-D, the same one for the same references, so that it is traced once."""

    def build():
        frequencies = reward_frequencies(arrays.references, WORDS + 1, True)
        return build_reward({"cider": 1.0}, arrays.references, frequencies, True)

    return _once("cider", arrays, build)


def agreement_of(arrays):
    """Returns Agreement, the same one for the same references."""
    return _once("agreement", arrays, lambda: Agreement(arrays))


def _once(name, arrays, build):
    key = name, arrays.references.shape, arrays.references.tobytes()
    if key not in _REWARDS:
        _REWARDS[key] = build()
    return _REWARDS[key]


_REWARDS = {}


class Agreement:
    """A compiled reward that is traced at once: how many words stand where an image's first reference has them."""

    is_compiled = True

    def __init__(self, arrays):
        self._first = tf.constant(arrays.references[:, 0])

    def compiled_scores(self, captions, image_index):
        same = (captions == tf.gather(self._first, image_index)) & (captions != PAD)
        return {"agreement": tf.reduce_sum(tf.cast(same, tf.float32), axis=1)}

    def total(self, scores):
        return scores["agreement"]


def stop_this():
    """Sends SIGTERM to this process."""
    os.kill(os.getpid(), signal.SIGTERM)


def run(config, arrays, stop_at=None, reward=None, stop=stop_this, workers=ALONE):
    """Trains on `reward`, by default Agreement, and validates by CIDEr-D. Returns weights and progress.

    With `stop_at` it calls `stop` during that validation.
    """
    with scope_of(config.training.strategy):
        return _run(config, arrays, stop_at, reward, stop, workers)


def _run(config, arrays, stop_at, reward, stop, workers):
    models = traced_once.traced(*build_models(config, VOCABULARY, 5), LENGTH, workers)
    captioner, baseline, decode, _ = models
    cider = cider_of(arrays)
    calls = []

    def begin():
        captioner.adapt(arrays.features[:, 0])
        if config.training.warm_start:
            load_warm_start(config, VOCABULARY, captioner, baseline)

    def all_weights():
        # In the history, so that two runs whose weights ever differed do not end alike.
        return float(sum(np.abs(w.numpy()).sum() for w in captioner.weights + baseline.weights))

    def validate():
        calls.append(1)
        if len(calls) == stop_at:
            stop()
        words = decode(arrays.features[:, 0]).tokens[:, 0]
        score = float(np.mean(cider.scores(tf.constant(words), tf.range(IMAGES))["cider"]))
        corpus = {"CIDEr": score, "mean length": 0.0, "distinct captions": 0.0, "all weights": all_weights()}
        return Evaluation(tuple(map(str, words.tolist())), corpus, ())

    reward = agreement_of(arrays) if reward is None else reward
    with mock.patch.object(loop, "build_stage", functools.partial(traced_once.build_stage, models)):
        progress = train(config, Models(captioner, baseline), arrays, reward, validate, begin, Silent(), workers)
    return [w.numpy() for w in captioner.weights + baseline.weights], progress


def poison(monkeypatch, steps):
    """Makes the features of these steps (from 0, in every stage) NaN, for as long as the patch lasts."""

    def with_poison(batches):
        def spoilt_batches(arrays, batch_size, first_step, **more):
            def spoil(step, batch):
                wrong = tf.reduce_any(step == tf.constant(list(steps), tf.int64))
                return batch._replace(features=tf.where(wrong, np.nan, batch.features))

            return batches(arrays, batch_size, first_step, **more).enumerate(first_step).map(spoil)

        return spoilt_batches

    for name in ("caption_batches", "image_batches"):
        monkeypatch.setattr(stages, name, with_poison(getattr(stages, name)))


def assert_same_end(one, other):
    """Asserts that two results of `run` are the same to the bit, but for the time that they took."""
    for a, b in zip(one[0], other[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert without_seconds(one[1]) == without_seconds(other[1])


def without_seconds(progress):
    """Returns a Progress as a dict, without what differs from run to run."""
    return json.loads(json.dumps(dataclasses.asdict(progress)), object_hook=_drop)


def _drop(item):
    item.pop("seconds", None)
    return item
