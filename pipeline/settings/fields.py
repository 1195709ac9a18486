"""One setting: what it may be, and how a wrong one is rejected."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any

from spidercap.pipeline.errors import UserError, check_choice
from spidercap.pipeline.settings.stages import STAGES

LARGEST = 2**31 - 1  # TensorFlow counts in int32


def setting(
    default: Any,
    text: str,
    *,
    fixed: bool = True,
    added: bool = False,
    choices: Collection[str] | Callable[[], Collection[str]] = (),
    least: float = 1,
    most: float = LARGEST,
    by_stage: type | None = None,
    pairs: bool = False,
    aliases: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    """Returns a field of a group of settings, which is a flag too; `least` and `most` bound a number.

    Args:
      default: the value without the flag; its type is the flag's.
      text: help.
      fixed: part of what a workdir is; False: may change from call to call.
      added: runs made before there was this setting are as by its default.
      choices: what a text may be; a table is looked at when it is asked, so that a row is a choice.
      least: of a number.
      most: of a number.
      by_stage: the type of a number that may differ by stage: the text is a number, or 'name:number,...'.
      pairs: the text is 'name:number,...'.
      aliases: earlier names of choices, and the names they stand for.
    """
    metadata = {"help": text, "fixed": fixed, "added": added, "by_stage": by_stage, "pairs": pairs, "aliases": aliases}
    metadata |= {"choices": choices if callable(choices) else lambda: tuple(choices), "least": least, "most": most}
    return dataclasses.field(default=default, metadata=metadata)


class Group:
    """Settings that belong together: a frozen dataclass of `setting`s, checked when it is made."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.metadata["by_stage"] and type(value) in (int, float):  # from Python, or an earlier config.json
                value = stages_text({"": value})
            if isinstance(value, str):
                value = field.metadata["aliases"].get(value, value)
            object.__setattr__(self, field.name, value)
            check_value(field, value)
        self.check()

    def check(self) -> None:
        """Raises UserError for settings that are possible one by one, but not together."""


def allowed(field: dataclasses.Field) -> str:
    """Returns in words what a setting may be."""
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
    """Returns the value in one spelling, to be compared: '1e-3' is '0.001', an alias is what it stands for."""
    if field.metadata["by_stage"] or field.metadata["pairs"]:
        parts = [p.strip().partition(":") for p in str(value).split(",") if p.strip()]
        return [(name, float(number)) if colon else float(name) for name, colon, number in parts]
    return field.metadata["aliases"].get(value, value) if isinstance(value, str) else value


def check_value(field: dataclasses.Field, value: Any) -> None:
    """Raises UserError for a value that the setting cannot have."""
    metadata = field.metadata
    kinds = (int, float) if isinstance(field.default, float) else (type(field.default),)
    if type(value) not in kinds:
        raise UserError(f"--{field.name}={value} is not possible; allowed: {allowed(field)}")
    if metadata["by_stage"]:
        stage_values(field, value)
    elif isinstance(field.default, str) and metadata["choices"]():
        check_choice(field.name, value, metadata["choices"]())
    elif not isinstance(value, bool | str) and not metadata["least"] <= value <= metadata["most"]:
        raise UserError(f"--{field.name}={value} is not possible; allowed: {allowed(field)}")


def stage_values(field: dataclasses.Field, text: str) -> dict[str, float]:
    """Returns the numbers of a by-stage setting by stage; the one of '' is for all stages that are not named.

    '5' is {'': 5}, 'pg:1,leave_one_out:5' is {'pg': 1, 'leave_one_out': 5}.

    Raises:
      UserError: no such number, or a stage that is none or comes twice.
    """

    def number(text: str, part: str) -> float:
        try:
            value = field.metadata["by_stage"](text)
        except ValueError:
            value = None
        if value is None or not field.metadata["least"] <= value <= field.metadata["most"]:
            raise UserError(f"--{field.name}={part} is not possible; allowed: {allowed(field)}")
        return value

    if ":" not in text:
        return {"": number(text, text)}
    return dict(parse_pairs(field.name, text, STAGES, number))


def stages_text(values: Mapping[str, float]) -> str:
    """Returns what `stage_values` reads."""
    return ",".join(f"{name}:{value:.12g}" if name else f"{value:.12g}" for name, value in values.items())


def parse_pairs(
    name: str, text: str, names: Collection[str], number: Callable[[str, str], float], repeated: bool = False
) -> list[tuple[str, float]]:
    """Returns the pairs of a flag such as 'mle:20,pg:1.5': [('mle', 20.0), ('pg', 1.5)].

    Args:
      name: the flag's.
      text: its value.
      names: those that may come before a colon.
      number: (what comes behind it, the whole part) -> its number; raises UserError for what is none.
      repeated: whether a name may come twice.

    Raises:
      UserError: anything else.
    """
    pairs: list[tuple[str, float]] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        key, _, after = part.partition(":")
        value = number(after, part)
        check_choice(name, key, names)
        if not repeated and key in dict(pairs):
            raise UserError(f"--{name}: {key} comes twice ({text}); give it once")
        pairs.append((key, value))
    return pairs
