"""One function per mode, which calls the parts of the pipeline in order."""

import os
import pathlib
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from spidercap.models.images import decode_image, resize_image
from spidercap.pipeline.data.caption_lengths import check_lengths
from spidercap.pipeline.data.features import all_features, load_encoder, split_features
from spidercap.pipeline.data.image_files import suffix_of
from spidercap.pipeline.data.prepare import Data, image_records, prepare_data, read_captions
from spidercap.pipeline.data.records import SPLITS
from spidercap.pipeline.data.tokens import TokenizedSplit, tokenize_split, training_arrays
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.evaluation.evaluate import Evaluation, build_decoder, decoder_of, evaluate
from spidercap.pipeline.evaluation.score_files import score_files
from spidercap.pipeline.exports import export_once, run_caption, run_export
from spidercap.pipeline.files import written_aside
from spidercap.pipeline.metrics.registry import single_terms
from spidercap.pipeline.metrics.reward_functions import RewardFunction, load_reward_functions
from spidercap.pipeline.metrics.text_metrics import TextMetric, open_text_metrics
from spidercap.pipeline.report.results import print_table, write_results
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.text.rare_words import rare_words_note, unknown_share, vocabulary_line
from spidercap.pipeline.text.vocabulary import Vocabulary, build_vocabulary
from spidercap.pipeline.training import kept
from spidercap.pipeline.training.checkpoints import Models
from spidercap.pipeline.training.loop import train
from spidercap.pipeline.training.progress import Progress
from spidercap.pipeline.training.rewards import ReferenceTexts, build_reward
from spidercap.pipeline.training.tensorboard import Board

SHOWN = 4  # validation images on TensorBoard
SAMPLES = 2  # validation images captioned at the end of training


def run_prepare(config: Config) -> tuple[Data, dict[str, TokenizedSplit], Vocabulary, dict[str, np.ndarray]]:
    """Prepares the data set, the vocabulary and the features, or reads them from the cache."""
    encoder = load_encoder(config)
    data = identified_data(config)
    splits = {name: tokenize_split(read_captions(data, name), config.cache_path()) for name in SPLITS}
    words, least = splits["train"].words, config.data.min_word_count
    check_lengths(words.numbers.lengths, config.data.max_length)
    counts = words.counted()
    vocabulary = build_vocabulary(counts, least)
    kept.keep_identity(config, "vocabulary.json", vocabulary.to_json())
    kept.check_warm_start(config, vocabulary, encoder)
    kept.keep_encoder(config, encoder)
    features = all_features(config, data, encoder, {"train": config.data.views, "val": 1})
    print(
        f"data: {len(splits['train'].tokens)} training and {len(splits['val'].tokens)} validation images, "
        f"{vocabulary_line(vocabulary, unknown_share(counts, least))}"
    )
    if note := rare_words_note(counts, least):
        print(f"warning: {note}", file=sys.stderr)
    return data, splits, vocabulary, features


def run_train(config: Config, reward_functions: Mapping[str, RewardFunction] = MappingProxyType({})) -> None:
    """Trains all stages, then evaluates, reports, exports, and captions two images with the exported model."""
    for line in config.without_effect():
        print(f"warning: {line}", file=sys.stderr)
    # Loaded and opened first, so that missing files are reported before any work is done.
    own = load_reward_functions(config.rewards.reward_functions, reward_functions)
    with open_text_metrics(single_terms(config.terms()), **config.metrics.for_workers()) as text_metrics:
        data = _train_stages(config, text_metrics, own)
        _evaluate(config, text_metrics, data)
    export_once(config)
    run_caption(config, _sample_images(config, data))


def _train_stages(config: Config, text_metrics: Mapping[str, TextMetric], own: Mapping[str, RewardFunction]) -> Data:
    data, splits, vocabulary, features = run_prepare(config)
    arrays = training_arrays(splits["train"], vocabulary, features["train"], config.data.max_length)
    captioner, baseline = kept.build_models(config, vocabulary, features["train"].shape[-1])
    reward = build_reward(
        config.reward_weights(),
        arrays.references,
        kept.kept_frequencies(config, arrays.references, vocabulary),
        config.rewards.end_token_in_reward,
        ReferenceTexts(vocabulary, splits["train"].texts(), splits["train"].image_ids),
        text_metrics,
        own,
    )
    decode = build_decoder(captioner, config.data.max_length, decoder_of(config, vocabulary.words))
    watched = features["val"][: config.training.val_images or None, 0]

    def begin() -> None:
        captioner.adapt(features["train"][:, 0])
        if config.training.warm_start:
            kept.load_warm_start(config, captioner, baseline)

    def validate() -> Evaluation:
        return evaluate(decode, vocabulary, splits["val"], watched, config.terms(), text_metrics)

    board = Board(config.workdir_path() / "logs", *_shown_images(data, splits["val"]))
    train(config, Models(captioner, baseline), arrays, reward, validate, begin, board)
    return data


def run_evaluate(config: Config) -> None:
    """Scores the kept weights of every finished stage on the whole validation split and writes the report."""
    with open_text_metrics(single_terms(config.terms()), **config.metrics.for_workers()) as text_metrics:
        _evaluate(config, text_metrics)


def _evaluate(config: Config, text_metrics: Mapping[str, TextMetric], data: Data | None = None) -> None:
    progress = kept.saved_progress(config)
    if not progress.finished:
        raise UserError(f"{config.run.workdir} has finished no stage yet; run --mode=train first")
    data = data or identified_data(config)
    split = tokenize_split(read_captions(data, "val"), config.cache_path())
    vocabulary = kept.kept_vocabulary(config)
    features = split_features(config, data, kept.kept_encoder(config), "val")
    captioner, baseline = kept.build_models(config, vocabulary, features.shape[1])
    decode = build_decoder(captioner, config.data.max_length, decoder_of(config, vocabulary.words))
    evaluations = {}
    for stage in progress.finished:
        kept.load_kept(config.workdir_path(), stage.name, captioner, baseline)
        evaluations[stage.name] = evaluate(decode, vocabulary, split, features, config.terms(), text_metrics)
    policies = _policies(progress)
    print_table({label: evaluations[label] for label in policies})
    if not os.access(config.workdir_path(), os.W_OK):
        print(f"warning: {config.run.workdir} is read-only, so results and report are not written", file=sys.stderr)
        return
    page = write_results(config, data, split, progress, evaluations, policies)
    print(f"report:      {page}\nTensorBoard: tensorboard --logdir={config.workdir_path() / 'logs'}")


def identified_data(config: Config) -> Data:
    """The data set; raises UserError before it is prepared if the run started with another."""
    return prepare_data(config, lambda fingerprint: kept.keep_identity(config, "data.txt", fingerprint + "\n"))


def _policies(progress: Progress) -> list[str]:
    """The finished stages that trained the policy; all finished ones if none did."""
    finished = progress.finished
    return [stage.name for stage in finished if stage.moves_policy] or [stage.name for stage in finished]


def _shown_images(data: Data, split: TokenizedSplit) -> tuple[np.ndarray, list[list[str]]]:
    records = image_records(data, "val").take(SHOWN)
    images = np.stack([resize_image(decode_image(r), 224).numpy() for r in records]) / 255
    return images, [list(c) for c in split.captions[:SHOWN]]


def _sample_images(config: Config, data: Data) -> list[pathlib.Path]:
    """Writes the first validation images to <workdir>/samples as they are stored; returns their paths."""
    paths = []
    for i, record in enumerate(image_records(data, "val").take(SAMPLES)):
        image = record.numpy()
        paths.append(config.workdir_path() / "samples" / f"val_{i}{suffix_of(image)}")
        with written_aside(paths[-1], len(image)) as aside:
            aside.write_bytes(image)
    return paths


RUN: dict[str, Callable[[Config], object]] = {
    "prepare": run_prepare,
    "train": run_train,
    "evaluate": run_evaluate,
    "score": score_files,
    "caption": run_caption,
    "export": run_export,
}
