"""Draws and laws of cells, one cell and one pulse a function, compiled by numba with loops over
batches around them.

The laws stand in docs/device-model.md, what their numbers mean with the fields of
`rram_hil.simulation.model`. Every function here is made of additions, multiplications, divisions,
square roots and integer arithmetic only, in a fixed order, so a cell's result depends neither on
how a batch was split nor on the processor; that is also why `exp` and `log` are here. Batches are
one-dimensional, C-contiguous and of one type an argument (float64, int64, float32 for traits).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from rram_hil.plugins import need_extra
from rram_hil.simulation.draws import Purpose
from rram_hil.types import FloatArray, IntArray

need_extra("simulating cells", "sim", {"numba": "numba"})

from numba import njit  # noqa: E402

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _compiled(function: _Function, **options: Any) -> _Function:
    """With the compiled code kept on the disk, where numba finds a folder that it may write."""
    try:
        return cast(_Function, njit(cache=True, error_model="numpy", **options)(function))
    except RuntimeError:
        return cast(_Function, njit(error_model="numpy", **options)(function))


def _one(function: _Function) -> _Function:
    """A function of one cell, compiled into what calls it.

    Without numba's counting of references (`_nrt`): it would be done for every array of a law at
    every cell, and takes as long as the laws.
    """
    return _compiled(function, forceinline=True, _nrt=False)


def _batch(function: _Function) -> _Function:
    """A function of a batch, which other threads may run beside."""
    return _compiled(function, nogil=True)


Table = FloatArray
"""Rows: rising x, y, slope of y to the next x (0 at the last); see `interp`."""

_BLOCK = 256
"""Cells whose draws are made at once, and stay in the processor's cache."""

# SplitMix64 (see `rram_hil.simulation.draws`).
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_OF_PURPOSE = np.uint64(0xD1342543DE82EF95)
_OF_EVENT = np.uint64(0xDA942042E4DD58B5)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S11, _S27, _S30, _S31 = np.uint64(11), np.uint64(27), np.uint64(30), np.uint64(31)

# Purposes as plain numbers, which is what compiled code takes.
_STUCK, _VIRGIN = int(Purpose.STUCK), int(Purpose.VIRGIN)
_FORM_THRESHOLD, _GATE_OFFSET = int(Purpose.FORM_THRESHOLD), int(Purpose.GATE_OFFSET)
_SET_GAIN, _RESET_OFFSET = int(Purpose.SET_GAIN), int(Purpose.RESET_OFFSET)
_RESET_GAIN, _STUCK_LEVEL = int(Purpose.RESET_GAIN), int(Purpose.STUCK_LEVEL)
_TELEGRAPH_CELL, _WEAR = int(Purpose.TELEGRAPH_CELL), int(Purpose.WEAR)
_SET_SHIFT, _FORM_LEVEL = int(Purpose.SET_SHIFT), int(Purpose.FORM_LEVEL)
_SET_JITTER, _SET_SPREAD = int(Purpose.SET_JITTER), int(Purpose.SET_SPREAD)
_SET_STIR, _CYCLE_OFFSET = int(Purpose.SET_STIR), int(Purpose.CYCLE_OFFSET)
_CYCLE_GAIN, _CYCLE_TAIL = int(Purpose.CYCLE_GAIN), int(Purpose.CYCLE_TAIL)
_OVERDRIVE, _OVERDRIVE_STEP = int(Purpose.OVERDRIVE), int(Purpose.OVERDRIVE_STEP)
_CYCLE_SHIFT, _CREEP, _DEPTH = int(Purpose.CYCLE_SHIFT), int(Purpose.CREEP), int(Purpose.DEPTH)
_RESET_JITTER, _RESET_SPREAD = int(Purpose.RESET_JITTER), int(Purpose.RESET_SPREAD)
_RESET_CYCLE, _RESET_BREAK = int(Purpose.RESET_CYCLE), int(Purpose.RESET_BREAK)
_READ, _TELEGRAPH = int(Purpose.READ), int(Purpose.TELEGRAPH)
_RELAX_BODY, _RELAX_TAIL = int(Purpose.RELAX_BODY), int(Purpose.RELAX_TAIL)
_RELAX_PLACE = int(Purpose.RELAX_PLACE)

_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_LN10 = 2.302585092994045684
_ROUND = 6755399441055744.0
"""1.5 x 2^52: a float64 that is added to it is rounded to a whole number in its lowest bits."""
_ROUND_BITS = np.int64(0x4338000000000000)
_SQRT_HALF_BITS = np.int64(0x3FE6A09E667F3BCD)
_MANTISSA_BITS = np.int64(52)


@_one
def exp(x: float) -> float:
    """e^x, to about a unit in the last place; 0 below -708, and held at its value above 709."""
    held = min(max(x, -708.0), 709.0)
    shifted = held * 1.44269504088896338700 + _ROUND
    n = shifted - _ROUND
    r = (held - n * _LN2_HIGH) - n * _LN2_LOW
    # The series to the 13th power, in two chains that the processor runs side by side.
    s = r * r
    even = 1.0 / 479001600
    even = even * s + 1.0 / 3628800
    even = even * s + 1.0 / 40320
    even = even * s + 1.0 / 720
    even = even * s + 1.0 / 24
    even = even * s + 0.5
    odd = 1.0 / 6227020800
    odd = odd * s + 1.0 / 39916800
    odd = odd * s + 1.0 / 362880
    odd = odd * s + 1.0 / 5040
    odd = odd * s + 1.0 / 120
    odd = odd * s + 1.0 / 6
    p = 1.0 + (r + (s * even + s * r * odd))
    k = np.float64(shifted).view(np.int64) - _ROUND_BITS
    scaled = np.int64(np.float64(p).view(np.int64) + (k << _MANTISSA_BITS)).view(np.float64)
    return scaled if x >= -708.0 else 0.0


@_one
def log(x: float) -> float:
    """ln x of normal numbers above zero, to a unit in the last place.

    By s = f / (2 + f) of the mantissa 1 + f, the even series of ln((1 + s) / (1 - s)) as a minimax
    polynomial (the numbers of FreeBSD's `e_log.c`).
    """
    bits = np.float64(x).view(np.int64)
    k = (bits - _SQRT_HALF_BITS) >> _MANTISSA_BITS
    f = np.int64(bits - (k << _MANTISSA_BITS)).view(np.float64) - 1.0
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    even = w * (
        3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01)
    )
    odd = z * (
        6.666666666666735130e-01
        + w
        * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01))
    )
    half = 0.5 * f * f
    n = np.float64(k)
    return n * _LN2_HIGH - ((half - (s * (half + even + odd) + n * _LN2_LOW)) - f)


@_one
def power(x: float, to: float) -> float:
    """x^to of normal numbers above zero."""
    return exp(to * log(x))


@_batch
def exps(x: FloatArray, out: FloatArray) -> None:
    """`exp` of a batch. A loop of few columns as this one is carried out several cells at once;
    that is why the laws below are cut into such loops where they can be.
    """
    for i in range(out.size):
        out[i] = exp(x[i])


@_batch
def logs(x: FloatArray, out: FloatArray) -> None:
    """`log` of a batch."""
    for i in range(out.size):
        out[i] = log(x[i])


@_one
def interp(x: float, table: Table) -> float:
    """y of a table at x, straight between its rows, held at its ends."""
    if not x > table[0, 0]:
        return float(table[1, 0])
    last = table.shape[1] - 1
    if x >= table[0, last]:
        return float(table[1, last])
    k = 0
    while x >= table[0, k + 1]:
        k += 1
    return float(table[2, k] * (x - table[0, k]) + table[1, k])


@_one
def interp_even(x: float, table: Table) -> float:
    """`interp` of a table whose x are evenly spaced, whatever its length."""
    last = table.shape[1] - 1
    if not x > table[0, 0]:
        return float(table[1, 0])
    if x >= table[0, last]:
        return float(table[1, last])
    k = min(int((x - table[0, 0]) / (table[0, 1] - table[0, 0])), last - 1)
    # The quotient's rounding may have gone past a row.
    if x < table[0, k]:
        k -= 1
    elif x >= table[0, k + 1]:
        k += 1
    return float(table[2, k] * (x - table[0, k]) + table[1, k])


# Draws


@_one
def _mix(x: np.uint64) -> np.uint64:
    x ^= x >> _S30
    x *= _MIX_1
    x ^= x >> _S27
    x *= _MIX_2
    return x ^ (x >> _S31)


@_one
def _key(seed: np.uint64, purpose: int) -> np.uint64:
    return _mix(seed * _GOLDEN + np.uint64(purpose) * _OF_PURPOSE)


@_one
def _uniform(key: np.uint64, cell: int, event: int) -> float:
    x = _mix(np.uint64(cell) * _GOLDEN + key)
    x = _mix(x + np.uint64(event) * _OF_EVENT)
    return (np.float64(np.int64(x >> _S11)) + 0.5) * 2.0**-53


@_one
def _near(w: float) -> float:
    """z / (2 u - 1) by w = -ln(4 u (1 - u)), up to `_FAR`. Giles, GPU Computing Gems 2, 2011."""
    x = w - 3.125
    s = x * x
    even = -3.6444120640178196996e-21
    even = even * s + 1.2858480715256400167e-18
    even = even * s - 1.333171662854620906e-16
    even = even * s + 6.6376381343583238325e-15
    even = even * s - 8.1519341976054721522e-14
    even = even * s - 1.2975133253453532498e-11
    even = even * s + 1.051212273321532285e-09
    even = even * s - 2.9070369957882005086e-08
    even = even * s - 1.3654692000834678645e-06
    even = even * s + 0.0001867342080340571352
    even = even * s - 0.0060336708714301490533
    even = even * s + 1.6536545626831027356
    odd = -1.685059138182016589e-19
    odd = odd * s + 1.115787767802518096e-17
    odd = odd * s + 2.0972767875968561637e-17
    odd = odd * s - 4.0545662729752068639e-14
    odd = odd * s + 2.6335093153082322977e-12
    odd = odd * s - 5.4154120542946279317e-11
    odd = odd * s - 4.1126339803469836976e-09
    odd = odd * s + 4.2347877827932403518e-07
    odd = odd * s - 1.3882523362786468719e-05
    odd = odd * s - 0.00074070253416626697512
    odd = odd * s + 0.24015818242558961693
    return (even + x * odd) * 1.4142135623730951


_FAR = 6.25


@_one
def _far(w: float) -> float:
    """As `_near`, beyond `_FAR`: one draw in a thousand."""
    if w < 16.0:
        x = np.sqrt(w) - 3.25
        p = 2.2137376921775787049e-09
        p = p * x + 9.0756561938885390979e-08
        p = p * x - 2.7517406297064545428e-07
        p = p * x + 1.8239629214389227755e-08
        p = p * x + 1.5027403968909827627e-06
        p = p * x - 4.013867526981545969e-06
        p = p * x + 2.9234449089955446044e-06
        p = p * x + 1.2475304481671778723e-05
        p = p * x - 4.7318229009055733981e-05
        p = p * x + 6.8284851459573175448e-05
        p = p * x + 2.4031110387097893999e-05
        p = p * x - 0.0003550375203628474796
        p = p * x + 0.00095328937973738049703
        p = p * x - 0.0016882755560235047313
        p = p * x + 0.0024914420961078508066
        p = p * x - 0.0037512085075692412107
        p = p * x + 0.005370914553590063617
        p = p * x + 1.0052589676941592334
        p = p * x + 3.0838856104922207635
    else:
        x = np.sqrt(w) - 5.0
        p = -2.7109920616438573243e-11
        p = p * x - 2.5556418169652520555e-10
        p = p * x + 1.5076572693500548083e-09
        p = p * x - 3.7894654401267369937e-09
        p = p * x + 7.6157012080783393804e-09
        p = p * x - 1.4960026627149240478e-08
        p = p * x + 2.9147953450901080826e-08
        p = p * x - 6.7711997758452339498e-08
        p = p * x + 2.2900482228026654717e-07
        p = p * x - 9.9298272942317002539e-07
        p = p * x + 4.5260625972231537039e-06
        p = p * x - 1.9681778105531670567e-05
        p = p * x + 7.5995277030017761139e-05
        p = p * x - 0.00021503011930044477347
        p = p * x - 0.00013871931833623122026
        p = p * x + 1.0103004648645343977
        p = p * x + 4.8499064014085844221
    return float(p * 1.4142135623730951)


@_one
def _quantile(u: float) -> float:
    """The standard normal quantile of 0 < u < 1."""
    w = -log(4.0 * u * (1.0 - u))
    return (_near(w) if w <= _FAR else _far(w)) * (2.0 * u - 1.0)


@_one
def _normal(key: np.uint64, cell: int, event: int) -> float:
    return _quantile(_uniform(key, cell, event))


@_batch
def uniforms(
    seed: np.uint64, purpose: int, cell: IntArray, event: IntArray, out: FloatArray
) -> None:
    """Uniform draws, 0 < u < 1, into `out`."""
    key = _key(seed, purpose)
    for i in range(out.size):
        out[i] = _uniform(key, cell[i], event[i])


@_batch
def normals(
    seed: np.uint64, purpose: int, cell: IntArray, event: IntArray, out: FloatArray
) -> None:
    """Standard normal draws into `out`."""
    key = _key(seed, purpose)
    rare = 0
    for i in range(out.size):
        u = _uniform(key, cell[i], event[i])
        w = -log(4.0 * u * (1.0 - u))
        far = w > _FAR
        rare += far
        out[i] = np.nan if far else _near(w) * (2.0 * u - 1.0)
    if rare:
        for i in range(out.size):
            if np.isnan(out[i]):
                out[i] = _normal(key, cell[i], event[i])


@_batch
def spreads(
    sd: float, seed: np.uint64, purpose: int, cell: IntArray, event: IntArray, out: FloatArray
) -> None:
    """Normal draws of a standard deviation, which are not made where it is 0, into `out`."""
    if sd > 0:
        normals(seed, purpose, cell, event, out)
        for i in range(out.size):
            out[i] *= sd
    else:
        out[:] = 0.0


@_one
def _skewed(z: float, chance: float, part: float) -> float:
    """Of a standard normal draw and of the chance of one above it, a draw of mean 0 of which
    `part` is exponential: an end below, a tail above.
    """
    return (1.0 - part) * z + part * (-log(chance) - 1.0)


# What the laws take of a model: see `DeviceModel`.


class TraitsLaw(NamedTuple):
    """Device-to-device spreads; see `Traits`."""

    stuck_low: float
    stuck_high: float
    stuck_s: float
    stuck_spread_ln: float
    virgin_s: float
    virgin_spread_ln: float
    threshold_v: float
    threshold_sd_v: float
    threshold: Table
    has_quantiles: bool
    gate_sd_v: float
    gain_sd_ln: float
    shift_sd_s: float
    offset_sd_v: float
    offset_skew: float
    reset_skew: float
    creeps: bool
    creep_part: float
    creep_ohm: float
    shallow: bool
    shallow_part: float
    shallow_s: float
    shallow_spread_ln: float
    link: float
    telegraph_cells: float


class SetLaw(NamedTuple):
    """Forming and SET at one width: `Forming`, `Set`, `Grow` and `Overdrive`, whose names are
    kept. `widths` is the width in reference widths, `*width_v` what it is worth in volts.
    """

    form_width_v: float
    gate_min_v: float
    form_s: float
    form_spread_ln: float
    width_v: float
    widths: float
    gate: Table
    bl: Table
    jitter_sd_v: float
    spread_sd_ln: float
    shifts: bool
    shift_spread_s: float
    grows: bool
    settled_gain_v: float
    series_ohm: float
    least_ohm: float
    stirred_s: float
    power: float
    cycle_sd_v: float
    cycle_sd_ln: float
    cycle_slow_ln: float
    stir: Table
    creeps: bool
    overdrives: bool
    part: Table
    over_bl_v: float
    over_ohm: float
    memory: float
    over_spread_ln: float


class ResetLaw(NamedTuple):
    """RESET at one width: `Reset`, `Redraw` and `Wear`, whose names are kept; `width_v` is what
    the width is worth in volts. `curve` and `spread` are ln G and its spread by volts.
    """

    width_v: float
    first_v: float
    curve: Table
    spread: Table
    own_share: float
    white_share: float
    jitter_sd_v: float
    gate_threshold_v: float
    gate_slope: float
    floor_s: float
    shifts: bool
    shift_spread_s: float
    redraws: bool
    through: Table
    threshold: Table
    intact_v: float
    heal: float
    heal_from_v: float
    white: Table
    device: Table
    cycle_sd_v: float
    lag: float
    skew: float
    intact_s: float
    break_v: float
    break_ln: float
    break_more_ln: float
    reach_ln: float
    wear_cycles: float
    wear_ln: float
    wear_again_ln: float


class DriftLaw(NamedTuple):
    """Relaxation: `Relaxation` (columns of its table, with slopes beyond) or `Drift`."""

    drifts: bool
    from_s: float
    log10_s: FloatArray
    onset_decades: float
    place_s: FloatArray
    probability: FloatArray
    change_s: NDArray[np.float64]
    body: Table
    tail: Table
    shift: Table
    beyond: FloatArray
    g_max_s: float
    weight: Table


class ReadLaw(NamedTuple):
    """Noise of a read: `ReadNoise`."""

    fraction: float
    floor_s: float
    telegraphs: bool
    occupancy: float
    amplitude: float


# SET


@_one
def _level_ln(law: SetLaw, gate_v: float) -> float:
    """ln of the conductance that a gate allows to the strongest SET; -inf for no SET."""
    gate = gate_v + law.width_v
    return -np.inf if gate < law.gate[0, 0] else interp_even(gate, law.gate)


@_one
def _bl_ratio(law: SetLaw, bl_v: float) -> float:
    """What BL - SL leaves of that conductance; 0 for no SET."""
    return 0.0 if bl_v < law.bl[0, 0] else interp(bl_v, law.bl)


@_one
def _stir_ln(law: SetLaw, ln_g: float) -> float:
    """Spread of what a SET stirs."""
    return interp(ln_g, law.stir)


@_one
def _own_ohm(law: SetLaw, g_s: float) -> float:
    """Resistance of the filament alone of a cell that reads `g_s`."""
    return max(1.0 / g_s - law.series_ohm, law.least_ohm)


@_one
def _with_ohm(law: SetLaw, g_s: float, more_ohm: float) -> float:
    """A conductance with `more_ohm` in series, or without it where that is below zero."""
    return 1.0 / max(1.0 / g_s + more_ohm, law.least_ohm)


@_one
def _outer_s(
    law: SetLaw, before_s: float, inner_s: float, after_s: float, more_ohm: float, cap_s: float
) -> float:
    """Behind what a creeping cell has more in series, as high as the compliance lets it."""
    outer_s = after_s
    if law.creeps:
        outer_s = before_s if after_s == inner_s else _with_ohm(law, after_s, more_ohm)
    return max(before_s, min(outer_s, cap_s)) if outer_s > before_s else outer_s


@_one
def _grown_s(law: SetLaw, before_s: float, single_s: float, widths: float) -> float:
    """After a pulse that gives `single_s` (0: none) to a cell from the high-resistance state."""
    both = power(_own_ohm(law, before_s), -1.0 / law.power)
    # A choice of values, not of ways: the loop is carried out several cells at once.
    more = widths * power(_own_ohm(law, single_s), -1.0 / law.power)
    both += more if single_s > 0.0 else 0.0
    after = 1.0 / (law.series_ohm + power(both, -law.power))
    return before_s if before_s > law.stirred_s else after


@_batch
def form(
    law: SetLaw,
    seed: np.uint64,
    index: IntArray,
    event: IntArray,
    stuck: NDArray[np.int8],
    threshold_v: NDArray[np.float32],
    before_s: FloatArray,
    formed: NDArray[np.bool_],
    bl_v: FloatArray,
    gate_v: FloatArray,
    cap_s: FloatArray,
    after_s: FloatArray,
    now_formed: NDArray[np.bool_],
) -> None:
    """One pulse on each cell that is not formed, into the last two; others stay."""
    key = _key(seed, _FORM_LEVEL)
    for i in range(index.size):
        after_s[i], now_formed[i] = before_s[i], formed[i]
        if (
            not formed[i]
            and stuck[i] == 0
            and gate_v[i] >= law.gate_min_v
            and bl_v[i] >= threshold_v[i] - law.form_width_v
        ):
            level_s = law.form_s * exp(law.form_spread_ln * _normal(key, index[i], event[i]))
            after_s[i], now_formed[i] = max(before_s[i], min(level_s, cap_s[i])), True


@_batch
def set_to_level(
    law: SetLaw,
    seed: np.uint64,
    index: IntArray,
    event: IntArray,
    cycle: IntArray,
    gate_offset_v: NDArray[np.float32],
    gain_ln: NDArray[np.float32],
    shift_s: NDArray[np.float32],
    before_s: FloatArray,
    formed: NDArray[np.bool_],
    bl_v: FloatArray,
    gate_v: FloatArray,
    cap_s: FloatArray,
    after_s: FloatArray,
) -> None:
    """One SET pulse on each formed cell, into the last: up to the level that its gate allows."""
    size = min(_BLOCK, index.size)
    jitter, spread, shift = np.empty(size), np.empty(size), np.empty(size)
    level, level_s, ratio = np.empty(size), np.empty(size), np.empty(size)
    for start in range(0, index.size, _BLOCK):
        n = min(_BLOCK, index.size - start)
        cells, events = index[start : start + n], event[start : start + n]
        cycles = cycle[start : start + n]
        spreads(law.jitter_sd_v, seed, _SET_JITTER, cells, events, jitter[:n])
        spreads(law.spread_sd_ln, seed, _SET_SPREAD, cells, events, spread[:n])
        spreads(law.shift_spread_s, seed, _CYCLE_SHIFT, cells, cycles, shift[:n])
        for j in range(n):
            i = start + j
            level[j] = _level_ln(law, gate_v[i] + gate_offset_v[i] + jitter[j])
            level[j] += spread[j] + gain_ln[i]
            ratio[j] = _bl_ratio(law, bl_v[i])
        exps(level[:n], level_s[:n])
        for j in range(n):
            i = start + j
            if formed[i] and level[j] > -np.inf and ratio[j] > 0.0:
                reached = level_s[j] * ratio[j]
                if law.shifts:
                    reached += shift_s[i] + shift[j]
                after_s[i] = max(before_s[i], min(reached, cap_s[i]))


@_batch
def grow(
    law: SetLaw,
    seed: np.uint64,
    index: IntArray,
    event: IntArray,
    cycle: IntArray,
    stuck: NDArray[np.int8],
    gate_offset_v: NDArray[np.float32],
    gain_ln: NDArray[np.float32],
    creep_ohm: NDArray[np.float32],
    before_s: FloatArray,
    formed: NDArray[np.bool_],
    bl_v: FloatArray,
    gate_v: FloatArray,
    cap_s: FloatArray,
    settled_s: FloatArray,
    after_s: FloatArray,
) -> None:
    """One SET pulse on each formed cell, into the last: what it adds to the filament, and stirs."""
    size = min(_BLOCK, index.size)
    jitter, spread, own_v, own_ln = np.empty(size), np.empty(size), np.empty(size), np.empty(size)
    level, gain, ratio = np.empty(size), np.empty(size), np.empty(size)
    single, widths, more_ohm = np.empty(size), np.empty(size), np.empty(size)
    inner, after, stirred = np.empty(size), np.empty(size), np.empty(size)
    for start in range(0, index.size, _BLOCK):
        stop = min(start + _BLOCK, index.size)
        n = stop - start
        cells, events, cycles = index[start:stop], event[start:stop], cycle[start:stop]
        spreads(law.jitter_sd_v, seed, _SET_JITTER, cells, events, jitter[:n])
        spreads(law.spread_sd_ln, seed, _SET_SPREAD, cells, events, spread[:n])
        spreads(law.cycle_sd_v, seed, _CYCLE_OFFSET, cells, cycles, own_v[:n])
        _cycle_gains(law, seed, cells, cycles, own_ln)
        for j in range(n):
            i = start + j
            grown = np.isnan(settled_s[i])
            gate = gate_v[i] + (own_v[j] if grown else law.settled_gain_v)
            level[j] = _level_ln(law, gate + gate_offset_v[i] + jitter[j]) + spread[j]
            ratio[j] = _bl_ratio(law, bl_v[i])
            gain[j] = (gain_ln[i] + (own_ln[j] if grown else 0.0)) / law.power
            more_ohm[j] = creep_ohm[i] if grown else 0.0
            # What a creeping cell has more in series is taken off, and put back below.
            inner[j] = _with_ohm(law, before_s[i], -more_ohm[j]) if law.creeps else before_s[i]
        exps(level[:n], single[:n])
        exps(gain[:n], widths[:n])
        for j in range(n):
            single[j] *= ratio[j]
            widths[j] *= law.widths
        for j in range(n):
            after[j] = _grown_s(law, inner[j], single[j], widths[j])
        if law.overdrives:
            _overdrive(
                law,
                seed,
                cells,
                events,
                cycles,
                bl_v[start:stop],
                gate_v[start:stop],
                settled_s[start:stop],
                inner,
                single,
                widths,
                after,
            )
        for j in range(n):
            before, cap = before_s[start + j], cap_s[start + j]
            after[j] = _outer_s(law, before, inner[j], after[j], more_ohm[j], cap)
        _stirs(law, seed, cells, events, after, stirred)
        for j in range(n):
            i = start + j
            if formed[i] and stuck[i] == 0 and ratio[j] > 0.0:
                after_s[i] = min(after[j] * stirred[j], max(cap_s[i], before_s[i]))


@_batch
def _cycle_gains(
    law: SetLaw, seed: np.uint64, index: IntArray, cycle: IntArray, own_ln: FloatArray
) -> None:
    """By how much (ln) filaments grow more in a cycle than in others, into the last."""
    n = index.size
    place, z = np.empty(n), np.empty(n)
    normals(seed, _CYCLE_GAIN, index, cycle, z)
    uniforms(seed, _CYCLE_TAIL, index, cycle, place)
    for i in range(n):
        # 0 for seven cycles in eight, for the others exponential draws of mean 1.
        slow = max(-log(8.0 * place[i]), 0.0)
        own_ln[i] = law.cycle_sd_ln * z[i] - law.cycle_slow_ln * slow


@_batch
def _stirs(
    law: SetLaw,
    seed: np.uint64,
    index: IntArray,
    event: IntArray,
    g_s: FloatArray,
    ratio: FloatArray,
) -> None:
    """What a SET's stirring makes of each conductance, as a ratio, into the last."""
    n = index.size
    z, stirred_ln = np.empty(n), np.empty(n)
    normals(seed, _SET_STIR, index, event, z)
    logs(g_s[:n], stirred_ln)
    for i in range(n):
        z[i] *= _stir_ln(law, stirred_ln[i])
    exps(z, ratio[:n])


@_batch
def _overdrive(
    law: SetLaw,
    seed: np.uint64,
    index: IntArray,
    event: IntArray,
    cycle: IntArray,
    bl_v: FloatArray,
    gate_v: FloatArray,
    settled_s: FloatArray,
    before_s: FloatArray,
    single_s: FloatArray,
    widths: FloatArray,
    after_s: FloatArray,
) -> None:
    """Of the pulses of `grow`, those that are too strong for a filament, into the last."""
    chance_key, step_key = _key(seed, _OVERDRIVE), _key(seed, _OVERDRIVE_STEP)
    for i in range(index.size):
        if bl_v[i] < law.over_bl_v or not np.isnan(settled_s[i]):
            continue
        part = interp(gate_v[i], law.part)
        if part > 0.0 and _uniform(chance_key, index[i], cycle[i]) < part:
            z = _normal(step_key, index[i], event[i])
            once = _own_ohm(law, single_s[i]) * power(widths[i], -law.power)
            r = log(min(_own_ohm(law, before_s[i]), once) / law.over_ohm)
            own_ohm = law.over_ohm * exp(law.memory * r + law.over_spread_ln * z)
            after_s[i] = 1.0 / (law.series_ohm + own_ohm)


@_batch
def nominal_ln(
    law: SetLaw, low_s: float, gate_v: FloatArray, bl_v: FloatArray, out: FloatArray
) -> None:
    """ln of what one SET makes of a median cell at `low_s`, into `out`; -inf for no SET."""
    for i in range(out.size):
        ratio = _bl_ratio(law, bl_v[i])
        out[i] = _level_ln(law, gate_v[i]) + log(ratio) if ratio > 0.0 else -np.inf
        if law.grows and out[i] > -np.inf:
            out[i] = log(_grown_s(law, low_s, exp(out[i]), law.widths))


# RESET


@_one
def _reset_v(law: ResetLaw, sl_v: float, gate_v: float) -> float:
    """Volts that reach the cell as the gate lets through, at the reference width."""
    if law.redraws:
        through = interp(gate_v, law.through)
    else:
        through = law.gate_slope * (gate_v - law.gate_threshold_v)
    return min(sl_v, through) + law.width_v


@_one
def _redrawn_ln(
    law: ResetLaw,
    volts: float,
    before_ln: float,
    filament_ln: float,
    intact: bool,
    broken: bool,
    own_z: float,
    floor_ln: float,
    w: float,
    hard_ln: float,
    again_ln: float,
) -> float:
    """ln G after a pulse of `Redraw`; `before_ln` itself where it does nothing."""
    on_v = interp(filament_ln, law.threshold)
    beyond = volts - law.lag * (on_v - law.intact_v)
    around = interp_even(beyond, law.curve) + interp(beyond, law.device) * own_z
    around = max(around + again_ln if broken else around, floor_ln)
    white = interp(beyond, law.white) * w
    if broken:
        if around - before_ln > law.reach_ln:
            return before_ln
        return min(around + white, max(filament_ln, before_ln))
    above = volts - on_v
    if above < 0.0:
        heal = law.heal if volts >= law.heal_from_v else 0.0
        return before_ln + heal * max(filament_ln - before_ln, 0.0)
    drawn = around + white
    if intact:
        drawn += min(above / max(law.break_v, 1e-6), 1.0) * hard_ln
    return min(max(drawn, floor_ln + white), before_ln)


@_batch
def reset_to_level(
    law: ResetLaw,
    seed: np.uint64,
    index: IntArray,
    event: IntArray,
    offset_v: NDArray[np.float32],
    own_z: NDArray[np.float32],
    shift_s: NDArray[np.float32],
    before_s: FloatArray,
    formed: NDArray[np.bool_],
    sl_v: FloatArray,
    gate_v: FloatArray,
    broken_s: FloatArray,
    after_s: FloatArray,
) -> None:
    """One RESET pulse on each cell, into the last: down to the level of its volts."""
    size = min(_BLOCK, index.size)
    jitter, white, shift = np.empty(size), np.empty(size), np.empty(size)
    volts, level, reached = np.empty(size), np.empty(size), np.empty(size)
    for start in range(0, index.size, _BLOCK):
        n = min(_BLOCK, index.size - start)
        cells, events = index[start : start + n], event[start : start + n]
        normals(seed, _RESET_SPREAD, cells, events, white[:n])
        spreads(law.jitter_sd_v, seed, _RESET_JITTER, cells, events, jitter[:n])
        # Its event is the number of the cycle that it begins: the next SET is off by as much.
        spreads(law.shift_spread_s, seed, _CYCLE_SHIFT, cells, events, shift[:n])
        for j in range(n):
            i = start + j
            volts[j] = _reset_v(law, sl_v[i], gate_v[i])
            own_v = volts[j] + offset_v[i] + jitter[j]
            z = law.own_share * own_z[i] + law.white_share * white[j]
            level[j] = interp_even(own_v, law.curve) + interp_even(own_v, law.spread) * z
        exps(level[:n], reached[:n])
        for j in range(n):
            i = start + j
            if law.shifts and broken_s[i] == 0.0:
                reached[j] += max(shift_s[i] + shift[j], 0.0)
            lowered = min(before_s[i], max(reached[j], law.floor_s))
            works = formed[i] and volts[j] >= law.first_v
            after_s[i] = lowered if works else before_s[i]


@_batch
def redraw(
    law: ResetLaw,
    seed: np.uint64,
    index: IntArray,
    event: IntArray,
    cycle: IntArray,
    stuck: NDArray[np.int8],
    offset_v: NDArray[np.float32],
    own_z: NDArray[np.float32],
    floor_ln: NDArray[np.float32],
    before_s: FloatArray,
    formed: NDArray[np.bool_],
    sl_v: FloatArray,
    gate_v: FloatArray,
    settled_s: FloatArray,
    broken_s: FloatArray,
    cycles_done: IntArray,
    after_s: FloatArray,
) -> None:
    """One RESET pulse on each cell, into the last: a new draw beyond the filament's threshold."""
    floor = log(law.floor_s)
    size = min(_BLOCK, index.size)
    w, place, own_v, hard_ln = np.empty(size), np.empty(size), np.empty(size), np.empty(size)
    worn, again = np.zeros(size), np.zeros(size)
    before, filament = np.empty(size), np.empty(size)
    before_ln, filament_ln = np.empty(size), np.empty(size)
    moved, after = np.empty(size), np.empty(size)
    for start in range(0, index.size, _BLOCK):
        stop = min(start + _BLOCK, index.size)
        n = stop - start
        cells, events = index[start:stop], event[start:stop]
        if law.wear_ln > 0.0 or law.wear_again_ln > 0.0:
            _wear(law, seed, cells, cycles_done[start:stop], worn, again)
        normals(seed, _RESET_SPREAD, cells, events, w[:n])
        uniforms(seed, _RESET_SPREAD, cells, events, place[:n])
        for j in range(n):
            w[j] = _skewed(w[j], 1.0 - place[j], law.skew)
        spreads(law.cycle_sd_v, seed, _RESET_CYCLE, cells, cycle[start:stop], own_v[:n])
        spreads(law.break_ln, seed, _RESET_BREAK, cells, events, hard_ln[:n])
        for j in range(n):
            i = start + j
            whole = before_s[i] if np.isnan(settled_s[i]) else settled_s[i]
            filament[j] = broken_s[i] if broken_s[i] > 0.0 else max(whole, 1e-12)
            before[j] = max(before_s[i], 1e-12)
        logs(filament[:n], filament_ln[:n])
        logs(before[:n], before_ln[:n])
        for j in range(n):
            i = start + j
            volts = _reset_v(law, sl_v[i], gate_v[i]) + offset_v[i] + own_v[j]
            moved[j] = _redrawn_ln(
                law,
                volts,
                before_ln[j],
                filament_ln[j],
                filament[j] >= law.intact_s,
                broken_s[i] > 0.0,
                own_z[i],
                floor_ln[i],
                w[j],
                hard_ln[j] - law.break_more_ln + worn[j],
                again[j],
            )
        for j in range(n):
            after[j] = exp(max(moved[j], floor))
        for j in range(n):
            i = start + j
            works = formed[i] and stuck[i] == 0 and sl_v[i] > 0.0
            # A state that is left as it is must come back as the same number.
            after_s[i] = after[j] if works and moved[j] != before_ln[j] else before_s[i]


@_batch
def _wear(
    law: ResetLaw,
    seed: np.uint64,
    index: IntArray,
    cycles_done: IntArray,
    worn_ln: FloatArray,
    again_ln: FloatArray,
) -> None:
    """By how much (ln G) wear lets each cell's filament break less, and, where it is broken, lets a
    pulse open less, into the last two.
    """
    key = _key(seed, _WEAR)
    for i in range(index.size):
        worn_ln[i] = -law.wear_ln * log(_uniform(key, index[i], 0))
    for i in range(index.size):
        part = 1.0 - exp(-np.float64(cycles_done[i]) / law.wear_cycles)
        worn_ln[i] *= part
        again_ln[i] = law.wear_again_ln * part


@_batch
def reset_volts(
    law: ResetLaw, sl_v: FloatArray, gate_v: FloatArray, volts: FloatArray, level_ln: FloatArray
) -> None:
    """Volts that reach a median cell and ln G to which they bring it, into the last two."""
    for i in range(volts.size):
        volts[i] = _reset_v(law, sl_v[i], gate_v[i])
        level_ln[i] = interp_even(volts[i], law.curve)


# What a pulse leaves to the next


@_one
def _broken_s(
    up: bool, before_s: float, after_s: float, broken_s: float, settled_s: float
) -> float:
    """How large the filament was that is broken after a pulse, 0 for one that is whole."""
    if up:
        return 0.0 if after_s > before_s else broken_s
    if broken_s == 0.0 and after_s < before_s:
        return before_s if np.isnan(settled_s) else settled_s
    return broken_s


@_batch
def broken_after(
    up: bool,
    before_s: FloatArray,
    after_s: FloatArray,
    broken_s: FloatArray,
    settled_s: FloatArray,
    now_broken_s: FloatArray,
    broke: NDArray[np.bool_],
) -> None:
    """Into the last two; see `DeviceModel.broken_after`."""
    for i in range(before_s.size):
        now_broken_s[i] = _broken_s(up, before_s[i], after_s[i], broken_s[i], settled_s[i])
        broke[i] = not up and broken_s[i] == 0.0 and now_broken_s[i] > 0.0


@_batch
def keep(
    up: bool,
    shifts: bool,
    at: IntArray,
    event: IntArray,
    ended_s: float,
    before_s: FloatArray,
    after_s: FloatArray,
    g_s: FloatArray,
    programmed_s: FloatArray,
    programming: IntArray,
    cycle: IntArray,
    settled_s: FloatArray,
    broken_s: FloatArray,
    cycles_done: IntArray,
) -> None:
    """What a pulse changes of a bank's cells at `at`, in place in the columns of `CellBank`."""
    for j in range(at.size):
        i, before, after = at[j], before_s[j], after_s[j]
        broken = _broken_s(up, before, after, broken_s[i], settled_s[i])
        if not up and (shifts or (broken_s[i] == 0.0 and broken > 0.0)):
            cycle[i], settled_s[i] = event[j], np.nan
            cycles_done[i] += 1
        broken_s[i] = broken
        if after != before:
            g_s[i], programmed_s[i], programming[i] = after, ended_s, event[j]


# Time and reading


@_one
def _below(x: float, rising: FloatArray) -> int:
    """The row under x, such that the next one is not below; the first or last but one at the
    ends.
    """
    k = 0
    while k < rising.size - 2 and x > rising[k + 1]:
        k += 1
    return k


@_one
def _change_s(law: DriftLaw, chance: float, g_s: float, age_s: float) -> float:
    """`Drift`'s change of a cell whose place in the distribution is `chance`."""
    times, places, p = law.log10_s, law.place_s, law.probability
    x = log(max(age_s, 1e-12)) / _LN10
    early = min(max(1.0 + (x - times[0]) / law.onset_decades, 0.0), 1.0)
    i = _below(x, times)
    part_t = 0.0 if x < times[0] else (x - times[i]) / (times[i + 1] - times[i])
    held = min(max(g_s, places[0]), places[places.size - 1])
    j = _below(held, places)
    part_g = (held - places[j]) / (places[j + 1] - places[j])
    k = _below(chance, p)
    part_p = min(max((chance - p[k]) / (p[k + 1] - p[k]), 0.0), 1.0)
    change = 0.0
    for dt in range(2):
        for dg in range(2):
            weight = (part_t if dt else 1.0 - part_t) * (part_g if dg else 1.0 - part_g)
            row = law.change_s[i + dt, j + dg]
            change += weight * ((1.0 - part_p) * row[k] + part_p * row[k + 1])
    return float(change * early * min(g_s / places[0], 1.0))


@_batch
def relaxed(
    law: DriftLaw,
    seed: np.uint64,
    index: IntArray,
    event: IntArray,
    g_s: FloatArray,
    age_s: FloatArray,
    out: FloatArray,
) -> None:
    """Conductances some time after programming, into `out`; see `DeviceModel.relaxed`."""
    place_key = _key(seed, _RELAX_PLACE)
    body_key, tail_key = _key(seed, _RELAX_BODY), _key(seed, _RELAX_TAIL)
    for i in range(out.size):
        g = g_s[i]
        out[i] = g
        if event[i] <= 0 or age_s[i] <= law.from_s:
            continue
        if law.drifts:
            change = _change_s(law, _uniform(place_key, index[i], event[i]), g, age_s[i])
        else:
            x = log(max(age_s[i], 1e-12)) / _LN10
            over = max(x - law.body[0, law.body.shape[1] - 1], 0.0)
            body = interp(x, law.body) + law.beyond[0] * over
            tail = interp(x, law.tail) + law.beyond[1] * over
            shift = interp(x, law.shift) + law.beyond[2] * over
            z1 = _normal(body_key, index[i], event[i])
            z2 = _normal(tail_key, index[i], event[i])
            weight = interp(g / law.g_max_s, law.weight)
            change = weight * (body * z1 + tail * (z2 * z2 * z2) / np.sqrt(15.0) + shift)
        out[i] = max(g + change, 0.05 * g)


@_batch
def readings(
    law: ReadLaw,
    seed: np.uint64,
    index: IntArray,
    event: IntArray,
    telegraph: NDArray[np.bool_],
    g_s: FloatArray,
    out: FloatArray,
) -> None:
    """One reading of each conductance, into `out`; see `DeviceModel.as_read`."""
    normals(seed, _READ, index, event, out)
    floor = law.floor_s * law.floor_s
    for i in range(out.size):
        part = law.fraction * g_s[i]
        out[i] = g_s[i] + np.sqrt(part * part + floor) * out[i]
    if law.telegraphs:
        key = _key(seed, _TELEGRAPH)
        for i in range(out.size):
            if telegraph[i] and _uniform(key, index[i], event[i]) < law.occupancy:
                out[i] -= law.amplitude * g_s[i]


# What stays with a cell


@_batch
def traits(
    law: TraitsLaw,
    seed: np.uint64,
    index: IntArray,
    stuck: NDArray[np.int8],
    fixed_s: NDArray[np.float32],
    threshold_v: NDArray[np.float32],
    gate_offset_v: NDArray[np.float32],
    gain_ln: NDArray[np.float32],
    shift_s: NDArray[np.float32],
    reset_offset_v: NDArray[np.float32],
    reset_z: NDArray[np.float32],
    creep_ohm: NDArray[np.float32],
    floor_ln: NDArray[np.float32],
    telegraph: NDArray[np.bool_],
) -> None:
    """The device-to-device draws of cells, into all after `index`; see `Traits`."""
    stuck_key, telegraph_key = _key(seed, _STUCK), _key(seed, _TELEGRAPH_CELL)
    virgin_key, level_key = _key(seed, _VIRGIN), _key(seed, _STUCK_LEVEL)
    form_key, gate_key = _key(seed, _FORM_THRESHOLD), _key(seed, _GATE_OFFSET)
    gain_key, shift_key = _key(seed, _SET_GAIN), _key(seed, _SET_SHIFT)
    offset_key, reset_key = _key(seed, _RESET_OFFSET), _key(seed, _RESET_GAIN)
    creep_key, depth_key = _key(seed, _CREEP), _key(seed, _DEPTH)
    for i in range(index.size):
        cell = index[i]
        chance = _uniform(stuck_key, cell, 0)
        if chance < law.stuck_low:
            stuck[i] = 1
            z = _normal(level_key, cell, 0)
            fixed_s[i] = law.stuck_s * exp(law.stuck_spread_ln * z)
        else:
            stuck[i] = -1 if chance < law.stuck_low + law.stuck_high else 0
            z = _normal(virgin_key, cell, 0)
            fixed_s[i] = law.virgin_s * exp(law.virgin_spread_ln * z)
        if law.has_quantiles:
            threshold_v[i] = interp_even(_uniform(form_key, cell, 0), law.threshold)
        else:
            z = _normal(form_key, cell, 0)
            threshold_v[i] = law.threshold_v + law.threshold_sd_v * z
        gate_offset_v[i] = law.gate_sd_v * _normal(gate_key, cell, 0)
        gain_ln[i] = law.gain_sd_ln * _normal(gain_key, cell, 0)
        shift_s[i] = law.shift_sd_s * _normal(shift_key, cell, 0)
        z, chance = _normal(offset_key, cell, 0), _uniform(offset_key, cell, 0)
        reset_offset_v[i] = -law.offset_sd_v * _skewed(-z, chance, law.offset_skew)
        z, chance = _normal(reset_key, cell, 0), _uniform(reset_key, cell, 0)
        reset_z[i] = _skewed(z, 1.0 - chance, law.reset_skew)
        creep_ohm[i], floor_ln[i] = 0.0, -np.inf
        chance = _uniform(creep_key, cell, 0)
        if law.creeps:
            creep_ohm[i] = law.creep_ohm * max(1.0 - chance / law.creep_part, 0.0)
        if law.shallow:
            z = np.sqrt(1.0 - law.link * law.link) * _normal(depth_key, cell, 0)
            z += law.link * _quantile(chance)
            place = 0.5 * math.erfc(-z / np.sqrt(2.0)) / law.shallow_part
            if place < 1.0:
                z = _quantile(min(max(place, 1e-9), 1.0 - 1e-9))
                floor_ln[i] = log(law.shallow_s) - law.shallow_spread_ln * z
        telegraph[i] = _uniform(telegraph_key, cell, 0) < law.telegraph_cells
