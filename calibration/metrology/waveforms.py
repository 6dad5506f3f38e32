"""Figures of single pulses from their records: level, width, edges, overshoot, in a batch.

The width counts between the crossings of half the amplitude, edges from 10 % to 90 % of it,
overshoot from the level at the flat top, undershoot from rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from rram_hil.errors import ConfigError
from rram_hil.types import FloatArray, IntArray

from .gum import NORMAL, mean_of

REST = 0.6
"""The part of the record before the edge, from its beginning, that is taken for rest."""
FLAT = (0.6, 0.85)
"""Where in a pulse its flat top is looked for."""
PEAK = 0.25
"""A parabola through this part of a rise on either side of the highest sample tells the peak."""
SLOWEST = 0.5
"""A scope whose own rise is a larger part of what it shows says too little of the edge."""
COARSEST = 0.15
"""Samples further apart than this part of the rise do not show the edge."""


@dataclass(frozen=True)
class Seen:
    """Through what records were taken: standard deviation of what one step of the converter hides
    (V), half-widths of volts (a part of them) and of times (a part of them), the scope's own rise.
    """

    digit_v: float
    gain_fraction: float
    time_fraction: float
    rise_s: float


@dataclass(frozen=True, eq=False)
class PulseShapes:
    """Of m pulses, shape (m,) each, volts in the direction of the pulse, from rest. `noise_v` is
    the scatter of samples at rest, `ripple_v2` by how much the variance of the flat top is larger
    (V^2), `samples` how many of them tell a peak.
    """

    amplitude_v: FloatArray
    width_s: FloatArray
    rise_s: FloatArray
    fall_s: FloatArray
    overshoot_v: FloatArray
    undershoot_v: FloatArray
    noise_v: FloatArray
    ripple_v2: FloatArray
    samples: FloatArray


def pulse_shapes(
    volts: FloatArray, start_s: FloatArray, step_s: float, sign: float, width_s: float
) -> PulseShapes:
    """Figures of records of pulses that were set to `width_s`, the trigger on the first edge.

    `volts` is (m, s), `start_s` (m,) the time of each first sample after its trigger, `sign` 1 or
    -1. Raises `ConfigError` where a record holds no whole pulse.
    """
    v = volts * sign
    time_s = start_s[:, None] + step_s * np.arange(v.shape[1])
    resting = time_s < (1 - REST) * start_s[:, None]
    base, noise = _mean(v, resting), _deviation(v, resting)
    v = v - base[:, None]
    guess = _mean(v, (time_s > 0.4 * width_s) & (time_s < 0.9 * width_s))
    first_s, last_s = _crossings(v, time_s, guess / 2)
    flat = _flat(time_s, first_s, last_s)
    amplitude = _mean(v, flat)
    first_s, last_s = _crossings(v, time_s, amplitude / 2)
    rise = _rise(v, time_s, amplitude, first_s)
    # The last edge is the first one of the record read backwards.
    fall = _rise(v[:, ::-1], -time_s[:, ::-1], amplitude, -last_s)
    if not np.isfinite(rise + fall).all():
        raise ConfigError(
            f"a record of a pulse of {width_s:g} s holds no whole pulse: raise settle_s, or look at"
            " what the probe is on"
        )
    reach = np.maximum(2, np.round(PEAK * rise / step_s)).astype(np.int64)
    during = (time_s >= first_s[:, None]) & (time_s <= last_s[:, None])
    peak = _peak(v, during, reach)
    end = _peak(-v, time_s > last_s[:, None], reach)
    return PulseShapes(
        amplitude,
        last_s - first_s,
        rise,
        fall,
        peak - amplitude,
        end,
        noise,
        _deviation(v, flat) ** 2 - noise**2,
        np.asarray(2.0 * reach + 1, dtype=np.float64),
    )


def arrival_of(
    shapes: PulseShapes, seen: Seen, range_v: float, step_s: float
) -> dict[str, tuple[float, float]]:
    """Means over repeats of one pulse and the half-widths of their 95 % intervals: scatter with
    Student's factor, and what repeats do not show.

    `overshoot` and `undershoot` are parts of the amplitude. Raises `ConfigError` for a scope that
    is too slow or too coarse for the edges.
    """
    rise_s, fall_s = float(shapes.rise_s.mean()), float(shapes.fall_s.mean())
    fastest_s = min(rise_s, fall_s)
    if not seen.rise_s <= SLOWEST * fastest_s:
        raise ConfigError(
            f"the scope's own rise of {seen.rise_s:.3g} s hides the edges, which it shows with"
            f" {fastest_s:.3g} s: at most {SLOWEST:g} of that; a faster one is needed"
        )
    if not step_s <= COARSEST * fastest_s:
        raise ConfigError(
            f"samples {step_s:.3g} s apart do not show edges of {fastest_s:.3g} s: this pulse is"
            " too long for the scope's memory"
        )
    amplitude = float(shapes.amplitude_v.mean())
    ripple = NORMAL * float(np.sqrt(max(shapes.ripple_v2.mean(), 0.0)))
    # A level that does not move is rounded alike in all repeats, an edge is not.
    hidden = NORMAL * seen.digit_v / np.sqrt(12)
    level = float(np.hypot(ripple, np.sqrt(2) * hidden))
    per_volt_s = (rise_s + fall_s) / (0.8 * abs(amplitude))
    # The highest of many noisy samples is too high.
    spans = max(float(shapes.width_s.mean() / (2 * PEAK * rise_s)), 2.0)
    chosen = float(np.sqrt(2 * np.log(spans) / shapes.samples.mean()) * shapes.noise_v.mean()) * 1.5
    # What one pole takes off a ringing of the period of about four rises, as a part of it.
    lost = SLOWEST * (seen.rise_s / rise_s) ** 2
    gain = seen.gain_fraction * range_v
    found = {
        "amplitude_v": _stated(shapes.amplitude_v, gain, level),
        "arrived_s": _stated(
            shapes.width_s, seen.time_fraction * shapes.width_s.mean(), per_volt_s * level / 2
        ),
    }
    for name, values, flat in (
        ("overshoot", shapes.overshoot_v, level),
        ("undershoot", shapes.undershoot_v, hidden),
    ):
        mean = abs(float(values.mean()))
        wide = np.hypot(lost * mean, np.hypot(chosen, flat))
        found[f"{name}_v"] = _stated(values, wide, gain / abs(amplitude) * mean)
        found[name] = _stated(values / amplitude, wide / abs(amplitude))
    for name, values in (("rise_s", shapes.rise_s), ("fall_s", shapes.fall_s)):
        edge_s, wide_s = _stated(values, per_volt_s * level / 2)
        own_s = float(np.sqrt(max(edge_s**2 - seen.rise_s**2, 0.0)))
        found[name] = own_s, float(np.hypot(wide_s, np.hypot((edge_s - own_s) / 2, step_s / 8)))
    return found


def _stated(values: FloatArray, *hidden: float) -> tuple[float, float]:
    """Mean over repeats, and the half-width with what they do not show, parts of it independent."""
    mean, variance, freedom = mean_of(values)
    scatter = float(stdtrit(max(freedom, 1), 0.975) * np.sqrt(variance))
    return float(mean), float(np.linalg.norm([scatter, *hidden]))


def _mean(v: FloatArray, where: NDArray[np.bool_]) -> FloatArray:
    count = where.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(where, v, 0.0).sum(axis=1) / count)


def _deviation(v: FloatArray, where: NDArray[np.bool_]) -> FloatArray:
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sqrt(_mean((v - _mean(v, where)[:, None]) ** 2, where)))


def _flat(time_s: FloatArray, first_s: FloatArray, last_s: FloatArray) -> NDArray[np.bool_]:
    part = (time_s - first_s[:, None]) / (last_s - first_s)[:, None]
    return np.asarray((part >= FLAT[0]) & (part <= FLAT[1]))


def _crossed(v: FloatArray, time_s: FloatArray, at: IntArray, level: FloatArray) -> FloatArray:
    """When a straight line from sample `at` to the next crosses a level, NaN beyond the record."""
    row, k = np.arange(v.shape[0]), np.clip(at, 0, v.shape[1] - 2)
    low, high = v[row, k], v[row, k + 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        crossed = time_s[row, k] + (level - low) / (high - low) * (
            time_s[row, k + 1] - time_s[row, k]
        )
    return np.where((at >= 0) & (at < v.shape[1] - 1), crossed, np.nan)


def _last(where: NDArray[np.bool_]) -> IntArray:
    """The last place in each row, -1 for none."""
    return np.asarray(np.where(where, np.arange(where.shape[1]), -1).max(axis=1))


def _first(where: NDArray[np.bool_]) -> IntArray:
    """The first place in each row, its length for none."""
    return np.asarray(np.where(where, np.arange(where.shape[1]), where.shape[1]).min(axis=1))


def _crossings(
    v: FloatArray, time_s: FloatArray, level: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """When each row is first above a level and last."""
    above = v >= level[:, None]
    first, last = _first(above), _last(above)
    return _crossed(v, time_s, first - 1, level), _crossed(v, time_s, last, level)


def _rise(
    v: FloatArray, time_s: FloatArray, amplitude: FloatArray, half_s: FloatArray
) -> FloatArray:
    """From 10 % to 90 % of the first edge, which crosses half at `half_s`."""
    low, high = 0.1 * amplitude, 0.9 * amplitude
    is_early = time_s < half_s[:, None]
    begins_s = _crossed(v, time_s, _last((v < low[:, None]) & is_early), low)
    ends_s = _crossed(v, time_s, _first((v >= high[:, None]) & ~is_early) - 1, high)
    return np.asarray(ends_s - begins_s)


def _peak(v: FloatArray, where: NDArray[np.bool_], reach: IntArray) -> FloatArray:
    """The top of a parabola around the highest sample among these, so many on either side."""
    row = np.arange(v.shape[0])
    top = np.argmax(np.where(where, v, -np.inf), axis=1)
    away = np.arange(-int(reach.max()), int(reach.max()) + 1)
    place = top[:, None] + away
    inside = (place >= 0) & (place < v.shape[1]) & (np.abs(away) <= reach[:, None])
    seen = v[row[:, None], np.clip(place, 0, v.shape[1] - 1)]
    x = away / reach[:, None]
    powers = np.stack([np.ones_like(x), x, x**2], axis=-1) * inside[..., None]
    normal = np.einsum("mkp,mkq->mpq", powers, powers)
    found = np.linalg.solve(normal, np.einsum("mkp,mk->mp", powers, seen)[..., None])[..., 0]
    middle, slope, bend = found.T
    with np.errstate(invalid="ignore", divide="ignore"):
        at = -slope / (2 * bend)
    is_top = (bend < 0) & (np.abs(at) <= 1)
    return np.asarray(np.where(is_top, middle + slope * np.where(is_top, at, 0.0) / 2, middle))
