"""The agreement of metrics with people's ratings of captions.

    python -m benchmarks.people --ratings=flickr8k.json --metrics=bleu,rouge,cider,spice_fast[,meteor,spice]

The file is Flickr8k's ratings by experts (Hodosh, Young, Hockenmaier 2013), 1 to 4, in the form that CLIPScore's and
FACTUAL's evaluations read: {image: {"ground_truth": [captions], "human_judgement": [{"caption", "rating"}, ...]}}, one
entry for each judge. Printed is Kendall's tau-c of each metric and the single ratings, times 100, as papers do, and its
standard error: that of 200 draws of images with replacement.
"""

import argparse
import json
import math
import pathlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchmarks import aligned, positive
from benchmarks.correlation import kendall_c
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.evaluation.scoring import score

DRAWS = 200


class Rated(NamedTuple):
    """Captions of images with the ratings of judges."""

    references: dict[int, list[str]]  # by number of the caption
    captions: dict[int, str]
    image: np.ndarray  # int [N], of each rating
    caption: np.ndarray  # int [N]
    rating: np.ndarray  # float [N]


def main(arguments: Sequence[str]) -> int:
    """Prints the table; returns the exit code."""
    args = _parse(arguments)
    try:
        rated = read_ratings(args.ratings)
        workers = {"metric_workers": args.metric_workers, "metric_cache_dir": args.metric_cache_dir}
        scores = score(rated.references, rated.captions, args.metrics, **workers)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{rated.image.max() + 1} images, {len(rated.captions)} captions, {len(rated.rating)} ratings")
    print(aligned([("", "tau-c", "standard error"), *rows(rated, scores.images)], left=(0,)))
    print("\n".join(scores.notes))
    return 0


def read_ratings(path: pathlib.Path) -> Rated:
    """Returns the ratings of a file.

    Raises:
      UserError: the file cannot be read, has another form, or no ratings.
    """
    references: dict[int, list[str]] = {}
    captions: dict[int, str] = {}
    numbers: dict[tuple[str, str], int] = {}
    ratings: list[tuple[str, int, float]] = []
    try:
        for name, of_image in json.loads(path.read_text("utf-8")).items():
            for judgement in of_image["human_judgement"]:
                rating = float(judgement["rating"])
                if math.isnan(rating):  # a judge left it out
                    continue
                number = numbers.setdefault((name, judgement["caption"]), len(numbers))
                references[number], captions[number] = of_image["ground_truth"], judgement["caption"]
                ratings.append((name, number, rating))
    except (OSError, ArithmeticError, LookupError, RecursionError, ValueError, TypeError, AttributeError) as error:
        needed = "a file of ratings as CLIPScore's evaluation has"
        raise UserError(f"{path} cannot be read ({error!r}); needed: {needed}") from error
    if not ratings:
        raise UserError(f"{path} has no ratings")
    names, caption, rating = (np.array(column) for column in zip(*ratings, strict=True))
    return Rated(references, captions, np.unique(names, return_inverse=True)[1], caption, rating)


def rows(rated: Rated, images: dict[int, dict[str, float | None]]) -> list[tuple[str, str, str]]:
    """Returns tau-c of each metric and its standard error, as text."""
    generator = np.random.default_rng(0)
    of_image = [np.flatnonzero(rated.image == image) for image in np.unique(rated.image)]
    draws = [generator.integers(len(of_image), size=len(of_image)) for _ in range(DRAWS)]
    found = []
    for name in images[int(rated.caption[0])]:
        values = np.array([images[caption][name] for caption in rated.caption.tolist()], float)
        if np.isnan(values).any():  # a part of SPICE that some captions do not have
            continue
        samples = (np.concatenate([of_image[k] for k in draw]) for draw in draws)
        error = np.nanstd([kendall_c(values[chosen], rated.rating[chosen]) for chosen in samples], ddof=1)
        found.append((name, f"{100 * kendall_c(values, rated.rating):.1f}", f"{100 * error:.1f}"))
    return found


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.people", description=__doc__.split("\n")[0])
    parser.add_argument("--ratings", type=pathlib.Path, required=True, help="JSON file")
    parser.add_argument("--metrics", default="bleu,rouge,cider,spice_fast", help="as of --mode=score")
    parser.add_argument("--metric_workers", type=positive, default=2, help="Java processes")
    parser.add_argument("--metric_cache_dir", default="", help="folder of CoreNLP and parsed captions")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
