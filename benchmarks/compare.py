"""Finished runs side by side: a table with the spread over seeds, curves, a gallery and captions.

    python -m benchmarks.compare --runs="MLE=runs/mle_0,runs/mle_1;PG=runs/pg_0,runs/pg_1" [--json=FILE]
                                 [--columns=CIDEr,SPICE,SPIDEr]

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

from benchmarks.compare_runs import read_rows
from benchmarks.compare_table import COLUMNS, ON_DEMAND, as_json, chosen_columns, decoding_note, markdown
from pipeline.errors import UserError
from pipeline.files import check_output, write_text
from pipeline.metric_names import remarks

COUNTED = """\
Cells are the mean over seeds ± the sample standard deviation; an em dash stands where a seed has no value.
Scores are of the whole validation split. Bad endings: captions whose last word is one after which no caption ends,
such as 'a' or 'with' (the words that --no_bad_endings of training forbids), or that were cut at --max_length.
Said twice: captions in which three words in a row come twice. Minutes: of the stage, validations included.
Best epoch: of the weights that were kept."""


def main(arguments: Sequence[str]) -> int:
    """Prints the table and writes what is asked for; returns 1 for what the user can mend."""
    args = _parse(arguments)
    try:
        columns = chosen_columns(args.columns)
        _check_outputs(args)
        rows = read_rows(args.runs)
        print(markdown(rows, columns))
        notes = [decoding_note(rows), *remarks(columns)]
        print("".join(f"\n{note}" for note in notes if note), end="\n" * any(notes))
        if args.json:
            write_text(args.json, json.dumps(as_json(rows, columns), indent=1, allow_nan=False) + "\n")
    except (UserError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _check_outputs(args: argparse.Namespace) -> None:
    """Refuses files that cannot be written, before anything is read."""
    for flag in ("json",):
        if getattr(args, flag):
            check_output(flag, getattr(args, flag))


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
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
