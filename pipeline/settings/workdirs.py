"""One or several runs in --workdir; several are an ensemble."""

import os
import pathlib
from collections.abc import Sequence

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.config import Config, fields
from spidercap.pipeline.settings.saved import read_settings

TOGETHER = ("evaluate", "caption")  # modes that take several runs


def named_workdirs(text: str) -> list[str]:
    """Returns the folders that --workdir names: separated by commas, unless a folder has that very name."""
    names = [name.strip() for name in text.split(",")]
    names = [name for name in names if name]
    return [text] if len(names) < 2 or os.path.isdir(text) else names


def check_together(workdir: str, mode: str) -> None:
    """Raises UserError if --workdir names several runs and the mode takes one, or if one of them comes twice."""
    names = named_workdirs(workdir)
    if len(names) == 1:
        return
    if mode not in TOGETHER:
        raise UserError(
            f"--workdir={workdir} names {len(names)} runs, and --mode={mode} takes one; allowed: several with "
            f"--mode={' and --mode='.join(TOGETHER)}, which decode them together"
        )
    check_distinct(names)


def check_distinct(names: Sequence[str]) -> None:
    """Raises UserError if a folder is named twice."""
    paths = [os.path.realpath(name) for name in names]
    twice = [name for name, path in zip(names, paths, strict=True) if paths.count(path) > 1]
    if twice:
        raise UserError(f"the run {twice[0]} is named twice; name each run once")


def run_settings(workdir: pathlib.Path) -> dict:
    """Returns the settings that are saved in a workdir.

    Raises:
      UserError: the folder holds no run, or its settings cannot be read.
    """
    path = workdir / "config.json"
    if not path.is_file():
        why = "no config.json" if workdir.exists() else "there is no such folder"
        raise UserError(f"{workdir} holds no run ({why}); name the --workdir of one, or train it first")
    return read_settings(path)


def member_configs(config: Config, workdirs: Sequence[str]) -> list[Config]:
    """Returns the settings of each run of an ensemble.

    What may not change in a workdir is each run's own. The rest, such as the decoder and the data to score, is that of
    `config`.

    Raises:
      UserError: a folder holds no run.
    """
    common = {name: value for name, value in config.flat().items() if not fields()[name].metadata["fixed"]}
    return [Config.of(**run_settings(pathlib.Path(name)) | common | {"workdir": name}) for name in workdirs]
