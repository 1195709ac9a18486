"""What training and evaluation read: the splits of the data set, their tokens, the vocabulary and the features."""

import dataclasses
import sys
from collections.abc import Iterable, Mapping

import keras

from spidercap.pipeline.data.caption_lengths import check_lengths
from spidercap.pipeline.data.feature_store import Features
from spidercap.pipeline.data.features import all_features, load_encoder
from spidercap.pipeline.data.given_features import given_features
from spidercap.pipeline.data.overlap import report_overlap
from spidercap.pipeline.data.prepare import prepare_data
from spidercap.pipeline.data.records import SPLITS, TITLES, Split
from spidercap.pipeline.data.tokens import TokenizedSplit, tokenize_split
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.report.data_page import write_data_page
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.text.rare_words import rare_words_note, unknown_share, vocabulary_line
from spidercap.pipeline.text.vocabulary import Vocabulary, build_vocabulary
from spidercap.pipeline.training import identity, kept
from spidercap.pipeline.workers import ALONE, Workers


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The splits of a run, by name."""

    splits: Mapping[str, Split]
    tokens: Mapping[str, TokenizedSplit]
    vocabulary: Vocabulary
    features: Mapping[str, Features]


def prepare(config: Config, workers: Workers = ALONE) -> Prepared:
    """Prepares the data set, the vocabulary and the features, or reads them from the cache.

    Of several workers the chief prepares, and all of them compute features.
    """
    encoder = None if config.data.features else load_encoder(config)
    with workers.chief_first():
        prepared = _prepare(config, encoder)
    if encoder is None:
        return prepared
    views = {"train": config.data.views, "val": 1, "test": 1}
    return dataclasses.replace(prepared, features=all_features(config, prepared.splits, encoder, views, workers))


def _prepare(config: Config, encoder: keras.Model | None) -> Prepared:
    """Prepares all but the encoder's features; then nothing of the run may change any more."""
    splits = identified_data(config)
    tokens = {name: tokenize_split(split, config.cache_path()) for name, split in splits.items()}
    words = tokens["train"].words
    check_lengths(words.numbers.lengths, config.data.max_length)
    counts = words.counted()
    vocabulary = build_vocabulary(counts, config.data.min_word_count)
    identity.keep_identity(config, "vocabulary.json", vocabulary.to_json())
    # Before features are computed, which takes long: mistakes in the data are seen now.
    _show(config, splits, tokens, vocabulary, counts)
    identity.keep_sizes(config, splits)
    kept.check_warm_start(config, splits, vocabulary, encoder)
    features = given_features(config, splits) if encoder is None else {}
    size = features["train"].shape[-1] if encoder is None else encoder.output_shape[-1]
    identity.keep_encoder(config, encoder, size)
    return Prepared(splits, tokens, vocabulary, features)


def _show(
    config: Config,
    splits: Mapping[str, Split],
    tokens: Mapping[str, TokenizedSplit],
    vocabulary: Vocabulary,
    counts: Mapping[str, int],
) -> None:
    """Prints a summary of the data, and writes the page that shows them."""
    least = config.data.min_word_count
    sizes = [f"{len(split)} {TITLES[name]}" for name, split in splits.items()]
    summary = (
        f"{', '.join(sizes[:-1])} and {sizes[-1]} images, {vocabulary_line(vocabulary, unknown_share(counts, least))}"
    )
    note = rare_words_note(counts, least)
    path = config.workdir_path() / identity.DATA_PAGE
    write_data_page(path, splits, tokens, vocabulary, config.data, [summary, *filter(None, [note])])
    print(f"data: {summary}\npage: {path}", flush=True)
    if note:
        print(f"warning: {note}", file=sys.stderr)


def prepare_to_score(config: Config) -> Prepared:
    """Returns the splits that are to be scored, with the vocabulary and the encoder of the run.

    Raises:
      UserError: the run has no such split.
    """
    wanted = (config.run.split,) if config.run.split else ("val", "test")
    splits = identified_data(config, wanted)
    if not splits:
        raise UserError(
            f"--split={wanted[0]}: {config.run.workdir} has no such split; give its captions by --test_captions"
        )
    features = features_to_score(config, splits)
    tokens = {name: tokenize_split(split, config.cache_path()) for name, split in splits.items()}
    return Prepared(splits, tokens, identity.kept_vocabulary(config), features)


def features_to_score(config: Config, splits: Mapping[str, Split]) -> dict[str, Features]:
    """Returns the features of splits as the run sees them: by its encoder, or those of --features."""
    encoder = identity.kept_encoder(config)
    if encoder is None:
        return given_features(config, splits)
    return all_features(config, splits, encoder, dict.fromkeys(splits, 1))


def identified_data(config: Config, wanted: Iterable[str] = SPLITS) -> dict[str, Split]:
    """Returns the wanted splits; raises UserError before they are rendered if the run started with others."""
    splits = prepare_data(config, lambda fingerprints: identity.keep_data(config, fingerprints), wanted)
    identity.keep_images(config, splits)
    report_overlap(splits, identity.kept_images(config))
    return splits
