"""Agreement of the parser's tuples with those of SPICE."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from spidercap.pipeline.metrics.spice_fast.scene_graph import Tuples

KINDS = ("objects", "attributes", "relations")  # tuples of one, two and three strings


class TupleScore(NamedTuple):
    """F1 of tuples, micro-averaged over captions."""

    f1: float
    objects: float
    attributes: float
    relations: float
    same: float  # share of captions all of whose tuples agree

    @classmethod
    def of(cls, predicted: Sequence[Tuples], true: Sequence[Tuples]) -> "TupleScore":
        """Returns the agreement of predicted tuples of captions with true ones; repetitions count once."""
        pairs = [({tuple(one) for one in a}, {tuple(one) for one in b}) for a, b in zip(predicted, true, strict=True)]
        same = float(np.mean([a == b for a, b in pairs])) if pairs else 1.0
        return cls(_f1(pairs), *(_f1([(_of(a, k), _of(b, k)) for a, b in pairs]) for k in (1, 2, 3)), same)

    def numbers(self) -> dict[str, float]:
        """Returns the scores by name, as in the benchmark."""
        return {"tuple_f1": self.f1, **dict(zip(KINDS, self[1:4], strict=True)), "same": self.same}

    def __str__(self) -> str:
        kinds = ", ".join(f"{name} {value:.3f}" for name, value in zip(KINDS, self[1:4], strict=True))
        return f"tuple F1 {self.f1:.4f} ({kinds}; whole captions {self.same:.3f})"


def _of(tuples: Iterable[tuple[str, ...]], size: int) -> set[tuple[str, ...]]:
    return {one for one in tuples if len(one) == size}


def _f1(pairs: Sequence[tuple[set, set]]) -> float:
    total = sum(len(a) + len(b) for a, b in pairs)
    return 2 * sum(len(a & b) for a, b in pairs) / total if total else 1.0
