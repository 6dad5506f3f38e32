"""What a ladder of known resistors says of a board's converters: the DAC's level at each code, the
ADC's curve, both with widths.

Reading of resistor j at level k, in full scales of its range: a(D_k / R_j / range), where D_k are
the DAC's true levels and a is the ADC's curve, straight between its points. All are unknown, the
resistors within what is known of them. D and a are only known up to one common scale (twice the
volts and half the gain read the same), which readings of a voltmeter fix; without them the DAC's
gain counts as right and the ADC's is that of both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rram_hil.types import FloatArray

from .gum import Fit, refuse_contradictions, solve

_ROUNDS = 5
_FIXED = 1e-9
_EDGE = 0.06
"""Readings this near to the end of a range may be of either range."""


@dataclass(frozen=True, eq=False)
class Seen:
    """Ladder of J resistors read at K levels: `volts` (K,), `ohm` and its standard uncertainty
    (J,), mean of the readings and variance of it from the scatter (A), shape (J, K), the scatter's
    degrees of freedom.
    """

    volts: FloatArray
    ohm: FloatArray
    ohm_u: FloatArray
    amps: FloatArray
    noise: FloatArray
    freedom: float


@dataclass(frozen=True, eq=False)
class Curve:
    """A best straight line and the deviations from it: offset, gain error, deviations at `at`, each
    with half-widths.
    """

    offset: tuple[float, float]
    gain: tuple[float, float]
    at: FloatArray
    inl: tuple[FloatArray, FloatArray]


def straight(at: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weights from values at `at` (n,) to offset and slope of their best line, (2, n), and to
    deviations from it, (n, n).
    """
    basis = np.column_stack((np.ones(at.size), at))
    line = np.asarray(np.linalg.pinv(basis), dtype=np.float64)
    return line, np.eye(at.size) - basis @ line


def fit_converters(
    seen: Seen,
    ranges: FloatArray,
    step: float,
    points: int,
    meter: tuple[FloatArray, FloatArray, FloatArray] | None,
) -> tuple[Curve, Curve]:
    """Curves of the DAC and of the ADC. `step` is the ADC's, in full scales; `points` are those of
    the ADC's curve.

    `meter` are levels asked (V), what a voltmeter read there (V), and its standard uncertainties.
    Raises `ConfigError` where the ladder does not tell all of it.
    """
    k_of = np.broadcast_to(np.arange(seen.volts.size), seen.amps.shape)
    j_of = np.broadcast_to(np.arange(seen.ohm.size)[:, None], seen.amps.shape)
    told = np.abs(seen.amps)
    place = np.minimum(np.searchsorted(ranges, told * (1 - 1e-9)), ranges.size - 1)
    scale = ranges[place]
    below = np.where(place > 0, ranges[np.maximum(place - 1, 0)], 0.0)
    good = np.isfinite(seen.amps) & (told < (1 - _EDGE) * scale) & (told > (1 + _EDGE) * below)
    k, j, scale, y = k_of[good], j_of[good], scale[good], seen.amps[good] / scale[good]
    variance = step**2 / 12 + seen.noise[good] / scale**2
    nodes = np.linspace(float(y.min()), float(y.max()), points)
    levels, count = seen.volts.size, seen.ohm.size
    true, curve, wrong = seen.volts.copy(), nodes.copy(), np.zeros(count)
    line, _ = straight(seen.volts)
    rows, targets, spreads = _scale_rows(line[1], levels, seen.volts, meter)
    spread = np.concatenate(
        (np.full(levels + points, np.inf), np.maximum(seen.ohm_u / seen.ohm, 1e-12))
    )
    names = {levels + points + i: f"the one of {ohm:g} ohm" for i, ohm in enumerate(seen.ohm)}
    fit = Fit(np.zeros(0), np.zeros((0, 0)), np.inf)
    for _ in range(_ROUNDS):
        x = true[k] / (seen.ohm[j] * scale) * (1 - wrong[j])
        at = np.clip(np.searchsorted(nodes, x) - 1, 0, points - 2)
        part = (x - nodes[at]) / (nodes[at + 1] - nodes[at])
        slope = (curve[at + 1] - curve[at]) / (nodes[at + 1] - nodes[at])
        n = np.arange(y.size)
        design = np.zeros((y.size, levels + points + count))
        design[n, k] = slope / (seen.ohm[j] * scale)
        design[n, levels + at] = 1 - part
        design[n, levels + at + 1] = part
        design[n, levels + points + j] = -slope * x
        # Around the present estimate: the model is a product of unknowns.
        now = np.concatenate((true, curve, wrong))
        predicted = (1 - part) * curve[at] + part * curve[at + 1]
        around = y - predicted + design @ now
        full = np.vstack((design, np.hstack((rows, np.zeros((len(rows), points + count))))))
        fit = solve(
            full, np.append(around, targets), np.append(variance, spreads**2), spread, seen.freedom
        )
        # At once: from references that do not go together the rounds would run away.
        refuse_contradictions(fit, spread, names, "is each what is said, and connected?")
        true, curve, wrong = np.split(fit.found, (levels, levels + points))
    return _curve(fit, seen.volts, 0), _curve(fit, nodes, levels)


def _scale_rows(
    slope: FloatArray,
    levels: int,
    volts: FloatArray,
    meter: tuple[FloatArray, FloatArray, FloatArray] | None,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """What fixes the common scale: voltmeter readings, or that the DAC's slope is 1."""
    if meter is None:
        return slope[None, :], np.ones(1), np.array([_FIXED])
    asked, read, sure = meter
    at = np.clip(np.searchsorted(volts, asked) - 1, 0, levels - 2)
    part = (asked - volts[at]) / (volts[at + 1] - volts[at])
    rows = np.zeros((asked.size, levels))
    rows[np.arange(asked.size), at] = 1 - part
    rows[np.arange(asked.size), at + 1] = part
    return rows, read, sure


def _curve(fit: Fit, at: FloatArray, first: int) -> Curve:
    line, rest = straight(at)
    weights = np.zeros((2 + at.size, fit.found.size))
    weights[:2, first : first + at.size] = line
    weights[2:, first : first + at.size] = rest
    values, widths = fit.of(weights)
    return Curve(
        (float(values[0]), float(widths[0])),
        (float(values[1] - 1), float(widths[1])),
        at,
        (values[2:], widths[2:]),
    )
