"""Driver of the ArC TWO characterisation instrument through its maker's library pyarc2 (optional
extra `[arc2]`): a 1R array.

Checked against pyarc2 0.6.0 (signatures, docstrings) and the source of libarc2
(`src/instrument.rs`): `pulse_one` puts half the voltage on the high and minus half on the low
channel, `read_slice` biases the low channel with minus Vread and gives the currents of all channels
of the other kind in ascending order; widths up to 40 ns become 40 ns, the fast drivers reach 500
ms, longer pulses stay on until the channels are grounded; a ramp has ceil((stop - start) / step)
levels and never reaches its stop; what trains and ramps read is picked up afterwards, one block of
64 channels a reading. `unverified`, for want of the
hardware: that all other channels stand at 0 V meanwhile (V/2 scheme), the sign of a current, of
which the magnitude is taken as arc2control does, that a train reads as `read_slice` does, and what
the auxiliary outputs can drive.

`read_all` is not used: which lines its `BiasOrder` biases differs between versions of the library,
and it is a loop of `read_slice` inside. Slices name their channel.

Cells: row r is word channel `words[r]` (low), column c is bit channel `bits[c]` (high), so the
volts across a cell are BL - SL. The defaults are the 32 x 32 package of arc2control.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from typing_extensions import override

from rram_hil.array import (
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
from rram_hil.units import Amperes, Seconds
from rram_hil.validation import FileOfBench, FiniteVolts

from .dialects.maker_library import LibraryDriver, library, worth

CHANNELS = 64
LINES = 32
SHORTEST_S, LONGEST_S = 40e-9, 10.0
RANGES_V = {"standard": 10.0, "extended": 20.0}
QUIET_V = 0.1
"""Largest voltage on a channel that counts as off."""
POLL_S = 0.01
CLUSTER = 8
"""Channels that share the timing of the fast drivers."""
LONGEST_FAST_S = 0.5
LOGIC_PINS = 32
LOGIC_LEVELS = {1.8: "LL1V8", 3.3: "LL3V3", 5.0: "LL5V"}
LARGEST_TRAIN = 4096
"""Readings of a train or ramp that are left in the instrument's memory before they are fetched."""


def _interleaved(up: range, down: range) -> list[int]:
    return [channel for pair in zip(up, down, strict=True) for channel in pair]


WORDS = _interleaved(range(16, 32), range(63, 47, -1))
BITS = _interleaved(range(15, -1, -1), range(32, 48))
WORD_CHANNELS = frozenset(WORDS)
BIT_CHANNELS = sorted(BITS)
"""All bit channels, in the order in which a slice gives their currents."""

Channel = Annotated[int, Field(ge=0, lt=CHANNELS)]
Supply = Literal["SELL", "SELH", "ARB1", "ARB2", "ARB3", "ARB4"]


class ArcTwoConfig(DriverConfig):
    """Section `[driver]` of a bench with `name = "arc-two"`."""

    firmware: FileOfBench = Field(
        default="", description="the firmware file that came with the instrument"
    )
    id: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="which instrument; the only one if not given"
    )
    words: list[Channel] = Field(default=WORDS, description="channel of each row")
    bits: list[Channel] = Field(default=BITS, description="channel of each column")
    range: Literal["standard", "extended"] = Field(default="standard", description="+-10 or +-20 V")
    control: Literal["internal", "header"] = Field(
        default="internal", description="where the daughterboard has the array"
    )
    read_s: Annotated[Seconds, Field(gt=0, le=60)] = Field(
        default=2e-3, description="how long one slice takes, about"
    )
    largest_a: Annotated[Amperes, Field(gt=0)] | None = Field(
        default=None, description="a current at or beyond this is over range; no document states it"
    )
    read_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="reading uncertainty as the lab has measured it, part of the value"
    )
    read_floor_a: Annotated[Amperes, Field(ge=0)] = Field(
        default=0.0, description="the same, amperes"
    )
    logic: list[Annotated[int, Field(ge=0, lt=LOGIC_PINS)]] = Field(
        default=[], description="digital outputs that are high while the bench is armed"
    )
    logic_v: FiniteVolts | None = Field(
        default=None,
        description=(
            "volts of a high digital output, 1.8, 3.3 or 5; the instrument's own if not given"
        ),
    )
    supplies: dict[Supply, FiniteVolts] = Field(
        default={},
        description=(
            "volts of auxiliary outputs while the bench is armed, by the library's names: both"
            " levels of the selectors and four supplies; the current source (CREF, CSET) is not"
            " driven"
        ),
    )
    timeout_s: Annotated[Seconds, Field(ge=0.05, le=60)] = Field(
        default=2.0, description="how much longer than expected the instrument may be busy"
    )

    @model_validator(mode="after")
    def _channels(self) -> Self:
        if self.logic_v is not None and self.logic_v not in LOGIC_LEVELS:
            raise ValueError(f"logic_v must be 1.8, 3.3 or 5, not {self.logic_v:g}")
        if len(set(self.words)) != len(self.words) or len(set(self.bits)) != len(self.bits):
            raise ValueError("words and bits: a channel may stand there once")
        if not set(self.words) <= WORD_CHANNELS or not set(self.bits) <= set(BIT_CHANNELS):
            raise ValueError(
                "words are channels 16..31 and 48..63, bits 0..15 and 32..47: slices run from words"
                " to bits"
            )
        return self


@dataclass(frozen=True)
class VoltageRamp:
    """`count` levels from `start_v` to `stop_v`, both included: at each `pulses_each` pulses of
    `width_s` with `interpulse_s` between them, and a reading at `read_v` after the last of them.
    """

    start_v: float
    stop_v: float
    count: int
    width_s: float
    read_v: float
    pulses_each: int = 1
    interpulse_s: float = 0.0

    def __post_init__(self) -> None:
        if not (self.count >= 2 and self.pulses_each >= 1 and self.start_v != self.stop_v):
            raise ConfigError(
                "ramp: two levels or more that differ, and one pulse or more at each, are needed"
            )
        if not (0 <= self.interpulse_s < math.inf):
            raise ConfigError(
                f"ramp: interpulse_s must be 0 or more and finite, not {self.interpulse_s}"
            )

    @property
    def levels_v(self) -> FloatArray:
        """The levels, shape (count,)."""
        return np.linspace(self.start_v, self.stop_v, self.count)


@dataclass(frozen=True, eq=False)
class Readings:
    """What a train or a ramp read of n cells, k readings each, shapes (n, k); `pulses` that each
    cell took, shape (n,), for the ledger. Readings come without times.
    """

    cells: Cells
    current_a: FloatArray
    conductance_s: FloatArray
    status: NDArray[np.uint8]
    pulses: IntArray
    span: TimeSpan


class ArcTwo(LibraryDriver):
    """An ArC TWO.

    The host drives a batch step by step: the pulses of a step are queued and executed at once, its
    readings taken row by row as slices. `connect` lists the instruments and opens none, for opening
    one loads its firmware; `arm` does that.
    """

    Config: ClassVar[type[DriverConfig]] = ArcTwoConfig

    def __init__(self, config: DriverConfig, geometry: Geometry, limits: Limits) -> None:
        super().__init__(config, geometry, limits)
        assert isinstance(config, ArcTwoConfig)
        self._settings = config
        if not config.firmware:
            raise ConfigError(
                "driver.firmware: missing; give the firmware file that came with the ArC TWO"
            )
        if geometry.cell != "1R" or geometry.tiles != 1:
            raise ConfigError(
                "an ArC TWO holds one 1R array here: set chip.tiles to 1 and chip.cell to 1R"
            )
        if geometry.rows > len(config.words) or geometry.columns > len(config.bits):
            raise ConfigError(
                f"driver.words and driver.bits name {len(config.words)} and {len(config.bits)}"
                f" channels; the chip has {geometry.rows} rows and {geometry.columns} columns"
            )
        top = max(limits.bl_v, limits.sl_v, limits.wl_v)
        for name, volts in config.supplies.items():
            if abs(volts) > top:
                raise ConfigError(
                    f"driver.supplies: {name} of {volts:g} V is more than the largest of the limits"
                    f" of lines, {top:g} V"
                )
        self._lock = threading.RLock()
        self._is_supplied = False
        self._library: Any = None
        self._id: int | None = None
        self._instrument: Any = None
        self._transactions = 0

    @override
    def connect(self) -> Identity:
        """Find the instrument; open nothing and change no output.

        Raises `ConfigError` where pyarc2 or the firmware file is missing, `LinkError` where the
        instrument is.
        """
        with self._lock:
            self._library = library("pyarc2", "ArC TWO needs its maker's library", "arc2")
            firmware = Path(self._settings.firmware)
            if not firmware.is_file():
                raise ConfigError(f"driver.firmware: there is no file {firmware}")
            try:
                there = [int(i) for i in self._library.find_ids()]
            except BaseException as error:
                raise self._failure("looking for instruments", error) from error
            wanted = self._settings.id
            if not there or (wanted is not None and wanted not in there):
                raise LinkError(
                    f"no ArC TWO {'' if wanted is None else f'with id {wanted} '}found; there is"
                    f" {there or 'none'}"
                )
            if wanted is None and len(there) > 1:
                raise ConfigError(f"driver.id: there are several ArC TWO; give one of {there}")
            self._id = there[0] if wanted is None else wanted
            version = getattr(self._library, "LIBARC2_VERSION", None) or "?"
            return Identity("ArC TWO", str(self._id), firmware.name, f"libarc2 {version}")

    @property
    @override
    def capabilities(self) -> Capabilities:
        """What an ArC TWO can do through this driver. Raises `LinkError` before `connect`."""
        if self._id is None:
            raise LinkError("ArC TWO: not connected; call connect() first")
        config = self._settings
        volts = Span(-RANGES_V[config.range], RANGES_V[config.range])
        return Capabilities(
            bl_v=volts,
            sl_v=volts,
            wl_v=volts,
            width_s=Span(SHORTEST_S, LONGEST_S, 1e-9),
            schemes=frozenset({Scheme.HALF, Scheme.INHIBIT}),
            max_cells=LINES**2,
            max_steps=4096,
            read_fraction=config.read_fraction,
            read_floor_a=config.read_floor_a,
            abort_s=0.1,
            link="pyarc2",
            timing={"read_s": config.read_s},
        )

    @override
    def arm(self) -> None:
        """Open the instrument, which loads its firmware and sets all channels to 0 V; range,
        control, ground; read back.
        """
        with self._lock:
            if self._id is None:
                raise LinkError("ArC TWO: not connected; call connect() first")
            self.check_limits()
            library, config = self._library, self._settings
            self._instrument = None
            try:
                arc = library.Instrument(self._id, config.firmware, True)
                chosen = (
                    library.OutputRange.STD
                    if config.range == "standard"
                    else library.OutputRange.EXT
                )
                arc.set_channel_range(np.arange(CHANNELS, dtype=np.uint64), chosen)
                control = (
                    library.ControlMode.Internal
                    if config.control == "internal"
                    else library.ControlMode.Header
                )
                arc.finalise_operation(library.IdleMode.HardGnd, control)
                arc.execute()
                self._instrument = arc
                self._make_safe()
            except BaseException as error:
                self._instrument = None
                raise self._failure("opening the instrument", error) from error

    @override
    def execute(self, operation: Operation, number: int) -> Result:
        """Carry out an `Apply` or `Wait`.

        Raises `ConfigError` and `LimitError` before anything is sent; `AbortedError` when
        cancelled; where the library fails, `UnknownOutcomeError` if a cell may have been pulsed,
        else `LinkError`. The channels are grounded in all of these.
        """
        with self._lock:
            if isinstance(operation, Wait):
                return self._wait(operation)
            if not isinstance(operation, Apply):
                raise self.refuse(f"a native {type(operation).__name__}", "single steps and waits")
            self._check(operation)
            what = f"operation {number}{f' ({operation.label})' if operation.label else ''}"
            stresses = stresses_cells(operation, self.geometry, self.limits)
            with self._working(what, stresses=stresses):
                return self._apply(operation, what)

    # The instrument's own sequences

    def read_train(
        self, cells: Cells, *, read_v: float, count: int, interval_s: float = 0.0
    ) -> Readings:
        """Read each cell `count` times, `interval_s` apart, without the host: one train a row.

        Raises as `execute`; `ConfigError` for more than the instrument's memory takes.
        """
        self._check_train(count, interval_s)
        self._check(Apply(cells, (Step(read_v, 0.0, 0.0, SHORTEST_S, "current"),), Scheme.INHIBIT))
        what = f"a read train of {len(cells)} cells"
        with self._lock, self._working(what, stresses=False):
            started, arc = self.now_s(), self._armed()
            current = np.full((len(cells), count), np.nan)
            for row in np.unique(cells.row):
                here = np.flatnonzero(cells.row == row)
                highs = np.array([self._high(cells, i) for i in here], dtype=np.uint64)
                lows = np.array([self._low(cells, here[0])], dtype=np.uint64)
                self._forget()
                arc.generate_read_train(lows, highs, read_v, count, round(interval_s * 1e9), True)
                arc.execute()
                self._transactions += 1
                self._until_idle(count * (self._settings.read_s + interval_s), what)
                current[here] = self._picked(count, what)[:, highs.astype(np.int64)].T
            return self._readings(cells, current, read_v, np.zeros(len(cells), np.int64), started)

    def ramp(self, cells: Cells, ramp: VoltageRamp) -> Readings:
        """Ramp each cell without the host, one cell after the other.

        Limits are checked first. Runs beside the engine: charge `count * pulses_each` pulses a cell
        to the ledger before and correct it by `Readings.pulses` after. Raises as `execute`.
        """
        self._check_train(ramp.count, ramp.interpulse_s)
        steps = [Step(float(v), 0.0, 0.0, ramp.width_s) for v in (ramp.start_v, ramp.stop_v)]
        reading = Step(ramp.read_v, 0.0, 0.0, SHORTEST_S, "current")
        self._check(Apply(cells, (*steps, reading), Scheme.HALF))
        pulses = ramp.count * ramp.pulses_each
        if pulses > self.limits.pulses_per_cell:
            raise ConfigError(
                f"ramp: {pulses} pulses a cell are more than limits.pulses_per_cell of"
                f" {self.limits.pulses_per_cell}"
            )
        what = f"a ramp of {len(cells)} cells"
        library = self._library
        step_v = (ramp.stop_v - ramp.start_v) / (ramp.count - 1)
        nanos = max(1, round(ramp.width_s * 1e9)), round(ramp.interpulse_s * 1e9)
        stressed = int(np.count_nonzero(np.abs(ramp.levels_v) > self.limits.read_v))
        with self._lock, self._working(what, stresses=stressed > 0):
            started, arc = self.now_s(), self._armed()
            current = np.full((len(cells), ramp.count), np.nan)
            for i in range(len(cells)):
                low, high = self._low(cells, i), self._high(cells, i)
                self._forget()
                arc.generate_ramp(
                    low,
                    high,
                    ramp.start_v,
                    step_v,
                    # The library stops before this: half a step further is one level more.
                    ramp.stop_v + step_v / 2,
                    *nanos,
                    ramp.pulses_each,
                    library.ReadAt.Arb(ramp.read_v),
                    library.ReadAfter.Block,
                )
                # The library leaves the last reading's bias on.
                arc.ground_all_fast()
                arc.execute()
                self._transactions += 1
                one_s = ramp.pulses_each * (ramp.width_s + ramp.interpulse_s)
                self._until_idle(ramp.count * (one_s + self._settings.read_s), what)
                current[i] = self._picked(ramp.count, what)[:, high]
            taken = np.full(len(cells), stressed * ramp.pulses_each)
            return self._readings(cells, current, ramp.read_v, taken, started)

    def pulse_row(self, cells: Cells, volts_v: float, width_s: float) -> None:
        """One pulse on different cells of one row at the same time, by the fast drivers: half of
        `volts_v` on their columns, minus half on the row.

        Runs beside the engine: charge one pulse a cell before. Raises as `execute`; `ConfigError`
        for cells of several rows and for more than 500 ms.
        """
        self._check(Apply(cells, (Step(volts_v, 0.0, 0.0, width_s),), Scheme.HALF))
        if len(cells) == 0 or np.unique(cells.row).size != 1 or width_s > LONGEST_FAST_S:
            raise self.refuse(
                "a pulse on several rows, on none or of such length",
                f"one pulse on cells of one row, up to {LONGEST_FAST_S:g} s",
            )
        what = f"a pulse on {len(cells)} cells of a row"
        nanos = max(1, round(width_s * 1e9))
        channels = [(self._low(cells, 0), -volts_v / 2, 0.0)]
        channels += [(self._high(cells, i), volts_v / 2, 0.0) for i in range(len(cells))]
        clusters = {channel // CLUSTER for channel, _, _ in channels}
        timings = [nanos if k in clusters else None for k in range(CHANNELS // CLUSTER)]
        with self._lock, self._working(what, stresses=abs(volts_v) > self.limits.read_v):
            arc = self._armed()
            arc.pulse_slice_fast_open(channels, timings, True)
            arc.ground_all_fast()
            arc.execute()
            self._transactions += 1
            self._until_idle(width_s, what)

    @override
    def safe_off(self) -> None:
        """All channels to 0 V and to ground, verified by a voltage reading of each. Raises
        `InstrumentError` if not.
        """
        with self._lock:
            if self._instrument is None:
                return
            try:
                self._make_safe()
            except BaseException as error:
                raise self._failure("grounding the channels", error) from error

    @override
    def close(self) -> None:
        """Let the instrument go; safe to call twice."""
        with self._lock:
            self._instrument = None

    @override
    def now_s(self) -> float:
        """The bench clock: this computer's."""
        return time.monotonic()

    @property
    @override
    def transactions(self) -> int:
        """Turns with the instrument: one for the pulses of a step, one a slice."""
        return self._transactions

    def _check(self, operation: Apply) -> None:
        check_extras(operation, self.capabilities)
        check(operation, self.geometry, self.limits, bounds_current=False)
        can = self.capabilities
        if operation.unselected not in can.schemes:
            raise self.refuse(f"scheme {operation.unselected!s} for unselected lines", "half")
        if operation.compliance_a is not None:
            raise self.refuse("a compliance current", "none")
        for step in operation.steps:
            volts = step.cell_v(len(operation.cells))
            if step.bl_v is None or step.sl_v is None:
                raise self.refuse("a floating selected line", "one voltage across the cell")
            if step.measure == "gate":
                raise self.refuse("a gate current", "the current through the cell")
            if np.any(~(np.abs(volts) <= can.bl_v.high)):
                raise self.refuse(
                    "BL - SL of such size", f"{can.bl_v.low:g} to {can.bl_v.high:g} V"
                )
            if not can.width_s.holds(step.width_s, step.width_s):
                raise self.refuse(
                    f"a width of {step.width_s:g} s", f"{SHORTEST_S:g} to {LONGEST_S:g} s"
                )
            if step.measure == "current" and np.any(
                (np.abs(volts) > self.limits.read_v) | (volts == 0)
            ):
                raise self.refuse(
                    "a measurement at 0 V or above limits.read_v", "a read after each pulse"
                )

    def _check_train(self, count: int, interval_s: float) -> None:
        if not (1 <= count <= LARGEST_TRAIN and 0 <= interval_s <= self.limits.wait_s):
            raise ConfigError(
                f"ArC TWO: {count} readings, {interval_s} s apart; 1 to {LARGEST_TRAIN} are"
                f" possible, 0 to {self.limits.wait_s:g} s apart"
            )

    @contextlib.contextmanager
    def _working(self, what: str, *, stresses: bool) -> Iterator[None]:
        """Armed, with its supplies on; whatever fails inside leaves the channels grounded, and the
        error says whether cells may have been pulsed.
        """
        self._armed()
        if self.cancel.is_set():
            raise AbortedError(f"{what} was not started: the run is being aborted")
        with self._off_on_failure(what, stresses=stresses):
            self._supply()
            yield

    def _supply(self) -> None:
        """Logic and auxiliary outputs as the bench file says, where they are not so already."""
        config, library, arc = self._settings, self._library, self._armed()
        if self._is_supplied or not (config.logic or config.supplies or config.logic_v):
            return
        if config.logic_v is not None:
            arc.set_logic_level(getattr(library.LogicLevel, LOGIC_LEVELS[config.logic_v]))
        self._set_outputs(config.supplies, sum(1 << pin for pin in set(config.logic)))
        arc.execute()
        self._until_idle(0.0, "the supplies", may_abort=False)
        self._is_supplied = True

    def _set_outputs(self, supplies: dict[Supply, float], logic: int) -> None:
        """Queue volts of auxiliary outputs and the mask of digital ones."""
        functions, arc = self._library.AuxDACFn, self._armed()
        if supplies:
            arc.config_aux_channels([(getattr(functions, k), v) for k, v in supplies.items()])
        if self._settings.logic:
            arc.set_logic(logic)

    def _forget(self) -> None:
        """Throw away what an earlier sequence, one that was broken off, has left to be picked."""
        for _ in range(LARGEST_TRAIN):
            if self._pick() is None:
                return
        raise LinkError("ArC TWO: readings that nobody asked for do not end")

    def _pick(self) -> Any:
        library = self._library
        return self._armed().pick_one(library.DataMode.All, library.ReadType.Current)

    def _picked(self, count: int, what: str) -> FloatArray:
        """Currents of all channels in each reading, shape (count, 64)."""
        blocks = [block for _ in range(count + 1) if (block := self._pick()) is not None]
        if len(blocks) != count or any(np.shape(block) != (CHANNELS,) for block in blocks):
            raise LinkError(
                f"ArC TWO: {what}: {len(blocks)} readings of {[np.shape(b) for b in blocks[:1]]}"
                f" channels came, not {count} of {CHANNELS}"
            )
        return np.array(blocks, dtype=np.float64)

    def _readings(
        self, cells: Cells, current: FloatArray, read_v: float, pulses: IntArray, started_s: float
    ) -> Readings:
        current = math.copysign(1.0, read_v) * np.abs(current)
        status, conductance = worth(
            current, np.full(current.shape, read_v), self._settings.largest_a
        )
        span = TimeSpan(started_s, self.now_s())
        return Readings(cells, current, conductance, status, pulses, span)

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
            if step.measure == "no":
                self._pulse(operation.cells, active, level, step, what)
                pulses[active] += np.abs(level[active]) > self.limits.read_v
                continue
            self._read(operation.cells, active, level, current[:, column], what)
            volts[active, column], ran[active, column], stamps[active, column] = (
                level[active],
                True,
                self.now_s(),
            )
            if operation.stop is not None:
                status, conductance = worth(
                    current[active, column], volts[active, column], self._settings.largest_a
                )
                stop = operation.stop.part(active)
                done = np.zeros(active.size, dtype=np.bool_)
                if stop.above_s is not None:
                    done |= (conductance >= stop.above_s) | (status == Status.OVER_RANGE)
                if stop.below_s is not None:
                    done |= conductance <= stop.below_s
                active = active[~done]
            column += 1
        status, conductance = worth(current, volts, self._settings.largest_a)
        status[~ran] = Status.NOT_RUN
        span = TimeSpan(started, self.now_s())
        return ApplyResult(current, conductance, status, stamps, pulses, ran.sum(axis=1), span)

    def _pulse(self, cells: Cells, at: IntArray, level: FloatArray, step: Step, what: str) -> None:
        """Queue one pulse for each cell, in order, then let the instrument run them."""
        arc = self._armed()
        # Rounded: 90e-9 * 1e9 cut to an integer may lose a nanosecond, and a pulse of 0 ns is none.
        nanos = max(1, round(step.width_s * 1e9))
        self._transactions += 1
        for i in at:
            arc.pulse_one(self._low(cells, i), self._high(cells, i), float(level[i]), nanos)
            # From 500 ms on a pulse is a bias and a delay: nothing else ends it.
            arc.ground_all_fast()
        arc.execute()
        self._until_idle(step.width_s * at.size, what)

    def _read(
        self, cells: Cells, at: IntArray, level: FloatArray, current: FloatArray, what: str
    ) -> None:
        """Read the cells of each row, and of each read voltage among them, as one slice."""
        arc = self._armed()
        for row in np.unique(cells.row[at]):
            for volts in np.unique(level[at[cells.row[at] == row]]):
                self._stop_if_cancelled(what)
                here = at[(cells.row[at] == row) & (level[at] == volts)]
                highs = np.array([self._high(cells, i) for i in here], dtype=np.uint64)
                low = self._low(cells, here[0])
                self._transactions += 1
                if here.size == len(BIT_CHANNELS):
                    currents = arc.read_slice(low, float(volts))
                else:
                    currents = arc.read_slice_masked(low, highs, float(volts))
                currents = np.asarray(currents, dtype=np.float64)
                if currents.shape != (len(BIT_CHANNELS),):
                    raise LinkError(
                        f"ArC TWO: a slice has shape {currents.shape}, not ({len(BIT_CHANNELS)},)"
                    )
                current[here] = math.copysign(1.0, volts) * np.abs(
                    currents[np.searchsorted(BIT_CHANNELS, highs)]
                )

    def _low(self, cells: Cells, i: int | np.int64) -> int:
        return self._settings.words[int(cells.row[i])]

    def _high(self, cells: Cells, i: int | np.int64) -> int:
        return self._settings.bits[int(cells.column[i])]

    def _until_idle(self, length_s: float, what: str, *, may_abort: bool = True) -> None:
        """Wait until the instrument has worked off its queue, looking at `cancel`. Raises
        `LinkError` where it never does.
        """
        arc = self._armed()
        deadline_s = time.monotonic() + self._settings.timeout_s + 1.5 * length_s
        while arc.busy():
            if may_abort:
                self._stop_if_cancelled(what)
            if time.monotonic() > deadline_s:
                raise LinkError(
                    f"ArC TWO: still busy with {what} after"
                    f" {self._settings.timeout_s + 1.5 * length_s:.3g} s"
                )
            time.sleep(POLL_S)

    def _make_safe(self) -> None:
        """Ground, look at every channel's voltage, and leave them at hard ground."""
        library, arc = self._library, self._armed()
        self._is_supplied = False
        self._set_outputs(dict.fromkeys(self._settings.supplies, 0.0), 0)
        arc.ground_all()
        arc.execute()
        self._until_idle(0.0, "grounding", may_abort=False)
        volts = np.asarray(
            arc.vread_channels(np.arange(CHANNELS, dtype=np.uint64), False), dtype=np.float64
        )
        arc.finalise_operation(library.IdleMode.HardGnd)
        arc.execute()
        self._until_idle(0.0, "grounding", may_abort=False)
        if volts.shape != (CHANNELS,) or not np.all(np.abs(volts) <= QUIET_V):
            worst = int(np.argmax(np.nan_to_num(np.abs(volts), nan=np.inf))) if volts.size else 0
            problem = (
                f"channel {worst} reads {volts[worst]:g} V"
                if volts.size
                else "no channel could be read"
            )
            raise InstrumentError(
                f"ArC TWO: outputs are not confirmed off: {problem}; switch the instrument off"
            )

    @staticmethod
    @override
    def _failure(what: str, error: BaseException) -> BaseException:
        """An error of the library (a panic of its Rust core is not even an `Exception`) as a
        `LinkError`; others as they are.
        """
        if isinstance(error, BenchError) or not (
            isinstance(error, Exception) or "Panic" in type(error).__name__
        ):
            return error
        return LinkError(f"ArC TWO: {what}: {type(error).__name__}: {error}")

    @override
    def _grounded(self) -> tuple[bool, str]:
        """Ground after a failure; whether outputs are off, and that as words for the error."""
        try:
            self._make_safe()
        except BaseException as error:
            return False, f"THE CHANNELS COULD NOT BE GROUNDED, OUTPUTS MAY BE ON ({error})"
        return True, "outputs are off"

    def _armed(self) -> Any:
        if self._instrument is None:
            raise InstrumentError("ArC TWO: not armed; call arm() first")
        return self._instrument
