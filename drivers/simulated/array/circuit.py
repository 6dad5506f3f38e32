"""The exact solution of an array's network: ideal lines joined to nets, cells between them, sources
that have limits.

Every net's potential is bounded by the sources', and a cell's current rises with the potential of
its one end and falls with that of the other, so there is one solution. It is found by Newton's
method for the nets that float, inside a search for which sources are at their limit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rram_hil.simulation.config import BodyEffect
from rram_hil.types import FloatArray, IntArray

GATE_THRESHOLD_V, GATE_SPAN_V = 0.7, 0.5
"""A cell's transistor conducts from the first on, fully from the sum on; gate over the lower of BL
and SL.
"""
ENDLESS_A = 1e9
"""Limit of what has none: ground."""
_NOTHING_A = 1e-14
"""A net that lacks no more than this is in balance: behind closed transistors it may stand
anywhere.
"""
_NEWTON_STEPS = 80
_CREEPING_STEPS = 400
_LEAST_DAMPING_S = 1e-12
_TRUSTED_V = 0.25
_BEYOND_V = 1.0
"""How far beyond the sources' levels a potential may stray while the wrong sources are thought to
be at their limits.
"""
_SEARCHES = 20


@dataclass(frozen=True)
class Source:
    """One source on a net: holds `volts` while its current into the net stays in `low_a` ..
    `high_a`; then that limit flows.
    """

    net: int
    volts: float
    low_a: float
    high_a: float


@dataclass(frozen=True)
class Well:
    """The body of all transistors at `volts`. It shifts their threshold by gamma x
    (sqrt(surface + source - body) - sqrt(surface)), in `effect`'s terms, and takes no current.
    """

    effect: BodyEffect
    volts: float

    def shift(self, source_v: FloatArray) -> FloatArray:
        """What is added to the threshold (V) with sources at these potentials."""
        surface_v = self.effect.surface_v
        root = np.sqrt(np.maximum(surface_v + source_v - self.volts, 0.0))
        return np.asarray(self.effect.gamma * (root - np.sqrt(surface_v)), dtype=np.float64)

    def slope(self, source_v: FloatArray) -> FloatArray:
        """By how much that grows with the source (V/V)."""
        over = np.maximum(self.effect.surface_v + source_v - self.volts, 1e-9)
        return np.asarray(self.effect.gamma / (2 * np.sqrt(over)), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Branches:
    """The cells that join two different nets: nets of BL, SL and WL of each, shape (n,). In a 1R
    array `gated` is false. Without a `well` each transistor's body is at its source.
    """

    bl: IntArray
    sl: IntArray
    wl: IntArray
    gated: bool
    well: Well | None = None

    def currents(self, g_s: FloatArray, v: FloatArray) -> FloatArray:
        """Current (A) from BL to SL through each cell at the nets' potentials `v`."""
        drop = v[self.bl] - v[self.sl]
        return np.asarray(drop * g_s * self.opened(v), dtype=np.float64)

    def drops(self, v: FloatArray) -> FloatArray:
        """BL - SL of each cell (V)."""
        return np.asarray(v[self.bl] - v[self.sl], dtype=np.float64)

    def gates(self, v: FloatArray) -> FloatArray:
        """WL over the lower of BL and SL of each cell (V), less what the body adds to the
        threshold.
        """
        source = np.minimum(v[self.bl], v[self.sl])
        over = np.asarray(v[self.wl] - source, dtype=np.float64)
        return over if self.well is None else over - self.well.shift(source)

    def opened(self, v: FloatArray) -> FloatArray:
        """How far each cell's transistor is open, 0 to 1."""
        if not self.gated:
            return np.ones(self.bl.size)
        return np.clip((self.gates(v) - GATE_THRESHOLD_V) / GATE_SPAN_V, 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Solution:
    """Potential of every net (V), shape (n,), and each source's current into its net (A), in the
    order of the sources.

    `is_exact` is false where no solution was found: sources are then within their limits, and what
    they give does not add up.
    """

    volts: FloatArray
    amps: FloatArray
    is_exact: bool = True


class Stairs:
    """All sources of one net: current into it as a falling staircase of its potential, and where on
    it the net stands.

    Step 2k+1: held at `volts[k]`; step 2k: between two of them, driven by the constant current
    `amps[k]`.
    """

    def __init__(self, net: int, sources: list[Source]) -> None:
        self.net = net
        self.volts = sorted({s.volts for s in sources})
        passed = [0.0, *self.volts]
        self.amps = [
            sum(s.high_a if k == 0 or s.volts > passed[k] else s.low_a for s in sources)
            for k in range(len(self.volts) + 1)
        ]
        width = [self.amps[k] - self.amps[k + 1] for k in range(len(self.volts))]
        self.step = 2 * int(np.argmax(width)) + 1

    @property
    def held(self) -> float | None:
        """The potential at which a source holds the net; None where all are at their limits."""
        return self.volts[self.step // 2] if self.step % 2 else None

    @property
    def driven(self) -> float:
        """The constant current (A) where none holds."""
        return self.amps[self.step // 2]

    def wrong(self, volts: float, amps: float) -> tuple[float, int]:
        """How wrong the present step is at the net's potential and the current that it takes: 0 if
        right; and the step to try.
        """
        k = self.step // 2
        if self.step % 2:
            slack = 1e-9 * abs(amps) + 20 * _NOTHING_A
            if amps > self.amps[k] + slack:
                return amps - self.amps[k], self.step - 1
            if amps < self.amps[k + 1] - slack:
                return self.amps[k + 1] - amps, self.step + 1
            return 0.0, self.step
        slack = 1e-12 * (1 + abs(volts))
        if k > 0 and volts < self.volts[k - 1] - slack:
            return self.volts[k - 1] - volts, self.step - 1
        if k < len(self.volts) and volts > self.volts[k] + slack:
            return volts - self.volts[k], self.step + 1
        return 0.0, self.step


class Network:
    """Nets, the cells between them, and the sources on them. `leak_s` is every net's conductance to
    0 V, above zero.
    """

    def __init__(self, leak_s: FloatArray, branches: Branches, sources: list[Source]) -> None:
        self._leak, self._branches, self.sources = leak_s, branches, sources
        self.size = leak_s.size
        nets = sorted({s.net for s in sources})
        self._stairs = [Stairs(net, [s for s in sources if s.net == net]) for net in nets]
        levels = [0.0, *(s.volts for s in sources)]
        self.lowest, self.highest = min(levels), max(levels)
        b, s, w, n = branches.bl, branches.sl, branches.wl, self.size
        self._pairs = np.concatenate((b * n + b, b * n + s, s * n + b, s * n + s))
        self._gate_pairs = np.concatenate((b * n + w, s * n + w))
        # Nets that no cell joins and no source holds stand at 0 V; they need no search.
        self._joined = np.zeros(n, dtype=np.bool_)
        self._joined[b] = self._joined[s] = True

    @property
    def held(self) -> NDArray[np.bool_]:
        """Which nets a source holds at its potential, in the last solution; shape (nets,)."""
        is_held = np.zeros(self.size, dtype=np.bool_)
        is_held[[s.net for s in self._stairs if s.held is not None]] = True
        return is_held

    def solve(
        self, g_s: FloatArray, start: FloatArray | None = None, searches: int = _SEARCHES
    ) -> Solution:
        """The solution for these conductances of the cells (S), shape as the branches. `start` is a
        guess of the potentials.

        With one search the sources' limits must hold as in the last solution. Where a channel
        drives a word line and another line together and is at its limit, there may be no solution
        that the search finds.
        """
        v = np.zeros(self.size) if start is None else start.copy()
        been: set[tuple[int, ...]] = set()
        for attempt in range(searches):
            v, taken, is_settled = self._settled(g_s, v)
            pulls = [(*s.wrong(float(v[s.net]), float(taken[s.net])), s) for s in self._stairs]
            wrong = [f for f in pulls if f[0] > 0]
            if not wrong:
                return Solution(v, self._shared(taken), is_settled)
            here = tuple(s.step for s in self._stairs)
            if here in been:
                # All at once is fast, but may go round in circles; one at a time leads out.
                wrong = [wrong[attempt % len(wrong)]]
            been.add(here)
            for _, step, stairs in wrong:
                stairs.step = step
        return Solution(v, self._shared(taken), is_exact=False)

    def _settled(self, g_s: FloatArray, v: FloatArray) -> tuple[FloatArray, FloatArray, bool]:
        """Potentials with the sources as their stairs say, what each net takes (A), and whether
        that is in balance.
        """
        fed = np.zeros(self.size)
        is_free = self._joined.copy()
        np.clip(v, self.lowest, self.highest, out=v)
        v[~is_free] = 0.0
        for stairs in self._stairs:
            is_free[stairs.net] = stairs.held is None
            if stairs.held is not None:
                v[stairs.net] = stairs.held
            else:
                fed[stairs.net] = stairs.driven
        free = np.flatnonzero(is_free)
        taken, opened = self._taken(g_s, v)
        if free.size == 0:
            return v, taken, True
        low, high = self.lowest - _BEYOND_V, self.highest + _BEYOND_V
        trusted, last = np.full(free.size, _TRUSTED_V), np.zeros(free.size)
        for _ in range(_NEWTON_STEPS):
            missing = fed[free] - taken[free]
            step = np.linalg.solve(self._slopes(g_s, v)[np.ix_(free, free)], missing)
            before, here = opened, v[free]
            v[free] = np.clip(here + step, low, high)
            taken, opened = self._taken(g_s, v)
            if np.array_equal(before, opened) and np.all((opened == 0) | (opened == 1)):
                return v, taken, True
            # Where transistors open or close on the way the slopes are not to be trusted far, least
            # where a net goes to and fro.
            trusted = np.where(missing * last < 0, trusted / 2, np.minimum(2 * trusted, _TRUSTED_V))
            v[free] = np.clip(v[free], here - trusted, here + trusted)
            taken, opened = self._taken(g_s, v)
            last, missing = missing, fed[free] - taken[free]
            pinned = ((v[free] >= high) & (missing > 0)) | ((v[free] <= low) & (missing < 0))
            if np.all((np.abs(missing) <= _NOTHING_A + 1e-10 * np.abs(fed[free])) | pinned):
                return v, taken, True
        return self._crept(g_s, v, free, fed)

    def _crept(
        self, g_s: FloatArray, v: FloatArray, free: IntArray, fed: FloatArray
    ) -> tuple[FloatArray, FloatArray, bool]:
        """As `_settled`, from a start near it, in steps so small that what is missing becomes less
        with each.
        """
        at = np.arange(free.size)
        held_back = _LEAST_DAMPING_S
        taken, _ = self._taken(g_s, v)
        missing = fed[free] - taken[free]
        slopes = self._slopes(g_s, v)[np.ix_(free, free)]
        for _ in range(_CREEPING_STEPS):
            damped = slopes.copy()
            damped[at, at] += held_back
            trial = v.copy()
            trial[free] += np.linalg.solve(damped, missing)
            then_taken, _ = self._taken(g_s, trial)
            then_missing = fed[free] - then_taken[free]
            if not np.abs(then_missing).sum() < np.abs(missing).sum():
                held_back *= 8
                continue
            v, taken, missing = trial, then_taken, then_missing
            if np.all(np.abs(missing) <= _NOTHING_A + 1e-10 * np.abs(fed[free])):
                return v, taken, True
            held_back = max(held_back / 8, _LEAST_DAMPING_S)
            slopes = self._slopes(g_s, v)[np.ix_(free, free)]
        return v, taken, False

    def _taken(self, g_s: FloatArray, v: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Current that each net takes (A), and how far each cell is open."""
        n, branches = self.size, self._branches
        opened = branches.opened(v)
        current = branches.drops(v) * g_s * opened
        taken = self._leak * v
        taken += np.bincount(branches.bl, current, n)
        taken -= np.bincount(branches.sl, current, n)
        return taken, opened

    def _slopes(self, g_s: FloatArray, v: FloatArray) -> FloatArray:
        """Derivative of the currents taken by the potentials (S), shape (nets, nets)."""
        n, branches = self.size, self._branches
        opened = branches.opened(v)
        by_bl = g_s * opened
        by_sl = -by_bl
        flat = np.zeros(n * n)
        if branches.gated:
            drop = branches.drops(v)
            by_wl = np.where((opened > 0) & (opened < 1), g_s * drop / GATE_SPAN_V, 0.0)
            by_source = by_wl
            if branches.well is not None:
                source = np.minimum(v[branches.bl], v[branches.sl])
                by_source = by_wl * (1 + branches.well.slope(source))
            by_bl = by_bl - np.where(drop < 0, by_source, 0.0)
            by_sl = by_sl - np.where(drop >= 0, by_source, 0.0)
            if by_wl.any():
                flat += np.bincount(self._gate_pairs, np.concatenate((by_wl, -by_wl)), n * n)
        flat += np.bincount(self._pairs, np.concatenate((by_bl, by_sl, -by_bl, -by_sl)), n * n)
        slopes: NDArray[np.float64] = flat.reshape(n, n)
        slopes[np.arange(n), np.arange(n)] += self._leak
        return slopes

    def _shared(self, taken: FloatArray) -> FloatArray:
        """Each source's current: those that hold a net together share what is left in proportion to
        what they can give.
        """
        amps = np.zeros(len(self.sources))
        for stairs in self._stairs:
            passed = stairs.volts[: stairs.step // 2]
            own = [at for at, source in enumerate(self.sources) if source.net == stairs.net]
            holding = [at for at in own if self.sources[at].volts == stairs.held]
            for at in own:
                amps[at] = (
                    self.sources[at].low_a
                    if self.sources[at].volts in passed
                    else self.sources[at].high_a
                )
            left = float(taken[stairs.net]) - float(
                sum(amps[at] for at in own if at not in holding)
            )
            endless = [at for at in holding if self.sources[at].high_a >= ENDLESS_A]
            if endless or len(holding) == 1:
                amps[holding] = 0.0
                amps[endless or holding] = left / max(len(endless), 1)
                continue
            low = sum(self.sources[at].low_a for at in holding)
            high = sum(self.sources[at].high_a for at in holding)
            share = (left - low) / (high - low) if high > low else 0.0
            for at in holding:
                source = self.sources[at]
                amps[at] = source.low_a + share * (source.high_a - source.low_a)
        low_a, high_a = (
            np.array([s.low_a for s in self.sources]),
            np.array([s.high_a for s in self.sources]),
        )
        return np.clip(amps, low_a, high_a)
