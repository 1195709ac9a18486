"""The variance of the policy-gradient estimators at equal numbers of scored captions, on a trained run.

    python -m benchmarks.variance --workdir=runs/quickstart [--json=FILE] [--picture=docs/variance.svg]
                                  [--captions=640] [--repeats=100] [--quick]

The policy is a run's captioner after likelihood, with the baseline of its stage `baseline`. C, the number of scored
captions per estimate (samples, rollouts, greedy captions), is the same for all estimators. A pilot counts the scored
captions per image, and an estimate has B = C / count images. Images are drawn with replacement from the training split,
without dropout of features. So an estimate is the mean of B independent terms, and its variance is proportional to
1 / B. This is used to scale variances to exactly C after rounding B.

Variance is the trace of the covariance of the captioner's gradient, given with its standard error. |mean|^2 and cosine
are corrected for the noise of the mean. The cosine is that between an estimator's mean gradient and the mean of the
other unbiased ones, weighted by their precision. Its distance from 1 for unbiased estimators shows the remaining noise.
Estimators alternate, so that other load on the machine affects all. Seconds are the median of one estimate.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Callable, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from benchmarks import Report, timed
from benchmarks.bars import Moments, Result, chart, results_of, table
from spidercap.models.baseline import Baseline
from spidercap.models.captioner import Captioner
from spidercap.pipeline.data.batches import Batch
from spidercap.pipeline.data.features import all_features
from spidercap.pipeline.data.tokens import tokenize_split, training_arrays
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import write_text
from spidercap.pipeline.metrics.registry import METRICS
from spidercap.pipeline.preparation import identified_data
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.settings.flags import parse
from spidercap.pipeline.training import identity, kept, objectives, workdir
from spidercap.pipeline.training.experience import Objective
from spidercap.pipeline.training.gradients import policy_gradients
from spidercap.pipeline.training.rewards import ReferenceTexts, Reward, build_reward
from spidercap.pipeline.training.steps import scored_captions, split_rewards

SEED = 0  # of images and samples
PILOT = 256  # images whose scored captions are counted
QUICK = {"captions": 60, "repeats": 4, "pilot": 8}

# (images [B], seed [2]) -> gradient [D] and the number of scored captions
Estimate = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class Policy:
    """The policy that is sampled from, and its reward."""

    captioner: Captioner
    baseline: Baseline  # fitted
    reward: Reward  # compiled
    features: np.ndarray  # [I, F], of the images of the reward
    max_length: int


@dataclasses.dataclass(frozen=True)
class Estimator:
    """An estimator of the policy gradient."""

    name: str
    objective: Objective
    baseline: Baseline | None = None  # for objectives without their own baseline
    biased: bool = False


def main(arguments: Sequence[str]) -> int:
    """Prints the table and writes the requested files; returns 1 for a run that cannot be used."""
    flags = _parse(arguments)
    sizes = QUICK if flags.quick else {"captions": flags.captions, "repeats": flags.repeats, "pilot": PILOT}
    try:
        config = parse(["variance", "--mode=evaluate", f"--workdir={flags.workdir}"])
        with workdir.open_workdir(config):
            policy = load_policy(config)
        results = measure(policy, estimators(policy), Report(), **sizes)
        print(table(results))
        print("variance: at exactly that many scored captions; an image's: with B = 1; |mean|^2, cosine: without noise")
        if flags.quick:
            print("--quick: sizes are too small, so these numbers mean nothing")
        if flags.json:
            content = {**sizes, "reward": config.rewards.reward, "rows": [dataclasses.asdict(row) for row in results]}
            write_text(pathlib.Path(flags.json), json.dumps(content, indent=1, allow_nan=False) + "\n")
        if flags.picture:
            write_text(pathlib.Path(flags.picture), chart(results, sizes["captions"]))
        for written in filter(None, (flags.json, flags.picture)):
            print(f"wrote {written}")
    except (UserError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def load_policy(config: Config) -> Policy:
    """Returns the policy and baseline that the stage `baseline` of a run kept.

    Raises:
      UserError: the reward is not fully compiled, or the run did not start with the stages mle and baseline.
    """
    path = config.workdir_path()
    own = [term for term in config.reward_weights() if term not in METRICS]
    java = [term for term in config.reward_weights() if term in METRICS and METRICS[term].java]
    if own or java:
        needed = f"Java ({', '.join(java)})" if java else f"functions of its own ({', '.join(own)})"
        raise UserError(f"the reward of {path} needs {needed}; name a run on bleu, rouge, cider or spice_fast")
    finished = [row.name for row in kept.saved_progress(config).finished]
    if finished[:2] != ["mle", "baseline"]:
        raise UserError(
            f"{path} has finished {', '.join(finished) or 'no stage'}; needed: a run that starts with mle and "
            "baseline; train one with --stages=mle:8,baseline:3"
        )
    split = identified_data(config, ["train"])["train"]
    vocabulary = identity.kept_vocabulary(config)
    features = all_features(config, {"train": split}, identity.kept_encoder(config), {"train": 1})["train"].view()[:]
    split = tokenize_split(split, config.cache_path())
    arrays = training_arrays(split, vocabulary, features[:, None], config.data.max_length)
    captioner, baseline = kept.build_models(config, vocabulary, features.shape[-1])
    kept.load_kept(path, "baseline", captioner, baseline)
    frequencies = kept.kept_frequencies(config, arrays.references, vocabulary)
    texts = ReferenceTexts(vocabulary, split.texts())
    reward = build_reward(
        config.reward_weights(), arrays.references, frequencies, config.rewards.end_token_in_reward, texts
    )
    return Policy(captioner, baseline, reward, features, config.data.max_length)


def estimators(policy: Policy) -> list[Estimator]:
    """Returns the compared estimators; variances are relative to that of the first one."""
    captioner, length = policy.captioner, policy.max_length

    def pg(name: str, *, samples: int = 1, rollouts: int, baseline: Baseline = policy.baseline, **more) -> Estimator:
        made = objectives.policy_gradient(captioner, length, samples=samples, rollouts=rollouts, **more)
        return Estimator(name, made, baseline, biased=more.get("rollout_policy") == "greedy")

    def vine(words: int, samples: int = 1) -> Estimator:
        many = f", M = {samples}" if samples > 1 else ""
        made = objectives.vine(captioner, length, samples=samples, rollouts=words)
        return Estimator(f"vine, K = {words}{many}", made)

    nothing = Baseline(captioner.units, 1)  # untrained, so that it predicts exactly 0
    return [
        pg("REINFORCE, no baseline", rollouts=0, baseline=nothing),
        pg("REINFORCE, learned baseline (PG, K = 0)", rollouts=0),
        pg("PG, K = 1", rollouts=1),
        pg("PG, K = 3", rollouts=3),
        pg("PG, K = 5", rollouts=5),
        pg("PG, K = 1, M = 5", samples=5, rollouts=1),
        pg("PG, K = 1, M = 5, shared rollouts", samples=5, rollouts=1, share_rollouts=True),
        pg("PG, K = 1, greedy rollouts (biased)", rollouts=1, rollout_policy="greedy"),
        Estimator("SCST, M = 1", objectives.self_critical(captioner, length, samples=1)),
        Estimator("SCST, M = 5", objectives.self_critical(captioner, length, samples=5)),
        Estimator("leave-one-out, M = 5", objectives.leave_one_out(captioner, length, samples=5)),
        vine(1),
        vine(3),
        vine(5),
        vine(3, samples=3),
    ]


def measure(
    policy: Policy, compared: Sequence[Estimator], report: Report, *, captions: int, repeats: int, pilot: int
) -> list[Result]:
    """Returns a result for each estimator, of `repeats` (3 or more) estimates of about `captions` scored captions.

    Raises:
      UserError: all estimates of an estimator are equal.
    """
    rng, features = np.random.default_rng(SEED), tf.constant(policy.features)

    def drawn(images: int) -> tuple[tf.Tensor, tf.Tensor]:
        rows = rng.integers(len(policy.features), size=images, dtype=np.int32)
        return tf.constant(rows), tf.constant(rng.integers(2**31, size=2, dtype=np.int32))

    compiled = [_compiled(policy, estimator, features) for estimator in compared]
    sizes, moments = [], [Moments() for _ in compared]
    costs: list[list[tuple[float, int]]] = [[] for _ in compared]
    for estimator in compared:
        per_image = scored_per_image(estimator, features, *drawn(pilot))
        sizes.append(images_of(captions, per_image))
        report.log(f"{estimator.name}: {per_image:.1f} scored captions per image, {sizes[-1]} images")
    for repeat in range(repeats + 1):
        for estimate, size, moment, cost in zip(compiled, sizes, moments, costs, strict=True):
            batch = drawn(size)
            seconds, (gradient, scored) = timed(lambda run=estimate, batch=batch: [x.numpy() for x in run(*batch)])
            if repeat:  # the first call traces
                moment.add(gradient)
                cost.append((seconds, int(scored)))
        if repeat in (0, repeats // 2, repeats):
            report.log(f"{repeat} of {repeats} estimates per estimator")
    names = [(estimator.name, estimator.biased) for estimator in compared]
    return results_of(names, sizes, moments, costs, captions)


def images_of(captions: int, per_image: float) -> int:
    """Returns the number of images, 2 or more, with about so many scored captions."""
    return max(2, round(captions / per_image))


def scored_per_image(estimator: Estimator, features: tf.Tensor, images: tf.Tensor, seed: tf.Tensor) -> float:
    """Returns the mean number of scored captions per image of the images `[B]`."""
    experience = estimator.objective.sample(_batch(features, images), seed, tf.zeros([]))
    return len(scored_captions(experience)[0]) / len(images)


def _compiled(policy: Policy, estimator: Estimator, features: tf.Tensor) -> Estimate:
    @tf.function
    def estimate(images: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        experience = estimator.objective.sample(_batch(features, images), seed, tf.zeros([]))
        captions, of_image = scored_captions(experience)
        rewards = policy.reward.total(policy.reward.compiled_scores(captions, of_image))
        credit = estimator.objective.credit(experience, *split_rewards(experience, rewards))
        gradients, *_ = policy_gradients(policy.captioner, estimator.baseline, experience, credit)
        return tf.concat([tf.reshape(g, [-1]) for g in gradients], axis=0), tf.shape(captions)[0]

    return estimate


def _batch(features: tf.Tensor, images: tf.Tensor) -> Batch:
    return Batch(tf.gather(features, images), images, None)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.variance", description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", default="", help="folder of a run that has finished the stages mle and baseline")
    parser.add_argument("--json", default="", help="JSON file for the results")
    parser.add_argument("--picture", default="", help="SVG file for a chart of the variances")
    parser.add_argument("--captions", type=int, default=640, help="scored captions per estimate (C)")
    parser.add_argument("--repeats", type=int, default=100, help="estimates per estimator")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to check that everything runs")
    flags = parser.parse_args(arguments)
    if flags.captions < 2 or flags.repeats < 3:
        parser.error("a variance and its error need --captions of 2 or more and --repeats of 3 or more")
    return flags


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
