"""The training loop over the stages of a run.

A stopped run resumes like this, whatever stopped it:
1. The newest checkpoint in <workdir>/checkpoints holds the next stage and step.
2. Within a stage, weights and optimizers are restored from it.
3. At the start of a stage, weights are restored and optimizers are new.
4. Without a checkpoint, weights come from --warm_start, else from --seed.
"""

import pathlib
import sys
from collections.abc import Callable, Mapping

from spidercap.pipeline.data.batches import TrainingArrays
from spidercap.pipeline.errors import Interrupted, UserError
from spidercap.pipeline.evaluation.evaluate import Evaluation
from spidercap.pipeline.metrics.registry import column_of
from spidercap.pipeline.metrics.versions import versions_in_use
from spidercap.pipeline.settings.config import Config, stage_labels
from spidercap.pipeline.training.checkpoint_files import checkpoint_of, newest_checkpoint, read_checkpoint
from spidercap.pipeline.training.checkpoints import Models, Saver, save_run
from spidercap.pipeline.training.console import Console
from spidercap.pipeline.training.kept import check_kept, temperature_at
from spidercap.pipeline.training.progress import Progress, read_progress
from spidercap.pipeline.training.run_files import checkpoint_folder
from spidercap.pipeline.training.stage_loop import StageLoop
from spidercap.pipeline.training.stages import build_stage, planned_steps_of_all
from spidercap.pipeline.training.stopping import stop_asked
from spidercap.pipeline.training.tensorboard import Board
from spidercap.pipeline.workers import ALONE, Workers


def train(
    config: Config,
    models: Models,
    arrays: TrainingArrays,
    reward: Callable,
    validate: Callable[[], Evaluation],
    begin: Callable[[], None],
    board: Board,
    workers: Workers = ALONE,
) -> Progress:
    """Runs all unfinished stages and returns the run's progress.

    `validate` scores the captioner; `begin` sets the initial weights of a new run. Several workers take the same steps;
    only the chief tells of them.

    Raises:
      Interrupted: a signal of STOPPING came; the same call resumes from the checkpoint that was saved.
      UserError: too many updates were skipped, because loss or gradients were NaN or infinite.
    """
    workdir = config.workdir_path()
    folder = checkpoint_folder(workdir)
    newest = _newest(folder, workers)
    progress = read_progress(newest)
    check_kept(config, progress, from_checkpoint=newest is not None)
    labels = stage_labels(config)
    if workers.is_chief and progress.stage < len(labels):
        tell_of_versions(progress, versions_in_use([column_of(term) for term in config.terms()]))
    board.begin(progress.events, shown=bool(progress.history))
    weights = checkpoint_of(vars(models))
    if newest is None:
        begin()
        # So that a run which has kept weights always has a checkpoint, unless it was lost.
        if workers.is_chief:
            save_run(folder, weights, progress, board)
    else:
        print(f"resuming from {newest}")
        try:
            read_checkpoint(newest, weights).assert_existing_objects_matched().expect_partial()
        except AssertionError as error:
            raise UserError(f"{newest} does not hold all weights; train again, in another --workdir") from error
    if newest is None and all(temperature_at(config, k) == 1 for k in range(len(labels))):
        _warn_of_temperature(config, workers)
    with stop_asked(workers) as stopping:
        while progress.stage < len(labels):
            # Checkpoints within a stage hold weights to which the temperature has been applied.
            if progress.step == 0 and (temperature := temperature_at(config, progress.stage)) != 1:
                models.captioner.apply_temperature(temperature)
            stage = build_stage(config, progress.stage, models.captioner, models.baseline, arrays, reward)
            saver = Saver(workdir, models, stage, progress, board, workers)
            if progress.step > 0:
                saver.restore(newest)
            console = Console(stage, config.training.batch_size, progress.step, is_silent=not workers.is_chief)
            with console:
                StageLoop(config, stage, progress, saver, board, console, validate).run(stopping)
            saver.finish(stage)
            if stopping(now=True):
                raise Interrupted(saver.newest())
    board.finish(planned_steps_of_all(config, arrays) + 1, progress.kept_metrics())
    workers.wait()  # for the last checkpoint, which the others read too
    return progress


def tell_of_versions(progress: Progress, versions: Mapping[str, str]) -> None:
    """Warns on stderr if a run goes on with other versions of what is learned in its metrics, and notes these."""
    # Of the metrics in rows of before versions were stored.
    unknown = versions_in_use({column for row in progress.history for column in row.metrics})
    for name, version in versions.items():
        known = progress.versions.get(name)
        if known != version and (known or name in unknown):
            before = f"version {known}" if known else "an unknown version"
            print(
                f"warning: until here this run used {before} of the {name}, from here on it uses {version}: rewards "
                "and scores after this line do not compare with those before it, and the best is chosen among both",
                file=sys.stderr,
            )
    progress.versions |= versions


def _newest(folder: pathlib.Path, workers: Workers) -> pathlib.Path | None:
    """The checkpoint to go on from, the same on all workers."""
    found = newest_checkpoint(folder, tell=True) if workers.is_chief else None
    name = workers.from_chief(found.name if found else "")
    return folder / name if name else None


def _warn_of_temperature(config: Config, workers: Workers) -> None:
    if workers.is_chief and any(value != 1 for value in config.stage_values("temperature").values()):
        print(
            f"warning: --temperature={config.rewards.temperature} changes nothing, because no stage on rewards "
            "follows a stage of likelihood; leave it out, or change --stages",
            file=sys.stderr,
        )
