"""Finished runs side by side: a table with the spread over seeds, curves, a gallery and captions.

    python -m benchmarks.compare --runs="MLE=runs/mle_0,runs/mle_1;PG=runs/pg_0,runs/pg_1" [--json=FILE]
                                 [--columns=CIDEr,SPICE,SPIDEr] [--curves=FILE.svg --within=60,120 --metric=CIDEr]
                                 [--references=captions_val.json --side_by_side=20 --seed=1]
                                 [--gallery=FILE.html --images=FOLDER --pictures=40]

A label's workdirs are runs of different seeds. Of each its last finished stage that moved the policy counts;
runs/pg_0:mle names another. --runs=@FILE reads a row a line.
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
from benchmarks.compare_pictures import drawn_ids, read_pictures, side_by_side
from benchmarks.compare_runs import read_rows
from benchmarks.compare_table import COLUMNS, ON_DEMAND, as_json, chosen_columns, decoding_note, markdown
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import check_output, write_text
from spidercap.pipeline.metrics.registry import remarks

WRITTEN = ("json", "curves", "gallery")
COUNTED = """\
Cells are the mean over seeds ± the sample standard deviation; an em dash stands where a seed has no value.
Scores are of the whole validation split. Bad endings: captions whose last word is one after which no caption ends,
such as 'a' or 'with' (the words that --no_bad_endings of training forbids), or that were cut at --max_length.
Said twice: captions in which three words in a row come twice. Minutes: of the stage, validations included.
Best epoch: of the weights that were kept. Within: seconds of the stage, its validations and its baseline's warm-up
counted; best, last and worst are of all its validations while training."""


def main(arguments: Sequence[str]) -> int:
    """Prints the table and writes what is asked for; returns 1 for what the user can mend."""
    args = _parse(arguments)
    try:
        _check(args)
        columns = chosen_columns(args.columns)
        limits = parse_seconds(args.within) if args.within else ()
        rows = read_rows(args.runs)
        image_ids = next(iter(rows.values()))[0].captions.keys()
        pictures = read_pictures(args.references, image_ids) if args.references else None
        shown = drawn_ids(image_ids, "pictures", args.pictures, args.seed) if args.gallery else []
        listed = drawn_ids(image_ids, "side_by_side", args.side_by_side, args.seed)
        if args.gallery:
            check_images(pictures, args.images, shown)
        course = course_of(rows, args.metric, limits) if limits else ""
        curves = draw_curves(rows, args.metric, pictures) if args.curves else None
        print(markdown(rows, columns))
        _tell([decoding_note(rows), *remarks(columns)])
        if args.json:
            write_text(args.json, json.dumps(as_json(rows, columns), indent=1, allow_nan=False) + "\n")
        if course:
            print(f"\n{course}")
        if listed:
            print(f"\n{side_by_side(rows, pictures, listed)}")
        if curves:
            write_text(args.curves, curves.svg)
            _tell(curves.notes)
        if args.gallery:
            notes = [f"Drawn from {len(image_ids):,} by seed {args.seed}; captions of each label's first run."]
            write_gallery(args.gallery, rows, pictures, args.images, shown, notes)
    except (UserError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuses, before anything is read, files that cannot be written and flags that others are missing for."""
    for flag in WRITTEN:
        if getattr(args, flag):
            check_output(flag, getattr(args, flag), read=[args.references] if args.references else [])
    for flag, needed in (("gallery", ("references", "images")), ("side_by_side", ("references",))):
        missing = [name for name in needed if not getattr(args, name)]
        if getattr(args, flag) and missing:
            raise UserError(f"--{flag} needs {' and '.join(f'--{name}' for name in missing)} too")


def _tell(notes: Sequence[str]) -> None:
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
        "--runs", required=True, help="label=workdir,workdir:stage;label=workdir, or @FILE, a row a line"
    )
    by_default = ", ".join(name for name in COLUMNS if name not in ON_DEMAND)
    parser.add_argument(
        "--columns", default="", help=f"by comma; default: {by_default}; also {', '.join(sorted(ON_DEMAND))}"
    )
    parser.add_argument("--json", type=pathlib.Path, help="file to write the table to, with each seed's values")
    parser.add_argument("--curves", type=pathlib.Path, help="SVG file to draw validations of --metric in")
    parser.add_argument(
        "--within", default="", help="seconds by comma: a table of the best validations of --metric within each"
    )
    parser.add_argument(
        "--metric",
        default="CIDEr",
        help="of --curves, where the label MLE (the others' start) is a dashed line, and of --within, without it",
    )
    parser.add_argument("--gallery", type=pathlib.Path, help="HTML file for pictures with the captions of each label")
    parser.add_argument("--references", default="", help="COCO captions file that the runs were validated on")
    parser.add_argument("--images", default="", help="folder of the pictures")
    parser.add_argument("--pictures", type=positive, default=40, help="of the gallery")
    parser.add_argument("--side_by_side", type=positive, default=0, help="so many captions are printed as a table")
    parser.add_argument("--seed", type=int, default=0, help="by which pictures are drawn")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
