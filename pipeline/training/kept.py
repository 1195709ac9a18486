"""Weights and document frequencies that a run keeps in its workdir, and models rebuilt from them."""

import pathlib
import sys
from collections.abc import Mapping, Sequence

import keras

from spidercap.models.baseline import Baseline
from spidercap.models.captioner import Captioner
from spidercap.models.captioners import CAPTIONERS
from spidercap.models.precision import PRECISIONS
from spidercap.models.special_tokens import SPECIAL_TOKENS
from spidercap.pipeline import digests
from spidercap.pipeline.data.features import cut_of
from spidercap.pipeline.data.overlap import report_learned
from spidercap.pipeline.data.records import Split
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.metrics.document_frequencies import (
    DocumentFrequencies,
    load_document_frequencies,
    save_document_frequencies,
)
from spidercap.pipeline.metrics.size_classes import SizeClass
from spidercap.pipeline.settings.config import Config, stage_labels
from spidercap.pipeline.settings.saved import differences, read_settings
from spidercap.pipeline.settings.stages import STAGES
from spidercap.pipeline.text.vocabulary import Vocabulary
from spidercap.pipeline.training.checkpoint_files import (
    checkpoint_of,
    checkpoints,
    newest_checkpoint,
    read_checkpoint,
)
from spidercap.pipeline.training.identity import (
    FREQUENCIES,
    IMAGES,
    check_files,
    encoder_text,
    kept_encoder,
    kept_images,
    kept_vocabulary,
)
from spidercap.pipeline.training.other_words import copy_weights, shared_words
from spidercap.pipeline.training.progress import Progress, read_progress
from spidercap.pipeline.training.rewards import reward_frequencies
from spidercap.pipeline.training.run_files import NO_COPY, check_not_lost, checkpoint_folder, kept_folder


def kept_frequencies(config: Config, references: Sequence[SizeClass], vocabulary: Vocabulary) -> DocumentFrequencies:
    """Returns the document frequencies of the run's reward, counted once in training references."""
    path = config.workdir_path() / FREQUENCIES
    wrong = digests.fault(path)
    if not wrong:
        return load_document_frequencies(path)
    if path.exists():
        print(f"warning: {path} {wrong}; the document frequencies are counted again", file=sys.stderr)
    frequencies = reward_frequencies(references, vocabulary.reference_size, config.rewards.end_token_in_reward)
    save_document_frequencies(path, frequencies)
    digests.record(path.parent, [path.name])
    return frequencies


def build_models(config: Config, vocabulary: Vocabulary, feature_size: int) -> tuple[Captioner, Baseline]:
    """Returns untrained models; their weights depend on the seed alone, and on the run's encoder if it is tuned."""
    encoder = kept_encoder(config) if config.model.finetune_encoder else None
    keras.utils.set_random_seed(config.run.seed)
    captioner = CAPTIONERS[config.model.decoder](
        len(vocabulary.words),
        feature_size,
        config.model.units,
        config.model.embedding_size,
        config.likelihood.dropout,
        PRECISIONS[config.model.precision],
        config.model.jit,
        config.data.max_length,
    )
    if encoder is not None:
        captioner.tuned = cut_of(config, encoder).tuned
    return captioner, Baseline(config.model.units, config.model.baseline_units)


def takes_over(config: Config, index: int) -> bool:
    """Returns whether stage `index` is the first on rewards after likelihood, in this run or that of --warm_start."""
    names = [stage.name for stage in config.training.parsed_stages()]
    if index == 0 and config.training.warm_start:
        before = last_kept(warm_start_of(config)).partition("-")[0]
    else:
        before = names[index - 1] if index else ""
    return bool(before) and not STAGES[before].learns_from_rewards and STAGES[names[index]].learns_from_rewards


def temperature_at(config: Config, index: int) -> float:
    """Returns the temperature to apply at the start of stage `index`: 1 unless `takes_over`.

    If the stage is the baseline's warm-up, it is the temperature of the stage that follows the warm-up.
    """
    if not takes_over(config, index):
        return 1.0
    names = [stage.name for stage in config.training.parsed_stages()][index:]
    learning = next((name for name in names if STAGES[name].moves_policy), names[0])
    return config.of_stage("temperature", learning)


def check_kept(config: Config, progress: Progress, from_checkpoint: bool) -> None:
    """Raises UserError if weights are lost that stages have kept, or the checkpoints of a run that has kept weights.

    Otherwise a run would train to its end and then fail, or start from the beginning.

    Args:
      config: the settings.
      progress: where the run goes on.
      from_checkpoint: whether it was read from a checkpoint.
    """
    workdir = config.workdir_path()
    current = [stage_labels(config)[progress.stage]] if progress.best is not None else []
    for label in [*(stage.name for stage in progress.finished), *current]:
        if newest_checkpoint(kept_folder(workdir, label)) is None:
            raise UserError(f"{kept_folder(workdir, label)} is lost; {NO_COPY}")
    if not from_checkpoint:
        check_not_lost(config)


def saved_progress(config: Config) -> Progress:
    """Returns the progress in the run's newest checkpoint."""
    return read_progress(newest_checkpoint(checkpoint_folder(config.workdir_path())))


def last_kept(config: Config) -> str:
    """Returns the label of the last finished stage; if none is finished, of the first one that kept weights."""
    workdir = config.workdir_path()
    labels = [label for label in stage_labels(config) if checkpoints(kept_folder(workdir, label))]
    if not labels:
        raise UserError(f"{config.run.workdir} has kept no weights yet; run --mode=train first")
    # Weights of an unfinished stage may be worse than those it started from.
    finished = [row.name for row in saved_progress(config).finished]
    return finished[-1] if finished else labels[0]


def load_kept(workdir: pathlib.Path, label: str, captioner: Captioner, baseline: Baseline) -> None:
    """Loads the kept weights of a stage into the models."""
    path = newest_checkpoint(kept_folder(workdir, label))
    if path is None:
        raise UserError(f"{workdir} holds no weights of stage {label}; train it first")
    try:
        status = read_checkpoint(path, checkpoint_of({"captioner": captioner, "baseline": baseline}))
        status.assert_consumed().assert_existing_objects_matched()
    except (ValueError, AssertionError) as error:
        raise UserError(
            f"the weights in {workdir} are of another model, or not all of it; use the same model flags, or train it "
            "again"
        ) from error


def check_warm_start(
    config: Config, splits: Mapping[str, Split], vocabulary: Vocabulary, encoder: keras.Model | None
) -> None:
    """Raises UserError if the run of --warm_start does not match; cheap, to be called before features are computed.

    A warning tells of images to be scored that this run was trained on.
    """
    if config.training.warm_start and not checkpoints(checkpoint_folder(config.workdir_path())):
        saved = warm_start_of(config)
        if IMAGES in digests.recorded(saved.workdir_path()):  # runs of earlier versions have none
            report_learned(splits, f"--warm_start={saved.run.workdir}", kept_images(saved)["train"])
        theirs = kept_vocabulary(saved).words
        if theirs != vocabulary.words:
            count = shared_words(vocabulary.words, theirs)
            if not count:
                raise UserError(
                    f"--warm_start={saved.run.workdir} shares no word with these captions; leave it out, or name a run "
                    "on captions of the same language"
                )
            print(
                f"warm start: {count:,} words are taken over from {saved.run.workdir}; "
                f"{len(vocabulary.words) - len(SPECIAL_TOKENS) - count:,} words are new to it, and "
                f"{len(theirs) - len(SPECIAL_TOKENS) - count:,} of its words are left out",
                flush=True,
            )
        digest = (saved.workdir_path() / "encoder.txt").read_text(encoding="utf-8").split()[0]
        if digest != encoder_text(encoder, 0).split()[0]:
            raise UserError(
                f"--warm_start={saved.run.workdir} has another encoder; use its --encoder_weights, or its --features"
            )


def load_warm_start(config: Config, vocabulary: Vocabulary, captioner: Captioner, baseline: Baseline) -> None:
    """Loads the last kept weights of the run of --warm_start into the models, whose words are those of `vocabulary`."""
    saved = warm_start_of(config)
    theirs = kept_vocabulary(saved)
    source, other_baseline = captioner, saved.model.baseline_units != config.model.baseline_units
    tuned = saved.model.finetune_encoder != config.model.finetune_encoder
    if theirs.words != vocabulary.words or tuned or other_baseline:
        source, their_baseline = build_models(saved, theirs, captioner.feature_mean.shape[0])
        baseline = their_baseline if other_baseline else baseline
    load_kept(saved.workdir_path(), last_kept(saved), source, baseline)
    if source is not captioner:
        copy_weights(captioner, vocabulary.words, source, theirs.words)


def warm_start_of(config: Config) -> Config:
    """Returns the settings of the run of --warm_start; raises UserError if this run cannot use its weights."""
    other = pathlib.Path(config.training.warm_start)
    if not (other / "config.json").is_file():
        raise UserError(f"--warm_start={other} holds no run (no config.json); name the workdir of a trained one")
    if other.resolve() == config.workdir_path().resolve():
        raise UserError(f"--warm_start={other} is the --workdir itself; name another run, or leave it out")
    saved = Config.of(**read_settings(other / "config.json") | {"workdir": str(other)})
    check_files(other, "restore it from a copy, or name another --warm_start")
    if bool(saved.data.features) != bool(config.data.features):
        theirs, own = ("features", "images") if saved.data.features else ("images", "features")
        raise UserError(
            f"--warm_start={other} was trained on {theirs}, and this run is on {own}; name a run on {own}, or leave it "
            "out"
        )
    sizes = () if config.data.features else ("encoder", "image_size")
    sizes += ("decoder", "units", "embedding_size")
    if _reads_baseline(saved) and _reads_baseline(config):  # else one of them has none that was trained or will be
        sizes += ("baseline_units",)
    if saved.model.finetune_encoder:  # else the layers to tune begin as those of the frozen encoder
        sizes += ("finetune_encoder", "finetune_from")
    wrong = differences({n: saved.flat()[n] for n in sizes}, {n: config.flat()[n] for n in sizes})
    if wrong:
        raise UserError(f"--warm_start={other} holds another model ({'; '.join(wrong)}); use the same model flags")
    last_kept(saved)
    return saved


def _reads_baseline(config: Config) -> bool:
    return any("baseline_units" in STAGES[stage.name].reads for stage in config.training.parsed_stages())
