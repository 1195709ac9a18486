"""The agreement of SPICE-fast with SPICE on any captions: the learned parser against Java's.

    python -m benchmarks.spice_fast --references=captions_val.json --results=greedy.json,beam.json [--json=FILE]

Files are COCO captions and results. Printed for each results file: F1 of tuples against SPICE's, correlation of the
SPICE of captions, difference of the SPICE of the corpus. Printed over all files, and one reference per image as a
further result: the share of caption pairs of an image, 0.05 or more apart in SPICE, with the same order (scored against
the other references). The last number is captions per second, parsed and matched in batches of 1,024 distinct ones.
"""

import argparse
import itertools
import json
import math
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from benchmarks import aligned, median_seconds, positive
from benchmarks.correlation import kendall_b, pearson
from spidercap.models.special_tokens import SPECIAL_TOKENS
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.evaluation.score_files import Captioned, read_captioned
from spidercap.pipeline.files import check_output, write_text
from spidercap.pipeline.metrics.spice import Spice
from spidercap.pipeline.metrics.spice_fast.metric import SpiceFast, TextSpiceFast
from spidercap.pipeline.metrics.spice_fast.parser import SceneGraphParser
from spidercap.pipeline.metrics.spice_fast.parser_file import PACKAGED, load_parser
from spidercap.pipeline.metrics.text_metrics import open_text_metrics
from spidercap.pipeline.parser_training.agreement import TupleScore
from spidercap.pipeline.text.tokenizer import tokenize
from spidercap.pipeline.text.vocabulary import pad

APART = 0.05  # minimum difference in SPICE of a pair of captions
BATCH = 1024
STEPS = 20  # T of the timed batches
TIMES = 7
HEADS = ("images", "tuple_f1", "pearson", "kendall", "corpus_spice", "corpus_spice_fast", "corpus_difference")


def main(arguments: Sequence[str]) -> int:
    """Measures and prints; returns the exit code."""
    args = _parse(arguments)
    try:
        if args.json:
            check_output("json", args.json, read=(args.references, *args.results.split(",")))
        files = {name: read_captioned(args.references, path) for name, path in named(args.results.split(",")).items()}
        parser = load_parser(args.parser)
        settings = {"metric_workers": args.metric_workers, "metric_timeout": 60.0}
        places = {"metric_cache_dir": args.metric_cache_dir, "corenlp": args.corenlp}
        with open_text_metrics(["spice"], **settings, **places) as metrics:
            spice = metrics["spice"]
            systems = {name: _tokenized(captioned) for name, captioned in files.items()}
            fast = TextSpiceFast(parser)
            results = {name: _compared(fast, spice, captioned) for name, captioned in systems.items()}
            agreement, pairs = _pair_agreement(fast, spice, systems)
        first = next(iter(systems.values()))
        rate = _rate(parser, first)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    rows = [(name, *(_shown(row[head]) for head in HEADS)) for name, row in results.items()]
    print(aligned([("", *HEADS), *rows], left=(0,)))
    print(f"pair_agreement {agreement:.4f} of {pairs} pairs; captions_per_second {rate:.0f}")
    if args.json:
        content = {"systems": results, "pair_agreement": agreement, "pairs": pairs, "captions_per_second": rate}
        write_text(pathlib.Path(args.json), json.dumps(_without_nan(content), indent=1, allow_nan=False) + "\n")
    return 0


def named(paths: Sequence[str]) -> dict[str, str]:
    """Returns files by name without suffix, or by path if two have the same name."""
    stems = {pathlib.Path(path).stem: path for path in paths}
    return stems if len(stems) == len(paths) else {path: path for path in paths}


def better_alike(exact: np.ndarray, fast: np.ndarray) -> tuple[int, int]:
    """Returns the number of pairs that fast scores order like exact ones, and the number of pairs.

    Scores are `[systems, I]`; a pair is two systems' captions of one image whose exact scores are APART or more.
    """
    right = pairs = 0
    for a, b in itertools.combinations(range(len(exact)), 2):
        apart = np.abs(exact[a] - exact[b]) >= APART - 1e-9
        same = np.sign(exact[a] - exact[b]) == np.sign(fast[a] - fast[b])
        right, pairs = right + int((apart & same).sum()), pairs + int(apart.sum())
    return right, pairs


def _compared(fast: TextSpiceFast, spice: Spice, captioned: Captioned) -> dict[str, float]:
    exact, approximate = _scores(fast, spice, captioned.captions, captioned.references)
    score = TupleScore.of(fast.tuples(captioned.captions), spice.tuples(captioned.captions))
    return {
        "images": len(captioned.captions),
        **score.numbers(),
        "pearson": pearson(exact, approximate),
        "kendall": kendall_b(exact, approximate),
        "corpus_spice": float(exact.mean()),
        "corpus_spice_fast": float(approximate.mean()),
        "corpus_difference": float(approximate.mean() - exact.mean()),
    }


def _scores(
    fast: TextSpiceFast, spice: Spice, captions: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[np.ndarray, np.ndarray]:
    """SPICE and SPICE-fast `[N]`."""
    return spice.rewards(captions, references), fast.rewards(captions, references)


def _pair_agreement(fast: TextSpiceFast, spice: Spice, systems: Mapping[str, Captioned]) -> tuple[float, int]:
    """The share of pairs with the same order, and their number; NaN without pairs."""
    right = pairs = 0
    by_image: dict[int, list[str]] = {}
    references: dict[int, tuple[str, ...]] = {}
    for captioned in systems.values():
        for image, caption, of_image in zip(captioned.image_ids, captioned.captions, captioned.references, strict=True):
            references[image] = of_image[1:]
            by_image.setdefault(image, [of_image[0]]).append(caption)
    for count in {len(captions) for captions in by_image.values()}:
        images = [i for i, captions in by_image.items() if len(captions) == count and references[i]]
        if not images:
            continue
        columns = [
            _scores(fast, spice, [by_image[i][k] for i in images], [references[i] for i in images])
            for k in range(count)
        ]
        exact, approximate = (np.stack(scores) for scores in zip(*columns, strict=True))
        counted = better_alike(exact, approximate)
        right, pairs = right + counted[0], pairs + counted[1]
    return right / pairs if pairs else float("nan"), pairs


def _rate(parser: SceneGraphParser, captioned: Captioned) -> float:
    """Captions per second: the median of several batches of BATCH captions, distinct if there are so many.

    References fill the batch if there are not enough distinct results, because equal captions are parsed once.
    """
    chosen = {caption: image for image, caption in enumerate(captioned.captions)}
    for image, of_image in enumerate(captioned.references):
        for caption in of_image:
            chosen.setdefault(caption, image)
    words = [*SPECIAL_TOKENS, *dict.fromkeys(word for caption in chosen for word in caption.split())]
    ids = {word: place for place, word in enumerate(words)}
    rows = [([ids[word] for word in caption.split()], image) for caption, image in chosen.items()]
    batch = list(itertools.islice(itertools.cycle(rows), BATCH))
    captions = tf.constant(pad([row for row, _ in batch], STEPS))
    places = tf.constant([image for _, image in batch])
    call = tf.function(SpiceFast(parser, words, captioned.references), autograph=False)
    call(captions, places)
    return BATCH / median_seconds(lambda: call(captions, places).numpy(), TIMES)


def _without_nan(content: Any) -> Any:
    """The same with None for NaN, which JSON lacks."""
    if isinstance(content, dict):
        return {name: _without_nan(value) for name, value in content.items()}
    return None if isinstance(content, float) and math.isnan(content) else content


def _tokenized(captioned: Captioned) -> Captioned:
    return Captioned(
        captioned.image_ids,
        tuple(" ".join(tokenize(caption)) for caption in captioned.captions),
        tuple(tuple(" ".join(tokenize(caption)) for caption in of_image) for of_image in captioned.references),
    )


def _shown(value: float) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spice_fast", description=__doc__.split("\n")[0])
    parser.add_argument("--references", required=True, help="COCO captions file")
    parser.add_argument("--results", required=True, help="COCO results files, separated by commas")
    parser.add_argument("--json", default="", help="JSON file for the results")
    parser.add_argument(
        "--parser", type=pathlib.Path, default=PACKAGED, help="file of a parser; default: the packaged one"
    )
    parser.add_argument("--metric_workers", type=positive, default=2, help="Java processes")
    parser.add_argument("--metric_cache_dir", default="", help="folder of CoreNLP and parsed captions")
    parser.add_argument("--corenlp", default="", help="folder of CoreNLP's jars; default: in the metric cache")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
