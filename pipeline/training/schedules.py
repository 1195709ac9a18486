"""What a stage anneals: a number that falls or rises with the epochs, and what to tell where it does not get there."""

import math
from collections.abc import Callable
from typing import NamedTuple

from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.training import estimators


class Schedule(NamedTuple):
    """The two functions."""

    level: Callable[[Config, float], float]  # (settings, epoch) -> the number
    note: Callable[[Config, float], str]  # (settings, the stage's last number) -> what the user might not expect, or ''


def _mixer_level(config: Config, epoch: float) -> float:
    return estimators.mixer_steps(epoch, config.data.max_length, config.mixer.mixer_step, config.mixer.mixer_epochs)


def _mixer_note(config: Config, last: float) -> str:
    if last == 0:
        return ""
    longest, mixer = config.data.max_length, config.mixer
    falls = f"falls to {last} only" if last < longest else f"stays at {last}, which is likelihood alone"
    needed = math.ceil(longest / mixer.mixer_step) * mixer.mixer_epochs
    return f"s {falls}; it takes {needed:g} epochs to 0: lower --mixer_epochs, or give the stage more"


def _sampling_level(config: Config, epoch: float) -> float:
    settings = config.likelihood
    return estimators.sampling_probability(
        epoch,
        settings.scheduled_sampling,
        settings.scheduled_sampling_step,
        settings.scheduled_sampling_epochs,
    )


def _sampling_note(config: Config, last: float) -> str:
    if config.likelihood.scheduled_sampling == 0 or last > 0:
        return ""
    return (
        f"no word of the model's own will be read, as the first rise takes "
        f"{config.likelihood.scheduled_sampling_epochs:g} epochs; lower --scheduled_sampling_epochs, or give the "
        "stage more"
    )


MIXER = Schedule(_mixer_level, _mixer_note)
SCHEDULED_SAMPLING = Schedule(_sampling_level, _sampling_note)
CONSTANT = Schedule(lambda config, epoch: 0.0, lambda config, last: "")
