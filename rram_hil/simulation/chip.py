"""A simulated chip behind ideal line drivers: every operation of `rram_hil.array.operations`,
executed in the process.

Cells are handled one after the other on the virtual clock and all at once in NumPy. Every pulse
(|BL - SL| above the read limit) and every current reading is one event of its cell, and draws
depend on the cell's events only, so results do not depend on how work is split into operations, but
for cells beside the selected ones (`half_select.py`). Where the model relaxes, ages count too:
inside an operation with a stop condition and inside `Program`, whose later cells start when the
earlier ones are done, a cell's state is looked up as of the operation's start, and time then runs
with the cell's own steps.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rram_hil.array.cells import Cells, Geometry
from rram_hil.array.operations import (
    LINES,
    Apply,
    Multiply,
    Operation,
    Program,
    Span,
    Status,
    Step,
    Wait,
    WriteWords,
)
from rram_hil.array.results import (
    ApplyResult,
    MultiplyResult,
    ProgramResult,
    Result,
    WaitResult,
    WordsResult,
)
from rram_hil.array.write_verify_rules import Polarity, WriteVerify
from rram_hil.errors import AbortedError, ConfigError
from rram_hil.hardware.driver import Capabilities
from rram_hil.hardware.driver import Span as Range
from rram_hil.simulation import draws
from rram_hil.simulation.config import Simulation
from rram_hil.simulation.converters import ADC_RANGES_A, DAC_RANGE_V, DAC_STEP_V, Converters
from rram_hil.simulation.half_select import Exposure
from rram_hil.simulation.model import DeviceModel, Traits
from rram_hil.simulation.passive import pulse_v, read_s
from rram_hil.simulation.state import ChipState
from rram_hil.simulation.wire_drops import behind_wires, block_transfer, lower_ohm, series_ohm
from rram_hil.types import FloatArray, IntArray, StatusArray

GATE_LEAK_S = 1e-12
"""Gate leakage of a healthy row: 3 pA at 3 V."""
FAULT_LEAK_S = 1e-6
"""Gate leakage of a cell whose gate oxide is broken."""
SHORT_S = 1e-2
"""Conductance of a shorted cell."""
_BATCH = 16384
_SLICE_S = 0.02
_VECTORS = 8192


class Fault(IntFlag):
    """What may be wrong with a cell; a line's fault is its cells' fault (`Cells.block`)."""

    NONE = 0
    OPEN = 1
    SHORT = 2
    GATE_LEAK = 4


@dataclass(frozen=True, eq=False)
class StandingPulse:
    """One pulse that stands on cells since `started_s`; made by `SimulatedChip.begin_pulse`. Arrays
    of shape (n,).

    Flat index, BL - SL and gate over the lower of them (V), cap by compliance (S), the pulse's
    event number, and what the cell's state was when it began: conductance then (S), formed, the
    record of its last programming, and that of its filament.
    """

    started_s: float
    index: IntArray
    drop_v: FloatArray
    gate_v: FloatArray
    cap_s: FloatArray
    event: IntArray
    before_s: FloatArray
    formed: NDArray[np.bool_]
    conductance_s: NDArray[np.float32]
    programmed_s: FloatArray
    programming: NDArray[np.uint32]
    cycle: NDArray[np.uint32]
    broken_s: NDArray[np.float32]
    cycles_done: NDArray[np.uint32]


@dataclass(eq=False)
class _Batch:
    """Cells of one operation under way: flat indices, traits, each cell's own time (s).

    `exposure` collects what others feel of the operation's pulses; there the batch begins at
    `first`.
    """

    index: IntArray
    traits: Traits
    time_s: FloatArray
    programmed: NDArray[np.bool_]
    exposure: Exposure
    first: int


class SimulatedChip:
    """One simulated chip: device model, state, virtual clock. Direct and in the process; not safe
    for two threads at once.

    `read_v` is the bench's read limit: a step with |BL - SL| above it is a pulse. The state lives
    in memory, or in `simulation.state` (relative to `folder`). Limits are not checked here. Raises
    `ConfigError` for a wrong device model, `DataError` for a state file of another chip.
    """

    def __init__(
        self,
        geometry: Geometry,
        simulation: Simulation,
        *,
        read_v: float,
        chip_id: str,
        folder: Path = Path("."),
    ) -> None:
        self.geometry = geometry
        self.simulation = simulation
        self.chip_id = chip_id
        self.read_v = read_v
        self.model = DeviceModel.load(simulation.device, folder)
        identity: dict[str, Any] = {
            "chip": chip_id,
            "seed": simulation.seed,
            "tiles": geometry.tiles,
            "rows": geometry.rows,
            "columns": geometry.columns,
            "cell": geometry.cell,
            "device": f"{self.model.name} {self.model.digest}",
        }
        path = None if simulation.state is None else folder / simulation.state
        self._state = ChipState(geometry, path, identity)
        name = f"{simulation.seed}:{chip_id}".encode()
        self._seed = int.from_bytes(hashlib.sha256(name).digest()[:8], "little")
        self._traits = self.model.traits(self._seed, np.arange(geometry.size, dtype=np.int64))
        untouched = self._state.programming == 0
        self._state.conductance_s[untouched] = self._traits.fixed_s[untouched]
        self._wired: tuple[bytes, FloatArray] | None = None
        self._converters = Converters(simulation, geometry)

    @property
    def capabilities(self) -> Capabilities:
        """What this chip with its ideal drivers can do; a driver in front of it narrows `max_cells`
        and the link.
        """
        timing = self.simulation.timing
        volts = Range(-DAC_RANGE_V, DAC_RANGE_V, DAC_STEP_V if self.simulation.converters else 0.0)
        return Capabilities(
            bl_v=volts,
            sl_v=volts,
            wl_v=volts,
            width_s=Range(10e-9, 1.0, 0.0),
            max_cells=1 << 20,
            max_steps=4096,
            program=True,
            multiply=True,
            input_bits=8,
            adc_bits=self.simulation.adc_bits,
            max_vectors=1 << 20,
            words=self.geometry.size,
            word_bits=self.simulation.word_bits,
            max_words=1 << 20,
            gate_current=True,
            compliance=True,
            counters=True,
            abort_s=0.1,
            clock="virtual",
            link="direct",
            timing=timing.model_dump(),
        )

    @property
    def now_s(self) -> float:
        """The virtual clock (s)."""
        return float(self._state.now[0])

    def advance(self, seconds: float) -> None:
        """Let virtual time pass, outputs at zero."""
        self._state.now[0] += seconds

    @property
    def last_number(self) -> int:
        """The highest operation number seen; 0 on a new chip."""
        return int(self._state.last[0])

    def last_numbers(self, cells: Cells) -> IntArray:
        """Number of the last operation that reached each cell, shape (n,); 0 for none."""
        return self._state.number[cells.index(self.geometry)].astype(np.int64)

    def executed(self, number: int, cells: Cells) -> IntArray:
        """Pulses that operation `number` gave each cell, shape (n,); 0 for cells that a later
        operation has reached.
        """
        index = cells.index(self.geometry)
        same = self._state.number[index] == number
        return np.where(same, self._state.number_pulses[index], 0).astype(np.int64)

    @property
    def pulses(self) -> IntArray:
        """Pulses that each cell has ever taken, shape geometry.shape."""
        return self._state.pulses.astype(np.int64).reshape(self.geometry.shape)

    @property
    def formed(self) -> NDArray[np.bool_]:
        """Which cells have been formed, shape geometry.shape."""
        return self._state.formed.copy().reshape(self.geometry.shape)

    @property
    def stuck(self) -> NDArray[np.int8]:
        """1 stuck low-resistance, -1 stuck high-resistance, 0 responsive; shape geometry.shape."""
        return self._traits.stuck.copy().reshape(self.geometry.shape)

    @property
    def words(self) -> NDArray[np.int32]:
        """The on-chip words, shape geometry.shape."""
        return self._state.word.copy().reshape(self.geometry.shape)

    def conductance_s(self) -> FloatArray:
        """What every cell conducts now (S), relaxed and with its faults, without read noise; shape
        geometry.shape.
        """
        index = np.arange(self.geometry.size, dtype=np.int64)
        return self._conducts(index).reshape(self.geometry.shape)

    def _conducts(self, index: IntArray) -> FloatArray:
        return self._with_faults(index, self._relaxed(index, np.full(index.size, self.now_s)))

    # What instruments in front of the array do to it: levels stand as long as they stand
    # (drivers/simulated/_array.py).

    def conducts(self, index: IntArray) -> FloatArray:
        """What the cells at these flat indices conduct now (S), as `conductance_s`."""
        return self._conducts(index)

    def as_read(self, index: IntArray, g_s: FloatArray) -> FloatArray:
        """What one reading sees of the cells' conductances `g_s` (S): an event of each, with the
        noise of its number.
        """
        self._state.event[index] += 1
        if not self.simulation.read_noise:
            return g_s
        event = self._state.event[index].astype(np.int64)
        seen = self.model.as_read(self._seed, self._traits.part(index), event, g_s)
        return self._converters.fixed(index, seen)

    def behind(self, index: IntArray, g_s: FloatArray) -> FloatArray:
        """Conductances as single readings see them: wire, transistor, leads and contacts in
        series.
        """
        return self._converters.behind(index, g_s)

    def gate_leak_s(self) -> FloatArray:
        """Leakage of every word line to ground (S), shape (tiles, rows); zero in an array without
        gates.
        """
        if self.geometry.cell == "1R":
            return np.zeros(self.geometry.shape[:2])
        leaks = (self._state.fault.reshape(self.geometry.shape) & Fault.GATE_LEAK != 0).sum(axis=2)
        return np.asarray(GATE_LEAK_S + FAULT_LEAK_S * leaks, dtype=np.float64)

    def begin_pulse(
        self, index: IntArray, drop_v: FloatArray, gate_v: FloatArray, cap_s: FloatArray
    ) -> StandingPulse:
        """Levels that stand on cells from now on: one pulse and one event of each, counted here.
        `extend_pulse` lets it act.

        `drop_v` is BL - SL, `gate_v` WL above the lower of them (ignored in a 1R array), `cap_s`
        what compliance lets a SET reach.
        """
        state = self._state
        state.pulses[index] += 1
        state.event[index] += 1
        if self.geometry.cell == "1R":
            gate_v = self._gate(None, drop_v)
        return StandingPulse(
            self.now_s,
            index,
            drop_v,
            gate_v,
            cap_s,
            state.event[index].astype(np.int64),
            self._relaxed(index, np.full(index.size, self.now_s)),
            state.formed[index],
            state.conductance_s[index],
            state.programmed_s[index],
            state.programming[index],
            state.cycle[index],
            state.broken_s[index],
            state.cycles_done[index],
        )

    def extend_pulse(self, pulse: StandingPulse) -> None:
        """Let a standing pulse act as one of the width that it has stood until now, whatever it had
        done before.
        """
        state, width_s = self._state, self.now_s - pulse.started_s
        if not width_s > 0:
            return
        state.conductance_s[pulse.index] = pulse.conductance_s
        state.programmed_s[pulse.index] = pulse.programmed_s
        state.programming[pulse.index] = pulse.programming
        state.formed[pulse.index] = pulse.formed
        state.cycle[pulse.index], state.broken_s[pulse.index] = pulse.cycle, pulse.broken_s
        state.cycles_done[pulse.index] = pulse.cycles_done
        self._act(
            pulse.index,
            pulse.event,
            pulse.before_s,
            pulse.drop_v,
            pulse.gate_v,
            width_s,
            pulse.cap_s,
            np.full(pulse.index.size, self.now_s),
        )

    def inject(self, fault: Fault, cells: Cells) -> None:
        """Give cells a fault, for tests: their conductance or their row's gate leakage then shows
        it. NONE repairs.
        """
        self._state.fault[cells.index(self.geometry)] = int(fault)

    def close(self) -> None:
        """Bring a state file to the disk. Safe to call twice."""
        self._state.flush()

    def execute(
        self, operation: Operation, number: int, cancel: threading.Event | None = None
    ) -> Result:
        """Carry out one operation under its number.

        When `cancel` is set, `Apply` and `Program` stop between cells and return what was done,
        status NOT_RUN for the rest; `Wait` ends early; `Multiply`, which changes nothing, raises
        `AbortedError`. Raises `ConfigError` for cells off the chip.
        """
        cancel = cancel if cancel is not None else threading.Event()
        if number > self.last_number:
            self._state.last[0] = number
        if isinstance(operation, Apply):
            return self._apply(operation, number, cancel)
        if isinstance(operation, Program):
            return self._program(operation, number, cancel)
        if isinstance(operation, Multiply):
            return self._multiply(operation, cancel)
        if isinstance(operation, WriteWords):
            return self._write_words(operation)
        return self._wait(operation, cancel)

    def _step_s(self, step: Step) -> float:
        timing = self.simulation.timing
        conversion = timing.conversion_s if step.measure != "no" else 0.0
        return 2 * timing.edge_s + timing.settle_s + step.width_s + conversion

    def _pass(self, seconds: float, cancel: threading.Event) -> float:
        """Advance the clock, spending wall time where the bench is paced; returns what passed
        before a cancel.
        """
        pace, left = self.simulation.pace, seconds
        if pace > 0:
            while left > 0 and not cancel.is_set():
                part = min(left, _SLICE_S / pace)
                time.sleep(part * pace)
                left -= part
            left = max(left, 0.0)
        else:
            left = 0.0
        return seconds - left

    def _batch_size(self, cell_s: float) -> int:
        """Cells between two looks at `cancel`: at most about 50 ms of wall time where the bench is
        paced.
        """
        if self.simulation.pace <= 0:
            return _BATCH
        return int(np.clip(0.05 / (cell_s * self.simulation.pace), 1, _BATCH))

    def _begin(
        self, index: IntArray, number: int, time_s: FloatArray, exposure: Exposure, first: int
    ) -> _Batch:
        self._state.number_pulses[index] = 0
        self._state.number[index] = number
        programmed = np.zeros(index.size, dtype=np.bool_)
        return _Batch(index, self._traits.part(index), time_s, programmed, exposure, first)

    def _end(self, batch: _Batch, started_s: FloatArray, from_s: float) -> tuple[FloatArray, float]:
        """Move cells that shared a start to their places one after the other; returns each cell's
        shift and the duration.
        """
        took = batch.time_s - started_s
        shift = from_s + np.cumsum(took) - took - started_s
        moved = batch.index[batch.programmed]
        self._state.programmed_s[moved] += shift[batch.programmed]
        return shift, float(took.sum())

    def _relaxed(self, index: IntArray, now_s: FloatArray) -> FloatArray:
        state = self._state
        g = state.conductance_s[index].astype(np.float64)
        if not self.model.relaxes:
            return g
        moved = np.flatnonzero(state.programming[index] > 0)
        at = index[moved]
        age = np.maximum(now_s[moved] - state.programmed_s[at], 0.0)
        g[moved] = self.model.relaxed(
            self._seed, at, state.programming[at].astype(np.int64), g[moved], age
        )
        return g

    def _with_faults(self, index: IntArray, g_s: FloatArray) -> FloatArray:
        g_s = self._converters.fixed(index, g_s)
        fault = self._state.fault[index]
        if not fault.any():
            return g_s
        g_s = np.where(fault & Fault.SHORT, g_s + SHORT_S, g_s)
        return np.where(fault & Fault.OPEN, 0.0, g_s)

    def _step(
        self, batch: _Batch, at: IntArray, step: Step, compliance_a: float | None
    ) -> tuple[FloatArray, FloatArray, StatusArray] | None:
        """One step on the cells at positions `at` of a batch (`step` has one level a cell of these,
        or one for all).
        """
        n = at.size
        asked = step.cell_v(n)
        pulsing = np.abs(asked) > self.read_v
        level = self._converters.level
        bl, sl, wl = (level(step.levels(line, n), line) for line in LINES)
        floating = bl is None or sl is None
        bl = np.zeros(n) if bl is None else bl
        sl = np.zeros(n) if sl is None else sl
        drop = np.zeros(n) if floating else bl - sl
        gate = self._gate(wl, np.minimum(bl, sl))
        if pulsing.any():
            cap = np.inf if compliance_a is None else compliance_a / self.model.compliance_v
            stressed, reaching = at[pulsing], drop[pulsing]
            if batch.exposure.disturbs and not floating:
                closed = np.zeros(n) if wl is None else wl
                levels = bl[pulsing], sl[pulsing], closed[pulsing]
                batch.exposure.note(batch.first + stressed, *levels, step.width_s, cap)
                if self._shares_wires:
                    reaching = self._before_wire(batch, stressed, *levels[:2])
            self._pulse(batch, stressed, reaching, gate[pulsing], step.width_s, cap)
        batch.time_s[at] += self._step_s(step)
        if step.measure == "no":
            return None
        if step.measure == "gate":
            return self._gate_reading(batch.index[at], np.zeros(n) if wl is None else wl)
        return self._reading(batch, at, asked, drop, gate, floating, compliance_a)

    @property
    def _shares_wires(self) -> bool:
        """Whether cells that are not selected conduct beside the selected one and load its
        wires.
        """
        return self.geometry.cell == "1R" and self.simulation.line_ohm > 0

    def _by_tile(self, index: IntArray) -> Iterator[tuple[IntArray, IntArray, FloatArray]]:
        """Of cells, each tile's: their positions, their places in the tile, and what the tile
        conducts now (S).
        """
        shape = (self.geometry.rows, self.geometry.columns)
        tile, place = np.divmod(index, shape[0] * shape[1])
        every = np.arange(shape[0] * shape[1], dtype=np.int64)
        for k in np.unique(tile):
            mine = np.flatnonzero(tile == k)
            yield mine, place[mine], self._conducts(k * every.size + every).reshape(shape)

    def _before_wire(
        self, batch: _Batch, at: IntArray, bl_v: FloatArray, sl_v: FloatArray
    ) -> FloatArray:
        """BL - SL (V) before the wires of each selected cell alone, that leave it what the whole 1R
        array's wires do.
        """
        index, line_ohm = batch.index[at], self.simulation.line_ohm
        across = np.empty(index.size)
        for mine, place, g in self._by_tile(index):
            found = pulse_v(g, place, bl_v[mine], sl_v[mine], batch.exposure.scheme, line_ohm)
            across[mine] = found * (
                1 + g.ravel()[place] * series_ohm(index[mine], self.geometry, line_ohm)
            )
        return across

    def _gate(self, wl: FloatArray | None, lower: FloatArray) -> FloatArray:
        """Gate volts above the lower of BL and SL; an array without gates is always open."""
        if self.geometry.cell == "1R":
            return np.full(lower.shape, self.model.set.gate_v[-1])
        return -lower if wl is None else wl - lower

    def _pulse(
        self,
        batch: _Batch,
        at: IntArray,
        drop_v: FloatArray,
        gate_v: FloatArray,
        width_s: float,
        cap_s: float,
    ) -> None:
        """Count the pulse, then let it act: a killed process has counted at least what it did."""
        state = self._state
        index, began = batch.index[at], batch.time_s[at]
        state.number_pulses[index] += 1
        state.pulses[index] += 1
        state.event[index] += 1
        event, cap = state.event[index].astype(np.int64), np.full(index.size, cap_s)
        ended = began + 2 * self.simulation.timing.edge_s + width_s
        changed = self._act(
            index, event, self._relaxed(index, began), drop_v, gate_v, width_s, cap, ended
        )
        batch.programmed[at[changed]] = True

    def _act(
        self,
        index: IntArray,
        event: IntArray,
        before_s: FloatArray,
        drop_v: FloatArray,
        gate_v: FloatArray,
        width_s: float,
        cap_s: FloatArray,
        ended_s: FloatArray,
    ) -> IntArray:
        """Let a pulse with BL - SL = `drop_v` that is event `event` of each cell act; positions of
        the cells that it changed.
        """
        state = self._state
        live = (self._traits.stuck[index] == 0) & ((state.fault[index] & Fault.OPEN) == 0)
        found = []
        for polarity in (1, -1):
            at = np.flatnonzero(live & (np.sign(drop_v) == polarity))
            if at.size == 0:
                continue
            cells, before = index[at], before_s[at]
            after, formed = self._after(
                polarity,
                self._traits.part(cells),
                event[at],
                before,
                state.formed[cells],
                np.abs(drop_v[at]),
                gate_v[at],
                width_s,
                cap_s[at],
            )
            self._note_cycle(polarity, cells, event[at], before, after)
            moved = at[after != before]
            state.formed[cells[formed]] = True
            state.conductance_s[index[moved]] = after[after != before]
            state.programmed_s[index[moved]] = ended_s[moved]
            state.programming[index[moved]] = event[moved]
            found.append(moved)
        return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)

    def _half_select(self, exposure: Exposure) -> None:
        """What an operation's pulses did to cells beside the selected ones: pulses of theirs, that
        act as one as long as all.
        """
        state = self._state
        for dose in exposure.doses():
            index, n = dose.index, dose.index.size
            state.event[index] += 1
            event, now = state.event[index].astype(np.int64), np.full(n, self.now_s)
            drop = np.full(n, dose.drop_v)
            gate = self._gate(None, drop) if self.geometry.cell == "1R" else np.full(n, dose.gate_v)
            before, cap = self._relaxed(index, now), np.full(n, dose.cap_s)
            self._act(index, event, before, drop, gate, dose.count * dose.width_s, cap, now)

    def _after(
        self,
        polarity: int,
        traits: Traits,
        event: IntArray,
        before_s: FloatArray,
        formed: NDArray[np.bool_],
        volts: FloatArray,
        over: FloatArray,
        width_s: float,
        cap_s: float | FloatArray,
    ) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Conductance and formed flag after one pulse of a polarity (1: SET) with |BL - SL| =
        `volts`, gate `over` the lower.
        """
        cycle = self._state.cycle[traits.index].astype(np.int64)
        broken = self._state.broken_s[traits.index].astype(np.float64)
        done = self._state.cycles_done[traits.index].astype(np.int64)

        def respond(at_v: FloatArray, gate_v: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
            if polarity > 0:
                return self.model.after_set(
                    self._seed,
                    traits,
                    event,
                    before_s,
                    formed,
                    at_v,
                    gate_v,
                    width_s,
                    cap_s,
                    cycle=cycle,
                )
            open_v = np.full(gate_v.shape, np.inf) if self.geometry.cell == "1R" else gate_v
            pulse = (self._seed, traits, event, before_s, formed, at_v, open_v, width_s)
            after = self.model.after_reset(*pulse, cycle=cycle, broken_s=broken, cycles_done=done)
            return after, formed

        line_ohm = self.simulation.line_ohm
        if line_ohm <= 0:
            return respond(volts, over)
        series = series_ohm(traits.index, self.geometry, line_ohm)
        lower = lower_ohm(traits.index, self.geometry, line_ohm, polarity)
        if self.geometry.cell == "1R":
            lower = np.zeros_like(lower)
        return behind_wires(respond, polarity, before_s, formed, volts, over, series, lower)

    def _note_cycle(
        self,
        polarity: int,
        index: IntArray,
        event: IntArray,
        before_s: FloatArray,
        after_s: FloatArray,
    ) -> None:
        """A RESET that breaks a filament begins a cycle of the cell."""
        state = self._state
        was = state.broken_s[index].astype(np.float64)
        state.broken_s[index], broke = self.model.broken_after(polarity, before_s, after_s, was)
        state.cycle[index[broke]] = event[broke]
        state.cycles_done[index[broke]] += 1

    def _gate_reading(
        self, index: IntArray, wl_v: FloatArray
    ) -> tuple[FloatArray, FloatArray, StatusArray]:
        leaks = (
            (self._state.fault.reshape(self.geometry.shape) & Fault.GATE_LEAK != 0)
            .sum(axis=2)
            .ravel()
        )
        has_gate = 0.0 if self.geometry.cell == "1R" else 1.0
        current = (
            has_gate * wl_v * (GATE_LEAK_S + FAULT_LEAK_S * leaks[index // self.geometry.columns])
        )
        status = np.full(index.size, Status.OK, dtype=np.uint8)
        return current, np.full(index.size, np.nan), status

    def _reading(
        self,
        batch: _Batch,
        at: IntArray,
        asked: FloatArray,
        drop: FloatArray,
        gate: FloatArray,
        floating: bool,
        compliance_a: float | None,
    ) -> tuple[FloatArray, FloatArray, StatusArray]:
        """One current reading of each cell: noise, wires, gate, compliance, range, conversion.

        The current flows at `drop`, the volts that the converters really give; the conductance is
        current / `asked`.
        """
        index = batch.index[at]
        self._state.event[index] += 1
        g = self._with_faults(index, self._relaxed(index, batch.time_s[at]))
        if self.simulation.read_noise:
            g = self.model.as_read(
                self._seed, batch.traits.part(at), self._state.event[index].astype(np.int64), g
            )
        g = self._converters.fixed(index, g)
        g = self._through_shared_wires(index, g) if self._shares_wires else self.behind(index, g)
        current = drop * g * np.clip((gate - 0.7) / 0.5, 0.0, 1.0)
        status = np.full(index.size, Status.OK, dtype=np.uint8)
        if compliance_a is not None:
            status[np.abs(current) > compliance_a] = Status.COMPLIANCE
            current = np.clip(current, -compliance_a, compliance_a)
        status[np.abs(current) > ADC_RANGES_A[-1]] = Status.OVER_RANGE
        current = np.clip(current, -ADC_RANGES_A[-1], ADC_RANGES_A[-1])
        current = self._converters.reading(current)
        if floating:
            status[:] = Status.NOT_A_NUMBER
        status[(asked == 0) & (status == Status.OK)] = Status.NOT_A_NUMBER
        usable = (status == Status.OK) | (status == Status.COMPLIANCE)
        conductance = np.full(index.size, np.nan)
        np.divide(current, asked, out=conductance, where=usable)
        return current, conductance, status

    def _through_shared_wires(self, index: IntArray, g_s: FloatArray) -> FloatArray:
        """What readings of a 1R array's cells show (S), all lines but their own at ground; `g_s`
        with each reading's noise.
        """
        found = np.empty(index.size)
        for mine, place, g in self._by_tile(index):
            own = g.ravel()[place]
            share = np.divide(
                read_s(g, place, self.simulation.line_ohm),
                own,
                out=np.ones_like(own),
                where=own > 0,
            )
            found[mine] = share * g_s[mine]
        return np.asarray(found / (1 + found * self._converters.fixed_ohm))

    def _apply(self, operation: Apply, number: int, cancel: threading.Event) -> ApplyResult:
        cells, n, m = operation.cells, len(operation.cells), operation.measurements
        index = cells.index(self.geometry)
        started = self.now_s
        current, conductance, stamps = (np.full((n, m), np.nan) for _ in range(3))
        status = np.full((n, m), Status.NOT_RUN, dtype=np.uint8)
        pulses, reads = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        cell_s = operation.repeat * sum(self._step_s(step) for step in operation.steps)
        exposure = Exposure(index, self.geometry, operation.unselected, self.read_v)
        for place, _ in cells.batches(self._batch_size(cell_s)):
            if cancel.is_set():
                break
            part = operation.part(place)
            size = len(part.cells)
            from_s = self.now_s
            slots = np.zeros(size) if part.stop is not None else cell_s * np.arange(size)
            base = np.asarray(
                (started if part.stop is not None else from_s) + slots, dtype=np.float64
            )
            batch = self._begin(index[place], number, base.copy(), exposure, place.start)
            self._run_steps(
                part,
                batch,
                current[place],
                conductance[place],
                status[place],
                stamps[place],
                reads[place],
            )
            shift, took = self._end(batch, base, from_s)
            stamps[place] += shift[:, None]
            pulses[place] = self._state.number_pulses[batch.index]
            self._pass(took, cancel)
            self._state.now[0] = from_s + took
        self._half_select(exposure)
        return ApplyResult(
            current, conductance, status, stamps, pulses, reads, Span(started, self.now_s)
        )

    def _run_steps(
        self,
        operation: Apply,
        batch: _Batch,
        current: FloatArray,
        conductance: FloatArray,
        status: StatusArray,
        stamps: FloatArray,
        reads: IntArray,
    ) -> None:
        """All steps of a batch, into the (views of the) result arrays; a stopped cell takes no
        further step.
        """
        active = np.arange(batch.index.size)
        m = 0
        for _ in range(operation.repeat):
            for step in operation.steps:
                whole = active.size == batch.index.size
                found = self._step(
                    batch, active, step if whole else step.part(active), operation.compliance_a
                )
                if found is None:
                    continue
                current[active, m], conductance[active, m], status[active, m] = found
                stamps[active, m] = batch.time_s[active]
                reads[active] += 1
                m += 1
                if operation.stop is not None and step.measure == "current":
                    active = active[~_stops(operation, active, found[1], found[2])]
                if active.size == 0:
                    return

    def _program(self, operation: Program, number: int, cancel: threading.Event) -> ProgramResult:
        cells, n = operation.cells, len(operation.cells)
        index = cells.index(self.geometry)
        started = self.now_s
        conductance, status = np.full(n, np.nan), np.full(n, Status.NOT_RUN, dtype=np.uint8)
        inside = np.zeros(n, dtype=np.bool_)
        counts = np.zeros((3, n), dtype=np.int64)
        exposure = Exposure(index, self.geometry, operation.unselected, self.read_v)
        for place, _ in cells.batches(self._batch_size(10 * self._step_s(operation.read))):
            if cancel.is_set():
                break
            part = operation.part(place)
            from_s = self.now_s
            base = np.full(len(part.cells), started)
            batch = self._begin(index[place], number, base.copy(), exposure, place.start)
            found = self._verify(part, batch)
            _, took = self._end(batch, base, from_s)
            conductance[place], status[place], inside[place] = (
                found.conductance_s,
                found.status,
                found.inside,
            )
            counts[:, place] = found.set_pulses, found.reset_pulses, found.reads
            self._pass(took, cancel)
            self._state.now[0] = from_s + took
        self._half_select(exposure)
        span = Span(started, self.now_s)
        return ProgramResult(conductance, status, inside, counts[0], counts[1], counts[2], span)

    def _verify(self, operation: Program, batch: _Batch) -> ProgramResult:
        """Read-verify-write of one batch, round by round."""
        rules = WriteVerify(operation)
        polarities: tuple[Polarity, Polarity] = (1, -1)
        while (at := rules.reading()).size:
            found = self._step(batch, at, operation.read.part(at), operation.compliance_a)
            assert found is not None
            rules.take(at, found[1], found[2])
            for polarity in polarities:
                due, step = rules.pulses(polarity)
                if due.size:
                    self._step(batch, due, step, operation.compliance_a)
                    rules.given(due, polarity)
        return rules.result(Span())

    def _multiply(self, operation: Multiply, cancel: threading.Event) -> MultiplyResult:
        geometry, timing = self.geometry, self.simulation.timing
        rows = slice(operation.row, operation.row + operation.rows)
        columns = slice(operation.column, operation.column + operation.columns)
        if not (
            0 <= operation.tile < geometry.tiles
            and 0 <= rows.start < rows.stop <= geometry.rows
            and 0 <= columns.start < columns.stop <= geometry.columns
        ):
            raise ConfigError(
                f"multiply: tile {operation.tile}, rows {rows.start}..{rows.stop - 1}, columns"
                f" {columns.start}..{columns.stop - 1} is off the chip of {geometry.shape} (tiles,"
                " rows, columns)"
            )
        started = self.now_s
        index = operation.cells.index(geometry)
        g = self._conducts(index).reshape(operation.rows, operation.columns)
        variance = self.model.noise_s(g) ** 2 if self.simulation.read_noise else None
        if variance is not None and self._converters.resistors is not None:
            variance[np.isin(index, self._converters.resistors[0]).reshape(variance.shape)] = 0.0
        if self._converters.access_ohm > 0:
            left = 1 / (1 + g * self._converters.access_ohm)
            g = g * left
            variance = None if variance is None else variance * left**4
        if self.simulation.line_ohm > 0:
            transfer = self._transfer(g, operation)
            # dG_eff/dG = (G_eff/G)^2 for a wire in series; how cells share their wires' drops is
            # second order here.
            seen = np.divide(transfer, g, out=np.ones_like(g), where=g > 0)
            variance = None if variance is None else variance * seen**4
            g = transfer
        volts = operation.read_v / ((1 << (operation.input_bits - 1)) - 1)
        lsb = operation.full_scale_a / ((1 << (self.simulation.adc_bits - 1)) - 1)
        matrix = np.ascontiguousarray(g.T * (volts / lsb))
        spread = None if variance is None else (variance.T * (volts / lsb) ** 2).astype(np.float32)
        top = (1 << (self.simulation.adc_bits - 1)) - 1
        vectors = int(operation.inputs.shape[0])
        # Kept with all vectors of one column together, as the products give them: no transposed
        # copies.
        codes = np.empty((operation.columns, vectors), dtype=np.int32)
        sums = np.zeros((operation.columns, vectors), dtype=np.int64) if operation.words else None
        words = self._state.word.reshape(geometry.shape)[operation.tile, rows, columns]
        wordy = np.flatnonzero(words.any(axis=0))
        exact_words = np.ascontiguousarray(words[:, wordy].T, dtype=np.float64)
        vector_s = timing.multiply_s
        chunk = min(_VECTORS, self._batch_size(vector_s)) if self.simulation.pace > 0 else _VECTORS
        saturated = 0
        for first in range(0, vectors, chunk):
            if cancel.is_set():
                raise AbortedError("multiply: stopped; no cell was changed")
            share = slice(first, min(first + chunk, vectors))
            # Products in double precision do not depend on how the vectors are split: codes agree
            # to the last bit.
            x = operation.inputs[share].T.astype(np.float64)
            found = matrix @ x
            if spread is not None:
                self._add_noise(
                    operation,
                    found,
                    spread @ np.square(operation.inputs[share].T, dtype=np.float32),
                )
            self._amplify(found, columns, top)
            np.rint(found, out=found)
            if found.size and max(float(found.max()), -float(found.min())) > top:
                saturated += int(np.count_nonzero(np.abs(found) > top))
                np.clip(found, -top, top, out=found)
            codes[:, share] = found
            if sums is not None and wordy.size:
                sums[wordy, share] = exact_words @ x
            self._state.vectors[operation.tile] += share.stop - share.start
            self._pass(vector_s * (share.stop - share.start), cancel)
            self.advance(vector_s * (share.stop - share.start))
        word_sums = None if sums is None else sums.T
        return MultiplyResult(codes.T, lsb, word_sums, saturated, span=Span(started, self.now_s))

    def _amplify(self, found: FloatArray, columns: slice, top: int) -> None:
        """Gain and offset errors of the column amplifiers on codes of shape (columns, vectors)."""
        gain, offset = self._converters.column_gain, self._converters.column_offset
        if gain is not None:
            found *= 1 + gain[columns, None]
        if offset is not None:
            found += top * offset[columns, None]

    def _transfer(self, g: FloatArray, operation: Multiply) -> FloatArray:
        """The block's effective conductances behind its wires; the last one is kept, for a solve
        takes seconds.
        """
        key = hashlib.sha256(
            g.tobytes() + repr((operation.row, operation.column, g.shape)).encode()
        ).digest()
        if self._wired is None or self._wired[0] != key:
            found = block_transfer(
                g, operation.row, operation.column, self.geometry, self.simulation.line_ohm
            )
            self._wired = (key, found)
        return self._wired[1]

    def _add_noise(
        self, operation: Multiply, found: FloatArray, variance: NDArray[np.float32]
    ) -> None:
        """Add the noise of `found` (columns, vectors): independent Gaussian read noise of the
        cells, summed.
        """
        first = int(self._state.vectors[operation.tile])
        np.sqrt(variance, out=variance)
        for k in range(operation.columns):
            column = operation.column + k
            variance[k] *= draws.vector_noise(
                self._seed, operation.tile, column, first, found.shape[1]
            )
        found += variance

    def _write_words(self, operation: WriteWords) -> WordsResult:
        started = self.now_s
        index = operation.cells.index(self.geometry)
        top = (1 << (self.simulation.word_bits - 1)) - 1
        if operation.values.size and int(np.abs(operation.values.astype(np.int64)).max()) > top:
            raise ConfigError(
                f"write words: {self.simulation.word_bits}-bit words must lie in -{top}..{top}"
            )
        if operation.clear:
            self._state.word[:] = 0
        self._state.word[index] = operation.values
        self.advance(self.simulation.timing.word_s * index.size)
        return WordsResult(int(index.size), Span(started, self.now_s))

    def _wait(self, operation: Wait, cancel: threading.Event) -> WaitResult:
        started = self.now_s
        self.advance(self._pass(operation.seconds, cancel))
        return WaitResult(Span(started, self.now_s))


def _stops(
    operation: Apply, at: IntArray, conductance_s: FloatArray, status: StatusArray
) -> NDArray[np.bool_]:
    """Which of the cells at positions `at` have reached their stop; over-range counts as high,
    nothing else does as NaN.
    """
    assert operation.stop is not None
    stop = operation.stop.part(at)
    done = np.zeros(at.size, dtype=np.bool_)
    if stop.above_s is not None:
        done |= (conductance_s >= stop.above_s) | (status == Status.OVER_RANGE)
    if stop.below_s is not None:
        done |= conductance_s <= stop.below_s
    return done
