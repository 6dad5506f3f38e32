"""Driver of an array reached by source-meter channels through a switch matrix, or of one cell
between two channels, with a pulse generator or without (see `matrix.wiring` for its bench file).

Cells are carried out row by row, one batch a row, or several rows in one where that spares turns on
the links (`Chain.spans_rows`). Between batches all sources stand at zero and the matrix stays as it
was, so that relays move no more than they must; `arm` and `safe_off` leave every relay open,
verified. Which way a row takes depends on the instruments (`matrix.chains`). The bench clock is the
host's on a real bench.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Self

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
    SoFar,
    Status,
    Step,
    Wait,
    WaitResult,
    check,
    stresses_cells,
)
from rram_hil.array import Span as TimeSpan
from rram_hil.errors import (
    AbortedError,
    BenchError,
    ConfigError,
    InstrumentError,
    LimitError,
    LinkError,
    UnknownOutcomeError,
)
from rram_hil.hardware.abilities import (
    ScriptedMatrix,
    ScriptedSourceMeter,
    TriggeredSourceMeter,
    on_channel,
)
from rram_hil.hardware.arrival import Arrival, StatedArrival
from rram_hil.hardware.driver import (
    Capabilities,
    Driver,
    DriverConfig,
    Identity,
    ReadingPath,
    Span,
    check_extras,
)
from rram_hil.hardware.instrument import (
    ChannelLimits,
    Instrument,
    PulseGenerator,
    SourceMeter,
    SwitchMatrix,
    checked_instrument,
    make_instrument,
)
from rram_hil.hardware.oscilloscope import Oscilloscope
from rram_hil.hardware.thermostat import Thermostat
from rram_hil.types import FloatArray, IntArray, StatusArray
from rram_hil.units import Seconds
from rram_hil.wire.bench_clock import FarClock

from .matrix.chains import (
    HOST_STEP_S,
    Chain,
    DirectPair,
    Measured,
    PlainChain,
    TriggeredChain,
    TspChain,
    stops,
)
from .matrix.held import HeldLevels
from .matrix.routes import Relays, Route, Router, RowPlan
from .matrix.wiring import OUTPUT_OHM, SL, Wiring

AnyChain = Chain[SourceMeter, SwitchMatrix]
POLL_S = 0.05
"""How often a wait looks at `cancel`."""


class SmuMatrixConfig(DriverConfig):
    """Section `[driver]` of a bench with `name = "smu-matrix"`."""

    instruments: dict[str, dict[str, Any]] = Field(
        description="name = { kind, model, resource, ... }"
    )
    wiring: Wiring
    row_s: Annotated[Seconds, Field(gt=0, le=10)] = Field(
        default=1.0, description="longest stretch of a batch, in s; an abort waits for it"
    )
    clock: str = Field(
        default="", description="control address of a simulated bench, which fills it in"
    )

    @model_validator(mode="after")
    def _instruments_known(self) -> Self:
        at: dict[str, str] = {}
        idle: list[str] = []
        scopes: list[str] = []
        for name, section in self.instruments.items():
            family, config = checked_instrument(section, f"driver.instruments.{name}")
            if issubclass(family, Thermostat):
                raise ValueError(f"instruments.{name}: a thermostat stands in [thermostat]")
            if issubclass(family, SourceMeter | PulseGenerator | Oscilloscope):
                idle.append(name)
            if issubclass(family, Oscilloscope):
                scopes.append(name)
            if (other := at.setdefault(config.resource.casefold() or name, name)) != name:
                raise ValueError(
                    f"instruments: {other} and {name} have the same resource {config.resource!r}"
                )
        for channel in (*self.wiring.sources, *self.wiring.probes):
            if channel.partition(".")[0] not in self.instruments:
                raise ValueError(
                    f"wiring: {channel!r}: there is no instrument"
                    f" {channel.partition('.')[0]!r}; write INSTRUMENT.CHANNEL, of the instruments"
                    f" {', '.join(self.instruments)}"
                )
            idle = [name for name in idle if name != channel.partition(".")[0]]
        for probe in self.wiring.probes:
            if probe.partition(".")[0] not in scopes:
                raise ValueError(
                    f"wiring.probes: {probe!r} is no channel of an oscilloscope; there is:"
                    f" {', '.join(scopes) or 'none'}"
                )
        if idle:
            raise ValueError(
                f"instruments: {', '.join(idle)} has no channel in wiring.channels,"
                " wiring.generators or wiring.probes"
            )
        return self


class SmuMatrix(Driver):
    """Source-meter channels and a switch matrix in front of a 1R or 1T1R array. One lock around
    each row.
    """

    Config: ClassVar[type[DriverConfig]] = SmuMatrixConfig

    def __init__(self, config: DriverConfig, geometry: Geometry, limits: Limits) -> None:
        super().__init__(config, geometry, limits)
        assert isinstance(config, SmuMatrixConfig)
        self._settings = config
        config.wiring.check(geometry)
        self._router = Router(config.wiring, geometry, limits)
        self._lock = threading.RLock()
        self._instruments: dict[str, Instrument] = {}
        self._chain: AnyChain | None = None
        self._held = HeldLevels({})
        self._clock: FarClock | None = None
        self._relays: Relays | None = None

    @override
    def connect(self) -> Identity:
        """Identify every instrument; no output and no relay changes. Raises `ConfigError` for a
        wrong or missing one.
        """
        with self._lock:
            self.close()
            try:
                for name, section in self._settings.instruments.items():
                    where = f"driver.instruments.{name}"
                    instrument = make_instrument(section, where, self.traffic)
                    self._instruments[name] = instrument
                    try:
                        instrument.connect()
                    except ConfigError as error:
                        error.where = error.where or where
                        raise
                self._chain = self._make_chain()
                self._check_probes()
                held = self._settings.wiring.held
                self._held = HeldLevels(self._on_channels("body or unselected_wl", *held))
                self._router = Router(
                    self._settings.wiring, self.geometry, self.limits, self._chain.shortest_s
                )
                if self._settings.clock:
                    self._clock = FarClock(self._settings.clock)
            except BenchError as error:
                if on := self._names_on():
                    error.message += f"; OUTPUTS OF {', '.join(on)} ARE ON: switch them off by hand"
                    error.outputs_off = False
                self.close()
                raise
            except BaseException:
                self.close()
                raise
            return self._identity()

    def _names_on(self) -> list[str]:
        """The instruments that answer and say that an output is on, or a relay closed."""
        names = []
        for name, instrument in self._instruments.items():
            with contextlib.suppress(BenchError, AttributeError):
                # A scope that waits for a trigger drives nothing.
                if not instrument.is_off() and not isinstance(instrument, Oscilloscope):
                    names.append(name)
        return names

    def _identity(self) -> Identity:
        identities = [
            getattr(i, "identity", None) or Identity(type(i).__name__, "")
            for i in self._instruments.values()
        ]
        return Identity(
            model=" + ".join(t.model for t in identities),
            serial=" + ".join(t.serial for t in identities),
            firmware=" + ".join(t.firmware for t in identities),
            protocol=self._connected().NAME,
        )

    def _make_chain(self) -> AnyChain:
        """The best way that these instruments allow."""
        wiring = self._settings.wiring
        meters, matrix = self._meters(), self._matrix()
        rest = wiring, self._router.gate, self.limits.read_v, self.now_s, self._generators()
        name, only = next(iter(meters.items()))
        if len(meters) == 1 and isinstance(matrix, ScriptedMatrix):
            if wiring.tsp_node and isinstance(only, ScriptedSourceMeter):
                return TspChain({name: only}, matrix, *rest)
            if wiring.triggers and isinstance(only, TriggeredSourceMeter):
                if wiring.triggers.smu != name:
                    raise ConfigError(
                        f"driver.wiring.triggers.smu: {wiring.triggers.smu!r} has no channel of the"
                        f" array; {name} has"
                    )
                return TriggeredChain({name: only}, matrix, *rest)
        if wiring.tsp_node or wiring.triggers:
            raise ConfigError(
                "driver.wiring: tsp_node needs one source-meter and a matrix that run scripts (a"
                " 2600B and a 707B), triggers one whose lists wait for digital lines (a B2900) and"
                " such a matrix; take them out for other instruments"
            )
        return PlainChain(meters, matrix, *rest)

    def _check_probes(self) -> None:
        """Refuse a probe on a channel that its oscilloscope has not. Raises `ConfigError`."""
        for probe in self._settings.wiring.probes:
            refusal = f"driver.wiring.probes: {probe!r} is no channel of an oscilloscope"
            on_channel(self._instruments, probe, Oscilloscope, refusal)

    def _meters(self) -> dict[str, SourceMeter]:
        """The source-meters that channels are wired to, by name."""
        named = self._on_channels("channels", *self._settings.wiring.channels)
        return {channel.partition(".")[0]: meter for channel, meter in named.items()}

    def _on_channels(self, key: str, *channels: str) -> dict[str, SourceMeter]:
        """The source-meter of each of these channels, which the wiring names under `key`."""
        refusal = "driver.wiring.{}: {!r} is no source-meter channel"
        return {
            channel: on_channel(
                self._instruments, channel, SourceMeter, refusal.format(key, channel)
            )
            for channel in channels
        }

    def _generators(self) -> dict[str, PulseGenerator]:
        """The pulse generators that the wiring names, by instrument."""
        refusal = "driver.wiring.generators: {!r} is no channel of a pulse generator"
        return {
            channel.partition(".")[0]: on_channel(
                self._instruments, channel, PulseGenerator, refusal.format(channel)
            )
            for channel in self._settings.wiring.generators
        }

    def _matrix(self) -> SwitchMatrix:
        """The switch matrix, which must have every crosspoint that the wiring can need."""
        if self._settings.wiring.is_direct:
            return DirectPair()
        matrices = [i for i in self._instruments.values() if isinstance(i, SwitchMatrix)]
        if len(matrices) != 1:
            raise ConfigError(
                f"driver.instruments: one switch matrix is needed, {len(matrices)} are described"
            )
        matrix, wiring = matrices[0], self._settings.wiring
        for row in wiring.rows:
            if row not in matrix.rows:
                raise ConfigError(
                    f"driver.wiring: {row!r} is no row of the matrix; it has"
                    f" {', '.join(matrix.rows)}"
                )
        if max(wiring.columns) > matrix.columns:
            raise ConfigError(
                f"driver.wiring: column {max(wiring.columns)} is beyond the matrix's"
                f" {matrix.columns}"
            )
        if isinstance(matrix, ScriptedMatrix):
            matrix.names(itertools.product(wiring.rows, wiring.columns))  # refuses what is missing
        return matrix

    @property
    @override
    def capabilities(self) -> Capabilities:
        """What the connected chain can do. Raises `LinkError` before `connect`."""
        chain = self._connected()
        forces = [self._channel_limits(c) for c in self._router.forces]
        volts = min(limits.max_v for limits in forces)
        # A 1R array has no gate: what an operation says of it is ignored.
        gate_v = (
            self._channel_limits(self._router.gate).max_v if self._router.gate else float("inf")
        )
        fraction, floor_a = self._uncertainty()
        return Capabilities(
            bl_v=Span(-volts, volts),
            sl_v=Span(-volts, volts),
            wl_v=Span(-gate_v, gate_v),
            width_s=Span(min(chain.shortest_s, self._shortest_pulse_s()), self._settings.row_s),
            schemes=chain.schemes(self._router.schemes),
            max_cells=4096,
            max_steps=64,
            compliance=True,
            gate_current=bool(self._router.gate),
            step_extras=self._router.extras,
            read_fraction=fraction,
            read_floor_a=floor_a,
            abort_s=self._settings.row_s,
            clock="virtual" if self._settings.clock else "wall",
            link=chain.NAME,
            timing={
                "relay_s": chain.matrix.settle_s,
                "source_s": chain.source_s,
                # Shorter steps above the read limit are a generator's.
                **({"sources_from_s": chain.shortest_s} if chain.generators else {}),
            },
        )

    def _shortest_pulse_s(self) -> float:
        """The shortest pulse of the generator; endless where there is none."""
        name = self._settings.wiring.generator
        return self._connected().pulse_limits(name).shortest_s if name else float("inf")

    def _uncertainty(self) -> tuple[float, float]:
        """Fraction and floor (A) of a reading: the worst of the ranges that a cell's current can
        need.

        A range's offset weighs most at the smallest current that still needs it, the full scale of
        the range below. The level that a current is measured at has an error too; the instruments'
        own accuracy in measuring volts stands for that.
        """
        fraction, floor_a = 0.0, 0.0
        for channel in self._router.forces:
            limits = self._channel_limits(channel)
            enough = min(
                (a.range for a in limits.measures_a if a.range >= self.limits.current_a),
                default=np.inf,
            )
            used = [a for a in limits.measures_a if a.range <= enough]
            volts = [a for a in limits.measures_v if a.range >= self.limits.read_v][:1]
            level = sum(a.fraction + a.offset / self.limits.read_v for a in volts)
            floor_a = max([floor_a, *(a.offset for a in used[:1])])
            by_range = [
                a.fraction + a.offset / below.range for below, a in itertools.pairwise(used)
            ]
            fraction = max(
                [fraction, *(level + f for f in (*(a.fraction for a in used[:1]), *by_range))]
            )
        if self._settings.wiring.is_direct and self._settings.wiring.generators:
            # A direct pair is read with the generator's output in series.
            fraction += OUTPUT_OHM * self.limits.conductance_s[1]
        return fraction, floor_a

    @override
    def wear(self) -> str:
        """How often the relays in front of the array have closed, as the matrix counts."""
        with self._lock:
            matrix, wiring = self._connected().matrix, self._settings.wiring
            if wiring.is_direct:
                return "no relays: the cell hangs on its two channels"
            points = list(itertools.product(wiring.rows, wiring.columns))
            counts = matrix.counts(points)
        row, column = points[int(np.argmax(counts))]
        if not counts.any():
            return f"none of {len(points)} relays has closed yet"
        return (
            f"{len(points)} relays have closed {counts.sum()} times, {row}{column} most often:"
            f" {counts.max()}"
        )

    @property
    @override
    def transactions(self) -> int:
        return sum(i.dialog.transactions for i in self._instruments.values())

    @property
    @override
    def instruments(self) -> Mapping[str, Instrument]:
        """The connected instruments by their names in the bench file."""
        return self._instruments

    @property
    @override
    def generators(self) -> tuple[str, ...]:
        return tuple(self._settings.wiring.generators)

    @property
    @override
    def probes(self) -> Mapping[str, str]:
        return self._settings.wiring.probes

    @override
    def parts(self) -> Mapping[str, Identity]:
        return {
            name: identity
            for name, instrument in self._instruments.items()
            if (identity := getattr(instrument, "identity", None)) is not None
        }

    @override
    def reading_paths(self, operation: Apply) -> list[ReadingPath]:
        """Reading paths, channels named as in the wiring."""
        on_row = {row: channel for channel, row in self._settings.wiring.channels.items()}
        n, paths = len(operation.cells), []
        routes = self._router.routes(replace(operation, repeat=1))
        for step, route in zip(operation.steps, routes, strict=True):
            if step.measure == "current":
                ends = [
                    (on_row[row], sign)
                    for row, sign in ((route.bl, 1), (route.sl, -1))
                    if row in on_row
                ]
                gate = step.levels("wl", n)
                sources = tuple((channel, sign, route.levels[channel]) for channel, sign in ends)
                gate_v = np.zeros(n) if gate is None else np.array(gate)
                paths.append(ReadingPath(route.drop_v, gate_v, sources, route.sense, route.sign))
        return paths

    @override
    def peaks(self, step: Step, n: int) -> Iterable[Step]:
        """Those of a step that is shorter than the source-meters time: as it arrives where that was
        measured, else as the generator's documents state.
        """
        is_short = step.width_s < self._connected().shortest_s * (1 - 1e-9)
        if not self._settings.wiring.generator or not is_short:
            return ()
        arrival, wiring = self._arrival(), self._settings.wiring
        lines: list[FloatArray | None] = [step.levels(line, n) for line in ("bl", "sl")]
        if wiring.is_direct:
            lines = [step.cell_v(n) * (-1.0 if SL in wiring.generators.values() else 1.0)]
        driven = [np.unique(v[v != 0]) for v in lines if v is not None and np.any(v != 0)]
        if len(driven) == 1 and np.any(np.abs(driven[0]) > self.limits.read_v):
            # The limits ask, before a step of a recipe begins.
            arrival.refuse(driven[0], step.width_s)
        return arrival.peaks(step, n)

    def _arrival(self) -> Arrival:
        name = self._settings.wiring.generator
        limits = self._connected().pulse_limits(name)
        return self.arrivals.get(name, StatedArrival(limits.overshoot, limits.overshoot_v))

    def _refuse_peaks(self, routes: tuple[Route, ...]) -> None:
        """Refuse what a pulse that was moved to one line puts there for a moment, for limits look
        at the lines of the step, and what the generator puts there if nothing of it is lost on the
        way. Raises `LimitError`.
        """
        for route in routes:
            if not route.generator or route.pulse_v is None:
                continue
            row = self._settings.wiring.generators[route.generator]
            line = "BL" if route.bl == row else "SL"
            limit = self.limits.bl_v if line == "BL" else self.limits.sl_v
            beyond, _ = self._arrival().swings_v(route.pulse_v, route.width_s)
            driven = route.pulse_v[route.pulse_v != 0]
            set_v, _ = self._arrival().to_set(driven, route.width_s)
            for volts, why in (
                (np.abs(route.pulse_v) + beyond, "counting the overshoot of the pulse"),
                (
                    self._settings.wiring.open_v(1.0) * np.abs(set_v),
                    "which is what it is set to, by the calibration of pulse-arrival in force",
                ),
            ):
                most = float(np.max(volts, initial=0.0))
                if not most <= limit * (1 + 1e-9):
                    raise LimitError(
                        f"smu-matrix: {route.generator} would put {most:g} V on {line}, beyond the"
                        f" limit of {limit:g} V, {why}",
                        line=line,
                        value=most,
                        allowed=(-limit, limit),
                    )

    @override
    def arm(self) -> None:
        """Sources off and reset, then relays open, all verified; scripts loaded."""
        with self._lock:
            chain = self._connected()
            self._forget(chain)
            self._relays = None
            for instrument in self._instruments.values():
                if instrument is not chain.matrix:
                    instrument.arm()
            chain.matrix.arm()
            self._relays = frozenset()
            chain.arrivals = self.arrivals
            chain.arm()

    def _forget(self, chain: AnyChain) -> None:
        """All outputs are switched off and reset."""
        chain.forget()
        self._held.forget()

    @override
    def execute(self, operation: Operation, number: int) -> Result:
        """Carry out an `Apply` row by row, or a `Wait`.

        When cancelled, returns the rows that were done (NOT_RUN for the rest). Raises `ConfigError`
        before anything moves for what these channels cannot do, `UnknownOutcomeError` where a row
        with pulses failed on its way, `LinkError` where a reading failed twice, `InstrumentError`
        for an instrument's own error.
        """
        with self._lock:
            if isinstance(operation, Wait):
                return self._wait(operation)
            if not isinstance(operation, Apply):
                raise self.refuse(type(operation).__name__, "single cells: pulses, reads, sweeps")
            return self._apply(operation)

    def _apply(self, operation: Apply) -> ApplyResult:
        check_extras(operation, self.capabilities)
        operation = self._router.as_wired(operation)
        check(operation, self.geometry, self.limits, peaks=self.peaks)
        chain = self._connected()
        routes = self._router.routes(operation)
        if any(route.generator for route in routes):
            # Nothing holds the current of such a step back but the cell itself.
            check(operation, self.geometry, self.limits, bounds_current=False)
            self._refuse_peaks(routes)
            chain.check_pulses(routes)
        chain.check(routes)
        for route in routes:
            self._held.check(route.held)
        limit_a = chain.limits_a(routes, operation.compliance_a, self.limits.current_a)
        parts = self._parts(routes, operation, chain)
        told = _Told.nothing(operation, routes, self.limits.read_v, self.now_s())
        with self._off_if_it_breaks():
            for at in self._rows(operation.cells, [routes[part] for part in parts], chain):
                left = at
                for part in parts:
                    if self.cancel.is_set() or left.size == 0:
                        break
                    row_s = self.now_s()
                    try:
                        plan, readings = self._row(chain, operation, routes, part, left, limit_a)
                    except UnknownOutcomeError as error:
                        error.so_far = told.without(left, part, self.now_s())
                        raise
                    left = told.take(plan, readings, left, part, row_s)
        self._finish(chain)
        return told.result(self.now_s())

    @contextlib.contextmanager
    def _off_if_it_breaks(self) -> Iterator[None]:
        """Outputs off and relays open on every unforeseen way out; failures of a row have seen to
        it themselves, and say so.
        """
        try:
            yield
        except (LinkError, InstrumentError) as error:
            if error.outputs_off is None:
                self._off_after(error)
            raise
        except ConfigError as error:
            # Refused in the middle: rows before this one may have had their pulses, which must not
            # count as never given.
            self._off_after(error)
            raise UnknownOutcomeError(
                f"{error}; it was refused after the operation had begun"
            ) from None
        except BaseException:
            with contextlib.suppress(BenchError):
                self.safe_off()
            raise

    def _rows(
        self, cells: Cells, parts: list[tuple[Route, ...]], chain: AnyChain
    ) -> Iterator[IntArray]:
        """Positions of the cells, row after row, so many at a time that no part of them lasts
        longer than `row_s`; of several rows at once where the chain can.
        """
        most = min(
            min(self._settings.row_s / _lasts_s(part, chain), chain.most_visits / len(part))
            for part in parts
        )
        in_order = np.argsort(cells.row, kind="stable")
        rows = np.split(in_order, np.flatnonzero(np.diff(cells.row[in_order])) + 1)
        # What is held stands while relays of bit and source lines move, but not of word lines.
        is_held = any(route.held for part in parts for route in part)
        for at in [in_order] if chain.spans_rows and not is_held else rows:
            for first in range(0, at.size, max(1, int(most))):
                yield at[first : first + max(1, int(most))]

    def _parts(self, routes: tuple[Route, ...], operation: Apply, chain: AnyChain) -> list[slice]:
        """The steps in parts that are carried out one after the other.

        Cut after a measurement where a stop condition is the host's to look at, where one cell
        would take longer than `row_s`, and where settings differ that the instruments cannot change
        on their way.
        """
        starts = [0]
        for k in range(1, len(routes)):
            here = routes[starts[-1] : k]
            stops = operation.stop is not None or chain.stop_at_compliance
            ended = routes[k - 1].sense and stops and not chain.can_stop
            too_long = (
                _lasts_s(routes[starts[-1] : k + 1], chain) > self._settings.row_s
                or len(here) == chain.most_visits
            )
            if (
                ended
                or too_long
                or here[0].generator != routes[k].generator
                or here[0].held != routes[k].held
                or not chain.goes_with(here, routes[k])
            ):
                starts.append(k)
        return [slice(a, b) for a, b in itertools.pairwise([*starts, len(routes)])]

    def _row(
        self,
        chain: AnyChain,
        operation: Apply,
        routes: tuple[Route, ...],
        part: slice,
        at: IntArray,
        limit_a: Mapping[str, float],
    ) -> tuple[RowPlan, Measured]:
        """A part of the steps on one row, once more where it cannot have stressed a cell. Relays
        are known again only when it has succeeded.
        """
        whole = operation.part(at)
        steps = (whole.steps * whole.repeat)[part]
        here = replace(whole, steps=steps, repeat=1, stop=None)
        pulses = stresses_cells(here, self.geometry, self.limits)
        stresses = pulses or stresses_cells(whole, self.geometry, self.limits)
        for is_last in (pulses, True):
            try:
                before = chain.matrix.closed() if self._relays is None else self._relays
                plan = replace(
                    self._router.plan(operation, routes[part], at, before, limit_a),
                    at_compliance=chain.stop_at_compliance,
                )
                self._relays = None
                takes_s = plan.takes_s(chain.matrix.settle_s, chain.source_s)
                is_pulse = bool(plan.routes[0].generator)
                if held := plan.routes[0].held:
                    plan = self._relays_first(chain, plan)
                    self._held.rise(held)
                readings = chain.pulse(plan) if is_pulse else chain.run(plan, takes_s)
                self._held.fall()
            except (LinkError, InstrumentError) as error:
                self._off_after(error)
                if not (is_last or isinstance(error, InstrumentError)):
                    continue
                if stresses:
                    what = "pulses may have been given in part" if pulses else "a reading was lost"
                    raise UnknownOutcomeError(f"{error}; {what}", outputs_off=True) from None
                raise
            else:
                self._relays = plan.after
                break
        return plan, readings

    @staticmethod
    def _relays_first(chain: AnyChain, plan: RowPlan) -> RowPlan:
        """Move the relays of a row's first visit, all sources at zero; what is left of the plan."""
        first, *rest = plan.visits
        if first.opened or first.closed:
            chain.matrix.switch(open=first.opened, close=first.closed)
        return replace(plan, visits=(replace(first, opened=(), closed=()), *rest))

    def _finish(self, chain: AnyChain) -> None:
        """Outputs off after the last row; what was measured stays good if that needs a second
        try.
        """
        try:
            chain.finish()
            self._held.finish()
        except (LinkError, InstrumentError) as error:
            self._off_after(error)

    def _off_after(self, error: BenchError) -> None:
        """Sources off, relays open, after a row that failed. Raises `LinkError` where that is not
        verified.
        """
        try:
            self.safe_off()
        except BenchError as failure:
            raise LinkError(
                f"{error}; and outputs could not be verified as off: {failure}", outputs_off=False
            ) from None
        error.outputs_off = True

    def _wait(self, operation: Wait) -> WaitResult:
        started_s = self.now_s()
        if self._clock is not None:
            return WaitResult(TimeSpan(started_s, self._clock.advance(operation.seconds)))
        end_s = time.monotonic() + operation.seconds
        while (left_s := end_s - time.monotonic()) > 0:
            if self.cancel.wait(min(left_s, POLL_S)):
                raise AbortedError("wait: stopped; outputs are off", outputs_off=True)
        return WaitResult(TimeSpan(started_s, self.now_s()))

    @override
    def safe_off(self) -> None:
        """Every source off, then every relay open, each verified; one that fails does not keep the
        others from it.

        Raises the first failure once all were tried.
        """
        with self._lock:
            chain = self._connected()
            self._forget(chain)
            failures: list[BaseException] = []
            # What only holds bodies and other word lines goes last: the lines are at zero then.
            wiring = self._settings.wiring
            lines = {c.partition(".")[0] for c in (*wiring.channels, *wiring.generators)}
            in_order = sorted(self._instruments, key=lambda name: name not in lines)
            others = [i for name in in_order if (i := self._instruments[name]) is not chain.matrix]
            for instrument in (*others, chain.matrix):
                try:
                    instrument.safe_off()
                except BaseException as error:  # Ctrl-C too
                    failures.append(error)
            if failures:
                self._relays = None
                interrupts = [f for f in failures if not isinstance(f, Exception)]
                raise (interrupts or failures)[0]
            self._relays = frozenset()

    @override
    def close(self) -> None:
        """Give all links back. Safe to call twice."""
        with self._lock:
            for instrument in self._instruments.values():
                instrument.close()
            self._instruments = {}
            self._chain = None
            if self._clock is not None:
                with contextlib.suppress(OSError):
                    self._clock.close()
                self._clock = None

    @override
    def now_s(self) -> float:
        """The bench clock (s): the host's, or the far side's where that is simulated."""
        return time.monotonic() if self._clock is None else self._clock.now_s()

    def _connected(self) -> AnyChain:
        if self._chain is None:
            raise LinkError("smu-matrix: not connected")
        return self._chain

    def _channel_limits(self, channel: str) -> ChannelLimits:
        chain = self._connected()
        return chain.meter(channel).limits(chain.channel(channel))


@dataclass(frozen=True, eq=False)
class _Told:
    """What an operation has come to, row by row: currents (A), conductances (S), status and time
    stamps (s), shape (n, m), and the steps that ran, (n, routes).
    """

    routes: tuple[Route, ...]
    read_v: float
    started_s: float
    current_a: FloatArray
    conductance_s: FloatArray
    status: StatusArray
    time_s: FloatArray
    ran: NDArray[np.bool_]

    @classmethod
    def nothing(
        cls, operation: Apply, routes: tuple[Route, ...], read_v: float, started_s: float
    ) -> _Told:
        """Before the first row."""
        n, m = len(operation.cells), operation.measurements
        current, conductance, stamps = (np.full((n, m), np.nan) for _ in range(3))
        status = np.full((n, m), Status.NOT_RUN, dtype=np.uint8)
        ran = np.zeros((n, len(routes)), dtype=np.bool_)
        return cls(routes, read_v, started_s, current, conductance, status, stamps, ran)

    def take(
        self, plan: RowPlan, readings: Measured, at: IntArray, part: slice, row_s: float
    ) -> IntArray:
        """Keep a part of the steps of the cells `at`; those of them that go on."""
        place = self._place(at, part)
        current, conductance, status = _calibrated(plan, readings)
        self.current_a[place], self.conductance_s[place] = current, conductance
        self.status[place] = status
        self.time_s[place] = row_s + readings.time_s
        self.ran[at, part] = readings.ran
        return at[~_met(plan, conductance, status)]

    def without(self, at: IntArray, part: slice, ended_s: float) -> SoFar:
        """All but a part of the steps of the cells `at`, which may have been taken or not."""
        in_doubt = np.zeros(len(self.status), dtype=np.int64)
        in_doubt[at] = self._above()[at, part].sum(axis=1)
        self.status[self._place(at, part)] = Status.UNKNOWN
        return SoFar(self.result(ended_s), in_doubt)

    def result(self, ended_s: float) -> ApplyResult:
        """What was told until now."""
        return ApplyResult(
            self.current_a,
            self.conductance_s,
            self.status,
            self.time_s,
            np.sum(self.ran & self._above(), axis=1).astype(np.int64),
            np.sum(~np.isin(self.status, (Status.NOT_RUN, Status.UNKNOWN)), axis=1),
            TimeSpan(self.started_s, ended_s),
        )

    def _above(self) -> NDArray[np.bool_]:
        """Which steps are pulses, shape (n, routes)."""
        return np.stack([~(np.abs(r.drop_v) <= self.read_v) for r in self.routes], axis=1)

    def _place(self, at: IntArray, part: slice) -> tuple[NDArray[np.intp], ...]:
        """Where the measurements of a part stand among those of the whole operation."""
        first = sum(bool(r.sense) for r in self.routes[: part.start])
        count = sum(bool(r.sense) for r in self.routes[part])
        return np.ix_(at, np.arange(first, first + count))


def _lasts_s(routes: tuple[Route, ...], chain: AnyChain) -> float:
    """How long steps last on one cell: relays that change for a step open and close."""
    host_s = sum(HOST_STEP_S if r.generator else chain.host_s for r in routes)
    moves = 1 + sum(before.joins != after.joins for before, after in itertools.pairwise(routes))
    levels_s = sum(r.width_s + 4 * chain.source_s for r in routes)
    return host_s + 2 * moves * chain.matrix.settle_s + levels_s


def _calibrated(plan: RowPlan, readings: Measured) -> tuple[FloatArray, FloatArray, StatusArray]:
    """Cell currents from BL to SL (a gate's as it is), conductances and status, shape (n, measuring
    routes).
    """
    routes = [plan.routes[k] for k in plan.measuring]
    if not routes:
        nothing = np.zeros((plan.at.size, 0))
        return nothing, nothing, np.zeros((plan.at.size, 0), dtype=np.uint8)
    signs = np.array([r.sign for r in routes], dtype=np.float64)
    drops = np.stack([r.drop_v for r in routes], axis=1)
    amps = readings.amps * np.where(signs == 0, 1.0, signs)
    status = np.where(
        (drops == 0) & (signs != 0) & (readings.status == Status.OK),
        Status.NOT_A_NUMBER,
        readings.status,
    )
    usable = ((status == Status.OK) | (status == Status.COMPLIANCE)) & (signs != 0)
    siemens = np.divide(amps, drops, out=np.full(amps.shape, np.nan), where=usable & (drops != 0))
    return amps, siemens, status.astype(np.uint8)


def _met(plan: RowPlan, siemens: FloatArray, status: StatusArray) -> NDArray[np.bool_]:
    """Which cells have met their stop condition, shape (n,); a current over range counts as
    high.
    """
    met = [
        stops(plan, step, cell, siemens[cell, k], status[cell, k])
        for cell in range(plan.at.size)
        for k, step in enumerate(plan.measuring)
    ]
    return np.asarray(np.array(met, dtype=np.bool_).reshape(plan.at.size, -1).any(axis=1))
