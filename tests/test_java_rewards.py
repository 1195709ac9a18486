"""Policy gradient on rewards that Java computes: what is rewarded rises, and the command line has all of it."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from spidercap.models.baseline import Baseline
from spidercap.models.decoding import greedy
from spidercap.models.lstm_captioner import LstmCaptioner
from spidercap.models.special_tokens import END, SPECIAL_TOKENS
from spidercap.pipeline.data.batches import Batch
from spidercap.pipeline.main import main
from spidercap.pipeline.metrics.registry import METRICS, parse_metrics, parse_reward
from spidercap.pipeline.metrics.scores import score_captions
from spidercap.pipeline.text.vocabulary import Vocabulary, pad
from spidercap.pipeline.training.objectives import policy_gradient
from spidercap.pipeline.training.rewards import ReferenceTexts, build_reward, reward_frequencies
from spidercap.pipeline.training.steps import likelihood_step, policy_gradient_step
from tests.conftest import ROOT
from tests.small_exports import unchecked

THINGS = ("dog", "cat", "bus")
COLOURS = ("red", "blue")
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, "a", "on", "grass", *COLOURS, *THINGS), ())
T = 6
LEVEL = tf.constant(0.0)


@pytest.fixture
def pictures():
    """(features [6, 5], references): a thing of a colour, each with three captions."""
    features, references = [], []
    for i, thing in enumerate(THINGS):
        for k, colour in enumerate(COLOURS):
            features.append([*np.eye(len(THINGS))[i], *np.eye(len(COLOURS))[k]])
            references.append([f"a {colour} {thing}", f"a {thing} on grass", f"a {colour} {thing} on grass"])
    return np.array(features, np.float32), references


@pytest.mark.parametrize(("reward", "steps"), [pytest.param("spider", 30, marks=pytest.mark.long), ("bcmr", 60)])
def test_what_is_rewarded_rises(pictures, meteor, spice, reward, steps):
    """A few steps of likelihood, then policy gradient: sampled and greedy captions gain."""
    features, references = pictures
    weights = parse_reward(reward)
    ids = [[[*VOCABULARY.reference_ids(r.split()), END] for r in of_image] for of_image in references]
    words = np.stack([pad(of_image, T) for of_image in ids])
    keras.utils.set_random_seed(2)
    captioner, baseline = LstmCaptioner(len(VOCABULARY.words), 5, 32, 16, 0.0), Baseline(32, 16)
    captioner.adapt(features)
    mle, pg, fit = (keras.optimizers.Adam(rate) for rate in (1e-2, 1e-2, 1e-2))
    for optimizer, model in ((mle, captioner), (pg, captioner), (fit, baseline)):
        optimizer.build(model.trainable_variables)
    pictured = Batch(tf.constant(features), tf.range(len(features)), None)
    learn = likelihood_step(captioner, mle, feature_dropout=0.0)
    for i in range(10):
        learn(pictured._replace(tokens=tf.constant(words[:, i % 3])), tf.constant([0, i]), LEVEL)
    metrics = {"meteor": meteor, "spice": spice}

    def measured():
        said = greedy(*captioner.begin(tf.constant(features)), T)[0].numpy()
        captions = [VOCABULARY.decode(row) for row in said]
        return score_captions(references, captions, (reward,), metrics).corpus[METRICS[reward].column]

    frequencies = reward_frequencies(words, VOCABULARY.reference_size, True)
    made = build_reward(weights, words, frequencies, True, ReferenceTexts(VOCABULARY, references), metrics)
    objective = policy_gradient(captioner, T, samples=4, rollouts=1)
    step = policy_gradient_step(captioner, baseline, made, objective, pg, fit, feature_dropout=0.0)
    before, logs = measured(), []
    for i in range(steps):
        logs.append(step(pictured, tf.constant([1, i]), LEVEL))
    after = measured()
    assert logs[0].samples.metrics.keys() == weights.keys()
    rewards = [float(log.samples.reward) for log in logs]
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5]) * 1.1
    assert after > before * 1.1


@pytest.mark.long
def test_a_run_with_every_metric(tmp_path, corenlp):
    """All metrics in one reward and one table, from the command line."""
    output = tmp_path / "runs" / "java"
    with unchecked():
        done = main(
            [
                "main",
                f"--flagfile={ROOT / 'tests' / 'tiny.flags'}",
                f"--workdir={output}",
                "--reward=spider:1,bcmr:0.5",
                "--best_metric=SPIDEr",
                "--stages=mle:1,pg:0.4",
                "--rollouts=1",
                "--metric_workers=1",  # as each of them starts a JVM
                f"--corenlp={corenlp}",
                f"--metric_cache_dir={tmp_path / 'metrics'}",
            ]
        )
    assert done == 0
    metrics = json.loads((output / "results" / "val" / "pg.metrics.json").read_text())
    assert {METRICS[term].column for term in parse_metrics("all")} <= metrics.keys()
    assert metrics["SPIDEr"] == pytest.approx((metrics["SPICE"] + metrics["CIDEr"]) / 2)
    assert "SPIDEr" in (output / "report.html").read_text()
    assert (output / "document_frequencies.npz").is_file()
