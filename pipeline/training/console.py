"""What the training loop tells of a stage: a progress bar, or lines where there is no terminal, and warnings."""

import sys
from collections.abc import Iterable, Mapping

from tqdm import tqdm

from spidercap.pipeline.training.stages import BuiltStage

SHOWN = ("loss", "reward", "explained variance", "entropy", "words given")  # of the logs of a step


class Console:
    """Tells of a stage; its bar is shown while it is used as a context manager."""

    def __init__(self, stage: BuiltStage, batch_size: int, step: int, is_silent: bool):
        """Begins at `step`; with `is_silent` nothing is told."""
        self._stage, self._batch_size, self._is_silent = stage, batch_size, is_silent
        self._bar = tqdm(
            total=stage.steps * batch_size,
            initial=step * batch_size,
            desc=stage.name,
            unit=stage.unit,
            disable=True if is_silent else None,
            dynamic_ncols=True,
        )

    def __enter__(self) -> "Console":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def stepped(self) -> None:
        """Moves the bar by a step."""
        self._bar.update(self._batch_size)

    def log(self, step: int, values: Mapping[str, float], rate: float) -> None:
        """Tells the main ones of a step's scalars; `rate` in images or captions a second."""
        shown = {name: values[name] for name in SHOWN if name in values}
        self._bar.set_postfix({name: f"{value:.3f}" for name, value in shown.items()}, refresh=False)
        if self._bar.disable:
            metrics = {name: value for name, value in values.items() if name.startswith("reward ")}
            shown |= metrics if len(metrics) > 1 else {}
            text = ", ".join(f"{name} {value:.3f}" for name, value in shown.items())
            unit = self._stage.unit
            self.say(f"{self._stage.label} step {step}/{self._stage.steps}: {text}, {rate:.0f} {unit}s/s")

    def say(self, line: str) -> None:
        """Tells a line, above the bar."""
        if not self._is_silent:
            tqdm.write(line)
            sys.stdout.flush()

    def warn(self, warnings: Iterable[str]) -> None:
        """Tells warnings, on stderr."""
        for warning in warnings:
            if not self._is_silent:
                tqdm.write(f"warning: {self._stage.label} {warning}", file=sys.stderr)
