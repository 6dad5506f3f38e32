"""Lake Shore temperature controllers 325, 335, 336 and 350, over GPIB, USB (a serial line) or
Ethernet (336, 350).

Checked against pages that were opened of the Model 335 User's Manual (6-108: `*ESR?`, `*IDN?`), the
Model 350 User's Manual Rev. 1.4 (page 154: `RANGE` with 5 ranges on outputs 1 and 2, on or off on 3
and 4, without effect on an output in mode "off" and none in "monitor out"; `RDGST?` bits), the
Model 325 User's Manual (6-23 `*IDN?`, `*ESR?`; 6-31 `RAMP`), the Model 331 User's Manual (6-28 to
6-38: `CMODE`, `KRDG?`, `SETP` in the units of the loop) and the remote interface pages of the 346,
successor of the 336 (messages chained by ";" in one line). From public drivers of QCoDeS 0.58, read
for facts: `OUTMODE` and its modes, `CSET`, ranges of 325 and 336, a set point that is read back too
soon is the one before, USB at 57600 baud, 7 data bits, odd parity. Unverified: the units of a set
point on 335, 336 and 350 (last field of `INTYPE?`), that replies to chained queries are joined by
";" on 325 and 335, the bits of the event status register beyond those of IEEE 488.2, and the range
of set points, which the sensor's curve limits on the instrument.

Control mode, input, PID values, zones and heater settings are the lab's, made on the front panel;
`arm` refuses an output that is not in closed loop with the input in kelvin. Only the output of the
bench file is switched.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from typing_extensions import override

from rram_hil.errors import ConfigError, InstrumentError
from rram_hil.hardware.instrument import InstrumentConfig, ModelSheet
from rram_hil.hardware.thermostat import Thermostat

from .dialects.makers import LAKE_SHORE
from .dialects.status import StatusInstrument
from .dialects.text import number_in

_STATUS = "identification, event status: Model 335 User's Manual, 6-108"
_RANGES = "RANGE, RDGST?: Model 350 User's Manual Rev. 1.4, page 154"
_SET_POINT = "SETP, KRDG?, CMODE: Model 331 User's Manual, 6-28 to 6-38"
_OUTPUTS = "OUTMODE, modes, ranges: source of QCoDeS 0.58"
_UNITS = "units of a set point (last field of INTYPE?)"
_CHAINS = 'that replies to chained queries are joined by ";"'
_SPAN = "range of set points"
SHEETS = {
    "325": ModelSheet(
        (
            "identification, event status: Model 325 User's Manual, 6-23",
            _SET_POINT,
            "CSET, CMODE, ranges: source of QCoDeS 0.58",
        ),
        (_CHAINS, _SPAN),
    ),
    "335": ModelSheet((_STATUS, _SET_POINT, _OUTPUTS), (_UNITS, _CHAINS, _SPAN)),
    "336": ModelSheet(
        ("chained messages: remote interface of the 346, its successor", _SET_POINT, _OUTPUTS),
        (_UNITS, _SPAN),
    ),
    "350": ModelSheet((_RANGES, _SET_POINT), (_UNITS, _CHAINS, "OUTMODE of the 350", _SPAN)),
}
INPUTS = ("A", "B", "C", "D")
MAX_RANGE = {
    "325": (2, 1),
    "335": (3, 3),
    "336": (3, 3, 1, 1),
    "350": (5, 5, 1, 1),
}
"""Highest heater range of each output, by model; 1 is "on" where there is only that."""
INPUTS_OF = {"325": 2, "335": 2, "336": 4, "350": 4}
CLOSED_LOOP = {1: "closed loop", 2: "zone"}
CLOSED_LOOP_325 = {1: "manual PID", 2: "zone", 4: "auto PID", 5: "auto PI", 6: "auto P"}
KELVIN = 1
READING = {
    1: "invalid reading",
    16: "temperature under range",
    32: "temperature over range",
    64: "sensor units zero",
    128: "sensor units over range",
}
"""Bits of `RDGST?`."""
SAME_K = 1e-3
TRIES, BETWEEN_S = 10, 0.1
"""A set point is in force up to half a second after it was given."""


class LakeShoreConfig(InstrumentConfig):
    """Settings of a Lake Shore temperature controller."""

    output: Annotated[int, Field(ge=1, le=4)] = Field(default=1, description="control output")
    input: Literal["A", "B", "C", "D"] = Field(default="A", description="sensor at the chip")
    heater_range: Annotated[int, Field(ge=1, le=5)] = Field(
        default=1, description="heater range while a temperature is held: 1 is the lowest power"
    )


class LakeShore336(StatusInstrument, Thermostat):
    """A 325, 335, 336 or 350: one output in closed loop on one input."""

    MAKER = "Lake Shore"
    MAKERS = LAKE_SHORE
    MODELS = ("336", "335", "350", "325")
    SHEETS: ClassVar[Mapping[str, ModelSheet]] = SHEETS
    Config: ClassVar[type[InstrumentConfig]] = LakeShoreConfig

    @property
    def _settings(self) -> LakeShoreConfig:
        assert isinstance(self.config, LakeShoreConfig)
        return self.config

    @property
    @override
    def range_k(self) -> tuple[float, float]:
        """Above absolute zero, to 1505 K: what a curve may tell (K). The bench file has the limits
        that count.
        """
        return 0.1, 1505.0

    @override
    def look(self) -> None:
        """Refuse an output, input or range that the model has not."""
        model, own = self.model, self._settings
        ranges = MAX_RANGE[model]
        if own.output > len(ranges):
            raise ConfigError(f"{self.name}: output: a {model} has outputs 1 to {len(ranges)}")
        if own.heater_range > ranges[own.output - 1]:
            raise ConfigError(
                f"{self.name}: heater_range: output {own.output} of a {model} has ranges 1 to"
                f" {ranges[own.output - 1]}"
            )
        if own.input not in INPUTS[: INPUTS_OF[model]]:
            raise ConfigError(
                f"{self.name}: input: a {model} has {', '.join(INPUTS[: INPUTS_OF[model]])}"
            )

    @override
    def arm(self) -> None:
        """Heater off, read back. Raises `ConfigError` for an output that is not in closed loop on
        the input of the bench file in kelvin.
        """
        self.errors()
        self.safe_off()
        output, sensor = self._settings.output, self._settings.input
        if self.model == "325":
            mode, loop = self.ask(f"CMODE? {output}", f"CSET? {output}", answers=2)
            told, units = loop.split(",")[:2]
            is_closed = self.whole(mode) in CLOSED_LOOP_325
        else:
            loop, kind = self.ask(f"OUTMODE? {output}", f"INTYPE? {sensor}", answers=2)
            mode, number = loop.split(",")[:2]
            told = dict(enumerate(INPUTS, 1)).get(self.whole(number), "none")
            units = kind.split(",")[-1]
            is_closed = self.whole(mode) in CLOSED_LOOP
        if not is_closed or told.strip() != sensor:
            raise ConfigError(
                f"{self.name}: output {output} is in mode {mode} on input {told}; set it to closed"
                f" loop on input {sensor} on the front panel"
            )
        if self.whole(units) != KELVIN:
            raise ConfigError(f"{self.name}: set the units of input {sensor} to kelvin")

    @override
    def hold(self, kelvin: float) -> None:
        """Set point first, then the heater."""
        self.check(kelvin)
        output, wanted = self._settings.output, self._settings.heater_range
        self.ask(f"SETP {output},{kelvin:.4f}", answers=0)
        told = self.set_point_k()
        for _ in range(TRIES):
            if abs(told - kelvin) <= SAME_K:
                break
            time.sleep(BETWEEN_S)
            told = self.set_point_k()
        else:
            raise InstrumentError(
                f"{self.name}: its set point is {told:g} K, not the {kelvin:g} K that it was given",
                command=f"SETP {output}",
            )
        (level,) = self.ask(f"RANGE {output},{wanted}", f"RANGE? {output}", answers=1)
        if self.whole(level) != wanted:
            raise InstrumentError(
                f"{self.name}: its heater is in range {level}, not in {wanted}",
                command=f"RANGE {output}",
            )

    @override
    def set_point_k(self) -> float:
        (told,) = self.ask(f"SETP? {self._settings.output}", answers=1)
        return number_in(told, self.name)

    @override
    def temperature_k(self) -> float:
        sensor = self._settings.input
        kelvin, status = self.ask(f"KRDG? {sensor}", f"RDGST? {sensor}", answers=2)
        wrong = [text for bit, text in READING.items() if self.whole(status) & bit]
        if wrong:
            raise InstrumentError(
                f"{self.name}: input {sensor} has no reading: {', '.join(wrong)}",
                code=self.whole(status),
                command="KRDG?",
            )
        return number_in(kelvin, self.name)

    @override
    def switch_off(self) -> None:
        """The heater off, whatever the set point."""
        self.ask(f"RANGE {self._settings.output},0", answers=0)

    @override
    def is_off(self) -> bool:
        (level,) = self.ask(f"RANGE? {self._settings.output}", answers=1)
        return self.whole(level) == 0
