"""Exported models of a run: written, captioned with, and compared with what the run would export."""

import hashlib
import json
import pathlib
import shutil
import sys
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from spidercap.export.model_card import model_card
from spidercap.export.saved_model import (
    CheckFailed,
    export,
    faults,
    kept_decoder,
    kept_max_pixels,
    kept_source,
)
from spidercap.export.versions import versions
from spidercap.models.captioner import Captioner
from spidercap.pipeline import digests
from spidercap.pipeline.captioning import caption_given
from spidercap.pipeline.card_facts import facts_of
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.evaluation.caption_files import ExportedCaptioner
from spidercap.pipeline.evaluation.evaluate import decoder_of
from spidercap.pipeline.portable_exports import Exported, load_exported, write_formats
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.text.printable import printable
from spidercap.pipeline.training import identity, kept
from spidercap.pipeline.training.checkpoint_files import newest_checkpoint
from spidercap.pipeline.training.run_files import kept_folder


def run_export(config: Config) -> None:
    """Writes the last stage's captioner as a SavedModel, checks it, and adds the other formats of --export_format."""
    models = load_exported(config)
    path = _written(config, models, config.export_path())
    print(f"model:       {path} (of {kept.last_kept(config)})", flush=True)
    write_formats(config, path.name, _source(config), models)


def _written(config: Config, models: Exported, folder: pathlib.Path) -> pathlib.Path:
    """The new version of the SavedModel in a folder."""
    print("exporting:   the model is written, then compared with itself in a new process", flush=True)
    try:
        return export(
            models.encoder,
            models.captioner,
            models.vocabulary.words,
            config.data.max_length,
            folder,
            _examples(models.encoder, models.captioner),
            decoder_of(config, models.vocabulary.words),
            _source(config),
            config.data.max_pixels,
            model_card(facts_of(config, models.vocabulary)),
        )
    except CheckFailed as error:
        raise UserError(f"nothing was exported, because the written model differs: {error}") from error


def export_once(config: Config) -> None:
    """Exports the last stage's captioner, unless the newest version is that one: the run was finished before."""
    exported = versions(config.export_path())
    damaged = digests.listed(faults(exported[-1], needs_digests=True)) if exported else ""
    if damaged:
        print(f"warning: {exported[-1]}: {damaged}; the model is exported again", file=sys.stderr)
    if exported and not damaged and kept_source(exported[-1]) == _source(config):
        print(f"model:       {exported[-1]}")
        write_formats(config, exported[-1].name, _source(config))
    else:
        run_export(config)


def run_caption(config: Config, images: Sequence[pathlib.Path] | None = None) -> None:
    """Prints one line per caption of the newest exported model, or of one for captioning with these settings.

    Args:
      config: the settings.
      images: image files; by default those that --images names, or the features of --features.
    """
    takes_features, model = identity.takes_features(config), _fitting_model(config)

    def captioner() -> ExportedCaptioner:
        return ExportedCaptioner(model or _new_model(config))

    size = identity.kept_feature_size(config) if takes_features else 0
    caption_given(config, size, captioner, kept_max_pixels(model) if model else 0, images)


def caption_examples(config: Config, features: np.ndarray, names: Sequence[str]) -> None:
    """Prints the captions of features by the newest exported model; `names` begin with theirs."""
    captioner = ExportedCaptioner(versions(config.export_path())[-1])
    captions = captioner.caption_features(features, config.decoding.decode_seed)
    for name, of_image in zip(names, captions, strict=False):
        print(printable(f"{name}: {of_image[0][0]} (log-probability {of_image[0][1]:.2f})"))


def _fitting_model(config: Config) -> pathlib.Path | None:
    """The newest exported model if it has these settings; else one that the run would export now with them, or None."""
    exported = versions(config.export_path())
    if exported and _fits(config, exported[-1]):
        return exported[-1]
    others = [*versions(config.captioning_path()), *exported[:-1]]
    return next((model for model in reversed(others) if _is_current(config, model)), None)


def _is_current(config: Config, model: pathlib.Path) -> bool:
    """Whether an exported model is whole, has these settings, and the weights that the run would export now."""
    source = kept_source(model)
    if not source or not _fits(config, model):
        return False
    return source == _source(config, kept_max_pixels(model)) and not faults(model)


def _new_model(config: Config) -> pathlib.Path:
    """A new model for captioning, not beside the exported ones: a server that watches their folder would serve it."""
    folder = config.captioning_path()
    print(f"no exported model has these settings of decoding and --max_pixels; writing one to {folder}")
    path = _written(config, load_exported(config), folder)
    for older in versions(folder)[:-1]:
        shutil.rmtree(older)
    return path


def _fits(config: Config, model: pathlib.Path) -> bool:
    """Whether an exported model has the settings of decoding, and allows as many pixels."""
    decoder = decoder_of(config, identity.kept_vocabulary(config).words)
    return kept_decoder(model) == decoder.to_json() and kept_max_pixels(model) >= config.data.max_pixels


def _examples(encoder: keras.Model | None, captioner: Captioner) -> list[bytes] | np.ndarray:
    """What the check of an export captions: images of noise, or features of it."""
    rng = np.random.default_rng(0)
    if encoder is None:
        mean, std = captioner.feature_mean.numpy(), captioner.feature_deviation.numpy()
        shape = (3, 4, len(mean)) if captioner.takes_parts else (3, len(mean))
        return (mean + std * rng.normal(size=shape)).astype(np.float32)
    size = encoder.input_shape[1]
    return [tf.io.encode_png(image).numpy() for image in rng.integers(0, 255, (3, size, size, 3), np.uint8)]


def _source(config: Config, max_pixels: int = 0) -> str:
    """What a model is exported from: digests of the weights and of the run's files, decoder, limit of pixels."""
    weights = newest_checkpoint(kept_folder(config.workdir_path(), kept.last_kept(config)))
    decoder = decoder_of(config, identity.kept_vocabulary(config).words)
    made_of = [digests.recorded(weights), digests.recorded(config.workdir_path()), decoder.to_json()]
    made_of.append(max_pixels or config.data.max_pixels)
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest() + "\n"
