"""The loop: a run that was stopped anywhere ends with the same numbers as one that was not."""

import dataclasses
import json
import os
import signal

import numpy as np
import pytest
import tensorflow as tf

from models.captioner import END
from pipeline.config import Config
from pipeline.errors import Interrupted, UserError
from pipeline.evaluate import Evaluation, build_decoder
from pipeline.inputs import TrainingArrays, caption_batches, image_batches
from pipeline.progress import read_progress
from pipeline.rewards import build_reward, reward_frequencies
from pipeline.saver import Models
from pipeline.train import train
from pipeline.vocabulary import Vocabulary
from pipeline.workdir import build_models, load_kept, stage_labels
from tests.oracles import padded

IMAGES, WORDS, LENGTH = 24, 12, 6
VOCABULARY = Vocabulary(tuple("abcdefghijkl"), ())


class Silent:
    """A board that writes nothing."""

    def scalars(self, step, group, values):
        pass

    def validation(self, step, evaluation):
        pass


def make_arrays():
    rng = np.random.default_rng(0)
    captions = [[int(w) for w in rng.integers(4, WORDS, rng.integers(2, 5))] + [END] for _ in range(IMAGES * 2)]
    words = padded(captions, LENGTH)
    features = rng.normal(size=(IMAGES, 5)).astype(np.float32)
    return TrainingArrays(
        features, words, np.repeat(np.arange(IMAGES, dtype=np.int32), 2), words.reshape(IMAGES, 2, -1)
    )


@pytest.fixture
def arrays():
    return make_arrays()


def config_of(workdir, **changes):
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
    return Config(**settings | changes)


def run(config, arrays, stop_at=None):
    """Trains; with `stop_at` a SIGTERM comes during that validation. Returns weights and progress."""
    captioner, baseline = build_models(config, VOCABULARY, 5)
    frequencies = reward_frequencies(arrays.references, WORDS + 1, True)
    reward = build_reward({"cider": 1.0}, arrays.references, frequencies, True)
    decode = build_decoder(captioner, LENGTH)
    calls = []

    def validate():
        calls.append(1)
        if len(calls) == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        words = decode(arrays.features)
        score = float(np.mean(reward.scores(tf.constant(words), tf.range(IMAGES))["cider"]))
        corpus = {"CIDEr": score, "mean length": 0.0, "distinct captions": 0.0}
        return Evaluation(tuple(map(str, words.tolist())), corpus, ())

    progress = train(
        config,
        Models(captioner, baseline),
        arrays,
        reward,
        validate,
        lambda: captioner.adapt(arrays.features),
        Silent(),
    )
    return [w.numpy() for w in captioner.weights + baseline.weights], progress


def without_seconds(progress):
    content = dataclasses.asdict(progress)
    return {k: v for k, v in json.loads(json.dumps(content), object_hook=_drop).items()}


def _drop(item):
    item.pop("seconds", None)
    return item


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(weights, progress) of a run that nobody stopped."""
    return run(config_of(tmp_path_factory.mktemp("whole")), make_arrays())


@pytest.mark.parametrize("stop_at", [2, 6, 9], ids=["within mle", "at the end of mle", "within pg"])
def test_resumed_equals_uninterrupted(tmp_path, arrays, whole, stop_at):
    with pytest.raises(Interrupted):
        run(config_of(tmp_path), arrays, stop_at)
    resumed, progress = run(config_of(tmp_path), arrays)
    for a, b in zip(whole[0], resumed, strict=True):
        np.testing.assert_array_equal(a, b)
    assert without_seconds(progress) == without_seconds(whole[1])
    assert [row["name"] for row in progress.finished] == ["mle", "baseline", "pg"]
    # Started once more, a finished run trains nothing and holds the same weights.
    again, progress = run(config_of(tmp_path), arrays)
    for a, b in zip(resumed, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(progress.finished) == 3


def test_best_weights_are_handed_on(tmp_path, arrays):
    """What a stage hands on is what validated best, not what came last."""
    config = config_of(tmp_path, stages="mle:4", learning_rate="mle:0.3", seed=1)  # wild enough to fall again
    weights, progress = run(config, arrays)
    scores = [row["CIDEr"] for row in progress.history]
    assert progress.finished[0]["best_step"] == progress.history[int(np.argmax(scores))]["step"]
    assert np.argmax(scores) < len(scores) - 1
    captioner, baseline = build_models(config, VOCABULARY, 5)
    load_kept(tmp_path, "mle", captioner, baseline)
    for a, b in zip(weights, captioner.weights + baseline.weights, strict=True):
        np.testing.assert_array_equal(a, b.numpy())
    words = build_decoder(captioner, LENGTH)(arrays.features)
    reward = build_reward(
        {"cider": 1.0}, arrays.references, reward_frequencies(arrays.references, WORDS + 1, True), True
    )
    assert float(np.mean(reward.scores(tf.constant(words), tf.range(IMAGES))["cider"])) == pytest.approx(
        max(scores), abs=1e-5
    )


def test_patience_ends_a_stage(tmp_path, arrays):
    config = config_of(tmp_path, stages="mle:50", learning_rate="mle:0.3", patience=2)
    _, progress = run(config, arrays)
    scores = [row["CIDEr"] for row in progress.history]
    assert len(scores) < 100
    assert max(scores[-2:]) <= max(scores[:-2])
    assert progress.finished[0]["steps"] == progress.history[-1]["step"]


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
    progress = read_progress(tf.train.latest_checkpoint(str(tmp_path / "checkpoints")))
    assert (progress.stage, progress.step) == (1, 0)
    assert progress.finished[0]["images_seen"] == 7 * 7  # 48 captions, 7 a step
    assert progress.finished[0]["seconds"] > 0


@pytest.mark.parametrize(("batches", "size"), [(caption_batches, IMAGES * 2), (image_batches, IMAGES)])
def test_batches_run_through_the_data_and_can_begin_anywhere(arrays, batches, size):
    def seen(first, steps):
        return [(f.numpy(), w.numpy()) for f, w in batches(arrays, 5, first, steps, (1, 0))]

    whole = seen(0, 30)
    assert len(whole) == 30 and all(len(f) == len(w) == 5 for f, w in whole)
    for (f, w), (g, v) in zip(whole[11:], seen(11, 30), strict=True):
        np.testing.assert_array_equal(f, g)
        np.testing.assert_array_equal(w, v)
    rows = np.concatenate([w for _, w in whole])
    expected = np.sort(arrays.words if rows.ndim == 2 else np.arange(IMAGES), axis=0)
    for epoch in range(30 * 5 // size):
        part = rows[epoch * size : (epoch + 1) * size]
        np.testing.assert_array_equal(np.sort(part, axis=0), expected)
    assert (rows[:size] != rows[size : 2 * size]).any()


def test_stage_labels_are_unique():
    config = Config(workdir="x", stages="mle:1,pg:1,mle:2,pg:1,pg:1")
    assert stage_labels(config) == ["mle", "pg", "mle-2", "pg-2", "pg-3"]
