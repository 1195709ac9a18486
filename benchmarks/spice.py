"""The SPICE part of `benchmarks.metrics`, and the process in which its reference runs.

    python -m benchmarks.spice INPUT OUTPUT

The reference uses SPICE 1.0's classes like their main class: one JVM per call, one thread per core, references first,
then candidates, then scores with their parts, without a cache. pycocoevalcap's Spice() runs that main class, which
fails at its end on Java 15 and newer, because it prints with a JavaScript engine that these versions lack.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import RATE, WORKERS, Report, largest_difference, plural, timed
from spidercap.pipeline.metrics.java.runtime import find_jvm
from spidercap.pipeline.metrics.registry import SPICE_PARTS
from spidercap.pipeline.metrics.spice import f_score
from spidercap.pipeline.metrics.text_metrics import TextMetric, open_text_metrics
from spidercap.pipeline.metrics.tuple_store import TupleStore

if TYPE_CHECKING:  # it imports TensorFlow, and the start of the reference is timed
    from benchmarks.corpus import Corpus

HEAP = "4g"  # of the reference
TIMEOUT = 120.0  # seconds for one caption


def measure_spice(
    report: Report, corpus: "Corpus", parsed: int, matched: int, corenlp: str, jars: Sequence[pathlib.Path]
) -> None:
    """Captions per second with parsing, with tuples on disk, and with tuples in memory.

    The reference has no cache, so that the last two are compared with its rate after its start.

    Args:
      parsed: images for the first.
      matched: images for the others; one worker also gets twice and four times as many.
      corenlp: the folder of CoreNLP's jars, which are among `jars`.
    """
    report.log("SPICE's own classes")
    captions, references = corpus.candidates(parsed), corpus.references[:parsed]
    f, seconds, work_seconds = _reference(jars, captions, references)
    cold, work = parsed / seconds, parsed / work_seconds
    report.add("SPICE, its own classes, cold", cold, RATE)
    texts = [*captions, *(caption for of_image in references for caption in of_image)]
    report.add("SPICE, its own classes, parsing", len(texts) / work_seconds, "parsed/s")
    for workers in WORKERS:
        name = f"SPICE, {plural(workers)}"
        report.log(name)
        with tempfile.TemporaryDirectory() as cache, opened("spice", workers, cache, corenlp) as spice:

            def score(captions: Sequence[str], references: Sequence, spice=spice) -> np.ndarray:
                return f_score(spice.score(captions, references)[:, 0])

            # As many captions as workers, so that all start.
            first = [f"dog {k}" for k in range(workers)]
            start, _ = timed(lambda first=first: score(first, [[f"a {caption}"] for caption in first]))
            parsing, ours = timed(lambda: score(captions, references))
            rate, difference = parsed / (start + parsing), largest_difference(ours, f)
            report.add(f"{name}, cold", rate, RATE, rate / cold, difference)
            report.add(f"{name}, parsing", len(texts) / parsing, "parsed/s", work_seconds / parsing)
            # The same number again, with warm JVMs, which the reference never has.
            more = corpus.candidates(2 * parsed)[parsed:], corpus.references[parsed : 2 * parsed]
            seconds, _ = timed(lambda more=more: score(*more))
            rate = 6 * parsed / seconds
            report.add(f"{name}, parsing on", rate, "parsed/s", rate * work_seconds / len(texts))
            made = _MadeUp(pathlib.Path(cache), texts)
            score(*made.new(matched))  # warms up the JVMs
            for count in [times * matched for times in ((1, 2, 4) if workers == 1 else (1,))]:
                rows = made.new(count)
                seconds, _ = timed(lambda rows=rows: score(*rows))
                report.add(f"{name}, {count:,} images, warm", count / seconds, RATE, count / seconds / work)
            seconds, _ = timed(lambda rows=rows: score(*_mixed(*rows)))
            report.add(f"{name}, {count:,} images, matching", count / seconds, RATE, count / seconds / work)


@contextlib.contextmanager
def opened(term: str, workers: int, cache: str = "", corenlp: str = "") -> Iterator[TextMetric]:
    """Yields one metric of `open_text_metrics`."""
    settings = {"metric_workers": workers, "metric_timeout": TIMEOUT, "metric_cache_dir": cache, "corenlp": corenlp}
    with open_text_metrics([term], **settings) as metrics:
        yield metrics[term]


class _MadeUp:
    """Images with captions that differ from parsed ones by a number, and have the same tuples."""

    def __init__(self, cache: pathlib.Path, parsed: Sequence[str]):
        self._cache, self._parsed = cache, list(dict.fromkeys(parsed))
        self._rng, self._made = np.random.default_rng(0), 0

    def new(self, count: int) -> tuple[list[str], list[list[str]]]:
        """Returns candidates and references, five per image, whose tuples are on disk and not yet in memory."""
        with contextlib.closing(TupleStore(self._cache)) as store:
            known = store.get(self._parsed)
            rows = [
                [(self._parsed[k], f"{self._parsed[k]} {self._made + row}") for k in drawn]
                for row, drawn in enumerate(self._rng.integers(len(self._parsed), size=[count, 6]))
            ]
            store.put({made: known[parsed] for row in rows for parsed, made in row})
        self._made += count
        return [row[0][1] for row in rows], [[made for _, made in row[1:]] for row in rows]


def _mixed(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[Sequence[str], list[list[str]]]:
    """Returns the same captions as other images, whose scene graphs have not been built before."""
    count = len(references)
    return candidates, [[references[(i + r + 1) % count][r] for r in range(len(references[0]))] for i in range(count)]


def _reference(
    jars: Sequence[pathlib.Path], candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[np.ndarray, float, float]:
    """Returns the scores of one tokenised caption per image, float64 `[I]`, computed by a new process, and its seconds.

    Scores are NaN where SPICE is undefined. The seconds are those of the process, and those without the start of the
    JVM and the loading of the models.

    Raises:
      RuntimeError: the process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, result = pathlib.Path(folder, "in.json"), pathlib.Path(folder, "out.json")
        task = {"jvm": find_jvm().library, "jars": [str(jar) for jar in jars]}
        given.write_text(json.dumps({**task, "candidates": candidates, "references": references}))
        command = [sys.executable, "-m", "benchmarks.spice", str(given), str(result)]
        root = pathlib.Path(__file__).parents[1]
        seconds, done = timed(lambda: subprocess.run(command, cwd=root, capture_output=True, text=True))
        if done.returncode:
            raise RuntimeError(f"the reference of SPICE failed: {done.stderr[-1000:]}")
        answer = json.loads(result.read_text())
    return np.array(answer["f"], np.float64), seconds, answer["work"]


def main(given: str, result: str) -> None:
    """Scores the captions of the file `given`, and writes {"f": [...], "work": seconds} to the file `result`."""
    import jpype

    task = json.loads(pathlib.Path(given).read_text())
    jpype.startJVM(task["jvm"], f"-Xmx{HEAP}", classpath=task["jars"], convertStrings=True)
    array_list, integer = jpype.JClass("java.util.ArrayList"), jpype.JClass("java.lang.Integer").valueOf
    parser = jpype.JClass("edu.anu.spice.SpiceParser")(None, os.cpu_count(), True)
    parser.parseCaptions(array_list(["a dog"]))  # the models are loaded at the first caption
    begin = time.perf_counter()
    flat = array_list([caption for of_image in task["references"] for caption in of_image])
    true = parser.parseCaptions(flat, array_list([integer(len(of_image)) for of_image in task["references"]]))
    predicted = parser.parseCaptions(array_list(task["candidates"]))
    tuple_filter, filters = jpype.JClass("edu.anu.spice.TupleFilter"), jpype.JClass("java.util.HashMap")()
    for part in SPICE_PARTS:
        filters.put(part, getattr(tuple_filter, f"{part.lower()}Filter"))
    stats = jpype.JClass("edu.anu.spice.SpiceStats")(filters, False)
    for image in range(len(task["candidates"])):
        stats.score(integer(image), predicted.get(image), true.get(image), True)
    f = [image["scores"]["All"]["f"] for image in json.loads(str(stats.toJSONString()))]
    answer = {"f": f, "work": time.perf_counter() - begin}
    pathlib.Path(result).write_text(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
