"""Compiled metrics on token ids: their interface, and how rewards and evaluation build them."""

import dataclasses
import pathlib
import pkgutil
from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np
import tensorflow as tf

from spidercap.pipeline.metrics.document_frequencies import DocumentFrequencies
from spidercap.pipeline.metrics.references import References
from spidercap.pipeline.metrics.registry import METRICS, ordered
from spidercap.pipeline.metrics.size_classes import by_class
from spidercap.pipeline.text.vocabulary import Vocabulary

# (captions int [N, T], padded, image_index [N]) -> [N, width]
Statistics = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
# (captions int [N, T], image_index [N]) -> [N] of each term
CompiledScores = Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class ReferenceTexts:
    """The references as text, without end tokens."""

    vocabulary: Vocabulary
    references: Sequence[Sequence[str]]  # [I][R], words separated by one space
    image_ids: Sequence[int | str] | None = None  # [I], of the data set; default: row numbers


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The inputs from which a compiled metric may be built."""

    references: References
    frequencies: Callable[[], DocumentFrequencies]  # a function, because counting takes time
    dtype: tf.DType  # of the scores
    texts: ReferenceTexts | None = None  # for rewards, where token ids are those of a vocabulary
    cache: pathlib.Path | None = None  # folder for what takes long to make


def means(statistics: np.ndarray) -> Sequence[float]:
    """Returns the means over captions `[width]` of `[N, width]`; 0 without captions."""
    return [column.mean() if len(column) else 0.0 for column in statistics.T]


@dataclasses.dataclass(frozen=True)
class Family:
    """Metrics of one computation, such as BLEU-1 to BLEU-4 from one matching of n-grams."""

    terms: tuple[str, ...]
    width: int  # statistics per caption
    build: Callable[[Inputs], Statistics]
    images: Callable = lambda statistics: statistics  # [N, width] -> each caption's scores [N, terms]
    corpus: Callable[[np.ndarray], Sequence[float]] = means  # [N, width] -> the corpus's scores [terms]
    from_texts: bool = False  # it reads the texts alone, so it is built once for all size classes of references


def family_of_one(
    term: str, build: Callable[[Inputs], Callable[[tf.Tensor, tf.Tensor], tf.Tensor]], from_texts: bool = False
) -> Family:
    """Returns the family of one metric, (captions, image_index) -> `[N]`, whose corpus score is the mean."""

    def statistics(inputs: Inputs) -> Statistics:
        metric = build(inputs)
        return lambda captions, image_index: tf.expand_dims(metric(captions, image_index), 1)

    return Family((term,), 1, statistics, from_texts=from_texts)


def families(terms: Collection[str]) -> list[Family]:
    """Returns the families of the compiled metrics among `terms`, each once."""
    names = dict.fromkeys(METRICS[term].compiled for term in ordered(terms))
    return [pkgutil.resolve_name(name) for name in names if name]


def compiled_scores(terms: Iterable[str], inputs: Sequence[tuple[np.ndarray, Inputs]]) -> CompiledScores:
    """Returns a function, to be traced, that computes the compiled metrics `terms` of captions.

    Args:
      terms: compiled metrics.
      inputs: for each size class of references, the images int `[n]` and what their metrics are built from.
    """
    terms = tuple(terms)
    # Those from texts first: they need the most memory while they are made, so nothing else should be there yet.
    in_order = sorted(families(terms), key=lambda family: not family.from_texts)
    built = [(family, _statistics(family, inputs)) for family in in_order]

    def scores(captions: tf.Tensor, image_index: tf.Tensor) -> dict[str, tf.Tensor]:
        found: dict[str, tf.Tensor] = {}
        for family, statistics in built:
            each = family.images(statistics(captions, image_index))
            found |= zip(family.terms, tf.unstack(each, len(family.terms), axis=1), strict=True)
        return {term: found[term] for term in terms}

    return scores


def _statistics(family: Family, inputs: Sequence[tuple[np.ndarray, Inputs]]) -> Statistics:
    if family.from_texts:
        return family.build(inputs[0][1])
    return by_class([(images, family.build(of_class)) for images, of_class in inputs], family.width, inputs[0][1].dtype)
