"""spidercap: image captions trained on the metrics that captions are judged by.

  python -m pipeline.main --flagfile=recipes/quickstart.flags
  python -m pipeline.main --mode=caption --workdir=runs/quickstart --images=photo.jpg

Modes: prepare (data set and features), train (prepare, train, evaluate, export), evaluate, caption, export.
The same command again goes on where it was stopped.
"""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

import numpy as np
import tensorflow as tf

from export.saved_model import CheckFailed, export, versions
from models.encoder import decode_image, resize_image
from pipeline import workdir
from pipeline.caption import caption_files, picture_files
from pipeline.command_line import help_text, parse
from pipeline.config import Config
from pipeline.datasets.prepare import Data, image_records, prepare_data, read_captions
from pipeline.errors import UserError
from pipeline.evaluate import Evaluation, build_decoder, evaluate
from pipeline.features import load_encoder, split_features
from pipeline.inputs import TokenizedSplit, tokenize_split, training_arrays
from pipeline.metrics.cider import MAX_BASE
from pipeline.progress import Progress, read_progress
from pipeline.results import write_results
from pipeline.rewards import build_reward, reward_frequencies
from pipeline.tensorboard import Board
from pipeline.train import Interrupted, Models, train
from pipeline.vocabulary import Vocabulary, build_vocabulary

SHOWN = 4  # validation pictures on TensorBoard
SAMPLES = 2  # validation pictures captioned at the end of training


def main(argv: Sequence[str]) -> int:
    """Runs one command line; returns the exit code: 0 done, 1 or 2 the user's mistake, 130 stopped."""
    if any(word.lstrip("-") in ("help", "helpfull", "h") for word in argv[1:] if word.startswith("-")):
        print(__doc__ + help_text())
        return 0
    try:
        config = parse(argv)
        run = {
            "prepare": run_prepare,
            "train": run_train,
            "evaluate": run_evaluate,
            "caption": run_caption,
            "export": run_export,
        }[config.mode]
        with workdir.open_workdir(config):
            run(config)
    except (UserError, OSError, CheckFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Interrupted as stopped:
        print(f"stopped; saved {stopped}. The same command goes on from there.")
        return 130
    except KeyboardInterrupt:
        print("stopped. The same command goes on from the last checkpoint.", file=sys.stderr)
        return 130
    return 0


def run_prepare(config: Config) -> tuple[Data, dict[str, TokenizedSplit], Vocabulary, dict[str, np.ndarray]]:
    """Makes or finds data set, vocabulary and features."""
    encoder = load_encoder(config)
    data = prepare_data(config)
    workdir.keep_identity(config, "data.txt", data.fingerprint + "\n")
    splits = {name: tokenize_split(read_captions(data, name)) for name in ("train", "val")}
    vocabulary = build_vocabulary((c for image in splits["train"].tokens for c in image), config.min_word_count)
    if vocabulary.reference_size > MAX_BASE:
        raise UserError(f"{vocabulary.reference_size:,} different words in training; at most {MAX_BASE:,} are allowed")
    workdir.keep_identity(config, "vocabulary.json", vocabulary.to_json())
    workdir.keep_encoder(config, encoder)
    features = {name: split_features(config, data, encoder, name) for name in ("train", "val")}
    print(
        f"data: {len(splits['train'].tokens)} training and {len(splits['val'].tokens)} validation pictures, "
        f"{len(vocabulary.words)} words that can be said, {len(vocabulary.rare_words)} too rare"
    )
    return data, splits, vocabulary, features


def run_train(config: Config) -> None:
    """Trains all stages, then evaluates, reports, exports, and captions two pictures with the exported model."""
    data, splits, vocabulary, features = run_prepare(config)
    arrays = training_arrays(splits["train"], vocabulary, features["train"], config.max_length)
    captioner, baseline = workdir.build_models(config, vocabulary, features["train"].shape[1])
    frequencies = reward_frequencies(arrays.references, vocabulary.reference_size, config.end_token_in_reward)
    frequencies.save(config.workdir_path() / "document_frequencies.npz")
    reward = build_reward(arrays.references, frequencies, config.end_token_in_reward)
    decode = build_decoder(captioner, config.max_length)
    watched = features["val"][: config.val_images or None]

    def begin() -> None:
        captioner.adapt(features["train"])
        if config.warm_start:
            workdir.load_warm_start(config, vocabulary, captioner, baseline)

    def validate() -> Evaluation:
        return evaluate(decode, vocabulary, splits["val"], watched)

    board = Board(config.workdir_path() / "logs", *_shown_pictures(data, splits["val"]))
    train(config, Models(captioner, baseline), arrays, reward, validate, begin, board)
    run_evaluate(config)
    run_export(config)
    run_caption(dataclasses.replace(config, images=_sample_pictures(config, data)))


def run_evaluate(config: Config) -> None:
    """Scores the kept weights of every finished stage on the whole validation split and writes the report."""
    data = prepare_data(config)
    split = tokenize_split(read_captions(data, "val"))
    vocabulary = workdir.kept_vocabulary(config)
    features = split_features(config, data, workdir.kept_encoder(config), "val")
    captioner, baseline = workdir.build_models(config, vocabulary, features.shape[1])
    decode = build_decoder(captioner, config.max_length)
    progress = read_progress(tf.train.latest_checkpoint(str(config.workdir_path() / "checkpoints")))
    if not progress.finished:
        raise UserError(f"{config.workdir} has finished no stage yet; go on training first")
    evaluations = {}
    for row in progress.finished:
        workdir.load_kept(config.workdir_path(), row["name"], captioner, baseline)
        evaluations[row["name"]] = evaluate(decode, vocabulary, split, features)
    page = write_results(config, data, split, progress, evaluations, _policies(progress))
    print(f"report:      {page}\nTensorBoard: tensorboard --logdir={config.workdir_path() / 'logs'}")


def run_export(config: Config) -> None:
    """Writes the last stage's captioner as a SavedModel and checks it."""
    encoder, vocabulary = workdir.kept_encoder(config), workdir.kept_vocabulary(config)
    captioner, baseline = workdir.build_models(config, vocabulary, encoder.output_shape[1])
    workdir.load_kept(config.workdir_path(), workdir.last_kept(config), captioner, baseline)
    side = config.image_size
    pictures = [
        tf.io.encode_png(tf.cast(p, tf.uint8)).numpy()
        for p in np.random.default_rng(0).integers(0, 255, (3, side, side, 3))
    ]
    path = export(encoder, captioner, vocabulary.words, config.max_length, config.export_path(), pictures)
    print(f"model:       {path}")


def run_caption(config: Config) -> None:
    """Prints a line for every picture, said by the newest exported model; exports one if there is none."""
    files = picture_files(config.images)
    if not versions(config.export_path()):
        run_export(config)
    model = versions(config.export_path())[-1]
    for file, caption, log_prob in caption_files(model, files, config.skip_bad_images):
        print(f"{file}: {caption} (log-probability {log_prob:.2f})")


def _policies(progress: Progress) -> list[str]:
    return [row["name"] for row in progress.finished if not row["name"].startswith("baseline")]


def _shown_pictures(data: Data, split: TokenizedSplit) -> tuple[np.ndarray, list[list[str]]]:
    records = image_records(data, "val").take(SHOWN)
    pictures = np.stack([resize_image(decode_image(r), 224).numpy() for r in records]) / 255
    return pictures, [list(c) for c in split.captions[:SHOWN]]


def _sample_pictures(config: Config, data: Data) -> str:
    """Writes the first validation pictures to <workdir>/samples as they are stored; returns their folder."""
    folder = config.workdir_path() / "samples"
    folder.mkdir(exist_ok=True)
    for i, record in enumerate(image_records(data, "val").take(SAMPLES)):
        picture = record.numpy()
        suffix = "png" if picture.startswith(b"\x89PNG") else "jpg"
        pathlib.Path(folder / f"val_{i}.{suffix}").write_bytes(picture)
    return str(folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
