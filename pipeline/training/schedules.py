"""Schedules: numbers that fall or rise with the epochs, and warnings if a stage is too short for them."""

import math
from collections.abc import Callable
from typing import NamedTuple

from spidercap.pipeline.settings.config import Config


class Schedule(NamedTuple):
    """A number that changes with the epochs, and its warning."""

    level: Callable[[Config, float], float]  # (settings, epoch) -> the number
    note: Callable[[Config, float], str]  # (settings, the stage's last number) -> a warning, or ''


def mixer_steps(epoch: float, max_length: int, mixer_step: int, mixer_epochs: float) -> int:
    """Returns s, the number of tokens learned by likelihood: T, less `mixer_step` every `mixer_epochs`, down to 0.

    Source: Ranzato et al. 2016, algorithm 1.
    """
    return max(0, max_length - mixer_step * _changes(epoch, mixer_epochs))


def sampling_probability(epoch: float, most: float, step: float, epochs: float) -> float:
    """Returns scheduled sampling's probability of feeding a sampled token: 0, plus `step` every `epochs`, up to `most`.

    Source: Bengio et al. 2015, section 2.4, in steps as in self-critical.pytorch.
    """
    return min(most, step * _changes(epoch, epochs))


def _changes(epoch: float, epochs: float) -> int:
    """The number of changes until `epoch`, one every `epochs`; 1.2 / 0.2 is 6 despite rounding."""
    return int(epoch / epochs + 1e-9)


def _mixer_level(config: Config, epoch: float) -> float:
    return mixer_steps(epoch, config.data.max_length, config.mixer.mixer_step, config.mixer.mixer_epochs)


def _mixer_note(config: Config, last: float) -> str:
    if last == 0:
        return ""
    longest, mixer = config.data.max_length, config.mixer
    falls = f"falls only to {last}" if last < longest else f"stays at {last}, which is likelihood alone"
    needed = math.ceil(longest / mixer.mixer_step) * mixer.mixer_epochs
    return f"s {falls}; it reaches 0 in {needed:g} epochs; lower --mixer_epochs, or train the stage longer"


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
        f"no sampled token will be fed, because the first increment comes after "
        f"{config.likelihood.scheduled_sampling_epochs:g} epochs; lower --scheduled_sampling_epochs, or train the "
        "stage longer"
    )


MIXER = Schedule(_mixer_level, _mixer_note)
SCHEDULED_SAMPLING = Schedule(_sampling_level, _sampling_note)
CONSTANT = Schedule(lambda config, epoch: 0.0, lambda config, last: "")
