"""What a stage anneals: a number that falls or rises with the epochs, and what to tell where it does not get there."""

import math
from collections.abc import Callable
from typing import NamedTuple

from spidercap.pipeline.settings.config import Config


class Schedule(NamedTuple):
    """The two functions."""

    level: Callable[[Config, float], float]  # (settings, epoch) -> the number
    note: Callable[[Config, float], str]  # (settings, the stage's last number) -> what the user might not expect, or ''


def mixer_steps(epoch: float, max_length: int, mixer_step: int, mixer_epochs: float) -> int:
    """Returns s, the number of tokens learned by likelihood: T, less `mixer_step` every `mixer_epochs`, down to 0.

    Source: Ranzato et al. 2016, algorithm 1.
    """
    return max(0, max_length - mixer_step * _changes(epoch, mixer_epochs))


def sampling_probability(epoch: float, most: float, step: float, epochs: float) -> float:
    """Returns scheduled sampling's probability of reading a sampled token: 0, and `step` more every `epochs`.

    It stays at `most`. Source: Bengio et al. 2015, section 2.4, in steps as self-critical.pytorch takes them.
    """
    return min(most, step * _changes(epoch, epochs))


def _changes(epoch: float, epochs: float) -> int:
    """How often something that changes every so many epochs has changed; 1.2 / 0.2 is 6, whatever floats make of it."""
    return int(epoch / epochs + 1e-9)


def _mixer_level(config: Config, epoch: float) -> float:
    return mixer_steps(epoch, config.data.max_length, config.mixer.mixer_step, config.mixer.mixer_epochs)


def _mixer_note(config: Config, last: float) -> str:
    if last == 0:
        return ""
    longest, mixer = config.data.max_length, config.mixer
    falls = f"falls to {last} only" if last < longest else f"stays at {last}, which is likelihood alone"
    needed = math.ceil(longest / mixer.mixer_step) * mixer.mixer_epochs
    return f"s {falls}; it takes {needed:g} epochs to 0: lower --mixer_epochs, or give the stage more"


def _sampling_level(config: Config, epoch: float) -> float:
    settings = config.likelihood
    return sampling_probability(
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
