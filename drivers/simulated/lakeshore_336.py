"""Simulated Lake Shore temperature controllers 325, 335, 336 and 350 with a heated stage.

Written from the pages of the makers' manuals that the driver's docstring names: 335 (6-108), 350
(154), 325 (6-23, 6-31), 331 (6-28 to 6-38). The stage is a block at room temperature that comes to
its set point with one time constant as long as the heater is on, and back without it; it cannot be
cooled. Unverified: the range of a set point, when a command is an execution error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from .array.terminals import Place
from .scpi.instrument import ILLEGAL, Call, Handler, pair
from .thermal import Stage, ThermalInstrument

INPUTS = "ABCD"
QUERY_ERROR, DEVICE_ERROR, EXECUTION_ERROR, COMMAND_ERROR = 4, 8, 16, 32


@dataclass
class Output:
    """One control output."""

    set_point_k: float = 0.0
    range: int = 0
    mode: int = 1
    input: int = 1


class SimulatedLakeShore336(ThermalInstrument):
    """A controller behind a server; output 1 heats the stage, every input measures it."""

    MAKER = "Lake Shore"
    MODELS = ("336", "335", "350", "325")
    OUTPUTS: ClassVar[dict[str, tuple[int, ...]]] = {
        "325": (2, 1),
        "335": (3, 3),
        "336": (3, 3, 1, 1),
        "350": (5, 5, 1, 1),
    }
    """Highest range of each output."""

    def __init__(self, model: str, place: Place) -> None:
        self.outputs = [Output() for _ in self.OUTPUTS[model]]
        self.stage = Stage(place.bus.clock)
        self.broken_sensor = False
        super().__init__(model, place)
        self.esr = 128

    @override
    def identification(self) -> str:
        model = self.pretends or f"MODEL{self.model}"
        serial = self.place.serial
        return f"LSCI,{model},{serial}{'' if self.model == '325' else '/' + serial},1.0"

    @override
    def reset(self) -> None:
        for output in self.outputs:
            output.range = 0
        self._drive()

    @property
    @override
    def outputs_on(self) -> bool:
        return any(output.range for output in self.outputs)

    @override
    def fill_queue(self) -> None:
        """There is no queue: every error bit of the event status register."""
        self.esr |= QUERY_ERROR | DEVICE_ERROR | EXECUTION_ERROR | COMMAND_ERROR

    @override
    def commands(self) -> dict[str, Handler]:
        own = {
            **pair(":SETP", self._set_point, lambda c: f"{self._output(c).set_point_k:+.4f}"),
            **pair(":RANGE", self._set_range, lambda c: str(self._output(c).range)),
            ":KRDG?": self._kelvin,
            ":RDGST?": self._status,
        }
        if self.model == "325":
            return own | {
                ":CMODE?": lambda c: str(self._output(c).mode),
                ":CSET?": lambda c: f"{INPUTS[self._output(c).input - 1]},1,0,1",
            }
        return own | {
            ":OUTMODE?": lambda c: f"{self._output(c).mode},{self._output(c).input},0",
            ":INTYPE?": self._input_type,
        }

    def _output(self, call: Call) -> Output:
        return self.outputs[int(call.number(0, 1, len(self.outputs))) - 1]

    def _set_point(self, call: Call) -> None:
        self._output(call).set_point_k = call.number(1, 0.0, 1505.0)
        self._drive()

    def _set_range(self, call: Call) -> None:
        output = self._output(call)
        most = self.OUTPUTS[self.model][self.outputs.index(output)]
        output.range = int(call.number(1, 0, most))
        self._drive()

    def _drive(self) -> None:
        first = self.outputs[0]
        self.stage.drive(max(first.set_point_k, self.stage.ROOM_K) if first.range else None)

    def _sensor(self, call: Call) -> None:
        if call.text() not in INPUTS[: 2 if self.model in ("325", "335") else 4]:
            raise ILLEGAL

    def _kelvin(self, call: Call) -> str:
        self._sensor(call)
        return "+000.000" if self.broken_sensor else f"{self.stage.kelvin:+.4f}"

    def _status(self, call: Call) -> str:
        self._sensor(call)
        return "128" if self.broken_sensor else "000"

    def _input_type(self, call: Call) -> str:
        self._sensor(call)
        return "1,0,0,0,1"
