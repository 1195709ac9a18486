"""Compares finished runs: a table with mean and std over seeds, curves, a gallery and captions.

    python -m benchmarks.compare --runs="MLE=runs/mle_0,runs/mle_1;PG=runs/pg_0,runs/pg_1" [--json=FILE]
                                 [--columns=CIDEr,SPICE,SPIDEr] [--curves=FILE.svg --within=60,120 --metric=CIDEr]
                                 [--references=captions_val.json --side_by_side=20 --seed=1]
                                 [--gallery=FILE.html --images=FOLDER --pictures=40]

The workdirs of a label are runs with different seeds. The last finished stage that trained the policy is compared, or
the named one, as in runs/pg_0:mle. --runs=@FILE reads one row per line.
"""

import argparse
import json
import os
import pathlib
import sys
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from benchmarks import positive
from benchmarks.compare_course import course_of, parse_seconds
from benchmarks.compare_curves import draw_curves
from benchmarks.compare_gallery import check_images, write_gallery
from benchmarks.compare_images import drawn_ids, read_images, side_by_side
from benchmarks.compare_runs import read_rows
from benchmarks.compare_table import COLUMNS, ON_DEMAND, as_json, chosen_columns, decoding_note, markdown
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import check_output, write_text
from spidercap.pipeline.metrics.registry import remarks

WRITTEN = ("json", "curves", "gallery")
COUNTED = """\
Cells are the mean over seeds ± the sample std; an em dash means that a seed has no value.
Scores are of the whole validation split. Bad endings: captions that end in a word such as 'a' or 'with' (the words
that --no_bad_endings blocks), or that were cut at --max_length.
Repeated trigrams: captions that contain a trigram twice. Minutes: of the stage, with its validations.
Best epoch: of the kept weights. Within: seconds of the stage, with its validations and its baseline's warm-up;
best, last and worst are of all its validations while training."""


def main(arguments: Sequence[str]) -> int:
    """Prints the table and writes the requested files; returns 1 after a UserError or OSError."""
    args = _parse(arguments)
    try:
        _check(args)
        columns = chosen_columns(args.columns)
        limits = parse_seconds(args.within) if args.within else ()
        rows = read_rows(args.runs)
        image_ids = next(iter(rows.values()))[0].captions.keys()
        validation_images = read_images(args.references, image_ids) if args.references else None
        shown = drawn_ids(image_ids, "pictures", args.pictures, args.seed) if args.gallery else []
        listed = drawn_ids(image_ids, "side_by_side", args.side_by_side, args.seed)
        if args.gallery:
            check_images(validation_images, args.images, shown)
        course = course_of(rows, args.metric, limits) if limits else ""
        curves = draw_curves(rows, args.metric, validation_images) if args.curves else None
        print(markdown(rows, columns))
        _print_notes([decoding_note(rows), *remarks(columns)])
        if args.json:
            write_text(args.json, json.dumps(as_json(rows, columns), indent=1, allow_nan=False) + "\n")
        if course:
            print(f"\n{course}")
        if listed:
            print(f"\n{side_by_side(rows, validation_images, listed)}")
        if curves:
            write_text(args.curves, curves.svg)
            _print_notes(curves.notes)
        if args.gallery:
            notes = [f"Drawn from {len(image_ids):,} with seed {args.seed}; captions of each label's first run."]
            write_gallery(args.gallery, rows, validation_images, args.images, shown, notes)
    except (UserError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raises UserError, before anything is read, for files that cannot be written and for missing flags."""
    for flag in WRITTEN:
        if getattr(args, flag):
            check_output(flag, getattr(args, flag), read=[args.references] if args.references else [])
    for flag, needed in (("gallery", ("references", "images")), ("side_by_side", ("references",))):
        missing = [name for name in needed if not getattr(args, name)]
        if getattr(args, flag) and missing:
            raise UserError(f"--{flag} needs {' and '.join(f'--{name}' for name in missing)} too")


def _print_notes(notes: Sequence[str]) -> None:
    for note in filter(None, notes):
        print(f"\n{note}")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description=__doc__.split("\n")[0],
        epilog=COUNTED,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--runs", required=True, help="label=workdir,workdir:stage;label=workdir, or @FILE with one row per line"
    )
    by_default = ", ".join(name for name in COLUMNS if name not in ON_DEMAND)
    parser.add_argument(
        "--columns", default="", help=f"separated by commas; default: {by_default}; also {', '.join(sorted(ON_DEMAND))}"
    )
    parser.add_argument("--json", type=pathlib.Path, help="file for the table, with the values of each seed")
    parser.add_argument("--curves", type=pathlib.Path, help="SVG file for validation curves of --metric")
    parser.add_argument(
        "--within", default="", help="seconds separated by commas: prints the best validations of --metric within each"
    )
    parser.add_argument(
        "--metric",
        default="CIDEr",
        help="metric of --curves, where the label MLE (the start of the others) is a dashed line, and of --within",
    )
    parser.add_argument("--gallery", type=pathlib.Path, help="HTML file of images with the captions of each label")
    parser.add_argument("--references", default="", help="captions file that the runs were validated on")
    parser.add_argument("--images", default="", help="folder of the images")
    parser.add_argument("--pictures", type=positive, default=40, help="number of images in the gallery")
    parser.add_argument("--side_by_side", type=positive, default=0, help="number of captions to print as a table")
    parser.add_argument("--seed", type=int, default=0, help="seed by which images are drawn")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
