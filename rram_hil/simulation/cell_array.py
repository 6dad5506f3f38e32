"""The cells of a simulated chip: what they conduct, what pulses do to them, what readings see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import STRICT, IntFlag

import numpy as np
from numpy.typing import NDArray

from rram_hil.array import Geometry, Scheme
from rram_hil.simulation.config import Simulation
from rram_hil.simulation.converters import Converters
from rram_hil.simulation.half_select import Exposure
from rram_hil.simulation.model import DeviceModel
from rram_hil.simulation.passive import pulse_v, read_s
from rram_hil.simulation.selectors import SPAN_V, THRESHOLD_V, Selectors
from rram_hil.simulation.state import ChipState
from rram_hil.simulation.wire_drops import behind_wires, lower_ohm, series_ohm
from rram_hil.types import FloatArray, IntArray

GATE_LEAK_S = 1e-12
"""Gate leakage of a healthy row: 3 pA at 3 V."""
FAULT_LEAK_S = 1e-6
"""Gate leakage of a cell whose gate oxide is broken."""
SHORT_S = 1e-2
"""Conductance of a shorted cell."""


class Fault(IntFlag, boundary=STRICT):
    """What may be wrong with a cell; a line's fault is its cells' fault (`Cells.block`)."""

    NONE = 0
    OPEN = 1
    SHORT = 2
    GATE_LEAK = 4


@dataclass(frozen=True, eq=False)
class Pulse:
    """One pulse on each of some cells, as it begins; made by `CellArray.begin`. Arrays (n,).

    Flat index, the pulse's event number, conductance before it (S), BL - SL and how far the gate is
    open (`Selectors.gate_v`; V), and what compliance lets a SET reach (S).
    """

    index: IntArray
    event: IntArray
    before_s: FloatArray
    drop_v: FloatArray
    gate_v: FloatArray
    cap_s: FloatArray

    def part(self, at: IntArray) -> Pulse:
        """The pulse on the cells at these positions."""
        return Pulse(*(getattr(self, column.name)[at] for column in fields(self)))


def gate_opening(gate_v: FloatArray) -> FloatArray:
    """Part of its current that a transistor passes with its gate so far (V) from its source, in the
    direction that opens it.
    """
    return np.asarray(np.clip((gate_v - THRESHOLD_V) / SPAN_V, 0.0, 1.0), dtype=np.float64)


class CellArray:
    """All cells of a chip: device model, draws and state. Indices are flat."""

    def __init__(
        self,
        geometry: Geometry,
        simulation: Simulation,
        model: DeviceModel,
        seed: int,
        state: ChipState,
    ) -> None:
        self.geometry = geometry
        self.simulation = simulation
        self.model = model
        self.seed = seed
        self.state = state
        self.traits = model.traits(seed, np.arange(geometry.size, dtype=np.int64))
        self.converters = Converters(simulation, geometry)
        self.selectors = Selectors(geometry.selector, simulation.body)
        untouched = state.programming == 0
        state.conductance_s[untouched] = self.traits.fixed_s[untouched]

    def relaxed(self, index: IntArray, now_s: FloatArray) -> FloatArray:
        """What healthy cells conduct (S) at these times (s)."""
        state = self.state
        g = state.conductance_s[index].astype(np.float64)
        if not self.model.relaxes:
            return g
        moved = np.flatnonzero(state.programming[index] > 0)
        at = index[moved]
        age = np.maximum(now_s[moved] - state.programmed_s[at], 0.0)
        g[moved] = self.model.relaxed(
            self.seed, at, state.programming[at].astype(np.int64), g[moved], age
        )
        return g

    def conducts(self, index: IntArray, now_s: FloatArray | None = None) -> FloatArray:
        """What the cells conduct (S), faults included, at these times (s); without them, now."""
        now = np.full(index.size, self.state.now[0]) if now_s is None else now_s
        g = self.converters.fixed(index, self.relaxed(index, now))
        fault = self.state.fault[index]
        if not fault.any():
            return g
        return np.where(fault & Fault.OPEN, 0.0, np.where(fault & Fault.SHORT, g + SHORT_S, g))

    def as_read(self, index: IntArray, g_s: FloatArray) -> FloatArray:
        """What one reading sees of the cells' conductances `g_s` (S): an event of each, with the
        noise of its number.
        """
        self.state.event[index] += 1
        if not self.simulation.read_noise:
            return g_s
        event = self.state.event[index].astype(np.int64)
        seen = self.model.as_read(self.seed, self.traits.part(index), event, g_s)
        return self.converters.fixed(index, seen)

    def read_moments(self, index: IntArray, g_s: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean (S) and variance (S^2) of many readings of cells that conduct `g_s`, telegraph steps
        included; a plain resistor has no noise.
        """
        mean, variance = self.model.read_moments(self.traits.telegraph[index], g_s)
        own = self.converters.fixed(index, np.full(index.size, np.nan))
        plain = np.isfinite(own)
        return np.where(plain, own, mean), np.where(plain, 0.0, variance)

    def read_through(self, index: IntArray, g_s: FloatArray) -> FloatArray:
        """Conductances as readings see them behind wires, transistors, leads and contacts."""
        if not self.shares_wires:
            return self.converters.behind(index, g_s)
        seen = np.empty(index.size)
        for mine, place, g in self._by_tile(index):
            own = g.ravel()[place]
            share = np.divide(
                read_s(g, place, self.simulation.line_ohm),
                own,
                out=np.ones_like(own),
                where=own > 0,
            )
            seen[mine] = share * g_s[mine]
        return np.asarray(seen / (1 + seen * self.converters.fixed_ohm))

    def gate_leak_s(self) -> FloatArray:
        """Leakage of every word line to ground (S), shape (tiles, rows); zero in an array without
        gates.
        """
        if self.geometry.cell == "1R":
            return np.zeros(self.geometry.shape[:2])
        leaks = (self.state.fault.reshape(self.geometry.shape) & Fault.GATE_LEAK != 0).sum(axis=2)
        return np.asarray(GATE_LEAK_S + FAULT_LEAK_S * leaks, dtype=np.float64)

    def gate_v(
        self,
        wl_v: FloatArray,
        bl_v: FloatArray,
        sl_v: FloatArray,
        body_v: float | None = None,
    ) -> FloatArray:
        """How far gates are open (V), as `Selectors.gate_v`; an array without gates always is."""
        if self.geometry.cell == "1R":
            return self.always_open(bl_v.shape)
        return self.selectors.gate_v(wl_v, bl_v, sl_v, body_v)

    def always_open(self, shape: tuple[int, ...]) -> FloatArray:
        """The gate volts of cells without gates."""
        return np.full(shape, self.model.set.gate_v[-1])

    def beside_a(
        self,
        index: IntArray,
        bl_v: FloatArray,
        sl_v: FloatArray,
        idle_v: float,
        body_v: float | None,
    ) -> FloatArray:
        """Current (A) into the bit line of each of these cells that flows through the cells of
        other rows, whose gates stand at `idle_v`; without read noise and wires.
        """
        geometry = self.geometry
        if geometry.cell == "1R":
            return np.zeros(index.size)
        # Source lines along the rows: those of other rows stand at 0 V.
        source = np.zeros(index.size) if geometry.source_lines == "row" else sl_v
        passed = gate_opening(self.gate_v(np.full(index.size, idle_v), bl_v, source, body_v))
        if not passed.any():
            return passed
        every = self.conducts(np.arange(geometry.size, dtype=np.int64)).reshape(geometry.shape)
        row, column = np.divmod(index, geometry.columns)
        tile = row // geometry.rows
        others = every.sum(axis=1)[tile, column] - every.ravel()[index]
        return np.asarray((bl_v - source) * passed * np.maximum(others, 0.0), dtype=np.float64)

    @property
    def shares_wires(self) -> bool:
        """Whether cells that are not selected conduct beside the selected one and load its
        wires.
        """
        return self.geometry.cell == "1R" and self.simulation.line_ohm > 0

    def before_wire(
        self, index: IntArray, bl_v: FloatArray, sl_v: FloatArray, scheme: Scheme
    ) -> FloatArray:
        """BL - SL (V) before the wires of each selected cell alone, that leave it what the whole 1R
        array's wires do.
        """
        line_ohm = self.simulation.line_ohm
        across = np.empty(index.size)
        for mine, place, g in self._by_tile(index):
            volts = pulse_v(g, place, bl_v[mine], sl_v[mine], scheme, line_ohm)
            series = series_ohm(index[mine], self.geometry, line_ohm)
            across[mine] = volts * (1 + g.ravel()[place] * series)
        return across

    def _by_tile(self, index: IntArray) -> Iterator[tuple[IntArray, IntArray, FloatArray]]:
        """Of cells, each tile's: their positions, their places in the tile, and what the tile
        conducts now (S).
        """
        shape = (self.geometry.rows, self.geometry.columns)
        tile, place = np.divmod(index, shape[0] * shape[1])
        every = np.arange(shape[0] * shape[1], dtype=np.int64)
        for k in np.unique(tile):
            mine = np.flatnonzero(tile == k)
            yield mine, place[mine], self.conducts(k * every.size + every).reshape(shape)

    def begin(
        self,
        index: IntArray,
        drop_v: FloatArray,
        gate_v: FloatArray,
        cap_s: float | FloatArray,
        now_s: FloatArray | None = None,
    ) -> Pulse:
        """A pulse that begins at these times (s; without them, now): an event of each cell, counted
        here. `act` lets it act.
        """
        now = np.full(index.size, self.state.now[0]) if now_s is None else now_s
        self.state.event[index] += 1
        event = self.state.event[index].astype(np.int64)
        cap = np.broadcast_to(cap_s, index.shape)
        return Pulse(index, event, self.relaxed(index, now), drop_v, gate_v, cap)

    def act(self, pulse: Pulse, width_s: float, ended_s: FloatArray) -> IntArray:
        """Let a pulse act that ends at these times (s); positions of the cells that it changed."""
        state, index = self.state, pulse.index
        live = (self.traits.stuck[index] == 0) & ((state.fault[index] & Fault.OPEN) == 0)
        changed = [np.zeros(0, dtype=np.int64)]
        for polarity in (1, -1):
            at = np.flatnonzero(live & (np.sign(pulse.drop_v) == polarity))
            if at.size == 0:
                continue
            part = pulse.part(at)
            after, formed = self._after(polarity, part, width_s)
            self._note_cycle(polarity, part, after)
            moved = at[after != part.before_s]
            state.formed[part.index[formed]] = True
            state.conductance_s[index[moved]] = after[after != part.before_s]
            state.programmed_s[index[moved]] = ended_s[moved]
            state.programming[index[moved]] = pulse.event[moved]
            changed.append(moved)
        return np.concatenate(changed)

    def half_select(self, exposure: Exposure) -> None:
        """What an operation's pulses did to cells beside the selected ones: pulses of theirs, that
        act as one as long as all.
        """
        for dose in exposure.doses():
            n = dose.index.size
            drop, gate = np.full(n, dose.drop_v), np.full(n, dose.gate_v)
            if self.geometry.cell == "1R":
                gate = self.always_open(drop.shape)
            pulse = self.begin(dose.index, drop, gate, dose.cap_s)
            self.act(pulse, dose.count * dose.width_s, np.full(n, self.state.now[0]))

    def _after(
        self, polarity: int, pulse: Pulse, width_s: float
    ) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Conductance and formed flag after a pulse of one polarity (1: SET) on all its cells."""
        index, state = pulse.index, self.state
        traits, formed, volts = self.traits.part(index), state.formed[index], np.abs(pulse.drop_v)
        cycle = state.cycle[index].astype(np.int64)
        broken = state.broken_s[index].astype(np.float64)
        done = state.cycles_done[index].astype(np.int64)

        def respond(at_v: FloatArray, gate_v: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
            before = (self.seed, traits, pulse.event, pulse.before_s, formed)
            if polarity > 0:
                return self.model.after_set(
                    *before, at_v, gate_v, width_s, pulse.cap_s, cycle=cycle
                )
            open_v = np.full(gate_v.shape, np.inf) if self.geometry.cell == "1R" else gate_v
            after = self.model.after_reset(
                *before, at_v, open_v, width_s, cycle=cycle, broken_s=broken, cycles_done=done
            )
            return after, formed

        line_ohm = self.simulation.line_ohm
        if line_ohm <= 0:
            return respond(volts, pulse.gate_v)
        series = series_ohm(index, self.geometry, line_ohm)
        # The source is the lower end of an NMOS, the higher one of a PMOS.
        source = polarity * self.geometry.polarity
        lower = lower_ohm(index, self.geometry, line_ohm, source)
        if self.geometry.cell == "1R":
            lower = np.zeros_like(lower)
        return behind_wires(
            respond, polarity, pulse.before_s, formed, volts, pulse.gate_v, series, lower
        )

    def _note_cycle(self, polarity: int, pulse: Pulse, after_s: FloatArray) -> None:
        """Note the cycles that a pulse begins: those of the filaments that a RESET breaks."""
        state, index = self.state, pulse.index
        was = state.broken_s[index].astype(np.float64)
        state.broken_s[index], begins = self.model.broken_after(
            polarity, pulse.before_s, after_s, was
        )
        state.cycle[index[begins]] = pulse.event[begins]
        state.cycles_done[index[begins]] += 1
