"""One setting: what it may be, and how a wrong one is refused."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

from spidercap.pipeline.errors import UserError, check_choice

LARGEST = 2**31 - 1  # TensorFlow counts in int32


def setting(
    default: Any,
    group: str,
    text: str,
    *,
    fixed: bool = True,
    added: bool = False,
    choices: Sequence[str] = (),
    least: float = 1,
    most: float = LARGEST,
) -> Any:
    """Returns a field of Config, which is a flag too; `least` and `most` bound a number.

    `fixed`: part of what a workdir is; False: may change from call to call. `added`: runs made before there was this
    setting are as by its default.
    """
    metadata = {"group": group, "help": text, "fixed": fixed, "added": added}
    metadata |= {"choices": tuple(choices), "least": least, "most": most}
    return dataclasses.field(default=default, metadata=metadata)


def allowed(field: dataclasses.Field) -> str:
    """Returns in words what a setting may be."""
    default, metadata = field.default, field.metadata
    if isinstance(default, bool):
        return "true or false"
    if isinstance(default, str):
        return ", ".join(metadata["choices"]) or "text"
    kind = "a whole number" if isinstance(default, int) else "a number"
    return f"{kind} from {metadata['least']} to {metadata['most']}"


def check_value(field: dataclasses.Field, value: Any) -> None:
    """Raises UserError for a value that the setting cannot have."""
    kinds = (int, float) if isinstance(field.default, float) else (type(field.default),)
    if isinstance(field.default, str) and field.metadata["choices"]:
        check_choice(field.name, value, field.metadata["choices"])
    elif type(value) not in kinds or not (
        isinstance(value, (bool, str)) or field.metadata["least"] <= value <= field.metadata["most"]
    ):
        raise UserError(f"--{field.name}={value} is not possible; allowed: {allowed(field)}")


def parse_pairs(
    name: str, text: str, names: Collection[str], *, most: float, repeated: bool = False, example: str
) -> list[tuple[str, float]]:
    """Returns the pairs of a flag such as 'mle:20,pg:1.5': [('mle', 20.0), ('pg', 1.5)].

    Args:
      name: the flag's.
      names: those that may come before a colon.
      most: the largest number; the smallest is above 0.
      repeated: whether a name may come twice.

    Raises:
      UserError: anything else.
    """
    pairs: list[tuple[str, float]] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        key, _, number = part.partition(":")
        try:
            value = float(number)
        except ValueError:
            raise UserError(f"--{name}: {part!r} is not name:number; for example {example}") from None
        check_choice(name, key, names)
        if not 0 < value <= most:
            raise UserError(f"--{name}: {part!r} is out of range; allowed: above 0, at most {most:g}")
        if not repeated and key in dict(pairs):
            raise UserError(f"--{name}: {key} comes twice ({text}); give it once")
        pairs.append((key, value))
    return pairs
