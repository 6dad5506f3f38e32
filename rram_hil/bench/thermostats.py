"""The thermostat of a bench file: made, connected, on a simulated bench simulated too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from rram_hil.bench.bench_file import BenchFile, ThermostatSection
from rram_hil.engine.climate import ThermostatClimate
from rram_hil.errors import ConfigError
from rram_hil.hardware.driver import Identity
from rram_hil.hardware.far_side import SimulatedFarSide
from rram_hil.hardware.instrument import checked_instrument, make_instrument
from rram_hil.hardware.thermostat import Thermostat
from rram_hil.plugins import load
from rram_hil.wire.link_keys import OF_THE_HARDWARE
from rram_hil.wire.recording import Playback, Traffic


class SimulatedThermostat(Protocol):
    """What the entry point of a thermostat's kind in `rram_hil.simulated_instruments` is."""

    MODELS: tuple[str, ...]

    def start_beside(
        self, model: str, now_s: Callable[[], float], pretends: str = ""
    ) -> SimulatedFarSide:
        """Start one that lives on the clock `now_s` of a bench (s). `pretends` is a model that it
        tells instead of its own.
        """


class BenchClimate(ThermostatClimate):
    """The thermostat of a bench, and the simulator that stands in for it, if one does."""

    def __init__(
        self,
        thermostat: Thermostat,
        lowest_k: float,
        highest_k: float,
        identity: Identity,
        far_side: SimulatedFarSide | None,
    ) -> None:
        super().__init__(thermostat, lowest_k, highest_k)
        self.identity = identity
        self._far_side = far_side

    @property
    def told(self) -> str:
        """Who holds the temperature, as in "Lake Shore 336, serial LSA1234"."""
        return f"{self.thermostat.MAKER} {self.identity.model}, serial {self.identity.serial}"

    def close(self) -> None:
        """Give the link back. Safe to call twice; switches nothing."""
        self.thermostat.close()
        if self._far_side is not None:
            self._far_side.stop()


def check_thermostat(file: BenchFile) -> None:
    """Refuse a `[thermostat]` that is wrong, before anything is connected. Raises `ConfigError`
    naming key, value and what is allowed.
    """
    if file.thermostat is None:
        return
    where = f"{file.path}: thermostat"
    family, config = checked_instrument(file.thermostat.settings, where)
    if not issubclass(family, Thermostat):
        raise ConfigError(f"{where}.kind: {file.thermostat.kind!r} is no thermostat")
    others = file.driver.settings.get("instruments", {})
    taken = {"driver": file.driver.settings.get("port", "")} | {
        f"driver.instruments.{name}": section.get("resource", "")
        for name, section in (others.items() if isinstance(others, dict) else ())
        if isinstance(section, dict)
    }
    for other, resource in taken.items():
        if config.resource and str(resource).casefold() == config.resource.casefold():
            raise ConfigError(f"{where}.resource: {config.resource!r} is that of {other}")


def start_thermostat(section: ThermostatSection, now_s: Callable[[], float]) -> SimulatedFarSide:
    """What stands for the thermostat of a simulated bench, on the bench clock `now_s` (s). Raises
    `ConfigError` where its kind has no simulator.
    """
    settings = section.settings
    group = "rram_hil.simulated_instruments"
    simulated = cast(SimulatedThermostat, load(group, section.kind, "simulated instrument"))
    instead = str(settings.get("treat_as") or simulated.MODELS[0])
    told = str(settings.get("model") or instead)
    # What is driven as another model behaves as that one here.
    model = told if told in simulated.MODELS else instead
    return simulated.start_beside(model, now_s, told if told != model else "")


def connect_climate(
    file: BenchFile, now_s: Callable[[], float], traffic: Traffic | None
) -> BenchClimate | None:
    """The thermostat of a bench file, connected and not touched; None where it has none. On a
    simulated bench a simulated one on the bench clock `now_s` (s). Raises as `Instrument.connect`.
    """
    section = file.thermostat
    if section is None:
        return None
    settings: Mapping[str, Any] = section.settings
    far_side = None
    if file.simulation is not None and not isinstance(traffic, Playback):
        far_side = start_thermostat(section, now_s)
        kept = {key: value for key, value in settings.items() if key not in OF_THE_HARDWARE}
        settings = kept | {"resource": far_side.instruments[0][2]}
    try:
        thermostat = make_instrument(settings, f"{file.path}: thermostat", traffic)
        assert isinstance(thermostat, Thermostat)
        identity = thermostat.connect()
    except BaseException:
        if far_side is not None:
            far_side.stop()
        raise
    return BenchClimate(thermostat, section.lowest_k, section.highest_k, identity, far_side)
