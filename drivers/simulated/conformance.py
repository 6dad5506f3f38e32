"""Does a driver keep the contract of `rram_hil.instrument`? Its class against its simulator, both found by their entry points.

Any package that adds an instrument runs these checks in its own tests (docs/adding-a-driver.md):

    @pytest.mark.parametrize("check", checks_of("acme-100"), ids=str)
    def test_conforms(check):
        check()

A check connects the driver to the simulator over TCP on 127.0.0.1, compares what the driver says with what the simulator really
did (its terminals, its outputs), and raises `AssertionError` with what is wrong. Times are the computer's, in s, and short.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from rram_hil.device.config import Timing
from rram_hil.driver import Identity
from rram_hil.errors import BenchError, ConfigError, InstrumentError, LinkError
from rram_hil.instrument import (
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
from rram_hil.operations import Status
from rram_hil.traffic import Playback, Recorder, Traffic

from ._instrument import InstrumentServer, SimulatedInstrument
from ._world import Drive, Place, Resistor, Terminal
from .control import Injected, LinkFault

PATIENT_S = 2.0
"""Timeout where no fault is acted out; a busy computer must not look like a silent instrument."""
HASTY_S = 0.06
"""Timeout (at least 0.05) while a fault is acted out."""
LOAD_OHM = 1e4
VOLTS = 0.1
APERTURE_S = 1e-3
QUERIES = 200
"""How often each of two threads asks in the check of the lock."""

FAULTS: Mapping[str, tuple[Injected, ...]] = {
    "latency": (Injected(LinkFault.DELAY_REPLY, seconds=0.03),),
    "reply later than the timeout": (Injected(LinkFault.DELAY_REPLY, seconds=0.2),),
    "lost request": (Injected(LinkFault.DROP_REQUEST),),
    "lost reply": (Injected(LinkFault.DROP_REPLY),),
    "half reply": (Injected(LinkFault.HALF_REPLY),),
    "garbage": (Injected(LinkFault.GARBAGE),),
    "disconnect before": (Injected(LinkFault.DISCONNECT_REQUEST),),
    "disconnect after": (Injected(LinkFault.DISCONNECT_REPLY),),
    "stuck busy": (Injected(LinkFault.STUCK),),
    "wrong model": (Injected(LinkFault.WRONG_MODEL),) * 8,
    "queue full": (Injected(LinkFault.QUEUE_FULL),),
    "line overrun": (Injected(LinkFault.LINE_OVERRUN),),
}
"""What goes wrong once on the link or in the instrument; "latency" alone must pass unnoticed."""
SILENT = frozenset(FAULTS) - {"latency", "garbage", "wrong model", "queue full"}
"""Those that end in a timeout."""


@dataclass(frozen=True)
class Family:
    """A driver class and the simulator class that faces it."""

    kind: str
    driver: type[Instrument]
    simulator: type[SimulatedInstrument]

    @classmethod
    def of(cls, kind: str) -> Family:
        """Both, by the entry points of that name. Raises `ConfigError` where one is missing or cannot be imported."""
        driver = instrument_class(kind)
        found = {e.name: e for e in entry_points(group="rram_hil.simulated_instruments")}
        if kind not in found:
            raise ConfigError(f"instrument kind {kind!r} has no simulator in the group rram_hil.simulated_instruments")
        try:
            return cls(kind, driver, found[kind].load())
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"simulator {kind!r}: {found[kind].value} cannot be imported: {error}") from error


@dataclass(frozen=True)
class Check:
    """One rule for one model; call it. `str` names it."""

    kind: str
    model: str
    title: str
    run: Callable[[], None] = field(repr=False)

    def __call__(self) -> None:
        """Raises `AssertionError` with what is wrong."""
        self.run()

    def __str__(self) -> str:
        return f"{self.kind} {self.model}: {self.title}"


def kinds() -> list[str]:
    """Names of all instrument families that are installed, sorted."""
    return sorted({e.name for e in entry_points(group="rram_hil.instruments")})


def checks_of(family: str | Family) -> list[Check]:
    """Every check of a family. What concerns the link (fault modes too) and the source's form is asked of the first model."""
    family = Family.of(family) if isinstance(family, str) else family
    first = family.driver.MODELS[0] if family.driver.MODELS else "no model"
    checks = [
        Check(family.kind, model, title, _on_station(family, model, rule))
        for model in family.driver.MODELS
        for title, rule in _rules(family.driver)
        if model == first or rule not in OF_THE_LINK
    ]
    checks += [
        Check(family.kind, first, f"fault {name!r} in {step!r}", _in_fault(family, first, name, step))
        for name in FAULTS
        for step in ("connect", *_STEPS[_base_of(family.driver)])
    ]
    checks += [
        Check(family.kind, first, title, lambda rule=rule: rule(family))  # type: ignore[misc]
        for title, rule in (("says who it drives", _says_who), ("docstrings have the form", _docstrings))
    ]
    return checks


class Watched(Resistor):
    """A resistor that remembers what was driven into it last."""

    def __init__(self, ohm: float) -> None:
        super().__init__(ohm)
        self.driven = Drive()

    def drive(self, drive: Drive) -> None:
        """See `Terminal`."""
        self.driven = drive
        super().drive(drive)


class WatchedLoads(Mapping[str, Terminal]):
    """A resistor of its own on every channel, whatever the channel's name."""

    def __init__(self, ohm: float) -> None:
        self._ohm = ohm
        self._made: dict[str, Watched] = {}

    def __getitem__(self, channel: str) -> Watched:
        return self._made.setdefault(channel, Watched(self._ohm))

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


class Station:
    """One simulated instrument behind its port, and a driver for it, connected and armed on entry.

    `loads` are the resistors on its channels. Leaving closes the driver and the port.
    """

    def __init__(self, family: Family, model: str) -> None:
        self.family, self.model = family, model
        self.loads = WatchedLoads(LOAD_OHM)
        self.simulator = family.simulator(model, Place(terminals=self.loads))
        self.server = InstrumentServer(self.simulator, Timing())
        self.instrument: Any = self.driver()
        self._made: list[Instrument] = [self.instrument]

    def driver(self, traffic: Traffic | None = None, **settings: Any) -> Any:
        """A further driver of the same instrument, not connected."""
        config = {"resource": self.server.resource, "timeout_s": PATIENT_S, "kind": self.family.kind} | settings
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
        """Switch it on with known settings: a channel at `VOLTS`, a relay closed, a generator's output."""
        self.instrument.arm()
        for step in _ON[_base_of(self.family.driver)]:
            step(self)
        _say(self.outputs_on, "the driver switched on, the simulator's outputs are off")

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
        """A short timeout meanwhile, longer by `slack` x the simulated work, which takes no time; faults that did not happen
        are forgotten afterwards."""
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
        _say(not self.outputs_on, "safe_off returned, but an output of the simulator is on")
        _say(self.instrument.is_off(), "after safe_off is_off says that an output is on")

    def watch(self) -> list[str]:
        """From here on, every message that reaches the simulator."""
        lines: list[str] = []
        act = self.simulator.message

        def message(line: str) -> str | bytes:
            lines.append(line)
            return act(line)

        self.simulator.message = message  # type: ignore[method-assign]
        return lines


def _say(is_so: object, otherwise: str) -> None:
    if not is_so:
        raise AssertionError(otherwise)


def _near(got: float, wanted: float, relative: float, absolute: float, what: str) -> None:
    _say(abs(got - wanted) <= relative * abs(wanted) + absolute, f"{what}: {got!r}, should be {wanted!r}")


def _raised(kind: type[BenchError], act: Callable[[], object], what: str) -> BenchError:
    """The error of that kind which `act` raises; anything else fails the check."""
    try:
        act()
    except kind as error:
        return error
    except BenchError as error:
        raise AssertionError(f"{what}: {type(error).__name__} ({error}) where a {kind.__name__} was due") from error
    raise AssertionError(f"{what}: no {kind.__name__} was raised")


def _is_quiet(drive: Drive) -> bool:
    """Whether a terminal is off: open, or held at zero, as some instruments do with an output that is off."""
    return drive.function == "off" or drive.level == 0.0


def _base_of(driver: type[Instrument]) -> type[Instrument]:
    return next((base for base in (SourceMeter, SwitchMatrix, PulseGenerator) if issubclass(driver, base)), Instrument)


def _on_station(family: Family, model: str, rule: Callable[[Station], None]) -> Callable[[], None]:
    def run() -> None:
        with Station(family, model) as station:
            rule(station)

    return run


# What every instrument keeps.


def _identity(station: Station) -> None:
    identity = station.instrument.connect()
    _say(isinstance(identity, Identity), f"connect returned {identity!r}")
    _say(identity.model == station.model, f"model {identity.model!r} was told, it is {station.model!r}")
    _say(identity.serial, "no serial number was told")
    station.make_safe()


def _connect_touches_nothing(station: Station) -> None:
    station.on()
    before = _state(station)
    station.instrument.close()
    other = station.driver()
    other.connect()
    _say(station.outputs_on, "connect switched an output off")
    station.instrument = other
    _say(not other.is_off(), "is_off says off while an output is on")
    _say(_state(station) == before, "connect changed what is driven or closed")
    station.make_safe()


def _state(station: Station) -> object:
    """What can be seen of an instrument from outside."""
    instrument = station.instrument
    if isinstance(instrument, SourceMeter):
        return [(c, station.driven(c)) for c in instrument.channels]
    if isinstance(instrument, SwitchMatrix):
        return instrument.closed()
    return [instrument.settings(c) for c in instrument.channels]


def _wrong_model(station: Station) -> None:
    station.on()
    other = next((m for m in station.family.driver.MODELS if m != station.model), "NO SUCH MODEL")
    for what, settings, faults in (
        ("another model's name in *IDN?", {}, FAULTS["wrong model"]),
        ("another model in the bench file", {"model": other}, ()),
    ):
        driver = station.driver(**settings)
        station.inject(*faults)
        error = _raised(ConfigError, driver.connect, what)
        station.server.faults.clear()
        _say(station.server.resource in str(error), f"{what}: the message does not name the resource: {error}")
        _say(not driver.dialog.link.is_open, f"{what}: the link is still open after the refusal")
        _say(station.outputs_on, f"{what}: an output was touched")
    driver = station.driver(model=station.model)
    driver.connect()
    station.make_safe()


def _errors_are_raised(station: Station) -> None:
    instrument = station.instrument
    with station.simulator.place.bus.lock:
        station.simulator.fill_queue()
    found = instrument.errors()
    _say(len(found) > 1, f"errors() found {len(found)} entries of a full queue")
    for error in found:
        _say(isinstance(error, InstrumentError) and error.code != 0, f"{error!r} is no error with a code")
    _say(instrument.errors() == [], "errors() did not empty the queue")
    for name, step in _STEPS[_base_of(station.family.driver)].items():
        if name in ("arm", "safe_off"):  # they empty the queue
            continue
        _prepare(station, name)
        station.inject(Injected(LinkFault.QUEUE_FULL))
        if name in ("settings", "closed"):  # they change nothing, and may leave the queue to others
            with contextlib.suppress(InstrumentError):
                step(station)
                _say(instrument.errors(), f"{name}: it took errors from the queue without raising them")
            continue
        error = _raised(InstrumentError, lambda step=step: step(station), f"{name} with errors in the queue")  # type: ignore[misc]
        assert isinstance(error, InstrumentError)
        _say(error.code != 0 and str(error.code) in str(error), f"{name}: the error has no code: {error}")
        _say(error.command, f"{name}: the error does not name its command: {error}")
        _say(
            re.search(r"[A-Za-z]{4}", str(error).replace(error.command, "")), f"{name}: the error has no text: {error}"
        )
        _say(instrument.errors() == [], f"{name}: errors are left in the queue after one was raised")
    with station.simulator.place.bus.lock:
        station.simulator.fill_queue()
    instrument.arm()
    _say(instrument.errors() == [], "arm left errors in the queue")
    station.make_safe()


def _safe_off(station: Station) -> None:
    station.on()
    connections = station.server.connections
    station.make_safe()
    _say(station.server.connections == connections, "safe_off opened another connection to verify")
    for channel in getattr(station.instrument, "channels", ()):
        if isinstance(station.instrument, SourceMeter):
            drive = station.driven(channel)
            _say(_is_quiet(drive), f"channel {channel} still drives {drive} after safe_off")
    station.make_safe()


def _safe_off_after_an_exception(station: Station) -> None:
    dialog = station.instrument.dialog
    for name, step in _STEPS[_base_of(station.family.driver)].items():
        _prepare(station, name)
        receive = dialog.link.receive

        def interrupted(*_: object, **__: object) -> NoReturn:
            raise KeyboardInterrupt

        dialog.link.receive = interrupted
        try:
            step(station)
        except KeyboardInterrupt:
            pass
        else:
            raise AssertionError(f"{name}: Ctrl-C was swallowed")
        finally:
            dialog.link.receive = receive
        station.make_safe()


def _safe_off_is_verified(station: Station) -> None:
    """Outputs that come back on after each message: with a separate question the driver must notice."""
    lines = station.watch()
    station.on()
    switching = lines.copy()
    act = station.simulator.message

    def stubborn(line: str) -> str | bytes:
        reply = act(line)
        for again in switching:
            act(again)
        return reply

    lines.clear()
    station.simulator.message = stubborn  # type: ignore[method-assign]
    turns = station.server.transactions
    try:
        station.instrument.safe_off()
    except BenchError:
        pass
    else:
        turns = station.server.transactions - turns
        _say(turns < 2, f"safe_off took {turns} turns, outputs were on after each, and it did not notice")
    finally:
        station.simulator.message = act  # type: ignore[method-assign]
    station.make_safe()


def _no_stale_reply(station: Station) -> None:
    for kind in (LinkFault.DELAY_REPLY, LinkFault.DROP_REPLY, LinkFault.HALF_REPLY):
        for change, ask in _pairs(station):
            change(0)
            station.inject(Injected(kind, seconds=0.25))
            with station.hasty():
                _raised(LinkError, ask, f"{kind}: a query without a whole reply in time")
            change(1)
            told = ask()
            _say(told == 1, f"{kind}: after the timeout the answer is {told!r}, should be 1: a stale reply")
            _say(ask() == 1, f"{kind}: the second answer after the timeout is wrong")
    station.make_safe()


def _one_lock(station: Station) -> None:
    """Two threads ask different things; every reply must reach who asked."""
    pairs = _pairs(station)
    pairs[0][0](1)
    wrong: list[str] = []

    def ask(question: Callable[[], object], wanted: object) -> None:
        try:
            for _ in range(QUERIES):
                told = question()
                if told != wanted:
                    wrong.append(f"{told!r} for {wanted!r}")
        except Exception as error:
            wrong.append(repr(error))

    questions: tuple[tuple[Callable[[], object], object], ...] = (
        (pairs[0][1], 1),
        (station.instrument.is_off, False),
    )
    threads = [threading.Thread(target=ask, args=question) for question in questions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    _say(not wrong, f"{len(wrong)} of {2 * QUERIES} replies of two threads are wrong, the first: {wrong[:1]}")
    _say(not any(t.is_alive() for t in threads), "two threads lock each other out")
    station.make_safe()


def _pairs(station: Station) -> list[tuple[Callable[[int], None], Callable[[], object]]]:
    """Something to change to state 0 or 1, and a question whose answer is that state, on an instrument that is on."""
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
        points = _corners(instrument)[:2]

        def change(k: int) -> None:
            instrument.switch(close=[points[k]], open=[points[1 - k]])

        def closed() -> object:
            now = instrument.closed()
            return next((k for k, point in enumerate(points) if now == {point}), now)

        return [(change, closed)]
    assert isinstance(instrument, PulseGenerator)
    channel = station.channel
    setups = tuple(replace(_pulse_setup(instrument, channel), high_v=v) for v in (0.25, 0.5))

    def told() -> object:
        volts = instrument.settings(channel).high_v
        return next((k for k, s in enumerate(setups) if abs(volts - s.high_v) < 0.01), volts)

    return [(lambda k: instrument.configure(channel, setups[k]), told)]


def _dead_link(station: Station) -> None:
    station.on()
    station.server.stop()
    started = time.monotonic()
    with station.hasty(0.2):
        _raised(LinkError, station.instrument.safe_off, "safe_off on a dead link")
        _raised(LinkError, station.instrument.is_off, "is_off on a dead link")
    _say(time.monotonic() - started < 5, "a dead link was noticed only after more than 5 s")
    station.instrument.close()
    station.instrument.close()
    _raised(LinkError, station.instrument.is_off, "is_off after close")


def _played_back(station: Station) -> None:
    """A recorded session gives the same results without the instrument."""

    def session(driver: Any) -> list[object]:
        usual, station.instrument = station.instrument, driver
        try:
            told: list[object] = [driver.connect()]
            driver.arm()
            for act in _ON[_base_of(station.family.driver)]:
                act(station)
            told += [_numbers(ask()) for ask in _questions(station)]
            driver.safe_off()
        finally:
            driver.close()
            station.instrument = usual
        return told

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "session.jsonl"
        with Recorder(path) as recorder:
            before = session(station.driver(recorder))
        station.server.stop()
        playback = Playback(path)
        after = session(station.driver(playback))
    _say(repr(after) == repr(before), f"played back {after}, recorded {before}")
    _say(playback.left() == 0, f"{playback.left()} events of the recording were not used")


def _questions(station: Station) -> list[Callable[[], object]]:
    instrument = station.instrument
    if isinstance(instrument, SourceMeter):
        channel = station.channel
        return [
            lambda: instrument.settings(channel),
            lambda: instrument.measure(channel),
            lambda: instrument.sweep(channel, 0.0, VOLTS, 7),
            instrument.errors,
        ]
    if isinstance(instrument, SwitchMatrix):
        return [instrument.closed, lambda: instrument.counts(_corners(instrument)), instrument.errors]
    return [lambda: instrument.settings(station.channel), instrument.errors]


def _numbers(told: object) -> object:
    """Something whose `repr` tells every digit."""
    if isinstance(told, Readings):
        return [a.tolist() for a in (told.volts, told.amps, told.status, told.time_s)]
    return told.tolist() if isinstance(told, np.ndarray) else told


COMMON: tuple[tuple[str, Callable[[Station], None]], ...] = (
    ("identifies", _identity),
    ("connect touches nothing", _connect_touches_nothing),
    ("refuses another model", _wrong_model),
    ("raises the error queue", _errors_are_raised),
    ("safe_off", _safe_off),
    ("safe_off after an exception in a transaction", _safe_off_after_an_exception),
    ("safe_off is verified", _safe_off_is_verified),
    ("no stale reply after a timeout", _no_stale_reply),
    ("one lock a link", _one_lock),
    ("a dead link is an error", _dead_link),
    ("a recorded session is played back", _played_back),
)
OF_THE_LINK = frozenset(
    {_errors_are_raised, _safe_off_after_an_exception, _safe_off_is_verified, _no_stale_reply, _one_lock, _dead_link}
)
"""Rules that do not depend on the model of a family."""


# Source-meters.


def _setup(instrument: SourceMeter, channel: str) -> SourceSetup:
    limits = instrument.limits(channel)
    aperture_s = min(max(APERTURE_S, limits.shortest_aperture_s), limits.longest_aperture_s)
    return SourceSetup(Function.VOLTAGE, 1e-3, 1.0, 1e-3, aperture_s)


def _right(readings: Readings, volts: Any, what: str) -> None:
    """Whether readings are those of `volts` on the load, within 1 % and a microampere."""
    volts = np.atleast_1d(np.asarray(volts, dtype=np.float64))
    _say(readings.volts.shape == volts.shape, f"{what}: {readings.volts.shape} readings, should be {volts.shape}")
    for name in ("amps", "status", "time_s"):
        shape = getattr(readings, name).shape
        _say(shape == volts.shape, f"{what}: {name} has the shape {shape}, should be {volts.shape}")
    _say((readings.status == Status.OK).all(), f"{what}: status {readings.status} of readings within range")
    _say(np.allclose(readings.volts, volts, rtol=0.01, atol=2e-3), f"{what}: {readings.volts} V, should be {volts}")
    amps = volts / LOAD_OHM
    _say(np.allclose(readings.amps, amps, rtol=0.01, atol=2e-6), f"{what}: {readings.amps} A, should be {amps}")


def _settings_keep_precision(station: Station) -> None:
    instrument = station.instrument
    for channel in instrument.channels:
        limits = instrument.limits(channel)
        odd_s = min(max(1.2345678e-3, limits.shortest_aperture_s), limits.longest_aperture_s)
        for function, compliance, ranges, measures in (
            (Function.VOLTAGE, limits.smallest_compliance_a, limits.voltage_ranges_v, limits.current_ranges_a),
            (Function.CURRENT, limits.smallest_compliance_v, limits.current_ranges_a, limits.voltage_ranges_v),
        ):
            for aperture_s, settle_s in ((limits.shortest_aperture_s, 0.0), (odd_s, 1.2345678e-3)):
                setup = SourceSetup(function, compliance, ranges[0], measures[0], aperture_s, settle_s)
                where = f"channel {channel}, {function} source"
                instrument.configure(channel, setup)
                told = instrument.settings(channel)
                _say(told.function == function, f"{where}: the function reads back as {told.function}")
                _near(told.compliance, compliance, 1e-4, 0.0, f"{where}: smallest compliance")
                _near(told.aperture_s, aperture_s, 0.01, 0.0, f"{where}: aperture")
                _near(told.settle_s, settle_s, 0.01, 0.0, f"{where}: settling time")
                _say(told.source_range is not None, f"{where}: the source range reads back as automatic")
                _near(float(told.source_range or 0), ranges[0], 1e-3, 0.0, f"{where}: smallest source range")
                if told.measure_range is not None:
                    _say(told.measure_range >= 0.999 * measures[0], f"{where}: measuring range {told.measure_range}")
                level = 0.5123456789 * ranges[0]
                instrument.source(channel, level)
                instrument.output(channel, True)
                driven = station.driven(channel)
                _say(driven.function == function.value, f"{where}: the terminal is driven as {driven}")
                _near(driven.level, level, 0.0, 5e-5 * ranges[0], f"{where}: the level at the terminal")
                _near(driven.limit, compliance, 1e-3, 0.0, f"{where}: the limit at the terminal")
                instrument.output(channel, False)
                _say(_is_quiet(station.driven(channel)), f"{where}: the output is off, the terminal is driven")
        sense = replace(_setup(instrument, channel), remote_sense=True)
        instrument.configure(channel, sense)
        _say(instrument.settings(channel).remote_sense, f"channel {channel}: four-wire sensing does not read back")
        instrument.configure(channel, replace(sense, remote_sense=False))
        _say(not instrument.settings(channel).remote_sense, f"channel {channel}: two-wire sensing does not read back")
    station.make_safe()


def _automatic_ranges(station: Station) -> None:
    instrument, channel = station.instrument, station.channel
    instrument.configure(channel, replace(_setup(instrument, channel), source_range=None, measure_range=None))
    told = instrument.settings(channel)
    _say(told.source_range is None, f"an automatic source range reads back as {told.source_range}")
    _say(told.measure_range is None, f"an automatic measuring range reads back as {told.measure_range}")
    instrument.source(channel, VOLTS)
    instrument.output(channel, True)
    _right(instrument.measure(channel), VOLTS, "measure with automatic ranges")
    station.make_safe()


def _refuses_before_sending(station: Station) -> None:
    instrument = station.instrument
    for channel in instrument.channels:
        limits, good = instrument.limits(channel), _setup(instrument, channel)
        bad = {
            "compliance NaN": replace(good, compliance=math.nan),
            "no compliance": replace(good, compliance=0.0),
            "compliance too high": replace(good, compliance=2 * limits.max_a),
            "source range too high": replace(good, source_range=2 * limits.max_v),
            "aperture NaN": replace(good, aperture_s=math.nan),
            "aperture too short": replace(good, aperture_s=limits.shortest_aperture_s / 3),
            "aperture too long": replace(good, aperture_s=limits.longest_aperture_s * 3),
            "settling time below zero": replace(good, settle_s=-1.0),
            "compliance in volts too high": replace(
                good, function=Function.CURRENT, compliance=2 * limits.max_v, source_range=None, measure_range=None
            ),
        }
        for what, setup in bad.items():
            _sends_nothing(station, f"channel {channel}: {what}", lambda s=setup, c=channel: instrument.configure(c, s))  # type: ignore[misc]
        instrument.configure(channel, good)
        for level in (math.nan, math.inf, 2 * limits.max_v, -2 * limits.max_v):
            _sends_nothing(
                station,
                f"channel {channel}: level {level}",
                lambda v=level, c=channel: instrument.source(c, v),  # type: ignore[misc]
            )
    instrument.configure(station.channel, good)
    instrument.output(station.channel, True)
    for what, act in {
        "a channel that is none": lambda: instrument.configure("no such channel", good),
        "a list with a NaN": lambda: instrument.list_sweep(station.channel, np.array([0.0, math.nan])),
        "a list beyond the range": lambda: instrument.list_sweep(station.channel, np.array([0.0, 2 * limits.max_v])),
        "an empty list": lambda: instrument.list_sweep(station.channel, np.zeros(0)),
        "a sweep beyond the range": lambda: instrument.sweep(station.channel, 0.0, 2 * limits.max_v, 5),
        "a sweep of no point": lambda: instrument.sweep(station.channel, 0.0, VOLTS, 0),
        "a sweep of too many points": lambda: instrument.sweep(station.channel, 0.0, VOLTS, 10**8),
    }.items():
        _sends_nothing(station, what, act)
    station.make_safe()


def _sends_nothing(station: Station, what: str, act: Callable[[], object]) -> None:
    before = station.instrument.dialog.bytes_sent
    _raised(ConfigError, act, what)
    _say(station.instrument.dialog.bytes_sent == before, f"{what}: refused, but only after something had been sent")


def _reading_status(station: Station) -> None:
    instrument = station.instrument
    for channel in instrument.channels:
        setup = _setup(instrument, channel)
        instrument.configure(channel, setup)
        for level in (VOLTS, -VOLTS):
            instrument.source(channel, level)
            instrument.output(channel, True)
            _right(instrument.measure(channel), level, f"channel {channel} at {level} V")
        compliance = VOLTS / LOAD_OHM / 4
        instrument.configure(channel, replace(setup, compliance=compliance, measure_range=compliance))
        for sign in (1, -1):
            instrument.source(channel, sign * VOLTS)
            instrument.output(channel, True)
            reading = instrument.measure(channel)
            where = f"channel {channel} at compliance"
            _say(reading.status[0] == Status.COMPLIANCE, f"{where}: status {reading.status}, {reading.amps} A")
            _near(float(reading.amps[0]), sign * compliance, 0.02, 1e-8, f"{where}: current")
            _near(float(reading.volts[0]), sign * VOLTS / 4, 0.05, 2e-3, f"{where}: voltage")
        instrument.output(channel, False)
        # The current limits the resistor's voltage: compliance of a current source.
        current = SourceSetup(Function.CURRENT, 0.5, 1e-4, 1.0, setup.aperture_s)
        instrument.configure(channel, current)
        for level, status in ((VOLTS / LOAD_OHM, Status.OK), (1e-4, Status.COMPLIANCE)):
            instrument.source(channel, level)
            instrument.output(channel, True)
            reading = instrument.measure(channel)
            where = f"channel {channel}, current source of {level} A"
            _say(reading.status[0] == status, f"{where}: status {reading.status}, {reading.volts} V")
            _near(float(reading.volts[0]), min(level * LOAD_OHM, 0.5), 0.02, 2e-3, f"{where}: voltage")
        instrument.output(channel, False)
    station.make_safe()


def _never_a_wrong_number(station: Station) -> None:
    """A current beyond the fixed measuring range: refused, or no OK reading, or a right one."""
    instrument, channel = station.instrument, station.channel
    low = next(r for r in instrument.limits(channel).current_ranges_a if r > 5e-7)
    try:
        instrument.configure(channel, replace(_setup(instrument, channel), compliance=1e-3, measure_range=low))
        instrument.source(channel, 1.0)
        instrument.output(channel, True)
        reading = instrument.measure(channel)
    except (ConfigError, InstrumentError):
        station.make_safe()
        return
    status, amps = Status(reading.status[0]), float(reading.amps[0])
    if status == Status.OVER_RANGE:
        _say(math.isnan(amps), f"over range, but the current reads {amps}")
    elif status == Status.COMPLIANCE:
        _say(abs(amps) <= 1.3e-3, f"at compliance with {amps} A")
    else:
        _near(amps, 1.0 / LOAD_OHM, 0.01, 0.0, f"a current beyond the measuring range, with status {status.name}")
    station.make_safe()


def _output_off_is_no_reading(station: Station) -> None:
    instrument = station.instrument
    for channel in instrument.channels:
        instrument.configure(channel, _setup(instrument, channel))
        what = f"channel {channel}: a reading with the output off"
        _raised(InstrumentError, lambda c=channel: instrument.measure(c), what)  # type: ignore[misc]
        _say(_is_quiet(station.driven(channel)) and not station.outputs_on, f"{what} switched it on")
    station.make_safe()


def _configure_leaves_the_output(station: Station) -> None:
    station.on()
    instrument, channel = station.instrument, station.channel
    instrument.configure(channel, _setup(instrument, channel))
    drive = station.driven(channel)
    _say(
        drive.level == 0.0 and drive.function == "voltage", f"after configure of a channel that is on it drives {drive}"
    )
    for other in instrument.channels[1:]:
        _say(_is_quiet(station.driven(other)), f"channel {other} was switched on with {channel}")
    station.make_safe()


def _sweeps(station: Station) -> None:
    instrument = station.instrument
    for channel in instrument.channels:
        instrument.configure(channel, _setup(instrument, channel))
        instrument.output(channel, True)
        ramp = np.linspace(-VOLTS, VOLTS, 21)
        levels = VOLTS * np.cos(np.arange(31) * 2.0)
        single = np.array([VOLTS / 3])
        for what, act, wanted in (
            ("sweep", lambda c=channel: instrument.sweep(c, -VOLTS, VOLTS, 21), ramp),  # type: ignore[misc]
            ("list", lambda c=channel, v=levels: instrument.list_sweep(c, v), levels),  # type: ignore[misc]
            ("list of one", lambda c=channel, v=single: instrument.list_sweep(c, v), single),  # type: ignore[misc]
            ("sweep down", lambda c=channel: instrument.sweep(c, VOLTS, -VOLTS, 21), -ramp),  # type: ignore[misc]
        ):
            turns = station.server.transactions
            readings = act()
            turns = station.server.transactions - turns
            where = f"channel {channel}: {what}"
            _right(readings, wanted, where)
            _say((np.diff(readings.time_s) > 0).all(), f"{where}: times do not grow: {readings.time_s[:5]}")
            _say(turns <= 2, f"{where}: {turns} transactions, should be one to run and fetch, at most one to set up")
            _say(abs(station.driven(channel).level) == 0.0, f"{where}: afterwards {station.driven(channel)}")
        instrument.output(channel, False)
    station.make_safe()


def _compliance_inside_a_sweep(station: Station) -> None:
    instrument, channel = station.instrument, station.channel
    compliance = VOLTS / LOAD_OHM / 2
    setup = replace(_setup(instrument, channel), compliance=compliance, measure_range=compliance)
    instrument.configure(channel, setup)
    instrument.output(channel, True)
    levels = np.array([0.1, 0.9, -0.2, -1.0, 0.3]) * VOLTS
    readings = instrument.list_sweep(channel, levels)
    limited = readings.status == Status.COMPLIANCE
    wanted = np.abs(levels) / LOAD_OHM > compliance
    _say((limited == wanted).all(), f"compliance in a list: {readings.status}, should be {wanted}")
    _say(np.allclose(np.abs(readings.amps[wanted]), compliance, rtol=0.02), f"currents at compliance: {readings.amps}")
    station.make_safe()


def _timeout_follows_the_work(station: Station) -> None:
    """What takes the instrument half a second takes longer than the timeout of the link."""
    station.on()
    instrument, channel = station.instrument, station.channel
    aperture_s = min(0.02, instrument.limits(channel).longest_aperture_s)
    points = math.ceil(0.5 / aperture_s)
    instrument.configure(channel, replace(_setup(instrument, channel), aperture_s=aperture_s))
    instrument.output(channel, True)
    act, clock = station.simulator.message, station.simulator.place.bus.clock
    slow: list[str] = []

    def message(line: str) -> str | bytes:
        before_s = clock.now_s
        reply = act(line)
        if clock.now_s - before_s > 0.4:
            slow.append(line)
            time.sleep(0.5)
        return reply

    station.simulator.message = message  # type: ignore[method-assign]
    with station.hasty(0.2, instrument.dialog.slack):
        _right(instrument.sweep(channel, 0.0, VOLTS, points), np.linspace(0.0, VOLTS, points), "a slow sweep")
    _say(slow, "a sweep of half a second took no time")
    station.simulator.message = act  # type: ignore[method-assign]
    station.make_safe()


SOURCE_METER: tuple[tuple[str, Callable[[Station], None]], ...] = (
    ("settings keep full precision", _settings_keep_precision),
    ("automatic ranges", _automatic_ranges),
    ("refuses before it sends", _refuses_before_sending),
    ("status of readings", _reading_status),
    ("never a wrong number beyond the range", _never_a_wrong_number),
    ("an output that is off is not read", _output_off_is_no_reading),
    ("configure leaves the output as it is", _configure_leaves_the_output),
    ("sweeps and lists in one transaction", _sweeps),
    ("compliance inside a list", _compliance_inside_a_sweep),
    ("timeouts follow the work", _timeout_follows_the_work),
)


# Switch matrices.


def _corners(matrix: SwitchMatrix) -> list[Crosspoint]:
    """Crosspoints that the cards really have, of the first and the last row and column among them."""
    cards = getattr(matrix, "cards", ())
    columns = max((c.slot * getattr(matrix, "COLUMNS", 0) for c in cards), default=matrix.columns)
    first, last = matrix.rows[0], matrix.rows[-1]
    return [(first, 1), (last, columns), (first, columns), (last, 1)]


def _switches(station: Station) -> None:
    matrix = station.instrument
    points = _corners(matrix)
    before = matrix.counts(points)
    _say(before.shape == (4,), f"counts of 4 crosspoints have the shape {before.shape}")
    turns = station.server.transactions
    matrix.switch(close=points)
    _say(station.server.transactions - turns == 1, "switch takes more than one transaction")
    _say(matrix.closed() == frozenset(points), f"closed {points}, read back {sorted(matrix.closed())}")
    _say((matrix.counts(points) == before + 1).all(), "the relay counts did not grow by one")
    matrix.switch(close=[points[0]], open=points[1:])
    _say(matrix.closed() == {points[0]}, f"{points[0]} alone should be closed: {sorted(matrix.closed())}")
    _say(not matrix.is_off(), "is_off with a relay closed")
    _say(list(matrix.counts(points[::-1]))[:3] == list(before[::-1] + 1)[:3], "counts are not in the order asked for")
    matrix.open_all()
    _say(not matrix.closed() and matrix.is_off() and not station.outputs_on, "open_all left a relay closed")
    _say(matrix.settle_s > 0, "relays that settle at once")
    before_s = station.simulator.place.bus.clock.now_s
    matrix.switch(close=[points[0]])
    took_s = station.simulator.place.bus.clock.now_s - before_s
    _say(
        took_s >= 0.2 * matrix.settle_s,
        f"a relay took {took_s} s, the driver says that it settles in {matrix.settle_s}",
    )
    station.make_safe()


def _refuses_crosspoints(station: Station) -> None:
    matrix = station.instrument
    for point in (("", 1), ("Z", 1), ("AB", 1), (matrix.rows[0], 0), (matrix.rows[0], -1), (matrix.rows[0], 10**6)):
        _sends_nothing(station, f"crosspoint {point}", lambda p=point: matrix.switch(close=[p]))  # type: ignore[misc]
        _sends_nothing(station, f"crosspoint {point}", lambda p=point: matrix.counts([p]))  # type: ignore[misc]
    matrix.switch()
    _say(matrix.is_off(), "a relay closed by itself")


SWITCH_MATRIX: tuple[tuple[str, Callable[[Station], None]], ...] = (
    ("switches what it is told", _switches),
    ("refuses crosspoints that it has not", _refuses_crosspoints),
)


# Pulse generators.


def _pulse_setup(generator: PulseGenerator, channel: str) -> PulseSetup:
    limits = generator.limits(channel)
    width_s = max(1e-6, 2 * limits.shortest_s)
    return PulseSetup(0.5, 0.0, width_s, max(10 * width_s, limits.shortest_period_s), max(1e-8, limits.shortest_edge_s))


def _pulses_keep_precision(station: Station) -> None:
    generator = station.instrument
    for channel in generator.channels:
        limits = generator.limits(channel)
        shortest = PulseSetup(
            0.123456789,
            -0.0234567891,
            limits.shortest_s,
            max(limits.shortest_period_s, 4 * limits.shortest_s, 1.23456789e-6),
            limits.shortest_edge_s,
        )
        for setup in (shortest, replace(shortest, load_ohm=50.0), _pulse_setup(generator, channel)):
            generator.configure(channel, setup)
            told = generator.settings(channel)
            for name in ("high_v", "low_v"):
                _near(getattr(told, name), getattr(setup, name), 1e-3, 1e-4, f"channel {channel}: {name}")
            for name in ("width_s", "period_s", "edge_s"):
                _near(getattr(told, name), getattr(setup, name), 1e-5, 1e-12, f"channel {channel}: {name}")
            same = told.load_ohm == setup.load_ohm or abs(told.load_ohm / setup.load_ohm - 1) < 1e-6
            _say(same, f"channel {channel}: load {told.load_ohm}, should be {setup.load_ohm}")
            _say(not station.outputs_on, f"channel {channel}: configure switched the output on")
    station.make_safe()


def _refuses_pulses(station: Station) -> None:
    generator, channel = station.instrument, station.channel
    limits, good = generator.limits(channel), _pulse_setup(generator, channel)
    generator.configure(channel, good)
    for what, setup in {
        "level NaN": replace(good, high_v=math.nan),
        "level too high": replace(good, high_v=2.1 * limits.max_open_v),
        "level too high into 50 ohm": replace(good, high_v=1.5 * limits.max_50_ohm_v, load_ohm=50.0),
        "width too short": replace(good, width_s=limits.shortest_s / 2),
        "width NaN": replace(good, width_s=math.nan),
        "width longer than the period": replace(good, width_s=2 * good.period_s),
        "edge too short": replace(good, edge_s=limits.shortest_edge_s / 2),
        "edge too long": replace(good, edge_s=limits.longest_edge_s * 2),
    }.items():
        _sends_nothing(station, what, lambda s=setup: generator.configure(channel, s))  # type: ignore[misc]
    generator.output(channel, True)
    for count in (0, -1, limits.most_pulses + 1):
        _sends_nothing(station, f"{count} pulses", lambda n=count: generator.fire(channel, n))  # type: ignore[misc]
    station.make_safe()


def _fires(station: Station) -> None:
    station.on()
    generator, channel = station.instrument, station.channel
    setup = _pulse_setup(generator, channel)
    clock = station.simulator.place.bus.clock
    before_s = clock.now_s
    generator.fire(channel, 1000)
    _say(clock.now_s - before_s >= 999 * setup.period_s, "fire returned before the last pulse was over")
    generator.output(channel, False)
    _raised(BenchError, lambda: generator.fire(channel, 1), "fire with the output off")
    station.make_safe()


PULSE_GENERATOR: tuple[tuple[str, Callable[[Station], None]], ...] = (
    ("settings keep full precision", _pulses_keep_precision),
    ("refuses before it sends", _refuses_pulses),
    ("fires a counted number of pulses", _fires),
)


def _rules(driver: type[Instrument]) -> tuple[tuple[str, Callable[[Station], None]], ...]:
    own = {SourceMeter: SOURCE_METER, SwitchMatrix: SWITCH_MATRIX, PulseGenerator: PULSE_GENERATOR}
    return COMMON + own.get(_base_of(driver), ())


# Fault modes.


def _switch_first(station: Station) -> None:
    station.instrument.switch(close=[_corners(station.instrument)[0]])


def _measure(station: Station) -> None:
    _right(station.instrument.measure(station.channel), VOLTS, "measure")


def _sweep(station: Station) -> None:
    readings = station.instrument.sweep(station.channel, 0.0, VOLTS, 5)
    _right(readings, np.linspace(0.0, VOLTS, 5), "sweep")


def _settings(station: Station) -> None:
    told = station.instrument.settings(station.channel)
    _near(told.compliance, 1e-3, 1e-4, 0.0, "compliance read back")


def _closed(station: Station) -> None:
    now = station.instrument.closed()
    _say(now == {_corners(station.instrument)[0]}, f"closed relays: {sorted(now)}")


def _configure_pulse(station: Station) -> None:
    station.instrument.configure(station.channel, _pulse_setup(station.instrument, station.channel))


def _pulse_settings(station: Station) -> None:
    _near(station.instrument.settings(station.channel).high_v, 0.5, 1e-3, 0.0, "high level read back")


def _configure_source(station: Station) -> None:
    station.instrument.configure(station.channel, _setup(station.instrument, station.channel))


def _output_on(station: Station) -> None:
    station.instrument.output(station.channel, True)


def _source_volts(station: Station) -> None:
    station.instrument.source(station.channel, VOLTS)


Act = Callable[[Station], None]
_ON: dict[type[Instrument], tuple[Act, ...]] = {
    SourceMeter: (_configure_source, _source_volts, _output_on),
    SwitchMatrix: (_switch_first,),
    PulseGenerator: (_configure_pulse, _output_on),
    Instrument: (),
}
_STEPS: dict[type[Instrument], dict[str, Act]] = {
    SourceMeter: {
        "arm": lambda s: s.instrument.arm(),
        "configure": _configure_source,
        "source": _source_volts,
        "output on": _output_on,
        "measure": _measure,
        "sweep": _sweep,
        "settings": _settings,
        "safe_off": lambda s: s.instrument.safe_off(),
    },
    SwitchMatrix: {
        "arm": lambda s: s.instrument.arm(),
        "switch": _switch_first,
        "closed": _closed,
        "open_all": lambda s: s.instrument.open_all(),
        "safe_off": lambda s: s.instrument.safe_off(),
    },
    PulseGenerator: {
        "arm": lambda s: s.instrument.arm(),
        "configure": _configure_pulse,
        "output on": _output_on,
        "fire": lambda s: s.instrument.fire(s.channel, 10),
        "settings": _pulse_settings,
        "safe_off": lambda s: s.instrument.safe_off(),
    },
    Instrument: {"arm": lambda s: s.instrument.arm(), "safe_off": lambda s: s.instrument.safe_off()},
}
"""What a fault is acted out in, by base class. Each step raises `AssertionError` for a wrong value."""


def _prepare(station: Station, step: str) -> None:
    """On, or for a step that switches something on, as far as before that."""
    if step in ("output on", "switch", "configure"):
        station.instrument.arm()
        if step == "output on":
            for act in _ON[_base_of(station.family.driver)][:-1]:
                act(station)
    else:
        station.on()


def _in_fault(family: Family, model: str, name: str, step: str) -> Callable[[], None]:
    return lambda: _fault_in_connect(family, model, name) if step == "connect" else _fault(family, model, name, step)


def _fault(family: Family, model: str, name: str, step: str) -> None:
    with Station(family, model) as station:
        _prepare(station, step)
        station.inject(*FAULTS[name])
        act = _STEPS[_base_of(family.driver)][step]
        with station.hasty(HASTY_S if name in SILENT else PATIENT_S):
            try:
                act(station)
            except BenchError as error:
                _say(name != "latency", f"a reply that is only a little late raises {error!r}")
                kind = ConfigError if name == "wrong model" else (LinkError, InstrumentError)
                _say(isinstance(error, kind), f"{name} in {step} raises {type(error).__name__}: {error}")
            else:
                if step == "safe_off":
                    _say(not station.outputs_on, f"{name}: safe_off returned, but an output is on")
        station.make_safe()
        # Nothing is left behind: the next work gets its own replies.
        station.instrument.arm()
        for again in _ON[_base_of(family.driver)]:
            again(station)
        _say(station.outputs_on, f"after {name} in {step} the instrument does not switch on again")
        for change, ask in _pairs(station):
            change(1)
            _say(ask() == 1, f"after {name} in {step} a reply is wrong")
        station.make_safe()


def _fault_in_connect(family: Family, model: str, name: str) -> None:
    with Station(family, model) as station:
        station.on()
        station.instrument.close()
        driver = station.driver(timeout_s=HASTY_S if name in SILENT else PATIENT_S)
        station.inject(*FAULTS[name])
        try:
            driver.connect()
        except BenchError as error:
            _say(name != "latency", f"a reply that is only a little late raises {error!r}")
            _say(not driver.dialog.link.is_open, f"{name}: connect raised {error!r}, and the link is still open")
        station.server.faults.clear()
        _say(station.outputs_on, f"{name}: connect touched an output")
        station.instrument = driver
        driver.dialog.timeout_s = PATIENT_S
        driver.connect()
        station.make_safe()


# The form of the source.

_SOURCE = re.compile(r"manual|reference|guide|data ?sheet|handbook|specification|protocol\.md|source of", re.IGNORECASE)
_UNIT = re.compile(
    r"\b(?:V|A|S|s|Hz|ohms?|volts?|amperes?|amps|siemens|seconds?|fraction|percent)\b|See `|`(?:\w+)_(?:s|v|a|ohm|hz)`"
)


def _says_who(family: Family) -> None:
    driver, simulator = family.driver, family.simulator
    _say(driver.MAKER, f"{driver.__name__}.MAKER is empty")
    _say(driver.MODELS, f"{driver.__name__}.MODELS is empty")
    _say(simulator.MAKER == driver.MAKER, f"makers differ: {simulator.MAKER!r} and {driver.MAKER!r}")
    missing = set(driver.MODELS) - set(simulator.MODELS)
    _say(not missing, f"{simulator.__name__}.MODELS has not got {sorted(missing)}")


def _docstrings(family: Family) -> None:
    problems = docstring_problems(family.driver)
    _say(not problems, "; ".join(problems[:5]))


def docstring_problems(driver: type) -> list[str]:
    """What is wrong with the docstrings of a driver class: full stops, units of numbers, the name of a source document."""
    problems = []
    module = inspect.getdoc(sys.modules[driver.__module__]) or ""
    if not _SOURCE.search(module + (inspect.getdoc(driver) or "")):
        problems.append(f"{driver.__name__}: no docstring names the document that it follows")
    for name, value in inspect.getmembers(driver):
        if name.startswith("_") or not (inspect.isfunction(value) or isinstance(value, property)):
            continue
        function = value.fget if isinstance(value, property) else value
        text = (inspect.getdoc(value) or "").strip()
        where = f"{driver.__name__}.{name}"
        first = text.split("\n\n")[0].rstrip()
        if not (text.endswith(".") and first.endswith((".", ":"))):
            problems.append(f"{where}: the docstring does not end with a full stop: {first!r}")
        returns = str(inspect.signature(function).return_annotation) if function is not None else ""
        is_own = getattr(function, "__module__", "") == driver.__module__
        if is_own and re.search(r"\bfloat\b|FloatArray", returns) and not _UNIT.search(text):
            problems.append(f"{where}: numbers without a unit in the docstring: {text!r}")
    return problems
