"""Correlation of scores `[N]` and `[N]`."""

import itertools

import numpy as np


def pearson(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the linear correlation; NaN if one is constant."""
    return float(np.corrcoef(one, other)[0, 1]) if one.std() and other.std() else float("nan")


def kendall_b(one: np.ndarray, other: np.ndarray) -> float:
    """Returns Kendall's tau-b; NaN if one is constant.

    Source: Kendall, "The treatment of ties in ranking problems" (1945).
    """
    agree = untied_one = untied_other = 0.0
    for k in range(1, len(one)):  # one row of all pairs at a time
        a, b = np.sign(one[k] - one[:k]), np.sign(other[k] - other[:k])
        agree += float(a @ b)
        untied_one += float(np.abs(a).sum())
        untied_other += float(np.abs(b).sum())
    scale = (untied_one * untied_other) ** 0.5
    return agree / scale if scale else float("nan")


def kendall_c(one: np.ndarray, other: np.ndarray) -> float:
    """Returns tau-c, which is meant for scores of which one has few values, such as ratings; NaN if one is constant.

    Source: Stuart, "The estimation and comparison of strengths of association in contingency tables" (1953).
    """
    fewer, more = sorted((one, other), key=lambda scores: len(np.unique(scores)))
    values = np.unique(fewer)
    if len(values) < 2:
        return float("nan")
    agree = 0
    for low, high in itertools.combinations([np.sort(more[fewer == value]) for value in values], 2):
        smaller, no_larger = (int(np.searchsorted(low, high, side).sum()) for side in ("left", "right"))
        agree += smaller - (len(low) * len(high) - no_larger)
    return 2 * len(values) * agree / (len(one) ** 2 * (len(values) - 1))
