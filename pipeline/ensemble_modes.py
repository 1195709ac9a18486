"""The modes that take several runs in --workdir, which then decode together."""

import contextlib
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from spidercap.pipeline import ensembles
from spidercap.pipeline.captioning import caption_given
from spidercap.pipeline.data.overlap import report_overlap
from spidercap.pipeline.data.records import TITLES
from spidercap.pipeline.ensembles import Runs
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.evaluation.evaluate import build_decoder, decoder_of, evaluate
from spidercap.pipeline.metrics.registry import single_terms
from spidercap.pipeline.metrics.text_metrics import open_text_metrics
from spidercap.pipeline.preparation import features_to_score, prepare_to_score
from spidercap.pipeline.report.results import (
    SplitResults,
    print_table,
    results_folder,
    versions_json,
    write_json,
    write_split,
)
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.settings.decoding_settings import told_of
from spidercap.pipeline.settings.workdirs import member_configs, named_workdirs
from spidercap.pipeline.training import identity
from spidercap.pipeline.training.workdir import open_workdir

LABEL = "ensemble"
LONGEST = 120  # characters of the name of a folder
SUMMARY = "summary.json"


def is_ensemble(config: Config) -> bool:
    """Returns whether --workdir names several runs."""
    return len(named_workdirs(config.run.workdir)) > 1


def run_ensemble(config: Config) -> None:
    """Runs a mode with all runs of --workdir, which are locked meanwhile and not written to.

    Raises:
      UserError: the runs do not fit together, or one of them cannot be used.
    """
    with _opened(member_configs(config, named_workdirs(config.run.workdir))) as configs:
        RUN[config.run.mode](config, ensembles.check_runs(configs))


@contextlib.contextmanager
def _opened(configs: Sequence[Config]) -> Iterator[Sequence[Config]]:
    with contextlib.ExitStack() as stack:
        for config in configs:
            stack.enter_context(open_workdir(config))
        yield configs


def _caption(config: Config, runs: Runs) -> None:
    size = identity.kept_feature_size(runs.configs[0]) if runs.takes_features else 0
    caption_given(config, size, lambda: ensembles.load_captioner(runs))


def _evaluate(config: Config, runs: Runs) -> None:
    """Scores the ensemble on the splits of the first run, and writes the results to a folder of their own."""
    folder = results_place(config, runs)
    with open_text_metrics(single_terms(config.terms()), **config.metrics.for_workers()) as text_metrics:
        found = _split_results(runs, text_metrics)
    for results in found:
        print(f"{len(results.split):,} {TITLES[results.name]} images:")
        print_table(results.evaluations)
    if folder is None:
        return
    for results in found:
        write_split(config, results, folder)
    write_json(folder / SUMMARY, _summary(config, runs, found))
    print(f"results:     {folder}")


def _split_results(runs: Runs, text_metrics: Mapping[str, Any]) -> list[SplitResults]:
    first = runs.configs[0]
    data = prepare_to_score(first)
    features = [data.features]
    for config in runs.configs[1:]:
        report_overlap(data.splits, identity.kept_images(config))
        features.append(features_to_score(config, data.splits))
    decoder = decoder_of(first, runs.vocabulary.words)
    decode = build_decoder(ensembles.load_ensemble(runs), runs.max_length, decoder, seed=first.decoding.decode_seed)
    found = []
    for name in (name for name in ("train", "val", "test") if name in data.splits):
        views = tuple(of_run[name].view() for of_run in features)
        scored = evaluate(decode, runs.vocabulary, data.tokens[name], views, first.terms(), text_metrics)
        folder = results_folder(first, name)
        found.append(SplitResults(name, folder, data.splits[name], data.tokens[name], {LABEL: scored}))
    return found


def results_place(config: Config, runs: Runs) -> pathlib.Path | None:
    """Returns the folder of the results: --output, or `ensembles/<names of the runs>` beside the first run.

    None, with a warning, if --output was not given and the folder cannot be written.

    Raises:
      UserError: the folder is that of a run, holds the results of other runs, or is --output and cannot be written.
    """
    workdirs = [one.workdir_path() for one in runs.configs]
    name = "+".join(os.path.basename(os.path.realpath(path)) for path in workdirs)[:LONGEST]
    folder = pathlib.Path(config.metrics.output) if config.metrics.output else workdirs[0].parent / "ensembles" / name
    if (folder / "config.json").exists():
        raise UserError(f"{folder} is the folder of a run; name another by --output for the results of the ensemble")
    others = _kept_workdirs(folder)
    if others and others != [one["workdir"] for one in members_of(runs)]:
        raise UserError(f"{folder} holds results of {', '.join(others)}; name another folder by --output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        if config.metrics.output:
            raise UserError(f"--output={folder} cannot be written ({error.strerror}); name another folder") from error
        print(f"warning: {folder} cannot be written ({error.strerror}), so results are not", file=sys.stderr)
        return None
    return folder


def _kept_workdirs(folder: pathlib.Path) -> list[str]:
    """The workdirs of the ensemble whose results are in a folder; [] if there are none."""
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        return [str(member["workdir"]) for member in summary["members"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / SUMMARY} is not of an ensemble; name another folder by --output") from error


def _summary(config: Config, runs: Runs, found: Sequence[SplitResults]) -> dict[str, Any]:
    """What was decoded by which runs, and how well."""
    return {
        **versions_json(found[0].evaluations),
        "members": members_of(runs),
        "decoding": told_of(vars(config.decoding)),
        "splits": {
            results.folder: {"images": len(results.split), "metrics": results.evaluations[LABEL].corpus}
            for results in found
        },
    }


def members_of(runs: Runs) -> list[dict[str, str]]:
    """Returns the runs of an ensemble, each with the stage whose weights are used."""
    pairs = zip(runs.configs, runs.stages, strict=True)
    return [{"workdir": os.path.realpath(config.run.workdir), "stage": stage} for config, stage in pairs]


RUN: dict[str, Callable[[Config, Runs], None]] = {"evaluate": _evaluate, "caption": _caption}
