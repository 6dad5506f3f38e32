"""Derived figures with their uncertainty: what a characterisation says of a chip, and how sure it
is.

Every uncertainty here is the half width of a 95 % interval. Cells are taken as independent samples
of the chip: a bootstrap draws cells, never readings. The half width is the bootstrap's standard
deviation times Student's factor for the number of cells, so that few cells do not pretend to know
more than they do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rram_hil.types import FloatArray, IntArray

DRAWS = 200
"""Bootstrap resamples: the half width itself is then known to about 5 %."""
LEVEL = 0.95
UNCERTAINTY = "uncertainty_95"
"""Attribute of a saved figure that holds its half width."""

_NORMAL = 1.959964
"""Standard deviations of a normal distribution that hold `LEVEL` of it on both sides together."""

Estimator = Callable[[FloatArray], FloatArray]
"""From samples, cells along the first axis, to one number or one a column. NaN samples are for it
to leave out.
"""


@dataclass(frozen=True)
class Figure:
    """A derived number, the half width of its 95 % interval (NaN where it cannot be told) and its
    unit ("" for none).
    """

    value: float
    uncertainty: float
    unit: str = ""

    def covers(self, truth: float) -> bool:
        """Whether `truth` lies within the interval; False for NaN."""
        return bool(abs(self.value - truth) <= self.uncertainty)

    def widened(self, by: float) -> Figure:
        """The same figure with another, independent half width added in squares, as that of a
        finite step.
        """
        return Figure(self.value, math.hypot(self.uncertainty, by), self.unit)


def half_width(estimator: Estimator, samples: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Half width of the 95 % interval of `estimator(samples)`, by resampling the first axis; NaN
    for fewer than 3 samples.
    """
    n = samples.shape[0]
    here = np.asarray(estimator(samples), dtype=np.float64)
    if n < 3:
        return np.full(here.shape, np.nan)
    drawn = np.stack(
        [
            np.asarray(estimator(samples[rng.integers(0, n, n)]), dtype=np.float64)
            for _ in range(DRAWS)
        ]
    )
    from scipy.special import stdtrit

    factor = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * math.sqrt(n / (n - 1))
    known = np.isfinite(drawn)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, drawn, 0.0).sum(axis=0) / count
    variance = np.where(known, (drawn - mean) ** 2, 0.0).sum(axis=0) / np.maximum(count - 1, 1)
    return np.asarray(np.where(known.sum(axis=0) >= DRAWS // 2, factor * np.sqrt(variance), np.nan))


def estimated(
    estimator: Estimator, samples: FloatArray, unit: str, rng: np.random.Generator
) -> Figure:
    """One figure of samples whose first axis runs over cells; NaN where there is none."""
    if samples.shape[0] == 0:
        return Figure(math.nan, math.nan, unit)
    return Figure(float(estimator(samples)), float(half_width(estimator, samples, rng)), unit)


def median(samples: FloatArray) -> FloatArray:
    """Median over the first axis of the numbers among the samples; NaN where there is none."""
    return _quantile(samples, 0.5)


def _quantile(samples: FloatArray, share: float) -> FloatArray:
    """As `np.nanquantile` over the first axis, without its warnings and its slowness on many
    columns.
    """
    ordered = np.sort(samples, axis=0)  # NaN comes last
    count = np.isfinite(ordered).sum(axis=0)
    place = np.maximum(count - 1, 0) * share
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, np.maximum(count - 1, 0))
    a = np.take_along_axis(ordered, low[None], axis=0)[0]
    b = np.take_along_axis(ordered, high[None], axis=0)[0]
    return np.asarray(np.where(count > 0, a + (b - a) * (place - low), np.nan))


def quantiles(
    samples: FloatArray, shares: tuple[float, ...] = (0.16, 0.5, 0.84)
) -> tuple[FloatArray, ...]:
    """Quantiles over the first axis of the numbers among the samples; by default median and the
    one-sigma band.
    """
    return tuple(_quantile(samples, share) for share in shares)


def mean(samples: FloatArray) -> FloatArray:
    """Mean over the first axis of the numbers among the samples; NaN where there is none."""
    known = np.isfinite(samples)
    count = known.sum(axis=0)
    total = np.where(known, samples, 0.0).sum(axis=0)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def spread(samples: FloatArray) -> FloatArray:
    """Standard deviation over the first axis of the numbers among the samples; NaN for fewer than
    two.
    """
    known = np.isfinite(samples)
    count = known.sum(axis=0)
    squares = np.where(known, (samples - mean(samples)) ** 2, 0.0).sum(axis=0)
    return np.asarray(np.where(count > 1, np.sqrt(squares / np.maximum(count - 1, 1)), np.nan))


def robust_spread(samples: FloatArray) -> FloatArray:
    """Standard deviation as the median absolute deviation tells it (x 1.4826): heavy tails do not
    count.
    """
    return np.asarray(1.4826 * median(np.abs(samples - median(samples))))


def between(samples: FloatArray) -> FloatArray:
    """Standard deviation between cells of samples (cells, repeats, ...), what repeats of one cell
    scatter taken off.

    The repeats of a cell share its value and scatter about it; the variance of cell means holds
    1/repeats of that scatter. Values along further axes are pooled (root mean square).
    """
    count = np.isfinite(samples).sum(axis=1)
    # Cells with one repeat tell nothing of its scatter, but hold it like the others.
    share = mean(np.divide(1.0, count, out=np.full(count.shape, np.nan), where=count > 0))
    left = np.square(spread(mean(np.moveaxis(samples, 1, 0)))) - share * np.nan_to_num(
        mean(_variance(samples, 1))
    )
    return np.asarray(np.sqrt(np.maximum(_pooled(left), 0.0)))


def within(samples: FloatArray) -> FloatArray:
    """Standard deviation of repeats of one cell in samples (cells, repeats, ...), pooled over cells
    and further axes.
    """
    return np.asarray(np.sqrt(_pooled(mean(_variance(samples, 1)))))


def _variance(samples: FloatArray, axis: int) -> FloatArray:
    return np.asarray(np.square(spread(np.moveaxis(samples, axis, 0))))


def _pooled(variance: FloatArray) -> FloatArray:
    return variance if variance.ndim == 0 else mean(variance.ravel())


def proportion(count: int, of: int) -> Figure:
    """A share of cells; its half width reaches the further end of the Wilson interval, so that 0 of
    n is not known for sure.
    """
    if of == 0:
        return Figure(math.nan, math.nan)
    p, (low, high) = count / of, wilson(np.asarray(float(count)), of)
    return Figure(p, max(float(high) - p, p - float(low)))


def wilson(counts: FloatArray, of: int | IntArray) -> tuple[FloatArray, FloatArray]:
    """The ends of the Wilson interval (95 %) of shares `counts / of`, for `of` above 0."""
    p, z = counts / of, _NORMAL
    centre = (p + z * z / (2 * of)) / (1 + z * z / of)
    reach = z * np.sqrt(p * (1 - p) / of + z * z / (4 * of * of)) / (1 + z * z / of)
    # Rounding could put an end beyond the share, and so beyond 0 or 1.
    return np.clip(centre - reach, 0.0, p), np.clip(centre + reach, p, 1.0)


def slope(x: FloatArray, y: FloatArray) -> FloatArray:
    """Least-squares slope of `y` (n, m) along the last axis against `x` (m,), one a row; points
    that are NaN are left out.
    """
    known = np.isfinite(y)
    count = np.maximum(known.sum(axis=-1), 1)
    xs = np.where(known, x, 0.0)
    ys = np.where(known, y, 0.0)
    dx = np.where(known, x - (xs.sum(axis=-1) / count)[..., None], 0.0)
    square = np.square(dx).sum(axis=-1)
    rise = (dx * ys).sum(axis=-1)
    return np.asarray(np.divide(rise, square, out=np.full(square.shape, np.nan), where=square > 0))
