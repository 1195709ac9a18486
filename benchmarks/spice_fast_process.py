"""Seconds of a new process that scores files by SPICE-fast, from its start to its end.

    python -m benchmarks.spice_fast_process --references=captions_train.json [--images=5000] [--times=3]

Results are captions of other images. It runs `--mode=score --metrics=spice_fast` with Java, if there is any, whose
tokenizer is then used, and without. Printed: the median wall time, and that process's seconds of a core, which other
work on the machine changes less.
"""

import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks import aligned, positive
from benchmarks.corpus import read_corpus
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.metrics.java.runtime import java_found

_SCORE = "from spidercap.pipeline.main import main\nimport sys\nsys.exit(main(['spidercap', *sys.argv[1:]]))\n"
_NO_JAVA = "from spidercap.pipeline.evaluation import scoring\nscoring.java_found = lambda: False\n"
TOKENIZERS = {"Java's": _SCORE, "our own, without Java": _NO_JAVA + _SCORE}


class Cost(NamedTuple):
    """What a process took, in seconds."""

    wall: float
    core: float  # of it and the processes that it started


def main(arguments: Sequence[str]) -> int:
    """Prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spice_fast_process", description=__doc__.split("\n")[0])
    parser.add_argument("--references", default="", help="COCO captions file; default: synthetic scenes")
    parser.add_argument("--images", type=positive, default=5000, help="images, one result and five references each")
    parser.add_argument("--times", type=positive, default=3, help="processes of each tokenizer")
    flags = parser.parse_args(arguments)
    rows = [("tokenizer", "images", "captions", "wall, s", "core, s", "captions/s")]
    try:
        with tempfile.TemporaryDirectory() as folder:
            images, captions = write_files(flags.references, flags.images, pathlib.Path(folder))
            for name, code in TOKENIZERS.items():
                if code != _SCORE or java_found():
                    costs = [cost(code, pathlib.Path(folder)) for _ in range(flags.times)]
                    wall, core = (statistics.median(values) for values in zip(*costs, strict=True))
                    rate = f"{captions / wall:,.0f}"
                    rows.append((name, f"{images:,}", f"{captions:,}", f"{wall:.1f}", f"{core:.1f}", rate))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(aligned(rows, left=(0,)))
    return 0


def write_files(references: str, images: int, folder: pathlib.Path) -> tuple[int, int]:
    """Writes references.json and results.json of the first images; returns the numbers of images and of captions."""
    listed = read_corpus(references, images).raw
    results = {str(k): listed[(k + 1) % len(listed)][0] for k in range(len(listed))}
    (folder / "references.json").write_text(json.dumps({str(k): list(of) for k, of in enumerate(listed)}))
    (folder / "results.json").write_text(json.dumps(results))
    return len(listed), len(results) + sum(map(len, listed))


def cost(code: str, folder: pathlib.Path) -> Cost:
    """Returns what a new process takes that runs this code on the files of `write_files`."""
    files = [f"--{name}={folder / name}.json" for name in ("references", "results", "output")]
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-c", code, "--mode=score", "--metrics=spice_fast", *files]
    subprocess.run(command, check=True, capture_output=True)
    wall, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
