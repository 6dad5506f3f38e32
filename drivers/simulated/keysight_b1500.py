"""The far side of a Keysight B1500A: a mainframe with source-measure modules that understands FLEX
commands.

After the "Agilent B1500A/B1505A Programming Guide", edition 11 (`AIT` 4-38 f., `IN` 4-109,
`TDI`/`TDV` 4-193 f., `TTI`/`TTIV` 4-209, `WI` 4-217, staircase sweeps 1-39 and 2-9, time stamps
1-20) and the "Agilent B1500A User's Guide", edition 10, tables 4-7 and 4-8 (HPSMU, high-speed ADC:
ranges, resolution range/20000, largest current at each voltage). `*LRN?` answers as PyMeasure 0.16
reads it (no space behind the command's name). `unverified`: voltages and currents of HRSMU and
MPSMU together, all durations, what a sweep returns after its abort, the order of time stamps with
`CMM` 4.

Pulsed spot is after 2-5 of the programming guide, times of pulses after `PT` (4-90) of the
"Keysight E5260/E5270 Programming Guide", edition 4, several channels after `WNX` (4-225) and the
parameters in QCoDeS 0.58, codes of `ERMOD` and `ERSSP` too. `unverified`: `MCPT` and `MCPNT` other
than by these, what pulsed modes send of sources, all of the selector but its codes.

Channel n is the module in slot n; channels of a pulse generator module: `flex.spgu`. Simulated are
spot, high-speed spot, staircase sweep (with a synchronous source, or of several channels), linear
sampling, pulsed spot and sweep, also of several channels.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

from typing_extensions import override

from .array.terminals import Drive, Place
from .flex.instrument import Call, Element, FlexError, FlexInstrument, Handler
from .flex.spgu import MODULE as SPGU_MODULE
from .flex.spgu import SpguModules
from .server.instrument import check_modules

VOLTS = {5: 0.5, 20: 2.0, 50: 5.0, 200: 20.0, 400: 40.0, 1000: 100.0, 2000: 200.0}
"""Code of a voltage range -> its full scale."""
VOLT_ALIASES = {11: 20, 12: 200, 13: 400, 14: 1000, 15: 2000}
AMPS = {code: float(f"1e{code - 20}") for code in range(9, 21)}
"""Code of a current range -> its full scale: 11 is 1 nA, 20 is 1 A."""
INTERLOCK_V = 42.0
RELAY_S = 0.010
SETTLE_S = 300e-6
OVERHEAD_S = 100e-6
SAMPLE_S = 20e-6
"""One sample of the high-speed ADC."""


@dataclass(frozen=True)
class Kind:
    """What one module model can do: codes of its ranges, (volts, amperes) that go together."""

    volts: tuple[int, ...]
    amps: tuple[int, ...]
    envelope: tuple[tuple[float, float], ...]


_SMALL = ((20.0, 0.1), (40.0, 0.05), (100.0, 0.02))
KINDS = {
    "B1517A": Kind((5, 20, 50, 200, 400, 1000), tuple(range(9, 20)), _SMALL),
    "B1511A": Kind((5, 20, 50, 200, 400, 1000), tuple(range(11, 20)), _SMALL),
    "B1511B": Kind((5, 20, 50, 200, 400, 1000), tuple(range(11, 20)), _SMALL),
    "B1510A": Kind(
        (20, 200, 400, 1000, 2000),
        tuple(range(11, 21)),
        ((20.0, 1.0), (40.0, 0.5), (100.0, 0.125), (200.0, 0.05)),
    ),
}
"""HRSMU, MPSMU (two makes), HPSMU. Other names may stand in a slot; they are told by `UNT?` and
have no channel here.
"""
SLOTS = 10
WITHOUT_CHANNELS = ("B1520A", "B1530A")
"""MFCMU and WGFMU."""


@dataclass
class Output:
    """What one channel forces: V or I, its ranging code, level, limit of the other quantity,
    polarity mode, the limit's range.
    """

    function: str = "V"
    code: int = 200
    level: float = 0.0
    limit: float = 100e-6
    polarity: int = 0
    limit_code: int = 16


@dataclass
class Module:
    """One source-measure module: its switch, its output, what `DZ` remembers, its measurement
    settings.
    """

    slot: int
    name: str
    kind: Kind
    noise: random.Random
    on: bool = False
    output: Output = field(default_factory=Output)
    kept: Output | None = None
    ri: int = 0
    rv: int = 0
    operation: int = 0
    adc: int = 0
    is_filtered: int = 0
    has_resistor: int = 0
    ranging: tuple[int, int] = (1, 50)

    def full_scale(self, quantity: str) -> float:
        """Full scale of the output's range where it forces `quantity`; the smallest range that
        covers it, at least the code's.
        """
        table = VOLTS if quantity == "V" else AMPS
        codes = self.kind.volts if quantity == "V" else self.kind.amps
        least = table.get(self.output.code, 0.0)
        return next(
            table[c] for c in codes if table[c] >= max(least, abs(self.output.level) * (1 - 1e-12))
        )


@dataclass(frozen=True)
class Sweep:
    """A staircase: channel, V or I, mode (1 linear, 2 log, 3 and 4 there and back), range code,
    ends, steps.

    `power` limits volts times amperes; 0 is no limit.
    """

    channel: int
    function: str
    mode: int
    code: int
    start: float
    stop: float
    steps: int
    power: float = 0.0

    def levels(self) -> list[float]:
        """All levels in order."""
        last = max(self.steps - 1, 1)
        if self.mode in (1, 3):
            up = [self.start + (self.stop - self.start) * k / last for k in range(self.steps)]
        else:
            up = [self.start * (self.stop / self.start) ** (k / last) for k in range(self.steps)]
        return up if self.mode < 3 else up + up[::-1]


@dataclass(frozen=True)
class Pulsed:
    """A source that goes from its base to a level and back: channel, V or I, range code, base,
    first and last level, limit.
    """

    channel: int
    function: str
    code: int
    base: float
    start: float
    stop: float
    limit: float


def shown(value: float) -> str:
    """A number as `*LRN?` tells it."""
    return f"{value:.10G}"


class SimulatedB1500(FlexInstrument):
    """A B1500A. `modules` are the models in slots 1, 2, ...: without it two HRSMU (slots 1 and 2),
    two MPSMU (3 and 4), and a pulse generator in each slot whose channels ("501") are wired.

    The interlock is open unless `is_interlocked`: then no more than 42 V.
    """

    MAKER: ClassVar[str] = "Keysight"
    ALONE = ("B1517A", "B1517A", "B1511B", "B1511B", SPGU_MODULE)
    MODELS: ClassVar[tuple[str, ...]] = ("B1500A",)

    def __init__(
        self,
        model: str,
        place: Place,
        modules: tuple[str, ...] | None = None,
        *,
        is_interlocked: bool = False,
    ) -> None:
        wired = set(place.terminals)
        usual = [
            SPGU_MODULE if wired & {f"{slot}01", f"{slot}02"} else ""
            for slot in range(1, SLOTS + 1)
        ]
        usual[:4] = ["B1517A", "B1517A", "B1511B", "B1511B"]
        self.slots = (*(usual if modules is None else modules), *[""] * SLOTS)[:SLOTS]
        self.is_interlocked = is_interlocked
        self.modules = {
            slot: Module(
                slot,
                name,
                KINDS[name],
                random.Random(zlib.crc32(f"{place.serial} {slot}".encode())),
            )
            for slot, name in enumerate(self.slots, 1)
            if name in KINDS
        }
        self._errors_of = {
            (slot, quantity): (module.noise.uniform(-3e-5, 3e-5), module.noise.uniform(-6e-5, 6e-5))
            for slot, module in self.modules.items()
            for quantity in "VI"
        }
        self.spgu = SpguModules(
            place, [slot for slot, name in enumerate(self.slots, 1) if name == SPGU_MODULE]
        )
        super().__init__(model, place)
        self.reset()

    @override
    @classmethod
    def with_modules(cls, model: str, place: Place, modules: Sequence[str]) -> Self:
        check_modules(model, modules, SLOTS, (*KINDS, SPGU_MODULE, *WITHOUT_CHANNELS))
        return cls(model, place, tuple(modules))

    @property
    @override
    def outputs_on(self) -> bool:
        generators = self.spgu.channels.values()
        return any(m.on for m in self.modules.values()) or any(c.is_on for c in generators)

    @override
    def identification(self) -> str:
        return f"Agilent Technologies,{self.pretends or self.model},0,A.06.01.2016.0316"

    @override
    def status_byte(self) -> int:
        """Data ready (1), interlock open (8), ready (16)."""
        return (1 if self.data else 0) | (0 if self.is_interlocked else 8) | 16

    @override
    def pause(self, seconds: float) -> None:
        self.place.bus.clock.advance(seconds)

    @override
    def reset(self) -> None:
        for module in self.modules.values():
            module.on = False
            module.output, module.kept = Output(), None
            module.ri = module.rv = module.operation = module.adc = module.is_filtered = (
                module.has_resistor
            ) = 0
            module.ranging = (1, 50)
            self._drive(module)
        self.spgu.reset()
        self.adc: dict[int, tuple[int, float]] = {0: (0, 1.0), 1: (0, 6.0), 2: (0, 1.0)}
        self.autozero = 0
        self.trigger_mode = 1
        self.calibrates = 0
        self.stamps = 0
        self.parallel = 0
        self.mode = 0
        self.measured: tuple[int, ...] = ()
        self.sweep: Sweep | None = None
        self.synchronous: Sweep | None = None
        self.further: dict[int, Sweep] = {}
        self.port_mode = 0
        self.selected = [0, 0, 0, 0]
        self.pulse_times = (0.0, 1e-3, 10e-3)
        self.pulsed: Pulsed | None = None
        self.pulse_steps = (1, 1)
        self.joint_times = (0.0, 0.0)
        self.joint_widths: dict[int, tuple[float, float]] = {}
        self.joint: dict[int, Pulsed] = {}
        self.joint_steps = (1, 1)
        self._limits: dict[int, float] = {}
        self.waits: tuple[float, ...] = (0.0,) * 5
        self.abort_post = (1, 1)
        self.sampling = (0.0, 0.002, 1000.0, 0.0)
        self.factors: dict[int, tuple[float, float]] = {1: (1.0, 0.0), 2: (1.0, 0.0)}
        self.zero_s = self.place.bus.clock.now_s

    @override
    def commands(self) -> dict[str, tuple[Handler, int, int]]:
        return self.spgu.commands() | {
            "UNT?": (self._units, 0, 1),
            "CN": (self._connect, 0, 15),
            "CNX": (self._connect, 0, 15),
            "CL": (self._disconnect, 0, 15),
            "DV": (self._force, 3, 6),
            "DI": (self._force, 3, 6),
            "TDV": (self._force, 3, 6),
            "TDI": (self._force, 3, 6),
            "DZ": (self._zero, 0, 15),
            "RZ": (self._restore, 0, 15),
            "IN": (self._initialise, 0, 15),
            "TI": (self._high_speed, 1, 2),
            "TV": (self._high_speed, 1, 2),
            "TTI": (self._high_speed, 1, 2),
            "TTV": (self._high_speed, 1, 2),
            "TIV": (self._high_speed, 1, 3),
            "TTIV": (self._high_speed, 1, 3),
            "TSR": (self._reset_timer, 0, 1),
            "TSQ": (self._tell_timer, 0, 0),
            "TSC": (self._setter("stamps"), 1, 1),
            "RI": (self._range, 2, 2),
            "RV": (self._range, 2, 2),
            "RM": (self._ranging, 2, 3),
            "FL": (self._filter, 1, 16),
            "SSR": (self._of_module("has_resistor", 1), 2, 2),
            "CMM": (self._of_module("operation", 4), 2, 2),
            "AAD": (self._of_module("adc", 2), 2, 2),
            "AIT": (self._integration, 2, 3),
            "AV": (self._averaging, 1, 2),
            "AZ": (self._setter("autozero"), 1, 1),
            "CM": (self._setter("calibrates"), 1, 1),
            "PAD": (self._setter("parallel"), 1, 1),
            "TM": (self._trigger, 1, 1),
            "WAT": (self._wait_factor, 2, 3),
            "MM": (self._measurement_mode, 1, 11),
            "WT": (self._sweep_waits, 2, 5),
            "WM": (self._sweep_end, 1, 2),
            "WV": (self._staircase, 6, 8),
            "WI": (self._staircase, 6, 8),
            "WSV": (self._synchronous, 4, 6),
            "WSI": (self._synchronous, 4, 6),
            "ERMOD": (self._set_port_mode, 1, 2),
            "ERMOD?": (lambda _: str(self.port_mode), 0, 0),
            "ERSSP": (self._set_selector, 2, 2),
            "ERSSP?": (lambda call: str(self.selected[call.integer(0, 0, 3)]), 1, 1),
            "WNX": (self._further_sweep, 6, 8),
            "PT": (self._set_pulse_times, 2, 4),
            "PV": (self._pulse_source, 4, 5),
            "PI": (self._pulse_source, 4, 5),
            "PWV": (self._pulsed_sweep, 7, 9),
            "PWI": (self._pulsed_sweep, 7, 9),
            "MCPT": (self._set_joint_times, 1, 4),
            "MCPNT": (self._set_joint_width, 3, 3),
            "MCPNX": (self._joint_pulse, 6, 7),
            "MCPWS": (self._set_joint_steps, 2, 2),
            "MCPWNX": (self._joint_pulse, 7, 9),
            "WNU?": (lambda _: str(len(self.sweep.levels()) if self.sweep else 0), 0, 0),
            "MT": (self._sampling, 3, 4),
            "ML": (lambda call: _nothing(call.integer(0, 1, 1)), 1, 1),
            "XE": (self._execute, 0, 0),
            "INTLKVTH?": (lambda _: shown(INTERLOCK_V), 0, 0),
            "*LRN?": (self._learn, 1, 1),
        }

    def _units(self, _: Call) -> str:
        return ";".join(f"{name or 0},0" for name in self.slots)

    def _module(self, number: float) -> Module:
        module = self.modules.get(int(number)) or self.modules.get(int(number) // 100)
        if module is None or number not in (module.slot, 100 * module.slot + 1):
            raise FlexError(121)
        return module

    def _on(self, number: float) -> Module:
        module = self._module(number)
        if not module.on:
            raise FlexError(200)
        return module

    def _chosen(self, call: Call, *, only_on: bool = True) -> list[Module]:
        """The channels that a command names; all (that are on) where it names none."""
        if call.numbers:
            return [self._on(n) if only_on else self._module(n) for n in call.numbers]
        return [module for module in self.modules.values() if module.on or not only_on]

    def _switched(self, call: Call, on: bool) -> list[Module]:
        """The source-measure modules that `CN` or `CL` names, the generators' switches being done
        already; all where it names none.
        """
        generators = [self.spgu.number(n) for n in call.numbers]
        others = tuple(
            n for n, number in zip(call.numbers, generators, strict=True) if number is None
        )
        chosen = self._chosen(Call(call.header, others), only_on=False)
        for number in self.spgu.channels:
            if number in generators or not call.numbers:
                self.spgu.switch(number, on)
        return chosen if others or not call.numbers else []

    def _connect(self, call: Call) -> None:
        for module in self._switched(call, True):
            if not module.on:
                module.on, module.output, module.kept = True, Output(), None
                self._drive(module)
        self.pause(RELAY_S)

    def _disconnect(self, call: Call) -> None:
        for module in self._switched(call, False):
            module.on, module.output, module.kept = False, Output(), None
            self._drive(module)
        self.pause(RELAY_S)

    def _force(self, call: Call) -> None:
        module = self._on(call.numbers[0])
        output = self._output(module, call.header[-1], call.numbers[1:])
        module.output, module.kept = output, None
        started_s = self._time_s()
        self._drive(module)
        self.pause(SETTLE_S)
        if call.header.startswith("T"):
            self.emit([Element(module.slot, "T", started_s)])

    def _output(self, module: Module, function: str, numbers: tuple[float, ...]) -> Output:
        """What code, level and limit (as before where left out) make of an output. Raises
        `FlexError`.
        """
        before = module.output
        code = self._code(module, function, numbers[0], signed=False)
        if len(numbers) > 2:
            limit = numbers[2]
        elif before.function == function:
            limit = before.limit
        else:
            raise FlexError(123)
        polarity = int(numbers[3]) if len(numbers) > 3 else 0
        other = "I" if function == "V" else "V"
        limit_code = self._code(module, other, numbers[4], signed=True) if len(numbers) > 4 else 0
        output = Output(function, code, numbers[1], limit, polarity, limit_code)
        self._check(module, output)
        return output

    def _check(self, module: Module, output: Output) -> None:
        largest_v = max(v for v, _ in module.kind.envelope)
        largest_a = max(a for _, a in module.kind.envelope)
        is_volts = output.function == "V"
        if abs(output.level) > (largest_v if is_volts else largest_a) or output.polarity not in (
            0,
            1,
        ):
            raise FlexError(120)
        if output.limit == 0 and is_volts:
            raise FlexError(123)
        table = VOLTS if is_volts else AMPS
        codes = module.kind.volts if is_volts else module.kind.amps
        scale = next(
            table[c]
            for c in codes
            if table[c] >= max(table.get(output.code, 0.0), abs(output.level))
        )
        volts, amps = (scale, abs(output.limit)) if is_volts else (abs(output.limit), scale)
        if not any(volts <= v and amps <= a for v, a in module.kind.envelope):
            raise FlexError(123)
        highest_v = abs(output.level if is_volts else output.limit)
        if highest_v > INTERLOCK_V and not self.is_interlocked:
            raise FlexError(202)

    def _code(self, module: Module, quantity: str, number: float, *, signed: bool) -> int:
        """A range code with its aliases resolved. Raises `FlexError` 124 for one that the module
        lacks.
        """
        sign = -1 if number < 0 else 1
        code = abs(int(number))
        if quantity == "V":
            code = VOLT_ALIASES.get(code, code)
        allowed = module.kind.volts if quantity == "V" else module.kind.amps
        if number != int(number) or code not in (0, *allowed) or (sign < 0 and not signed):
            raise FlexError(124)
        return sign * code

    def _zero(self, call: Call) -> None:
        for module in self._chosen(call):
            module.kept = module.kept or module.output
            module.output = Output()
            self._drive(module)
        self.pause(SETTLE_S)

    def _restore(self, call: Call) -> None:
        for module in self._chosen(call):
            if module.kept is not None:
                module.output, module.kept = module.kept, None
                self._drive(module)
            elif call.numbers:
                raise FlexError(205)
        self.pause(SETTLE_S)

    def _initialise(self, call: Call) -> None:
        for module in self._chosen(call):
            module.output, module.kept = Output(), None
            self._drive(module)
        self.pause(SETTLE_S)

    def _drive(self, module: Module, limit: float | None = None) -> None:
        """Put on the terminal what the module forces, in steps of its range / 20000."""
        terminal = self.place.terminal(str(module.slot))
        output = module.output
        if not module.on:
            terminal.drive(Drive())
            return
        step = module.full_scale(output.function) / 20000
        function: Literal["voltage", "current"] = "voltage" if output.function == "V" else "current"
        limit = abs(output.limit) if limit is None else limit
        terminal.drive(Drive(function, round(output.level / step) * step, limit))

    def _time_s(self) -> float:
        return self.place.bus.clock.now_s - self.zero_s

    def _reset_timer(self, call: Call) -> None:
        if call.numbers:
            self._on(call.numbers[0])
        self.zero_s = self.place.bus.clock.now_s

    def _tell_timer(self, _: Call) -> None:
        self.emit([Element(0, "T", self._time_s())])

    def _high_speed(self, call: Call) -> None:
        module = self._on(call.numbers[0])
        quantities = {"I": "I", "V": "V"}.get(call.header.lstrip("T"), "IV")
        codes = list(call.numbers[1:])
        if codes and len(codes) != len(quantities):
            raise FlexError(103)
        checked = [
            self._code(module, q, c, signed=True) for q, c in zip(quantities, codes, strict=False)
        ]
        # The compliance side comes first (4-209).
        if quantities == "IV" and module.output.function == "I":
            quantities, checked = "VI", checked[::-1]
        started_s = self._time_s()
        elements = [Element(module.slot, "T", started_s)] if call.header.startswith("TT") else []
        for at, quantity in enumerate(quantities):
            elements.append(self._read(module, quantity, checked[at] if checked else None))
        self.emit(elements)

    def _aperture_s(self, module: Module) -> float:
        mode, n = self.adc[module.adc]
        if mode == 2:
            return n / self.place.line_hz
        if mode == 3:
            return n
        return n * (SAMPLE_S if module.adc != 1 else 80e-6)

    def _read(
        self, module: Module, quantity: str, code: int | None, lasts_s: float | None = None
    ) -> Element:
        """Measure for one aperture, or for `lasts_s`. `code` None: the smallest range that covers
        the compliance, or the output's own range.
        """
        aperture_s = self._aperture_s(module) if lasts_s is None else lasts_s
        terminal = self.place.terminal(str(module.slot))
        self.pause(OVERHEAD_S + aperture_s if lasts_s is None else lasts_s)
        sensed = terminal.sense()
        value = sensed.volts if quantity == "V" else sensed.amps
        scale, is_over = self._scale(module, quantity, code, value)
        others = [
            self.place.terminal(str(m.slot)).sense()
            for m in self.modules.values()
            if m.on and m.slot != module.slot
        ]
        gain, offset = self._errors_of[module.slot, quantity]
        samples = max(1.0, aperture_s * self.place.line_hz * 128)
        value = value * (1 + gain) + scale * (offset + module.noise.gauss(0, 2e-5) / samples**0.5)
        step = scale / (1e6 if module.adc == 1 else 20000)
        return Element(
            module.slot,
            quantity,
            round(value / step) * step,
            over=is_over,
            limited=sensed.limited,
            other_limited=any(o.limited for o in others),
        )

    def _scale(
        self, module: Module, quantity: str, code: int | None, value: float
    ) -> tuple[float, bool]:
        """Full scale that a measurement of `value` uses, and whether it is too much for it."""
        table = VOLTS if quantity == "V" else AMPS
        scales = [table[c] for c in (module.kind.volts if quantity == "V" else module.kind.amps)]
        if quantity == module.output.function:
            return module.full_scale(quantity), False
        if code is None:
            limit = abs(module.output.limit)
            return next((s for s in scales if s >= limit * (1 - 1e-12)), scales[-1]), False
        if code < 0:
            return table[-code], abs(value) > table[-code]
        least = table.get(code, 0.0)
        fitting = [s for s in scales if s >= least and abs(value) <= 1.15 * s]
        return (fitting[0], False) if fitting else (scales[-1], True)

    def _setter(self, name: str) -> Handler:
        def handler(call: Call) -> None:
            setattr(self, name, call.integer(0, 0, 1))

        return handler

    def _of_module(self, name: str, most: int) -> Handler:
        def handler(call: Call) -> None:
            setattr(self._module(call.numbers[0]), name, call.integer(1, 0, most))

        return handler

    def _range(self, call: Call) -> None:
        module = self._module(call.numbers[0])
        quantity = call.header[1]
        setattr(
            module, call.header.lower(), self._code(module, quantity, call.numbers[1], signed=True)
        )

    def _ranging(self, call: Call) -> None:
        self._module(call.numbers[0]).ranging = (
            call.integer(1, 1, 3),
            call.integer(2, 11, 100, 50),
        )

    def _filter(self, call: Call) -> None:
        state = call.integer(0, 0, 1)
        for number in call.numbers[1:] or self.modules:
            self._module(number).is_filtered = state

    def _integration(self, call: Call) -> None:
        adc, mode = call.integer(0, 0, 2), call.integer(1, 0, 3)
        if mode == 3:
            if adc == 1:
                raise FlexError(120)
            n = round(call.number(2, 2e-6, 20e-3) / 2e-6) * 2e-6 if len(call.numbers) > 2 else 2e-6
        else:
            most = 100 if mode == 2 else 127 if adc == 1 else 1023
            default = (6 if mode == 0 else 3 if mode == 1 else 1) if adc == 1 else 1
            n = float(call.integer(2, 1, most, default))
        self.adc[adc] = (mode, n)

    def _averaging(self, call: Call) -> None:
        n = call.integer(0, -100, 1023)
        if n == 0:
            raise FlexError(120)
        self.adc[0] = (2, float(-n)) if n < 0 else (call.integer(1, 0, 1, 0), float(n))

    def _trigger(self, call: Call) -> None:
        self.trigger_mode = call.integer(0, 1, 4)

    def _wait_factor(self, call: Call) -> None:
        kind = call.integer(0, 1, 3)
        self.factors[kind] = (
            call.number(1, 0, 10),
            call.number(2, 0, 1) if len(call.numbers) > 2 else 0.0,
        )

    def _measurement_mode(self, call: Call) -> None:
        mode = int(call.numbers[0])
        if mode not in (1, 2, 3, 4, 10, 16, 27, 28):
            raise FlexError(120)
        if len(call.numbers) < 2 or (mode in (3, 4) and len(call.numbers) > 2):
            raise FlexError(122)
        self.measured = tuple(self._module(n).slot for n in call.numbers[1:])
        self.mode = mode

    def _sweep_waits(self, call: Call) -> None:
        hold, delay = call.number(0, 0, 655.35), call.number(1, 0, 65.535)
        rest = [
            call.number(at, 0, most)
            for at, most in ((2, 1.0), (3, delay), (4, 65.535))
            if at < len(call.numbers)
        ]
        self.waits = (hold, delay, *rest, *[0.0] * (3 - len(rest)))

    def _sweep_end(self, call: Call) -> None:
        self.abort_post = (call.integer(0, 1, 2), call.integer(1, 1, 2, 1))

    def _staircase(self, call: Call) -> None:
        module = self._on(call.numbers[0])
        function, mode = call.header[-1], call.integer(1, 1, 4)
        start, stop, steps = call.numbers[3], call.numbers[4], call.integer(5, 1, 10001)
        if mode in (2, 4) and not start * stop > 0:
            raise FlexError(120)
        largest = max(start, stop, key=abs)
        limit = call.numbers[6:7]
        output = self._output(module, function, (call.numbers[2], largest, *limit))
        power = call.number(7, 0.001, 20) if len(call.numbers) > 7 else 0.0
        self.sweep = Sweep(module.slot, function, mode, output.code, start, stop, steps, power)
        self.synchronous = None
        self.further = {}
        self._limits = {module.slot: output.limit}

    def _synchronous(self, call: Call) -> None:
        module = self._on(call.numbers[0])
        if (
            self.sweep is None
            or self.sweep.function != call.header[-1]
            or module.slot == self.sweep.channel
        ):
            raise FlexError(222)
        start, stop = call.numbers[2], call.numbers[3]
        output = self._output(
            module,
            call.header[-1],
            (call.numbers[1], max(start, stop, key=abs), *call.numbers[4:5]),
        )
        power = call.number(5, 0.001, 20) if len(call.numbers) > 5 else 0.0
        primary = self.sweep
        self.synchronous = Sweep(
            module.slot,
            primary.function,
            primary.mode,
            output.code,
            start,
            stop,
            primary.steps,
            power,
        )
        self._limits[module.slot] = output.limit

    def _set_port_mode(self, call: Call) -> None:
        self.port_mode = call.integer(0, 0, 63)

    def _set_selector(self, call: Call) -> None:
        if not self.port_mode & 1:
            raise FlexError(120)
        self.selected[call.integer(0, 0, 3)] = call.integer(1, 0, 3)
        self.pause(RELAY_S)

    def _further_sweep(self, call: Call) -> None:
        """`WNX`: a source that goes with the primary one, as the N-th."""
        number, module = call.integer(0, 2, 10), self._on(call.numbers[1])
        if self.sweep is None or module.slot == self.sweep.channel:
            raise FlexError(222)
        function = "V" if call.integer(2, 1, 2) == 1 else "I"
        start, stop = call.numbers[4:6]
        largest = (call.numbers[3], max(start, stop, key=abs), *call.numbers[6:7])
        output = self._output(module, function, largest)
        primary = self.sweep
        self.further = {n: s for n, s in self.further.items() if s.channel != module.slot}
        self.further[number] = Sweep(
            module.slot, function, primary.mode, output.code, start, stop, primary.steps
        )
        self._limits[module.slot] = output.limit

    def _set_pulse_times(self, call: Call) -> None:
        hold, width = call.number(0, 0, 655.35), call.number(1, 0.5e-3, 2.0)
        self.pulse_times = (hold, width, self._period(call, 2, width))

    @staticmethod
    def _period(call: Call, at: int, width: float) -> float:
        """A pulse period; 0 is the shortest for the width. Raises `FlexError` 120."""
        least = max(5e-3, width + (2e-3 if width <= 0.1 else 10e-3))
        asked = call.number(at, 0, 5.0) if len(call.numbers) > at else 0.0
        if 0 < asked < least * (1 - 1e-9):
            raise FlexError(120)
        return asked or least

    def _pulsed_of(
        self, slot: float, function: str, code: float, base: float, ends: tuple[float, ...]
    ) -> Pulsed:
        """A pulsed source of levels `ends`, whose third value is the limit. Raises `FlexError`."""
        module = self._on(slot)
        start, stop, *limit = ends
        largest = max(base, start, stop, key=abs)
        output = self._output(module, function, (code, largest, *limit))
        return Pulsed(module.slot, function, output.code, base, start, stop, output.limit)

    def _pulse_source(self, call: Call) -> None:
        slot, code, base, top, *limit = call.numbers
        self.pulsed = self._pulsed_of(slot, call.header[-1], code, base, (top, top, *limit))
        self.pulse_steps = (1, 1)

    def _pulsed_sweep(self, call: Call) -> None:
        slot, _, code, base, start, stop, _, *limit = call.numbers
        self.pulse_steps = call.integer(1, 1, 4), call.integer(6, 1, 10001)
        ends = (start, stop, *limit[:1])
        self.pulsed = self._pulsed_of(slot, call.header[-1], code, base, ends)

    def _set_joint_times(self, call: Call) -> None:
        period = call.number(1, -1, 5.0) if len(call.numbers) > 1 else 0.0
        self.joint_times = (call.number(0, 0, 655.35), max(period, 0.0))
        self.joint, self.joint_steps = {}, (1, 1)

    def _set_joint_width(self, call: Call) -> None:
        times = (call.number(1, 0, 2.0), call.number(2, 0.5e-3, 2.0))
        self.joint_widths[self._on(call.numbers[0]).slot] = times

    def _set_joint_steps(self, call: Call) -> None:
        self.joint_steps = (call.integer(0, 1, 4), call.integer(1, 1, 10001))

    def _joint_pulse(self, call: Call) -> None:
        """`MCPNX` and `MCPWNX`: the N-th source, of one level or two."""
        number, (slot, kind, code, base, *ends) = call.integer(0, 1, 10), call.numbers[1:]
        if call.header == "MCPNX":
            ends = [ends[0], *ends]
        function = {1.0: "V", 2.0: "I"}.get(kind)
        if function is None or int(slot) not in self.joint_widths:
            raise FlexError(120)
        self.joint[number] = self._pulsed_of(slot, function, code, base, tuple(ends[:3]))

    def _run_pulses(self) -> None:
        """One pulsed source of `MM` 3 and 4, or those of 27 and 28 together."""
        is_joint, is_sweep = self.mode in (27, 28), self.mode in (4, 28)
        if is_joint:
            sources = [self.joint[n] for n in sorted(self.joint)]
            mode, steps = self.joint_steps
            hold, period = self.joint_times
            width = max((self.joint_widths[s.channel][1] for s in sources), default=0.0)
            period = period or self._period(Call("MCPT", ()), 0, width)
        else:
            sources = [] if self.pulsed is None else [self.pulsed]
            mode, steps = self.pulse_steps
            hold, width, period = self.pulse_times
        if not sources:
            raise FlexError(222)
        steps = steps if is_sweep else 1
        levels = [
            Sweep(s.channel, s.function, mode, s.code, s.start, s.stop, steps).levels()
            for s in sources
        ]
        elements: list[Element] = []
        self.pause(hold)
        for k in range(len(levels[0])):
            tops = [there[k] for there in levels]
            data = self._pulse_once(sources, tops, width, period)
            elements += data
            if is_sweep and self.format[1]:
                last = "E" if k == len(levels[0]) - 1 else "W"
                elements.append(
                    Element(sources[0].channel, sources[0].function, tops[0], source=last)
                )
            if is_sweep and self.abort_post[0] == 2 and any(d.over or d.limited for d in data):
                dummies = [Element(d.channel, d.kind, 0.0, over=d.kind != "T") for d in data]
                elements += dummies * (len(levels[0]) - 1 - k)
                break
        self.emit(elements)

    def _pulse_once(
        self, sources: list[Pulsed], tops: list[float], width: float, period: float
    ) -> list[Element]:
        for source, top in zip(sources, tops, strict=True):
            self._pulse_to(source, top)
        mode, n = self.adc[2]
        aperture_s = n if mode == 3 else n * SAMPLE_S
        self.pause(max(width - aperture_s, 0.0))
        elements = []
        for at, slot in enumerate(self.measured):
            module = self.modules[slot]
            quantity = "I" if module.output.function == "V" else "V"
            code = module.ri if quantity == "I" else module.rv
            elements += [Element(slot, "T", self._time_s())] if self.stamps else []
            elements.append(
                self._read(module, quantity, code, 0.0 if at else min(aperture_s, width))
            )
        for source in sources:
            self._pulse_to(source, source.base)
        self.pause(max(period - width, 0.0))
        return elements

    def _pulse_to(self, source: Pulsed, level: float) -> None:
        module = self.modules[source.channel]
        module.output = Output(source.function, source.code, level, source.limit)
        self._drive(module)

    def _sampling(self, call: Call) -> None:
        base = call.number(3, 0, 655.35) if len(call.numbers) > 3 else 0.0
        self.sampling = (
            call.number(0, -0.09, 655.35),
            call.number(1, 1e-4, 65.535),
            call.integer(2, 1, 100001),
            base,
        )

    def _execute(self, _: Call) -> None:
        if not self.mode:
            raise FlexError(220)
        for slot in self.measured:
            self._on(slot)
        {
            1: self._spot,
            2: self._run_sweep,
            3: self._run_pulses,
            4: self._run_pulses,
            10: self._sample,
            16: self._run_sweep,
            27: self._run_pulses,
            28: self._run_pulses,
        }[self.mode]()

    def _measure_all(self) -> list[Element]:
        """One measurement of every channel of `MM`, as `CMM` says, with time stamps where they are
        on.
        """
        elements = []
        for slot in self.measured:
            module = self.modules[slot]
            force = module.output.function
            compliance = "I" if force == "V" else "V"
            for quantity in (compliance, "I", "V", force, compliance + force)[module.operation]:
                started_s = self._time_s()
                reading = self._read(module, quantity, module.ri if quantity == "I" else module.rv)
                elements += [Element(slot, "T", started_s)] if self.stamps else []
                elements.append(reading)
        return elements

    def _spot(self) -> None:
        self.emit(self._measure_all())

    def _sample(self) -> None:
        hold, interval, count, base = self.sampling
        self.pause(base + max(hold, 0.0))
        elements = []
        started_s = self.place.bus.clock.now_s
        for k in range(int(count)):
            self.pause(max(0.0, started_s + k * interval - self.place.bus.clock.now_s))
            elements += [Element(0, "X", float(k + 1))] if self.format[1] else []
            elements += self._measure_all()
        self.emit(elements)

    def _run_sweep(self) -> None:
        primary = self.sweep
        if primary is None:
            raise FlexError(222)
        others = [self.further[n] for n in sorted(self.further)]
        others = others if self.mode == 16 else [s for s in (self.synchronous,) if s is not None]
        sources = [primary, *others]
        levels = [s.levels() for s in sources]
        for source in sources:
            self._on(source.channel)
        elements: list[Element] = []
        is_aborted = False
        hold_s, delay_s, step_s, _, trigger_s = self.waits
        self.pause(hold_s)
        for k, _ in enumerate(levels[0]):
            last = k == len(levels[0]) - 1
            if not is_aborted:
                for source, there in zip(sources, levels, strict=True):
                    self._step(source, there[k])
                self.pause(SETTLE_S + delay_s + trigger_s)
                before_s = self.place.bus.clock.now_s
                data = self._measure_all()
                self.pause(max(0.0, step_s - (self.place.bus.clock.now_s - before_s)))
                is_aborted = self.abort_post[0] == 2 and any(
                    d.over or d.limited or d.other_limited for d in data
                )
                data_of_abort = [Element(d.channel, d.kind, 0.0, over=d.kind != "T") for d in data]
            else:
                data = data_of_abort
            elements += data
            told = range(min(self.format[1], len(sources)))
            # With several channels the format names the one source that is told.
            for at in told[-1:] if self.mode == 16 else told:
                source = sources[at]
                elements.append(
                    Element(
                        source.channel, source.function, levels[at][k], source="E" if last else "W"
                    )
                )
        for source, there in zip(sources, levels, strict=True):
            self._step(source, there[0] if is_aborted or self.abort_post[1] == 1 else there[-1])
        self.emit(elements)

    def _step(self, source: Sweep, level: float) -> None:
        module = self.modules[source.channel]
        limit = abs(self._limits[source.channel])
        code = max(
            (c for c in (source.code, self._covering(module, source)) if c),
            key=lambda c: _table(source.function)[c],
        )
        module.output = Output(source.function, code, level, self._limits[source.channel])
        power = source.power / abs(level) if source.power and level else limit
        self._drive(module, min(limit, power))

    def _covering(self, module: Module, source: Sweep) -> int:
        """The smallest range that covers both ends."""
        codes = module.kind.volts if source.function == "V" else module.kind.amps
        table = _table(source.function)
        return next(c for c in codes if table[c] >= max(abs(source.start), abs(source.stop)))

    def _learn(self, call: Call) -> str:
        topic = call.integer(0, 0, 110)
        if 1 <= topic <= 10:
            return self._learn_channel(self._module(topic))
        topics: dict[int, Callable[[], list[str]]] = {
            0: self._learn_switches,
            30: self._learn_filters,
            31: self._learn_modes,
            32: lambda: self._each("RI{0.slot},{0.ri}", "RV{0.slot},{0.rv}"),
            33: self._learn_sweep,
            46: lambda: self._each("CMM{0.slot},{0.operation}"),
            47: lambda: ["MSC1,1", "ML1", "MT" + ",".join(shown(v) for v in self.sampling)],
            53: lambda: self._each("SSR{0.slot},{0.has_resistor}"),
            54: lambda: self._each("RM{0.slot},{0.ranging[0]},{0.ranging[1]}"),
            55: lambda: self._each("AAD{0.slot},{0.adc}"),
            56: lambda: [
                *(f"AIT{k},{m},{shown(n)}" for k, (m, n) in self.adc.items()),
                f"AZ{self.autozero}",
            ],
            57: lambda: [
                f"WAT{k},{shown(n)},{shown(offset)}" for k, (n, offset) in self.factors.items()
            ],
            60: lambda: [f"TSC{self.stamps}"],
            110: lambda: [f"PAD{self.parallel}"],
        }
        if topic not in topics:
            raise FlexError(120)
        return ";".join(topics[topic]())

    def _each(self, *patterns: str) -> list[str]:
        return [pattern.format(module) for pattern in patterns for module in self.modules.values()]

    def _learn_switches(self) -> list[str]:
        on = [str(module.slot) for module in self.modules.values() if module.on]
        on += [str(number) for number, c in self.spgu.channels.items() if c.is_on]
        return [f"CN{','.join(on)}" if on else "CL"]

    def _learn_channel(self, module: Module) -> str:
        o = module.output
        if not module.on:
            return f"CL{module.slot}"
        return (
            f"D{o.function}{module.slot},{o.code},{shown(o.level)},{shown(o.limit)},"
            f"{o.polarity},{o.limit_code}"
        )

    def _learn_filters(self) -> list[str]:
        groups = [
            [m.slot for m in self.modules.values() if m.is_filtered == state] for state in (0, 1)
        ]
        if not all(groups):
            return [f"FL{0 if groups[0] else 1}"]
        return [f"FL{state},{','.join(map(str, slots))}" for state, slots in enumerate(groups)]

    def _learn_modes(self) -> list[str]:
        mode, n = self.adc[0]
        averaging = (
            f"AV{-int(n)},0" if mode == 2 else f"AV{max(1, int(n))},{mode if mode < 2 else 1}"
        )
        settings = [
            f"TM{self.trigger_mode}",
            averaging,
            f"CM{self.calibrates}",
            f"FMT{self.format[0]},{self.format[1]}",
        ]
        return (
            [*settings, f"MM{self.mode},{','.join(map(str, self.measured))}"]
            if self.mode
            else settings
        )

    def _learn_sweep(self) -> list[str]:
        settings = [
            f"WM{self.abort_post[0]},{self.abort_post[1]}",
            "WT" + ",".join(shown(w) for w in self.waits),
        ]
        if s := self.sweep:
            limits = [self._limits[s.channel], *([s.power] if s.power else [])]
            head = f"W{s.function}{s.channel},{s.mode},{s.code}"
            settings.append(
                ",".join([head, shown(s.start), shown(s.stop), str(s.steps), *map(shown, limits)])
            )
        if s := self.synchronous:
            ends = [s.start, s.stop, self._limits[s.channel], *([s.power] if s.power else [])]
            settings.append(",".join([f"WS{s.function}{s.channel},{s.code}", *map(shown, ends)]))
        return settings


def _table(quantity: str) -> dict[int, float]:
    return VOLTS if quantity == "V" else AMPS


def _nothing(_: object) -> None:
    """The value was checked; there is nothing to keep."""
