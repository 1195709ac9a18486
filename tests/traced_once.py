"""Runs that compute the same share what TensorFlow traces of it: all but a few seconds of a tiny run are that.

A run that has traced a step or a decoder leaves it, with its models and optimizers. The next one that would trace the
same builds its own models and optimizers, and their values are copied into those that were left: it begins with the
numbers with which it would have begun alone. (What a process forgets when it is killed is tested in processes.)
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from spidercap.models.baseline import Baseline
from spidercap.models.captioner import Captioner
from spidercap.pipeline.evaluation.evaluate import build_decoder
from spidercap.pipeline.settings.config import Config, fields
from spidercap.pipeline.training import stages
from spidercap.pipeline.training.stages import BuiltStage
from spidercap.pipeline.workers import ALONE, Workers

# Settings that change what is done with a step, but not the step; `stages` and `seed` reach it otherwise.
AROUND = (
    *("workdir", "mode", "stages", "seed", "log_every", "evaluate_every", "checkpoint_every", "patience"),
    *("max_skipped", "warm_start", "temperature", "best_metric", "mixer_step", "mixer_epochs"),
    *("scheduled_sampling_epochs", "strategy"),
)


class Traced(NamedTuple):
    """Models, and what has been traced of them."""

    captioner: Captioner
    baseline: Baseline
    decode: Callable
    stages: dict[tuple, BuiltStage]


_TRACED: dict[tuple, Traced] = {}


def traced(captioner: Captioner, baseline: Baseline, max_length: int, workers: Workers = ALONE) -> Traced:
    """Returns models with the values of these; they are those of an earlier run if it had models of the same kind."""
    made = Traced(captioner, baseline, build_decoder(captioner, max_length, workers=workers), {})
    if tf.distribute.has_strategy():
        return made
    sizes = (tuple(w.shape) for w in captioner.variables + baseline.variables)
    found = _TRACED.setdefault((*sizes, captioner.dropout, captioner.precision, captioner.jit, max_length), made)
    _copy(found.captioner, captioner)
    _copy(found.baseline, baseline)
    return found


def build_stage(models: Traced, config: Config, index: int, captioner, baseline, arrays, reward) -> BuiltStage:
    """As stages.build_stage, with the step of an earlier run if it was the same."""
    built = stages.build_stage(config, index, captioner, baseline, arrays, reward)
    if tf.distribute.has_strategy():
        return built
    read = [config.of_stage(name, of) for name in fields() if name not in AROUND for of in (built.name, "baseline")]
    # Rates fall over the number of steps. A step holds its reward, so no other one has its id.
    found = models.stages.setdefault((built.name, built.steps, id(reward), *read), built)
    for name, theirs in built.state.items():
        _copy(found.state[name], theirs)
    return dataclasses.replace(built, step=found.step, state=found.state, as_kept=found.as_kept)


def _copy(ours, theirs) -> None:
    """Gives a model or an optimizer all values of another one."""
    if ours is not theirs:
        for variable, value in zip(ours.variables, theirs.variables, strict=True):
            variable.assign(value)
