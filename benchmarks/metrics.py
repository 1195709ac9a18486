"""Captions per second of every metric and tokenizer, here and in pycocoevalcap, on the same captions.

    python -m benchmarks.metrics [--json=FILE] [--captions=4096] [--quick]
                                 [--references=FILE] [--corenlp=DIR] [--no-java]

It takes minutes, needs an idle machine, downloads nothing, and fails if scores differ from pycocoevalcap's.
"""

import argparse
import dataclasses
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from pycocoevalcap.bleu.bleu import Bleu as ReferenceBleu
from pycocoevalcap.cider.cider import Cider as ReferenceCider
from pycocoevalcap.meteor.meteor import Meteor as ReferenceMeteor
from pycocoevalcap.rouge.rouge import Rouge as ReferenceRouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from benchmarks import RATE, WORKERS, Report, in_pairs, largest_difference, median_seconds, plural, positive, timed
from benchmarks.corpus import DATA, Corpus, read_corpus
from benchmarks.spice import measure_spice, opened
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.metrics.bleu import Bleu
from spidercap.pipeline.metrics.cider import Cider
from spidercap.pipeline.metrics.document_frequencies import count_document_frequencies
from spidercap.pipeline.metrics.from_words import score_tokens
from spidercap.pipeline.metrics.java.corenlp import FOLDER, corenlp_jars, metric_cache
from spidercap.pipeline.metrics.java.runtime import find_jvm, spice_jars
from spidercap.pipeline.metrics.java.tokenizer import tokenize_with_java
from spidercap.pipeline.metrics.registry import GROUPS
from spidercap.pipeline.metrics.rouge import Rouge
from spidercap.pipeline.text.tokenizer import tokenize

EXACT, SINGLE = 1e-6, 1e-4  # allowed differences in float64 and float32 (CIDEr-D is up to 10)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of the measurements."""

    captions: int
    growth: tuple[int, ...] = (1, 4, 16)  # times `captions`
    meteor: int = 1000
    parsed: int = 60  # images whose captions SPICE parses
    matched: int = 1000  # images whose tuples SPICE matches
    warming: int = 2  # times METEOR's captions are scored by each worker before they are timed
    pairs: int = 3
    calls: int = 5
    side: int = 1024  # of the matrices that measure the machine


QUICK = {"growth": (1, 2), "meteor": 20, "parsed": 4, "matched": 32, "warming": 1, "pairs": 1, "calls": 1, "side": 64}


def main(arguments: Sequence[str]) -> int:
    """Prints the table; returns 1 if scores differ from the reference's, or if requested files are missing."""
    flags = _parse(arguments)
    # pycocoevalcap runs the `java` on PATH, and METEOR formats numbers in the language of the machine.
    os.environ["LC_ALL"] = "C.UTF-8"
    report = Report()
    sizes = Sizes(min(flags.captions, 64), **QUICK) if flags.quick else Sizes(flags.captions)
    try:
        corpus = read_corpus(flags.references, sizes.captions)
        report.log(f"{sizes.captions:,} images of {corpus.source}, 5 references each; {os.cpu_count()} cores")
        measure_machine(report, sizes)
        measure_compiled(report, corpus, sizes)
        measure_tokenizer(report, corpus)
        absent = measure_java(report, corpus, sizes, flags.corenlp) if flags.java else ["--no-java was given"]
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    print(report.table())
    for reason in absent:
        print(f"skipped: {reason}")
    if flags.json:
        report.write(pathlib.Path(flags.json))
    if report.wrong():
        print(f"scores differ from the reference's: {', '.join(report.wrong())}", file=sys.stderr)
    return 1 if report.wrong() else 0


def measure_machine(report: Report, sizes: Sizes) -> None:
    """Measures the rate of a matrix product in float32, to compare machines."""
    matrix = tf.random.stateless_normal([sizes.side, sizes.side], [1, 2])
    seconds = median_seconds(lambda: tf.linalg.matmul(matrix, matrix).numpy(), 4 * sizes.calls)
    report.add("matrix product, float32", 2 * sizes.side**3 / seconds / 1e9, "GFLOP/s")


def measure_compiled(report: Report, corpus: Corpus, sizes: Sizes) -> None:
    """BLEU, ROUGE-L and CIDEr-D: compiled on token ids, as in training, and from words, as in scoring."""
    count = sizes.captions
    captions = corpus.candidates(count * max(sizes.growth))
    references, ids, base = corpus.ids(captions)
    truth, candidates = _as_dicts(corpus, captions[:count])
    words = [[c.split() for c in of_image] for of_image in corpus.references], [c.split() for c in captions[:count]]
    frequencies = count_document_frequencies(references, base)
    metrics: dict[str, tuple] = {
        "BLEU-1..4": (
            Bleu(references),
            GROUPS["bleu"],
            lambda: ReferenceBleu(4).compute_score(truth, candidates, verbose=0),
        ),
        "ROUGE-L": (Rouge(references), ("rouge",), lambda: ReferenceRouge().compute_score(truth, candidates)),
        "CIDEr-D": (
            Cider(references, frequencies),
            ("cider",),
            lambda: ReferenceCider().compute_score(truth, candidates),
        ),
    }
    for name, (metric, terms, theirs) in metrics.items():
        report.log(name)
        total, each = map(np.ravel, theirs())  # of the corpus [terms]; of the images [terms * N]

        def compiled(size: int, metric: Callable = metric) -> Callable[[], np.ndarray]:
            images = tf.constant(np.arange(size) % count)
            batch, traced = tf.constant(ids[:size]), tf.function(metric)
            return lambda: traced(batch, images).numpy()

        def from_words(terms: tuple[str, ...] = terms) -> np.ndarray:
            return np.concatenate([np.ravel(list(scores.values())) for scores in score_tokens(*words, terms)])

        ours = compiled(count)
        difference = largest_difference(ours().T.ravel(), each)
        mine, other, ratio = in_pairs(ours, theirs, sizes.pairs, sizes.calls)
        report.add(f"{name}, pycocoevalcap", count / other, RATE)
        report.add(f"{name}, compiled, float32", count / mine, RATE, ratio, difference, SINGLE)
        for size in [count * times for times in sizes.growth[1:]]:
            larger = compiled(size)
            larger()  # traced
            report.add(f"{name}, compiled, {size:,} captions", size / median_seconds(larger, sizes.calls), RATE)
        mine, _, ratio = in_pairs(from_words, theirs, sizes.pairs)
        difference = largest_difference(from_words(), [*total, *each])
        report.add(f"{name}, from words, float64", count / mine, RATE, ratio, difference, EXACT)


def measure_tokenizer(report: Report, corpus: Corpus) -> None:
    """The tokenizer of this package, which needs no Java."""
    captions = [caption for of_image in corpus.raw for caption in of_image]
    seconds = median_seconds(lambda: [tokenize(caption) for caption in captions], 3)
    report.add("tokenizer, Python", len(captions) / seconds, RATE)


def measure_java(report: Report, corpus: Corpus, sizes: Sizes, corenlp: str) -> list[str]:
    """PTB's tokenizer, METEOR, SPICE; returns the reasons why some are skipped."""
    try:
        jvm = find_jvm()
    except UserError as error:
        return [str(error)]
    # pycocoevalcap runs the `java` on PATH, which must be the one that is used here.
    os.environ["PATH"] = f"{pathlib.Path(jvm.library).parents[2] / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    if shutil.which("java") is None:
        return [f"pycocoevalcap needs the program java, and {jvm.origin} has none"]
    measure_ptb(report, corpus, sizes)
    measure_meteor(report, corpus, sizes)
    try:
        # With --corenlp, so that it is not downloaded.
        folder = corenlp or str(metric_cache("") / FOLDER)
        jars = [*spice_jars(), *corenlp_jars(folder, "")]
    except UserError as error:
        return [str(error)]
    measure_spice(report, corpus, min(sizes.parsed, sizes.captions // 2), sizes.matched, folder, jars)
    return []


def measure_ptb(report: Report, corpus: Corpus, sizes: Sizes) -> None:
    """The evaluation's tokenizer, with a new JVM each time, and how often the one in Python agrees with it."""
    report.log("PTB tokenizer")
    captions = [caption for of_image in corpus.raw for caption in of_image]
    asked = {number: [{"caption": caption}] for number, caption in enumerate(captions)}

    def theirs() -> list[str]:
        return [lines[0] for lines in PTBTokenizer().tokenize(asked).values()]

    def ours() -> list[str]:
        return tokenize_with_java(captions)[0]

    mine, other, ratio = in_pairs(ours, theirs, sizes.pairs)
    words = ours()
    same = sum(a == b for a, b in zip(words, theirs(), strict=True))
    in_python = sum(" ".join(tokenize(caption)) == line for caption, line in zip(captions, words, strict=True))
    report.add("tokenizer, pycocoevalcap's PTB", len(captions) / other, RATE)
    report.add("tokenizer, PTB by a worker", len(captions) / mine, RATE, ratio, len(captions) - same, 0)
    report.add("tokenizer, Python agrees with PTB", in_python, f"of {len(captions):,}")


def measure_meteor(report: Report, corpus: Corpus, sizes: Sizes) -> None:
    """METEOR with the start of its JVM (cold) and without it (warm)."""
    report.log("METEOR, pycocoevalcap")
    count = min(sizes.meteor, len(corpus.references))
    captions, references = corpus.candidates(count), corpus.references[:count]
    truth, candidates = _as_dicts(corpus, captions)
    start, scorer = timed(lambda: _started(ReferenceMeteor()))
    first, (corpus_score, scores) = timed(lambda: scorer.compute_score(truth, candidates))
    true = [corpus_score, *scores]
    cold = count / (start + first)
    report.add("METEOR, pycocoevalcap's start", start, "s")
    report.add("METEOR, pycocoevalcap, cold", cold, RATE)
    for workers in WORKERS:
        report.log(f"METEOR, {plural(workers)}")
        with opened("meteor", workers) as meteor:

            def ours(meteor=meteor) -> tuple:
                return meteor.evaluate(captions, references)[:2]

            seconds, (total, each) = timed(ours)
            name = f"METEOR, {plural(workers)}"
            difference = largest_difference([total, *each], true)
            report.add(f"{name}, cold", count / seconds, RATE, count / seconds / cold, difference, EXACT)
            for _ in range(sizes.warming * workers):
                ours()
            mine, other, ratio = in_pairs(ours, lambda: scorer.compute_score(truth, candidates), sizes.pairs)
        if workers == WORKERS[0]:
            report.add("METEOR, pycocoevalcap, warm", count / other, RATE)
        report.add(f"{name}, warm", count / mine, RATE, ratio)


def _started(scorer: ReferenceMeteor) -> ReferenceMeteor:
    """Returns the scorer after its tables are loaded."""
    scorer.compute_score({0: ["a dog"]}, {0: ["a cat"]})
    return scorer


def _as_dicts(corpus: Corpus, captions: Sequence[str]) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """Returns references and captions in pycocoevalcap's format."""
    candidates = {image: [caption] for image, caption in enumerate(captions)}
    return {image: list(corpus.references[image]) for image in candidates}, candidates


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metrics", description=__doc__.split("\n")[0])
    parser.add_argument("--json", default="", help="JSON file for the results")
    parser.add_argument("--captions", type=positive, default=4096, help="captions per batch, one per image")
    parser.add_argument(
        "--references", default="", help=f"COCO captions file; default: in ${DATA}, else synthetic scenes"
    )
    parser.add_argument("--corenlp", default="", help="folder of CoreNLP's jars; default: in the metric cache")
    parser.add_argument("--java", action=argparse.BooleanOptionalAction, default=True, help="measure METEOR and SPICE")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to check that everything runs")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
