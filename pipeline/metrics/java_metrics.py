"""The metrics on text, and the tokenizer that Java computes: checked at the door, closed without a trace."""

import contextlib
import dataclasses
import sys
from collections.abc import Collection, Iterator, Sequence

from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.metrics.java.corenlp import corenlp_jars, metric_cache
from spidercap.pipeline.metrics.java.pool import Pool, Service
from spidercap.pipeline.metrics.java.runtime import find_jvm, meteor_jar, ptb_jar, spice_jars
from spidercap.pipeline.metrics.meteor import Meteor
from spidercap.pipeline.metrics.registry import JAVA_TERMS
from spidercap.pipeline.metrics.spice import Spice
from spidercap.pipeline.metrics.spice_fast.metric import TextSpiceFast
from spidercap.pipeline.metrics.spice_fast.parser import load_parser
from spidercap.pipeline.metrics.tuple_store import TupleStore
from spidercap.pipeline.text.one_line import one_line

# Heap of a JVM, measured on the longest captions that are sent; METEOR's is filled by its tables.
HEAPS = {"tokenizer": "1g", "meteor": "1500m", "spice_parser": "2500m", "spice_matcher": "1500m"}
TOKENIZED_TIMEOUT = 1800.0  # seconds for a whole file of captions; a million take about five minutes


@dataclasses.dataclass(frozen=True)
class TextMetrics:
    """What was asked for; None for what was not."""

    meteor: Meteor | None = None
    spice: Spice | None = None
    spice_fast: TextSpiceFast | None = None


@contextlib.contextmanager
def open_text_metrics(
    terms: Collection[str],
    *,
    metric_workers: int,
    metric_timeout: float,
    metric_cache_dir: str,
    corenlp: str,
) -> Iterator[TextMetrics]:
    """Yields METEOR, SPICE and SPICE-fast as far as `terms` ask for them; workers end with the block.

    Args:
      metric_workers: processes for each of METEOR, SPICE's parser and SPICE's comparison.
      metric_timeout: seconds that a worker may take for one caption before it is replaced.
      metric_cache_dir: folder for CoreNLP and parsed captions; '' for the default one.
      corenlp: folder with CoreNLP's two jars; '' to have them downloaded.

    Raises:
      UserError: no Java, or CoreNLP cannot be had.
    """
    if set(JAVA_TERMS).intersection(terms):
        jvm = find_jvm()  # before a download
        if jvm.passed_over:
            print(f"Java {jvm.version} of {jvm.origin} is used; {', '.join(jvm.passed_over)}", file=sys.stderr)
    with contextlib.ExitStack() as stack:

        def pool(name: str, *jars: object) -> Pool:
            service = Service(name, jvm.library, jvm.version, tuple(map(str, jars)), HEAPS[name])
            return stack.enter_context(Pool(service, metric_workers, metric_timeout))

        meteor = Meteor(pool("meteor", meteor_jar())) if "meteor" in terms else None
        spice = None
        if "spice" in terms:
            jars = [*spice_jars(), *corenlp_jars(corenlp, metric_cache_dir)]
            store = stack.enter_context(contextlib.closing(TupleStore(metric_cache(metric_cache_dir))))
            spice = Spice(pool("spice_parser", *jars), pool("spice_matcher", *jars), store)
        fast = TextSpiceFast(load_parser()) if "spice_fast" in terms else None
        yield TextMetrics(meteor, spice, fast)


def tokenize_with_java(*collections: Sequence[str]) -> list[list[str]]:
    """Returns each collection of captions as the COCO caption evaluation's tokenizer has them, words split by a space.

    A collection is tokenised as a whole, as there: the next caption's first word may decide whether a letter keeps its
    dot.

    Raises:
      UserError: no Java.
    """
    jvm = find_jvm()
    service = Service("tokenizer", jvm.library, jvm.version, (str(ptb_jar()),), HEAPS["tokenizer"])
    items = [[one_line(caption) for caption in captions] for captions in collections]
    with Pool(service, 1, TOKENIZED_TIMEOUT) as pool:
        answers = pool.map(items, names=["the file's captions"] * len(items), chunk=1)
    return [
        [" ".join(word for word in line.rstrip().split(" ") if word not in PUNCTUATIONS) for line in lines]
        for lines in answers
    ]


def java_found() -> bool:
    """Returns whether there is a Java that can be used."""
    try:
        find_jvm()
    except UserError:
        return False
    return True
