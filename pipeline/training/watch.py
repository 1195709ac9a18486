"""What goes wrong while training on rewards: warned of once in a stage, and stopped where nothing is learned."""

from collections.abc import Mapping, Sequence

import tensorflow as tf

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.training.progress import Progress
from spidercap.pipeline.training.stages import BuiltStage

LOW_ENTROPY = 0.05  # nats a word; a converged captioner has 0.2 and more
SHORT = 0.5  # of the references' mean length
REPEATED = 0.15  # share of trigrams said before in the caption; people: under 0.01
FEW = 0.1  # different captions for each picture of a batch
FEW_NEEDS = 20  # pictures in a batch, or few different captions mean nothing
CONSTANT = 1e-5  # spread of rewards, as a share of their mean; float32's rounding leaves one among equal rewards
ENDLESS = 0.5  # share of captions cut at --max_length
SKIPPED = "skipped updates"
SCORED = "captions scored"


class Watch:
    """Looks at the logs of one stage.

    What it found is kept in `progress`, so that a resumed run neither warns again nor forgets what was skipped.
    """

    def __init__(self, progress: Progress, stage: BuiltStage, max_skipped: int):
        self._progress = progress
        self._stage = stage
        self._max_skipped = max_skipped
        self._unread = self._last = tf.constant(0.0)
        self._scored = tf.constant(0, tf.int64)  # unread; float32 would lose count
        # Since the newest checkpoint. What a stage begins with was validated, so it counts as proven.
        self._applied = tf.constant(float(progress.step == 0))

    def see(self, logs: Mapping[str, tf.Tensor]) -> None:
        """Counts the step's update as applied or skipped, and its captions; waits for no result."""
        self._last = logs[SKIPPED]
        self._unread += self._last
        self._scored += tf.cast(logs.get(SCORED, 0.0), tf.int64)
        self._applied += 1.0 - self._last

    def is_sound(self) -> bool:
        """Returns whether the last update was applied, so that this is a state to go back to; waits for the step."""
        self.read()
        return float(self._last) == 0.0

    def saved(self) -> None:
        """A checkpoint was written just now."""
        self._applied = tf.constant(0.0)

    def warnings(self, values: Mapping[str, float]) -> list[str]:
        """Returns what is wrong by a step's scalars and was not told before in this stage."""
        self.read()
        # What a policy without numbers says tells nothing of captions.
        found = {} if values[SKIPPED] else _faults(values, self._stage)
        skipped = self._progress.skipped
        if skipped:
            found[SKIPPED] = (
                f"loss or gradients were no numbers in {skipped} update{'s' * (skipped > 1)}, skipped without a change "
                "to the weights; --max_skipped of them stop the run; lower --learning_rate if more come"
            )
        return self.new(found)

    def new(self, found: Mapping[str, str]) -> list[str]:
        """Returns those of the faults, by kind, that were not told before in this stage, and remembers them."""
        warned = self._progress.warned
        told = {kind: f"step {self._progress.step}: {text}" for kind, text in found.items() if kind not in warned}
        warned |= told
        return list(told.values())

    def check(self, checkpoints: Sequence[str]) -> None:
        """Stops the run if too many updates were skipped; `checkpoints` are those there are, the newest last.

        Raises:
          UserError: it names the last good checkpoint, one after which an update could be applied.
        """
        self.read()
        skipped = self._progress.skipped
        if skipped < min(self._max_skipped, self._stage.steps):
            return
        good = list(checkpoints if float(self._applied) else checkpoints[:-1])
        kept = f"the last good checkpoint is {good[-1]}" if good else "no checkpoint is known to be good"
        more = ", or go on with a higher --max_skipped" if skipped < self._stage.steps else ""
        raise UserError(
            f"{self._stage.label}: {skipped} updates were skipped by step {self._progress.step}, as loss or "
            f"gradients were no numbers; {kept}; lower --learning_rate in a new --workdir (--warm_start takes over the "
            f"weights of finished stages){more}"
        )

    def read(self) -> None:
        """Brings the progress up to the last step; waits for it."""
        self._progress.skipped += int(self._unread)
        self._progress.scored += int(self._scored)
        self._unread, self._scored = tf.constant(0.0), tf.constant(0, tf.int64)


def _faults(values: Mapping[str, float], stage: BuiltStage) -> dict[str, str]:
    """What is wrong with sampled captions and their rewards, by kind; nothing while mixer's begin with true words."""
    found = {}
    paths, images, reference_length = stage.paths_per_step, stage.images_per_step, stage.reference_length
    if not paths or values.get("words given", 0) > 0:
        return found
    if values["entropy"] < LOW_ENTROPY:
        found["entropy"] = (
            f"the policy hardly varies its captions any more (entropy {values['entropy']:.3f} nats a word), so there "
            "is little left to learn from samples; lower --learning_rate, or stop earlier"
        )
    if values["caption length"] < SHORT * reference_length:
        found["length"] = (
            f"sampled captions are short ({values['caption length']:.1f} words with the end; references have "
            f"{reference_length:.1f}); keep --end_token_in_reward, or add CIDEr to --reward, which sees a wrong length"
        )
    if values["repeated n-grams"] > REPEATED:
        found["repeated"] = (
            f"sampled captions repeat themselves ({values['repeated n-grams']:.0%} of three-word sequences were said "
            "before in the caption); add CIDEr to --reward, which does not pay for repetition"
        )
    distinct = values["distinct captions"] * paths
    if images >= FEW_NEEDS and distinct < FEW * images:
        found["distinct"] = (
            f"the sampled captions of {images} pictures are only {distinct:.0f} different ones; "
            "the policy hardly looks at its pictures; lower --learning_rate, or train longer by likelihood first"
        )
    if paths > 1 and values["spread of rewards"] <= CONSTANT * abs(values["reward"]):
        found["constant"] = (
            f"all {paths} captions of a batch earned the same reward ({values['reward']:.3f}), which teaches nothing; "
            "train longer by likelihood first, or take another --reward"
        )
    if values["never ended"] > ENDLESS:
        found["endless"] = (
            f"{values['never ended']:.0%} of sampled captions were cut at --max_length without an end; raise it, or "
            "train longer by likelihood first; CIDEr with --end_token_in_reward pays for ends"
        )
    return found
