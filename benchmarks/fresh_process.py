"""Seconds of a new process that scores a few captions from Python, here and in pycocoevalcap, start and Java included.

    python -m benchmarks.fresh_process [--images=200] [--pairs=7] [--references=FILE]

Both compute BLEU and CIDEr-D of captions as written, in turns. It needs a `java` on PATH, which pycocoevalcap runs, and
fails if the scores differ.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from benchmarks import Report, in_pairs, largest_difference, positive
from benchmarks.corpus import DATA, read_corpus
from benchmarks.metrics import EXACT
from spidercap.pipeline.errors import UserError

_READ = """
import json, sys
references, candidates = (dict(enumerate(part)) for part in json.load(open(sys.argv[1])))
"""
OURS = f"""{_READ}
import spidercap
scores = spidercap.score(references, candidates, metrics="bleu,cider")
print(json.dumps(list(scores.corpus.values())))
"""
THEIRS = f"""{_READ}
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
tokenizer = PTBTokenizer()
truth = tokenizer.tokenize({{i: [{{"caption": c}} for c in of_image] for i, of_image in references.items()}})
said = tokenizer.tokenize({{i: [{{"caption": c}}] for i, c in candidates.items()}})
bleu, cider = Bleu(4).compute_score(truth, said, verbose=0)[0], Cider().compute_score(truth, said)[0]
print(json.dumps([*bleu, float(cider)]))
"""


def main(arguments: Sequence[str]) -> int:
    """Prints the table; returns 1 if the scores differ, or if the file is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fresh_process", description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=positive, default=200, help="images, one caption and five references each")
    parser.add_argument("--pairs", type=positive, default=7, help="processes of each")
    parser.add_argument(
        "--references", default="", help=f"COCO captions file; default: in ${DATA}, else synthetic scenes"
    )
    flags = parser.parse_args(arguments)
    try:
        corpus = read_corpus(flags.references, flags.images)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "captions.json")
        path.write_text(json.dumps([corpus.raw, corpus.candidates(flags.images)]))
        difference = largest_difference(_scores(OURS, path), _scores(THEIRS, path))
        mine, other, ratio = in_pairs(lambda: _scores(OURS, path), lambda: _scores(THEIRS, path), flags.pairs)
    report.add("new process, pycocoevalcap", other, "s")
    report.add("new process, spidercap.score", mine, "s", ratio, difference, EXACT)
    print(report.table())
    return 1 if report.wrong() else 0


def _scores(code: str, path: pathlib.Path) -> list[float]:
    """Returns the last line that a new process prints."""
    done = subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
