"""What a run is about: files that are written when it is prepared, and checked at every start."""

import hashlib
import json
import pathlib
from collections.abc import Mapping

import keras

from spidercap.pipeline import digests
from spidercap.pipeline.data.overlap import Images, load_images, save_images
from spidercap.pipeline.data.records import NEEDED, Split
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import write_text, written_aside
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.settings.saved import read_settings
from spidercap.pipeline.text.vocabulary import Vocabulary, load_vocabulary
from spidercap.pipeline.training.run_files import NO_COPY, SIZES, has_trained, is_prepared, kept_sizes

# What a prepared run is about; their digests are written last.
IMAGES = "images.npz"
IDENTITY = ("config.json", "vocabulary.json", "data.json", IMAGES, "encoder.txt")
ENCODER = "encoder.keras"  # not there if the run was given features
FREQUENCIES = "document_frequencies.npz"
DATA_PAGE = "data.html"
_MADE_AGAIN = (FREQUENCIES, DATA_PAGE)  # if they are damaged or lost


def keep_identity(config: Config, name: str, text: str) -> None:
    """Writes `<workdir>/<name>`; raises UserError if a prepared run has other contents, as its data may not change."""
    path = config.workdir_path() / name
    same = path.exists() and path.read_text(encoding="utf-8") == text
    if path.exists() and not same and is_prepared(config):
        raise UserError(
            f"{config.run.workdir} has other data ({name} differs); restore the data, or name a new --workdir"
        )
    if not same:
        write_text(path, text)


def keep_data(config: Config, fingerprints: Mapping[str, str]) -> None:
    """Writes `data.json`, the fingerprints of the splits; raises UserError if a prepared run has others.

    The test split may change, as it chooses nothing.
    """
    path = config.workdir_path() / "data.json"
    if not is_prepared(config):
        if config.run.mode in ("prepare", "train"):
            write_text(path, json.dumps(fingerprints, indent=1) + "\n")
        return
    known = kept_fingerprints(config)
    other = [name for name in NEEDED if name in fingerprints and fingerprints[name] != known[name]]
    if other:
        raise UserError(
            f"{config.run.workdir} has other data ({other[0]} differs); restore the data, or name a new --workdir"
        )


def kept_fingerprints(config: Config) -> dict[str, str]:
    """Returns the fingerprints of the splits with which the run was prepared."""
    return json.loads((config.workdir_path() / "data.json").read_text(encoding="utf-8"))


def keep_images(config: Config, splits: Mapping[str, Split]) -> None:
    """Stores which images the splits of a new run hold."""
    if not is_prepared(config) and all(name in splits for name in NEEDED):
        save_images(config.workdir_path() / IMAGES, {name: splits[name] for name in NEEDED})


def kept_images(config: Config) -> dict[str, Images]:
    """Returns the images of the splits train and val of the run."""
    return load_images(config.workdir_path() / IMAGES)


def keep_sizes(config: Config, splits: Mapping[str, Split]) -> None:
    """Stores how many images and captions the splits hold, for the model card and mode=status."""
    sizes = {
        name: {"images": len(split), "captions": sum(len(captions) for captions in split.captions)}
        for name, split in splits.items()
    }
    if sizes != kept_sizes(config):
        write_text(config.workdir_path() / SIZES, json.dumps(sizes, indent=1) + "\n")


def has_test_captions(config: Config) -> bool:
    """Returns whether the settings name the test captions with which the run was prepared."""
    saved = read_settings(config.workdir_path() / "config.json")
    return saved["test_captions"] == config.data.test_captions


def keep_encoder(config: Config, encoder: keras.Model | None, feature_size: int) -> None:
    """Stores the whole encoder, so that evaluation and export need only the workdir; then the run is prepared.

    Its weights are not enough: some networks of keras.applications have other layers with ImageNet's weights.

    Args:
      config: the settings.
      encoder: None if features are given.
      feature_size: F.
    """
    keep_identity(config, "encoder.txt", encoder_text(encoder, feature_size))
    if not is_prepared(config):
        names = list(IDENTITY)
        if encoder is not None:
            with written_aside(_encoder_path(config), sum(w.nbytes for w in encoder.get_weights())) as aside:
                encoder.save(aside)
            names.append(ENCODER)
        digests.record(config.workdir_path(), names)


def kept_encoder(config: Config) -> keras.Model | None:
    """Returns the encoder that `keep_encoder` stored; None if the run was given features."""
    if takes_features(config):
        return None
    return keras.models.load_model(_encoder_path(config), compile=False)


def takes_features(config: Config) -> bool:
    """Returns whether the run was given features, and so has no encoder; raises UserError before it is prepared."""
    if not is_prepared(config):
        raise UserError(f"{config.run.workdir} has trained nothing yet; run --mode=train first")
    return ENCODER not in digests.recorded(config.workdir_path())


def kept_feature_size(config: Config) -> int:
    """Returns F, the size of the features."""
    return int((config.workdir_path() / "encoder.txt").read_text(encoding="utf-8").split()[-1])


def kept_vocabulary(config: Config) -> Vocabulary:
    """Returns the run's vocabulary."""
    return load_vocabulary(config.workdir_path() / "vocabulary.json")


def forget_preparation(config: Config) -> None:
    """Lets a run in which nothing was trained be prepared again, with any settings and data."""
    # The digests go first: without them the other files are not read.
    for name in (digests.NAME, FREQUENCIES):
        (config.workdir_path() / name).unlink(missing_ok=True)


def check_identity(config: Config) -> None:
    """Raises UserError if a file that tells what a prepared run is about is damaged or lost."""
    workdir = config.workdir_path()
    check_files(workdir, NO_COPY)
    if not is_prepared(config) and has_trained(workdir):
        raise UserError(
            f"{workdir / digests.NAME} is lost, or an earlier version wrote this run; restore it from a copy, use that "
            "version, or name a new --workdir"
        )


def check_files(workdir: pathlib.Path, remedy: str) -> None:
    """Raises UserError, with the remedy, if a file of a run's identity is damaged or lost."""
    wrong = digests.faults(workdir, digests.recorded(workdir))
    for name, what in wrong.items():
        if name in _MADE_AGAIN:
            continue
        either = f" (if it is sound, {workdir / digests.NAME} is not)" if what == digests.DAMAGED else ""
        raise UserError(f"{workdir / name} {what}; {remedy}{either}")


def encoder_text(encoder: keras.Model | None, feature_size: int) -> str:
    """Returns a digest of the encoder's weights, or 'given', and the size of the features."""
    name = (
        "given" if encoder is None else hashlib.sha256(b"".join(w.tobytes() for w in encoder.get_weights())).hexdigest()
    )
    return f"{name} {feature_size}\n"


def _encoder_path(config: Config) -> pathlib.Path:
    return config.workdir_path() / ENCODER
