"""Reads the settings saved in a workdir, and compares settings."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.config import Config, fields
from spidercap.pipeline.settings.fields import canonical


def read_settings(path: pathlib.Path) -> dict[str, Any]:
    """Returns the settings that `Config.to_json` wrote to a file.

    Raises:
      UserError: the file is not such JSON, or its settings are not those of this version.
    """
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); restore the file, or name a new --workdir") from error
    if not isinstance(saved, dict):
        raise UserError(f"{path} holds no settings; restore the file, or name a new --workdir")
    unknown = [name for name in saved if name not in fields()]
    saved = {name: f.default for name, f in fields().items() if f.metadata["added"]} | saved
    missing = [name for name, f in fields().items() if f.metadata["fixed"] and name not in saved]
    if unknown or missing:
        wrong = ["unknown: " + ", ".join(unknown)] * bool(unknown) + ["missing: " + ", ".join(missing)] * bool(missing)
        raise UserError(
            f"{path} was written by another version ({'; '.join(wrong)}); "
            "use that version, fix the file, or name a new --workdir"
        )
    return {name: value for name, value in saved.items() if name != "mode"}


def changed_settings(config: Config) -> dict[str, Any]:
    """Returns the settings of a run that differ from their defaults."""
    known = fields()
    return {name: value for name, value in config.fixed().items() if _differ(known[name], known[name].default, value)}


def differences(saved: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns 'name: saved -> new' for every setting that differs."""
    known = fields()
    names = [n for n in {**saved, **new} if n not in saved or n not in new or _differ(known[n], saved[n], new[n])]
    return [f"{n}: {saved.get(n)!r} -> {new.get(n)!r}" for n in names]


def _differ(field: dataclasses.Field, one: Any, other: Any) -> bool:
    return canonical(field, one) != canonical(field, other)
