"""One setting: its allowed values, and how others are rejected."""

import dataclasses
import os
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from spidercap.pipeline.errors import UserError, check_choice
from spidercap.pipeline.settings.stages import STAGES

Number = TypeVar("Number", float, float | None)

LARGEST = 2**31 - 1  # TensorFlow counts in int32


def setting(
    default: Any,
    text: str,
    *,
    fixed: bool = True,
    modes: Collection[str] = (),
    added: bool = False,
    choices: Collection[str] | Callable[[], Collection[str]] = (),
    least: float = 1,
    most: float = LARGEST,
    by_stage: type | None = None,
    pairs: bool = False,
    ordered: bool = False,
    beside: Mapping[str, float] = MappingProxyType({}),
    spelling: Callable[[str], str] = str,
) -> Any:
    """Returns a dataclass field of a group of settings, which is also a flag.

    Args:
      default: the value without the flag; its type is the flag's type.
      text: the help text.
      fixed: may not change in a workdir; False: may change from command to command.
      modes: the modes that read it; empty: all but score, as those of a run are compared with its own.
      added: a config.json without this setting has its default.
      choices: allowed values of a text; a function or table is read on each check, so that added rows count.
      least: minimum of a number.
      most: maximum of a number, or of those in `pairs`, which are above 0.
      by_stage: the type of a number that may differ by stage: the text is a number, or 'name:number,...'.
      pairs: the text is 'name:number,...'.
      ordered: the order of the pairs matters, a name may come twice, and it may come without a number.
      beside: names that pairs may have beside those of stages, with their defaults.
      spelling: returns a text in its one spelling, such as the name that an alias stands for.
    """
    metadata = {"help": text, "fixed": fixed, "modes": modes, "added": added, "spelling": spelling}
    metadata |= {"by_stage": by_stage, "pairs": pairs, "ordered": ordered, "beside": beside}
    metadata |= {"choices": choices if callable(choices) else lambda: tuple(choices), "least": least, "most": most}
    return dataclasses.field(default=default, metadata=metadata)


class Group:
    """Base of frozen dataclasses of `setting`s, which are checked on construction."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.generic):
                value = value.item()
            if isinstance(value, os.PathLike):
                value = os.fspath(value)
            if field.metadata["by_stage"] and type(value) in (int, float):  # from Python, or an earlier config.json
                value = repr(value).removesuffix(".0")
            if isinstance(value, str):
                value = field.metadata["spelling"](value)
            object.__setattr__(self, field.name, value)
            check_value(field, value)
        self.check()

    def check(self) -> None:
        """Raises UserError for settings that are allowed one by one, but not together."""


def allowed(field: dataclasses.Field) -> str:
    """Returns the allowed values of a setting as text."""
    default, metadata = field.default, field.metadata
    if isinstance(default, bool):
        return "true or false"
    kind = metadata["by_stage"] or type(default)
    if kind is str:
        return ", ".join(metadata["choices"]()) or "text"
    number = "a whole number" if kind is int else "a number"
    by_stage = ", or one for each stage (name:number,...)" if metadata["by_stage"] else ""
    return f"{number} from {metadata['least']} to {metadata['most']}{by_stage}"


def canonical(field: dataclasses.Field, value: Any) -> Any:
    """Returns the value in one spelling, to be compared: '1e-3' is '0.001', an alias is what it stands for.

    What is no number of a stage comes back as it is, to be rejected in the words of `check_value`.
    """
    if field.metadata["by_stage"] or field.metadata["pairs"]:
        parts = [p.strip().partition(":") for p in str(value).split(",") if p.strip()]
        ordered = field.metadata["ordered"]
        alone = (lambda name: (name, None)) if ordered else (lambda number: ("", float(number)))
        try:
            numbers = [(name, float(number)) if colon else alone(name) for name, colon, number in parts]
        except ValueError:
            return value
        return numbers if ordered else sorted(numbers)
    return field.metadata["spelling"](value) if isinstance(value, str) else value


def check_value(field: dataclasses.Field, value: Any) -> None:
    """Raises UserError for a value that is not allowed."""
    metadata = field.metadata
    kinds = (int, float) if isinstance(field.default, float) else (type(field.default),)
    if type(value) not in kinds:
        raise UserError(f"--{field.name}={value} is invalid; allowed: {allowed(field)}")
    if metadata["by_stage"]:
        stage_values(field, value)
    elif isinstance(field.default, str) and metadata["choices"]():
        check_choice(field.name, value, metadata["choices"]())
    elif not isinstance(value, bool | str) and not metadata["least"] <= value <= metadata["most"]:
        raise UserError(f"--{field.name}={value} is invalid; allowed: {allowed(field)}")


def stage_values(field: dataclasses.Field, text: str) -> dict[str, float]:
    """Returns the numbers of a by-stage setting by stage; the key '' stands for all stages that are not named.

    '5' is {'': 5}, 'pg:1,leave_one_out:5' is {'pg': 1, 'leave_one_out': 5}.

    Raises:
      UserError: a number is not allowed, or a stage is unknown or comes twice.
    """

    def number(text: str, part: str) -> float:
        try:
            value = field.metadata["by_stage"](text)
        except ValueError:
            value = None
        if value is None or not field.metadata["least"] <= value <= field.metadata["most"]:
            raise UserError(f"--{field.name}={part} is invalid; allowed: {allowed(field)}")
        return value

    if ":" not in text:
        return {"": number(text, text)}
    return dict(parse_pairs(field.name, text, STAGES, number))


def parse_pairs(
    name: str, text: str, names: Collection[str], number: Callable[[str, str], Number], repeated: bool = False
) -> list[tuple[str, Number]]:
    """Returns the pairs of a flag such as 'mle:20,pg:1.5': [('mle', 20.0), ('pg', 1.5)].

    Args:
      name: the flag.
      text: its value.
      names: allowed names before a colon.
      number: (text after the colon or '', the whole pair) -> number or None; raises UserError for other text.
      repeated: whether a name may come twice.

    Raises:
      UserError: the text has another form.
    """
    pairs: list[tuple[str, Number]] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        key, _, after = part.partition(":")
        value = number(after, part)
        check_choice(name, key, names)
        if not repeated and key in dict(pairs):
            raise UserError(f"--{name}: {key} comes twice ({text}); give it once")
        pairs.append((key, value))
    return pairs
