"""Exported models in the formats of --export_format that need no TensorFlow, beside the SavedModel."""

import dataclasses
import pathlib

import keras

from spidercap.export.portable import kept_source, portable_folder, write_portable
from spidercap.export.saved_model import CheckFailed
from spidercap.models.captioner import Captioner
from spidercap.models.encoder_cut import Cut, whole_encoder
from spidercap.pipeline.data.features import cut_of
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.text.vocabulary import Vocabulary
from spidercap.pipeline.training import identity, kept


@dataclasses.dataclass(frozen=True)
class Exported:
    """What a model is exported from."""

    encoder: keras.Model | None
    captioner: Captioner
    vocabulary: Vocabulary


def load_exported(config: Config) -> Exported:
    """Returns the encoder, as it was tuned, the last stage's captioner and the vocabulary of a run."""
    encoder, vocabulary = identity.kept_encoder(config), identity.kept_vocabulary(config)
    # A model server may lack XLA or run on CPUs, where bfloat16 is slow.
    config = config.with_values(jit=False, precision="float32")
    captioner, baseline = kept.build_models(config, vocabulary, identity.kept_feature_size(config))
    kept.load_kept(config.workdir_path(), kept.last_kept(config), captioner, baseline)
    if captioner.tuned is not None:
        encoder = whole_encoder(Cut(cut_of(config, encoder).frozen, captioner.tuned))
    return Exported(encoder, captioner, vocabulary)


def write_formats(config: Config, version: str, source: str, models: Exported | None = None) -> None:
    """Writes a version of the SavedModel in the other formats of --export_format; those that are there stay.

    Args:
      config: the settings.
      version: the folder's name of the SavedModel.
      source: what it was made of.
      models: the same, loaded; by default they are loaded if a format is missing.

    Raises:
      UserError: a folder is damaged or of another model, or a format cannot hold the model.
    """
    for name in config.run.portable_formats():
        path = portable_folder(config.export_path(), name, version)
        if kept_source(path) != source:
            if path.exists():
                raise UserError(
                    f"{path} is damaged, or of another model than {config.export_path() / version}; move it away, "
                    "then run --mode=export"
                )
            models = models or load_exported(config)
            _write(config, name, path, source, models)
        print(f"{name + ':':<12} {path}", flush=True)


def _write(config: Config, name: str, path: pathlib.Path, source: str, models: Exported) -> None:
    print(f"exporting:   {name}; the file is written, then its captions are compared", flush=True)
    words, length = models.vocabulary.words, config.data.max_length
    try:
        write_portable(models.encoder, models.captioner, words, length, name, path, source)
    except CheckFailed as error:
        raise UserError(f"{path} was not written: {error}; leave out {name} of --export_format") from error
