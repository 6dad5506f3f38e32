"""How the instruments of a matrix bench carry out a row plan: one Lua script, a triggered pair, or
one transaction a cell.

A chain gets a `RowPlan` and returns what was measured. Every chain keeps the order that spares the
cells: sources at zero before a relay moves, gate up first and down last, outputs off at the end of
the row.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Generic, TypeVar

import numpy as np
from typing_extensions import override

from rram_hil.array import Scheme, Status
from rram_hil.errors import ConfigError, InstrumentError, LinkError
from rram_hil.hardware.abilities import ScriptedMatrix, ScriptedSourceMeter, TriggeredSourceMeter
from rram_hil.hardware.arrival import Arrival
from rram_hil.hardware.driver import Identity
from rram_hil.hardware.instrument import (
    Crosspoint,
    Function,
    InstrumentConfig,
    PulseGenerator,
    PulseLimits,
    PulseSetup,
    Readings,
    SourceMeter,
    SourceSetup,
    SwitchMatrix,
)
from rram_hil.types import FloatArray, IntArray, StatusArray
from rram_hil.wire.dialog import number

from ..dialects.text import number_in
from ..dialects.tsp_switch import LIST_LENGTH
from .routes import Route, RowPlan, Visit
from .wiring import BL, SL, Triggers, Wiring

MeterT_co = TypeVar("MeterT_co", bound=SourceMeter, covariant=True)
MatrixT_co = TypeVar("MatrixT_co", bound=SwitchMatrix, covariant=True)
HOST_STEP_S = 0.05
"""Allowance for a step that the host takes together with a pulse generator: half a dozen
transactions.
"""
LEAST_PULSE_V = 0.01
GATE_LIMIT_A = 1e-4
"""Compliance of the channel on a word line: a healthy gate takes pA."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What a row gave: amperes of the sensing channels, status, seconds since the row began; shape
    (n, measuring routes).

    `ran` says which steps each cell took, shape (n, routes).
    """

    amps: FloatArray
    status: StatusArray
    time_s: FloatArray
    ran: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]

    @classmethod
    def nothing(cls, plan: RowPlan) -> Measured:
        """A row of which nothing has run."""
        n, m = plan.at.size, len(plan.measuring)
        return cls(
            np.full((n, m), np.nan),
            np.full((n, m), Status.NOT_RUN, dtype=np.uint8),
            np.full((n, m), np.nan),
            np.zeros((n, len(plan.routes)), dtype=np.bool_),
        )


def stops(plan: RowPlan, step: int, cell: int, siemens: float, status: int) -> bool:
    """Whether a reading ends a cell's steps; a current over range counts as high."""
    if plan.at_compliance and status == Status.COMPLIANCE:
        return True
    if not plan.routes[step].tells(cell):
        return False
    above = plan.above_s is not None and (
        siemens >= plan.above_s[cell] or status == Status.OVER_RANGE
    )
    return bool(above or (plan.below_s is not None and siemens <= plan.below_s[cell]))


class Chain(ABC, Generic[MeterT_co, MatrixT_co]):
    """Source-meter channels and a matrix. `channels` are "instrument.channel" in the order of the
    wiring.
    """

    NAME = ""
    spans_rows = False
    """Whether cells of several rows are carried out at once, as many as `row_s` allows."""
    can_stop = True
    """Whether a cell's steps can end in the middle of a row; else the driver cuts the steps at
    every measurement.
    """

    def __init__(
        self,
        meters: Mapping[str, MeterT_co],
        matrix: MatrixT_co,
        wiring: Wiring,
        gate: str,
        read_v: float,
        now_s: Callable[[], float],
        generators: Mapping[str, PulseGenerator],
    ) -> None:
        self.meters, self.matrix, self.wiring, self.gate = meters, matrix, wiring, gate
        self.read_v, self.now_s, self.generators = read_v, now_s, generators
        self.arrivals: Mapping[str, Arrival] = {}
        self._on: dict[str, SourceSetup] = {}
        self._aimed: dict[str, PulseSetup] = {}
        self._gate_v = 0.0

    @property
    def stop_at_compliance(self) -> bool:
        """Whether a reading at compliance ends a cell's steps, as one of the source-meters is told
        to end its sweeps.
        """
        return any(meter.stop_at_compliance for meter in self.meters.values())

    @property
    @abstractmethod
    def shortest_s(self) -> float:
        """The shortest step."""

    host_s = 0.0
    """Allowance for what the host does in between for one step."""

    @property
    def most_visits(self) -> int:
        """Steps of all cells together that one row can have."""
        return 2000

    @property
    def source_s(self) -> float:
        """How long a level needs to settle."""
        return max(self.meter(c).limits(self.channel(c)).settle_s for c in self.wiring.channels)

    def schemes(self, schemes: frozenset[Scheme]) -> frozenset[Scheme]:
        """Which of the schemes that the channels allow this way of driving them allows."""
        return schemes

    def check(self, routes: Sequence[Route]) -> None:
        """Refuse steps that this way of driving the channels cannot do. Raises `ConfigError`."""

    def goes_with(self, others: Sequence[Route], route: Route) -> bool:
        """Whether a step can be in one row with the others before it."""
        return True

    @abstractmethod
    def arm(self) -> None:
        """Load scripts and set trigger lines; outputs stay off."""

    @abstractmethod
    def run(self, plan: RowPlan, takes_s: float) -> Measured:
        """Carry out a row. Raises `LinkError` or `InstrumentError`; outputs may then be on until
        `safe_off`.
        """

    def pulse(self, plan: RowPlan) -> Measured:
        """Carry out a row whose steps a pulse generator gives, the host between. The gate is up
        from the first pulse on until its relays move, its settings change or the row ends. Raises
        as `run`.

        The generator rests at 0 V while relays move, and is off while its settings change: what
        its output does meanwhile is not the cell's to see.
        """
        found = Measured.nothing(plan)
        found.ran[:] = True
        for visit in plan.visits:
            route = plan.routes[visit.step]
            assert route.pulse_v is not None
            self._move(visit)
            level = float(route.pulse_v[visit.cell])
            if level == 0.0:
                continue
            [set_v], [set_s] = self._to_set(route, np.array([level]))
            setup = self._pulse_setup(replace(route, width_s=float(set_s)), float(set_v))
            if self._aimed.get(route.generator) != setup:
                self._set_gate(0.0)
            self._aim(route.generator, setup)
            # No other channel has a level where the generator drives the line.
            gate_v = float(route.levels[self.gate][visit.cell]) if self.gate else 0.0
            for channel in route.levels if self.wiring.is_direct else [self.gate]:
                if channel and (self.wiring.is_direct or gate_v):
                    self._ready(channel, self._held(channel, plan, route))
            self._set_gate(gate_v)
            self._generator(route.generator).fire(self.channel(route.generator), 1)
        self._check_gate()
        self._set_gate(0.0)
        return found

    def _move(self, visit: Visit) -> None:
        """Move the relays of a visit; the gate is down where they are a word line's."""
        if visit.opened or visit.closed:
            if self._at_gate((*visit.opened, *visit.closed)):
                self._set_gate(0.0)
            self.matrix.switch(open=visit.opened, close=visit.closed)

    def _at_gate(self, points: Iterable[Crosspoint]) -> bool:
        """Whether a relay of a word line is among these, or one that joins the gate's channel."""
        if not self.gate:
            return False
        row, columns = self.wiring.channels[self.gate], self.wiring.wl_columns
        return any(point[0] == row or point[1] in columns for point in points)

    def _set_gate(self, volts: float) -> None:
        """Take the gate to a level and wait until it is there: what follows, a pulse of a generator
        or a level of another instrument, knows nothing of it.
        """
        if self.gate and self._gate_v != volts:
            meter, own = self.meter(self.gate), self.channel(self.gate)
            meter.source(own, volts)
            self._gate_v = volts
            time.sleep(meter.limits(own).settle_s)

    def _check_gate(self) -> None:
        """Look at a gate that is up after pulses that nothing measures. Raises `InstrumentError`
        where it is at its limit: the pulses were not those that were asked for.
        """
        if not self._gate_v:
            return
        (status,) = self.meter(self.gate).held(self.channel(self.gate)).status
        if status != Status.OK:
            raise InstrumentError(
                f"{self.gate}: it does not hold the word line at {self._gate_v:g} V: it is at its"
                f" limit of {self._on[self.gate].compliance:g} A; the line leaks"
            )

    def check_pulses(self, routes: Sequence[Route]) -> None:
        """Refuse steps that the pulse generator does not make. Raises `ConfigError`."""
        for route in routes:
            if not route.generator or route.pulse_v is None:
                continue
            name, limits = route.generator, self.pulse_limits(route.generator)
            asked = np.unique(route.pulse_v[route.pulse_v != 0])
            set_v, widths_s = self._to_set(route, asked)
            volts = np.abs(set_v)
            most_v = self.wiring.open_v(float(np.max(volts)))
            if not most_v <= limits.max_open_v or np.any(volts < LEAST_PULSE_V):
                raise ConfigError(
                    f"{name}: pulses of {np.min(volts):g} to {np.max(volts):g} V: it gives"
                    f" {LEAST_PULSE_V:g} V and more, {limits.max_open_v:g} V into an open circuit"
                )
            shortest_s, longest_s = float(np.min(widths_s)), float(np.max(widths_s))
            if not limits.shortest_s <= shortest_s <= longest_s <= limits.longest_s:
                raise ConfigError(
                    f"{name}: a pulse of {route.width_s:g} s: it makes {limits.shortest_s:g} to"
                    f" {limits.longest_s:g} s"
                )

    def _to_set(self, route: Route, volts: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Levels and widths for which the generator is to be set so that these levels arrive for
        the width of a step, shape (n,): as they are where no calibration knows better.
        """
        arrival = self.arrivals.get(route.generator)
        if arrival is None:
            return volts, np.full(volts.shape, route.width_s)
        return arrival.to_set(volts, route.width_s)

    def pulse_limits(self, name: str) -> PulseLimits:
        """What the channel of a generator can do."""
        return self._generator(name).limits(self.channel(name))

    def _generator(self, name: str) -> PulseGenerator:
        return self.generators[name.partition(".")[0]]

    def _pulse_setup(self, route: Route, level: float) -> PulseSetup:
        """One pulse from 0 V with the shortest edges, which its width counts from half to half."""
        limits, width_s = self.pulse_limits(route.generator), route.width_s
        edge_s = limits.shortest_edge_s
        period_s = max(limits.shortest_period_s, 2 * (width_s + 2 * edge_s))
        load_ohm = self.wiring.load_ohm or float("inf")
        return PulseSetup(level, 0.0, width_s, period_s, edge_s, load_ohm)

    def _aim(self, name: str, setup: PulseSetup) -> None:
        """Set the generator up where its settings are others, with its output off, and switch it
        on.
        """
        if self._aimed.get(name) == setup:
            return
        generator, own = self._generator(name), self.channel(name)
        if name in self._aimed:
            del self._aimed[name]
            generator.output(own, False)
        generator.configure(own, setup)
        generator.output(own, True)
        self._aimed[name] = setup

    def _held(self, channel: str, plan: RowPlan, route: Route) -> SourceSetup:
        """Settings of a channel that holds a level for as long as the host takes."""
        limits = self.meter(channel).limits(self.channel(channel))
        range_v, aperture_s = self.range_v(channel, route), limits.shortest_aperture_s
        limit_a = plan.limit_a[channel]
        return SourceSetup(Function.VOLTAGE, limit_a, range_v, None, aperture_s, limits.settle_s)

    def finish(self) -> None:
        """The rows of an operation are over: switch off what was left on between them, at zero.
        Raises as `run`.
        """
        for channel in self._on:
            self.meter(channel).output(self.channel(channel), False)
        for name in self._aimed:
            self._generator(name).output(self.channel(name), False)
        self.forget()

    def forget(self) -> None:
        """All outputs were switched off and reset behind the chain's back."""
        self._on, self._aimed, self._gate_v = {}, {}, 0.0

    def _ready(self, channel: str, setup: SourceSetup) -> None:
        """Configure a channel where its settings are others, and switch it on."""
        meter, own = self.meter(channel), self.channel(channel)
        if self._on.get(channel) == setup:
            return
        if channel == self.gate:
            self._set_gate(0.0)
        meter.configure(own, setup)
        if channel not in self._on:
            meter.output(own, True)
        self._on[channel] = setup

    def meter(self, channel: str) -> MeterT_co:
        """The instrument of a channel "smu.a"."""
        return self.meters[channel.partition(".")[0]]

    @property
    def _meter(self) -> MeterT_co:
        """The only one, where the way of driving needs one alone."""
        return next(iter(self.meters.values()))

    @staticmethod
    def channel(channel: str) -> str:
        """The channel's own name, "a" of "smu.a"."""
        return channel.partition(".")[2]

    def range_v(self, channel: str, route: Route) -> float:
        """The voltage range for the levels of a step: a read has its own, the offset of a pulse's
        range would spoil it.
        """
        volts = route.most_v[channel]
        return next(
            (
                r
                for r in self.meter(channel).limits(self.channel(channel)).voltage_ranges_v
                if r >= volts
            ),
            volts,
        )

    def ranges_v(self, route: Route) -> tuple[float, ...]:
        """The voltage ranges of all channels, in the order of the wiring."""
        return tuple(self.range_v(channel, route) for channel in self.wiring.channels)

    def integrates_s(self, channel: str, route: Route) -> tuple[float, float]:
        """Integration time of a measuring step, and what else its level must last once it is
        settled.

        A read integrates for its whole width, which may be a multiple of the mains period; where
        the level stresses the cell it lasts for the width and no longer.
        """
        limits = self.meter(channel).limits(self.channel(channel))
        stands_s = route.width_s if route.is_read else route.width_s - self.source_s
        aperture_s = float(np.clip(stands_s, limits.shortest_aperture_s, limits.longest_aperture_s))
        return aperture_s, max(stands_s - aperture_s, 0.0)

    def limits_a(
        self, routes: Sequence[Route], asked_a: float | None, cell_a: float
    ) -> dict[str, float]:
        """The current limit of each channel for a whole operation; `cell_a` is what a cell may
        carry where nothing is asked.

        The gate has its own; a channel that only the selected cell hangs on has the cell's; others
        have that of a whole line. Raises `ConfigError` where a channel cannot give a limit that was
        asked for at these volts.
        """
        found = {}
        for at, channel in enumerate(self.wiring.channels):
            volts = max(route.most_v[channel] for route in routes)
            if channel == self.gate:
                limit, is_asked = min(GATE_LIMIT_A, cell_a if asked_a is None else asked_a), False
            elif (
                self.gate
                or self.wiring.is_direct
                or (at == 1 and (volts == 0 or asked_a is not None))
            ):
                limit, is_asked = cell_a if asked_a is None else asked_a, asked_a is not None
            else:
                cells = len(self.wiring.bl_columns if at == 1 else self.wiring.sl_columns)
                limit, is_asked = cell_a * cells, False
            found[channel] = self._limit_a(channel, volts, limit, is_asked)
        return found

    def _limit_a(self, channel: str, volts: float, limit_a: float, is_asked: bool) -> float:
        limits = self.meter(channel).limits(self.channel(channel))
        most = max((a for v, a in limits.envelope if volts <= v), default=0.0)
        if most == 0.0:
            raise ConfigError(f"{channel}: {volts:g} V is beyond its {limits.max_v:g} V")
        if is_asked and not limits.smallest_compliance_a <= limit_a <= most:
            raise ConfigError(
                f"{channel}: a compliance of {limit_a:g} A is not available at {volts:g} V; it has "
                f"{limits.smallest_compliance_a:g} to {most:g} A"
            )
        if channel != self.gate and limit_a < limits.smallest_compliance_a:
            raise ConfigError(
                f"{channel}: limits.current_a asks for a limit of {limit_a:g} A; its smallest is"
                f" {limits.smallest_compliance_a:g} A"
            )
        return max(min(limit_a, most), limits.smallest_compliance_a)


def _moves(matrix: ScriptedMatrix, visit: Visit) -> list[tuple[str, str]]:
    """The channel lists that a script opens and closes before a step, cut so that each pair fits a
    line; none where no relay moves.
    """
    opened, closed = matrix.names(visit.opened), matrix.names(visit.closed)
    if len(opened) < 2 and len(closed) < 2 and sum(map(len, (*opened, *closed))) <= LIST_LENGTH:
        return [("".join(opened), "".join(closed))] if opened or closed else []
    return [*((names, "") for names in opened), *(("", names) for names in closed)]


def _judged(sense: int, others: Iterable[int]) -> int:
    """Status of a reading: one taken while another channel did not reach its level is a bound at
    most.
    """
    limited = sense == Status.OK and any(status == Status.COMPLIANCE for status in others)
    return int(Status.COMPLIANCE if limited else sense)


TSP_SCRIPT = """
rram = { gate = nil, lines = {}, matrix = nil, settle = 0, source = 0, ok = true, stopped = -1,
  ends = false }
function rram.begin()
  rram.ok = errorqueue.count == 0
  rram.stopped = -1
  timer.reset()
  if not rram.ok then return end
  rram.fall()
  rram.outputs(1)
end
function rram.outputs(state)
  if rram.gate then rram.gate.source.output = state end
  for k = 1, table.getn(rram.lines) do rram.lines[k].source.output = state end
end
function rram.move(opened, closed)
  if not rram.ok then return end
  if opened ~= "" then rram.matrix.open(opened) end
  if closed ~= "" and errorqueue.count == 0 then rram.matrix.close(closed) end
  rram.ok = errorqueue.count == 0
  if rram.ok and rram.settle > 0 then delay(rram.settle) end
end
function rram.rise(levels)
  local n = table.getn(rram.lines)
  if rram.gate then
    rram.gate.source.levelv = levels[n + 1]
    delay(rram.source)
  end
  for k = 1, n do rram.lines[k].source.levelv = levels[k] end
  delay(rram.source)
end
function rram.fall()
  for k = table.getn(rram.lines), 1, -1 do rram.lines[k].source.levelv = 0 end
  delay(rram.source)
  if rram.gate then
    rram.gate.source.levelv = 0
    delay(rram.source)
  end
end
function rram.limited()
  for k = 1, table.getn(rram.lines) do
    if rram.lines[k].source.compliance then return true end
  end
  return rram.gate ~= nil and rram.gate.source.compliance
end
function rram.pulse(cell, step, levels, width)
  if not rram.ok or rram.stopped == cell then return end
  rram.rise(levels)
  delay(width)
  rram.fall()
  print(cell, step)
  rram.ok = errorqueue.count == 0
end
function rram.read(cell, step, levels, width, sense, drop, above, below)
  if not rram.ok or rram.stopped == cell then return end
  rram.rise(levels)
  if width > 0 then delay(width) end
  local amps, volts = sense.measure.iv()
  local held, at = rram.limited(), timer.measure.t()
  rram.fall()
  print(cell, step, volts, amps, held, at)
  local over = math.abs(amps) > 9e36
  if rram.ends and held and not over then rram.stopped = cell end
  if drop then
    if above and (over or amps / drop >= above) then rram.stopped = cell end
    if below and not over and amps / drop <= below then rram.stopped = cell end
  end
  rram.ok = errorqueue.count == 0
end
function rram.finish()
  rram.fall()
  rram.outputs(0)
  local on = 0
  if rram.gate then on = rram.gate.source.output end
  for k = 1, table.getn(rram.lines) do on = on + rram.lines[k].source.output end
  print("on", on)
end
"""
"""What a row calls. Errors do not end a script on these instruments, so each call looks at the
error queue before it goes on.
"""


class TspChain(Chain[ScriptedSourceMeter, ScriptedMatrix]):
    """A source-meter that also commands the matrix, linked to it: a row is one transaction,
    decisions included.
    """

    NAME = "TSP script over TSP-Link"
    shortest_s = 1e-3
    """Lua's `delay` between two commands (unverified how exact a shorter one is)."""

    @property
    def _lines(self) -> tuple[str, ...]:
        """Channels of bit and source lines in the order in which they rise: from the last to the
        first.
        """
        return tuple(reversed([c for c in self.wiring.channels if c != self.gate]))

    @override
    def arm(self) -> None:
        meter, matrix = self._meter, self.matrix
        node = self.wiring.tsp_node
        told = meter.ask(
            f"tsplink.reset() print(tsplink.state, node[{node}] and node[{node}].model or"
            ' "nothing")'
        )
        state, _, model = told.partition("\t")
        if (
            state != "online"
            or model.strip().upper().removeprefix("MODEL").strip() != matrix.told_model
        ):
            raise ConfigError(
                f"driver.wiring.tsp_node: TSP-Link is {state!r} and node {node} is {model!r}, not a"
                f" {matrix.told_model}; check cable and node number"
            )
        for channel in self.wiring.channels:
            # Pins what a row does not set: waits, filters, sense wires.
            own = self.channel(channel)
            meter.configure(
                own, SourceSetup(Function.VOLTAGE, meter.limits(own).smallest_compliance_a)
            )
        meter.load("rram_row", TSP_SCRIPT)
        meter.run(
            f"format.asciiprecision = 10\nrram.lines = {{ {', '.join(map(self._smu, self._lines))}"
            f" }}\nrram.gate = {self._smu(self.gate) if self.gate else 'nil'}\nrram.matrix ="
            f" node[{node}].channel\nrram.settle = {number(matrix.further_settle_s)}\nrram.source ="
            f" {number(self.source_s)}\nrram.ends = {str(self.stop_at_compliance).lower()}"
        )

    def _smu(self, channel: str) -> str:
        """What Lua calls a channel."""
        return self._meter.lua_name(self.channel(channel))

    @override
    def _held(self, channel: str, plan: RowPlan, route: Route) -> SourceSetup:
        # A row's script times its readings itself, and does not set their delay.
        return replace(super()._held(channel, plan, route), settle_s=0.0)

    @override
    def pulse(self, plan: RowPlan) -> Measured:
        found = super().pulse(plan)
        # Rows switch outputs by script, and begin with all of them off.
        for channel in self._on:
            self.meter(channel).output(self.channel(channel), False)
        self._on = {}
        return found

    @override
    def run(self, plan: RowPlan, takes_s: float) -> Measured:
        code = [line for channel in self.wiring.channels for line in self._setup(channel, plan)]
        code.append("rram.begin()")
        now: dict[str, str] = {}
        for visit in plan.visits:
            route = plan.routes[visit.step]
            for line in self._changes(route):
                setting = line.partition(" = ")[0]
                if now.get(setting) != line:
                    code.append(line)
                    now[setting] = line
            code += [
                f'rram.move("{opened}", "{closed}")'
                for opened, closed in _moves(self.matrix, visit)
            ]
            code.append(self._call(plan, visit))
        code.append("rram.finish()")
        return self._parsed(self._meter.lines("\n".join(code), takes_s=takes_s), plan)

    def _setup(self, channel: str, plan: RowPlan) -> list[str]:
        smu = self._smu(channel)
        return [
            f"{smu}.source.func = {smu}.OUTPUT_DCVOLTS",
            (
                f"{smu}.source.rangev ="
                f" {number(max(self.range_v(channel, route) for route in plan.routes))}"
            ),
            f"{smu}.source.limiti = {number(plan.limit_a[channel])}",
            f"{smu}.measure.autorangei = {smu}.AUTORANGE_ON",
        ]

    def _changes(self, route: Route) -> list[str]:
        """Settings of a step: made while all levels are at zero."""
        settings = [
            f"{self._smu(c)}.source.rangev = {number(self.range_v(c, route))}"
            for c in self.wiring.channels
        ]
        if route.sense:
            aperture_s, _ = self.integrates_s(route.sense, route)
            settings.append(
                f"{self._smu(route.sense)}.measure.nplc ="
                f" {number(aperture_s * self._meter.line_hz)}"
            )
        return settings

    def _call(self, plan: RowPlan, visit: Visit) -> str:
        route, cell = plan.routes[visit.step], visit.cell
        order = (*self._lines, self.gate) if self.gate else self._lines
        levels = ", ".join(number(float(route.levels[c][cell])) for c in order)
        begin = f"{cell}, {visit.step}, {{{levels}}}"
        if not route.sense:
            return f"rram.pulse({begin}, {number(route.width_s - self.source_s)})"
        _, rest_s = self.integrates_s(route.sense, route)
        drop = number(route.sign * float(route.drop_v[cell])) if route.tells(cell) else "nil"
        bounds = f"{_bound(plan.above_s, cell)}, {_bound(plan.below_s, cell)}"
        return f"rram.read({begin}, {number(rest_s)}, {self._smu(route.sense)}, {drop}, {bounds})"

    def _parsed(self, lines: list[str], plan: RowPlan) -> Measured:
        found = Measured.nothing(plan)
        place = {step: k for k, step in enumerate(plan.measuring)}
        *rows, end = lines or [""]
        for line in rows:
            words = line.split("\t")
            try:
                cell, step = int(float(words[0])), int(float(words[1]))
                found.ran[cell, step] = True
                if len(words) == 2:
                    continue
                volts, amps, at_s = float(words[2]), float(words[3]), float(words[5])
                reading = Readings.of(
                    np.array([volts]),
                    np.array([amps]),
                    np.array([words[4] == "true"]),
                    np.array([at_s]),
                )
                m = place[step]
                found.amps[cell, m], found.status[cell, m] = reading.amps[0], reading.status[0]
                found.time_s[cell, m] = at_s
            except (ValueError, OverflowError, LookupError):
                self._meter.dialog.out_of_step()
                raise LinkError(f"{self._meter.name}: {line[:60]!r} is no line of a row") from None
        self._check_end(end, found, plan)
        return found

    def _check_end(self, end: str, found: Measured, plan: RowPlan) -> None:
        """The outputs must be off, and every step taken that no reading has made needless."""
        word, _, on = end.partition("\t")
        if word != "on":
            self._meter.dialog.out_of_step()
            raise LinkError(f"{self._meter.name}: {end[:60]!r} is no end of a row")
        if number_in(on, self._meter.name) != 0.0:
            raise InstrumentError(f"{self._meter.name}: an output is still on at the end of a row")
        if not (found.ran[:, 0].all() if plan.has_stop else found.ran.all()):
            raise InstrumentError(f"{self._meter.name}: the script has left out steps of a row")


def _bound(bound: FloatArray | None, cell: int) -> str:
    return "nil" if bound is None else number(float(bound[cell]))


TRIGGERED_SCRIPT = """
rram_row = { ok = true, done = 0 }
function rram_row.begin(step, measure, done, timeout, settle, source)
  rram_row.step = digio.trigger[step]
  rram_row.measure = digio.trigger[measure]
  rram_row.over = digio.trigger[done]
  rram_row.timeout = timeout
  rram_row.settle = settle
  rram_row.source = source
  rram_row.done = 0
  rram_row.over.clear()
  rram_row.ok = errorqueue.count == 0
end
function rram_row.move(opened, closed)
  if not rram_row.ok then return end
  if opened ~= "" then channel.open(opened) end
  if closed ~= "" and errorqueue.count == 0 then channel.close(closed) end
  rram_row.ok = errorqueue.count == 0
  if rram_row.ok and rram_row.settle > 0 then delay(rram_row.settle) end
end
function rram_row.gate()
  if not rram_row.ok then return end
  rram_row.step.assert()
  delay(rram_row.source)
end
function rram_row.visit(width)
  if not rram_row.ok then return end
  rram_row.step.assert()
  if width == nil then
    rram_row.measure.assert()
    rram_row.ok = rram_row.over.wait(rram_row.timeout)
  else
    delay(width)
  end
  rram_row.step.assert()
  delay(rram_row.source)
  if rram_row.ok then rram_row.done = rram_row.done + 1 end
end
"""
"""What the matrix calls: the gate takes its next level; at each visit two steps of the
source-meter's lists (force up, force down).
"""
POINTS = 4
"""Points of a list that one visit takes at most: gate down, gate up, force up, force down."""
CONVERSIONS, PARTS = 6, 50
"""Integrations that one reading in a fixed range takes at most (volts and amperes, each with zero
and reference), and the part of a level that stresses which one of them may take: how many there are
is not the host's to know, and the level is to last as asked.
"""
NEAR_LIMIT = 0.97
"""Part of a channel's current limit from which on it may be at it: two limits that are set alike
differ by their errors.
"""
BLIND_S = 1e-3
"""Integration time of the one measurement of a row that measures nothing."""


@dataclass(frozen=True, eq=False)
class _Course:
    """A stretch of cells as lists and relays take it: levels of each channel (V) and where is
    measured, shape (points,) each; `blind`: nothing is, but for the end; what the matrix calls.
    """

    levels: Mapping[str, FloatArray]
    measured: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    blind: bool
    code: list[str]


class TriggeredChain(Chain[TriggeredSourceMeter, ScriptedMatrix]):
    """A source-meter and a matrix that advance each other over digital lines: three transactions a
    stretch of cells. The gate is up along a row, as long as none of its relays moves.
    """

    NAME = "lists and relays on each other's triggers"
    spans_rows = True
    can_stop = False
    shortest_s = 1e-3
    """Lua's `delay` in the matrix (unverified how exact a shorter one is)."""

    @property
    @override
    def most_visits(self) -> int:
        # One point more takes the gate down at the end.
        return (self._meter.most_points - 1) // POINTS

    @property
    def _lines(self) -> Triggers:
        assert self.wiring.triggers is not None
        return self.wiring.triggers

    @override
    def arm(self) -> None:
        lines = self._lines
        pulses = [lines.matrix_out, lines.matrix_measure, lines.matrix_in]
        code = [f"digio.trigger[{line}].mode = digio.TRIG_FALLING" for line in pulses]
        code += [f"digio.trigger[{line}].clear()" for line in pulses]
        self.matrix.run("\n".join(code))
        self.matrix.load("rram_rows", TRIGGERED_SCRIPT)

    @override
    def goes_with(self, others: Sequence[Route], route: Route) -> bool:
        """A list has one range, and all its measurements one integration time."""
        measuring = [r for r in others if r.sense]
        if self.ranges_v(others[0]) != self.ranges_v(route):
            return False
        return not (measuring and route.sense) or self._waits_s(measuring[0]) == self._waits_s(
            route
        )

    def _waits_s(self, route: Route) -> tuple[float, float]:
        """Integration time and the wait before it."""
        aperture_s, rest_s = self.integrates_s(route.sense, route)
        return aperture_s, self.source_s + rest_s

    @override
    def run(self, plan: RowPlan, takes_s: float) -> Measured:
        """Set up and arm the lists, let the matrix run the row, fetch."""
        meter, lines, course = self._meter, self._lines, self._course(plan)
        changed = {}
        for channel in self.wiring.channels:
            setup = self._setup(channel, plan)
            if channel in self._on and self._on[channel] != setup:
                changed[self.channel(channel)] = self._on[channel] = setup
            self._ready(channel, setup)
        meter.arm_list(
            {self.channel(c): levels for c, levels in course.levels.items()},
            setups=changed,
            trigger_in=lines.smu_in,
            trigger_out=lines.smu_out,
            measure_in=lines.smu_measure,
            measure_at=course.measured,
        )
        printed = self.matrix.ask("\n".join(self._row_code(plan, course)), takes_s=takes_s)
        if printed != str(len(plan.visits)):
            raise InstrumentError(
                f"{self.matrix.name}: visit {printed} of {len(plan.visits)} was the last whose"
                f" measurement came on digital line {lines.matrix_in}"
            )
        readings = meter.fetch(int(course.measured.sum()), takes_s=0.0)
        return self._measured(plan, readings, course.blind)

    def _setup(self, channel: str, plan: RowPlan) -> SourceSetup:
        """Settings of a channel for a row. One that does not sense is measured too, to tell whether
        it reached its level.

        It integrates for less, in a fixed range: so the end of a point, which the slowest channel
        tells, is that of the sensing.
        """
        range_v, limit_a = self.range_v(channel, plan.routes[0]), plan.limit_a[channel]
        measuring = [plan.routes[k] for k in plan.measuring]
        if not measuring:
            blind = SourceSetup(Function.VOLTAGE, limit_a, range_v, aperture_s=BLIND_S)
            before = self._on.get(channel, blind)
            kept = (before.compliance, before.source_range) == (limit_a, range_v)
            return before if kept else blind
        aperture_s, wait_s = self._waits_s(measuring[0])
        if channel in {route.sense for route in measuring}:
            return SourceSetup(Function.VOLTAGE, limit_a, range_v, None, aperture_s, wait_s)
        shortest_s = self._meter.limits(self.channel(channel)).shortest_aperture_s
        return SourceSetup(
            Function.VOLTAGE, limit_a, range_v, limit_a, max(shortest_s, aperture_s / 4), wait_s
        )

    def _course(self, plan: RowPlan) -> _Course:
        """What lists and relays do, visit after visit: the gate rises before the others and falls
        after them, and it is down where its own relays move.
        """
        points: list[list[float]] = []
        measured: list[bool] = []
        code: list[str] = []
        gate_v = 0.0
        forces = [c for c in self.wiring.channels if c != self.gate]

        def point(levels: Mapping[str, float], *, measures: bool = False) -> None:
            points.append([gate_v if c == self.gate else levels.get(c, 0.0) for c in levels_of])
            measured.append(measures)

        levels_of = tuple(self.wiring.channels)
        for visit in plan.visits:
            route, moved = plan.routes[visit.step], (*visit.opened, *visit.closed)
            if gate_v and self._at_gate(moved):
                gate_v = 0.0
                point({})
                code.append("rram_row.gate()")
            code += [
                f'rram_row.move("{opened}", "{closed}")'
                for opened, closed in _moves(self.matrix, visit)
            ]
            wanted_v = float(route.levels[self.gate][visit.cell]) if self.gate else 0.0
            if gate_v != wanted_v:
                gate_v = wanted_v
                point({})
                code.append("rram_row.gate()")
            up = {c: float(route.levels[c][visit.cell]) for c in forces}
            point(up, measures=bool(route.sense))
            point({})
            code.append(f"rram_row.visit({'nil' if route.sense else number(route.width_s)})")
        if gate_v:
            gate_v = 0.0
            point({})
            code.append("rram_row.gate()")
        at = np.array(measured)
        blind = not at.any()
        if blind:
            # A list needs one measurement to tell its end by: at zero, where nothing is measured.
            at[-1] = True
            code.append(
                "rram_row.measure.assert() rram_row.ok = rram_row.over.wait(rram_row.timeout)"
            )
        levels = np.array(points, dtype=np.float64)
        return _Course({c: levels[:, k] for k, c in enumerate(levels_of)}, at, blind, code)

    def _row_code(self, plan: RowPlan, course: _Course) -> list[str]:
        lines, source_s = self._lines, self.source_s
        longest_s = max((r.width_s for r in plan.routes if r.sense), default=0.0) + source_s
        begin = [lines.matrix_out, lines.matrix_measure, lines.matrix_in]
        times = [number(longest_s + 1.0), number(self.matrix.further_settle_s), number(source_s)]
        return [
            f"rram_row.begin({', '.join([*map(str, begin), *times])})",
            *course.code,
            'print(string.format("%d", rram_row.done))',
        ]

    def _measured(self, plan: RowPlan, readings: Mapping[str, Readings], blind: bool) -> Measured:
        found = Measured.nothing(plan)
        found.ran[:] = True
        if blind:
            return found
        place = {step: k for k, step in enumerate(plan.measuring)}
        began_s = min(float(reading.time_s[0]) for reading in readings.values())
        for k, visit in enumerate(v for v in plan.visits if plan.routes[v.step].sense):
            where = visit.cell, place[visit.step]
            reading = readings[self.channel(plan.routes[visit.step].sense)]
            found.amps[where], found.time_s[where] = reading.amps[k], reading.time_s[k] - began_s
            found.status[where] = _judged(
                int(reading.status[k]), (int(r.status[k]) for r in readings.values())
            )
        return found


class PlainChain(Chain[SourceMeter, SwitchMatrix]):
    """Any source-meters and any matrix, the host between: several transactions a cell, where
    nothing better is there.

    One channel runs a list of one point, so that the instrument times it; what the others hold
    stands for as long as the host takes, which has no bound. So no line but the timed one may have
    more than the read limit. Word lines stay up from cell to cell, as long as no relay of theirs
    moves; bit and source lines are at zero when any relay does. Steps of a cell that differ in
    nothing but the timed channel go to it together.
    """

    NAME = "host-driven, transactions for every cell"
    host_s = 0.015

    @property
    @override
    def shortest_s(self) -> float:
        """A list of one point measures once, whether that is wanted or not."""
        found = [
            self.meter(c).limits(self.channel(c)) for c in self.wiring.channels if c != self.gate
        ]
        return max(
            2 * limits.settle_s + CONVERSIONS * limits.shortest_aperture_s for limits in found
        )

    @override
    def schemes(self, schemes: frozenset[Scheme]) -> frozenset[Scheme]:
        """V/2 needs two channels timed together."""
        return schemes - {Scheme.HALF}

    @override
    def check(self, routes: Sequence[Route]) -> None:
        for route in (r for r in routes if not r.generator):
            timed = self._timed(route)
            held = [
                c
                for c in route.levels
                if c not in (timed, self.gate) and not route.most_v[c] <= self.read_v
            ]
            if held:
                raise ConfigError(
                    f"smu-matrix: {held[0]} would hold {route.most_v[held[0]]:g} V, above the read"
                    f" limit {self.read_v:g} V, for as long as the host takes; this bench can time"
                    " one line alone, the one that is measured where one is"
                )

    def _timed(self, route: Route) -> str:
        """The channel whose level lasts for the width: the one that senses a cell, else the
        largest; none for a gate.
        """
        if route.sense:
            return route.sense if route.sense != self.gate else ""
        return max((c for c in route.levels if c != self.gate), key=lambda c: route.most_v[c])

    @override
    def arm(self) -> None:
        """Nothing to load."""

    @override
    def run(self, plan: RowPlan, takes_s: float) -> Measured:
        found = Measured.nothing(plan)
        place = {step: k for k, step in enumerate(plan.measuring)}
        stopped: set[int] = set()
        started_s = self.now_s()
        for visits in self._together(plan):
            first, last = visits[0], visits[-1]
            self._move(first)
            if first.cell in stopped:
                continue
            route, cell = plan.routes[last.step], last.cell
            readings = self._played(plan, [plan.routes[v.step] for v in visits], cell)
            found.ran[cell, [v.step for v in visits]] = True
            if not route.sense:
                continue
            amps, status = (
                float(readings[route.sense].amps[-1]),
                int(readings[route.sense].status[-1]),
            )
            where = cell, place[last.step]
            found.amps[where], found.time_s[where] = amps, self.now_s() - started_s
            others = [int(r.status[-1]) for r in readings.values()]
            if self._is_held_back(plan, route, amps):
                others.append(Status.COMPLIANCE)
            found.status[where] = _judged(status, others)
            siemens = route.sign * amps / float(route.drop_v[cell]) if route.tells(cell) else np.nan
            if stops(plan, last.step, cell, siemens, int(found.status[where])):
                stopped.add(cell)
        self._set_gate(0.0)
        return found

    def _is_held_back(self, plan: RowPlan, route: Route, amps: float) -> bool:
        """Whether the current through a cell is the limit of the channel that holds its other end:
        that end may have left its level, and by now it is back.
        """
        ends = (c for c, row in self.wiring.channels.items() if row in (route.bl, route.sl))
        return any(
            abs(amps) >= NEAR_LIMIT * plan.limit_a[c]
            for c in ends
            if c not in (route.sense, self.gate)
        )

    def _together(self, plan: RowPlan) -> list[list[Visit]]:
        """The visits, those of a cell together that only the timed channel tells apart; one that
        measures is the last, for what follows may hang on it.
        """
        groups: list[list[Visit]] = []
        for visit in plan.visits:
            route = plan.routes[visit.step]
            before = plan.routes[groups[-1][-1].step] if groups else None
            if (
                before is not None
                and not (before.sense or visit.opened or visit.closed)
                and groups[-1][-1].cell == visit.cell
                and (timed := self._timed(route)) == self._timed(before) != ""
                and self._held_levels(route, timed, visit.cell)
                == self._held_levels(before, timed, visit.cell)
            ):
                groups[-1].append(visit)
            else:
                groups.append([visit])
        return groups

    def _held_levels(self, route: Route, timed: str, cell: int) -> dict[str, tuple[float, float]]:
        """Level and voltage range of each channel that is not timed."""
        return {
            c: (float(v[cell]), self.range_v(c, route))
            for c, v in route.levels.items()
            if c != timed
        }

    def _played(self, plan: RowPlan, routes: Sequence[Route], cell: int) -> dict[str, Readings]:
        """Steps on one cell that differ in the timed channel alone; where the last one measures,
        readings of all channels: those that do not sense tell if they are limited.
        """
        route = routes[-1]
        timed = self._timed(route)
        if self.wiring.is_direct and self.wiring.generator:
            self._ground_through_generator(route)
        for channel in route.levels:
            setup = self._setup(channel, plan, routes[0], timed)
            if channel == timed and channel in self._on:
                continue
            self._ready(channel, setup)
        if self.gate:
            self._set_gate(float(route.levels[self.gate][cell]))
        held = [c for c in route.levels if c != timed]
        up = [c for c in held if c != self.gate and route.levels[c][cell] != 0]
        for channel in up:
            self.meter(channel).source(self.channel(channel), float(route.levels[channel][cell]))
        readings = {}
        beside = held if route.sense else []
        if timed:
            runs = [
                (self._setup(timed, plan, r, timed), np.array([float(r.levels[timed][cell])]))
                for r in routes
            ]
            readings = self._swept(timed, runs, beside)
        readings |= {c: self.meter(c).held(self.channel(c)) for c in beside if c not in readings}
        if not route.sense:
            self._check_gate()
        for channel in reversed(up):
            self.meter(channel).source(self.channel(channel), 0.0)
        return readings

    def _swept(
        self, channel: str, runs: list[tuple[SourceSetup, FloatArray]], beside: Sequence[str]
    ) -> dict[str, Readings]:
        """The last of lists with settings of their own, and what its instrument can tell with it of
        the channels beside it.
        """
        meter, own, last = self.meter(channel), self.channel(channel), runs[-1][0]
        if len(runs) > 1 or self._on[channel] != last:
            self._on[channel] = last
            return {channel: meter.list_sweeps(own, runs)[-1]}
        same = {self.channel(c): c for c in beside if self.meter(c) is meter}
        found = meter.list_sweep_beside(own, runs[0][1], list(same))
        return {(same | {own: channel})[c]: reading for c, reading in found.items()}

    def _ground_through_generator(self, route: Route) -> None:
        """The other end of a direct pair stands at the generator's rest level, through 50 ohm."""
        name = self.wiring.generator
        if name not in self._aimed:
            limits = self.pulse_limits(name)
            width_s = min(max(route.width_s, limits.shortest_s), limits.longest_s / 4)
            at_rest = replace(route, generator=name, width_s=width_s)
            self._aim(name, self._pulse_setup(at_rest, self.read_v))

    def _setup(self, channel: str, plan: RowPlan, route: Route, timed: str) -> SourceSetup:
        """Settings of a channel for a step. A level that stresses lasts for the width at most, its
        reading included.
        """
        # How many integrations a stressing level is to hold is known where all are asked for.
        once = route.is_read or channel != timed
        held = replace(self._held(channel, plan, route), one_conversion=once)
        limits = self.meter(channel).limits(self.channel(channel))
        aperture_s, wait_s, range_a = held.aperture_s, held.settle_s, held.measure_range
        if channel == route.sense and route.is_read:
            aperture_s, rest_s = self.integrates_s(channel, route)
            wait_s += rest_s
        elif channel == timed:
            range_a = held.compliance
            if route.sense:
                wanted_s = route.width_s / PARTS
                aperture_s = min(
                    max(wanted_s, limits.shortest_aperture_s), limits.longest_aperture_s
                )
            wait_s = max(route.width_s - 2 * limits.settle_s - CONVERSIONS * aperture_s, 0.0)
        return replace(held, measure_range=range_a, aperture_s=aperture_s, settle_s=wait_s)


class DirectPair(SwitchMatrix):
    """Stands for the matrix of a direct pair: two leads that are always joined."""

    POINTS: ClassVar[frozenset[Crosspoint]] = frozenset({(BL, 1), (SL, 2)})
    rows = (BL, SL, "")
    columns = 2
    settle_s = 0.0

    def __init__(self) -> None:
        super().__init__(InstrumentConfig())

    @override
    def connect(self) -> Identity:
        return Identity("direct pair", "")

    @override
    def arm(self) -> None:
        """Nothing to open."""

    @override
    def safe_off(self) -> None:
        """Nothing to open."""

    @override
    def is_off(self) -> bool:
        return True

    @override
    def errors(self) -> list[InstrumentError]:
        return []

    @override
    def switch(self, *, close: Iterable[Crosspoint] = (), open: Iterable[Crosspoint] = ()) -> None:
        if set(open) or not set(close) <= self.POINTS:
            raise ConfigError("smu-matrix: a direct pair has no relays")

    @override
    def open_all(self) -> None:
        """Nothing to open."""

    @override
    def closed(self) -> frozenset[Crosspoint]:
        return self.POINTS

    @override
    def counts(self, points: Iterable[Crosspoint]) -> IntArray:
        return np.zeros(len(list(points)), dtype=np.int64)
