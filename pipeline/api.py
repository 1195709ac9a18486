"""The public functions of `spidercap` to train a run and to load an exported model."""

import os
import pathlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from spidercap.pipeline import modes
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.evaluation.caption_files import ExportedCaptioner, exported_model
from spidercap.pipeline.metrics.reward_functions import RewardFunction, named_from_python
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.training.workdir import open_workdir


def train(reward_functions: Mapping[str, RewardFunction] = MappingProxyType({}), **settings: Any) -> pathlib.Path:
    """Trains, evaluates and exports like `--mode=train`; returns the workdir. The same call resumes a stopped run.

    Args:
      reward_functions: by name, functions (captions, references, image_ids) -> one number per caption, for names in
        `reward`.
      **settings: like the flags, such as workdir="runs/first", stages="mle:4,pg:2", reward="cider:1,brevity:0.3".

    Raises:
      UserError: a setting, the data or a reward function cannot be used.
      Interrupted: Ctrl-C or SIGTERM came; the run is saved.
    """
    if "mode" in settings:
        raise UserError("train() takes no mode; the other modes are commands: spidercap --mode=...")
    if not settings.get("workdir"):
        raise UserError("no workdir given; name the folder of the run, for example workdir='runs/first'")
    if reward_functions:
        settings["reward_functions"] = named_from_python(reward_functions)
    config = Config.of(**settings, mode="train")
    with open_workdir(config):
        modes.run_train(config, reward_functions)
    return config.workdir_path()


def load(path: str | os.PathLike) -> ExportedCaptioner:
    """Returns the newest exported captioner of a workdir or export folder, or that of one exported version.

    Raises:
      UserError: the folder holds no exported model.
    """
    return ExportedCaptioner(exported_model(path))
