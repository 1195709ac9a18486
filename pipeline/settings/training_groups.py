"""Settings of training: of all stages, and of each family of stages.

Field, flag and function argument share one name.
"""

import dataclasses

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.metrics.registry import column_names, parse_reward, spelled_column, spelled_list
from spidercap.pipeline.metrics.reward_functions import parse_reward_functions
from spidercap.pipeline.settings.fields import Group, parse_pairs, setting
from spidercap.pipeline.settings.stages import ENCODER, ENCODER_RATE, STAGES, default_pairs

# name -> function that returns a tf.distribute.Strategy; "": the device that TensorFlow takes by itself
STRATEGIES = {
    "one": "",
    "mirrored": "spidercap.pipeline.training.strategies:mirrored",
    "multiworker": "spidercap.pipeline.training.strategies:multiworker",
}
EXAMPLE = "mle:20,baseline:1,pg:10"


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of a run: `name` of STAGES for `epochs` passes over the training data; None: its default length."""

    name: str
    epochs: float | None


@dataclasses.dataclass(frozen=True)
class TrainingSettings(Group):
    """Settings of all stages."""

    stages: str = setting(
        "mle,vine",
        "Stages in order, name or name:epochs; fractions of an epoch are allowed. A name alone has the stage's default "
        "length, which is longer on few images; see stages below.",
        pairs=True,
        ordered=True,
        most=1e6,
    )
    strategy: str = setting(
        "one",
        "Devices that train together, each with a part of every batch: one; mirrored: all GPUs of this machine; "
        "multiworker: those of all machines of TF_CONFIG or SLURM. Results are the same up to rounding.",
        fixed=False,
        modes=("train",),
        added=True,
        choices=STRATEGIES,
    )
    learning_rate: str = setting(
        default_pairs("learning_rate"),
        "Adam learning rate per stage; the learned baseline uses `baseline`'s. encoder: that of the layers of "
        f"--finetune_encoder, in all stages; default {ENCODER_RATE:g}.",
        pairs=True,
        most=1,
        beside={ENCODER: ENCODER_RATE},
    )
    decay: str = setting(
        default_pairs("decay"),
        "Factor by which the learning rate falls over the planned length of a stage; 1: constant.",
        pairs=True,
        most=1,
    )
    batch_size: int = setting(64, "Captions per step in mle and mixer, images per step elsewhere (B).", most=2**20)
    clip_norm: float = setting(5.0, "Global norm to which gradients are clipped; 0: off.", least=0)
    weight_decay: float = setting(
        0.0,
        "Decoupled weight decay of the captioner's weights, biases excluded; 0: off.",
        added=True,
        least=0,
        most=100,
    )
    weight_average: str = setting(
        "0",
        "Momentum of a moving average of the weights, such as 0.999; 0: off. The average is validated, kept, and "
        "passed to the next stage.",
        added=True,
        least=0,
        most=0.99999,
        by_stage=float,
    )
    patience: int = setting(0, "End a stage after this many validations without a new best; 0: off.", least=0)
    max_skipped: int = setting(
        10,
        "Stop the run after this many updates of a stage with a non-finite loss or gradient.",
        fixed=False,
        modes=("prepare", "train"),
    )
    warm_start: str = setting("", "Workdir of a trained run; this run starts from its last kept weights.")
    evaluate_every: float = setting(0.0, "Epochs between two validations; 0: one, and 20 updates or more.", least=0)
    val_images: int = setting(0, "Validation images used while training; 0: all.", least=0)
    best_metric: str = setting(
        "CIDEr", "Metric that selects the best checkpoint.", choices=column_names, spelling=spelled_column
    )

    def check(self) -> None:
        """Raises UserError for stages, learning rates and decays that are not allowed."""
        for field in dataclasses.fields(self):
            if field.metadata["pairs"]:
                self.pairs(field.name)
        if not self.parsed_stages():
            raise UserError(f"--stages is empty; for example --stages={EXAMPLE} or --stages=mle,pg")

    def parsed_stages(self) -> tuple[Stage, ...]:
        """Returns the stages in order."""
        return tuple(Stage(name, epochs) for name, epochs in self.pairs("stages"))

    def pairs(self, name: str) -> list[tuple[str, float | None]]:
        """Returns the (stage, number) of the setting `name`; in `stages` the number can be missing: None.

        In `learning_rate` the pair of ENCODER can be among them.
        """
        field = next(f for f in dataclasses.fields(self) if f.name == name)
        most, optional = field.metadata["most"], field.metadata["ordered"]

        def number(text: str, part: str) -> float | None:
            if optional and ":" not in part:
                return None
            try:
                value = float(text)
            except ValueError:
                form, example = ("name:number or name", EXAMPLE) if optional else ("name:number", field.default)
                raise UserError(f"--{name}: {part!r} is not {form}; for example {example}") from None
            if not 0 < value <= most:
                raise UserError(f"--{name}: {part!r} is out of range; allowed: above 0, at most {most:g}")
            return value

        names = (*STAGES, *field.metadata["beside"])
        return parse_pairs(name, getattr(self, name), names, number, repeated=field.metadata["ordered"])


@dataclasses.dataclass(frozen=True)
class LikelihoodSettings(Group):
    """Maximum likelihood."""

    dropout: float = setting(0.3, "mle: dropout rate of word embeddings and hidden states.", least=0, most=0.99)
    label_smoothing: float = setting(0.0, "mle: label smoothing.", least=0, most=0.99)
    scheduled_sampling: float = setting(
        0.0,
        "mle: final probability of feeding the model's own tokens instead of the reference's; 0: teacher forcing.",
        least=0,
        most=1,
    )
    scheduled_sampling_step: float = setting(
        0.05, "mle: increment of that probability, which starts at 0.", least=1e-3, most=1
    )
    scheduled_sampling_epochs: float = setting(
        5.0, "mle: epochs between two increments, and before the first.", least=1e-3
    )


@dataclasses.dataclass(frozen=True)
class RewardSettings(Group):
    """Stages that learn from rewards."""

    reward: str = setting(
        "cider",
        "Metric to maximise: one metric, spider, spider_fast (SPICE by a learned parser: compiled, no Java), "
        "bcmr, or a weighted mix such as cider:1,spice_fast:2,bleu4:0.5.",
        spelling=spelled_list,
    )
    reward_functions: str = setting(
        "",
        "Python functions that --reward can weight like a metric: name=file.py:function, separated by commas. A "
        "function gets lists of captions, of their references and of image ids, and returns one number per caption. "
        "A resumed run checks that this text is unchanged, but not the file's contents.",
        added=True,
    )
    temperature: str = setting(
        "1",
        "Temperature: divides the logits, once, at the first reward stage after likelihood. 0.5 brings samples "
        "closer to greedy captions.",
        added=True,
        least=0.05,
        most=10,
        by_stage=float,
    )
    end_token_in_reward: bool = setting(
        True, "Count the end token as a word in n-gram rewards; without it, captions learn to end in 'with a'."
    )
    samples: str = setting(
        "1", "Captions sampled per image (M); leave_one_out needs 2 or more.", most=1000, by_stage=int
    )
    likelihood_weight: float = setting(
        0.0,
        "pg, scst, leave_one_out, vine: weight of the likelihood of a reference caption in the loss; the reward has "
        "the rest.",
        added=True,
        least=0,
        most=1,
    )

    def check(self) -> None:
        """Raises UserError for a reward or reward functions that are not allowed."""
        self.weights()

    def weights(self) -> dict[str, float]:
        """Returns the weight of each single metric, and of each of the user's functions, in the reward."""
        return parse_reward(self.reward, parse_reward_functions(self.reward_functions))


@dataclasses.dataclass(frozen=True)
class RolloutSettings(Group):
    """Monte-Carlo rollouts."""

    rollouts: str = setting(
        "3",
        "Rollouts per prefix (K). pg: 0: the value of every token is the reward of its caption. vine: words drawn "
        "from each state beside the caption's own, one rollout from each new one.",
        least=0,
        most=1000,
        by_stage=int,
    )
    rollout_policy: str = setting(
        "sample",
        "pg: how rollouts are decoded. greedy needs --rollouts=1; it is cheaper, but biased.",
        choices=("sample", "greedy"),
    )
    share_rollouts: bool = setting(
        False, "pg: samples of an image that share a prefix share its rollouts; needs --samples above 1."
    )


@dataclasses.dataclass(frozen=True)
class MixerSettings(Group):
    """MIXER's schedule."""

    mixer_step: int = setting(3, "mixer: decrement of s, the number of tokens learned by likelihood.", most=1000)
    mixer_epochs: float = setting(5.0, "mixer: epochs between two decrements, from T to 0.", least=1e-3)
    mixer_likelihood_weight: float = setting(
        0.5, "mixer: weight of the likelihood while 0 < s < T; the reward has the rest.", least=0, most=1
    )
