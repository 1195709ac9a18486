"""Exported models of a run: written, captioned with, and compared with what the run would export."""

import hashlib
import json
import pathlib
import sys
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from spidercap.export.saved_model import (
    CheckFailed,
    export,
    faults,
    kept_decoder,
    kept_max_pixels,
    kept_source,
    versions,
)
from spidercap.pipeline import digests
from spidercap.pipeline.data.image_files import readable_files
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.evaluation.caption_files import caption_files
from spidercap.pipeline.evaluation.evaluate import decoder_of
from spidercap.pipeline.evaluation.image_paths import image_files
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.text.printable import printable
from spidercap.pipeline.training import kept
from spidercap.pipeline.training.checkpoint_files import newest_checkpoint


def run_export(config: Config) -> None:
    """Writes the last stage's captioner as a SavedModel and checks it."""
    print("exporting:   the model is written, then compared with itself in a new process", flush=True)
    encoder, vocabulary = kept.kept_encoder(config), kept.kept_vocabulary(config)
    # A model server may lack XLA or run on CPUs, where bfloat16 is slow.
    config = config.with_values(jit=False, precision="float32")
    captioner, baseline = kept.build_models(config, vocabulary, encoder.output_shape[1])
    kept.load_kept(config.workdir_path(), kept.last_kept(config), captioner, baseline)
    noise = np.random.default_rng(0).integers(
        0, 255, (3, config.model.image_size, config.model.image_size, 3), np.uint8
    )
    images = [tf.io.encode_png(image).numpy() for image in noise]
    try:
        path = export(
            encoder,
            captioner,
            vocabulary.words,
            config.data.max_length,
            config.export_path(),
            images,
            decoder_of(config, vocabulary.words),
            _source(config),
            config.data.max_pixels,
        )
    except CheckFailed as error:
        raise UserError(f"nothing was exported, because the written model differs: {error}") from error
    print(f"model:       {path}")


def export_once(config: Config) -> None:
    """Exports the last stage's captioner, unless the newest version is that one: the run was finished before."""
    exported = versions(config.export_path())
    damaged = digests.listed(faults(exported[-1])) if exported else ""
    if damaged:
        print(f"warning: {exported[-1]}: {damaged}; the model is exported again", file=sys.stderr)
    if exported and not damaged and kept_source(exported[-1]) == _source(config):
        print(f"model:       {exported[-1]}")
    else:
        run_export(config)


def run_caption(config: Config, images: Sequence[pathlib.Path] | None = None) -> None:
    """Prints one line per caption of the newest exported model; exports one if none has the decoding settings.

    Args:
      config: the settings.
      images: image files; by default those that --images names.
    """
    skip, limit = config.data.skip_bad_images, config.data.max_pixels
    # Mistakes in --images are reported before anything is exported.
    files = readable_files(image_files(config.data.images, skip) if images is None else images, skip, limit)
    models = versions(config.export_path())
    if models and kept_decoder(models[-1]) != decoder_of(config, kept.kept_vocabulary(config).words).to_json():
        print(f"{models[-1]} has other decoding settings; exporting a model with these beside it")
        models = []
    if models and kept_max_pixels(models[-1]) < limit:
        print(f"{models[-1]} rejects images that --max_pixels={limit} allows; exporting a model beside it")
        models = []
    if not models:
        run_export(config)
    model = versions(config.export_path())[-1]
    for file, captions in caption_files(model, files, skip):
        for caption, log_prob in captions:
            print(printable(f"{file}: {caption} (log-probability {log_prob:.2f})"))


def _source(config: Config) -> str:
    """What a model is exported from: digests of the weights and of the run's files, decoder, limit of pixels."""
    weights = newest_checkpoint(kept.kept_folder(config.workdir_path(), kept.last_kept(config)))
    decoder = decoder_of(config, kept.kept_vocabulary(config).words)
    made_of = [digests.recorded(weights), digests.recorded(config.workdir_path()), decoder.to_json()]
    made_of.append(config.data.max_pixels)
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest() + "\n"
