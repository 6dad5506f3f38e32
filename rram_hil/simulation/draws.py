"""Counter-based random draws: a value depends on what it is for, never on how work was split.

Every draw is a function of (seed, purpose, cell index, that cell's event number), so one batch and
any partition of it, on-board or lowered programming, before or after a restart, meet the same chip.
The mixing is SplitMix64's finaliser (Steele, Lea and Flood, OOPSLA 2014). Multiply noise, up to 1e8
samples a run, comes from Philox (Salmon et al., SC 2011).
"""

from __future__ import annotations

from enum import IntEnum
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from rram_hil.types import FloatArray, IntArray

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_PER_COUNTER = 16


class Purpose(IntEnum):
    """What a draw is for. Numbers are part of a chip's identity: never renumber, only add."""

    STUCK = 1
    VIRGIN = 2
    FORM_THRESHOLD = 3
    GATE_OFFSET = 4
    SET_GAIN = 5
    RESET_OFFSET = 6
    RESET_GAIN = 7
    STUCK_LEVEL = 8
    TELEGRAPH_CELL = 9
    WEAR = 10
    FORM_LEVEL = 20
    SET_JITTER = 21
    SET_SPREAD = 22
    RESET_JITTER = 23
    RESET_SPREAD = 24
    SET_STIR = 25
    CYCLE_OFFSET = 26
    CYCLE_GAIN = 27
    CYCLE_TAIL = 28
    RESET_CYCLE = 29
    RESET_BREAK = 30
    OVERDRIVE = 31
    OVERDRIVE_STEP = 32
    READ = 40
    TELEGRAPH = 41
    RELAX_BODY = 60
    RELAX_TAIL = 61
    RELAX_PLACE = 62
    MULTIPLY = 80


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser, in place."""
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def _key(seed: int, purpose: Purpose) -> np.uint64:
    start = np.array(
        [(seed * _GOLDEN + int(purpose) * 0xD1342543DE82EF95) & _MASK], dtype=np.uint64
    )
    return np.uint64(_mix(start)[0])


def uniform(seed: int, purpose: Purpose, cell: IntArray, event: IntArray | int = 0) -> FloatArray:
    """Uniform draws, 0 < u < 1, one a cell, for the cells' flat indices and event numbers."""
    x = np.asarray(cell).astype(np.uint64) * np.uint64(_GOLDEN)
    x += _key(seed, purpose)
    x = _mix(x)
    x += np.asarray(event).astype(np.uint64) * np.uint64(0xDA942042E4DD58B5)
    x = _mix(x)
    return ((x >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def normal(seed: int, purpose: Purpose, cell: IntArray, event: IntArray | int = 0) -> FloatArray:
    """Standard normal draws, one a cell, for the cells' flat indices and event numbers."""
    return np.asarray(ndtri(uniform(seed, purpose, cell, event)), dtype=np.float64)


@cache
def _quantiles() -> NDArray[np.float32]:
    """65,536 equally likely values of a standard normal, scaled to a variance of exactly 1."""
    values = ndtri((np.arange(65536) + 0.5) / 65536)
    return np.asarray(values / values.std(), dtype=np.float32)


def vector_noise(seed: int, tile: int, column: int, first: int, count: int) -> NDArray[np.float32]:
    """Standard normal draws of one column for multiply vectors `first` .. `first` + `count` - 1 of
    a tile's life.

    Each is one of 65,536 levels (|z| <= 4.3), from 16 bits of a Philox stream keyed by (seed, tile,
    column); about 3 ns each.
    """
    key = _mix(np.array([(tile << 20) | column], dtype=np.uint64) + _key(seed, Purpose.MULTIPLY))[0]
    skip = first % _PER_COUNTER
    words = -(-(skip + count) // 4)
    stream = np.random.Philox(
        key=np.array([key, seed], dtype=np.uint64), counter=first // _PER_COUNTER
    )
    bits = stream.random_raw(words).astype("<u8", copy=False).view("<u2")
    return np.take(_quantiles(), bits[skip : skip + count])
