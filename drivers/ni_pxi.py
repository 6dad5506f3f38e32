"""Driver of an NI PXI chassis as the public program NI-RRAM uses one: a PXIe-6570 or 6571 digital
pattern instrument whose pins are the array's lines, NI-DCPower channels for body, wells and chip
supplies, and an NI-Switch module between instrument and chip, through the maker's Python libraries
(optional extra `[ni]`): a 1T1R array.

Checked against nidigital 1.5.0, niswitch 1.5.0 and nidcpower 1.6.0 (signatures and docstrings: what
`burst_pattern`, `ppmu_source`, `ppmu_measure`, `selected_function`, `close` and `can_connect` say;
source waveforms have 32 bits a sample, so 32 pins). From the source of NI-RRAM
(robert-radway/NI-RRAM-Python, `digitalpattern/nirram.py` and `settings/`), read for facts: all
lines are pins of one group, bit lines, source lines, word lines, the first pin the highest bit; a
pulse of a whole array is one burst of a pattern that plays a source waveform, its length in
sequencer register 0; reads are by the PPMUs at 32 uA, 0.5 ms; volts lie in -2 to 6 V. From NI's
forum (PXIe-6571 PPMU): eight channels share a measuring circuit, so a measurement of them takes
eight apertures. `unverified`, for want of the hardware: the sign of a current (taken as positive
out of the pin), the PPMU's ranges, accuracy and shortest aperture, how many samples a pattern may
play, that a low level above the high one is taken, that levels may change while pins stand at
their last state after a burst.

The pattern file is the lab's, made with the Digital Pattern Editor: it must play as many samples of
the source waveform as register 0 says, one a cycle, drive without return, and end. Cells: row r is
word line `wl[r]`, column c bit line `bl[c]`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from typing_extensions import override

from rram_hil.array import (
    LINES,
    Apply,
    ApplyResult,
    Cells,
    Geometry,
    Limits,
    Operation,
    Result,
    Scheme,
    Status,
    Step,
    StepExtra,
    Wait,
    check,
    stresses_cells,
)
from rram_hil.array import Span as TimeSpan
from rram_hil.errors import (
    AbortedError,
    BenchError,
    ConfigError,
    InstrumentError,
    LinkError,
)
from rram_hil.hardware.driver import (
    Capabilities,
    DriverConfig,
    Identity,
    Span,
    check_extras,
)
from rram_hil.types import FloatArray, IntArray
from rram_hil.units import Amperes, Seconds, Volts
from rram_hil.validation import FileOfBench, PositiveAmperes, PositiveSeconds, StrictModel

from .dialects.maker_library import LibraryDriver, library, worth

MODELS = ("PXIe-6570", "PXIe-6571")
LOWEST_V, HIGHEST_V = -2.0, 6.0
FILES = ("pin_map", "levels", "timing", "pattern")
"""Keys of the files that every chassis needs."""
MOST_PINS = 32
"""Bits of a sample of a source waveform."""
QUIET_V = 0.1
"""Largest voltage on a pin or supply that counts as off, and largest error of a supply."""
POLL_S = 0.01
SUPPLY_V, MOST_SUPPLY_V = 5.5, 60.0
"""What a supply may have where nothing is said of it (5 V and a tenth), and what may be said."""
APERTURE_S = (4e-6, 65e-3)
"""Unverified."""

Pin = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_ ]*$")]


class Supply(StrictModel):
    """One channel of NI-DCPower, on as long as the bench is armed: body, well, decoder supply."""

    volts: Annotated[Volts, Field(allow_inf_nan=False)] = Field(description="level while armed")
    current_limit_a: PositiveAmperes
    most_v: Annotated[Volts, Field(gt=0, le=MOST_SUPPLY_V)] = Field(
        default=SUPPLY_V, description="largest level of either sign that the chip takes there"
    )

    @model_validator(mode="after")
    def _level_kept(self) -> Self:
        if not abs(self.volts) <= self.most_v:
            raise ValueError(
                f"volts: {self.volts:g} V is beyond most_v, {self.most_v:g} V: lower volts, or set"
                f" most_v (up to {MOST_SUPPLY_V:g} V; {SUPPLY_V:g} V where it is not given) to what"
                " the chip takes there"
            )
        return self


NEEDS = "NI PXI needs its maker's libraries"


class NiPxiConfig(DriverConfig):
    """Section `[driver]` of a bench with `name = "ni-pxi"`."""

    digital: str = Field(default="", description='digital pattern instrument, such as "PXI1Slot7"')
    pin_map: FileOfBench = Field(default="", description="pin map file (.pinmap)")
    specifications: list[FileOfBench] = Field(
        default=[], description="specifications files (.specs)"
    )
    levels: FileOfBench = Field(default="", description="levels sheet (.digilevels)")
    timing: FileOfBench = Field(default="", description="timing sheet (.digitiming)")
    pattern: FileOfBench = Field(default="", description="pattern file (.digipat)")
    start_label: str = Field(default="", description="pattern to burst; empty: the file's name")
    group: str = Field(default="BLSLWLS", description="pin group: bit, source, word lines in order")
    waveform: str = Field(default="wl_data", description="source waveform that the pattern plays")
    time_set: str = Field(default="test", description="time set of the pattern")
    period_s: PositiveSeconds = Field(default=1e-6, description="its period, as the sheet has it")
    bl: list[Pin] = Field(default=[], description="pin of each column's bit line")
    sl: list[Pin] = Field(default=[], description="pins of the source lines")
    wl: list[Pin] = Field(default=[], description="pin of each row's word line")
    edge_cycles: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=2, description="cycles for which the gate is open before and after a pulse"
    )
    max_samples: Annotated[int, Field(ge=8, le=1 << 24)] = Field(
        default=1 << 16, description="samples that a burst of the pattern may play; unverified"
    )
    range_a: PositiveAmperes = Field(default=32e-6, description="current range of the PPMUs")
    settle_s: Annotated[Seconds, Field(ge=0, le=10)] = Field(
        default=1e-4, description="between a change of the PPMUs' levels and a measurement"
    )
    read_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="reading uncertainty as the lab has measured it, part of the value"
    )
    read_floor_a: Annotated[Amperes, Field(ge=0)] = Field(
        default=0.0, description="the same, amperes"
    )
    supplies: dict[str, Supply] = Field(
        default={}, description='NI-DCPower channels by name, such as "PXI1Slot3/0"'
    )
    body: str = Field(
        default="",
        description="which of them drives the bodies of the selectors: steps may say its level",
    )
    switch: str = Field(default="", description="NI-Switch module; empty: none")
    topology: str = Field(default="Configured Topology", description="of the switch module")
    routes: list[list[str]] = Field(
        default=[], description="pairs of channels of the switch, connected while armed"
    )
    timeout_s: Annotated[Seconds, Field(ge=0.05, le=60)] = Field(
        default=2.0, description="how much longer than expected a burst may take"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        pins = [*self.bl, *self.sl, *self.wl]
        if len(set(pins)) != len(pins):
            raise ValueError("bl, sl and wl: a pin may stand there once")
        if len(pins) > MOST_PINS:
            raise ValueError(
                f"bl, sl and wl name {len(pins)} pins; a pattern's source waveform drives at most"
                f" {MOST_PINS}"
            )
        if any(len(route) != 2 for route in self.routes):
            raise ValueError('routes: pairs of channels are needed, such as ["no0", "com0"]')
        if self.body and self.body not in self.supplies:
            raise ValueError(f"body: {self.body!r} is none of supplies")
        if bool(self.switch) != bool(self.routes):
            raise ValueError("switch and routes belong together")
        return self


@dataclass(frozen=True)
class _Burst:
    """Low and high level of each pin (V), shape (pins,); samples that the pattern plays."""

    low_v: FloatArray
    high_v: FloatArray
    samples: list[int]


class NiPxi(LibraryDriver):
    """An NI PXI chassis.

    The pulses of a step are one burst for the whole batch; two or more only where a bit line would
    need two levels besides zero. The gate opens before a pulse and closes after it. Readings are
    taken row by row, all columns in one measurement. `connect` opens the sessions without a reset,
    which moves nothing; `arm` makes safe, closes the relays dry, and switches the supplies on.
    """

    Config: ClassVar[type[DriverConfig]] = NiPxiConfig
    FAILURES: ClassVar[tuple[type[LinkError | InstrumentError], ...]] = (LinkError, InstrumentError)

    def __init__(self, config: DriverConfig, geometry: Geometry, limits: Limits) -> None:
        super().__init__(config, geometry, limits)
        assert isinstance(config, NiPxiConfig)
        self._settings = config
        if geometry.cell != "1T1R" or geometry.tiles != 1:
            raise ConfigError(
                "an NI PXI chassis holds one 1T1R array here: set chip.tiles to 1 and chip.cell to"
                " 1T1R"
            )
        lines = {"row": geometry.rows, "column": geometry.columns, "common": 1}
        wanted = {"bl": geometry.columns, "sl": lines[geometry.source_lines], "wl": geometry.rows}
        for name, count in wanted.items():
            if len(getattr(config, name)) != count:
                raise ConfigError(
                    f"driver.{name}: {len(getattr(config, name))} pins are named, the chip has"
                    f" {count} such lines"
                )
        for name in ("digital", *FILES):
            if not getattr(config, name):
                raise ConfigError(f"driver.{name}: missing; it is required")
        self._pins = [*config.bl, *config.sl, *config.wl]
        self._lock = threading.RLock()
        self._libraries: _Libraries | None = None
        self._digital: Any = None
        self._power: Any = None
        self._switch: Any = None
        self._is_loaded = False
        self._is_armed = False
        self._goes_on = False  # off after an error, and the next operation switches on again
        self._levels_v: FloatArray = np.full((2, len(self._pins)), np.nan)  # low, high
        self._body_v = np.nan
        self._model = ""
        self._transactions = 0

    @override
    def connect(self) -> Identity:
        """Open the sessions and identify; change no output.

        Raises `ConfigError` where a library or file is missing or the instrument is another,
        `LinkError` where it cannot be opened.
        """
        with self._lock:
            config = self._settings
            self._libraries = library = _Libraries(bool(config.supplies), bool(config.switch))
            files = [(name, getattr(config, name)) for name in FILES]
            files += [("specifications", name) for name in config.specifications]
            for key, file in files:
                if not Path(file).is_file():
                    raise ConfigError(
                        f"driver.{key}: there is no file {file}; it is made with NI's Digital"
                        " Pattern Editor"
                    )
            try:
                self._digital = library.digital.Session(config.digital)
                if config.supplies:
                    self._power = library.power.Session(
                        ",".join(config.supplies), reset=False, independent_channels=True
                    )
                if config.switch:
                    self._switch = library.switch.Session(config.switch, topology=config.topology)
                self._model = str(self._digital.instrument_model)
                serial = str(self._digital.serial_number)
                firmware = str(self._digital.instrument_firmware_revision)
            except BaseException as error:
                self.close()
                raise self._failure("opening the sessions", error) from error
            if not any(model in self._model for model in MODELS):
                self.close()
                raise ConfigError(
                    f"{config.digital}: this is a {self._model!r}; ni-pxi drives"
                    f" {', '.join(MODELS)}"
                )
            return Identity(self._model, serial, firmware, "nidigital")

    @property
    @override
    def capabilities(self) -> Capabilities:
        """What the chassis can do through this driver. Raises `LinkError` before `connect`."""
        if self._digital is None:
            raise LinkError("NI PXI: not connected; call connect() first")
        config = self._settings
        volts = Span(LOWEST_V, HIGHEST_V)
        extras: set[StepExtra] = {"unselected_wl_v"}
        if config.body:
            extras.add("body_v")
        longest = config.max_samples // self.geometry.rows - 2 * config.edge_cycles - 1
        return Capabilities(
            bl_v=volts,
            sl_v=volts,
            wl_v=volts,
            width_s=Span(
                min(config.period_s, APERTURE_S[0]),
                max(longest * config.period_s, APERTURE_S[1]),
                config.period_s,
            ),
            schemes=frozenset({Scheme.INHIBIT, Scheme.GROUNDED}),
            max_cells=self.geometry.size,
            max_steps=4096,
            per_cell_bias=False,
            bias_current=False,
            step_extras=frozenset(extras),
            read_fraction=config.read_fraction,
            read_floor_a=config.read_floor_a,
            abort_s=0.1,
            link="NI-Digital",
            timing={"period_s": config.period_s, "settle_s": config.settle_s},
        )

    @override
    def arm(self) -> None:
        """Everything off and read back; then, all at zero, relays closed, supplies on, and the pins
        at 0 V. Raises `InstrumentError` for a supply that is not at its level.
        """
        with self._lock:
            if self._digital is None:
                raise LinkError("NI PXI: not connected; call connect() first")
            self.check_limits()
            try:
                self._load()
                self._make_safe()
                self._switch_on()
            except BaseException as error:
                is_off, off = self._grounded()
                self._goes_on = False
                failure = self._failure("arming", error)
                if isinstance(failure, BenchError):
                    failure.message += f"; {off}"
                    failure.outputs_off = is_off
                raise failure from error

    def _switch_on(self) -> None:
        self._close_relays()
        self._supplies_on()
        self._ground(self._pins)
        self._is_armed = True

    @override
    def execute(self, operation: Operation, number: int) -> Result:
        """Carry out an `Apply` or `Wait`.

        Raises `ConfigError` and `LimitError` before anything is sent; `AbortedError` when
        cancelled; where a library fails, `UnknownOutcomeError` if a cell may have been pulsed, else
        `InstrumentError` with its code. Outputs are off in all of these.
        """
        with self._lock:
            if isinstance(operation, Wait):
                return self._wait(operation)
            if not isinstance(operation, Apply):
                raise self.refuse(f"a native {type(operation).__name__}", "single steps and waits")
            operation = self._standing(operation)
            self._check(operation)
            if not self._is_armed and not self._goes_on:
                raise InstrumentError("NI PXI: not armed; call arm() first")
            what = f"operation {number}{f' ({operation.label})' if operation.label else ''}"
            if self.cancel.is_set():
                raise AbortedError(f"{what} was not started: the run is being aborted")
            stresses = stresses_cells(operation, self.geometry, self.limits)
            with self._off_on_failure(what, stresses=stresses):
                if not self._is_armed:
                    self._switch_on()
                return self._apply(operation, what)

    @override
    def safe_off(self) -> None:
        """Pins at 0 V, measured, and disconnected; supplies at zero and off; relays open; all read
        back. Raises `InstrumentError` if not.
        """
        with self._lock:
            if self._digital is None:
                raise LinkError("NI PXI: not connected; call connect() first")
            try:
                self._make_safe()
            except BaseException as error:
                raise self._failure("switching off", error) from error

    @override
    def close(self) -> None:
        """Give the sessions back, which leaves the outputs as they are; safe to call twice."""
        with self._lock:
            sessions = (self._digital, self._power, self._switch)
            self._digital = self._power = self._switch = None
            self._is_armed = self._is_loaded = self._goes_on = False
            for session in sessions:
                if session is not None:
                    try:
                        session.close()
                    except Exception:
                        continue

    @override
    def now_s(self) -> float:
        """The bench clock: this computer's."""
        return time.monotonic()

    @property
    @override
    def transactions(self) -> int:
        """Bursts, and changes and measurements of the PPMUs."""
        return self._transactions

    @override
    def wear(self) -> str:
        """Cycles of all relays of the switch module, as it counts them."""
        with self._lock:
            if self._switch is None:
                return ""
            try:
                names = [
                    self._switch.get_relay_name(k + 1) for k in range(self._switch.number_of_relays)
                ]
                counts = [int(self._switch.get_relay_count(name)) for name in names]
            except Exception as error:
                raise self._failure("counting relays", error) from error
            return f"{sum(counts)} cycles of {len(counts)} relays, most of one {max(counts)}"

    # What is refused

    def _standing(self, operation: Apply) -> Apply:
        """The operation with the level of the bodies where it says none and a supply holds them."""
        if not self._settings.body:
            return operation
        rest_v = self._settings.supplies[self._settings.body].volts
        steps = tuple(
            replace(step, body_v=rest_v) if step.body_v is None else step
            for step in operation.steps
        )
        return replace(operation, steps=steps)

    def _check(self, operation: Apply) -> None:
        can = self.capabilities
        check_extras(operation, can)
        check(operation, self.geometry, self.limits, bounds_current=False)
        if operation.unselected not in can.schemes:
            raise self.refuse(
                f"scheme {operation.unselected!s} for unselected lines", "inhibit and grounded"
            )
        if operation.compliance_a is not None:
            raise self.refuse("a compliance current", "the gate")
        for step in operation.steps:
            self._check_step(step, len(operation.cells), can)

    def _check_step(self, step: Step, n: int, can: Capabilities) -> None:
        for line, span in zip(LINES, (can.bl_v, can.sl_v, can.wl_v), strict=True):
            volts = step.levels(line, n)
            if volts is None:
                raise self.refuse("a floating selected line", "a level on every line")
            if n and not span.holds(float(np.min(volts)), float(np.max(volts))):
                raise self.refuse(
                    f"{line.upper()} of such size", f"{span.low:g} to {span.high:g} V"
                )
            if n and np.ptp(volts):
                raise self.refuse("one level a cell", "one level a line for a batch")
        gate = step.levels("wl", n)
        if gate is not None and not np.all(gate <= self.limits.gate_over_v):
            raise self.refuse(
                f"WL of {np.max(gate):g} V, which stands alone before and after a pulse,",
                f"at most limits.gate_over_v of {self.limits.gate_over_v:g} V above lines at 0 V",
            )
        if step.measure == "gate":
            raise self.refuse("a gate current", "the current of the bit line")
        if step.measure == "current":
            low, high = APERTURE_S
            if not low <= step.width_s <= high:
                raise self.refuse(f"a reading of {step.width_s:g} s", f"{low:g} to {high:g} s")
            volts = step.cell_v(n)
            if np.any((np.abs(volts) > self.limits.read_v) | (volts == 0)):
                raise self.refuse(
                    "a measurement at 0 V or above limits.read_v", "a read after each pulse"
                )
            return
        period_s, cycles = self._settings.period_s, self._cycles(step)
        most = self._settings.max_samples // self.geometry.rows - 2 * self._settings.edge_cycles - 1
        if not 1 <= cycles <= most or abs(cycles * period_s - step.width_s) > 1e-3 * step.width_s:
            raise self.refuse(
                f"a width of {step.width_s:g} s", f"1 to {most} periods of {period_s:g} s"
            )

    def _cycles(self, step: Step) -> int:
        return round(step.width_s / self._settings.period_s)

    # Pulses and readings

    def _apply(self, operation: Apply, what: str) -> ApplyResult:
        n, m = len(operation.cells), operation.measurements
        current, volts, stamps = (np.full((n, m), np.nan) for _ in range(3))
        ran, pulses = np.zeros((n, m), dtype=np.bool_), np.zeros(n, dtype=np.int64)
        started = self.now_s()
        active: IntArray = np.arange(n)
        column = 0
        for step in operation.steps * operation.repeat:
            if active.size == 0:
                break
            level = step.cell_v(n)
            here = operation.cells[active]
            self._move_body(step.body_v)
            if step.measure == "no":
                for burst in self._bursts(here, step, operation.unselected):
                    self._play(burst, what)
                self._set_levels(np.zeros(len(self._pins)), self._levels_v[1])
                pulses[active] += np.abs(level[active]) > self.limits.read_v
                continue
            current[active, column] = self._read(here, step, operation.unselected, what)
            volts[active, column], ran[active, column] = level[active], True
            stamps[active, column] = self.now_s()
            if operation.stop is not None:
                status, conductance = worth(
                    current[active, column], volts[active, column], self._settings.range_a
                )
                stop = operation.stop.part(active)
                done = np.zeros(active.size, dtype=np.bool_)
                if stop.above_s is not None:
                    done |= (conductance >= stop.above_s) | (status == Status.OVER_RANGE)
                if stop.below_s is not None:
                    done |= conductance <= stop.below_s
                active = active[~done]
            column += 1
        if self._settings.body:
            self._move_body(self._settings.supplies[self._settings.body].volts)
        status, conductance = worth(current, volts, self._settings.range_a)
        status[~ran] = Status.NOT_RUN
        span = TimeSpan(started, self.now_s())
        return ApplyResult(current, conductance, status, stamps, pulses, ran.sum(axis=1), span)

    def _bursts(self, cells: Cells, step: Step, scheme: Scheme) -> list[_Burst]:
        """One burst of all rows; one for each set of columns where a pin would need two levels."""
        rows, chosen = self._chosen(cells)
        levels = self._levels(rows, chosen, step, scheme)
        if _one_level_a_pin(levels, self._lows(step)):
            return [self._burst(levels, step)]
        _, group = np.unique(chosen, axis=0, return_inverse=True)
        return [self._burst(levels[group.ravel() == k], step) for k in range(int(group.max()) + 1)]

    def _chosen(self, cells: Cells) -> tuple[IntArray, NDArray[np.bool_]]:
        """Rows of the cells, and which columns are selected in each, shape (rows, columns)."""
        rows, at = np.unique(cells.row, return_inverse=True)
        chosen = np.zeros((rows.size, self.geometry.columns), dtype=np.bool_)
        chosen[at.ravel(), cells.column] = True
        return rows, chosen

    def _levels(
        self, rows: IntArray, chosen: NDArray[np.bool_], step: Step, scheme: Scheme
    ) -> FloatArray:
        """Volts of every pin while a row's pulse lasts, shape (rows, pins)."""
        bl_v, sl_v, wl_v = (_level(step, line) for line in LINES)
        others_v = sl_v if scheme is Scheme.INHIBIT else 0.0
        bl = np.where(chosen, bl_v, others_v)
        along = self.geometry.source_lines
        sl = np.zeros((rows.size, len(self._settings.sl)))
        if along == "row":
            sl[np.arange(rows.size), rows] = sl_v
        elif along == "column":
            # A source line stands where the bit line beside it does, so that cells that share the
            # gate see no voltage.
            sl[:] = np.where(chosen, sl_v, others_v)
        else:
            sl[:] = sl_v
        wl = np.full((rows.size, self.geometry.rows), step.unselected_wl_v or 0.0)
        wl[np.arange(rows.size), rows] = wl_v
        return np.concatenate([bl, sl, wl], axis=1)

    def _lows(self, step: Step) -> FloatArray:
        """Where each pin stands while its bit is 0 (V): word lines as unselected ones do."""
        low_v = np.zeros(len(self._pins))
        low_v[-self.geometry.rows :] = step.unselected_wl_v or 0.0
        return low_v

    def _burst(self, levels: FloatArray, step: Step) -> _Burst:
        """The samples of rows one after the other: gate, gate and pulse, gate, nothing."""
        low_v = self._lows(step)
        bits = 1 << np.arange(len(self._pins) - 1, -1, -1, dtype=np.int64)
        is_high = levels != low_v
        high_v = np.where(is_high.any(axis=0), _high(levels, low_v), 0.0)
        everything = is_high @ bits
        gates = len(self._pins) - self.geometry.rows
        gate = is_high[:, gates:] @ bits[gates:]
        edge = self._settings.edge_cycles
        each = np.concatenate(
            [
                np.repeat(gate[:, None], edge, axis=1),
                np.repeat(everything[:, None], self._cycles(step), axis=1),
                np.repeat(gate[:, None], edge, axis=1),
                np.zeros((len(levels), 1), dtype=np.int64),
            ],
            axis=1,
        )
        return _Burst(low_v, high_v, each.ravel().tolist())

    def _play(self, burst: _Burst, what: str) -> None:
        library, config = self._library, self._settings
        self._stop_if_cancelled(what)
        self._set_levels(burst.low_v, burst.high_v)
        self._digital.write_source_waveform_broadcast(config.waveform, burst.samples)
        self._digital.write_sequencer_register(
            library.digital.SequencerRegister.REGISTER0, len(burst.samples)
        )
        self._transactions += 1
        label = config.start_label or Path(config.pattern).stem
        self._digital.burst_pattern(label, select_digital_function=True, wait_until_done=False)
        length_s = len(burst.samples) * config.period_s
        deadline_s = time.monotonic() + config.timeout_s + 1.5 * length_s
        while not self._digital.is_done():
            self._stop_if_cancelled(what)
            if time.monotonic() > deadline_s:
                raise LinkError(
                    f"NI PXI: {config.digital}: a burst of {length_s:.3g} s is not done after"
                    f" {config.timeout_s + 1.5 * length_s:.3g} s"
                )
            time.sleep(POLL_S)

    def _set_levels(self, low_v: FloatArray, high_v: FloatArray) -> None:
        """Levels of the pins' two states (V), shape (pins,), where they change."""
        wanted = np.stack([low_v, high_v])
        changes = (wanted != self._levels_v).any(axis=0)
        for pair in np.unique(wanted[:, changes], axis=1).T:
            at = np.flatnonzero(changes & (wanted == pair[:, None]).all(axis=0))
            low, high = (float(volts) for volts in pair)
            self._at(self._pins[k] for k in at).configure_voltage_levels(
                low, high, min(low, high), max(low, high), 0.0
            )
            self._levels_v[:, at] = wanted[:, at]

    def _move_body(self, volts: float | None) -> None:
        """Bring the bodies to a level (V), all pins at 0 V; verified."""
        if volts is not None and volts != self._body_v:
            self._supply_to(self._settings.body, volts)
            self._body_v = volts

    def _read(self, cells: Cells, step: Step, scheme: Scheme, what: str) -> FloatArray:
        """Currents of the cells (A), shape (n,): rows one after the other, the first gate before
        the other lines and the last after them. Lines that the next row needs alike stay.
        """
        library, config = self._library, self._settings
        rows, chosen = self._chosen(cells)
        levels = self._levels(rows, chosen, step, scheme)
        current = np.full((rows.size, self.geometry.columns), np.nan)
        self._at(self._pins).ppmu_aperture_time = step.width_s
        self._ground(self._pins)
        gates = len(self._pins) - self.geometry.rows
        lines, open_gate, idle_v = np.zeros(gates), "", step.unselected_wl_v or 0.0
        if idle_v:
            self._force(config.wl, np.full(len(config.wl), idle_v))
        for k, row in enumerate(rows):
            self._stop_if_cancelled(what)
            if open_gate and np.any(levels[k, :gates] != lines):
                lines = np.zeros(gates)
                self._force(self._pins[:gates], lines)
            before = [open_gate] if open_gate else []
            open_gate = config.wl[row]
            gate_v = np.array([idle_v] * len(before) + [levels[k, gates + row]])
            self._force([*before, open_gate], gate_v)
            if np.any(levels[k, :gates] != lines):
                lines = levels[k, :gates]
                self._force(self._pins[:gates], lines)
            time.sleep(config.settle_s)
            names = [config.bl[c] for c in np.flatnonzero(chosen[k])]
            self._transactions += 1
            told = self._at(names).ppmu_measure(library.digital.PPMUMeasurementType.CURRENT)
            if len(told) != len(names):
                raise LinkError(f"NI PXI: {len(told)} currents of {len(names)} pins")
            current[k, chosen[k]] = told
        self._ground(self._pins[:gates])
        self._ground(self._pins[gates:])
        return current[np.searchsorted(rows, cells.row), cells.column]

    def _force(self, pins: Sequence[str], volts: FloatArray) -> None:
        """Pins to these levels by their PPMUs, all at once."""
        for level in np.unique(volts):
            at = self._at(pin for pin, v in zip(pins, volts, strict=True) if v == level)
            at.ppmu_voltage_level = float(level)
        self._transactions += 1
        self._at(pins).ppmu_source()

    def _ground(self, pins: Sequence[str]) -> None:
        self._force(pins, np.zeros(len(pins)))

    def _at(self, pins: Iterable[str]) -> Any:
        return self._digital.channels[",".join(pins)]

    # On and off

    def _load(self) -> None:
        """Pin map, sheets, pattern and waveform, once a session, with the pins disconnected."""
        if self._is_loaded:
            return
        library, config = self._library, self._settings
        digital = library.digital
        self._digital.load_pin_map(str(Path(config.pin_map).absolute()))
        everything = self._at(self._pins)
        everything.selected_function = digital.SelectedFunction.DISCONNECT
        self._digital.load_specifications_levels_and_timing(
            specifications_file_paths=[str(Path(f).absolute()) for f in config.specifications],
            levels_file_paths=str(Path(config.levels).absolute()),
            timing_file_paths=str(Path(config.timing).absolute()),
        )
        self._digital.apply_levels_and_timing(
            str(Path(config.levels).absolute()), str(Path(config.timing).absolute())
        )
        told_s = self._digital.get_time_set_period(config.time_set).total_seconds()
        if not abs(told_s - config.period_s) <= 1e-3 * config.period_s:
            raise ConfigError(
                f"driver.period_s: time set {config.time_set!r} has a period of {told_s:g} s, not"
                f" {config.period_s:g} s"
            )
        self._digital.unload_all_patterns()
        self._digital.load_pattern(str(Path(config.pattern).absolute()))
        self._digital.pins[config.group].create_source_waveform_parallel(
            config.waveform, digital.SourceDataMapping.BROADCAST
        )
        everything.configure_voltage_levels(0.0, 0.0, 0.0, 0.0, 0.0)
        everything.write_static(digital.WriteStaticPinState.ZERO)
        everything.ppmu_output_function = digital.PPMUOutputFunction.VOLTAGE
        everything.ppmu_aperture_time_units = digital.PPMUApertureTimeUnits.SECONDS
        everything.ppmu_current_limit_range = config.range_a
        self._is_loaded = True

    def _make_safe(self) -> None:
        """Pins to 0 V and apart, supplies off, relays open: each is tried, whatever becomes of the
        others, and read back.
        """
        self._is_armed = self._goes_on = False
        self._levels_v[:], self._body_v = np.nan, np.nan
        problems: list[BaseException] = []
        for part in (
            self._stop_burst,
            self._pins_to_zero,
            self._pins_apart,
            self._supplies_off,
            self._relays_open,
        ):
            try:
                part()
            except BaseException as error:  # Ctrl-C too
                problems.append(error)
        if problems:
            told = "; ".join(str(problem) or type(problem).__name__ for problem in problems)
            raise InstrumentError(
                f"NI PXI: outputs are not confirmed off: {told}; switch the chassis off",
                code=_code(problems[0]),
            ) from problems[0]

    def _stop_burst(self) -> None:
        self._digital.abort()

    def _pins_to_zero(self) -> None:
        digital = self._library.digital
        self._ground(self._pins)
        told = self._at(self._pins).ppmu_measure(digital.PPMUMeasurementType.VOLTAGE)
        if len(told) != len(self._pins):
            raise InstrumentError(f"{len(told)} volts of {len(self._pins)} pins were measured")
        for pin, volts in zip(self._pins, told, strict=True):
            if not abs(volts) <= QUIET_V:
                raise InstrumentError(f"pin {pin} reads {volts:g} V at 0 V")

    def _pins_apart(self) -> None:
        digital = self._library.digital
        everything, apart = self._at(self._pins), digital.SelectedFunction.DISCONNECT
        everything.write_static(digital.WriteStaticPinState.ZERO)
        everything.selected_function = apart
        left = [pin for pin in self._pins if self._at([pin]).selected_function != apart]
        if left:
            raise InstrumentError(f"pin {left[0]} is still connected")

    def _supplies_off(self) -> None:
        """Zero and off, from whatever state an earlier program has left a channel in: of one that
        does not run, off is in force when it does; then it is read back.
        """
        if self._power is None:
            return
        power = self._library.power
        for name, supply in self._settings.supplies.items():
            channel = self._power.channels[name]
            channel.output_enabled = False  # at once, if the channel runs
            channel.abort()
            channel.output_function = power.OutputFunction.DC_VOLTAGE
            channel.voltage_level = 0.0
            channel.current_limit = supply.current_limit_a
            channel.initiate()
            volts = float(channel.measure(power.MeasurementTypes.VOLTAGE))
            if channel.output_enabled or not abs(volts) <= QUIET_V:
                raise InstrumentError(f"supply {name} reads {volts:g} V after it was switched off")

    def _supplies_on(self) -> None:
        """Body, wells and supplies to their levels."""
        if self._power is None:
            return
        for name, supply in self._settings.supplies.items():
            self._power.channels[name].output_enabled = True
            self._supply_to(name, supply.volts)
        if self._settings.body:
            self._body_v = self._settings.supplies[self._settings.body].volts

    def _supply_to(self, name: str, asked_v: float) -> None:
        """Bring a supply that is on to a level, and measure it."""
        channel = self._power.channels[name]
        channel.voltage_level = asked_v
        volts = float(channel.measure(self._library.power.MeasurementTypes.VOLTAGE))
        if not abs(volts - asked_v) <= QUIET_V:
            raise InstrumentError(
                f"NI PXI: supply {name} reads {volts:g} V, it should be at {asked_v:g} V"
            )

    def _relays_open(self) -> None:
        if self._switch is None:
            return
        exists = self._library.switch.PathCapability.PATH_EXISTS
        self._switch.disconnect_all()
        self._switch.wait_for_debounce()
        for one, other in self._settings.routes:
            if self._switch.can_connect(one, other) == exists:
                raise InstrumentError(f"{one} and {other} of {self._settings.switch} are joined")

    def _close_relays(self) -> None:
        """Join the lines to the chip: all sources are at zero and apart."""
        if self._switch is None:
            return
        exists = self._library.switch.PathCapability.PATH_EXISTS
        for one, other in self._settings.routes:
            self._switch.connect(one, other)
        self._switch.wait_for_debounce()
        for one, other in self._settings.routes:
            if self._switch.can_connect(one, other) != exists:
                raise InstrumentError(
                    f"NI PXI: {self._settings.switch}: {one} and {other} are not joined"
                )

    @staticmethod
    @override
    def _failure(what: str, error: BaseException) -> BaseException:
        """An error of a library as an `InstrumentError` with its code; others as they are."""
        if isinstance(error, BenchError) or not isinstance(error, Exception):
            return error
        return InstrumentError(
            f"NI PXI: {what}: {type(error).__name__}: {error}", code=_code(error), command=what
        )

    @override
    def _grounded(self) -> tuple[bool, str]:
        """All off after a failure; whether outputs are off, and that as words for the error."""
        try:
            self._make_safe()
        except BaseException as error:
            return False, f"OUTPUTS COULD NOT BE SWITCHED OFF AND MAY BE ON ({error})"
        self._goes_on = self._is_loaded
        return True, "outputs are off"

    @property
    def _library(self) -> _Libraries:
        assert self._libraries is not None
        return self._libraries


class _Libraries:
    """The maker's libraries, imported when they are needed, and those only that the bench needs.
    Raises `ConfigError` where one is not installed.
    """

    def __init__(self, has_supplies: bool, has_switch: bool) -> None:
        self.digital: Any = library("nidigital", NEEDS, "ni")
        self.power: Any = library("nidcpower", NEEDS, "ni") if has_supplies else None
        self.switch: Any = library("niswitch", NEEDS, "ni") if has_switch else None


def _level(step: Step, line: Any) -> float:
    """The level of a line, one for the whole batch (V)."""
    volts = step.levels(line, 1) if np.ndim(getattr(step, f"{line}_v")) == 0 else None
    return float(volts[0] if volts is not None else getattr(step, f"{line}_v")[0])


def _high(levels: FloatArray, low_v: FloatArray) -> FloatArray:
    """Of each pin the level besides its low one, shape (pins,)."""
    highest, lowest = levels.max(axis=0), levels.min(axis=0)
    return np.asarray(np.where(highest > low_v, highest, lowest))


def _one_level_a_pin(levels: FloatArray, low_v: FloatArray) -> bool:
    """Whether each pin is at its low or at one other level in all rows."""
    return bool(np.all((levels == low_v) | (levels == _high(levels, low_v))))


def _code(error: BaseException) -> int:
    """The library's error code; 0 where it has none."""
    code = getattr(error, "code", 0)
    return code if isinstance(code, int) else 0
