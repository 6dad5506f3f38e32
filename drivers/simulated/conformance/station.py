"""A simulated instrument on its port with the driver before it, and what the conformance checks do
with both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib.metadata import entry_points
from typing import Any

import numpy as np
from typing_extensions import override

from rram_hil.array import Status
from rram_hil.errors import BenchError, ConfigError
from rram_hil.hardware.instrument import (
    Crosspoint,
    Function,
    Instrument,
    PulseGenerator,
    PulseSetup,
    Readings,
    SourceMeter,
    SourceSetup,
    SwitchMatrix,
    instrument_class,
)
from rram_hil.hardware.oscilloscope import Oscilloscope, ScopeSetup, ScopeTrigger
from rram_hil.hardware.thermostat import Thermostat
from rram_hil.simulation.config import Timing
from rram_hil.wire.recording import Traffic

from ..array.terminals import Drive, Place, Resistor, Terminal
from ..server.control import Injected
from ..server.instrument import InstrumentServer, SimulatedInstrument

PATIENT_S = 5.0
"""Timeout where no fault is acted out; a busy computer must not look like a silent instrument."""


HASTY_S = 0.2
"""Timeout (at least 0.05) while a fault is acted out."""


LOAD_OHM = 1e4


VOLTS = 0.1


APERTURE_S = 1e-3


WARM_K = 323.15
"""A temperature that every thermostat holds."""


@dataclass(frozen=True)
class Family:
    """A driver class and the simulator class that faces it."""

    kind: str
    driver: type[Instrument]
    simulator: type[SimulatedInstrument]

    @classmethod
    def of(cls, kind: str) -> Family:
        """Both, by the entry points of that name. Raises `ConfigError` where one is missing or
        cannot be imported.
        """
        driver = instrument_class(kind)
        entries = {e.name: e for e in entry_points(group="rram_hil.simulated_instruments")}
        if kind not in entries:
            raise ConfigError(
                f"instrument kind {kind!r} has no simulator in the group"
                " rram_hil.simulated_instruments"
            )
        try:
            return cls(kind, driver, entries[kind].load())
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"simulator {kind!r}: {entries[kind].value} cannot be imported: {error}"
            ) from error


class Role(StrEnum):
    """What an instrument is to the checks."""

    SOURCE_METER = "source-meter"
    MATRIX = "matrix"
    GENERATOR = "generator"
    THERMOSTAT = "thermostat"
    SCOPE = "scope"
    OTHER = "other"


def role_of(driver: type[Instrument]) -> Role:
    """The role of a driver class, by the contract that it subclasses."""
    roles = (
        (SourceMeter, Role.SOURCE_METER),
        (SwitchMatrix, Role.MATRIX),
        (PulseGenerator, Role.GENERATOR),
        (Thermostat, Role.THERMOSTAT),
        (Oscilloscope, Role.SCOPE),
    )
    return next((role for base, role in roles if issubclass(driver, base)), Role.OTHER)


class Watched(Resistor):
    """A resistor that remembers what was driven into it last, and the largest level of all."""

    def __init__(self, ohm: float) -> None:
        super().__init__(ohm)
        self.driven = Drive()
        self.largest = 0.0

    @override
    def drive(self, drive: Drive) -> None:
        self.driven = drive
        self.largest = max(self.largest, abs(drive.level))
        super().drive(drive)


class WatchedLoads(Mapping[str, Terminal]):
    """A resistor of its own on every channel, whatever the channel's name."""

    def __init__(self, ohm: float) -> None:
        self._ohm = ohm
        self._made: dict[str, Watched] = {}

    @override
    def __getitem__(self, channel: str) -> Watched:
        return self._made.setdefault(channel, Watched(self._ohm))

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    @override
    def __len__(self) -> int:
        return len(self._made)


class Station:
    """One simulated instrument behind its port, and a driver for it, connected and armed on entry.

    `loads` are the resistors on its channels. `pretends` is a model that it tells instead of its
    own. `settings` are keys of the bench file. Leaving closes the driver and the port.
    """

    def __init__(self, family: Family, model: str, pretends: str = "", **settings: Any) -> None:
        self.family, self.model = family, model
        self.role = role_of(family.driver)
        self.loads = WatchedLoads(LOAD_OHM)
        self.simulator = family.simulator(model, Place(terminals=self.loads))
        self.simulator.pretends = pretends
        self.server = InstrumentServer(self.simulator, Timing())
        self.instrument: Any = self.driver(**settings)
        self._made: list[Instrument] = [self.instrument]

    def driver(self, traffic: Traffic | None = None, **settings: Any) -> Any:
        """A further driver of the same instrument, not connected."""
        config: dict[str, Any] = {
            "resource": self.server.resource,
            "timeout_s": PATIENT_S,
            "reconnect_s": 0.0,
            "kind": self.family.kind,
        } | settings
        made = self.family.driver(self.family.driver.Config(**config), traffic)
        self.__dict__.setdefault("_made", []).append(made)
        return made

    def __enter__(self) -> Station:
        try:
            self.instrument.connect()
            self.instrument.arm()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for made in self._made:
            made.close()
        self.server.stop()

    @property
    def channel(self) -> str:
        """The first channel."""
        return str(self.instrument.channels[0])

    def on(self) -> None:
        """Switch it on with known settings: a channel at `VOLTS`, a relay closed, a generator's
        output.
        """
        self.instrument.arm()
        for step in TO_SWITCH_ON[self.role]:
            step(self)
        say(self.outputs_on, "the driver switched on, the simulator's outputs are off")

    @property
    def outputs_on(self) -> bool:
        """Ground truth."""
        with self.simulator.place.bus.lock:
            return self.simulator.outputs_on

    def driven(self, channel: str) -> Drive:
        """Ground truth: what a channel forces."""
        with self.simulator.place.bus.lock:
            return self.loads[channel].driven

    def inject(self, *faults: Injected) -> None:
        """Let faults happen at the next messages."""
        for fault in faults:
            self.server.faults.add(fault)

    @contextlib.contextmanager
    def hasty(self, timeout_s: float = HASTY_S, slack: float = 0.0) -> Iterator[None]:
        """A short timeout meanwhile, longer by `slack` x the simulated work, which takes no time;
        faults that did not happen are forgotten afterwards.
        """
        dialog = self.instrument.dialog
        usual = dialog.slack
        dialog.timeout_s, dialog.slack = timeout_s, slack
        try:
            yield
        finally:
            dialog.timeout_s, dialog.slack = PATIENT_S, usual
            self.server.faults.clear()

    def make_safe(self) -> None:
        """`safe_off` must work now, and the simulator's outputs must be off."""
        self.instrument.safe_off()
        say(not self.outputs_on, "safe_off returned, but an output of the simulator is on")
        say(self.instrument.is_off(), "after safe_off is_off says that an output is on")

    def watch(self) -> list[str]:
        """From here on, every message that reaches the simulator."""
        lines: list[str] = []
        act = self.simulator.message

        def message(line: str) -> str | bytes:
            lines.append(line)
            return act(line)

        self.simulator.message = message  # type: ignore[method-assign]
        return lines


def say(is_so: object, otherwise: str) -> None:
    """Raise `AssertionError` with `otherwise` unless it is so."""
    if not is_so:
        raise AssertionError(otherwise)


def near(got: float, wanted: float, relative: float, absolute: float, what: str) -> None:
    """Raise `AssertionError` unless a number is what it should be, within a part of it and an
    absolute error together.
    """
    say(
        abs(got - wanted) <= relative * abs(wanted) + absolute,
        f"{what}: {got!r}, should be {wanted!r}",
    )


def raised(kind: type[BenchError], act: Callable[[], object], what: str) -> BenchError:
    """The error of that kind which `act` raises; anything else fails the check."""
    try:
        act()
    except kind as error:
        return error
    except BenchError as error:
        raise AssertionError(
            f"{what}: {type(error).__name__} ({error}) where a {kind.__name__} was due"
        ) from error
    raise AssertionError(f"{what}: no {kind.__name__} was raised")


def is_quiet(drive: Drive) -> bool:
    """Whether a terminal is off: open, or held at zero, as some instruments do with an output that
    is off.
    """
    return drive.function == "off" or drive.level == 0.0


def sends_nothing(station: Station, what: str, act: Callable[[], object]) -> BenchError:
    """The `ConfigError` that `act` raises; raise `AssertionError` unless it does so before it has
    sent a byte.
    """
    before = station.instrument.dialog.bytes_sent
    error = raised(ConfigError, act, what)
    say(
        station.instrument.dialog.bytes_sent == before,
        f"{what}: refused, but only after something had been sent",
    )
    return error


def source_setup(instrument: SourceMeter, channel: str) -> SourceSetup:
    """Settings that every source-meter takes: up to 1 V and 1 mA, fixed ranges, an aperture of 1 ms
    or near.
    """
    limits = instrument.limits(channel)
    aperture_s = min(max(APERTURE_S, limits.shortest_aperture_s), limits.longest_aperture_s)
    return SourceSetup(Function.VOLTAGE, 1e-3, 1.0, 1e-3, aperture_s)


def are_right(readings: Readings, volts: Any, what: str) -> None:
    """Whether readings are those of `volts` on the load, within 1 % and a microampere."""
    volts = np.atleast_1d(np.asarray(volts, dtype=np.float64))
    say(
        readings.volts.shape == volts.shape,
        f"{what}: {readings.volts.shape} readings, should be {volts.shape}",
    )
    for name in ("amps", "status", "time_s"):
        shape = getattr(readings, name).shape
        say(shape == volts.shape, f"{what}: {name} has the shape {shape}, should be {volts.shape}")
    say(
        (readings.status == Status.OK).all(),
        f"{what}: status {readings.status} of readings within range",
    )
    say(
        np.allclose(readings.volts, volts, rtol=0.01, atol=2e-3),
        f"{what}: {readings.volts} V, should be {volts}",
    )
    amps = volts / LOAD_OHM
    say(
        np.allclose(readings.amps, amps, rtol=0.01, atol=2e-6),
        f"{what}: {readings.amps} A, should be {amps}",
    )


def corners(matrix: SwitchMatrix) -> list[Crosspoint]:
    """Crosspoints that the cards really have, of the first and the last row and column among
    them.
    """
    cards = getattr(matrix, "cards", ())
    columns = max((c.slot * getattr(matrix, "COLUMNS", 0) for c in cards), default=matrix.columns)
    first, last = matrix.rows[0], matrix.rows[-1]
    return [(first, 1), (last, columns), (first, columns), (last, 1)]


def pulse_setup(generator: PulseGenerator, channel: str) -> PulseSetup:
    """Pulses that every generator makes: 0 to 0.5 V, about a microsecond."""
    limits = generator.limits(channel)
    width_s = max(1e-6, 2 * limits.shortest_s)
    return PulseSetup(
        0.5,
        0.0,
        width_s,
        max(10 * width_s, limits.shortest_period_s),
        max(1e-8, limits.shortest_edge_s),
    )


def _switch_first(station: Station) -> None:
    station.instrument.switch(close=[corners(station.instrument)[0]])


def _measure(station: Station) -> None:
    are_right(station.instrument.measure(station.channel), VOLTS, "measure")


def _sweep(station: Station) -> None:
    readings = station.instrument.sweep(station.channel, 0.0, VOLTS, 5)
    are_right(readings, np.linspace(0.0, VOLTS, 5), "sweep")


def _settings(station: Station) -> None:
    held = station.instrument.settings(station.channel)
    near(held.compliance, 1e-3, 1e-4, 0.0, "compliance read back")


def _closed(station: Station) -> None:
    now = station.instrument.closed()
    say(now == {corners(station.instrument)[0]}, f"closed relays: {sorted(now)}")


def _configure_pulse(station: Station) -> None:
    station.instrument.configure(station.channel, pulse_setup(station.instrument, station.channel))


def _pulse_settings(station: Station) -> None:
    near(
        station.instrument.settings(station.channel).high_v, 0.5, 1e-3, 0.0, "high level read back"
    )


def _configure_source(station: Station) -> None:
    station.instrument.configure(station.channel, source_setup(station.instrument, station.channel))


def _output_on(station: Station) -> None:
    station.instrument.output(station.channel, True)


def _source_volts(station: Station) -> None:
    station.instrument.source(station.channel, VOLTS)


def _hold(station: Station) -> None:
    station.instrument.hold(WARM_K)


def _set_point(station: Station) -> None:
    near(station.instrument.set_point_k(), WARM_K, 0.0, 0.1, "set point read back (K)")


def _temperature(station: Station) -> None:
    kelvin = station.instrument.temperature_k()
    say(250.0 < kelvin < 350.0, f"a temperature of {kelvin} K")


SCREEN = ScopeSetup(range_v=4.0, offset_v=0.5)
"""Settings that every scope takes."""


def _configure_scope(station: Station) -> None:
    station.instrument.configure(station.channel, SCREEN)


def _await_trigger(station: Station) -> None:
    station.instrument.await_trigger(ScopeTrigger(station.channel, 0.25, True, 1e-6, 0.0))


def _screen(station: Station) -> None:
    near(station.instrument.settings(station.channel).range_v, 4.0, 1e-3, 0.0, "screen read back")


Act = Callable[[Station], None]
"""Something done on a station; raises `AssertionError` for a wrong value."""


TO_SWITCH_ON: dict[Role, tuple[Act, ...]] = {
    Role.SOURCE_METER: (_configure_source, _source_volts, _output_on),
    Role.MATRIX: (_switch_first,),
    Role.GENERATOR: (_configure_pulse, _output_on),
    Role.THERMOSTAT: (_hold,),
    Role.SCOPE: (_configure_scope, _await_trigger),
    Role.OTHER: (),
}


STEPS: dict[Role, dict[str, Act]] = {
    Role.SOURCE_METER: {
        "arm": lambda s: s.instrument.arm(),
        "configure": _configure_source,
        "source": _source_volts,
        "output on": _output_on,
        "measure": _measure,
        "sweep": _sweep,
        "settings": _settings,
        "safe_off": lambda s: s.instrument.safe_off(),
    },
    Role.MATRIX: {
        "arm": lambda s: s.instrument.arm(),
        "switch": _switch_first,
        "closed": _closed,
        "open_all": lambda s: s.instrument.open_all(),
        "safe_off": lambda s: s.instrument.safe_off(),
    },
    Role.GENERATOR: {
        "arm": lambda s: s.instrument.arm(),
        "configure": _configure_pulse,
        "output on": _output_on,
        "fire": lambda s: s.instrument.fire(s.channel, 10),
        "settings": _pulse_settings,
        "safe_off": lambda s: s.instrument.safe_off(),
    },
    Role.THERMOSTAT: {
        "arm": lambda s: s.instrument.arm(),
        "hold": _hold,
        "settings": _set_point,
        "temperature": _temperature,
        "safe_off": lambda s: s.instrument.safe_off(),
    },
    Role.SCOPE: {
        "arm": lambda s: s.instrument.arm(),
        "configure": _configure_scope,
        "await": _await_trigger,
        "settings": _screen,
        "safe_off": lambda s: s.instrument.safe_off(),
    },
    Role.OTHER: {
        "arm": lambda s: s.instrument.arm(),
        "safe_off": lambda s: s.instrument.safe_off(),
    },
}
"""What a fault is acted out in, by base class. Each step raises `AssertionError` for a wrong
value.
"""


def prepare(station: Station, step: str) -> None:
    """On, or for a step that switches something on, as far as before that."""
    if step in ("output on", "switch", "configure", "hold", "await"):
        station.instrument.arm()
        if step == "output on":
            for act in TO_SWITCH_ON[station.role][:-1]:
                act(station)
    else:
        station.on()


def pairs(station: Station) -> list[tuple[Callable[[int], None], Callable[[], object]]]:
    """Something to change to state 0 or 1, and a question whose answer is that state, on an
    instrument that is on.
    """
    station.on()
    instrument = station.instrument
    if isinstance(instrument, SourceMeter):
        channel = station.channel
        levels = (VOLTS / 2, VOLTS)

        def measured() -> object:
            volts = instrument.measure(channel).volts[0]
            return next((k for k, v in enumerate(levels) if abs(volts - v) < VOLTS / 10), volts)

        return [(lambda k: instrument.source(channel, levels[k]), measured)]
    if isinstance(instrument, SwitchMatrix):
        points = corners(instrument)[:2]

        def change(k: int) -> None:
            instrument.switch(close=[points[k]], open=[points[1 - k]])

        def closed() -> object:
            now = instrument.closed()
            return next((k for k, point in enumerate(points) if now == {point}), now)

        return [(change, closed)]
    if isinstance(instrument, Thermostat):
        kelvins = (WARM_K, WARM_K + 10.0)

        def set_point() -> object:
            kelvin = instrument.set_point_k()
            return next((k for k, v in enumerate(kelvins) if abs(kelvin - v) < 0.1), kelvin)

        return [(lambda k: instrument.hold(kelvins[k]), set_point)]
    if isinstance(instrument, Oscilloscope):
        screens = tuple(replace(SCREEN, range_v=v) for v in (2.0, 4.0))

        def screen() -> object:
            volts = instrument.settings(station.channel).range_v
            return next((k for k, s in enumerate(screens) if abs(volts - s.range_v) < 0.01), volts)

        return [(lambda k: instrument.configure(station.channel, screens[k]), screen)]
    assert isinstance(instrument, PulseGenerator)
    channel = station.channel
    setups = tuple(replace(pulse_setup(instrument, channel), high_v=v) for v in (0.25, 0.5))

    def told() -> object:
        volts = instrument.settings(channel).high_v
        return next((k for k, s in enumerate(setups) if abs(volts - s.high_v) < 0.01), volts)

    return [(lambda k: instrument.configure(channel, setups[k]), told)]
