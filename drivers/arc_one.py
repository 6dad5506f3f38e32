"""Driver of the ArC ONE memristor characterisation board: a 1R array of up to 32 x 32 cells behind
a serial port.

Written from the behaviour of the board's public host programs; the firmware is not public. Checked
against the sources of arc1_pyqt (panels, instrument.py, VirtualArC) and libarc1 (packets and
modules): framing, job codes, order of arguments, read modes, who says what when; and against the
manual (arc1_docs). `unverified`: how long a read takes, the highest resistance it can tell, what it
replies for currents beyond its range, that the board puts its outputs to zero in a reset, and
everything that happens inside a module. libarc1 has 2 for floating lines where the other host
program has 256, which is sent here.

Cells: row r is word r + 1, column c is bit c + 1. The board knows one voltage, that across the
cell: BL - SL of a step. Levels of WL are ignored, as in every 1R array. Positive volts are sent as
they are: they stand on the word line, with the bit line at ground, and V/2 or V/3 on all others
(arc1_docs, "Starting a new Session").

Lines that are lost or come twice: the board acknowledges nothing and has no checksums, so the order
of what is sent must make either harmless (docs/safety.md, "Links as they are in a lab").
- Only a job's first line is spelled like a job: whole numbers that are arguments are sent with a
  decimal point ("14.0"; unverified, but the board confirms a session that is begun so). What is
  left of a job without its first line is no job.
- Lines of zero go before the first question: a job that a killed program has sent half of takes
  them for its arguments, where the question would be its volts or its seconds.
- A line of zero follows every job. Where one was lost it takes the last place of the arguments: a
  pulse of no width, a reading of no cell.
- The read voltage is set by nothing but the session's job, which the board confirms. It stands
  behind the scheme of unselected lines, sent as 0 there: a line that came twice leaves 0 V. Other
  schemes are set by a job of their own.
- Readings are taken of a rectangle from the first cell on, without any address, and counted: lines
  lost or doubled give another number of values. What a pulse job replies is its acknowledgement.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal, NoReturn, Self

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
from rram_hil.units import Amperes, Ohms, Seconds, Unit
from rram_hil.validation import FiniteVolts
from rram_hil.wire.bench_clock import FarClock
from rram_hil.wire.link import Link
from rram_hil.wire.link_keys import LinkKeys
from rram_hil.wire.open_link import make_link

from .dialects.arc_one_modules import (
    LARGEST_V,
    LONGEST_S,
    SHORTEST_S,
    Chronoamperometry,
    ConvergeToState,
    CurveTracer,
    Endurance,
    FormFinder,
    Module,
    SwitchSeeker,
    Triplets,
    Volatility,
    Waveform,
    conductance_of,
    is_terminator,
    real,
    spike_pair,
    status_of,
)

__all__ = [
    "ArcOne",
    "ArcOneConfig",
    "Chronoamperometry",
    "ConvergeToState",
    "CurveTracer",
    "Endurance",
    "FormFinder",
    "Retention",
    "SwitchSeeker",
    "Triplets",
    "Volatility",
    "Waveform",
    "spike_pair",
]

BAUD = 921600
LARGEST_SIDE = 32
LINE_S = 1e-3
"""Shortest time between two lines; below about half of it the board loses some."""
RESET_S = 2.0
"""How long a reset takes."""
POLL_S = 0.05
"""How often a waiting driver looks at its cancel event."""
QUIET_S = 0.02
"""Silence that ends a reply: bytes that still come do not belong there."""
OUTSTANDING = 128
"""Replies that may be on their way while more jobs are sent."""
ATTEMPTS = 3
"""How often a session is started before the board counts as gone."""
READ_MODES = {"classic": 0, "tia": 1, "tia4p": 2}
TIA4P_NEGATIVE = 3
SESSIONS = {"local": 0, "external": 1, "external to local": 2}
OFFLINE = 3
CONFIRMATION = b"1\n"
PADDING = "0.000000e+00"
"""A line that is no job, and as an argument no volts, no width and no cell."""
MOST_ARGUMENTS = 64
"""More lines than any job of this driver has behind its first."""
SNEAK_PATH = {Scheme.THIRD: 0, Scheme.HALF: 1, Scheme.FLOATING: 256}
FLOAT = np.dtype("<f4")
MOST_TOLD_V = 1.05 * LARGEST_V
"""The board tells volts as it measured them, some percent off (arc1_docs, "Saving data")."""
LONGEST_NUMBER = 16


class ArcOneConfig(LinkKeys, DriverConfig):
    """Section `[driver]` of a bench with `name = "arc-one"`."""

    ADDRESS: ClassVar[str] = "port"

    baud: Annotated[int, Unit("Bd"), Field(ge=300)] = Field(
        default=BAUD, description="line rate, which the board does not let one choose"
    )
    parity: Literal["none", "even", "odd", "mark", "space"] = Field(
        default="even", description="parity bit, as the board has it"
    )
    read_mode: Literal["classic", "tia", "tia4p"] = Field(
        default="tia4p", description="how the board reads"
    )
    read_v: FiniteVolts = Field(
        default=0.2, description="Vread of acknowledgements and of the modules' readings"
    )
    read_cycles: Annotated[int, Field(ge=1, le=10000)] = Field(
        default=50, description="samples averaged in one read"
    )
    session: Literal["local", "external", "external to local"] = Field(
        default="local", description="where the array is"
    )
    unselected: Literal["third", "half", "floating"] = Field(
        default="third",
        description=(
            "scheme of unselected lines of modules, and of operations that ask for `inhibit`"
        ),
    )
    read_s: Annotated[Seconds, Field(gt=0, le=60)] = Field(
        default=1e-3, description="how long one read takes, about"
    )
    lowest_ohm: Annotated[Ohms, Field(ge=0)] = Field(
        default=0.0,
        description="a resistance at or below this is over range: the board cannot tell it",
    )
    highest_ohm: Annotated[Ohms, Field(gt=0)] | None = Field(
        default=1e7,
        description=(
            "beyond this the board cannot tell a current from none: an infinite resistance, or a"
            " negative one of this size, then reads 0 S, and the uncertainty says so; 0 S is never"
            " read without this key"
        ),
    )
    read_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description=(
            "reading uncertainty as the lab has measured it, part of the value; no document"
            " states one"
        ),
    )
    read_floor_a: Annotated[Amperes, Field(ge=0)] = Field(
        default=0.0, description="the same, amperes"
    )
    retries: Annotated[int, Field(ge=0, le=10)] = Field(
        default=2, description="how often a read is repeated"
    )
    version_s: Annotated[Seconds, Field(ge=0.05, le=10)] = Field(
        default=2.0,
        description="silence after which the firmware counts as one that does not tell its version",
    )
    clock: str = Field(
        default="",
        description="control address of a simulated board, whose clock is then the bench's",
    )
    pace: Annotated[float, Field(ge=0)] = Field(
        default=1.0,
        description="wall seconds spent per second of the board's time; 1 but on a simulated board",
    )

    @model_validator(mode="after")
    def _real_boards_take_their_time(self) -> Self:
        if self.pace < 1 and not self.clock:
            raise ValueError(
                "pace below 1 loses lines on a real board; it goes with the clock of a"
                " simulated one"
            )
        return self


@dataclass(frozen=True, eq=False)
class Retention:
    """Periodic reads: `conductance_s` and `status` of n cells at k times, shape (n, k); `time_s`
    (k,) since the first (s).
    """

    cells: Cells
    time_s: FloatArray
    conductance_s: FloatArray
    status: NDArray[np.uint8]
    span: TimeSpan


@dataclass(frozen=True)
class _Job:
    """Lines of one job, how many floats it replies, and how long it keeps the board busy (s)."""

    lines: tuple[str, ...]
    replies: int
    length_s: float


@dataclass(frozen=True)
class _Talk:
    """A `Board` for one module's talk about one cell. `received`: as many bytes; `what` names it in
    errors.
    """

    what: str
    received: Callable[[int], bytes]
    sent: Callable[..., None]

    def triplets(self) -> FloatArray:
        blocks: list[FloatArray] = []
        while True:
            triplet = self.floats(3)
            if is_terminator(triplet):
                return np.array(blocks, dtype=np.float64).reshape(-1, 3)
            _, volts, width = triplet
            if not (abs(volts) <= MOST_TOLD_V and 0 <= width <= 1e6):
                raise LinkError(f"{self.what}: {triplet} is no triplet")
            blocks.append(triplet)

    def floats(self, count: int) -> FloatArray:
        return np.frombuffer(self.received(count * FLOAT.itemsize), dtype=FLOAT).astype(np.float64)

    def number(self) -> int:
        text = b""
        while not text.endswith(b"\n"):
            text += self.received(1)
            if not text.strip().isdigit() or len(text) > LONGEST_NUMBER:
                raise LinkError(f"{self.what}: {text!r} is no whole number")
        return int(text)

    def send(self, *lines: str | int) -> None:
        self.sent(*_arguments(*lines))


class ArcOne(Driver):
    """An ArC ONE board.

    A read is one job, of the smallest rectangle from the array's first cell on that holds the cells
    asked for. The pulses of a step go out as one paced burst, each acknowledged; all cells take a
    step before the next one begins. A reading uses the board's own integration (`read_cycles`),
    whatever the step's width. `transactions`, `bytes_sent` and `bytes_received` count what went
    over the link.

    The board keeps no records and cannot be asked what it drives. After anything that went wrong
    with a stress under way it is reset, and `UnknownOutcomeError` says so; reads are repeated.
    """

    Config: ClassVar[type[DriverConfig]] = ArcOneConfig

    def __init__(self, config: DriverConfig, geometry: Geometry, limits: Limits) -> None:
        super().__init__(config, geometry, limits)
        assert isinstance(config, ArcOneConfig)
        self._settings = config
        if not config.port:
            raise ConfigError(
                "driver.port: missing; give the board's serial port such as COM3 or /dev/ttyACM0,"
                " or socket://host:port, or add a [simulation] section"
            )
        if (
            geometry.cell != "1R"
            or geometry.tiles != 1
            or max(geometry.rows, geometry.columns) > LARGEST_SIDE
        ):
            raise ConfigError(
                f"an ArC ONE holds one 1R array of up to {LARGEST_SIDE} x {LARGEST_SIDE} cells, not"
                f" {geometry.tiles} x {geometry.rows} x {geometry.columns} {geometry.cell} cells"
            )
        if not 0 < abs(config.read_v) <= limits.read_v:
            raise ConfigError(
                f"driver.read_v: {config.read_v:g} V must not be 0 V and lie within limits.read_v"
                f" of {limits.read_v:g} V"
            )
        if not config.read_s <= limits.read_width_s:
            raise ConfigError(
                f"driver.read_s: a read of {config.read_s:g} s is longer than limits.read_width_s"
                f" of {limits.read_width_s:g} s"
            )
        self._transactions = 0
        self.bytes_sent = 0
        self.bytes_received = 0
        self._lock = threading.RLock()
        self._link: Link | None = None
        self._far: FarClock | None = None
        self._is_known = False
        self._version: tuple[int, int] | None = None
        self._armed = False
        self._in_session = False
        self._scheme = Scheme.THIRD
        self._read_v = math.nan
        self._may_abort = False
        self._line_due_s = 0.0

    @override
    def connect(self) -> Identity:
        """Open the port and ask for the firmware's version; change no output.

        Old firmware does not answer that: a silent board is taken for one, and `arm` then finds
        out. Raises `LinkError` for a port that does not open, `ConfigError` for another instrument.
        """
        with self._lock:
            self._is_known = self._armed = self._in_session = False
            if self._link is None:
                self._link = make_link(
                    self._settings.port, self.traffic, **self._settings.link_settings()
                )
            try:
                self._link.close()
                self._link.open()
                self._link.drain()
                self._version = self._identified()
            except ConfigError as error:
                self._link.close()
                raise ConfigError(f"driver.port: {error}") from None
            except BenchError:
                self._link.close()
                raise
            self._is_known = True
            firmware = (
                "does not tell" if self._version is None else ".".join(map(str, self._version))
            )
            return Identity(model="ArC ONE", serial="", firmware=firmware)

    @property
    @override
    def capabilities(self) -> Capabilities:
        """What an ArC ONE can do. Raises `LinkError` before `connect`."""
        self._connected()
        config = self._settings
        # The levels of a line have no meaning of their own here: what counts is their difference,
        # checked for each operation.
        volts = Span(-LARGEST_V, LARGEST_V)
        unseen_a = 0.0 if config.highest_ohm is None else abs(config.read_v) / config.highest_ohm
        return Capabilities(
            bl_v=volts,
            sl_v=volts,
            wl_v=volts,
            width_s=Span(SHORTEST_S, LONGEST_S),
            schemes=frozenset({*SNEAK_PATH, Scheme.INHIBIT}),
            max_cells=LARGEST_SIDE**2,
            max_steps=4096,
            bias_current=False,
            read_fraction=config.read_fraction,
            read_floor_a=max(config.read_floor_a, unseen_a),
            abort_s=RESET_S * config.pace + 0.1,
            clock="virtual" if config.clock else "wall",
            link="serial",
            timing={"line_s": LINE_S, "read_s": config.read_s, "reset_s": RESET_S},
        )

    @override
    def arm(self) -> None:
        """Reset the board, start a session with this bench's array and set the read condition.

        Raises `LinkError` for a board that does not confirm its session: it is then off or no ArC
        ONE.
        """
        with self._lock:
            self._connected()
            self.check_limits()
            self._armed = False
            self._start_session(SESSIONS[self._settings.session])
            self._armed = True

    @override
    def execute(self, operation: Operation, number: int) -> Result:
        """Carry out an `Apply` or `Wait`.

        Raises `ConfigError` and `LimitError` for what this board cannot do or may not, before
        anything is sent. Raises `AbortedError` when cancelled, `UnknownOutcomeError` where cells
        may have been pulsed and no reply tells, `LinkError` where none can have been; the board has
        then been reset.
        """
        with self._lock:
            if isinstance(operation, Wait):
                return self._wait(operation.seconds)
            if not isinstance(operation, Apply):
                raise self.refuse(f"a native {type(operation).__name__}", "single steps and waits")
            self._check(operation)
            what = f"operation {number}{f' ({operation.label})' if operation.label else ''}"
            with self._working(what):
                return self._apply(operation, what)

    @override
    def safe_off(self) -> None:
        """Reset the board and put it offline, where it drives nothing; verified by its confirmation
        of that session.

        The board has no query of its outputs: that confirmation is all it can tell. Raises
        `LinkError` without it.
        """
        with self._lock:
            self._connected()
            self._armed = False
            self._start_session(OFFLINE)
            self._in_session = False

    @override
    def close(self) -> None:
        """Close the port; safe to call twice."""
        with self._lock:
            if self._link is not None:
                self._link.close()
            if self._far is not None:
                self._far.close()
                self._far = None

    @override
    def now_s(self) -> float:
        """The bench clock: the simulated board's where there is one, else this computer's."""
        if not self._settings.clock:
            return time.monotonic()
        with self._lock:
            return self._clock().now_s()

    @property
    @override
    def transactions(self) -> int:
        """Jobs and bursts so far, repeats included, and in a module each device: what had to wait
        for the board.
        """
        return self._transactions

    # The board's own modules

    def form_finder(self, cells: Cells, settings: FormFinder) -> Triplets:
        """Run the form finder on each cell; first triplet of each cell is its initial read. For all
        modules:

        One job for all cells, or for each where the host talks on. Limits are checked first
        (`LimitError`); a lost reply raises `UnknownOutcomeError`, the board reset. Modules run
        beside the engine: charge `settings.most_pulses` a cell to the ledger before and correct it
        by `Triplets.pulses` after.
        """
        return self._module(cells, settings)

    def curve_tracer(self, cells: Cells, settings: CurveTracer) -> Triplets:
        """I-V loops of each cell, `cycle` telling them apart. See `form_finder` for charging and
        errors.
        """
        return self._module(cells, settings)

    def endurance(self, cells: Cells, settings: Endurance) -> Triplets:
        """Cycle each cell. See `form_finder` for charging and errors."""
        return self._module(cells, settings)

    def converge_to_state(self, cells: Cells, settings: ConvergeToState) -> Triplets:
        """Bring each cell towards one resistance. See `form_finder` for charging and errors."""
        return self._module(cells, settings)

    def switch_seeker(self, cells: Cells, settings: SwitchSeeker) -> Triplets:
        """Find the volts at which each cell switches. See `form_finder` for charging and errors."""
        return self._module(cells, settings)

    def chronoamperometry(self, cells: Cells, settings: Chronoamperometry) -> Triplets:
        """Read each cell under a lasting bias. See `form_finder` for charging and errors."""
        return self._module(cells, settings)

    def volatility(self, cells: Cells, settings: Volatility) -> Triplets:
        """Pulse each cell once and watch it fall back. See `form_finder` for charging and
        errors.
        """
        return self._module(cells, settings)

    def waveform(self, cells: Cells, settings: Waveform) -> Triplets:
        """Give each cell volts over time, such as `spike_pair` makes. Triplets: two readings before
        it, one after with its peak and length, and a last one. See `form_finder` for charging and
        errors.
        """
        return self._module(cells, settings)

    def multi_bias(self, *_: object) -> NoReturn:
        """Refuse the board's job 50: were a line of it lost, the board would take the number of
        word lines for the volts of a read.
        """
        raise self.refuse("MultiBias (job 50)", "pulses and reads of single cells")

    def multi_state(self, *_: object) -> NoReturn:
        """Refuse the board's jobs 161 to 165: nothing bounds how many pulses they give a cell."""
        raise self.refuse(
            "MultiStateSeeker (jobs 161 to 165)", "converge_to_state, and protocols of the engine"
        )

    def retention(self, cells: Cells, *, step_s: float, duration_s: float) -> Retention:
        """Read the cells every `step_s` for `duration_s`, first and last reading included, at
        `read_v`; stresses no cell.

        Times are kept to `step_s` as well as the reads allow. Raises `ConfigError` for times that
        are none, else as `execute`.
        """
        if not (0 < step_s < math.inf and 0 <= duration_s <= self.limits.wait_s):
            raise ConfigError(
                f"retention: step_s must be above 0 s and duration_s in 0..{self.limits.wait_s:g}"
                f" s, not {step_s}, {duration_s}"
            )
        count = math.floor(duration_s / step_s + 1e-9) + 1
        reading = Apply(
            cells, (Step(self._settings.read_v, 0.0, 0.0, SHORTEST_S, "current"),), Scheme.INHIBIT
        )
        with self._lock:
            started = self.now_s()
            results, times = [], []
            for k in range(count):
                self._wait(max(0.0, started + k * step_s - self.now_s()))
                times.append(self.now_s())
                result = self.execute(reading, 0)
                assert isinstance(result, ApplyResult)
                results.append(result)
            conductance = np.concatenate([r.conductance_s for r in results], axis=1)
            status = np.concatenate([r.status for r in results], axis=1)
            return Retention(
                cells,
                np.array(times) - times[0],
                conductance,
                status,
                TimeSpan(started, self.now_s()),
            )

    # Applying steps

    def _status(self, ohm: FloatArray) -> NDArray[np.uint8]:
        return status_of(ohm, self._settings.lowest_ohm, self._settings.highest_ohm)

    def _check(self, operation: Apply) -> None:
        """Refuse what the board cannot do, and what the limits do not allow, before anything is
        sent.
        """
        check_extras(operation, self.capabilities)
        check(operation, self.geometry, self.limits, bounds_current=False)
        if operation.unselected not in self.capabilities.schemes:
            raise self.refuse(
                f"scheme {operation.unselected!s} for unselected lines", "third, half, floating"
            )
        if operation.compliance_a is not None:
            raise self.refuse(
                "a compliance current in an operation", "cut-offs in curve_tracer and endurance"
            )
        n = len(operation.cells)
        for step in operation.steps:
            volts = step.cell_v(n)
            if step.bl_v is None or step.sl_v is None:
                raise self.refuse("a floating selected line", "one voltage across the cell")
            if step.measure == "gate":
                raise self.refuse("a gate current", "the current through the cell")
            if np.any(~(np.abs(volts) <= LARGEST_V)):
                raise self.refuse("BL - SL of such size", f"{-LARGEST_V:g} to {LARGEST_V:g} V")
            if not SHORTEST_S <= step.width_s <= LONGEST_S:
                raise self.refuse(
                    f"a width of {step.width_s:g} s", f"{SHORTEST_S:g} to {LONGEST_S:g} s"
                )
            if step.measure == "current" and np.any(volts == 0):
                raise self.refuse("a reading at 0 V", "readings at up to limits.read_v")
            if step.measure == "current" and np.any(np.abs(volts) > self.limits.read_v):
                raise self.refuse(
                    f"a measurement above limits.read_v of {self.limits.read_v:g} V",
                    "a read after each pulse, and curve_tracer for readings at the bias",
                )

    def _apply(self, operation: Apply, what: str) -> ApplyResult:
        """Step by step, all cells that have not met a stop condition in each."""
        n, m = len(operation.cells), operation.measurements
        ohm, volts = np.full((n, m), np.nan), np.full((n, m), np.nan)
        pulses = np.zeros(n, dtype=np.int64)
        active, column = np.arange(n), 0
        started = self.now_s()
        for step in operation.steps * operation.repeat:
            if active.size == 0:
                break
            cells, level = operation.cells[active], step.cell_v(n)[active]
            if step.measure == "no":
                stressed = np.abs(level) > self.limits.read_v
                self._pulse(
                    cells, level, step.width_s, operation.unselected, what, bool(pulses.any())
                )
                pulses[active] += stressed
                continue
            ohm[active, column] = self._read(
                cells, level, operation.unselected, what, bool(pulses.any())
            )
            volts[active, column] = level
            if operation.stop is not None:
                active = active[~self._stops(operation, active, ohm[active, column])]
            column += 1
        ran = ~np.isnan(volts)
        status = self._status(ohm)
        status[~ran] = Status.NOT_RUN
        conductance = conductance_of(ohm, status)
        span = TimeSpan(started, self.now_s())
        # The board gives no times: they are spread evenly over the operation.
        order = np.arange(n * m).reshape(m, n).T
        stamps = span.started_s + (span.ended_s - span.started_s) * (order + 1) / max(1, n * m)
        stamps[~ran] = np.nan
        return ApplyResult(
            volts * conductance, conductance, status, stamps, pulses, ran.sum(axis=1), span
        )

    def _stops(self, operation: Apply, at: IntArray, ohm: FloatArray) -> NDArray[np.bool_]:
        """Which of the cells at `at` have met the stop condition; a current over range counts as
        high.
        """
        assert operation.stop is not None
        stop = operation.stop.part(at)
        status = self._status(ohm)
        conductance = conductance_of(ohm, status)
        done = np.zeros(at.size, dtype=np.bool_)
        if stop.above_s is not None:
            done |= (conductance >= stop.above_s) | (status == Status.OVER_RANGE)
        if stop.below_s is not None:
            done |= conductance <= stop.below_s
        return done

    def _pulse(
        self,
        cells: Cells,
        level_v: FloatArray,
        width_s: float,
        scheme: Scheme,
        what: str,
        stressed: bool,
    ) -> None:
        """One pulse on each cell (job 3, whose reading acknowledges it). `stressed`: the operation
        has given pulses before.
        """
        length_s = self._settings.read_s + width_s
        jobs = [
            _Job(_lines("3", *_address(cells, i), real(volts), real(width_s)), 1, length_s)
            for i, volts in enumerate(level_v.tolist())
        ]
        harmless = bool(np.all(np.abs(level_v) <= self.limits.read_v))
        self._burst(jobs, what, self._settings.read_v, scheme, harmless=harmless, stressed=stressed)

    def _read(
        self, cells: Cells, level_v: FloatArray, scheme: Scheme, what: str, stressed: bool
    ) -> FloatArray:
        """Resistances (ohm) of cells, one job for each read voltage among them."""
        words = int(cells.row.max()) + 1
        # Two columns or more: one line too many then never leaves the number of values as it is.
        bits = max(int(cells.column.max()) + 1, min(2, self.geometry.columns))
        size = words * bits
        job = _Job(_lines("2", 1, words, bits), size, size * self._settings.read_s)
        ohm = np.full(len(cells), np.nan)
        for volts in np.unique(level_v):
            here = level_v == volts
            found = self._burst([job], what, float(volts), scheme, harmless=True, stressed=stressed)
            ohm[here] = found[cells.row[here] * bits + cells.column[here]]
        return ohm

    def _wait(self, seconds: float) -> WaitResult:
        started = self.now_s()
        if self._settings.clock:
            self._clock().advance(seconds)
        end_s = time.monotonic() + seconds * self._settings.pace
        while (left_s := end_s - time.monotonic()) > 0:
            if self.cancel.wait(min(left_s, POLL_S)):
                break
        if self.cancel.is_set():
            raise AbortedError(
                f"a wait of {seconds:g} s was aborted; nothing is driven during a wait"
            )
        return WaitResult(TimeSpan(started, self.now_s()))

    # Modules

    def _module(self, cells: Cells, settings: Module) -> Triplets:
        self._check_module(cells, settings)
        what = f"{settings.NAME} of {len(cells)} cells"
        with self._lock, self._working(what):
            started = self.now_s()
            read_s = self._settings.read_s * settings.reads
            try:
                self._conditions(self._settings.read_v, Scheme.INHIBIT)
                devices = 1 if settings.TALKS else len(cells)
                streams = []
                for i in range(len(cells)):
                    if i % devices == 0:
                        between = (PADDING,) if i else ()
                        self._send(*between, *_lines(*settings.lines(), devices))
                    self._transactions += 1
                    self._send(*_arguments(*_address(cells, i)))
                    length_s = (settings.length_s + read_s) / settings.terminators
                    received = partial(self._received, length_s=length_s, what=what)
                    talk = _Talk(f"{self._settings.port}: {what}", received, self._send)
                    streams.append(settings.talk(talk, self._settings.read_v))
                self._expect_silence(what)
                self._send(PADDING)
            except AbortedError:
                raise
            except BaseException as error:
                is_off, off = self._recovered()
                if not isinstance(error, LinkError):
                    raise
                raise UnknownOutcomeError(
                    f"{error}; {off}; {what}: charge each cell with {settings.most_pulses} pulses"
                    " and read it again",
                    outputs_off=is_off,
                ) from None
            return self._streamed(cells, settings, streams, TimeSpan(started, self.now_s()))

    def _check_module(self, cells: Cells, settings: Module) -> None:
        """Refuse a module whose worst pulse is beyond a limit, as the engine refuses an
        operation.
        """
        widest = max(step.width_s for step in settings.extremes())
        for step in settings.extremes():
            if np.any(step.cell_v(1) != 0):
                check(
                    Apply(cells, (step,), Scheme(self._settings.unselected), settings.cut_a),
                    self.geometry,
                    self.limits,
                )
        if len(cells) == 0:
            raise ConfigError(f"{settings.NAME}: no cells are given")
        if settings.most_pulses > self.limits.pulses_per_cell:
            raise ConfigError(
                f"{settings.NAME}: up to {settings.most_pulses} pulses of up to {widest:g} s a cell"
                f" are more than limits.pulses_per_cell of {self.limits.pulses_per_cell}"
            )

    def _received(self, size: int, length_s: float, what: str) -> bytes:
        data = bytearray()
        self._collect(data, size, length_s, what)
        return bytes(data)

    def _streamed(
        self, cells: Cells, settings: Module, streams: list[list[FloatArray]], span: TimeSpan
    ) -> Triplets:
        parts = [(i, c, part) for i, cycles in enumerate(streams) for c, part in enumerate(cycles)]
        table = np.concatenate([np.zeros((0, 3)), *(part for _, _, part in parts)])
        sizes = [len(part) for _, _, part in parts]
        device = np.repeat(np.array([i for i, _, _ in parts], dtype=np.int64), sizes)
        cycle = np.repeat(np.array([c for _, c, _ in parts], dtype=np.int64), sizes)
        counts = [settings.pulses(part, self.limits.read_v) for part in streams]
        pulses = np.array(counts, dtype=np.int64)
        status = self._status(table[:, 0])
        return Triplets(
            cells, device, cycle, table[:, 0], table[:, 1], table[:, 2], status, pulses, span
        )

    # Transactions

    @contextlib.contextmanager
    def _working(self, what: str) -> Iterator[None]:
        """In a session; waits inside end with `AbortedError` when `cancel` is set."""
        self._connected()
        if not self._armed:
            raise InstrumentError(
                f"{self._settings.port}: the board is not armed; {what} was not started"
            )
        if self.cancel.is_set():
            raise AbortedError(f"{what} was not started: the run is being aborted")
        self._may_abort = True
        try:
            if not (self._in_session and self._opened(reopen=True).is_open):
                self._start_session(SESSIONS[self._settings.session])
            yield
        finally:
            self._may_abort = False

    def _burst(
        self,
        jobs: Sequence[_Job],
        what: str,
        read_v: float,
        scheme: Scheme,
        *,
        harmless: bool,
        stressed: bool,
    ) -> FloatArray:
        """Send jobs and return the floats that they reply; harmless ones are repeated where the
        link loses something. `stressed`: the operation has given pulses before this.
        """
        failure: LinkError | None = None
        sent = stressed
        for _ in range(self._settings.retries + 1 if harmless else 1):
            before = math.inf
            try:
                if not self._in_session:
                    self._start_session(SESSIONS[self._settings.session])
                self._conditions(read_v, scheme)
                before = self.bytes_sent
                return self._streamed_floats(jobs, what)
            except AbortedError:
                raise
            except BaseException as error:
                sent = sent or (not harmless and self.bytes_sent > before)
                _, off = self._recovered()
                if not isinstance(error, LinkError):
                    raise
                failure = LinkError(f"{error}; {off}")
        if not sent:
            raise LinkError(f"{failure}; {what} gave no pulse and may be repeated")
        raise UnknownOutcomeError(
            f"{failure}; {what} may have been carried out: read its cells before going on"
        )

    def _streamed_floats(self, jobs: Sequence[_Job], what: str) -> FloatArray:
        """Send jobs one after the other, collecting replies behind them; what must not be lost is
        counted, not trusted.
        """
        self._transactions += 1
        ends = FLOAT.itemsize * np.cumsum([job.replies for job in jobs])
        lengths = np.cumsum([job.length_s for job in jobs])
        data = bytearray()
        collected = 0
        for i, job in enumerate(jobs):
            self._send(*job.lines, PADDING)
            if i + 1 < len(jobs):
                self._sleep(job.length_s, what)
            if i - collected >= OUTSTANDING:
                collected = i - OUTSTANDING // 2
                self._collect(data, int(ends[collected]), float(lengths[i]), what)
        self._collect(data, int(ends[-1]), float(lengths[-1]), what)
        self._expect_silence(what)
        return np.frombuffer(bytes(data), dtype=FLOAT).astype(np.float64)

    def _collect(self, data: bytearray, size: int, length_s: float, what: str) -> None:
        """Receive until `data` has `size` bytes. Silence is counted in polls, so that a recording
        plays back alike.
        """
        patience_s = self._settings.timeout_s + 1.5 * self._settings.pace * length_s
        silent = 0
        while len(data) < size:
            self._stop_if_cancelled(what)
            part = self._opened().receive(size - len(data), POLL_S)
            data += part
            self.bytes_received += len(part)
            silent = 0 if part else silent + 1
            if silent * POLL_S >= patience_s:
                raise LinkError(
                    f"{self._settings.port}: {what}: {len(data)} of {size} bytes came, then nothing"
                    f" for {patience_s:.3g} s"
                )

    def _expect_silence(self, what: str) -> None:
        extra = self._opened().receive(64, QUIET_S)
        if extra:
            raise LinkError(
                f"{self._settings.port}: {what}: more came than was asked for: {extra[:16]!r}"
            )

    def _send(self, *lines: str) -> None:
        """Send lines, none sooner after the last than the board takes them."""
        link = self._opened()
        for line in lines:
            if self._settings.pace > 0:
                time.sleep(max(0.0, self._line_due_s - time.monotonic()))
            data = line.encode("ascii") + b"\n"
            link.send(data)
            self._line_due_s = time.monotonic() + LINE_S * self._settings.pace
            self.bytes_sent += len(data)

    def _sleep(self, seconds: float, what: str = "") -> None:
        end_s = time.monotonic() + seconds * self._settings.pace
        while (left_s := end_s - time.monotonic()) > 0:
            self._stop_if_cancelled(what)
            time.sleep(min(left_s, POLL_S))

    def _stop_if_cancelled(self, what: str) -> None:
        if self._may_abort and self.cancel.is_set():
            is_off, off = self._recovered()
            raise AbortedError(f"{what} was aborted; {off}", outputs_off=is_off)

    # Sessions

    def _identified(self) -> tuple[int, int] | None:
        """Firmware version, None from a silent board. Raises `ConfigError` for one that says
        anything else.
        """
        said = b""
        self._send(*[PADDING] * MOST_ARGUMENTS)
        self._opened().drain()
        for _ in range(2):
            self._send("999")
            data = self._opened().receive(4, self._settings.version_s)
            extra = self._opened().receive(60, QUIET_S) if data else b""
            if len(data) == 4 and not extra:
                major, minor = np.frombuffer(data, dtype="<u2")
                if 0 < major < 100 and minor < 1000:
                    return int(major), int(minor)
            said = data + extra or said
            self._opened().drain()
        if said:
            raise ConfigError(
                f"what answers at {self._settings.port} is no ArC ONE: it says {said[:40]!r}"
            )
        return None

    def _start_session(self, mode: int) -> None:
        """Reset, then the session's settings, confirmed by the board. Raises `LinkError` where it
        does not.
        """
        self._in_session = False
        said = "b''"
        before, self._may_abort = self._may_abort, False
        try:
            for _ in range(ATTEMPTS):
                link = self._opened(reopen=True)
                try:
                    self._send("00")
                    self._sleep(RESET_S)
                    link.drain()
                    answer = self._initialised(mode, self._settings.read_v)
                    said = repr(answer)
                    if answer == CONFIRMATION:
                        self._in_session = mode != OFFLINE
                        return
                except LinkError as error:
                    said = str(error)
        finally:
            self._may_abort = before
        raise LinkError(
            f"no ArC ONE confirmed a session after {ATTEMPTS} resets (it says {said}); check the"
            " board's power, and that nothing else is at this port",
            where=self._settings.port,
        )

    def _initialised(self, mode: int, read_v: float) -> bytes:
        """Send the session's settings; what the board says to them. Unselected lines are then at a
        third.
        """
        config, self._read_v = self._settings, math.nan
        read_mode = READ_MODES[config.read_mode]
        if read_mode == READ_MODES["tia4p"] and read_v < 0:
            read_mode = TIA4P_NEGATIVE
        sides = (self.geometry.rows, self.geometry.columns)
        self._send(*_lines("0", config.read_cycles, *sides, read_mode, mode, 0, real(read_v)))
        reply = self._opened().receive(64, config.timeout_s, b"\n")
        reply += self._opened().receive(64, QUIET_S) if reply else b""
        self.bytes_received += len(reply)
        if reply == CONFIRMATION:
            self._scheme, self._read_v = Scheme.THIRD, read_v
        return reply

    def _conditions(self, read_v: float, scheme: Scheme) -> None:
        """The read voltage and the scheme of unselected lines, where they are others than those in
        force. Raises `LinkError` for a read voltage that the board does not confirm.
        """
        if read_v != self._read_v:
            reply = self._initialised(SESSIONS[self._settings.session], read_v)
            if reply != CONFIRMATION:
                raise LinkError(
                    f"{self._settings.port}: a read voltage of {read_v:g} V was not confirmed; the"
                    f" board says {reply!r}"
                )
        wanted = Scheme(self._settings.unselected) if scheme is Scheme.INHIBIT else scheme
        if wanted is not self._scheme:
            # Twice, so that no line that is lost or doubled in the first of them remains.
            for _ in range(2):
                self._send(*_lines("011", self._settings.read_cycles, SNEAK_PATH[wanted]), PADDING)
            self._scheme = wanted

    def _recovered(self) -> tuple[bool, str]:
        """Reset the board after a failure; whether outputs are off, and what came of it in words
        for the error.
        """
        try:
            self._start_session(SESSIONS[self._settings.session])
        except BenchError as error:
            return False, f"THE BOARD COULD NOT BE RESET, ITS OUTPUTS MAY BE ON ({error})"
        return True, "the board was reset, outputs are off"

    def _opened(self, *, reopen: bool = False) -> Link:
        link = self._link
        if link is None:
            raise LinkError(f"{self._settings.port}: not connected; call connect() first")
        if not link.is_open:
            if not reopen:
                raise LinkError(f"{self._settings.port}: the link is not open")
            link.reopen(
                self._settings.reconnect_s, lambda: self._may_abort and self.cancel.is_set()
            )
        return link

    def _connected(self) -> None:
        if not self._is_known:
            raise LinkError(f"{self._settings.port}: not connected; call connect() first")

    def _clock(self) -> FarClock:
        if self._far is None:
            self._far = FarClock(self._settings.clock)
        return self._far


def _lines(code: str, *arguments: str | int) -> tuple[str, ...]:
    """A job as it is sent: its code, then its arguments, none of them spelled like a code."""
    return code, *_arguments(*arguments)


def _arguments(*values: str | int) -> tuple[str, ...]:
    texts = map(str, values)
    return tuple(f"{text}.0" if text.lstrip("-").isdigit() else text for text in texts)


def _address(cells: Cells, i: int) -> tuple[int, int]:
    """Word and bit of a cell, counted from 1."""
    return int(cells.row[i]) + 1, int(cells.column[i]) + 1
