"""Makes the package's file of synonyms from the database of WordNet 3.0.

    python -m pipeline.parser_training.make_synonyms --wordnet=dict --output=pipeline/metrics/spice_fast

`dict` holds index.noun, index.verb, index.adj, index.adv and the four *.exc of Princeton's WordNet 3.0. The index files
must be Princeton's. In those of Debian's package some synsets have other offsets, by which the Java matcher identifies
them.
"""

import argparse
import collections
import gzip
import pathlib
import sys
from collections.abc import Sequence

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import written_aside
from spidercap.pipeline.metrics.spice_fast.synonyms import DATA

PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")


def main(arguments: Sequence[str]) -> int:
    """Writes the file; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wordnet", type=pathlib.Path, required=True, help="folder of WordNet 3.0's database")
    parser.add_argument("--output", type=pathlib.Path, required=True, help=f"folder for {DATA}")
    args = parser.parse_args(arguments)
    try:
        missing = [name for name in _names() if not (args.wordnet / name).is_file()]
        if missing:
            raise UserError(f"{args.wordnet} lacks {', '.join(missing)}; give the folder of WordNet 3.0's database")
        if not args.output.is_dir():
            raise UserError(f"--output={args.output} is not a folder; name an existing one")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    packed = gzip.compress(_contents(args.wordnet).encode("ascii"), mtime=0)
    with written_aside(args.output / DATA) as aside:
        aside.write_bytes(packed)
    print(f"{len(packed)} bytes in {args.output / DATA}")
    return 0


def _names() -> list[str]:
    return [f"index.{part}" for part in PARTS_OF_SPEECH] + [f"{part}.exc" for part in PARTS_OF_SPEECH]


def _contents(folder: pathlib.Path) -> str:
    """Returns one line of words per synset, an empty line, and one line of form and base forms per exception."""
    synsets: dict[str, list[str]] = collections.defaultdict(list)
    exceptions: dict[str, list[str]] = collections.defaultdict(list)
    for part in PARTS_OF_SPEECH:
        for line in (folder / f"index.{part}").read_text("ascii").splitlines():
            if not line.startswith(" "):  # the licence
                word, _, count, *rest = line.split()
                for place in rest[-int(count) :]:
                    synsets[place].append(word)
        for line in (folder / f"{part}.exc").read_text("ascii").splitlines():
            form, *bases = line.split()
            exceptions[form] += bases
    lines = sorted(" ".join(dict.fromkeys(words)) for words in synsets.values())
    irregular = sorted(" ".join([form, *dict.fromkeys(bases)]) for form, bases in exceptions.items())
    return "\n".join([*lines, "", *irregular]) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
