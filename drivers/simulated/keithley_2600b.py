"""A simulated Keithley Series 2600B or 2600A source-meter: 2601B to 2636B, 2601A to 2636A, one or
two channels, TSP over a line of text.

Sources: specifications of the 2601B, 2602B, 2604B (SPEC-2602B Rev. B, pages 2, 5 and 11 at
easymanua.ls: ranges, resolution, smallest limits, buffers, no TSP-Link on the 2604B); reference
manual 2600BS-901-01 Rev. B page 4-13 (operating boundaries of the 2611B to 2636B: 200 V with 0.1 A,
20 V with 1.5 A) and page 7-226 (output-off limits), Rev. F page 2-44 (the 100 pA range only
measures and is not on the 2634B; readings overflow at 102 % of a range); the ranges and smallest
limits of the 2611B to 2636B as QCoDeS 0.58 has them, its misprint of the 10 mA range aside. The A
models: reference manual 2600AS-901-01 Rev. B, pages 3-5 (channels) and 6-3 (102 %, boundaries); the
identification as public programs for the 2636A have it. Unverified: the default limits, the
automatic delays (1 ms here), no digital lines on the 2614B and 2634B (the 2604B has none: data
sheet of the 2602B, page 12), that the A models have the ranges and smallest limits of the B models
of their number, their firmware's number. The interlock counts as closed. Not simulated: settling of
the source into the load (levels stand at once), and what `tsp.command_index` has and this does not,
which says so: calibration, files, LAN triggers, TSP-Net.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

from typing_extensions import override

from .tsp.command_index import SERIES_2600B, stand_in
from .tsp.factory_scripts import FACTORY
from .tsp.front_panel import FrontPanel
from .tsp.instrument import TspInstrument
from .tsp.lua_compiler import MOST_STEPS
from .tsp.lua_values import EndlessError, LuaError, LuaTable, Value, number
from .tsp.services import event_log, network, setups
from .tsp.smu import Abilities, Smu
from .tsp.status import BYTE, STANDARD, StatusModel
from .tsp.sweeper import Sweeper
from .tsp.triggers import TriggerObject

_MICRO_TO_AMPERE = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_LOW = Abilities(
    volts=(0.1, 1.0, 6.0, 40.0),
    amps=(*_MICRO_TO_AMPERE, 3.0),
    measured_amps=(*_MICRO_TO_AMPERE, 3.0),
    envelope=((40.0, 1.0), (6.0, 3.0)),
    smallest_limit_v=10e-3,
    smallest_limit_a=10e-9,
    default_limit_v=40.0,
    default_limit_a=1.0,
)
_HIGH = Abilities(
    volts=(0.2, 2.0, 20.0, 200.0),
    amps=(*_MICRO_TO_AMPERE, 1.5),
    measured_amps=(*_MICRO_TO_AMPERE, 1.5),
    envelope=((200.0, 0.1), (20.0, 1.5)),
    smallest_limit_v=20e-3,
    smallest_limit_a=10e-9,
    default_limit_v=20.0,
    default_limit_a=0.1,
)
_FINE_AMPS = (1e-9, 1e-8, *_MICRO_TO_AMPERE, 1.5)
_FINE = Abilities(
    volts=_HIGH.volts,
    amps=_FINE_AMPS,
    measured_amps=_FINE_AMPS,
    envelope=_HIGH.envelope,
    smallest_limit_v=20e-3,
    smallest_limit_a=100e-12,
    default_limit_v=20.0,
    default_limit_a=0.1,
    measure_delay=-1.0,
)
_FINEST = Abilities(
    volts=_HIGH.volts,
    amps=_FINE_AMPS,
    measured_amps=(1e-10, *_FINE_AMPS),
    envelope=_HIGH.envelope,
    smallest_limit_v=20e-3,
    smallest_limit_a=100e-12,
    default_limit_v=20.0,
    default_limit_a=0.1,
    measure_delay=-1.0,
)
_ABILITIES = {
    "2601B": _LOW,
    "2602B": _LOW,
    "2604B": _LOW,
    "2611B": _HIGH,
    "2612B": _HIGH,
    "2614B": _HIGH,
    "2634B": _FINE,
    "2635B": _FINEST,
    "2636B": _FINEST,
    "2601A": _LOW,
    "2602A": _LOW,
    "2611A": _HIGH,
    "2612A": _HIGH,
    "2635A": _FINEST,
    "2636A": _FINEST,
}
_SINGLE = frozenset({"2601B", "2611B", "2635B", "2601A", "2611A", "2635A"})
_WITHOUT_LINES = frozenset({"2604B", "2614B", "2634B"})
WITHOUT_LINES = (
    "digio.",
    "node[",
    "status.operation.instrument.digio.",
    "status.operation.instrument.tsplink.",
    "status.operation.trigger_overrun.DIG",
    "status.operation.trigger_overrun.TSPLINK",
    "tsplink.",
    *(f"smu{name}.contact." for name in "ab"),
)
"""What these models do not have (`contact`: reference manual Rev. F, page 9-214)."""


class Simulated2600B(TspInstrument):
    """A Series 2600B or 2600A with its terminals "a" and, on two-channel models, "b"."""

    MAKER: ClassVar[str] = "Keithley"
    MODELS: ClassVar[tuple[str, ...]] = tuple(_ABILITIES)

    @override
    def build(self) -> None:
        names = ("a",) if self.model in _SINGLE else ("a", "b")
        self.node_enable = 0
        self.smus = {name: Smu(self, name, _ABILITIES[self.model]) for name in names}
        self.sweepers = {name: Sweeper(smu) for name, smu in self.smus.items()}
        for name, smu in self.smus.items():
            smu.table.values["reset"] = self._channel_reset(name)
            self.globals.set(f"smu{name}", smu.table)
        if self.model in _WITHOUT_LINES:
            for name in ("tsplink", "node"):
                self.globals.set(name, None)
            for smu in self.smus.values():
                smu.table.values.pop("contact")
        else:
            self.triggers.add_digital_lines()
            self.triggers.add_link_lines()
        self.panel = FrontPanel(self, self.smus, self._is_sweeping)
        self.status = self._status()
        self.globals.set("display", self.panel.table)
        self.globals.set("beeper", self._beeper_table())
        self.globals.set("status", self._status_table())
        self.globals.set("setup", setups(self._reset_all, self._settings, self._restore))
        self.globals.set("eventlog", event_log())
        self.globals.set("lan", network())
        self.globals.set("gpib", LuaTable(attributes={"address": (lambda: 26.0, None)}))
        self.execute(FACTORY)
        without = WITHOUT_LINES if self.model in _WITHOUT_LINES else ()
        stand_in(self.globals, SERIES_2600B, self.smus, without)

    def _settings(self) -> dict[str, dict[str, Any]]:
        return {name: smu.settings() for name, smu in self.smus.items()}

    def _restore(self, settings: dict[str, dict[str, Any]]) -> None:
        for name, kept in settings.items():
            self.smus[name].restore(kept)

    def _is_sweeping(self) -> bool:
        return any(sweeper.is_running for sweeper in self.sweepers.values())

    @override
    def reset(self) -> None:
        self.triggers.reset()
        for name in self.smus:
            self._channel_reset(name)()

    @property
    @override
    def outputs_on(self) -> bool:
        return any(smu.output == 1 for smu in self.smus.values())

    @override
    def wait_complete(self) -> None:
        """Let time pass until no sweep is under way. Raises `LuaError` where one would wait for
        ever.
        """
        for _ in range(MOST_STEPS):
            if not self._is_sweeping() and not any(s.is_measuring for s in self.smus.values()):
                return
            if not self.events.run_next(float("inf")) and not self.panel.trigger.take():
                raise LuaError("a sweep waits for a trigger that never comes")
        raise EndlessError("a sweep does not end")

    def _channel_reset(self, name: str) -> Callable[[], None]:
        smu, sweeper = self.smus[name], self.sweepers[name]

        def run() -> None:
            sweeper.default()
            smu.default()

        return run

    def _beeper_table(self) -> LuaTable:
        def beep(seconds: Value, frequency: Value) -> None:
            number(frequency, 20.0, 8000.0)
            self.elapse(number(seconds, 0.001, 100.0))

        return LuaTable({"ON": 1.0, "OFF": 0.0, "enable": 1.0, "beep": beep})

    def _status(self) -> StatusModel:
        lines = {"digio": self.triggers.lines, "tsplink": self.triggers.links}
        objects: dict[str, Sequence[TriggerObject]] = {
            "trigger_blender": self.triggers.blenders,
            "trigger_timer": self.triggers.timers,
            **{name: made for name, made in lines.items() if made},
        }
        is_low = _ABILITIES[self.model].volts[-1] < 100.0
        return StatusModel(
            self.smus,
            {name: partial(_overruns, made) for name, made in objects.items()},
            {"OUTPUT_ENABLE": 11, "OE": 11} if is_low else {"INTERLOCK": 11, "INT": 11},
        )

    def _status_table(self) -> LuaTable:
        standard = LuaTable(
            {name: float(1 << bit) for name, bit in STANDARD.items()},
            {
                "event": (lambda: float(self._take_esr()), None),
                "condition": (lambda: float(self.esr), None),
                "enable": (lambda: float(self.ese), self._set_enable),
                "ptr": (lambda: 255.0, lambda _: None),
                "ntr": (lambda: 0.0, lambda _: None),
            },
        )
        registers = {name: each.table for name, each in self.status.registers.items()}
        return LuaTable(
            {
                **{name: float(1 << bit) for name, bit in BYTE.items()},
                **registers,
                "standard": standard,
                "reset": self._reset_status,
            },
            {
                "condition": (lambda: float(self.status_byte()), None),
                "request_enable": (lambda: float(self.sre), self._set_request),
                "request_event": (lambda: float(self.status_byte() & self.sre), None),
                "node_enable": (lambda: float(self.node_enable), self._set_node),
                "node_event": (lambda: float(self.status_byte() & self.node_enable), None),
            },
        )

    @override
    def look(self) -> None:
        self.status.look()

    @override
    def summary_bits(self) -> int:
        return self.status.byte()

    def _set_enable(self, value: Value) -> None:
        self.ese = int(number(value, 0, 255))

    def _set_request(self, value: Value) -> None:
        self.sre = int(number(value, 0, 255)) & ~64

    def _set_node(self, value: Value) -> None:
        self.node_enable = int(number(value, 0, 255))

    def _reset_status(self) -> None:
        self.esr = self.ese = self.sre = self.node_enable = 0
        self.status.default()

    @override
    def act_at_panel(self, answers: Sequence[object] = (), keys: Sequence[object] = ()) -> None:
        self.panel.act(answers, keys)


def _overruns(objects: Sequence[TriggerObject]) -> int:
    """Which of these were overrun, as bits from 1 on."""
    return sum(each.overrun << at for at, each in enumerate(objects, start=1))
