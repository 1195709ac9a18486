"""Fills demo_tuples.json.gz anew: what SPICE 1.0's parser makes of the captions of the COCO evaluation's demo.

Run from the repository's root, with Java and the real data (three minutes on two processors):
    python -m tests.golden.make_demo_tuples DATA/coco/demo_tokenized.json
"""

import gzip
import json
import sys
import tempfile
from pathlib import Path

from spidercap.pipeline.metrics.text_metrics import open_text_metrics

TUPLES = Path(__file__).with_name("demo_tuples.json.gz")


def main() -> None:
    """Parses every distinct caption once, in their order."""
    images = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    captions = sorted({caption for image in images for caption in (image["test"], *image["refs"])})
    with tempfile.TemporaryDirectory() as folder:
        settings = {"metric_workers": 2, "metric_timeout": 60, "metric_cache_dir": folder}
        with open_text_metrics(["spice"], corenlp=_corenlp(), **settings) as java:
            java["spice"].score(captions, [[]] * len(captions))
            tuples = java["spice"]._store.get(captions)
    content = json.dumps({caption: tuples[caption] for caption in captions}, separators=(",", ":"))
    TUPLES.write_bytes(gzip.compress(content.encode(), 9, mtime=0))


def _corenlp() -> str:
    from spidercap.pipeline.metrics.java.corenlp import corenlp_jars

    return str(corenlp_jars("", "")[0].parent)


if __name__ == "__main__":
    main()
