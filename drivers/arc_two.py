"""Driver of the ArC TWO characterisation instrument through its maker's library pyarc2 (optional
extra `[arc2]`): a 1R array.

Checked against pyarc2 0.6.0 (signatures, docstrings) and the source of libarc2: `pulse_one` puts
half the voltage on the high and minus half on the low channel, `read_slice` biases the low channel
with minus Vread and gives the currents of all channels of the other kind in ascending order.
`unverified`, for want of the hardware: the shortest pulse, that all other channels stand at 0 V
meanwhile (V/2 scheme), and the sign of a current, of which the magnitude is taken as arc2control
does.

`read_all` is not used: which lines its `BiasOrder` biases differs between versions of the library,
and it is a loop of `read_slice` inside. Slices name their channel.

Cells: row r is word channel `words[r]` (low), column c is bit channel `bits[c]` (high), so the
volts across a cell are BL - SL. The defaults are the 32 x 32 package of arc2control.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from importlib import import_module
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
    WaitResult,
    check,
    pulses_of,
)
from rram_hil.array import Span as TimeSpan
from rram_hil.errors import (
    AbortedError,
    BenchError,
    ConfigError,
    InstrumentError,
    LinkError,
    UnknownOutcomeError,
)
from rram_hil.hardware.driver import (
    Capabilities,
    Driver,
    DriverConfig,
    Identity,
    Span,
    check_extras,
)
from rram_hil.types import FloatArray, IntArray
from rram_hil.units import Amperes, Seconds

CHANNELS = 64
LINES = 32
SHORTEST_S, LONGEST_S = 40e-9, 10.0
RANGES_V = {"standard": 10.0, "extended": 20.0}
QUIET_V = 0.1
"""Largest voltage on a channel that counts as off."""
POLL_S = 0.01


def _interleaved(up: range, down: range) -> list[int]:
    return [channel for pair in zip(up, down, strict=True) for channel in pair]


WORDS = _interleaved(range(16, 32), range(63, 47, -1))
BITS = _interleaved(range(15, -1, -1), range(32, 48))
WORD_CHANNELS = frozenset(WORDS)
BIT_CHANNELS = sorted(BITS)
"""All bit channels, in the order in which a slice gives their currents."""

Channel = Annotated[int, Field(ge=0, lt=CHANNELS)]


class ArcTwoConfig(DriverConfig):
    """Section `[driver]` of a bench with `name = "arc-two"`."""

    firmware: str = Field(default="", description="the firmware file that came with the instrument")
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
    timeout_s: Annotated[Seconds, Field(ge=0.05, le=60)] = Field(
        default=2.0, description="how much longer than expected the instrument may be busy"
    )

    @model_validator(mode="after")
    def _channels(self) -> Self:
        if len(set(self.words)) != len(self.words) or len(set(self.bits)) != len(self.bits):
            raise ValueError("words and bits: a channel may stand there once")
        if not set(self.words) <= WORD_CHANNELS or not set(self.bits) <= set(BIT_CHANNELS):
            raise ValueError(
                "words are channels 16..31 and 48..63, bits 0..15 and 32..47: slices run from words"
                " to bits"
            )
        return self


class ArcTwo(Driver):
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
        self._lock = threading.RLock()
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
            self._library = _library()
            firmware = Path(self._settings.firmware)
            if not firmware.is_file():
                raise ConfigError(f"driver.firmware: there is no file {firmware}")
            try:
                there = [int(i) for i in self._library.find_ids()]
            except BaseException as error:
                raise _failure("looking for instruments", error) from error
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
                raise _failure("opening the instrument", error) from error

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
            self._armed()
            what = f"operation {number}{f' ({operation.label})' if operation.label else ''}"
            if self.cancel.is_set():
                raise AbortedError(f"{what} was not started: the run is being aborted")
            stresses = bool(pulses_of(operation, self.limits).any())
            try:
                return self._apply(operation, what)
            except BaseException as error:
                is_off, off = self._grounded()
                if isinstance(error, AbortedError):
                    raise AbortedError(f"{error}; {off}", outputs_off=is_off) from None
                failure = _failure(what, error)
                if not isinstance(failure, LinkError):
                    raise
                if stresses:
                    raise UnknownOutcomeError(
                        f"{failure}; {off}; {what} may have been carried out", outputs_off=is_off
                    ) from error
                raise LinkError(
                    f"{failure}; {off}; {what} gave no pulse and may be repeated",
                    outputs_off=is_off,
                ) from error

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
                raise _failure("grounding the channels", error) from error

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
                status, conductance = self._worth(current[active, column], volts[active, column])
                stop = operation.stop.part(active)
                done = np.zeros(active.size, dtype=np.bool_)
                if stop.above_s is not None:
                    done |= (conductance >= stop.above_s) | (status == Status.OVER_RANGE)
                if stop.below_s is not None:
                    done |= conductance <= stop.below_s
                active = active[~done]
            column += 1
        status, conductance = self._worth(current, volts)
        status[~ran] = Status.NOT_RUN
        span = TimeSpan(started, self.now_s())
        return ApplyResult(current, conductance, status, stamps, pulses, ran.sum(axis=1), span)

    def _worth(
        self, current: FloatArray, volts: FloatArray
    ) -> tuple[NDArray[np.uint8], FloatArray]:
        """Status and conductance (S) of currents measured at these volts."""
        status = np.full(current.shape, Status.NOT_A_NUMBER, dtype=np.uint8)
        status[np.isfinite(current)] = Status.OK
        if self._settings.largest_a is not None:
            status[np.abs(current) >= self._settings.largest_a] = Status.OVER_RANGE
        conductance: FloatArray = np.full(current.shape, np.nan)
        np.divide(current, volts, out=conductance, where=status == Status.OK)
        return status, conductance

    def _pulse(self, cells: Cells, at: IntArray, level: FloatArray, step: Step, what: str) -> None:
        """Queue one pulse for each cell, in order, then let the instrument run them."""
        arc = self._armed()
        # Rounded: 90e-9 * 1e9 cut to an integer may lose a nanosecond, and a pulse of 0 ns is none.
        nanos = max(1, round(step.width_s * 1e9))
        self._transactions += 1
        for i in at:
            arc.pulse_one(self._low(cells, i), self._high(cells, i), float(level[i]), nanos)
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

    def _grounded(self) -> tuple[bool, str]:
        """Ground after a failure; whether outputs are off, and that as words for the error."""
        try:
            self._make_safe()
        except BaseException as error:
            return False, f"THE CHANNELS COULD NOT BE GROUNDED, OUTPUTS MAY BE ON ({error})"
        return True, "outputs are off"

    def _wait(self, operation: Wait) -> WaitResult:
        started = self.now_s()
        if self.cancel.wait(operation.seconds):
            raise AbortedError(
                f"a wait of {operation.seconds:g} s was aborted; nothing is driven during a wait"
            )
        return WaitResult(TimeSpan(started, self.now_s()))

    def _stop_if_cancelled(self, what: str) -> None:
        if self.cancel.is_set():
            raise AbortedError(f"{what} was aborted")

    def _armed(self) -> Any:
        if self._instrument is None:
            raise InstrumentError("ArC TWO: not armed; call arm() first")
        return self._instrument


def _library() -> Any:
    """pyarc2, imported when it is needed. Raises `ConfigError` where it is not installed."""
    importer: Callable[[str], Any] = import_module
    try:
        return importer("pyarc2")
    except ImportError as error:
        raise ConfigError(
            f'ArC TWO needs its maker\'s library: pip install "rram-hil[arc2]" ({error})'
        ) from None


def _failure(what: str, error: BaseException) -> BaseException:
    """An error of the library (a panic of its Rust core is not even an `Exception`) as a
    `LinkError`; others as they are.
    """
    if isinstance(error, BenchError) or not (
        isinstance(error, Exception) or "Panic" in type(error).__name__
    ):
        return error
    return LinkError(f"ArC TWO: {what}: {type(error).__name__}: {error}")
