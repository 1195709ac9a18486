"""The tokenizer of the COCO caption evaluation, in a Java worker."""

from collections.abc import Sequence

from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

from spidercap.pipeline.metrics.java.pool import pool_of
from spidercap.pipeline.metrics.java.runtime import find_jvm, ptb_jar
from spidercap.pipeline.text.one_line import one_line

TIMEOUT = 1800.0  # seconds for a whole file of captions; a million take about five minutes


def tokenize_with_java(*collections: Sequence[str]) -> list[list[str]]:
    """Returns each collection of captions as tokenised by the COCO caption evaluation, words separated by a space.

    A collection is tokenised as a whole, as there, because the first word of the next caption may decide whether a
    letter keeps its dot.

    Raises:
      UserError: there is no Java.
    """
    items = [[one_line(caption) for caption in captions] for captions in collections]
    with pool_of("tokenizer", find_jvm(), [ptb_jar()], 1, TIMEOUT) as pool:
        answers = pool.map(items, names=["the file's captions"] * len(items), chunk=1)
    return [
        [" ".join(word for word in line.rstrip().split(" ") if word not in PUNCTUATIONS) for line in lines]
        for lines in answers
    ]
