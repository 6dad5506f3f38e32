"""Simulated Temptronic ThermoStream on its Operator screen.

Written from the pages of the TP04300 Series Interface & Applications Manual that the driver's
docstring names (4-6, 4-16, 4-17, 4-20, 4-26, C-1, C-2) and, for set points, what PyMeasure tells of
the ATS manual Rev. E. The air comes to its set point with one time constant. Unverified: what a set
point outside the limits does (bit 2 of `EROR?` here), that each set point keeps its own value.
"""

from __future__ import annotations

from typing_extensions import override

from .array.terminals import Place
from .scpi.instrument import Call, Handler, pair
from .thermal import Stage, ThermalInstrument

ZERO_K = 273.15
OUT_OF_RANGE = 1 << 2


class SimulatedThermoStream(ThermalInstrument):
    """A system behind a server; heats and cools."""

    MAKER = "Temptronic"
    MODELS = ("TP04300A", "TP04310A", "ATS-525", "ATS-535", "ATS-545")

    def __init__(self, model: str, place: Place) -> None:
        self.stage = Stage(place.bus.clock)
        self.chosen = 1
        self.set_points = [125.0, 25.0, -55.0]
        self.flow = False
        self.faults = 0
        self.is_cycling = False
        self.broken_sensor = False
        super().__init__(model, place)

    @override
    def identification(self) -> str:
        return f"TEMPTRONIC,{self.pretends or self.model},{self.place.serial},Ver 3.2.0"

    @override
    def reset(self) -> None:
        self.flow = False
        self._drive()

    @property
    @override
    def outputs_on(self) -> bool:
        return self.flow

    @override
    def fill_queue(self) -> None:
        """There is no queue: a fault and an error of the event status register."""
        self.faults |= 1 << 3
        self.esr |= 32 | 16

    @override
    def commands(self) -> dict[str, Handler]:
        return {
            **pair(":SETN", self._choose, lambda _: str(self.chosen)),
            **pair(":SETP", self._set_point, lambda _: f"{self.set_points[self.chosen]:g}"),
            ":FLOW": self._set_flow,
            ":TEMP?": self._temperature,
            ":AUXC?": self._state,
            ":EROR?": lambda _: str(self.faults),
            ":CLER": self._clear_faults,
        }

    def _choose(self, call: Call) -> None:
        self.chosen = int(call.number(0, 0, 2))
        self._drive()

    def _set_point(self, call: Call) -> None:
        celsius = call.number(0)
        if not -99.9 <= celsius <= 225.0:
            self.faults |= OUT_OF_RANGE
            return
        self.set_points[self.chosen] = round(celsius, 1)
        self._drive()

    def _set_flow(self, call: Call) -> None:
        self.flow = bool(call.number(0, 0, 1))
        self._drive()

    def _drive(self) -> None:
        self.stage.drive(self.set_points[self.chosen] + ZERO_K if self.flow else None)

    def _temperature(self, _: Call) -> str:
        return "999.9" if self.broken_sensor else f"{self.stage.kelvin - ZERO_K:.1f}"

    def _state(self, _: Call) -> str:
        return str(1 << 6 | (0 if self.is_cycling else 1 << 8) | (1 << 5 if self.flow else 0))

    def _clear_faults(self, _: Call) -> None:
        self.faults = 0
