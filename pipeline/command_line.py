"""The command line: flags and flagfiles -> Config. Only here does anything know of flags."""

import difflib
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from pipeline.config import Config, differences, fields
from pipeline.errors import UserError


def parse(argv: Sequence[str]) -> Config:
    """Returns the settings of a command line (its first word is the program).

    Modes that need a trained run take its settings from the workdir; flags given then must agree with it.

    Raises:
      UserError: anything a user can mend.
    """
    values = _flag_values()
    try:
        rest = values(list(argv))[1:]
    except flags.Error as error:
        raise UserError(_flag_error(error)) from error
    if rest:
        raise UserError(f"unexpected {rest[0]!r}: settings are given as --name=value (--help lists them)")
    _refuse_empty_flagfiles(argv)
    given = {name: values[name].value for name in fields() if values[name].present}
    if not given.get("workdir"):
        raise UserError("no --workdir given: name the folder of the run, for example --workdir=runs/first")
    if given.get("mode", "train") not in ("prepare", "train"):
        given = _saved(pathlib.Path(given["workdir"]), given) | given
    return Config(**given)


def help_text() -> str:
    """Returns all flags by group, with their defaults and what they allow."""
    lines = []
    for name, field in fields().items():
        meta = field.metadata
        if f"\n{meta['group']}:" not in lines:
            lines.append(f"\n{meta['group']}:")
        allowed = "" if not meta["choices"] or len(meta["choices"]) > 8 else f" [{'|'.join(meta['choices'])}]"
        default = f" (default: {field.default})" if field.default != "" else ""
        lines.append(f"  --{name}{allowed}\n        {meta['help']}{default}")
    lines.append("\nfiles:\n  --flagfile\n        Text file of flags, one a line; '#' begins a comment line.")
    return "\n".join(lines)


def _flag_values() -> flags.FlagValues:
    """Flags of our own, so that those of imported libraries neither clash nor show up in --help."""
    values = flags.FlagValues()
    define = {
        bool: flags.DEFINE_bool,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        str: flags.DEFINE_string,
    }
    for name, field in fields().items():
        define[type(field.default)](name, field.default, field.metadata["help"], flag_values=values)
    return values


def _flag_error(error: flags.Error) -> str:
    if isinstance(error, flags.UnrecognizedFlagError):
        close = difflib.get_close_matches(error.flagname, list(fields()), n=3)
        hint = f"did you mean {' or '.join('--' + c for c in close)}?" if close else "--help lists all flags"
        return f"unknown flag --{error.flagname}; {hint}"
    return " ".join(str(error).split())


def _refuse_empty_flagfiles(argv: Sequence[str]) -> None:
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        match = re.fullmatch(r"--?flagfile(?:=(.*))?", word)
        if not match:
            continue
        name = match.group(1) if match.group(1) is not None else following
        if not name:
            raise UserError("--flagfile names no file")
        text = pathlib.Path(name).expanduser().read_text(encoding="utf-8")
        if not any(line.strip() and not line.strip().startswith(("#", "//")) for line in text.splitlines()):
            raise UserError(f"flagfile {name} holds no flags; see the recipes folder for examples")


def _saved(workdir: pathlib.Path, given: Mapping[str, Any]) -> dict[str, Any]:
    path = workdir / "config.json"
    if not path.is_file():
        raise UserError(f"{workdir} holds no run (no config.json); train one first with --workdir={workdir}")
    saved = json.loads(path.read_text(encoding="utf-8"))
    fixed = {n for n, f in fields().items() if f.metadata["fixed"]}
    wrong = differences(
        {n: v for n, v in saved.items() if n in fixed & set(given)},
        {n: v for n, v in given.items() if n in fixed},
    )
    if wrong:
        raise UserError(f"{workdir} was made with other settings ({'; '.join(wrong)}); leave these flags out")
    return {n: v for n, v in saved.items() if n in fields()}
