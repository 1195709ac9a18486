"""The benchmark of the estimators' variance: its statistics, a policy whose variance is known, and the whole of it."""

import json
import math
import pathlib
import shutil
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import Report, variance
from benchmarks.bars import Moments, Result, chart, cosines
from spidercap.models import decoding
from spidercap.pipeline import digests, modes
from spidercap.pipeline.main import main
from spidercap.pipeline.settings.flags import parse
from spidercap.pipeline.training.checkpoint_files import newest_checkpoint
from spidercap.pipeline.training.rewards import Reward
from spidercap.pipeline.training.run_files import kept_folder
from spidercap.pipeline.training.workdir import open_workdir
from tests import plain
from tests.conftest import ROOT
from tests.enumeration import CAPTIONS, REWARDS, T, distribution, flat, table_reward
from tests.oracles import padded

SVG = "{http://www.w3.org/2000/svg}"


def moments_of(vectors):
    moments = Moments()
    for vector in vectors:
        moments.add(vector)
    return moments


class TestMoments:
    def test_moments_are_numpys(self):
        """Also of float32 vectors far from 0, of which sums of squares would not do."""
        vectors = np.random.default_rng(0).normal([1e3, -2e3, 0], [1, 2, 0.1], (50, 3)).astype(np.float32)
        moments = moments_of(vectors)
        exact = vectors.astype(np.float64)
        assert moments.variance() == pytest.approx(exact.var(axis=0, ddof=1).sum(), rel=1e-9)
        np.testing.assert_allclose(moments.mean, exact.mean(axis=0), rtol=1e-12)

    def test_standard_error_is_the_spread_of_variances(self):
        """Of many samples; coordinates of different size, as their number would else hide a wrong one."""
        rng, scale = np.random.default_rng(1), np.array([1, 2, 3, 0.5])
        samples = [moments_of(rng.normal(5, scale, (20, 4))) for _ in range(1000)]
        spread = np.std([m.variance() for m in samples])
        told = math.sqrt(np.mean([m.standard_error() ** 2 for m in samples]))
        assert told == pytest.approx(spread, rel=0.1)

    def test_squared_mean_is_without_noise(self):
        rng, mean = np.random.default_rng(2), np.array([0.3, -0.1, 0.2])
        samples = [moments_of(rng.normal(mean, 1, (10, 3))) for _ in range(2000)]
        assert np.mean([m.squared_mean() for m in samples]) == pytest.approx(mean @ mean, abs=0.03)


class TestCosines:
    mean = np.random.default_rng(3).normal(0, 1, 400)

    def moments(self, mean, noise, seed, count=50):
        return moments_of(np.random.default_rng(seed).normal(mean, noise, (count, 400)))

    def test_noise_is_taken_out_and_bias_is_not(self):
        """Without that the two unbiased means would be at 0.72; a biased, exact one is not among the true ones."""
        biased = self.moments(self.leaning(), 0.1, 7)
        all_moments = [self.moments(self.mean, 5, 5), self.moments(self.mean, 3, 6), biased]
        a, b = all_moments[0].mean, all_moments[1].mean
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) < 0.8
        found = cosines(all_moments, [False, False, True])
        np.testing.assert_allclose(found, [1, 1, 0.8], atol=0.08)

    def test_none_is_compared_with_itself(self):
        all_moments = [self.moments(self.mean, 0.1, 5), self.moments(self.leaning(), 0.1, 6)]
        np.testing.assert_allclose(cosines(all_moments, [False, False]), [0.8, 0.8], atol=0.01)

    def leaning(self):
        """A vector whose cosine with the mean is 0.8."""
        aside = np.random.default_rng(4).normal(0, 1, 400)
        aside -= aside @ self.mean / (self.mean @ self.mean) * self.mean
        return self.mean + 0.75 * aside * np.linalg.norm(self.mean) / np.linalg.norm(aside)

    def test_a_mean_lost_in_noise_has_none(self):
        opposite = moments_of([self.mean, -self.mean] * 2)
        all_moments = [self.moments(self.mean, 0.1, 5), self.moments(self.mean, 0.1, 6), opposite]
        found = cosines(all_moments, [False] * 3)
        assert found[2] is None and found[0] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("captions", "per_image", "images"), [(640, 1.0, 640), (640, 11.3, 57), (640, 6.0, 107), (60, 53.8, 2)]
)
def test_images_give_about_so_many_captions(captions, per_image, images):
    assert variance.images_of(captions, per_image) == images


def policy_of(toy):
    captioner, baseline, features = toy
    return variance.Policy(captioner, baseline, Reward({"table": 1.0}, rewards_of, {}), features, T)


def rewards_of(captions, image_index):
    return {"table": table_reward(captions, image_index)}


def exact_variance(policy, samples, baselines):
    """The variance of one image's term: grad log P(c) (r(c) - b), the mean of `samples` independent captions."""
    words = tf.constant(padded(CAPTIONS, T))

    @tf.function
    def score(features, words):
        with tf.GradientTape() as tape:
            hidden = tf.boolean_mask(plain.hidden(policy.captioner, features, words), words != 0)
            log_prob = tf.reduce_sum(plain.log_probs(policy.captioner, hidden, tf.boolean_mask(words, words != 0)))
        return tape.gradient(log_prob, policy.captioner.trainable_variables)

    means, within = [], []
    for image, expected in enumerate(baselines):
        features = policy.features[image : image + 1]
        weights = np.array(list(distribution(policy.captioner, features).values()))
        advantages = np.array([REWARDS[c] * (image + 1) - expected for c in CAPTIONS])
        scores = np.stack([flat(score(tf.constant(features), words[k : k + 1])) for k in range(len(CAPTIONS))])
        terms = scores * advantages[:, None]
        means.append(weights @ terms)
        within.append(weights @ (terms**2).sum(axis=1) - means[-1] @ means[-1])
    return np.mean(within) / samples + np.var(means, axis=0).sum()


class TestKnownVariance:
    def test_plain_reinforce(self, toy):
        """One over C: each caption is an image's term."""
        policy = policy_of(toy)
        self.check(policy, "REINFORCE, no baseline", 40, exact_variance(policy, 1, [0, 0]) / 40)

    def test_greedy_captions_count_and_rounding_does_not(self, toy):
        """6 captions an image, and 2 images at least: there are 12 captions, and the variance is that of 8."""
        policy = policy_of(toy)
        greedy, _ = decoding.greedy(*policy.captioner.begin(tf.constant(policy.features)), T)
        exact = exact_variance(policy, 5, table_reward(greedy, tf.range(2)).numpy())
        assert self.check(policy, "SCST, M = 5", 8, exact / (8 / 6)).scored == 12

    def check(self, policy, name, captions, exact):
        estimator = next(e for e in variance.estimators(policy) if e.name == name)
        result = variance.measure(policy, [estimator], Report(), captions=captions, repeats=300, pilot=8)[0]
        assert result.standard_error < 0.08 * exact
        assert abs(result.variance - exact) < 4 * result.standard_error
        return result


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The workdir of a finished run, without the exported model, which takes half of the time and is not read here."""
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    flags = [f"--flagfile={ROOT / 'tests' / 'tiny.flags'}", f"--workdir={workdir}"]
    flags += ["--image_size=32", "--stages=mle:0.5,baseline:0.5"]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("export_once", "run_caption"):
            patch.setattr(modes, name, lambda *settings: None)
        assert main(["main", *flags]) == 0
    return workdir


@pytest.mark.long
def test_the_whole_of_it(finished, tmp_path, capsys):
    files = [f"--json={tmp_path / 'out.json'}", f"--picture={tmp_path / 'out.svg'}"]
    assert variance.main([f"--workdir={finished}", "--quick", *files]) == 0
    printed = capsys.readouterr().out
    content = json.loads((tmp_path / "out.json").read_text())
    rows = {row["name"]: row for row in content["rows"]}
    texts = [e.text for e in ElementTree.parse(tmp_path / "out.svg").iter(f"{SVG}text")]
    assert len(rows) == 15
    assert [name for name, row in rows.items() if row["biased"]] == ["PG, K = 1, greedy rollouts (biased)"]
    for name, row in rows.items():
        assert name in printed and name in texts
        assert row["images"] >= 2 and row["scored"] >= row["images"]
        assert all(row[key] > 0 for key in ("variance", "standard_error", "ratio", "seconds"))
    for name, images, scored in (("REINFORCE, no baseline", 60, 60), ("SCST, M = 5", 10, 60), ("SCST, M = 1", 30, 60)):
        assert (rows[name]["images"], rows[name]["scored"]) == (images, scored)
    of_rollouts = [rows[f"PG, K = {k}"]["images"] for k in (1, 3, 5)]
    assert of_rollouts == sorted(of_rollouts, reverse=True) and of_rollouts[0] > of_rollouts[2]
    assert rows["REINFORCE, no baseline"]["ratio"] == 1


@pytest.mark.long
def test_the_policy_is_what_the_baseline_stage_kept(finished):
    config = parse(["variance", "--mode=evaluate", f"--workdir={finished}"])
    with open_workdir(config):
        policy = variance.load_policy(config)
    kept = tf.train.load_checkpoint(str(newest_checkpoint(kept_folder(finished, "mle")) / "weights"))
    weights = kept.get_tensor("captioner/words/_kernel/.ATTRIBUTES/VARIABLE_VALUE")
    np.testing.assert_array_equal(policy.captioner.words.kernel, weights)
    assert np.abs(policy.baseline.value.kernel).max() > 0
    plain = variance.estimators(policy)[0].baseline
    assert not plain(tf.random.stateless_normal([5, 12], [0, 1]), tf.range(5)).numpy().any()


class TestBadWorkdirs:
    def refused(self, workdir, capsys):
        """What is told, in one line."""
        assert variance.main([f"--workdir={workdir}", "--quick"]) == 1
        lines = capsys.readouterr().err.splitlines()
        assert sum(line.startswith("error: ") for line in lines) == 1 and "Traceback" not in "".join(lines)
        return next(line for line in lines if line.startswith("error: "))

    def test_none_and_empty(self, tmp_path, capsys):
        assert "no --workdir given" in self.refused("", capsys)
        assert f"{tmp_path} holds no run" in self.refused(tmp_path, capsys)

    @pytest.mark.long  # as making the run takes 20 seconds
    def test_nothing_finished(self, finished, capsys):
        other = self.copied(finished, "unfinished")
        shutil.rmtree(other / "checkpoints")
        assert "has finished no stage; needed: a run that starts with mle and baseline" in self.refused(other, capsys)

    @pytest.mark.long
    def test_java(self, finished, capsys):
        other = self.copied(finished, "spider")
        settings = json.loads((other / "config.json").read_text())
        (other / "config.json").write_text(json.dumps(settings | {"reward": "spider"}))
        digests.record(other, ["config.json"])
        assert "needs Java (spice)" in self.refused(other, capsys)

    def copied(self, finished: pathlib.Path, name: str) -> pathlib.Path:
        return pathlib.Path(shutil.copytree(finished, finished.parent / name))


def test_bars_are_where_the_axis_says():
    """A bar ends at its value, its whisker two standard errors on, and values below the axis stay inside."""
    rows = [
        Result(name, name == "b <&>", 2, 4.0, variance, error, variance / 0.5, 1.0, 0.1, None, 0.1)
        for name, variance, error in (("a", 0.5, 0.05), ("b <&>", 5.0, 0.5), ("c", 0.05, 0.03))
    ]
    root = ElementTree.fromstring(chart(rows, 640))
    texts = {e.text: float(e.get("x")) for e in root.iter(f"{SVG}text") if e.get("text-anchor") == "middle"}
    bars = [float(e.get("x")) + float(e.get("width")) for e in list(root.iter(f"{SVG}rect"))[1:]]
    assert bars[:2] == pytest.approx([texts["1"], texts["10"]], abs=0.11)
    per_decade = texts["10"] - texts["1"]
    whiskers = [e.get("d") for e in root.iter(f"{SVG}path") if "v8" in e.get("d")]
    right = float(whiskers[0].split("H")[1].split("M")[0])
    assert right == pytest.approx(texts["1"] + per_decade * math.log10(1.2), abs=0.11)
    assert float(whiskers[2][1:].split(" ")[0]) >= float(root.findall(f"{SVG}rect")[1].get("x"))
    assert len({e.get("fill") for e in list(root.iter(f"{SVG}rect"))[1:]}) == 2
