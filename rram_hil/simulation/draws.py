"""Counter-based random draws: a value depends on what it is for, never on how work was split.

Every draw is a function of (seed, purpose, cell index, that cell's event number), so one batch and
any partition of it, on-board or lowered programming, before or after a restart, meet the same chip.
The mixing is SplitMix64's finaliser (Steele, Lea and Flood, OOPSLA 2014). Multiply noise, up to 1e8
samples a run, comes from PCG64 streams, which can be entered anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from rram_hil.types import FloatArray, IntArray

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_GROUP, _BLOCK = 8, 128
_WORDS = _GROUP * _BLOCK // 8
"""Words of 64 bits that hold the 16 bits of each pair of draws of one group's block of vectors."""
_LEVEL_BITS = 14
_LEVELS = 1 << _LEVEL_BITS
_FLIPPED = 0xF83


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
    SET_SHIFT = 11
    CREEP = 12
    DEPTH = 13
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
    CYCLE_SHIFT = 33
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


def key(seed: int) -> np.uint64:
    """A seed as the kernels take it."""
    return np.uint64(seed & _MASK)


def uniform(seed: int, purpose: Purpose, cell: IntArray, event: IntArray | int = 0) -> FloatArray:
    """Uniform draws, 0 < u < 1, one a cell, for the cells' flat indices and event numbers."""
    from rram_hil.simulation import kernels

    return _drawn(kernels.uniforms, seed, purpose, cell, event)


def normal(seed: int, purpose: Purpose, cell: IntArray, event: IntArray | int = 0) -> FloatArray:
    """Standard normal draws, one a cell, for the cells' flat indices and event numbers."""
    from rram_hil.simulation import kernels

    return _drawn(kernels.normals, seed, purpose, cell, event)


def _drawn(
    kind: Callable[[np.uint64, int, IntArray, IntArray, FloatArray], None],
    seed: int,
    purpose: Purpose,
    cell: IntArray,
    event: IntArray | int,
) -> FloatArray:
    cells, events = np.broadcast_arrays(
        np.asarray(cell, dtype=np.int64), np.asarray(event, dtype=np.int64)
    )
    found = np.empty(cells.shape)
    flat = (np.ascontiguousarray(cells).reshape(-1), np.ascontiguousarray(events).reshape(-1))
    kind(key(seed), int(purpose), *flat, found.reshape(-1))
    return found


@cache
def _pairs() -> NDArray[np.complex64]:
    """Equally likely pairs of values of a standard normal, as real and imaginary parts.

    Either of a pair takes each of `_LEVELS` equally likely levels, scaled to a variance of exactly
    1. The number of one is that of the other with its bits in reverse (a Hammersley set), so that
    every cell of 128 x 128 equally likely ones holds one pair, and some of them flipped: `_FLIPPED`
    are those for which neither the values of a pair nor their squares correlate. More levels would
    not stay in the processor's cache.
    """
    from scipy.special import ndtri  # 0.1 s to load, which a chip that never multiplies saves

    values = ndtri((np.arange(_LEVELS) + 0.5) / _LEVELS)
    values /= values.std()
    places = np.arange(_LEVEL_BITS)
    bits = np.arange(_LEVELS)[:, None] >> places & 1
    others = values[bits @ (1 << places[::-1]) ^ _FLIPPED]
    return np.asarray(values + 1j * others, dtype=np.complex64)


@lru_cache(maxsize=4096)
def _stream(seed: int, tile: int, group: int) -> tuple[int, int]:
    """Where the noise stream of a tile's group of columns begins: state and increment of a PCG64
    of its own.
    """
    words = np.arange(4, dtype=np.uint64) + np.uint64(((tile << 20 | group) << 2) & _MASK)
    words *= np.uint64(_GOLDEN)
    key = [int(word) for word in _mix(words + _key(seed, Purpose.MULTIPLY))]
    # A PCG64 stream is chosen by its increment, which must be odd.
    return key[0] << 64 | key[1], key[2] << 64 | key[3] | 1


class VectorNoise:
    """Standard normal draws for the multiply vectors of one tile, numbered over the tile's life.

    Each is one of 16,384 levels (|z| <= 4.0). Vectors 2n and 2n + 1 get a pair of `_pairs` from 16
    bits of a PCG64 stream (O'Neill 2014, the DXSM output) keyed by (seed, tile, group of 8
    columns). 128 vectors of a group are one block of the stream, to which the generator jumps: a
    draw depends on seed, tile, column and vector number alone. About 1.3 ns each.
    """

    def __init__(self, seed: int, tile: int) -> None:
        self._seed, self._tile = seed, tile
        self._generator = np.random.PCG64DXSM(0)

    def draw(self, columns: slice, first: int, count: int) -> NDArray[np.float32]:
        """Draws of shape (columns, count) for columns `start` .. `stop` - 1 and vectors `first` ..
        `first` + `count` - 1.
        """
        block = first // _BLOCK
        blocks = -(-(first + count) // _BLOCK) - block
        pairs = np.empty((columns.stop - columns.start, blocks * _BLOCK // 2), dtype=np.complex64)
        for group in range(columns.start // _GROUP, -(-columns.stop // _GROUP)):
            state = self._generator.state
            state["state"]["state"], state["state"]["inc"] = _stream(self._seed, self._tile, group)
            self._generator.state = state
            self._generator.advance(block * _WORDS)
            words = self._generator.random_raw(blocks * _WORDS).astype("<u8", copy=False)
            bits = words.view("<u2").reshape(blocks, _GROUP, _BLOCK // 2).transpose(1, 0, 2)
            low = max(columns.start - group * _GROUP, 0)
            high = min(columns.stop - group * _GROUP, _GROUP)
            at = group * _GROUP - columns.start
            chosen = bits[low:high].reshape(high - low, -1) >> 16 - _LEVEL_BITS
            # There is a pair for every number, so "clip" clips none; it saves a copy.
            np.take(_pairs(), chosen, out=pairs[at + low : at + high], mode="clip")
        skip = first - block * _BLOCK
        return pairs.view(np.float32)[:, skip : skip + count]
