"""What the bench asks of a thermostat: a chuck, a cryostat's stage or a stream of air whose
temperature is controlled.
"""

from __future__ import annotations

from abc import abstractmethod

from rram_hil.errors import ConfigError
from rram_hil.hardware.instrument import Instrument

ZERO_CELSIUS_K = 273.15


class Thermostat(Instrument):
    """One controlled temperature. `safe_off` leaves it without power (heater off, air off), which
    is verified; the temperature then goes where the surroundings take it.
    """

    @property
    @abstractmethod
    def range_k(self) -> tuple[float, float]:
        """Lowest and highest set point that the connected model takes (K)."""

    @abstractmethod
    def hold(self, kelvin: float) -> None:
        """Go to a temperature and stay there: set point and power on, both read back; returns at
        once.

        Raises `ConfigError` outside `range_k` (nothing is sent then), `InstrumentError` where it
        refuses.
        """

    @abstractmethod
    def set_point_k(self) -> float:
        """The set point in force (K), as the instrument says."""

    @abstractmethod
    def temperature_k(self) -> float:
        """The temperature now (K). Raises `InstrumentError` where the sensor has no valid
        reading.
        """

    def check(self, kelvin: float) -> None:
        """Refuse a set point outside `range_k`. Raises `ConfigError`."""
        low_k, high_k = self.range_k
        if not low_k <= kelvin <= high_k:
            raise ConfigError(
                f"{self.name}: {kelvin:g} K is no set point of it; it takes {low_k:g} to"
                f" {high_k:g} K"
            )
