"""How a run may grow: stages that have not begun may have other settings, and others may follow."""

from collections.abc import Collection

from spidercap.pipeline.settings.config import Config, fields
from spidercap.pipeline.settings.saved import differences
from spidercap.pipeline.settings.stages import STAGES

# The shape of weights that all checkpoints hold, and what document frequencies were counted by.
_OF_THE_RUN = ("baseline_units", "end_token_in_reward")
_OF_REWARDS = ("reward", "reward_functions")


def changes_of_begun(old: Config, new: Config, begun: int) -> list[str]:
    """Returns 'name: old -> new' for each change that touches what the run has done; `begun` stages have begun."""
    stages = old.training.parsed_stages()[:begun]
    names = {stage.name for stage in stages}

    def is_free(name: str) -> bool:
        if name == "stages":
            return new.training.parsed_stages()[:begun] == stages
        return name not in _OF_THE_RUN and _is_unread(name, old, new, names)

    known = fields()
    kept = {name for name in known if is_free(name)}
    return differences(*({n: v for n, v in one.fixed().items() if n not in kept} for one in (old, new)))


def _is_unread(name: str, old: Config, new: Config, begun: Collection[str]) -> bool:
    """Whether a setting is one of stages, and those of `begun` do not read it, or read the same value."""
    metadata = fields()[name].metadata
    has_rewards = any(STAGES[stage].learns_from_rewards for stage in begun)
    if name in _OF_REWARDS:
        return not has_rewards
    readers = {stage for stage, kind in STAGES.items() if name in kind.reads}
    if not metadata["pairs"] and not metadata["by_stage"]:
        return bool(readers) and not readers & set(begun)
    reading = set(begun) & (readers or set(STAGES))
    if name == "temperature":  # applied once, for the stages that follow
        reading = set(STAGES) if has_rewards else set()
    elif metadata["pairs"]:
        if any(STAGES[stage].baseline for stage in begun):
            reading |= {"baseline"}  # whose rates are those of each learned baseline
        if any(STAGES[stage].moves_policy for stage in begun):
            reading |= set(metadata["beside"])
    return all(old.of_stage(name, stage) == new.of_stage(name, stage) for stage in reading)
