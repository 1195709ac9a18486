"""Trains the scene-graph parser on captions that were parsed by SPICE 1.0.

    python -m pipeline.parser_training.main --tuples=tuples.jsonl.gz,more.jsonl --output=parser.npz

The same command resumes a stopped training from OUTPUT.partial. Beside the parser it writes OUTPUT.json: settings,
minutes, and scores on held-out captions.
"""

import argparse
import collections
import itertools
import json
import math
import os
import pathlib
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf

from spidercap.models.scene_parser import SceneParser, SceneParserSizes
from spidercap.pipeline.bars import progress_bar
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import check_output, write_text
from spidercap.pipeline.metrics.spice_fast.parser import SceneGraphParser, parsed
from spidercap.pipeline.metrics.spice_fast.parser_file import load_parser, save_parser
from spidercap.pipeline.metrics.spice_fast.scene_graph import Tuples
from spidercap.pipeline.metrics.spice_fast.version import number_of
from spidercap.pipeline.parser_training.agreement import TupleScore
from spidercap.pipeline.parser_training.alignment import Aligner, learn_labels, learn_lemmas
from spidercap.pipeline.parser_training.examples import LONGEST, Batches, read_captions, read_texts
from spidercap.pipeline.parser_training.learner import Learner
from spidercap.pipeline.training.checkpoint_files import checkpoint_of

Captions = list[tuple[list[str], Tuples]]
UNITS = 128
AFFIXES = 4096  # buckets
MIN_WORDS = 3  # minimum count of a word that gets an embedding
SAVED_EVERY = 240.0  # seconds
FILES = (
    "tuples",
    "leave_out",
    "output",
)  # settings that may differ on resuming, as the captions themselves are compared


def main(arguments: Sequence[str]) -> int:
    """Trains with the settings of the command line; returns the exit code."""
    try:
        args = _parse(arguments)
        _check(args)
        paths = [pathlib.Path(path) for path in args.tuples.split(",")]
        unseen = {" ".join(words) for path in filter(None, args.leave_out.split(",")) for words in read_texts(path)}
        captions = [
            (words, tuples)
            for words, tuples in read_captions(paths)
            if len(words) <= LONGEST and " ".join(words) not in unseen
        ]
        if len(captions) <= args.held_out:
            raise UserError(
                f"--held_out={args.held_out} of {len(captions)} captions leaves none to train on; "
                "lower it, or give more captions"
            )
        _begin(args, captions)
        # Ordered by a hash of the caption alone, so that training with --start and more captions holds out none of the
        # captions that its start was trained on.
        captions.sort(key=lambda caption: zlib.crc32(" ".join([str(args.seed), *caption[0]]).encode()))
        _learn(args, captions[args.held_out :], captions[: args.held_out])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raises UserError for numbers out of range, and for an output that cannot be written."""
    for name, fits, allowed in (
        ("seed", 0 <= args.seed < 2**32, "from 0 to 2**32 - 1"),
        ("epochs", 0 < args.epochs < math.inf, "above 0"),
        ("batch_size", args.batch_size > 0, "above 0"),
        ("units", args.units is None or args.units > 0, "above 0"),
        ("dropout", 0 <= args.dropout < 1, "from 0 to below 1"),
        ("learning_rate", 0 < args.learning_rate < math.inf, "above 0"),
        ("held_out", args.held_out >= 0, "0 or more"),
    ):
        if not fits:
            raise UserError(f"--{name}={getattr(args, name)} is out of range; allowed: {allowed}")
    if args.start and args.units is not None:
        raise UserError(f"--units={args.units} with --start, which has its own units; leave one of them out")
    check_output("output", args.output)


def _partial(args: argparse.Namespace) -> pathlib.Path:
    """The folder from which an interrupted command resumes."""
    return args.output.with_name(f"{args.output.name}.partial")


def _begin(args: argparse.Namespace, captions: Captions) -> None:
    """Writes the settings and captions, or raises UserError if others were written.

    Otherwise a resumed training could hold out captions that it was trained on.
    """
    shown = {name: str(value) for name, value in vars(args).items() if name not in ("given", *FILES)}
    shown["captions"] = f"{zlib.crc32(json.dumps(captions).encode()):08x}"
    note = _partial(args) / "settings.json"
    if not note.exists():
        write_text(note, json.dumps(shown, indent=1) + "\n")
    earlier = json.loads(note.read_text())
    others = [name for name in shown if earlier.get(name) != shown[name]]
    if others:
        raise UserError(
            f"{_partial(args)} was started with other {', '.join(others)}; "
            "repeat the command that started it, name another --output, or delete that folder"
        )


def _learn(args: argparse.Namespace, captions: Captions, held_out: Captions) -> None:
    keras.utils.set_random_seed(args.seed)
    begin = time.monotonic()
    counts = collections.Counter(word for words, _ in captions for word in words)
    parser = load_parser(args.start) if args.start else new_parser(captions, counts, args.units or UNITS)
    parser.network.dropout = args.dropout
    aligner = Aligner(parser.lemmas, parser.labels)
    vocabulary = ["", *sorted(counts)]
    with progress_bar(len(captions), "aligning", "caption", iterable=captions) as bar:
        examples = [aligner(words, tuples) for words, tuples in bar]
    batches = Batches(examples, {word: k for k, word in enumerate(vocabulary)}, args.batch_size)
    del examples
    steps = max(1, int(batches.steps * args.epochs))
    print(
        f"{batches.captions} captions, {len(parser.words)} words, {len(parser.labels)} labels, {steps} steps",
        flush=True,
    )
    learner = Learner(parser, vocabulary, counts, args.learning_rate, steps)
    # In a separate folder, so that an existing output stays until the new one is complete.
    seconds = tf.Variable(0.0, dtype=tf.float64)
    checkpoint = checkpoint_of({"network": learner.network}, learner=learner, seconds=seconds)
    manager = tf.train.CheckpointManager(checkpoint, str(_partial(args)), max_to_keep=1)
    if manager.latest_checkpoint:
        checkpoint.restore(manager.latest_checkpoint).assert_consumed()
        print(f"resuming after step {int(learner.step)}")
    begin -= float(checkpoint.seconds)

    def save() -> None:
        checkpoint.seconds.assign(time.monotonic() - begin)
        manager.save()

    _train(learner, batches, args.seed, steps, save, lambda: _score(parser, held_out[:1000]))
    _finish(args, learner, parser, held_out, time.monotonic() - begin)
    save()


def _train(
    learner: Learner, batches: Batches, seed: int, steps: int, save: Callable[[], None], score: Callable[[], TupleScore]
) -> None:
    """Trains up to `steps`, with a score after each epoch."""
    saved = time.monotonic()
    with progress_bar(steps, "", "step", initial=int(learner.step)) as bar:
        while int(learner.step) < steps:
            epoch, done = divmod(int(learner.step), batches.steps)
            for batch in itertools.islice(batches.epoch(seed, epoch), done, done + steps - int(learner.step)):
                losses = learner.train(batch)
                bar.update()
                if int(learner.step) % 50 == 0:
                    shown = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
                    bar.set_postfix_str(shown)
                    if not sys.stderr.isatty():
                        print(f"step {int(learner.step)}/{steps}: {shown}", flush=True)
                if time.monotonic() - saved > SAVED_EVERY:
                    save()
                    saved = time.monotonic()
            with learner.averaged():
                print(f"epoch {epoch + 1}: {score()}", flush=True)


def new_parser(captions: Captions, counts: Mapping[str, int], units: int) -> SceneGraphParser:
    """Returns an untrained parser with the lemmas and labels of captions, and the words of `counts`."""
    lemmas = learn_lemmas(captions)
    labels = learn_labels(captions, lemmas)
    words = [word for word, times in counts.items() if times >= MIN_WORDS]
    network = SceneParser(SceneParserSizes(1 + len(words), AFFIXES, len(labels), units=units))
    return SceneGraphParser(network, words, lemmas, labels)


def _score(parser: SceneGraphParser, captions: Captions) -> TupleScore:
    return TupleScore.of(parsed(parser, [words for words, _ in captions]), [tuples for _, tuples in captions])


def _finish(
    args: argparse.Namespace, learner: Learner, parser: SceneGraphParser, held_out: Captions, seconds: float
) -> None:
    learner.use_averages()
    # One of --start has the number of the parser from which training went on.
    parser.version = save_parser(args.output, parser, number_of(parser.version) + 1)
    score = _score(parser, held_out)
    card = {
        "version": parser.version,
        "command": "python -m pipeline.parser_training.main " + " ".join(args.given),
        "minutes": seconds / 60,
        "held_out": {"captions": len(held_out), **score.numbers()},
    }
    write_text(args.output.with_name(f"{args.output.name}.json"), json.dumps(card, indent=1) + "\n")
    print(f"{args.output}: {score} on {len(held_out)} held-out captions, {seconds / 60:.0f} minutes")
    print(f"version of the parser: {parser.version}")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pipeline.parser_training.main", description=__doc__.split("\n")[0])
    parser.add_argument("--tuples", required=True, help="JSON lines of captions and tuples; files separated by commas")
    parser.add_argument("--output", required=True, type=pathlib.Path, help="file of the trained parser")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, order, dropout and the held-out captions")
    parser.add_argument("--epochs", type=float, default=16.0, help="passes over the captions")
    parser.add_argument("--batch_size", type=int, default=256, help="captions per step")
    parser.add_argument(
        "--units", type=int, help=f"LSTM units per direction and layer; default: {UNITS}, or those of --start"
    )
    parser.add_argument("--dropout", type=float, default=0.2, help="dropout rate between layers")
    parser.add_argument(
        "--learning_rate", type=float, default=2e-3, help="highest learning rate of Adam; cosine decay to 0"
    )
    parser.add_argument(
        "--leave_out", default="", help="files of references or results whose captions are not trained on"
    )
    parser.add_argument("--start", type=pathlib.Path, help="a parser to fine-tune, with its words and labels")
    parser.add_argument("--held_out", type=int, default=2000, help="captions held out for the score")
    args = parser.parse_args(arguments)
    args.given = list(arguments)
    return args


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
