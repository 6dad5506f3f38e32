"""A simulated chip behind ideal line drivers: every operation of `rram_hil.array.operations`,
executed in the process.

Cells are handled one after the other on the virtual clock and all at once in NumPy. Every step that
can act on a cell (|BL - SL| above what its laws begin at, whatever the bench calls it) and every
current reading is one event of it, and draws
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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rram_hil.array import (
    LINES,
    Apply,
    ApplyResult,
    Block,
    Cells,
    CodedRead,
    CodedReadResult,
    Geometry,
    Multiply,
    MultiplyResult,
    Operation,
    Program,
    ProgramResult,
    Result,
    Scheme,
    Span,
    Status,
    Step,
    Wait,
    WaitResult,
    WordsResult,
    WriteWords,
    drive,
)
from rram_hil.array.coded_read import BlockReading, Inputs, coded_result, read_block
from rram_hil.array.write_verify_rules import Polarity, WriteVerify, coded_verify
from rram_hil.errors import AbortedError, ConfigError
from rram_hil.hardware.driver import Capabilities
from rram_hil.hardware.driver import Span as Range
from rram_hil.simulation.cell_array import (
    FAULT_LEAK_S,
    GATE_LEAK_S,
    SHORT_S,
    CellArray,
    Fault,
    Pulse,
    gate_opening,
)
from rram_hil.simulation.config import Simulation
from rram_hil.simulation.converters import ADC_RANGES_A, DAC_RANGE_V, DAC_STEP_V
from rram_hil.simulation.half_select import Beside, Exposure
from rram_hil.simulation.model import DeviceModel
from rram_hil.simulation.multiply import Multiplier
from rram_hil.simulation.state import ChipState
from rram_hil.types import FloatArray, IntArray, StatusArray

__all__ = ["FAULT_LEAK_S", "GATE_LEAK_S", "SHORT_S", "Fault", "SimulatedChip", "StandingPulse"]

_BATCH = 16384
_SLICE_S = 0.02
_VECTORS = 8192


@dataclass(frozen=True, eq=False)
class StandingPulse:
    """A pulse that stands on cells since `started_s`; made by `SimulatedChip.begin_pulse`. `before`
    is what the cells were when it began.
    """

    started_s: float
    pulse: Pulse
    before: dict[str, NDArray[Any]]


@dataclass(eq=False)
class Batch:
    """Cells of one operation under way: flat indices, each cell's own time (s). Made by
    `SimulatedChip.begin_batch`.

    `exposure` collects what others feel of the operation's pulses; `places` are the cells' there.
    """

    index: IntArray
    time_s: FloatArray
    programmed: NDArray[np.bool_]
    exposure: Exposure
    places: IntArray


@dataclass(frozen=True, eq=False)
class Reading:
    """What one measuring step gave its cells; `gate_a` where it measured that too."""

    current_a: FloatArray
    conductance_s: FloatArray
    status: StatusArray
    gate_a: FloatArray | None = None


class SimulatedChip:
    """One simulated chip: device model, state, virtual clock. Direct and in the process; not safe
    for two threads at once.

    `read_v` is the bench's read limit, above which its counters call a step a pulse; what a step
    does to a cell does not depend on it. The state lives in memory, or in `simulation.state`
    (relative to `folder`). Limits are not checked here. Raises `ConfigError` for a wrong device
    model, `DataError` for a state file of another chip.
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
        self.chip_id = chip_id
        self.read_v = read_v
        model = DeviceModel.load(simulation.device, folder)
        model.prepare()
        identity: dict[str, Any] = {
            "chip": chip_id,
            "seed": simulation.seed,
            "tiles": geometry.tiles,
            "rows": geometry.rows,
            "columns": geometry.columns,
            "cell": geometry.cell,
            "device": f"{model.name} {model.digest}",
        }
        if geometry.selector != "nmos":
            identity["selector"] = geometry.selector
        path = None if simulation.state is None else folder / simulation.state
        self._state = ChipState(geometry, path, identity)
        name = f"{simulation.seed}:{chip_id}" + (f":{simulation.twin}" if simulation.twin else "")
        self._seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        self.cells = CellArray(geometry, simulation, model, self._seed, self._state)
        self._traits = self.cells.traits
        self._multiplier = Multiplier(self.cells)

    @property
    def simulation(self) -> Simulation:
        """What the bench file says of this chip."""
        return self.cells.simulation

    @property
    def model(self) -> DeviceModel:
        """The laws of its cells."""
        return self.cells.model

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
            multiply=self._drives_rows,
            coded_read=self._drives_rows,
            signed_inputs=self.simulation.signed_inputs,
            input_bits=8,
            adc_bits=self.simulation.adc_bits,
            max_vectors=1 << 20,
            words=self.geometry.size,
            word_bits=self.simulation.word_bits,
            max_words=1 << 20,
            gate_current=True,
            step_extras=frozenset(
                self.simulation.step_extras if self.geometry.cell == "1T1R" else ()
            ),
            selectors=frozenset({self.geometry.selector}),
            compliance=True,
            counters=True,
            abort_s=0.1,
            clock="virtual",
            link="direct",
            timing=timing.model_dump(),
        )

    @property
    def _drives_rows(self) -> bool:
        """Whether each row has a line of its own across the columns, to take an input."""
        return self.geometry.cell == "1R" or self.geometry.source_lines == "row"

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

    def note_number(self, number: int) -> None:
        """An operation of this number has come."""
        if number > self.last_number:
            self._state.last[0] = number

    def last_numbers(self, cells: Cells) -> IntArray:
        """Number of the last operation that reached each cell, shape (n,); 0 for none."""
        return self._state.number[cells.index(self.geometry)].astype(np.int64)

    def latest_pulses(self) -> IntArray:
        """Pulses that the last operation that reached it gave each cell, shape (size,)."""
        return self._state.number_pulses.astype(np.int64)

    def executed(self, number: int, cells: Cells) -> IntArray:
        """Pulses that operation `number` gave each cell, shape (n,); 0 for cells that a later
        operation has reached.
        """
        index = cells.index(self.geometry)
        same = self._state.number[index] == number
        return np.where(same, self._state.number_pulses[index], 0).astype(np.int64)

    @property
    def counted_v(self) -> float:
        """|BL - SL| (V) above which a step wears a cell: the bench's read limit, but never more
        than what the cells' laws begin at.
        """
        return min(self.read_v, self.model.switches_from_v)

    @property
    def acts_from_v(self) -> float:
        """|BL - SL| (V) above which a step can act on a cell; the bench has no say in it."""
        return self.model.acts_from_v

    @property
    def pulses(self) -> IntArray:
        """Pulses that each cell has ever taken, also those that the bench calls reads (above
        `counted_v`); shape geometry.shape.
        """
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
        return self.cells.conducts(index).reshape(self.geometry.shape)

    # What instruments in front of the array do to it: levels stand as long as they stand
    # (drivers/simulated/_array.py).

    def conducts(self, index: IntArray) -> FloatArray:
        """What the cells at these flat indices conduct now (S), as `conductance_s`."""
        return self.cells.conducts(index)

    def as_read(self, index: IntArray, g_s: FloatArray) -> FloatArray:
        """What one reading sees of the cells' conductances `g_s` (S): an event of each, with the
        noise of its number.
        """
        return self.cells.as_read(index, g_s)

    def behind(self, index: IntArray, g_s: FloatArray) -> FloatArray:
        """Conductances as single readings see them: wire, transistor, leads and contacts in
        series.
        """
        return self.cells.converters.behind(index, g_s)

    def gate_leak_s(self) -> FloatArray:
        """Leakage of every word line to ground (S), shape (tiles, rows); zero in an array without
        gates.
        """
        return self.cells.gate_leak_s()

    def begin_pulse(
        self,
        index: IntArray,
        drop_v: FloatArray,
        gate_v: FloatArray,
        cap_s: FloatArray,
        margin_v: float = 0.0,
    ) -> StandingPulse:
        """Levels that stand on cells from now on: one event of each, and one pulse of those more
        than `margin_v` above `counted_v`, counted here. `extend_pulse` lets it act.

        `drop_v` is BL - SL, `gate_v` how far the gate is open (ignored in a 1R array), `cap_s` what
        compliance lets a SET reach.
        """
        self._state.pulses[index[np.abs(drop_v) > self.counted_v + margin_v]] += 1
        if self.geometry.cell == "1R":
            gate_v = self.cells.always_open(drop_v.shape)
        pulse = self.cells.begin(index, drop_v, gate_v, cap_s)
        return StandingPulse(self.now_s, pulse, self._state.snapshot(index))

    def extend_pulse(self, pulse: StandingPulse) -> None:
        """Let a standing pulse act as one of the width that it has stood until now, whatever it had
        done before.
        """
        index, width_s = pulse.pulse.index, self.now_s - pulse.started_s
        if width_s > 0:
            self._state.restore(index, pulse.before)
            self.cells.act(pulse.pulse, width_s, np.full(index.size, self.now_s))

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

        When `cancel` is set, `Apply` and `Program` stop between cells, steps or rounds and return
        what was done, status NOT_RUN for the rest; `Wait` ends early; `Multiply` and `CodedRead`,
        which change nothing, raise `AbortedError`. Raises `ConfigError` for cells off the chip.
        """
        cancel = cancel if cancel is not None else threading.Event()
        self.note_number(number)
        if isinstance(operation, Apply):
            return self._apply(operation, number, cancel)
        if isinstance(operation, Program):
            return self._program(operation, number, cancel)
        if isinstance(operation, Multiply):
            return self._multiply(operation, cancel)
        if isinstance(operation, CodedRead):
            return self._coded_read(operation, cancel)
        if isinstance(operation, WriteWords):
            return self._write_words(operation)
        return self._wait(operation, cancel)

    def step_s(self, step: Step) -> float:
        """How long one cell's step takes (s)."""
        timing = self.simulation.timing
        conversion = timing.conversion_s * ((step.measure != "no") + step.also_gate)
        return 2 * timing.edge_s + timing.settle_s + step.width_s + conversion

    def spend(self, seconds: float, cancel: threading.Event) -> float:
        """Advance the clock, spending wall time where the bench is paced; returns what passed
        before a cancel.
        """
        pace, left = self.simulation.pace, seconds
        if pace <= 0:
            return seconds
        while left > 0 and not cancel.is_set():
            part = min(left, _SLICE_S / pace)
            time.sleep(part * pace)
            left -= part
        return seconds - max(left, 0.0)

    def _batch_size(self, cell_s: float) -> int:
        """Cells between two looks at `cancel`: at most about 50 ms of wall time where the bench is
        paced.
        """
        if self.simulation.pace <= 0:
            return _BATCH
        return int(np.clip(0.05 / (cell_s * self.simulation.pace), 1, _BATCH))

    def begin_batch(
        self,
        index: IntArray,
        number: int,
        time_s: FloatArray,
        exposure: Exposure,
        places: IntArray,
    ) -> Batch:
        """Cells that operation `number` reaches, each at its own time (s), to be given steps."""
        fresh = index[self._state.number[index] != number]
        self._state.number_pulses[fresh] = 0
        self._state.number[fresh] = number
        programmed = np.zeros(index.size, dtype=np.bool_)
        return Batch(index, time_s, programmed, exposure, places)

    def end_batch(
        self, batch: Batch, started_s: FloatArray, from_s: float
    ) -> tuple[FloatArray, float]:
        """Move cells that shared a start to their places one after the other; returns each cell's
        shift and the duration.
        """
        took = batch.time_s - started_s
        shift = from_s + np.cumsum(took) - took - started_s
        moved = batch.index[batch.programmed]
        self._state.programmed_s[moved] += shift[batch.programmed]
        return shift, float(took.sum())

    def step(
        self, batch: Batch, at: IntArray, step: Step, compliance_a: float | None
    ) -> Reading | None:
        """One step on the cells at positions `at` of a batch (`step` has one level a cell of these,
        or one for all); what it reads, where it measures.
        """
        n = at.size
        asked = step.cell_v(n)
        self._count(batch.index[at], np.abs(asked))
        pulsing = np.abs(asked) > self.acts_from_v
        level = self.cells.converters.level
        bl, sl, wl = (level(step.levels(line, n), line) for line in LINES)
        floating = bl is None or sl is None
        bl, sl, wl = (np.zeros(n) if volts is None else volts for volts in (bl, sl, wl))
        drop = np.zeros(n) if floating else bl - sl
        gate = self.cells.gate_v(wl, bl, sl, step.body_v)
        beside = Beside(step.body_v, self.cells.selectors.idle_wl_v(step.unselected_wl_v, bl, sl))
        cap = np.inf if compliance_a is None else compliance_a / self.model.compliance_v
        if not floating:
            self._expose(batch, at, (bl, sl, wl), pulsing, step.width_s, cap, beside)
        if pulsing.any():
            stressed, reaching = at[pulsing], drop[pulsing]
            if batch.exposure.disturbs and not floating and self.cells.shares_wires:
                reaching = self.cells.before_wire(
                    batch.index[stressed], bl[pulsing], sl[pulsing], batch.exposure.scheme
                )
            self._pulse(batch, stressed, reaching, gate[pulsing], step.width_s, cap)
        batch.time_s[at] += self.step_s(step)
        if step.measure == "no":
            return None
        if step.measure == "gate":
            return self._gate_reading(batch.index[at], wl)
        leak_a = np.zeros(n)
        if beside.idle_wl_v is not None and not floating:
            leak_a = self.cells.beside_a(batch.index[at], bl, sl, beside.idle_wl_v, step.body_v)
        reading = self._reading(batch, at, asked, drop, gate, leak_a, floating, compliance_a)
        if step.also_gate:
            gate_a = self._gate_reading(batch.index[at], wl).current_a
            return replace(reading, gate_a=gate_a)
        return reading

    def _expose(
        self,
        batch: Batch,
        at: IntArray,
        lines: tuple[FloatArray, FloatArray, FloatArray],
        pulsing: NDArray[np.bool_],
        width_s: float,
        cap_s: float,
        beside: Beside,
    ) -> None:
        """Note what a step leaves on cells beside the selected ones. Where the gates of other rows
        may be open, that may be more than what stands across the selected cell.
        """
        if beside.idle_wl_v is not None:
            pulsing = np.ones(at.size, dtype=np.bool_)
        elif not batch.exposure.disturbs:
            return
        if pulsing.any():
            bl, sl, wl = (volts[pulsing] for volts in lines)
            batch.exposure.note(batch.places[at[pulsing]], bl, sl, wl, width_s, cap_s, beside)

    def _count(self, index: IntArray, drop_v: FloatArray) -> None:
        """Count pulses before they act: a killed process has counted at least what it did.

        The record of the operation, which a driver returns, holds what the bench calls a pulse;
        the life of the cell what may wear it.
        """
        self._state.number_pulses[index[drop_v > self.read_v]] += 1
        self._state.pulses[index[drop_v > self.counted_v]] += 1

    def _pulse(
        self,
        batch: Batch,
        at: IntArray,
        drop_v: FloatArray,
        gate_v: FloatArray,
        width_s: float,
        cap_s: float,
    ) -> None:
        """Let a pulse act that has been counted."""
        index, began = batch.index[at], batch.time_s[at]
        pulse = self.cells.begin(index, drop_v, gate_v, cap_s, began)
        ended = began + 2 * self.simulation.timing.edge_s + width_s
        batch.programmed[at[self.cells.act(pulse, width_s, ended)]] = True

    def _gate_reading(self, index: IntArray, wl_v: FloatArray) -> Reading:
        current = wl_v * self.cells.gate_leak_s().ravel()[index // self.geometry.columns]
        status = np.full(index.size, Status.OK, dtype=np.uint8)
        return Reading(current, np.full(index.size, np.nan), status)

    def _reading(
        self,
        batch: Batch,
        at: IntArray,
        asked: FloatArray,
        drop: FloatArray,
        gate: FloatArray,
        leak_a: FloatArray,
        floating: bool,
        compliance_a: float | None,
    ) -> Reading:
        """One current reading of each cell: noise, wires, gate, compliance, range, conversion.

        The current flows at `drop`, the volts that the converters really give, and beside it
        `leak_a` through cells of other rows; the conductance is current / `asked`.
        """
        index = batch.index[at]
        cells = self.cells
        g = cells.as_read(index, cells.conducts(index, batch.time_s[at]))
        g = cells.read_through(index, cells.converters.fixed(index, g))
        current = drop * g * gate_opening(gate) + leak_a
        status = np.full(index.size, Status.OK, dtype=np.uint8)
        if compliance_a is not None:
            status[np.abs(current) > compliance_a] = Status.COMPLIANCE
            current = np.clip(current, -compliance_a, compliance_a)
        status[np.abs(current) > ADC_RANGES_A[-1]] = Status.OVER_RANGE
        current = np.clip(current, -ADC_RANGES_A[-1], ADC_RANGES_A[-1])
        current = cells.converters.reading(current)
        if floating:
            status[:] = Status.NOT_A_NUMBER
        status[(asked == 0) & (status == Status.OK)] = Status.NOT_A_NUMBER
        usable = (status == Status.OK) | (status == Status.COMPLIANCE)
        conductance = np.full(index.size, np.nan)
        np.divide(current, asked, out=conductance, where=usable)
        return Reading(current, conductance, status)

    def _apply(self, operation: Apply, number: int, cancel: threading.Event) -> ApplyResult:
        cells, n, m = operation.cells, len(operation.cells), operation.measurements
        index = cells.index(self.geometry)
        started = self.now_s
        current, conductance, stamps = (np.full((n, m), np.nan) for _ in range(3))
        status = np.full((n, m), Status.NOT_RUN, dtype=np.uint8)
        pulses, reads = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        gate = np.full((n, m), np.nan) if operation.also_gate else None
        cell_s = operation.repeat * sum(self.step_s(step) for step in operation.steps)
        exposure = self.exposure(index, operation.unselected)
        every = np.arange(n)
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
            batch = self.begin_batch(index[place], number, base.copy(), exposure, every[place])
            before = self._state.number_pulses[batch.index].astype(np.int64)
            self._run_steps(
                part,
                batch,
                current[place],
                conductance[place],
                status[place],
                stamps[place],
                reads[place],
                None if gate is None else gate[place],
                cancel,
            )
            shift, took = self.end_batch(batch, base, from_s)
            stamps[place] += shift[:, None]
            pulses[place] = self._state.number_pulses[batch.index] - before
            self.spend(took, cancel)
            self._state.now[0] = from_s + took
        self.cells.half_select(exposure)
        span = Span(started, self.now_s)
        return ApplyResult(current, conductance, status, stamps, pulses, reads, span, gate_a=gate)

    def exposure(self, index: IntArray, scheme: Scheme) -> Exposure:
        """What an operation on these cells leaves on others, to be collected."""
        return Exposure(index, self.geometry, scheme, self.acts_from_v, self.cells.selectors)

    def _run_steps(
        self,
        operation: Apply,
        batch: Batch,
        current: FloatArray,
        conductance: FloatArray,
        status: StatusArray,
        stamps: FloatArray,
        reads: IntArray,
        gate: FloatArray | None,
        cancel: threading.Event,
    ) -> None:
        """All steps of a batch, into the (views of the) result arrays; a stopped cell takes no
        further step, nor does any once `cancel` is set.
        """
        active = np.arange(batch.index.size)
        m = 0
        for _ in range(operation.repeat):
            for step in operation.steps:
                if cancel.is_set():
                    return
                whole = active.size == batch.index.size
                found = self.step(
                    batch, active, step if whole else step.part(active), operation.compliance_a
                )
                if found is None:
                    continue
                current[active, m], conductance[active, m] = found.current_a, found.conductance_s
                status[active, m] = found.status
                if gate is not None and found.gate_a is not None:
                    gate[active, m] = found.gate_a
                stamps[active, m] = batch.time_s[active]
                reads[active] += 1
                m += 1
                if operation.stop is not None and step.measure == "current":
                    active = active[~_stops(operation, active, found.conductance_s, found.status)]
                if active.size == 0:
                    return

    def _program(self, operation: Program, number: int, cancel: threading.Event) -> ProgramResult:
        if operation.verify == "coded":
            return self._program_by_codes(operation, number, cancel)
        cells, n = operation.cells, len(operation.cells)
        index = cells.index(self.geometry)
        started = self.now_s
        conductance, status = np.full(n, np.nan), np.full(n, Status.NOT_RUN, dtype=np.uint8)
        inside = np.zeros(n, dtype=np.bool_)
        counts = np.zeros((3, n), dtype=np.int64)
        exposure = self.exposure(index, operation.unselected)
        every = np.arange(n)
        for place, _ in cells.batches(self._batch_size(10 * self.step_s(operation.read))):
            if cancel.is_set():
                break
            part = operation.part(place)
            from_s = self.now_s
            base = np.full(len(part.cells), started)
            batch = self.begin_batch(index[place], number, base.copy(), exposure, every[place])
            found = self._verify(part, batch, cancel)
            _, took = self.end_batch(batch, base, from_s)
            conductance[place], status[place], inside[place] = (
                found.conductance_s,
                found.status,
                found.inside,
            )
            counts[:, place] = found.set_pulses, found.reset_pulses, found.reads
            self.spend(took, cancel)
            self._state.now[0] = from_s + took
        self.cells.half_select(exposure)
        span = Span(started, self.now_s)
        return ProgramResult(conductance, status, inside, counts[0], counts[1], counts[2], span)

    def _verify(self, operation: Program, batch: Batch, cancel: threading.Event) -> ProgramResult:
        """Read-verify-write of one batch, round by round."""
        rules = WriteVerify(operation)
        polarities: tuple[Polarity, Polarity] = (1, -1)
        while (at := rules.reading()).size and not cancel.is_set():
            found = self.step(batch, at, operation.read.part(at), operation.compliance_a)
            assert found is not None
            rules.take(at, found.conductance_s, found.status)
            for polarity in polarities:
                due, step = rules.pulses(polarity)
                if due.size:
                    self.step(batch, due, step, operation.compliance_a)
                    rules.given(due, polarity)
        return rules.result(Span())

    def _program_by_codes(
        self, operation: Program, number: int, cancel: threading.Event
    ) -> ProgramResult:
        """Round by round: all cells that wait for it are read at once, then each takes its
        pulse.
        """
        started, vectors = self.now_s, 0
        rules = WriteVerify(operation)
        polarities: tuple[Polarity, Polarity] = (1, -1)
        while (at := rules.reading()).size and not cancel.is_set():
            reading = coded_verify(operation, at)
            try:
                found = self._coded_read(reading, cancel)
            except AbortedError:
                break
            vectors += found.vectors
            place = reading.cells.places_of(operation.cells[at])
            rules.take(at, found.conductance_s[place], found.status[place])
            for polarity in polarities:
                due, step = rules.pulses(polarity)
                if due.size:
                    pulse = Apply(
                        operation.cells[due],
                        (step,),
                        operation.unselected,
                        operation.compliance_a,
                    )
                    before = self.executed(number, pulse.cells)
                    self._apply(pulse, number, cancel)
                    given = self.executed(number, pulse.cells) > before
                    rules.given(due[given], polarity)
                    rules.missed(due[~given])
        return replace(rules.result(Span(started, self.now_s)), vectors=vectors)

    def _coded_read(self, operation: CodedRead, cancel: threading.Event) -> CodedReadResult:
        started, simulation = self.now_s, self.simulation
        inputs = Inputs(self.capabilities.input_bits, simulation.adc_bits, simulation.signed_inputs)

        def read(block: Block) -> BlockReading:
            work = read_block(operation, block, inputs)
            return drive(work, lambda asked: self._multiply(asked, cancel))

        found = [read(block) for block in operation.blocks]
        return coded_result(found, "board", Span(started, self.now_s))

    def _multiply(self, operation: Multiply, cancel: threading.Event) -> MultiplyResult:
        if not self.simulation.signed_inputs and (operation.inputs < 0).any():
            raise ConfigError("multiply: inputs of this chip may not be negative")
        started, vector_s = self.now_s, self.simulation.timing.multiply_s
        product = self._multiplier.begin(operation)
        chunk = min(_VECTORS, self._batch_size(vector_s)) if self.simulation.pace > 0 else _VECTORS
        vectors = int(operation.inputs.shape[0])
        for first in range(0, vectors, chunk):
            if cancel.is_set():
                raise AbortedError("multiply: stopped; no cell was changed")
            share = slice(first, min(first + chunk, vectors))
            product.take(share)
            self._act_by_inputs(operation, share)
            self.spend(vector_s * (share.stop - share.start), cancel)
            self.advance(vector_s * (share.stop - share.start))
        return product.result(Span(started, self.now_s))

    def _act_by_inputs(self, operation: Multiply, share: slice) -> None:
        """What input vectors do to the block's cells where their volts can act at all: SL at the
        input's volts, BL at virtual ground.
        """
        if operation.read_v <= self.acts_from_v:  # no input can be stronger
            return
        top = (1 << (operation.input_bits - 1)) - 1
        volts = operation.inputs[share].astype(np.float64) * (operation.read_v / top)
        timing = self.simulation.timing
        for vector in volts[(np.abs(volts) > self.acts_from_v).any(axis=1)]:
            rows = np.flatnonzero(np.abs(vector) > self.acts_from_v)
            index = np.add.outer(
                (operation.tile * self.geometry.rows + operation.row + rows)
                * self.geometry.columns,
                operation.column + np.arange(operation.columns),
            )
            drop = np.broadcast_to(-vector[rows, None], index.shape).ravel()
            index = index.ravel()
            self._state.pulses[index[np.abs(drop) > self.counted_v]] += 1
            wl = np.full(index.size, operation.wl_v)
            gate = self.cells.gate_v(wl, np.zeros(index.size), -drop, operation.body_v)
            pulse = self.cells.begin(index, drop, gate, np.inf)
            self.cells.act(pulse, timing.multiply_s, np.full(index.size, self.now_s))

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
        self.advance(self.spend(operation.seconds, cancel))
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
