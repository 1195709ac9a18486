"""The public functions of `spidercap` to train a run and to load an exported model."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from spidercap.pipeline import ensembles, modes
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.evaluation.caption_files import ExportedCaptioner, exported_model
from spidercap.pipeline.evaluation.served_captioner import ServedCaptioner
from spidercap.pipeline.metrics.reward_functions import RewardFunction, named_from_python
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.settings.decoding_settings import DecodingSettings
from spidercap.pipeline.settings.workdirs import check_distinct, check_together, member_configs, run_settings
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
    check_together(os.fspath(settings["workdir"]), "train")
    if reward_functions:
        settings["reward_functions"] = named_from_python(reward_functions)
    config = Config.of(**settings, mode="train")
    with open_workdir(config):
        modes.run_train(config, reward_functions)
    return config.workdir_path()


def load(path: str | os.PathLike | Sequence[str | os.PathLike], **decoding: Any) -> ServedCaptioner:
    """Returns the newest exported captioner of a workdir or export folder, or that of one exported version.

    A list of workdirs gives an ensemble, which decodes with the mean of the probabilities of the runs.

    Args:
      path: a folder, or a list of workdirs of finished runs.
      **decoding: for a list, settings like the flags, such as decode="beam", beam_width=3; the others are those of the
        first run. An exported model decodes as it was exported.

    Raises:
      UserError: the folder holds no exported model; or a folder of the list holds no finished run, the runs do not fit
        together, or a setting is not of decoding.
    """
    if isinstance(path, list | tuple):
        return _load_together([os.fspath(one) for one in path], decoding)
    if decoding:
        raise UserError(
            f"{next(iter(decoding))} is for a list of workdirs; an exported model decodes as it was exported"
        )
    return ExportedCaptioner(exported_model(path))


def _load_together(workdirs: Sequence[str], decoding: Mapping[str, Any]) -> ServedCaptioner:
    if not workdirs:
        raise UserError("the list names no workdir; give those of finished runs, such as ['runs/a', 'runs/b']")
    known = {field.name for field in dataclasses.fields(DecodingSettings)}
    unknown = [name for name in decoding if name not in known]
    if unknown:
        raise UserError(f"{unknown[0]} is no setting of decoding; allowed: {', '.join(sorted(known))}")
    check_distinct(workdirs)
    # Where images lie, and the like, was chosen by whoever trained; they are not read.
    first = Config.of(**run_settings(pathlib.Path(workdirs[0])) | decoding | {"mode": "evaluate"})
    return ensembles.load_captioner(ensembles.check_runs(member_configs(first, workdirs)))
