"""The command line: flags and flagfiles -> Config."""

import dataclasses
import difflib
import os
import pathlib
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from absl import flags

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.config import Config, fields, groups, readers
from spidercap.pipeline.settings.fields import allowed
from spidercap.pipeline.settings.modes import MODES, WITHOUT_WORKDIR
from spidercap.pipeline.settings.stages import STAGES
from spidercap.pipeline.settings.workdirs import check_together, named_workdirs, run_settings

WIDTH = 100  # characters per line of --help
INDENT = 30
NESTED = 20  # flagfiles that include each other
# Folders that a command writes to or takes programs from: a workdir of somebody else may not choose them.
OWN = ("export_dir", "cache_dir", "metric_cache_dir", "corenlp", "output")


def parse(argv: Sequence[str]) -> Config:
    """Returns the settings of a command line (its first word is the program).

    Flags override those of flagfiles. Modes that need a trained run read the other settings from its workdir.

    Raises:
      UserError: a flag is unknown, missing or not allowed.
    """
    values = _flag_values()
    try:
        rest = values([argv[0], *_with_flagfiles(argv[1:])])[1:]
    except flags.Error as error:
        raise UserError(_flag_error(error)) from error
    if rest:
        raise UserError(f"unexpected {rest[0]!r}; settings are given as --name=value (--help lists them)")
    given = {name: values[name].value for name in fields() if values[name].present}
    mode = given.get("mode", fields()["mode"].default)
    _check_read(argv[1:], given, mode)
    if not given.get("workdir") and mode not in WITHOUT_WORKDIR and not (mode == "demo" and given.get("export_dir")):
        raise UserError("no --workdir given; name the folder of the run, for example --workdir=runs/first")
    check_together(given.get("workdir", ""), mode)
    if mode == "evaluate" and given.get("output") and len(named_workdirs(given["workdir"])) == 1:
        raise UserError(
            f"--output={given['output']} is for the results of several runs; those of one are in its workdir, so "
            "leave it out"
        )
    if mode in ("evaluate", "caption", "export", "status"):
        if mode == "evaluate" and given.get("test_captions"):
            given = {"split": "test"} | given
        given = _saved(pathlib.Path(named_workdirs(given["workdir"])[0]), mode, given) | given
    return Config.of(**given)


def help_text() -> str:
    """Returns all flags by group, each with its default, its help and its choices."""
    entries = {group: [_setting_entry(field) for field in dataclasses.fields(kind)] for group, kind in groups().items()}
    flagfile = _help_entry(
        "--flagfile=",
        "Text file of flags, one per line; lines that start with # are comments. The command line overrides it.",
    )
    stages = [_help_entry(name, f"{kind.help}; default length: {kind.length}") for name, kind in STAGES.items()]
    sections = {**entries, "files": [flagfile], "stages": stages}
    texts = ["\n".join([f"{name}:", *of_section]) for name, of_section in sections.items()]
    return "\nSettings with their defaults:\n\n" + "\n\n".join(texts)


def _setting_entry(field: dataclasses.Field) -> str:
    meta, default = field.metadata, field.default
    choices = f" One of: {', '.join(meta['choices']())}." if meta["choices"]() else ""
    by_stage = " May differ by stage: name:value,..." if meta["by_stage"] else ""
    default = str(default).lower() if isinstance(default, bool) else default
    return _help_entry(f"--{field.name}={default}", meta["help"] + by_stage + choices)


def _help_entry(flag: str, text: str) -> str:
    lines = textwrap.wrap(text, WIDTH - INDENT)
    head = f"  {flag}"
    first = f"{head:<{INDENT}}{lines[0]}" if len(head) < INDENT else f"{head}\n{' ' * INDENT}{lines[0]}"
    return "\n".join([first, *(" " * INDENT + line for line in lines[1:])])


def _flag_values() -> flags.FlagValues:
    """A separate FlagValues, so that flags of imported libraries neither clash nor appear in --help."""
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
    wrong = re.match(r"flag --(\w+)=(.*?): ", str(error), re.DOTALL)
    if wrong:
        return f"--{wrong[1]}={wrong[2]} is invalid; allowed: {allowed(fields()[wrong[1]])}"
    return f"{error}; settings are given as --name=value (--help lists them)"


def _check_read(words: Sequence[str], given: Mapping[str, Any], mode: str) -> None:
    """Raises UserError for a flag that the mode does not read; only flagfiles may serve several modes."""
    for name, value in given.items():
        modes = readers(fields()[name])
        unread = mode in MODES and mode not in modes and value != fields()[name].default
        if unread and any(re.fullmatch(rf"--?(no)?{name}(=.*)?", word, re.DOTALL) for word in words):
            raise UserError(f"--{name} is not read by --mode={mode}, but by {', '.join(modes)}; leave it out")


def _with_flagfiles(words: Iterable[str], opened: tuple[str, ...] = ()) -> list[str]:
    """The flags of all flagfiles, then the other words; `opened` are the enclosing flagfiles."""
    from_files, others = [], []
    words = iter(words)
    for word in words:
        match = re.fullmatch(r"--?flagfile(?:=(.*))?", word, re.DOTALL)
        if match:
            from_files += _read_flagfile(next(words, "") if match[1] is None else match[1], opened)
        else:
            others.append(word)
    return from_files + others


def _read_flagfile(name: str, opened: tuple[str, ...]) -> list[str]:
    if not name:
        raise UserError("--flagfile names no file; for example --flagfile=recipes/quickstart.flags")
    path = pathlib.Path(os.path.expanduser(name))
    if os.path.realpath(path) in opened:
        raise UserError(f"flagfile {name} includes itself; remove its --flagfile line")
    if len(opened) == NESTED:
        raise UserError(f"flagfile {name} is the {NESTED + 1}th of a chain that include each other; allowed: {NESTED}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"flagfile {name} cannot be read ({error.strerror}); name a text file of flags") from error
    except UnicodeDecodeError as error:
        raise UserError(f"flagfile {name} is not UTF-8 text; needed: one --name=value per line") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    flag_lines = [(number, line) for number, line in lines if line and not line.startswith(("#", "//"))]
    for number, line in flag_lines:
        if not re.fullmatch(r"--?\w+(=[^\0]*)?", line) or " #" in line:
            raise UserError(
                f"flagfile {name}, line {number}: {line[:60]!r} is not a flag; "
                "needed: one --name=value per line, comments on separate lines"
            )
    if not flag_lines:
        raise UserError(f"flagfile {name} holds no flags; needed: one --name=value per line")
    return _with_flagfiles((line for _, line in flag_lines), (*opened, os.path.realpath(path)))


def _saved(workdir: pathlib.Path, mode: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the run in `workdir`, but for those that only their owner may choose."""
    saved, path = run_settings(workdir), workdir / "config.json"
    for name in OWN:
        if saved[name] and name not in given and mode in readers(fields()[name]):
            print(
                f"--{name}={saved[name]} of {path} is not taken over; give it again, if it is wanted", file=sys.stderr
            )
    # For captions, the saved images are those of training. Where a run exported to is told, but nothing is written.
    left_out = {
        "caption": (*OWN, "images", "features", "captions", "skip_bad_images"),
        "status": ("json",),
    }.get(mode, OWN)
    return {name: value for name, value in saved.items() if name not in left_out}
