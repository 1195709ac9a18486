"""What SPICE's parser needs for captions of many words: seconds, and the smallest heap of its JVM that is enough.

    python -m benchmarks.long_captions --words=60,80,120,200,300

A caption is made of the references of a corpus, one after the other, as in a paragraph without punctuation. It takes
seven minutes on an idle machine, and needs Java and CoreNLP.
"""

import argparse
import itertools
import pathlib
import re
import sys
from collections.abc import Sequence

from benchmarks import Report, timed
from benchmarks.corpus import read_corpus
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.metrics.java.corenlp import corenlp_jars
from spidercap.pipeline.metrics.java.pool import Pool, pool_of
from spidercap.pipeline.metrics.java.process import OutOfMemory, WorkerFailed
from spidercap.pipeline.metrics.java.runtime import Jvm, find_jvm, spice_jars

HEAPS = (900, 1100, 1300, 1600, 2000, 2500, 3200, 4000, 5000, 6400, 8000, 10000, 13000, 16000)  # MB
IMAGES = 100
TIMEOUT = 3600.0  # seconds for one caption


def main(arguments: Sequence[str]) -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_captions", description=__doc__.split("\n")[0])
    parser.add_argument("--words", default="60,80,120,200,300", help="lengths of captions, separated by commas")
    parser.add_argument("--references", default="", help="COCO captions file; default: see benchmarks/corpus.py")
    parser.add_argument("--corenlp", default="", help="folder of CoreNLP's jars")
    args = parser.parse_args(arguments)
    report = Report()
    try:
        corpus = read_corpus(args.references, IMAGES)
        jvm, jars = find_jvm(), [*spice_jars(), *corenlp_jars(args.corenlp, "")]
        words = " ".join(itertools.chain.from_iterable(corpus.references)).split()
        heaps = list(HEAPS)
        for count in sorted(int(part) for part in args.words.split(",")):
            heaps = _measured(report, jvm, jars, words[:count], heaps)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report.table())
    return 0


def _measured(report: Report, jvm: Jvm, jars: Sequence[object], words: Sequence[str], heaps: list[int]) -> list[int]:
    """Reports on one caption; returns the heaps from the first that is enough."""
    name = f"{len(words)} words"
    while heaps:
        report.log(f"{name}, {heaps[0]} MB")
        with pool_of("spice_parser", jvm, jars, 1, TIMEOUT, f"{heaps[0]}m") as pool:
            _parsed(pool, ["a dog"])  # loads the models
            seconds, answer = timed(lambda pool=pool: _parsed(pool, words))
            if not isinstance(answer, WorkerFailed):
                report.add(f"{name}, parsing", seconds, "s")
                report.add(f"{name}, heap", heaps[0], "MB")
                report.add(f"{name}, whole process", _peak(pool), "MB")
                return heaps
        if not isinstance(answer, OutOfMemory):
            raise UserError(f"{name} failed: {answer}")
        heaps = heaps[1:]
    raise UserError(f"{name} do not fit into {HEAPS[-1]} MB")


def _parsed(pool: Pool, words: Sequence[str]) -> object:
    return pool.try_each([" ".join(words)], timeouts=[TIMEOUT])[0]


def _peak(pool: Pool) -> float:
    """The most memory that the process has had, in MB; Linux only."""
    status = pathlib.Path(f"/proc/{pool.processes()[0]}/status").read_text()
    return int(re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)[1]) / 1e3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
