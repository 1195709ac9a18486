"""What the training loop tells of a stage: a progress bar, or lines where there is no terminal, and warnings."""

import sys
from collections.abc import Iterable, Mapping

from tqdm import tqdm

from spidercap.pipeline.bars import UNKNOWN, columns, progress_bar
from spidercap.pipeline.training.stages import BuiltStage

# Of the logs of a step, in the order in which the bar has room for them -> the name there.
SHOWN = {"loss": "", "reward": "", "explained variance": "explained", "entropy": "", "words given": "given"}
BAR = "{desc} {percentage:.0f}% |{bar}| {remaining} left, {rate_noinv_fmt}{postfix}"
BESIDES = 45  # columns of the bar without the stage's name and the scalars


class Console:
    """Tells of a stage; its bar is shown while it is used as a context manager."""

    def __init__(self, stage: BuiltStage, batch_size: int, step: int, is_silent: bool):
        """Begins at `step`; with `is_silent` nothing is told."""
        self._stage, self._batch_size, self._is_silent = stage, batch_size, is_silent
        more = {"initial": step * batch_size, "bar_format": BAR}
        self._bar = progress_bar(stage.steps * batch_size, stage.name, f" {stage.unit}s", not is_silent, **more)

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
        self._bar.set_postfix_str(self._fitting(shown), refresh=False)
        if self._bar.disable:
            metrics = {name: value for name, value in values.items() if name.startswith("reward ")}
            shown |= metrics if len(metrics) > 1 else {}
            text = ", ".join(f"{name} {value:.3f}" for name, value in shown.items())
            unit = self._stage.unit
            self.say(f"{self._stage.label} step {step}/{self._stage.steps}: {text}, {rate:.0f} {unit}s/s")

    def _fitting(self, shown: Mapping[str, float]) -> str:
        """As many of the scalars as the line of the bar has room for, the first ones first."""
        room = (columns() or UNKNOWN) - BESIDES - len(self._stage.name)
        texts = [f"{SHOWN[name] or name} {value:.2f}" for name, value in shown.items()]
        while texts and sum(len(text) + 2 for text in texts) > room:
            texts.pop()
        return ", ".join(texts)

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
