"""Warns once in a stage of what goes wrong while training on rewards, and stops a run that learns nothing."""

from collections.abc import Mapping, Sequence

import tensorflow as tf

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.training.logs import StepLogs
from spidercap.pipeline.training.progress import Progress
from spidercap.pipeline.training.stages import BuiltStage

LOW_ENTROPY = 0.05  # nats a token; a converged captioner has 0.2 and more
SHORT = 0.5  # of the references' mean length
REPEATED = 0.15  # share of trigrams that occur earlier in the caption; in captions by people: under 0.01
FEW = 0.1  # different captions for each image of a batch
FEW_NEEDS = 20  # images in a batch, or few different captions mean nothing
CONSTANT = 1e-5  # std of rewards, as a share of their mean; equal rewards have one in float32, by rounding
ENDLESS = 0.5  # share of captions cut at --max_length
SKIPPED = "skipped updates"  # kind of the warning


class Watch:
    """Reads the logs of one stage.

    What it finds is stored in `progress`, so that a resumed run neither warns again nor forgets skipped updates.
    """

    def __init__(self, progress: Progress, stage: BuiltStage, max_skipped: int):
        self._progress = progress
        self._stage = stage
        self._max_skipped = max_skipped
        self._unread = self._last = tf.constant(0.0)
        self._scored = tf.constant(0, tf.int64)  # unread; float32 would lose count
        # Updates since the newest checkpoint. The weights a stage begins with were validated, so they count as good.
        self._applied = tf.constant(float(progress.step == 0))

    def see(self, logs: StepLogs) -> None:
        """Counts the step's update as applied or skipped, and its captions; does not wait for the step."""
        self._last = logs.skipped
        self._unread += self._last
        if logs.scored is not None:
            self._scored += tf.cast(logs.scored, tf.int64)
        self._applied += 1.0 - self._last

    def is_sound(self) -> bool:
        """Returns whether the last update was applied, so that this is a state to go back to; waits for the step."""
        self.read()
        return float(self._last) == 0.0

    def saved(self) -> None:
        """Notes that a checkpoint was written."""
        self._applied = tf.constant(0.0)

    def warnings(self, logs: StepLogs) -> list[str]:
        """Returns the warnings of a step, its logs as floats, that are new in this stage."""
        self.read()
        # The samples of a policy whose weights are not finite mean nothing.
        found = {} if logs.skipped else _faults(logs, self._stage)
        skipped = self._progress.skipped
        if skipped:
            found[SKIPPED] = (
                f"loss or gradients were NaN or infinite in {skipped} update{'s' * (skipped > 1)}, which changed "
                "nothing; --max_skipped of them stop the run; lower --learning_rate if more come"
            )
        return self.new(found)

    def new(self, found: Mapping[str, str]) -> list[str]:
        """Returns those of the warnings, by kind, that are new in this stage, and remembers them."""
        warned = self._progress.warned
        new = {kind: f"step {self._progress.step}: {text}" for kind, text in found.items() if kind not in warned}
        warned |= new
        return list(new.values())

    def check(self, checkpoints: Sequence[str]) -> None:
        """Stops the run if too many updates were skipped; `checkpoints` are those on disk, the newest last.

        Raises:
          UserError: it names the last good checkpoint, one after which an update was applied.
        """
        self.read()
        skipped = self._progress.skipped
        if skipped < min(self._max_skipped, self._stage.steps):
            return
        good = list(checkpoints if float(self._applied) else checkpoints[:-1])
        kept = f"the last good checkpoint is {good[-1]}" if good else "no checkpoint is known to be good"
        more = ", or resume with a higher --max_skipped" if skipped < self._stage.steps else ""
        raise UserError(
            f"{self._stage.label}: {skipped} updates were skipped by step {self._progress.step}, as loss or gradients "
            f"were NaN or infinite; {kept}; lower --learning_rate in a new --workdir (--warm_start takes over the "
            f"weights of finished stages){more}"
        )

    def read(self) -> None:
        """Brings the progress up to the last step; waits for it."""
        self._progress.skipped += int(self._unread)
        self._progress.scored += int(self._scored)
        self._unread, self._scored = tf.constant(0.0), tf.constant(0, tf.int64)


def _faults(logs: StepLogs, stage: BuiltStage) -> dict[str, str]:
    """Warnings about samples and their rewards, by kind; none while mixer's samples begin with given tokens."""
    policy, samples = logs.policy, logs.samples
    if policy is None or samples is None or (policy.given_tokens or 0) > 0:
        return {}
    found = {}
    count, images, reference_length = stage.samples_per_step, stage.images_per_step, stage.reference_length
    if policy.entropy < LOW_ENTROPY:
        found["entropy"] = (
            f"the policy hardly varies its captions any more (entropy {policy.entropy:.3f} nats a token), so there "
            "is little left to learn from samples"
        )
    if samples.length < SHORT * reference_length:
        found["length"] = (
            f"sampled captions are short ({samples.length:.1f} tokens with the end; references have "
            f"{reference_length:.1f})"
        )
    if samples.repeated_trigrams > REPEATED:
        found["repeated"] = (
            f"sampled captions repeat themselves ({samples.repeated_trigrams:.0%} of trigrams occur earlier in the "
            "same caption)"
        )
    distinct = samples.distinct * count
    if images >= FEW_NEEDS and distinct < FEW * images:
        found["distinct"] = (
            f"the sampled captions of {images} images are only {distinct:.0f} different ones, so the policy hardly "
            "depends on the image"
        )
    if count > 1 and samples.reward_std <= CONSTANT * abs(samples.reward):
        found["constant"] = (
            f"all {count} captions of a batch have the same reward ({samples.reward:.3f}), so there is nothing to "
            "learn from it"
        )
    if samples.unfinished > ENDLESS:
        found["endless"] = f"{samples.unfinished:.0%} of sampled captions were cut at --max_length without an end token"
    return {kind: f"{text}; {stage.remedies[kind]}" for kind, text in found.items()}
