"""Captions of photographs by every way into one model: `python -m tests.ways_check --count=1000`.

It needs the photographs and MobileNetV2 weights of SPIDERCAP_DATA. The captioner has random weights, so that captions
differ, or is that of a trained run of images with `--workdir=runs/mine`. The command line needs a run, of which it gets
a copy. Of every way, captions must equal those of the model in memory, and log-probabilities must be within 1e-4,
absolute or relative. Java and the command line return captions alone. What is not installed is named and skipped; a
difference makes the exit code 1.
"""

import argparse
import dataclasses
import importlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from benchmarks.portable import photographs
from spidercap.export.formats import PORTABLE
from spidercap.export.portable import write_portable
from spidercap.export.saved_model import export
from spidercap.models.captioner import Captioner
from spidercap.models.decoder import Decoder
from spidercap.models.encoder import build_encoder
from spidercap.models.images import decode_image, resize_image
from spidercap.models.lstm_captioner import LstmCaptioner
from spidercap.models.special_tokens import END, SPECIAL_TOKENS
from spidercap.pipeline.portable_exports import load_exported
from spidercap.pipeline.settings.flags import parse
from tests import served_model
from tests.conftest import DATA, ROOT

SIZE, T, WORDS = 224, 12, (*SPECIAL_TOKENS, *(f"word{i}" for i in range(500)))
BATCH, LARGE = 25, 125  # images of a call, and of a process
TOLERANCE = 1e-4
JAVA = ("1.1.0", "tensorflow-core-native")
NOT_COPIED = shutil.ignore_patterns("checkpoints", "logs", "samples")  # of a run

Found = tuple[list[str], Sequence[float] | None]  # captions and, where the way tells them, log-probabilities


@dataclasses.dataclass(frozen=True)
class Model:
    """The model in memory."""

    encoder: keras.Model
    captioner: Captioner
    words: Sequence[str]
    max_length: int

    def pixels(self, images: Sequence[bytes]) -> np.ndarray:
        """Returns the images as the encoder takes them."""
        return np.stack([resize_image(decode_image(one), self.encoder.input_shape[1]) for one in images])

    def text(self, ids: Sequence[int]) -> str:
        """Returns the words of token ids."""
        return " ".join(self.words[i] for i in ids if i not in (0, END))

    def captions(self, images: Sequence[bytes]) -> Found:
        """Returns greedy captions by the Python objects."""

        def call(some: Sequence[bytes]) -> Found:
            features = self.encoder(self.pixels(some), training=False)
            found = Decoder().captions(self.captioner, features, self.max_length)
            return [self.text(row) for row in found.tokens[:, 0].numpy()], found.log_prob[:, 0].numpy().tolist()

        return in_parts(images, BATCH, call)


class Skipped(Exception):
    """A way that cannot be gone here, and why."""


def main(arguments: Sequence[str]) -> int:
    """Prints a line per way; returns 1 if one differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.ways_check", description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=1000, help="photographs, spread over the folder by name")
    parser.add_argument("--workdir", type=pathlib.Path, help="folder of a trained run; default: a random captioner")
    flags = parser.parse_args(arguments)
    files = photographs(DATA / "flickr8k" / "images", flags.count)
    weights = DATA / "weights" / "mobilenet_v2_224_notop.weights.h5"
    if not files or not weights.is_file():
        print(f"skipped: no photographs or weights in {DATA}; set SPIDERCAP_DATA")
        return 0
    images = [file.read_bytes() for file in files]
    with tempfile.TemporaryDirectory() as place:
        scratch = pathlib.Path(place)
        model = trained(flags.workdir) if flags.workdir else random_model(str(weights), images)
        parts = (model.encoder, model.captioner, model.words, model.max_length)
        exported = export(*parts, scratch / "run" / "export", images[:2])
        expected = model.captions(images)
        print(f"{len(images)} photographs, {len(set(expected[0]))} different captions in memory", flush=True)
        ways = {
            **tensorflow_ways(model, exported, images, scratch),
            **portable_ways(model, images, scratch),
            "command line": lambda: by_command(flags.workdir, files, scratch),
        }
        failed = [name for name, way in ways.items() if not same(name, way, expected)]
    return 1 if failed else 0


def same(name: str, way: Callable[[], Found], expected: Found) -> bool:
    """Prints how a way compares; returns whether it gives the expected captions."""
    try:
        captions, log_probs = way()
    except Skipped as reason:
        print(f"{name}: skipped, {reason}", flush=True)
        return True
    except (RuntimeError, subprocess.CalledProcessError) as error:
        print(f"{name}: FAILED\n{error}", flush=True)
        return False
    equal = sum(a == b for a, b in zip(captions, expected[0], strict=True))
    line, near = f"{name}: {equal} of {len(captions)} captions are equal", True
    if log_probs is not None:
        wanted = np.array(expected[1])
        error = float((np.abs(np.array(log_probs) - wanted) / np.maximum(1, np.abs(wanted))).max())
        line += f", log-probabilities to {error:.1e}"
        near = error <= TOLERANCE
    print(line if equal == len(captions) and near else f"{line}: FAILED", flush=True)
    return equal == len(captions) and near


def random_model(weights: str, images: Sequence[bytes]) -> Model:
    """Returns MobileNetV2 and a captioner with random weights."""
    encoder = build_encoder("MobileNetV2", weights, SIZE)
    keras.utils.set_random_seed(1)
    captioner = LstmCaptioner(len(WORDS), encoder.output_shape[1], units=64, embedding_size=32, dropout=0.0)
    model = Model(encoder, captioner, WORDS, T)
    captioner.adapt(encoder(model.pixels(images[:100])).numpy())
    rng = np.random.default_rng(4)
    for weight in captioner.trainable_variables:
        weight.assign(rng.normal(0, 0.5, weight.shape) if weight.shape[0] < 1000 else rng.normal(0, 0.03, weight.shape))
    captioner.words.bias.assign(np.where(np.arange(len(WORDS)) == END, 3, 0))
    return model


def trained(workdir: pathlib.Path) -> Model:
    """Returns the last stage's model of a run."""
    config = parse(["ways_check", "--mode=export", f"--workdir={workdir}"])
    models = load_exported(config)
    return Model(models.encoder, models.captioner, models.vocabulary.words, config.data.max_length)


def in_parts(images: Sequence[bytes], size: int, call: Callable[[Sequence[bytes]], Found]) -> Found:
    """Calls with parts of the images; returns their captions and log-probabilities together."""
    captions, log_probs = [], []
    for i in range(0, len(images), size):
        some, more = call(images[i : i + size])
        captions += some
        log_probs += [] if more is None else list(more)
    return captions, log_probs or None


def by_command(workdir: pathlib.Path | None, files: Sequence[pathlib.Path], scratch: pathlib.Path) -> Found:
    """Captions by `--mode=caption`, of a copy of the run, as it may write a model there."""
    if workdir is None:
        raise Skipped("it needs a trained run; name one by --workdir")
    run, folder, output = scratch / "copied_run", scratch / "photographs", scratch / "results.json"
    shutil.copytree(workdir, run, ignore=NOT_COPIED)
    folder.mkdir()
    for file in files:
        shutil.copy(file, folder)
    settings = ("--mode=caption", "--decode=greedy", f"--workdir={run}", f"--images={folder}", f"--output={output}")
    command = [sys.executable, "-m", "spidercap.pipeline.main", *settings]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found = {one["image_id"]: one["caption"] for one in json.loads(output.read_text(encoding="utf-8"))}
    return [found[file.name] for file in files], None


def tensorflow_ways(model: Model, exported: pathlib.Path, images: list, scratch: pathlib.Path) -> dict[str, Callable]:
    """The ways of the SavedModel."""
    signatures = tf.saved_model.load(str(exported)).signatures

    def by_bytes(some: Sequence[bytes]) -> Found:
        found = signatures["serving_default"](image_bytes=tf.constant(some))
        return [one.decode() for one in found["caption"].numpy()], found["log_prob"].numpy().tolist()

    def by_pixels(some: Sequence[bytes]) -> Found:
        found = signatures["pixels"](pixels=tf.constant(model.pixels(some)))
        return [model.text(row) for row in found["ids"].numpy()], found["log_prob"].numpy().tolist()

    def by_c_library(some: Sequence[bytes]) -> Found:
        found = served_model.by_c_library(exported, some, ["caption", "log_prob"], new_folder(scratch))
        return found["caption"], found["log_prob"]

    def by_java() -> Found:
        if not shutil.which("javac"):
            raise Skipped("the program javac is missing")
        try:
            path = served_model.java_path(*JAVA, new_folder(scratch))
        except RuntimeError as error:
            raise Skipped(str(error)) from error
        return in_parts(
            images, LARGE, lambda some: (served_model.by_java(exported, some, path, new_folder(scratch)), None)
        )

    return {
        "serving_default": lambda: in_parts(images, BATCH, by_bytes),
        "pixels": lambda: in_parts(images, BATCH, by_pixels),
        "C library": lambda: in_parts(images, LARGE, by_c_library),
        f"TensorFlow Java {JAVA[0]}": by_java,
    }


def portable_ways(model: Model, images: list, scratch: pathlib.Path) -> dict:
    """The ways of the formats without TensorFlow."""

    def way(name: str) -> Found:
        if PORTABLE[name].missing():
            raise Skipped(f"not installed: {', '.join(PORTABLE[name].missing())}")
        write_portable(model.encoder, model.captioner, model.words, model.max_length, name, scratch / name)
        run = importlib.import_module(PORTABLE[name].module).load(scratch / name / PORTABLE[name].file)

        def call(some: Sequence[bytes]) -> Found:
            ids, log_prob = run(model.pixels(some))
            return [model.text(row) for row in ids], log_prob.tolist()

        return in_parts(images, BATCH, call)

    return {name: lambda name=name: way(name) for name in PORTABLE}


def new_folder(scratch: pathlib.Path) -> pathlib.Path:
    """Returns a new folder for temporary files."""
    return pathlib.Path(tempfile.mkdtemp(dir=scratch))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
