"""The folder of a run: its settings, refused when they differ, and the models rebuilt from what it holds."""

import contextlib
import dataclasses
import fcntl
import json
import pathlib
import shutil
from collections.abc import Iterator

import keras
import tensorflow as tf

from models.baseline import Baseline
from models.captioner import Captioner
from pipeline.config import Config, differences
from pipeline.errors import UserError
from pipeline.features import load_encoder
from pipeline.files import write_text, written_aside
from pipeline.vocabulary import Vocabulary, load_vocabulary

LEAST_FREE = 300 * 2**20  # bytes; checkpoints of the default model with their optimizer need 200 MiB


@contextlib.contextmanager
def open_workdir(config: Config) -> Iterator[None]:
    """Makes the workdir if it is new, refuses one of other settings, and holds it alone while the block runs."""
    workdir = config.workdir_path()
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file; name a folder")
    workdir.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(workdir).free
    if free < LEAST_FREE:
        raise UserError(f"only {free >> 20} MiB are free at {workdir}; at least {LEAST_FREE >> 20} MiB are needed")
    with open(workdir / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another process works in {workdir}; wait for it, or name another --workdir") from error
        _check_settings(config, workdir / "config.json")
        yield


def keep_identity(config: Config, name: str, text: str) -> None:
    """Writes `<workdir>/<name>`, or refuses if it is there with other contents: the data of a run may not change."""
    path = config.workdir_path() / name
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise UserError(
            f"{config.workdir} was made from other data ({name} differs); name a new --workdir, or put the data back"
        )
    if not path.exists():
        write_text(path, text)


def keep_encoder(config: Config, encoder: keras.Model) -> None:
    """Stores the encoder's weights, so that the workdir is all that captioning and export need."""
    path = _encoder_path(config)
    if not path.exists():
        with written_aside(path) as aside:
            encoder.layers[-1].save_weights(aside)


def kept_encoder(config: Config) -> keras.Model:
    """Returns the encoder with the weights that `keep_encoder` stored."""
    return load_encoder(dataclasses.replace(config, encoder_weights=str(_encoder_path(config))))


def kept_vocabulary(config: Config) -> Vocabulary:
    """Returns the run's vocabulary."""
    return load_vocabulary(config.workdir_path() / "vocabulary.json")


def build_models(config: Config, vocabulary: Vocabulary, feature_size: int) -> tuple[Captioner, Baseline]:
    """Returns untrained models; their weights depend on the seed alone."""
    keras.utils.set_random_seed(config.seed)
    captioner = Captioner(len(vocabulary.words), feature_size, config.units, config.embedding_size, config.dropout)
    return captioner, Baseline(config.units, config.baseline_units)


def stage_labels(config: Config) -> list[str]:
    """Returns a name for each stage: 'mle', 'pg', and where a stage comes twice 'pg-2'."""
    names = [stage.name for stage in config.parsed_stages()]
    earlier = [names[:i].count(name) for i, name in enumerate(names)]
    return [name if not count else f"{name}-{count + 1}" for name, count in zip(names, earlier, strict=True)]


def kept_weights(workdir: pathlib.Path, label: str) -> str | None:
    """Returns the checkpoint that a stage handed on, or None if it has not got so far."""
    return tf.train.latest_checkpoint(str(workdir / "kept" / label))


def last_kept(config: Config) -> str:
    """Returns the label of the last stage that handed on its weights."""
    labels = [label for label in stage_labels(config) if kept_weights(config.workdir_path(), label)]
    if not labels:
        raise UserError(f"{config.workdir} has kept no weights yet; go on training first")
    return labels[-1]


def load_kept(workdir: pathlib.Path, label: str, captioner: Captioner, baseline: Baseline) -> None:
    """Gives the models the weights of a stage."""
    path = kept_weights(workdir, label)
    if path is None:
        raise UserError(f"{workdir} holds no weights of stage {label}; train it first")
    try:
        status = tf.train.Checkpoint(captioner=captioner, baseline=baseline).restore(path)
        status.assert_existing_objects_matched().expect_partial()
    except (ValueError, AssertionError) as error:
        raise UserError(f"the weights in {workdir} are of another size of model; use the same model flags") from error


def load_warm_start(config: Config, vocabulary: Vocabulary, captioner: Captioner, baseline: Baseline) -> None:
    """Gives the models the weights of the last finished stage of another run with the same vocabulary."""
    other = pathlib.Path(config.warm_start)
    if not (other / "config.json").is_file():
        raise UserError(f"--warm_start={other} holds no run (no config.json)")
    if load_vocabulary(other / "vocabulary.json") != vocabulary:
        raise UserError(f"--warm_start={other} has another vocabulary; train both on the same captions")
    saved = json.loads((other / "config.json").read_text(encoding="utf-8"))
    load_kept(other, last_kept(Config(**saved | {"workdir": str(other)})), captioner, baseline)


def _encoder_path(config: Config) -> pathlib.Path:
    return config.workdir_path() / "encoder.weights.h5"


def _check_settings(config: Config, path: pathlib.Path) -> None:
    if path.exists():
        saved = json.loads(path.read_text(encoding="utf-8"))
        wrong = differences({k: v for k, v in saved.items() if k in config.fixed()}, config.fixed())
        if wrong:
            raise UserError(
                f"{config.workdir} was made with other settings ({'; '.join(wrong)}); "
                "use those, or name a new --workdir"
            )
    else:
        write_text(path, config.to_json())
