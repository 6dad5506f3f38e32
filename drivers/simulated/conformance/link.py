"""Conformance of every instrument: identity, errors, off, recovery, locks, faults of the link."""

from __future__ import annotations

import contextlib
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from rram_hil.errors import BenchError, ConfigError, InstrumentError, LinkError
from rram_hil.hardware.driver import Identity
from rram_hil.hardware.instrument import Readings, SourceMeter, SwitchMatrix
from rram_hil.hardware.thermostat import Thermostat
from rram_hil.wire.recording import Playback, Recorder

from ..server.control import Injected, LinkFault
from .station import (
    HASTY_S,
    PATIENT_S,
    STEPS,
    TO_SWITCH_ON,
    VOLTS,
    Family,
    Station,
    corners,
    is_quiet,
    pairs,
    prepare,
    raised,
    say,
)

QUERIES = 200
"""How often each of two threads asks in the check of the lock."""
LATE_S = 0.4
"""How late a delayed reply comes: when the driver has given up."""


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


def _identity(station: Station) -> None:
    identity = station.instrument.connect()
    say(isinstance(identity, Identity), f"connect returned {identity!r}")
    say(
        identity.model == station.model,
        f"model {identity.model!r} was told, it is {station.model!r}",
    )
    say(identity.serial, "no serial number was told")
    station.make_safe()


def _connect_touches_nothing(station: Station) -> None:
    station.on()
    before = _state(station)
    station.instrument.close()
    other = station.driver()
    other.connect()
    say(station.outputs_on, "connect switched an output off")
    station.instrument = other
    say(not other.is_off(), "is_off says off while an output is on")
    say(_state(station) == before, "connect changed what is driven or closed")
    station.make_safe()


def _state(station: Station) -> object:
    """What can be seen of an instrument from outside."""
    instrument = station.instrument
    if isinstance(instrument, SourceMeter):
        return [(c, station.driven(c)) for c in instrument.channels]
    if isinstance(instrument, SwitchMatrix):
        return instrument.closed()
    if isinstance(instrument, Thermostat):
        return instrument.set_point_k()
    return [instrument.settings(c) for c in instrument.channels]


def _wrong_model(station: Station) -> None:
    station.on()
    other = next((m for m in station.family.driver.MODELS if m != station.model), "NO SUCH MODEL")
    for what, settings, faults in (
        ("another model's name in *IDN?", {}, FAULTS["wrong model"]),
        ("another model in the bench file", {"model": other}, ()),
        ("another serial number in the bench file", {"serial": "another"}, ()),
    ):
        driver = station.driver(None, **settings)
        station.inject(*faults)
        error = raised(ConfigError, driver.connect, what)
        station.server.faults.clear()
        say(
            station.server.resource in str(error),
            f"{what}: the message does not name the resource: {error}",
        )
        say(not driver.dialog.link.is_open, f"{what}: the link is still open after the refusal")
        say(station.outputs_on, f"{what}: an output was touched")
    driver = station.driver(model=station.model)
    driver = station.driver(model=station.model, serial=driver.connect().serial)
    driver.connect()
    station.make_safe()


def _another_maker(station: Station) -> None:
    """A stranger's instrument that tells a known model: refused with the key that drives it, and
    then driven. Every name of a maker of the family is taken.
    """
    driver, answer = station.family.driver, station.simulator.reply
    maker = "STRANGER"

    def renamed(line: str) -> bytes:
        said = answer(line)
        return maker.encode() + said[said.index(b",") :] if "IDN" in line.upper() else said

    station.on()
    station.instrument.close()
    station.simulator.reply = renamed  # type: ignore[method-assign]
    error = raised(ConfigError, station.driver().connect, "a stranger's instrument")
    for word in (maker, station.model, *driver.MAKERS, f'treat_as = "{station.model}"'):
        say(word in str(error), f"the refusal of a stranger's instrument has no {word}: {error}")
    told = station.driver(treat_as=station.model).connect().model
    say(maker in told and station.model in told, f"a stranger's instrument is told as {told!r}")
    for maker in driver.MAKERS:
        told = station.driver().connect().model
        say(told == station.model, f"a {station.model} of {maker} is told as {told!r}")
    say(station.outputs_on, "an output was touched")
    station.simulator.reply = answer  # type: ignore[method-assign]
    station.instrument = station.driver()
    station.instrument.connect()
    station.make_safe()


def _near_model(station: Station) -> None:
    """One that speaks the dialect but is not known: refused with the key that drives it, and then
    driven.
    """
    driver = station.family.driver
    name = next((name for name in _like(station.model) if driver.offer(name)), "")
    if not name:
        return
    station.on()
    station.simulator.pretends = name
    error = raised(ConfigError, station.driver().connect, "an unknown model of the family")
    say('treat_as = "' in str(error), f"the refusal of {name} does not tell of treat_as: {error}")
    say(station.outputs_on, f"the refusal of {name} touched an output")
    station.instrument.close()
    station.instrument = station.driver(treat_as=station.model)
    told = station.instrument.connect().model
    say(name in told and station.model in told, f"{name} as {station.model} is told as {told!r}")
    station.on()
    station.make_safe()
    station.instrument.close()
    station.simulator.pretends = ""
    other = next((m for m in driver.MODELS if m != station.model), "")
    if other:
        taken = station.driver(treat_as=other)
        raised(ConfigError, taken.connect, f"a {station.model} as a {other}")
    station.instrument = station.driver()
    station.instrument.connect()


def _like(model: str) -> Iterator[str]:
    """Names that differ in one digit, in the last ones first."""
    for at in reversed(range(len(model))):
        if model[at].isdigit():
            yield from (f"{model[:at]}{digit}{model[at + 1 :]}" for digit in "9876543210")


def _left_over_at_connect(station: Station) -> None:
    """A program that was killed has left an output on and replies on their way."""
    station.on()
    station.instrument.close()
    driver = station.driver()
    station.inject(Injected(LinkFault.LEFT_OVER))
    identity = driver.connect()
    say(
        identity.model == station.model,
        f"with replies left over at connect, {identity.model!r} is told, it is {station.model!r}",
    )
    say(len(station.server.faults) == 0, "the left-over replies did not come at connect")
    say(station.outputs_on, "connect switched an output off")
    say(not driver.is_off(), "with replies left over at connect, is_off says off")
    station.instrument = driver
    station.make_safe()


def _silent_or_foreign_is_told(station: Station) -> None:
    """Whoever does not answer as this family's instrument may have outputs on: the user is told."""
    station.on()
    station.instrument.close()
    for kind in (LinkFault.DROP_REQUEST, LinkFault.WRONG_MODEL):
        driver = station.driver(timeout_s=HASTY_S)
        station.inject(*(Injected(kind) for _ in range(30)))
        try:
            driver.connect()
        except (ConfigError, LinkError) as error:
            say(
                error.outputs_off is False, f"{kind}: the error does not say that outputs may be on"
            )
            loud = re.findall(r"[A-Z]{3,}", error.message)
            say("OUTPUTS" in loud, f"{kind}: nothing in capital letters tells of outputs: {error}")
        else:
            raise AssertionError(f"{kind}: connect believes it")
        finally:
            station.server.faults.clear()
        say(not driver.dialog.link.is_open, f"{kind}: the link is still open")
    station.instrument = station.driver()
    station.instrument.connect()
    station.make_safe()


def _errors_are_raised(station: Station) -> None:
    instrument = station.instrument
    with station.simulator.place.bus.lock:
        station.simulator.fill_queue()
    errors = instrument.errors()
    say(len(errors) > 1, f"errors() found {len(errors)} entries of a full queue")
    for error in errors:
        say(
            isinstance(error, InstrumentError) and error.code != 0,
            f"{error!r} is no error with a code",
        )
    say(instrument.errors() == [], "errors() did not empty the queue")
    for name, step in STEPS[station.role].items():
        if name in ("arm", "safe_off"):  # they empty the queue
            continue
        prepare(station, name)
        station.inject(Injected(LinkFault.QUEUE_FULL))
        if name in ("settings", "closed"):  # they change nothing, and may leave the queue to others
            with contextlib.suppress(InstrumentError):
                step(station)
                say(
                    instrument.errors(),
                    f"{name}: it took errors from the queue without raising them",
                )
            continue
        error = raised(InstrumentError, partial(step, station), f"{name} with errors in the queue")
        assert isinstance(error, InstrumentError)
        say(
            error.code != 0 and str(error.code) in str(error),
            f"{name}: the error has no code: {error}",
        )
        say(error.command, f"{name}: the error does not name its command: {error}")
        say(
            re.search(r"[A-Za-z]{4}", str(error).replace(error.command, "")),
            f"{name}: the error has no text: {error}",
        )
        say(instrument.errors() == [], f"{name}: errors are left in the queue after one was raised")
    with station.simulator.place.bus.lock:
        station.simulator.fill_queue()
    instrument.arm()
    say(instrument.errors() == [], "arm left errors in the queue")
    station.make_safe()


def _safe_off(station: Station) -> None:
    station.on()
    connections = station.server.connections
    station.make_safe()
    say(station.server.connections == connections, "safe_off opened another connection to verify")
    for channel in getattr(station.instrument, "channels", ()):
        if isinstance(station.instrument, SourceMeter):
            drive = station.driven(channel)
            say(is_quiet(drive), f"channel {channel} still drives {drive} after safe_off")
    station.make_safe()


def _safe_off_after_an_exception(station: Station) -> None:
    dialog = station.instrument.dialog
    for name, step in STEPS[station.role].items():
        prepare(station, name)
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
    """Outputs that come back on after each message: with a separate question the driver must
    notice.
    """
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
        say(
            turns < 2,
            f"safe_off took {turns} turns, outputs were on after each, and it did not notice",
        )
    finally:
        station.simulator.message = act  # type: ignore[method-assign]
    station.make_safe()


def _no_stale_reply(station: Station) -> None:
    for kind in (LinkFault.DELAY_REPLY, LinkFault.DROP_REPLY, LinkFault.HALF_REPLY):
        for change, ask in pairs(station):
            change(0)
            station.inject(Injected(kind, seconds=LATE_S))
            with station.hasty():
                raised(LinkError, ask, f"{kind}: a query without a whole reply in time")
            change(1)
            answer = ask()
            say(
                answer == 1,
                f"{kind}: after the timeout the answer is {answer!r}, should be 1: a stale reply",
            )
            say(ask() == 1, f"{kind}: the second answer after the timeout is wrong")
            if kind is LinkFault.DELAY_REPLY:
                # The connection that was given up must not take the next fault for itself when it
                # wakes.
                time.sleep(LATE_S)
    station.make_safe()


def _one_lock(station: Station) -> None:
    """Two threads ask different things; every reply must reach who asked."""
    change, question = pairs(station)[0]
    change(1)
    wrong: list[str] = []

    def ask(question: Callable[[], object], wanted: object) -> None:
        try:
            for _ in range(QUERIES):
                answer = question()
                if answer != wanted:
                    wrong.append(f"{answer!r} for {wanted!r}")
        except Exception as error:
            wrong.append(repr(error))

    questions: tuple[tuple[Callable[[], object], object], ...] = (
        (question, 1),
        (station.instrument.is_off, False),
    )
    threads = [threading.Thread(target=ask, args=question) for question in questions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    say(
        not wrong,
        f"{len(wrong)} of {2 * QUERIES} replies of two threads are wrong, the first: {wrong[:1]}",
    )
    say(not any(t.is_alive() for t in threads), "two threads lock each other out")
    station.make_safe()


def _dead_link(station: Station) -> None:
    station.on()
    station.server.stop()
    started = time.monotonic()
    with station.hasty(0.2):
        raised(LinkError, station.instrument.safe_off, "safe_off on a dead link")
        raised(LinkError, station.instrument.is_off, "is_off on a dead link")
    say(time.monotonic() - started < 5, "a dead link was noticed only after more than 5 s")
    station.instrument.close()
    station.instrument.close()
    raised(LinkError, station.instrument.is_off, "is_off after close")


def _played_back(station: Station) -> None:
    """A recorded session gives the same results without the instrument."""

    def session(driver: Any) -> list[object]:
        usual, station.instrument = station.instrument, driver
        try:
            answers: list[object] = [driver.connect()]
            driver.arm()
            for act in TO_SWITCH_ON[station.role]:
                act(station)
            answers += [_numbers(ask()) for ask in _questions(station)]
            driver.safe_off()
        finally:
            driver.close()
            station.instrument = usual
        return answers

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "session.jsonl"
        with Recorder(path) as recorder:
            before = session(station.driver(recorder))
        station.server.stop()
        playback = Playback(path)
        after = session(station.driver(playback))
    say(repr(after) == repr(before), f"played back {after}, recorded {before}")
    say(playback.left() == 0, f"{playback.left()} events of the recording were not used")


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
        return [
            instrument.closed,
            lambda: instrument.counts(corners(instrument)),
            instrument.errors,
        ]
    if isinstance(instrument, Thermostat):
        return [instrument.set_point_k, instrument.temperature_k, instrument.errors]
    return [lambda: instrument.settings(station.channel), instrument.errors]


def _numbers(value: object) -> object:
    """Something whose `repr` tells every digit."""
    if isinstance(value, Readings):
        return [a.tolist() for a in (value.volts, value.amps, value.status, value.time_s)]
    return value.tolist() if isinstance(value, np.ndarray) else value


COMMON: tuple[tuple[str, Callable[[Station], None]], ...] = (
    ("identifies", _identity),
    ("connect touches nothing", _connect_touches_nothing),
    ("left-over at connect", _left_over_at_connect),
    ("says that outputs of what does not answer may be on", _silent_or_foreign_is_told),
    ("refuses another model", _wrong_model),
    ("refuses another maker's", _another_maker),
    ("drives a near model where it is told to", _near_model),
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
    {
        _another_maker,
        _near_model,
        _left_over_at_connect,
        _silent_or_foreign_is_told,
        _errors_are_raised,
        _safe_off_after_an_exception,
        _safe_off_is_verified,
        _no_stale_reply,
        _one_lock,
        _dead_link,
    }
)
"""Rules that do not depend on the model of a family."""


def fault_in_step(family: Family, model: str, name: str, step: str) -> None:
    """One fault, once, in one step: right values or a typed error, then off, then working again."""
    with Station(family, model) as station:
        prepare(station, step)
        station.inject(*FAULTS[name])
        act = STEPS[station.role][step]
        with station.hasty(HASTY_S if name in SILENT else PATIENT_S):
            try:
                act(station)
            except BenchError as error:
                say(name != "latency", f"a reply that is only a little late raises {error!r}")
                kind = ConfigError if name == "wrong model" else (LinkError, InstrumentError)
                say(
                    isinstance(error, kind),
                    f"{name} in {step} raises {type(error).__name__}: {error}",
                )
            else:
                if step == "safe_off":
                    say(not station.outputs_on, f"{name}: safe_off returned, but an output is on")
        station.make_safe()
        # Nothing is left behind: the next work gets its own replies.
        station.instrument.arm()
        for again in TO_SWITCH_ON[station.role]:
            again(station)
        say(station.outputs_on, f"after {name} in {step} the instrument does not switch on again")
        for change, ask in pairs(station):
            change(1)
            say(ask() == 1, f"after {name} in {step} a reply is wrong")
        station.make_safe()


def fault_in_connect(family: Family, model: str, name: str) -> None:
    """One fault, once, while a driver connects to an instrument that is on: connected or refused,
    nothing touched.
    """
    with Station(family, model) as station:
        station.on()
        station.instrument.close()
        driver = station.driver(timeout_s=HASTY_S if name in SILENT else PATIENT_S)
        station.inject(*FAULTS[name])
        try:
            driver.connect()
        except BenchError as error:
            say(name != "latency", f"a reply that is only a little late raises {error!r}")
            say(
                not driver.dialog.link.is_open,
                f"{name}: connect raised {error!r}, and the link is still open",
            )
        station.server.faults.clear()
        say(station.outputs_on, f"{name}: connect touched an output")
        driver.close()
        station.instrument = station.driver(timeout_s=PATIENT_S)
        station.instrument.connect()
        station.make_safe()
