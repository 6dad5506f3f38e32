"""Uncertainty as the GUM has it: least squares in which the references' own errors are unknowns
with a known spread.

What a converter rounds away is uniform over a step: variance step^2 / 12. A reference given with a
95 % half-width U has the standard uncertainty U / 1.96. Half-widths that come out are Student's
factor times the standard uncertainty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from rram_hil.errors import ConfigError
from rram_hil.types import FloatArray

NORMAL = 1.959964
"""95 % of a normal distribution lie within this many standard deviations."""
_TIGHT = 1e-12
MOST_PULL = 6.0
"""A reference further off than so many standard uncertainties is not what was said."""
MOST_BEND = 0.02
"""No converter that is good for measuring bends more, as a part of its span."""


@dataclass(frozen=True, eq=False)
class Fit:
    """Estimates of p unknowns, their covariance (p, p), and Student's degrees of freedom."""

    found: FloatArray
    covariance: FloatArray
    freedom: float

    @property
    def factor(self) -> float:
        """Half-width of a 95 % interval in standard uncertainties."""
        return NORMAL if np.isinf(self.freedom) else float(stdtrit(max(self.freedom, 1.0), 0.975))

    def of(self, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Linear functions of the unknowns, weights of shape (k, p): their values and half-widths,
        shape (k,).
        """
        variance = np.einsum("ij,jk,ik->i", weights, self.covariance, weights)
        return weights @ self.found, self.factor * np.sqrt(np.maximum(variance, 0.0))


def solve(
    design: FloatArray,
    seen: FloatArray,
    variance: FloatArray,
    spread: FloatArray | None = None,
    freedom: float = np.inf,
) -> Fit:
    """Weighted least squares of `seen` (n,) = `design` (n, p) @ unknowns.

    `variance` (n,) is that of each observation; `spread` (p,) the standard deviation that an
    unknown is known to have about 0, infinite for one that is not known at all. Raises
    `ConfigError` where the observations do not tell all unknowns.
    """
    weight = 1 / np.sqrt(
        np.maximum(variance, _TIGHT**2 * max(float(np.max(np.abs(seen), initial=0.0)), 1e-300) ** 2)
    )
    a, b = design * weight[:, None], seen * weight
    if spread is not None:
        known = np.isfinite(spread)
        sure = np.diag(1 / np.maximum(spread[known], 1e-15))
        rows = np.zeros((int(known.sum()), design.shape[1]))
        rows[:, known] = sure
        a, b = np.vstack((a, rows)), np.append(b, np.zeros(len(rows)))
    scale = np.linalg.norm(a, axis=0)
    if not (scale > 0).all():
        raise ConfigError(
            "the readings do not tell all that is asked: give more references, positions or levels"
        )
    # QR first: the small triangle is what needs the expensive look.
    q, r = np.linalg.qr(a / scale)
    if np.linalg.cond(r) > 1e9:
        raise ConfigError(
            "the readings do not tell all that is asked: give more references, positions or levels"
        )
    inverse = np.linalg.inv(r) / scale[:, None]
    return Fit(inverse @ (q.T @ b), inverse @ inverse.T, freedom)


def refuse_contradictions(
    fit: Fit, spread: FloatArray, names: Mapping[int, str], advice: str
) -> None:
    """The goodness of a fit, by what it needs of the references: none may have to be further from
    what is stated of it than `MOST_PULL` standard uncertainties.

    `names` says which unknowns are errors of references, and what these are. Raises `ConfigError`
    naming the one that is furthest off.
    """
    at = np.array(list(names), dtype=np.int64)
    if at.size == 0:
        return
    pulls = np.abs(fit.found[at]) / spread[at]
    worst = int(np.argmax(pulls))
    if not pulls[worst] <= MOST_PULL:
        raise ConfigError(
            f"the references contradict each other: {names[int(at[worst])]} would have to be"
            f" {pulls[worst]:.3g} standard uncertainties off its value (at most {MOST_PULL:g});"
            f" {advice}"
        )


def refuse_bent(seen: FloatArray, fitted: FloatArray, most: float, name: str) -> None:
    """Refuse a straight line that its points do not follow: by more than `MOST_BEND` of `most`
    (rms). Raises `ConfigError` naming the reference.
    """
    off = float(np.sqrt(np.mean(np.square(seen - fitted))))
    if not off <= MOST_BEND * most:
        raise ConfigError(
            f"{name} does not give a straight line: its points lie {off:.3g} off it, of {most:.3g}"
            f" at most (allowed {MOST_BEND:g} of that); is it what is connected?"
        )


def mean_of(readings: FloatArray) -> tuple[FloatArray, FloatArray, int]:
    """Over the last axis: mean, variance of the mean from the scatter, and degrees of freedom of
    that; NaN are left out.
    """
    there = np.isfinite(readings)
    count = there.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(there, readings, 0.0).sum(axis=-1) / count
        square = np.where(there, (readings - mean[..., None]) ** 2, 0.0).sum(axis=-1)
        variance = np.where(count > 1, square / np.maximum(count - 1, 1) / count, np.inf)
    return mean, variance, int(np.maximum(count - 1, 0).sum())


def rounding_variance(readings: FloatArray) -> float:
    """Variance of what an instrument's digits leave out of readings, repeats along the last axis; 0
    where their scatter is wider.

    The digit is the largest power of ten of which all readings are whole multiples.
    """
    known = readings[np.isfinite(readings)]
    top = float(np.max(np.abs(known), initial=0.0))
    if top == 0.0:
        return 0.0
    digit = 0.0
    for power in range(int(np.floor(np.log10(top))), int(np.floor(np.log10(top))) - 8, -1):
        digit = 10.0**power
        if np.all(np.abs(known / digit - np.rint(known / digit)) < 1e-3):
            break
    scatter = np.sqrt(float(np.nanmean(np.nanvar(readings, axis=-1))))
    return digit**2 / 12 if scatter < digit / 2 else 0.0


def freedom_of(noise: FloatArray, other: FloatArray, freedom: int) -> float:
    """Effective degrees of freedom (Welch-Satterthwaite) where the variance `noise` was estimated
    and `other` is known.
    """
    share = float(np.sum(noise) / max(float(np.sum(noise) + np.sum(other)), 1e-300))
    return np.inf if share == 0 or freedom == 0 else freedom / share**2
