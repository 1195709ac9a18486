"""How far a run is: everything a resume needs beside the weights, and all that its summary and curves show."""

import dataclasses
import json
from typing import Any

import tensorflow as tf

VARIABLE = "progress"


@dataclasses.dataclass
class Progress:
    """Filled by the loop as it goes; stored inside each checkpoint, so that neither is ever newer than the other."""

    stage: int = 0  # index of the stage at work
    step: int = 0  # steps done in it
    seconds: float = 0.0  # spent in it, validation included
    best: float | None = None  # best validation of the stage
    best_step: int = 0
    since_best: int = 0  # validations without a new best
    skipped: int = 0  # updates of the stage, as their gradients were no numbers
    scored: int = 0  # captions of the stage that earned a reward: paths, rollouts, greedy captions
    warned: dict[str, str] = dataclasses.field(default_factory=dict)  # kind of warning -> what was told in the stage
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # one row a validation
    finished: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # one row a stage

    def next_stage(self) -> None:
        """Begins the next stage; what the run has seen stays."""
        fresh = Progress(stage=self.stage + 1, history=self.history, finished=self.finished)
        self.__dict__.update(fresh.__dict__)

    def store(self, variable: tf.Variable) -> None:
        """Puts this into a string variable, to be saved with the weights."""
        variable.assign(json.dumps(dataclasses.asdict(self)))


def read_progress(checkpoint: str | None) -> Progress:
    """Returns the progress that a checkpoint holds; a new one for None."""
    if checkpoint is None:
        return Progress()
    stored = tf.train.load_variable(checkpoint, f"{VARIABLE}/.ATTRIBUTES/VARIABLE_VALUE")
    return Progress(**json.loads(stored))
