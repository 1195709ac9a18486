"""Seconds and memory that training needs before its first step, on captions of COCO's size.

    python -m benchmarks.scale [--images=10000,30000,113287,200000] [--captions=FILE] [--lines=arrays,cider,...]

Captions are those of COCO 2014, which lie in pycocoevalcap's spice-1.0.jar; above its 123,287 images they are made of
the halves of two. Each row is a process of its own. `first` is without a cache, `then` with what the first one left.
Memory is the most that the process had, all of Python and TensorFlow included. `wait_mle` and `wait_scst` are not
seconds but the share of a likelihood step, or of an SCST step on CIDEr, that waits for its batch, with features of
2,048 numbers per image, read from the disk.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from benchmarks import aligned, number, timed
from benchmarks.speed_lines import still
from spidercap.models.lstm_captioner import LstmCaptioner
from spidercap.pipeline.data.batches import TrainingArrays, caption_batches, image_batches
from spidercap.pipeline.data.feature_store import SHARD, Features, FeatureStore
from spidercap.pipeline.data.records import Split
from spidercap.pipeline.data.tokens import TokenizedSplit, tokenize_split, training_arrays
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.metrics.document_frequencies import (
    DocumentFrequencies,
    load_document_frequencies,
    save_document_frequencies,
)
from spidercap.pipeline.metrics.registry import parse_reward
from spidercap.pipeline.text.tokenizer import has_words
from spidercap.pipeline.text.vocabulary import Vocabulary, build_vocabulary
from spidercap.pipeline.training.objectives import self_critical
from spidercap.pipeline.training.rewards import ReferenceTexts, Reward, build_reward, reward_frequencies
from spidercap.pipeline.training.steps import TrainStep, likelihood_step, policy_gradient_step

JAR = "spice/spice-1.0.jar"
MEMBERS = ("coco/annotations/captions_train2014.json", "coco/annotations/captions_val2014.json")
SIZES = "10000,30000,113287,200000"
LENGTH, LEAST = 20, 5  # tokens of a caption, occurrences of a word: the defaults of training
WAITS = {"wait_mle": 100, "wait_scst": 30}  # steps
LINES = ("arrays", "cider", "spider_fast", *WAITS)
BATCH, UNITS, SIZE = 64, 512, 2048  # of WAITS
TRACED = 3  # steps before the time is taken


def main(arguments: Sequence[str]) -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.split("\n")[0])
    parser.add_argument("--images", default=SIZES, help="numbers of images, separated by commas")
    parser.add_argument("--lines", default=",".join(LINES), help=f"some of {', '.join(LINES)}")
    parser.add_argument("--measure", nargs=3, metavar=("LINE", "CAPTIONS", "CACHE"), help=argparse.SUPPRESS)
    flags = parser.parse_args(arguments)
    if flags.measure:
        line, captions, cache = flags.measure
        print(json.dumps(_measured(line, pathlib.Path(captions), pathlib.Path(cache))))
        return 0
    try:
        print(_table([int(size) for size in flags.images.split(",")], flags.lines.split(",")))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _table(sizes: Sequence[int], lines: Sequence[str]) -> str:
    captions = _coco()
    found = [("", "images", "captions", "first, s", "then, s", "first, GiB", "then, GiB")]
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            chosen = _enlarged(captions, size)
            path = pathlib.Path(folder, "captions.txt")
            path.write_text("\n\n".join("\n".join(of_image) for of_image in chosen), encoding="utf-8")
            for line in lines:
                first, then = (_in_process(line, path, pathlib.Path(folder, f"cache_{line}")) for _ in range(2))
                seconds, memory = ([number(one[key]) for one in (first, then)] for key in ("seconds", "peak"))
                found.append((line, f"{size:,}", f"{sum(map(len, chosen)):,}", *seconds, *memory))
                print(aligned(found[:1] + found[-1:]), file=sys.stderr, flush=True)
    return aligned(found)


def _coco() -> list[list[str]]:
    """The captions of each image of COCO 2014, on one line each."""
    import pycocoevalcap

    jar = pathlib.Path(pycocoevalcap.__path__[0], JAR)
    of_image: dict[int, list[str]] = {}
    with zipfile.ZipFile(jar) as archive:
        for member in MEMBERS:
            for row in json.loads(archive.read(member))["annotations"]:
                if has_words(row["caption"]):
                    of_image.setdefault(row["image_id"], []).append(" ".join(row["caption"].split()))
    return list(of_image.values())


def _enlarged(captions: list[list[str]], size: int) -> list[list[str]]:
    """So many images; those that are not there are made of the first half of one and the second half of the next."""
    made = list(captions[:size])
    for turn in range(size - len(made)):
        one, other = (captions[(turn + k) % len(captions)] for k in (0, 1))
        made.append([_halves(a.split(), b.split()) for a, b in zip(one, other, strict=False)])
    return made


def _halves(one: list[str], other: list[str]) -> str:
    return " ".join([*one[: len(one) // 2], *other[len(other) // 2 :]])


def _in_process(line: str, captions: pathlib.Path, cache: pathlib.Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.scale", "--measure", line, str(captions), str(cache)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{line} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _measured(line: str, captions: pathlib.Path, cache: pathlib.Path) -> dict[str, float]:
    """The seconds of a line and the most memory of this process, in GiB."""
    images = [tuple(part.split("\n")) for part in captions.read_text(encoding="utf-8").split("\n\n")]
    keys = tuple(f"{number:032x}" for number in range(len(images)))
    given = Split(tuple(range(len(images))), ("",) * len(images), tuple(images), keys, None)
    seconds, (split, vocabulary, arrays, frequencies) = timed(lambda: _arrays(given, cache))
    if line == "arrays":
        return {"seconds": seconds, "peak": _peak()}
    weights = parse_reward("cider" if line in WAITS else line)
    texts = ReferenceTexts(vocabulary, split.texts(), split.image_ids)
    seconds, reward = timed(lambda: build_reward(weights, arrays.references, frequencies, True, texts, cache=cache))
    if line in WAITS:
        arrays = dataclasses.replace(arrays, features=_features(keys, cache))
        seconds = _wait(*_training(line, vocabulary, arrays, reward), WAITS[line])
    return {"seconds": seconds, "peak": _peak()}


def _arrays(
    given: Split, cache: pathlib.Path
) -> tuple[TokenizedSplit, Vocabulary, TrainingArrays, DocumentFrequencies]:
    split = tokenize_split(given, cache)
    vocabulary = build_vocabulary(split.words.counted(), LEAST)
    arrays = training_arrays(split, vocabulary, np.zeros([len(given), 1, 1], np.float32), LENGTH)
    kept = cache / "document_frequencies.npz"  # as a run keeps it in its workdir
    if kept.exists():
        return split, vocabulary, arrays, load_document_frequencies(kept)
    frequencies = reward_frequencies(arrays.references, vocabulary.reference_size, True)
    save_document_frequencies(kept, frequencies)
    return split, vocabulary, arrays, frequencies


def _features(keys: Sequence[str], cache: pathlib.Path) -> Features:
    """Made-up features of SIZE numbers for each image, in shards on the disk."""
    store, rng = FeatureStore(cache / "features"), np.random.default_rng(0)
    for first in range(0, len(store.missing(keys)), SHARD):
        part = keys[first : first + SHARD]
        store.add(part, rng.normal(size=(len(part), SIZE)).astype(np.float32))
    return Features(store.shards, store.places(keys)[:, None])


def _training(
    line: str, vocabulary: Vocabulary, arrays: TrainingArrays, reward: Reward
) -> tuple[TrainStep, tf.data.Dataset]:
    """The step of a line of WAITS and its batches."""
    captioner = LstmCaptioner(len(vocabulary.words), SIZE, UNITS, UNITS, dropout=0.3)
    optimizer, steps = still(captioner), WAITS[line] + TRACED
    if line == "wait_mle":
        step = likelihood_step(captioner, optimizer, feature_dropout=0.0)
        return step, caption_batches(arrays, BATCH, 0, steps, (0, 0))
    objective = self_critical(captioner, LENGTH, samples=1)
    step = policy_gradient_step(captioner, None, reward, objective, optimizer, None, feature_dropout=0.0)
    return step, image_batches(arrays, BATCH, 0, steps, (0, 0))


def _wait(step: TrainStep, batches: tf.data.Dataset, steps: int) -> float:
    """The share of the steps that waits for a batch."""
    asked, waited = iter(batches), 0.0
    for turn in range(TRACED + steps):
        if turn == TRACED:
            waited, began = 0.0, time.perf_counter()
        seconds, batch = timed(lambda: next(asked))
        waited += seconds
        step(batch, tf.constant([0, turn]), tf.constant(0.0)).loss.numpy()
    return waited / (time.perf_counter() - began)


def _peak() -> float:
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)[1]) / 2**20


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
