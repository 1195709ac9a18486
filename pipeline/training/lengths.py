"""How many updates a stage and its validation interval have, and warnings if that is not what was asked for."""

from spidercap.pipeline.settings.stages import STAGES
from spidercap.pipeline.settings.training_groups import Stage

LEAST_BETWEEN = 20  # updates between two validations by default: a validation can take as long as several updates
ROUNDED_UP = 1.5  # a stage that becomes longer than asked by more than this factor is reported


def planned_steps(stage: Stage, per_epoch: float) -> int:
    """Returns the number of updates of a stage whose epochs have `per_epoch` of them, fractions included."""
    if stage.epochs is not None:
        return max(1, round(stage.epochs * per_epoch))
    kind = STAGES[stage.name]
    return max(kind.least_updates, round(kind.epochs * per_epoch))


def validation_interval(evaluate_every: float, per_epoch: float) -> int:
    """Returns the number of updates between two validations; `evaluate_every` is in epochs, 0 the default."""
    return max(1, round(evaluate_every * per_epoch)) if evaluate_every else max(LEAST_BETWEEN, round(per_epoch))


def length_note(stage: Stage, per_epoch: float, batch_size: int, unit: str) -> str:
    """Returns a warning if a stage is much longer than asked, because it has at least one update, or ''."""
    if stage.epochs is None or planned_steps(stage, per_epoch) <= ROUNDED_UP * stage.epochs * per_epoch:
        return ""
    are = "s are" if stage.epochs != 1 else " is"
    return (
        f"{stage.epochs:g} epoch{are} less than one update of {batch_size} {unit}{'s' * (batch_size > 1)}, so it "
        f"trains for one update, which is {1 / per_epoch:.3g} epochs; "
        f"{'lower --batch_size, or ' * (batch_size > 1)}give {stage.name} more epochs"
    )


def batch_note(size: int, batch_size: int, unit: str) -> str:
    """Returns a warning if a batch is larger than the `size` captions or images that there are, or ''."""
    if batch_size <= size:
        return ""
    return (
        f"--batch_size={batch_size} is more than the {size} training {unit}{'s' * (size > 1)}, so an update reads each "
        f"{batch_size / size:.3g} times; lower it to {size} or less"
    )
