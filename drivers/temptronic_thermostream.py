"""Temptronic (inTEST Thermal) ThermoStream: TP04300 series and ATS systems, over GPIB or RS-232.

Checked against pages that were opened of the TP04300 Series Interface & Applications Manual: 4-6
(messages chained by ";", replies joined by ";", `SETP`, `TEMP?`), 4-16 (status byte, remote mode),
4-17 (`AUXC?` bits of version 3), 4-20 (`EROR?` bits, `FLOW`), 4-26 (`WNDW`), C-1 and C-2
(identification, about 100 ms a message). From PyMeasure 0.16, which follows the Interface &
Applications Manual of the ATS-515/615, 525/625 and 535/635, Rev. E: `SETN` 0 hot, 1 ambient, 2 cold
on the Operator screen and which temperatures each takes, set points of -99.9 to 225 degrees Celsius
in steps of 0.1, a reading above 400 is none, `CLER`, the other bits of `EROR?`. Unverified: how ATS
systems spell their model in `*IDN?`, bits of the event status register beyond those of IEEE 488.2,
whether `CLER` is on the TP04300.

The lab sets limits of the air, sensor, thermal constant and head; this driver gives the set point
and switches the air. `TEMP?` is the device's sensor in DUT mode, else the air.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from typing_extensions import override

from rram_hil.errors import ConfigError, InstrumentError
from rram_hil.hardware.instrument import ModelSheet
from rram_hil.hardware.thermostat import ZERO_CELSIUS_K, Thermostat

from .dialects.makers import TEMPTRONIC
from .dialects.status import EVENTS, STATUS, StatusInstrument
from .dialects.text import number_in

_TP = ModelSheet(
    (
        "chained messages, SETP, TEMP?, AUXC?, EROR?, FLOW, identification: TP04300 Series"
        " Interface & Applications Manual, 4-6, 4-16 to 4-26, C-1, C-2",
        "SETN, range of set points, invalid reading: source of PyMeasure 0.16",
    ),
    ("CLER",),
)
_ATS = ModelSheet(
    (
        "commands, range of set points, EROR?: source of PyMeasure 0.16 (after the ATS-515/615,"
        " 525/625, 535/635 manual, Rev. E)",
    ),
    (
        "spelling of the model in its identification",
        "everything of a model that the manual does not name",
    ),
)
SHEETS = dict.fromkeys(("TP04300A", "TP04310A"), _TP) | dict.fromkeys(
    ("ATS-525", "ATS-535", "ATS-545"), _ATS
)
LOWEST_C, HIGHEST_C = -99.9, 225.0
STEP_C = 0.1
NO_READING_C = 400.0
HOT, AMBIENT, COLD = 0, 1, 2
FROM_AMBIENT_C, FROM_HOT_C = 20.0, 30.0
FLOW_ON, IS_READY, IS_OPERATOR = 1 << 5, 1 << 6, 1 << 8
"""Bits of `AUXC?`."""
FAULTS = {
    1: "overheat",
    2: "air open loop",
    4: "set point out of range",
    8: "low flow",
    16: "low input air pressure",
    32: "no purge flow or air sensor open",
    64: "purge sensor open",
    128: "internal error",
    256: "DUT open loop",
    512: "flow sensor",
    1024: "purge heat failure or no line sense",
    2048: "NVRAM fault",
    4096: "BVRAM fault",
}
"""Bits of `EROR?`. Bit 14, no DUT sensor selected, is none of air control."""


class ThermoStream(StatusInstrument, Thermostat):
    """A ThermoStream on its Operator screen."""

    MAKER = "Temptronic"
    MAKERS = TEMPTRONIC
    MODELS = ("TP04300A", "TP04310A", "ATS-525", "ATS-535", "ATS-545")
    SHEETS: ClassVar[Mapping[str, ModelSheet]] = SHEETS
    NEAR = r"TP04\d{3}[A-Z]?|ATS-[5-7]\d\d"
    REGISTERS: ClassVar[dict[str, dict[int, str]]] = {"EROR?": FAULTS, STATUS: EVENTS}
    CLEAR = "CLER"

    @property
    @override
    def range_k(self) -> tuple[float, float]:
        """-99.9 to 225 degrees Celsius, in K."""
        return LOWEST_C + ZERO_CELSIUS_K, HIGHEST_C + ZERO_CELSIUS_K

    @override
    def arm(self) -> None:
        """Air off, read back. Raises `ConfigError` for a system that still starts or is not on its
        Operator screen.
        """
        self.errors()
        self.safe_off()
        state = self._state()
        if not state & IS_READY:
            raise ConfigError(f"{self.name}: it is still starting up; wait until it is ready")
        if not state & IS_OPERATOR:
            raise ConfigError(f"{self.name}: it cycles; go to the Operator screen on its panel")

    @override
    def hold(self, kelvin: float) -> None:
        """Set point first, and the air when that is in force."""
        self.check(kelvin)
        celsius = round(kelvin - ZERO_CELSIUS_K, 1)
        number = COLD if celsius <= FROM_AMBIENT_C else AMBIENT if celsius < FROM_HOT_C else HOT
        chosen, told = self.ask(
            f"SETN {number}", f"SETP {celsius:.1f}", "SETN?", "SETP?", answers=2
        )
        is_told = abs(number_in(told, self.name) - celsius) < STEP_C / 2
        if self.whole(chosen) != number or not is_told:
            raise InstrumentError(
                f"{self.name}: after {celsius:.1f} degrees Celsius were asked for, it tells set"
                f" point {chosen} at {told}",
                command="SETP",
            )
        (state,) = self.ask("FLOW 1", "AUXC?", answers=1)
        if not self.whole(state) & FLOW_ON:
            raise InstrumentError(f"{self.name}: its air does not go on", command="FLOW 1")

    @override
    def set_point_k(self) -> float:
        (told,) = self.ask("SETP?", answers=1)
        return number_in(told, self.name) + ZERO_CELSIUS_K

    @override
    def temperature_k(self) -> float:
        (told,) = self.ask("TEMP?", answers=1)
        celsius = number_in(told, self.name)
        if not celsius < NO_READING_C:
            raise InstrumentError(
                f"{self.name}: its sensor has no reading: {told}", command="TEMP?"
            )
        return celsius + ZERO_CELSIUS_K

    @override
    def switch_off(self) -> None:
        """The main air off; the head stays where it is."""
        self.ask("FLOW 0", answers=0)

    @override
    def is_off(self) -> bool:
        return not self._state() & FLOW_ON

    def _state(self) -> int:
        (told,) = self.ask("AUXC?", answers=1)
        return self.whole(told)
