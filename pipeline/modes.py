"""One function per mode of a run, which calls the parts of the pipeline in order."""

import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from spidercap.models.captioners import CAPTIONERS
from spidercap.models.images import decode_image, resize_image
from spidercap.pipeline.data.image_files import suffix_of
from spidercap.pipeline.data.records import TITLES, Split, read_images
from spidercap.pipeline.data.tokens import training_arrays
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.evaluation.attention_maps import Attention, attention_maps, grid_side
from spidercap.pipeline.evaluation.evaluate import Evaluation, build_decoder, decoder_of, evaluate
from spidercap.pipeline.exports import caption_examples, export_once, run_caption, run_export
from spidercap.pipeline.files import written_aside
from spidercap.pipeline.metrics.registry import single_terms
from spidercap.pipeline.metrics.reward_functions import RewardFunction, load_reward_functions
from spidercap.pipeline.metrics.text_metrics import TextMetric, open_text_metrics
from spidercap.pipeline.preparation import Prepared, prepare, prepare_to_score
from spidercap.pipeline.report.results import SplitResults, print_table, results_folder, write_results, write_split
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.settings.saved import changed_settings
from spidercap.pipeline.training import identity, kept, strategies
from spidercap.pipeline.training.checkpoints import Models
from spidercap.pipeline.training.loop import train
from spidercap.pipeline.training.progress import Progress
from spidercap.pipeline.training.rewards import ReferenceTexts, build_reward
from spidercap.pipeline.training.tensorboard import Board
from spidercap.pipeline.workers import ALONE, Workers

SHOWN = 4  # validation images on TensorBoard
SAMPLES = 2  # validation images captioned at the end of training


def run_prepare(config: Config) -> None:
    """Prepares the data set, the vocabulary and the features, or reads them from the cache."""
    prepare(config)


def run_train(config: Config, reward_functions: Mapping[str, RewardFunction] = MappingProxyType({})) -> None:
    """Trains all stages, then evaluates, reports, exports, and captions two images with the exported model."""
    workers = strategies.workers_of(config)
    if workers.is_chief:
        for line in config.without_effect():
            print(f"warning: {line}", file=sys.stderr)
    # Loaded and opened first, so that missing files are reported before any work is done.
    own = load_reward_functions(config.rewards.reward_functions, reward_functions)
    with open_text_metrics(single_terms(config.terms()), **config.metrics.for_workers()) as text_metrics:
        with strategies.scope_of(config.training.strategy):
            strategies.check_batch(config.training.batch_size, workers)
        data = prepare(config, workers)
        with strategies.scope_of(config.training.strategy):
            _train_stages(config, data, text_metrics, own, workers)
        _evaluate(config, text_metrics, data, workers)
    if not workers.is_chief:
        return
    export_once(config)
    if data.splits["val"].images is None:
        caption_examples(config, data.features["val"].view(images=SAMPLES)[:], data.splits["val"].file_names)
    else:
        run_caption(config, _sample_images(config, data.splits["val"]))


def _train_stages(
    config: Config,
    data: Prepared,
    text_metrics: Mapping[str, TextMetric],
    own: Mapping[str, RewardFunction],
    workers: Workers,
) -> None:
    arrays = training_arrays(data.tokens["train"], data.vocabulary, data.features["train"], config.data.max_length)
    captioner, baseline = kept.build_models(config, data.vocabulary, identity.kept_feature_size(config))
    with workers.chief_first():
        frequencies = kept.kept_frequencies(config, arrays.references, data.vocabulary)
    reward = build_reward(
        config.reward_weights(),
        arrays.references,
        frequencies,
        config.rewards.end_token_in_reward,
        ReferenceTexts(data.vocabulary, data.tokens["train"].texts(), data.tokens["train"].image_ids),
        text_metrics,
        own,
        config.cache_path() / "references",
    )
    decoder = decoder_of(config, data.vocabulary.words)
    decode = build_decoder(captioner, config.data.max_length, decoder, workers, config.decoding.decode_seed)
    watched = data.features["val"].view(images=config.training.val_images or None)

    def begin() -> None:
        captioner.adapt(data.features["train"].view())
        if config.training.warm_start:
            kept.load_warm_start(config, data.vocabulary, captioner, baseline)

    def validate() -> Evaluation:
        return evaluate(decode, data.vocabulary, data.tokens["val"], watched, config.terms(), text_metrics, workers)

    logs, shown = config.workdir_path() / "logs", _shown_images(data.splits["val"])
    board = Board(logs, *shown, changed_settings(config), silent=not workers.is_chief)
    train(config, Models(captioner, baseline), arrays, reward, validate, begin, board, workers)


def run_evaluate(config: Config) -> None:
    """Scores the kept weights of every finished stage on whole splits and writes the report."""
    with open_text_metrics(single_terms(config.terms()), **config.metrics.for_workers()) as text_metrics:
        _evaluate(config, text_metrics)


def _evaluate(
    config: Config, text_metrics: Mapping[str, TextMetric], data: Prepared | None = None, workers: Workers = ALONE
) -> None:
    """Scores the splits val and test, or that of --split; the report is of val and test, and written by the chief."""
    progress = kept.saved_progress(config)
    if not progress.finished:
        raise UserError(f"{config.run.workdir} has finished no stage yet; run --mode=train first")
    data = data or prepare_to_score(config)
    names = [name for name in (config.run.split, "val", "test") if name in data.splits][: 1 if config.run.split else 2]
    found = {name: _split_results(config, progress, data, name, text_metrics, workers) for name in names}
    if not workers.is_chief:
        return
    policies = _policies(progress)
    for name, results in found.items():
        print(f"{len(results.split):,} {TITLES[name]} images:")
        print_table({label: results.evaluations[label] for label in policies})
    if not os.access(config.workdir_path(), os.W_OK):
        print(f"warning: {config.run.workdir} is read-only, so results and report are not written", file=sys.stderr)
        return
    for results in found.values():
        write_split(config, results)
    if config.run.split:
        print(f"results:     {config.workdir_path() / 'results' / found[config.run.split].folder}")
        return
    attention = _attention(config, data, names[-1], policies[-1])
    page = write_results(config, found, progress, policies, attention)
    print(f"report:      {page}\nTensorBoard: tensorboard --logdir={config.workdir_path() / 'logs'}")


def _split_results(
    config: Config,
    progress: Progress,
    data: Prepared,
    name: str,
    text_metrics: Mapping[str, TextMetric],
    workers: Workers,
) -> SplitResults:
    """Captions and scores of a split, of each finished stage."""
    captioner, baseline = kept.build_models(config, data.vocabulary, identity.kept_feature_size(config))
    decoder = decoder_of(config, data.vocabulary.words)
    decode = build_decoder(captioner, config.data.max_length, decoder, workers, config.decoding.decode_seed)
    evaluations = {}
    for stage in progress.finished:
        kept.load_kept(config.workdir_path(), stage.name, captioner, baseline)
        features = data.features[name].view()
        evaluations[stage.name] = evaluate(
            decode, data.vocabulary, data.tokens[name], features, config.terms(), text_metrics, workers
        )
    return SplitResults(name, results_folder(config, name), data.splits[name], data.tokens[name], evaluations)


def _attention(config: Config, data: Prepared, name: str, label: str) -> Attention | None:
    """What draws where the captioner of a stage looks in images of a split; None if it looks at no cells of them.

    Where regions of given features lie in an image is not known.
    """
    if config.data.features or not CAPTIONERS[config.model.decoder].takes_parts:
        return None
    captioner, baseline = kept.build_models(config, data.vocabulary, identity.kept_feature_size(config))
    kept.load_kept(config.workdir_path(), label, captioner, baseline)
    if not grid_side(captioner.tuned.output_shape[1] if captioner.tuned else data.features[name].shape[2]):
        return None

    def attention(rows: Sequence[int], captions: Sequence[str]) -> list[np.ndarray]:
        return attention_maps(captioner, data.vocabulary, captions, data.features[name].gather(np.array(rows)))

    return attention


def _policies(progress: Progress) -> list[str]:
    """The finished stages that trained the policy; all finished ones if none did."""
    finished = progress.finished
    return [stage.name for stage in finished if stage.moves_policy] or [stage.name for stage in finished]


def _shown_images(split: Split) -> tuple[np.ndarray, list[list[str]]]:
    encoded = read_images(split, range(min(SHOWN, len(split)))).values()
    images = [resize_image(decode_image(one), 224).numpy() / 255 for one in encoded]
    return np.array(images).reshape(-1, 224, 224, 3), [list(c) for c in split.captions[:SHOWN]]


def _sample_images(config: Config, split: Split) -> Sequence[pathlib.Path]:
    """Writes the first validation images to <workdir>/samples as they are stored; returns their paths."""
    paths = []
    for i, image in read_images(split, range(min(SAMPLES, len(split)))).items():
        paths.append(config.workdir_path() / "samples" / f"val_{i}{suffix_of(image)}")
        with written_aside(paths[-1], len(image)) as aside:
            aside.write_bytes(image)
    return paths


# All modes that need a run.
RUN: dict[str, Callable[[Config], object]] = {
    "prepare": run_prepare,
    "train": run_train,
    "evaluate": run_evaluate,
    "caption": run_caption,
    "export": run_export,
}
