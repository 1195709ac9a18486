"""Writes spice_fast.json: SPICE-fast's counts of captions of the demo, by the packaged parser.

    python -m tests.golden.make_spice_fast

Only a new parser, or another rule by which tuples count, changes them.
"""

import json

from spidercap.pipeline.metrics.spice_fast.metric import TextSpiceFast
from spidercap.pipeline.metrics.spice_fast.parser_file import load_parser
from tests.conftest import GOLDEN, demo_tuples

EVERY = 3  # of the demo's captions


def captioned() -> tuple[list[str], list[list[str]]]:
    """Returns captions, and as references of each the five that follow it, which are mostly of the same image."""
    captions = list(demo_tuples())[::EVERY]
    begins = range(0, len(captions) - 5, 6)
    return [captions[k] for k in begins], [captions[k + 1 : k + 6] for k in begins]


if __name__ == "__main__":
    counts = TextSpiceFast(load_parser()).score(*captioned()).tolist()
    lines = [", ".join(map(json.dumps, counts[k : k + 8])) for k in range(0, len(counts), 8)]
    (GOLDEN / "spice_fast.json").write_text("[" + ",\n".join(lines) + "]\n")
