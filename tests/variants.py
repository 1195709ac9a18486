"""Every objective once, as tests run it: small M and K, and the learned baseline that goes with it."""

import functools

from spidercap.models.baseline import StepBaseline
from spidercap.pipeline.training import objectives
from spidercap.pipeline.training.optimizer import Adam

# name -> (captioner, T) -> Objective
OBJECTIVES = {
    "pg": functools.partial(objectives.policy_gradient, samples=2, rollouts=2, share_rollouts=True),
    "greedy rollouts": functools.partial(objectives.policy_gradient, samples=1, rollouts=1, rollout_policy="greedy"),
    "reinforce": functools.partial(objectives.policy_gradient, samples=1, rollouts=0),
    "mixer": functools.partial(objectives.mixer, mixer_likelihood_weight=0.5),
    "scst": functools.partial(objectives.self_critical, samples=2),
    "leave_one_out": functools.partial(objectives.leave_one_out, samples=2),
    "vine": functools.partial(objectives.vine, samples=2, rollouts=2),
}


def learned_baseline(name, baseline, max_length):
    """Returns what learns beside an objective: `baseline`, mixer's own for a toy, or None."""
    if name == "mixer":
        return StepBaseline(baseline.hidden_layer.kernel.shape[0], max_length)
    return None if name in ("scst", "leave_one_out", "vine") else baseline


def adam(model, rate=0.05, **more):
    """Returns an optimizer whose variables are made; None for no model."""
    if model is None:
        return None
    optimizer = Adam(rate, **more)
    optimizer.build(model.trainable_variables)
    return optimizer
