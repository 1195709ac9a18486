"""What a stage anneals over its epochs."""


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
