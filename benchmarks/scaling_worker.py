"""What one worker of `benchmarks.scaling` measures: seconds of train steps, and of their sum over the workers.

    python -m benchmarks.scaling_worker OUTPUT SETTINGS

SETTINGS is JSON: {"steps": of each line, "batches": numbers of images of all workers together, "setting": fields of
Setting}. It is told of other workers by TF_CONFIG.
"""

import json
import os
import pathlib
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from benchmarks import timed
from benchmarks.speed_lines import still
from benchmarks.speed_world import Setting, World
from spidercap.pipeline.data.batches import Batch, caption_batches, image_batches
from spidercap.pipeline.files import write_text
from spidercap.pipeline.training import objectives, replicas
from spidercap.pipeline.training.steps import likelihood_step, policy_gradient_step
from spidercap.pipeline.training.strategies import scope_of

WARM_UP = 3  # steps; the first ones compile
SUMS = 10  # sums over the workers that are timed
ROLLOUTS = 3


def lines(world: World) -> dict[str, tuple[Callable[..., Any], Callable[..., tf.data.Dataset]]]:
    """Returns step and batches by name; the steps learn nothing, so that all of them sample captions alike."""
    captioner, length = world.captioner, world.setting.length

    def on_reward(objective: Any, learns_baseline: bool = False) -> Callable[..., Any]:
        baseline = world.baseline if learns_baseline else None
        optimizers = still(captioner), still(baseline) if learns_baseline else None
        return policy_gradient_step(captioner, baseline, world.reward, objective, *optimizers, feature_dropout=0.0)

    sampled = {"samples": 1, "rollouts": ROLLOUTS}
    return {
        "likelihood": (likelihood_step(captioner, still(captioner), feature_dropout=0.0), caption_batches),
        f"PG, K = {ROLLOUTS}": (
            on_reward(objectives.policy_gradient(captioner, length, **sampled), learns_baseline=True),
            image_batches,
        ),
        f"vine, K = {ROLLOUTS}": (on_reward(objectives.vine(captioner, length, **sampled)), image_batches),
    }


def measure(setting: Setting, batches: list[int], steps: int) -> dict[str, Any]:
    """Returns seconds of a step and bytes sent in it by line and batch, and those of a sum of all gradients."""
    with scope_of("multiworker" if "TF_CONFIG" in os.environ else "one"), tempfile.TemporaryDirectory() as folder:
        world = World(setting, pathlib.Path(folder))
        found: dict[str, Any] = {"lines": {}}
        for name, (step, make) in lines(world).items():
            for batch in batches:
                stream = replicas.batches(make(world.arrays, batch, 0, WARM_UP + steps, (0, 0), parts=replicas.parts()))
                found["lines"].setdefault(name, {})[batch] = _steps(step, stream, world)
        found["gradient"] = sum(4 * v.shape.num_elements() for v in world.captioner.trainable_variables)
        found["sum"] = _sum(world)
        return found


def _steps(step: Callable[..., Any], stream: Iterator[Batch], world: World) -> dict[str, float]:
    """Seconds, which count the wait for other workers, and bytes sent by all of them together."""
    seconds, sent = [], 0
    for number, batch in enumerate(stream):
        seed = tf.constant([1, number])
        before = _sent()
        took, _ = timed(lambda batch=batch, seed=seed: _read(step(batch, seed, world.level)))
        if number >= WARM_UP:
            seconds.append(took)
            sent += _sent() - before
    return {"seconds": statistics.fmean(seconds), "sent": sent / len(seconds)}


def _sum(world: World) -> float:
    """Seconds of a sum over the workers of tensors like the gradients."""
    shapes = [variable.shape for variable in world.captioner.trainable_variables]

    def sums() -> list[tf.Tensor]:
        return replicas.exchange([tf.ones(shape) for shape in shapes], {})[0]

    call = replicas.on_replicas(sums)
    _read(call())
    return statistics.fmean(timed(lambda: _read(call()))[0] for _ in range(SUMS))


def _read(values: Any) -> None:
    """Waits until values of the replicas are computed; a cluster has no other way to wait for its devices."""
    for value in tf.nest.flatten(replicas.local(values)):
        if value is not None:
            value.numpy()


def _sent() -> int:
    """Bytes that this machine has sent to itself since it started; 0 where Linux does not tell."""
    try:
        text = pathlib.Path("/proc/net/dev").read_text()
    except OSError:
        return 0
    return next((int(line.split()[9]) for line in text.splitlines() if line.split(":")[0].strip() == "lo"), 0)


if __name__ == "__main__":
    settings = json.loads(sys.argv[2])
    result = measure(Setting(**settings["setting"]), settings["batches"], settings["steps"])
    write_text(pathlib.Path(sys.argv[1]), json.dumps(result))
