"""The stages of training: one row each.

A row names its functions as 'module:function'. They are loaded when a run needs them, so that settings are read
without TensorFlow.
"""

import dataclasses

_OBJECTIVES = "spidercap.pipeline.training.objectives"
_SCHEDULES = "spidercap.pipeline.training.schedules"
_STEP_BASELINE = "spidercap.models.baseline:StepBaseline"
RUN_BASELINE = "the run's"  # the MLP that pg and its warm-up share
ENCODER = "encoder"  # what --learning_rate calls the encoder's tuned layers, beside the names of stages
ENCODER_RATE = 1e-5  # default, in all stages that train the captioner


@dataclasses.dataclass(frozen=True)
class StageKind:
    """What defines a stage."""

    help: str
    unit: str  # of batches and epochs: caption or image
    learning_rate: float  # default
    decay: float = 1.0  # default factor by which the learning rate falls over the stage
    epochs: float = 10.0  # default length, but not under `least_updates`: few images make short epochs
    least_updates: int = 300
    objective: str = ""  # builds the Objective; empty: maximum likelihood
    settings: tuple[str, ...] = ()  # keyword arguments of the objective, each a setting of that name
    baseline: str = ""  # builds the learned baseline of the stage alone, from (units, max_length), or RUN_BASELINE
    schedule: str = ""  # a Schedule that is annealed
    also_reads: tuple[str, ...] = ()  # further settings that only some stages read
    moves_policy: bool = True  # False: only the baseline is trained
    least_samples: int = 1  # minimum of --samples
    least_rollouts: int = 0  # minimum of --rollouts
    scored_besides: int = 0  # captions per image that are scored beside samples and rollouts

    @property
    def length(self) -> str:
        """The default length as text."""
        return f"{self.epochs:g} epoch{'s' * (self.epochs != 1)}, but {self.least_updates} updates or more"

    @property
    def learns_from_rewards(self) -> bool:
        """Whether it samples captions and scores them."""
        return bool(self.objective)

    @property
    def reads(self) -> frozenset[str]:
        """The settings that it reads and some other stage does not."""
        return frozenset((*self.settings, *self.also_reads))


_ROLLOUTS = ("samples", "rollouts", "rollout_policy", "share_rollouts")
_REWARD = ("end_token_in_reward",)
_UPDATE = ("weight_average", "weight_decay")

STAGES: dict[str, StageKind] = {
    "mle": StageKind(
        help="maximum likelihood of the reference captions",
        unit="caption",
        learning_rate=1e-3,
        decay=0.04,
        epochs=20,
        least_updates=1500,
        schedule=f"{_SCHEDULES}:SCHEDULED_SAMPLING",
        also_reads=(
            "dropout",
            "label_smoothing",
            "scheduled_sampling",
            "scheduled_sampling_step",
            "scheduled_sampling_epochs",
            *_UPDATE,
        ),
    ),
    "baseline": StageKind(
        help="warms up pg's learned baseline; the policy is not trained",
        unit="image",
        learning_rate=1e-3,
        epochs=1,
        least_updates=90,
        objective=f"{_OBJECTIVES}:policy_gradient",
        settings=_ROLLOUTS,
        baseline=RUN_BASELINE,
        also_reads=("baseline_units", *_REWARD),
        moves_policy=False,
    ),
    "pg": StageKind(
        help="policy gradient with Monte-Carlo rollouts and a learned baseline",
        unit="image",
        learning_rate=5e-5,
        objective=f"{_OBJECTIVES}:policy_gradient",
        settings=_ROLLOUTS,
        baseline=RUN_BASELINE,
        also_reads=("baseline_units", "likelihood_weight", *_REWARD, *_UPDATE),
    ),
    "mixer": StageKind(
        help="MIXER: likelihood of a reference's first tokens, REINFORCE on the sampled rest",
        unit="caption",
        learning_rate=5e-5,
        epochs=40,  # of Liu et al. (2017)
        objective=f"{_OBJECTIVES}:mixer",
        settings=("mixer_likelihood_weight",),
        baseline=_STEP_BASELINE,
        schedule=f"{_SCHEDULES}:MIXER",
        also_reads=("mixer_step", "mixer_epochs", *_REWARD, *_UPDATE),
    ),
    "scst": StageKind(
        help="self-critical: the reward of the greedy caption is the baseline",
        unit="image",
        learning_rate=5e-5,
        objective=f"{_OBJECTIVES}:self_critical",
        settings=("samples",),
        also_reads=("likelihood_weight", *_REWARD, *_UPDATE),
        scored_besides=1,
    ),
    "leave_one_out": StageKind(
        help="REINFORCE; the mean reward of the image's other samples is the baseline",
        unit="image",
        learning_rate=5e-5,
        objective=f"{_OBJECTIVES}:leave_one_out",
        settings=("samples",),
        also_reads=("likelihood_weight", *_REWARD, *_UPDATE),
        least_samples=2,
    ),
    "vine": StageKind(
        help="leave-one-out at every state: words drawn beside the caption's own, one rollout from each new one",
        unit="image",
        learning_rate=1e-4,
        objective=f"{_OBJECTIVES}:vine",
        settings=("samples", "rollouts"),
        also_reads=("likelihood_weight", *_REWARD, *_UPDATE),
        least_rollouts=1,
    ),
}


def default_pairs(field: str) -> str:
    """Returns the rows' defaults of `field` as a flag's text: 'mle:1e-3,baseline:1e-3,...'."""
    return ",".join(f"{name}:{_short(getattr(kind, field))}" for name, kind in STAGES.items())


def _short(value: float) -> str:
    digits, _, exponent = f"{value:e}".partition("e")
    return f"{value:g}" if value >= 0.01 else f"{float(digits):g}e{int(exponent)}"
