"""Moments of gradient estimates, and their results as a table and as horizontal bars in SVG."""

import dataclasses
import math
import statistics
from collections.abc import Sequence

import numpy as np

from benchmarks import aligned
from benchmarks.svg import drawing, rounded, text, ticks

WIDTH, LEFT, RIGHT = 880, 320, 816  # of the figure, and the ends of the axis, in pixels
TOP, PITCH, THICK = 62, 27, 17  # of the first bar, from bar to bar, of a bar
COLOURS = {False: "#3b6ea5", True: "#c77d2b"}  # by whether the estimator is biased


@dataclasses.dataclass(frozen=True)
class Result:
    """Measurements of an estimator; `variance`, its error and `ratio` are for exactly C captions."""

    name: str
    biased: bool
    images: int  # B
    scored: float  # mean number of captions per estimate
    variance: float
    standard_error: float  # of the variance
    ratio: float  # to the variance of the first estimator
    of_one_image: float  # variance with B = 1, for any number of captions
    squared_mean: float  # below 0 if noise exceeds the mean
    cosine: float | None  # None if noise exceeds the mean
    seconds: float

    @property
    def variance_seconds(self) -> float:
        """Variance times seconds: at equal times the variances of estimators are as these are."""
        return self.variance * self.seconds


class Moments:
    """Running mean and variance of vectors, in float64 (Welford 1962).

    The n-th vector, n > 1, adds (x - mean before)(x - mean after) to the sum of squares. The expectation of each of
    these terms is the variance. For normal vectors they are independent, so that their std gives the standard error of
    their mean.
    """

    def __init__(self):
        self.count = 0
        self.mean = np.zeros([], np.float64)  # [D] from the first vector on
        self._added: list[float] = []

    def add(self, vector: np.ndarray) -> None:
        """Adds a vector `[D]`."""
        before = vector - self.mean
        self.count += 1
        self.mean = self.mean + before / self.count
        if self.count > 1:
            self._added.append(float(before @ (vector - self.mean)))

    def variance(self) -> float:
        """Returns the sum of the coordinates' sample variances; needs two vectors."""
        return statistics.fmean(self._added)

    def standard_error(self) -> float:
        """Returns the standard error of the variance; needs three vectors."""
        return statistics.stdev(self._added) / math.sqrt(len(self._added))

    def noise(self) -> float:
        """Returns the expected part of the mean's squared norm that is noise."""
        return self.variance() / self.count

    def squared_mean(self) -> float:
        """Returns an unbiased estimate of the squared norm of the expectation."""
        return float(self.mean @ self.mean) - self.noise()


def results_of(
    names: Sequence[tuple[str, bool]],
    images: Sequence[int],
    moments: Sequence[Moments],
    costs: Sequence[Sequence[tuple[float, int]]],
    captions: int,
) -> list[Result]:
    """Returns a result for each of (name, biased).

    Args:
      images: B of each estimator.
      costs: (seconds, scored captions) of every estimate of each estimator.
      captions: C, to which the variances are scaled.
    """
    scored = [statistics.fmean(count for _, count in cost) for cost in costs]
    variances = [m.variance() * count / captions for m, count in zip(moments, scored, strict=True)]
    of_means = cosines(moments, [biased for _, biased in names])
    return [
        Result(
            name=name,
            biased=biased,
            images=images[i],
            scored=scored[i],
            variance=variances[i],
            standard_error=moments[i].standard_error() * scored[i] / captions,
            ratio=variances[i] / variances[0],
            of_one_image=moments[i].variance() * images[i],
            squared_mean=moments[i].squared_mean(),
            cosine=of_means[i],
            seconds=statistics.median(seconds for seconds, _ in costs[i]),
        )
        for i, (name, biased) in enumerate(names)
    ]


def cosines(moments: Sequence[Moments], biased: Sequence[bool]) -> list[float | None]:
    """Returns for each the cosine of its mean with the mean of the other unbiased ones, corrected for noise.

    For an unbiased estimator it is about 1, and may be above; None if noise exceeds the mean.
    """
    means, noise = np.stack([m.mean for m in moments]), np.array([m.noise() for m in moments])
    products = means @ means.T - np.diag(noise)  # unbiased, because different means are independent
    result: list[float | None] = []
    for i in range(len(moments)):
        weights = 1 / noise * ~np.array(biased)
        weights[i] = 0
        squares = products[i, i], weights @ products @ weights
        known = min(squares) > 0
        result.append(float(weights @ products[i] / math.sqrt(squares[0] * squares[1])) if known else None)
    return result


def table(results: Sequence[Result]) -> str:
    """Returns the results as text."""
    measured = ("variance", "s. e.", "ratio", "an image's", "|mean|^2", "cosine", "seconds", "variance x s")
    cells = [
        (
            row.name,
            f"{row.images}",
            f"{row.scored:.1f}",
            f"{row.variance:.4g}",
            f"{row.standard_error:.2g}",
            f"{row.ratio:.3f}",
            f"{row.of_one_image:.4g}",
            f"{row.squared_mean:.3g}",
            "-" if row.cosine is None else f"{row.cosine:.3f}",
            f"{row.seconds:.3f}",
            f"{row.variance_seconds:.4g}",
        )
        for row in results
    ]
    return aligned([("", "images", "captions", *measured), *cells])


def chart(results: Sequence[Result], captions: int) -> str:
    """Returns SVG: a bar for each variance relative to the first, on a logarithmic scale, with two standard errors."""
    errors = [2 * row.standard_error * row.ratio / row.variance for row in results]
    low = rounded(min(max(r.ratio - e, r.ratio / 2) for r, e in zip(results, errors, strict=True)), down=True)
    high = rounded(max(r.ratio + e for r, e in zip(results, errors, strict=True)), down=False)
    bottom = TOP + PITCH * len(results)
    title = f"Variance of the policy gradient's estimate from {captions:,} scored captions"
    label = f"{results[0].name} = 1, logarithmic scale; whiskers: ± 2 standard errors"

    def across(value: float) -> float:
        return LEFT + (RIGHT - LEFT) * math.log(max(value, low) / low) / math.log(high / low)

    parts = [text(16, 28, title, "start", 'font-size="16" font-weight="600"')]
    for tick in ticks(low, high):
        parts.append(f'<path d="M{across(tick):.1f} {TOP - 8}V{bottom}" stroke="#dcdfe4"/>')
        parts.append(text(across(tick), bottom + 17, f"{tick:g}", "middle", 'fill="#555"'))
    for i, (row, error) in enumerate(zip(results, errors, strict=True)):
        parts += _bar(row, TOP + i * PITCH, across, error)
    parts.append(f'<path d="M{LEFT} {TOP - 8}V{bottom}" stroke="#555"/>')
    parts.append(text((LEFT + RIGHT) / 2, bottom + 40, label, "middle", 'fill="#555"'))
    return drawing(WIDTH, bottom + 54, title, parts)


def _bar(row: Result, top: float, across, error: float) -> list[str]:
    """The name, the bar, the whisker and the value of a result."""
    middle, end = top + THICK / 2, across(row.ratio)
    low, high = across(row.ratio - error), across(row.ratio + error)
    decimals = max(0, 1 - math.floor(math.log10(row.ratio)))  # two significant digits
    whisker = f"M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8M{high:.1f} {middle - 4}v8"
    return [
        text(LEFT - 8, middle + 4.5, row.name, "end"),
        f'<rect x="{LEFT}" y="{top}" width="{end - LEFT:.1f}" height="{THICK}" fill="{COLOURS[row.biased]}"/>',
        f'<path d="{whisker}" stroke="#1c1f24"/>',
        text(high + 7, middle + 4.5, f"{row.ratio:.{decimals}f}", "start"),
    ]
