"""Every fault of a link, at every exchange, of every link family: a right value or a typed error,
outputs off in the end, no pulse twice, the ledger never below the truth.

`python -m pytest -m slow -n 0 tests/faults/test_link_campaign.py` prints the table of
docs/safety.md; `-k arc-one` is one family of it. The time goes into waiting for what does not
come, so several exchanges are tried at once, each on an instrument or board of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from middle import FAULTS, GONE, Middle

from rram_hil import errors
from rram_hil.array import Apply, Cells, Geometry, Scheme, Status, Step
from rram_hil.bench.bench import Bench
from rram_hil.bench.bench_file import load_bench_file
from rram_hil.bench.far_side import launcher, request_of
from rram_hil.drivers.simulated.array.terminals import Place
from rram_hil.drivers.simulated.conformance.station import (
    LOAD_OHM,
    PATIENT_S,
    TO_SWITCH_ON,
    VOLTS,
    Family,
    WatchedLoads,
    corners,
    pulse_setup,
    role_of,
)
from rram_hil.drivers.simulated.server.control import BoardControl
from rram_hil.drivers.simulated.server.instrument import InstrumentServer
from rram_hil.errors import BenchError
from rram_hil.hardware.instrument import Readings, SourceMeter, SwitchMatrix
from rram_hil.simulation.config import Timing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

INSTRUMENTS_AT_ONCE, BOARDS_AT_ONCE = 6, 12
"""Exchanges; boards are processes of their own, and wait more."""
TIMEOUT_S = 1.5
"""Of links with a fault: a computer at work is no silent instrument. Late is more than this."""
NEVER = -1
OUTCOMES = ("right value", "value not judged", "typed error", "nothing to spoil", "broken promise")

PUBLIC = tuple(
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, BenchError)
)
BLIND = frozenset({"reply with a bit flipped", "request with a bit flipped"})
"""What a link without checksums cannot show in a number (docs/safety.md)."""
FAMILIES = {
    "keithley-2400": "2400",
    "keithley-2450": "2450",
    "keithley-2600b": "2636B",
    "keithley-3706a": "3706A",
    "keithley-707b": "707B",
    "keysight-b1500": "B1500A",
    "keysight-b2900": "B2902A",
    "keysight-33500": "33522B",
}


def public(error: BaseException) -> None:
    """Whether an error is one of the tree that users know."""
    assert isinstance(error, BenchError), repr(error)
    assert type(error) in PUBLIC, f"{type(error).__name__} reaches the user: {error}"


def campaign(
    told: Callable[[str, object], None],
    family: str,
    fault: str,
    total: int,
    exchange: Callable[[int], str],
    at_once: int,
) -> None:
    """Try the fault at each of `total` messages. `exchange` tries it at one, asserts what is
    promised, and returns what came of it.
    """
    with ThreadPoolExecutor(at_once) as pool:
        tried = [pool.submit(exchange, at) for at in range(total)]
    failures = {
        f"{fault} at message {at}": error
        for at, one in enumerate(tried)
        if (error := one.exception()) is not None
    }
    outcomes = [one.result() for one in tried if one.exception() is None]
    outcomes += ["broken promise"] * len(failures)
    told("link campaign", [family, {kind: outcomes.count(kind) for kind in OUTCOMES}])
    if failures:
        raise ExceptionGroup(f"{family}: {fault}: {', '.join(failures)}", [*failures.values()])


def outcome(middle: Middle, errors_met: list[BaseException], *, is_judged: bool) -> str:
    """What came of a fault: a column of the table in docs/safety.md."""
    if errors_met:
        return "typed error"
    if not middle.happened:
        return "nothing to spoil"
    return "right value" if is_judged else "value not judged"


class Rig:
    """One simulated instrument, and what a driver does with it through the middle."""

    def __init__(self, kind: str, model: str) -> None:
        self.family = Family.of(kind)
        self.role = role_of(self.family.driver)
        self.loads = WatchedLoads(LOAD_OHM)
        self.simulator = self.family.simulator(model, Place(terminals=self.loads))
        self.server = InstrumentServer(self.simulator, Timing())
        self.channel = ""
        self.instrument: Any = None

    def middle(self, fault: str, at: int) -> Middle:
        """One in front of the instrument, and the driver in front of it."""
        middle = Middle(self.server.port, fault, at, lines=True, head=b"#14", timeout_s=TIMEOUT_S)
        self.drive(middle.port, PATIENT_S if at == NEVER else TIMEOUT_S)
        return middle

    def drive(self, port: int, timeout_s: float = PATIENT_S) -> None:
        """A new driver at this port."""
        config = self.family.driver.Config(
            kind=self.family.kind,
            resource=f"TCPIP::127.0.0.1::{port}::SOCKET",
            timeout_s=timeout_s,
            reconnect_s=0.5,
        )
        self.instrument = self.family.driver(config)

    def session(self, fault: str) -> None:
        """Connect, arm, switch on, measure, and judge what is told. Raises what the driver
        raises.
        """
        instrument = self.instrument
        instrument.connect()
        instrument.arm()
        self.channel = str(getattr(instrument, "channels", [""])[0])
        for step in TO_SWITCH_ON[self.role]:
            step(self)  # type: ignore[arg-type]
        if isinstance(instrument, SourceMeter):
            for act, volts in (
                (lambda: instrument.measure(self.channel), [VOLTS]),
                (lambda: instrument.sweep(self.channel, 0.0, VOLTS, 5), np.linspace(0, VOLTS, 5)),
                (lambda: instrument.list_sweep(self.channel, np.array([VOLTS])), [VOLTS]),
            ):
                readings = act()
                if fault not in BLIND:
                    self.judge(readings, np.asarray(volts))
        elif isinstance(instrument, SwitchMatrix):
            closed = instrument.closed()
            assert fault in BLIND or closed == {corners(instrument)[0]}, closed
        else:
            held = instrument.settings(self.channel)
            if fault not in BLIND:
                asked = pulse_setup(instrument, self.channel)
                np.testing.assert_allclose(astuple(held), astuple(asked), rtol=1e-6)

    def judge(self, readings: Readings, volts: np.ndarray) -> None:
        assert readings.volts.shape == volts.shape
        told = readings.status == Status.OK
        np.testing.assert_allclose(readings.volts[told], volts[told], rtol=0.01, atol=2e-3)
        np.testing.assert_allclose(
            readings.amps[told], volts[told] / LOAD_OHM, rtol=0.01, atol=2e-6
        )

    @property
    def outputs_on(self) -> bool:
        with self.simulator.place.bus.lock:
            return self.simulator.outputs_on


def an_exchange_of_an_instrument(kind: str, fault: str, at: int) -> str:
    rig = Rig(kind, FAMILIES[kind])
    middle = rig.middle(fault, at)
    errors_met: list[BaseException] = []
    for act in (lambda: rig.session(fault), lambda: rig.instrument.safe_off()):
        try:
            act()
        except BenchError as error:
            public(error)
            errors_met.append(error)
    where = f"{fault} at message {at}: {errors_met}"
    connected = getattr(rig.instrument, "identity", None) is not None
    if fault in GONE:
        assert errors_met or not middle.happened, where
    elif connected:
        assert not rig.outputs_on, where
    rig.instrument.close()
    middle.close()
    # A plain session then finds the instrument as usable as before.
    rig.drive(rig.server.port)
    rig.session("")
    rig.instrument.safe_off()
    assert not rig.outputs_on, where
    rig.instrument.close()
    rig.server.stop()
    return outcome(middle, errors_met, is_judged=fault not in BLIND)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", FAMILIES)
def test_an_instrument_survives_a_fault_at_every_exchange(
    kind: str, fault: str, record_property: Callable[[str, object], None]
) -> None:
    rig = Rig(kind, FAMILIES[kind])
    middle = rig.middle(fault, NEVER)
    rig.session("")
    rig.instrument.safe_off()
    rig.instrument.close()
    middle.close()
    rig.server.stop()
    exchange = partial(an_exchange_of_an_instrument, kind, fault)
    campaign(record_property, kind, fault, middle.messages, exchange, INSTRUMENTS_AT_ONCE)


GEOMETRY = Geometry(1, 6, 5, "1R")
LIMITS = """
[limits]
bl_v = 1.5
sl_v = 1.5
wl_v = 4.0
cell_v = 1.5
gate_over_v = 4.0
half_select_v = 1.5
read_v = 0.3
current_a = 1e-3
energy_j = 1e-3
width_s = 1e-3
pulses_per_cell = 100000
[read]
bl_v = 0.2
wl_v = 0.0
"""
CHIP = '[chip]\nid = "c"\ntiles = 1\nrows = 6\ncolumns = 5\ncell = "1R"\n'
BOARDS = {
    "test-chip-board": f"timeout_s = {TIMEOUT_S}\nretries = 2\n",
    "arc-one": f"timeout_s = {TIMEOUT_S}\nversion_s = {TIMEOUT_S}\npace = 0.0\n",
}
UNPROTECTED = frozenset({"request doubled", *BLIND})
"""Faults inside a pulse job of the ArC ONE that its protocol cannot show (docs/safety.md)."""


def board_session(bench: Bench, control: BoardControl, fault: str, name: str) -> None:
    """Reads and pulses; what is told is compared with the truth."""
    cells = Cells.block(0, [1, 2, 5], [0, 3])
    wait = Step(0.2, 0.0, 0.0, 1e-6, "current")
    for steps in ((wait,), (Step(1.0, 0.0, 0.0, 1e-6), wait), (wait,)):
        if len(steps) > 1 and name == "arc-one" and fault in UNPROTECTED:
            continue
        result = bench.do(Apply(cells, steps, Scheme.HALF))
        truth = control.conductance_s()[0, cells.row, cells.column]
        told = result.status[:, -1] == Status.OK
        if name == "test-chip-board" or fault not in BLIND:
            np.testing.assert_allclose(
                result.last_s[told], truth[told], rtol=1e-3, atol=2e-8, err_msg=fault
            )


class Lane:
    """A simulated board of its own, with its ledger beside its bench file."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.file = folder / "real.toml"
        folder.mkdir()
        quiet = '[simulation]\ndevice = "paper"\nread_noise = false\nconverters = false\n'
        (folder / "sim.toml").write_text(f'{CHIP}[driver]\nname = "{name}"\n{LIMITS}{quiet}')
        self.far = launcher(name)(request_of(load_bench_file(folder / "sim.toml")))
        self.control = BoardControl(self.far.control)

    def middle(self, fault: str, at: int) -> Middle:
        """One in front of the board, and a bench file for it."""
        port = int(str(self.far.settings["port"]).rpartition(":")[2])
        lines = self.name == "arc-one"
        clock = f'clock = "{self.far.control}"\n' if lines else ""
        head = b"\xa5RBZ\x01\x01\x00\x00"
        middle = Middle(port, fault, at, lines=lines, head=head, timeout_s=TIMEOUT_S)
        link = f'port = "socket://127.0.0.1:{middle.port}"\nreconnect_s = 0.5\n'
        self.file.write_text(
            f'{CHIP}ledger = "chip.ledger"\n[driver]\nname = "{self.name}"\n'
            f"{link}{clock}{BOARDS[self.name]}{LIMITS}"
        )
        return middle

    def exchange(self, fault: str, at: int) -> str:
        """A session with a fault at one message."""
        control, middle = self.control, self.middle(fault, at)
        before = control.pulses().ravel()
        bench: Bench | None = None
        met: list[BaseException] = []
        try:
            bench = Bench.open(self.file)
            charged = bench.ledger.counts.ravel().copy()
            try:
                board_session(bench, control, fault, self.name)
            except BenchError as error:
                public(error)
                met.append(error)
            given = control.pulses().ravel() - before
            counted = bench.ledger.counts.ravel() - charged
            where = f"{fault} at message {at}: {met}; given {given}, counted {counted}"
            assert (given <= counted).all(), where
            assert given.max() <= 1, where
            bench.close()
        except BenchError as error:
            public(error)
            met.append(error)
        finally:
            if bench is not None:
                bench.driver.close()
                bench.ledger.close()
            middle.close()
        where = f"{fault} at message {at}: {met}"
        if fault in GONE:
            assert met or not middle.happened, where
        if self.name == "test-chip-board" or fault not in GONE:
            self.expect_outputs_off(where)
        is_judged = self.name == "test-chip-board" or fault not in BLIND
        return outcome(middle, met, is_judged=is_judged)

    def expect_outputs_off(self, where: str) -> None:
        """At once, or by the board's watchdog."""
        end_s = time.monotonic() + 10
        while (is_on := self.control.status()["outputs_on"]) and time.monotonic() < end_s:
            time.sleep(0.05)
        assert not is_on, where

    def close(self) -> None:
        self.control.close()
        self.far.stop()


@pytest.fixture(scope="module", params=BOARDS)
def lanes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Lane]]:
    folder = tmp_path_factory.mktemp(request.param)
    made = [Lane(request.param, folder / str(i)) for i in range(BOARDS_AT_ONCE)]
    yield made
    for lane in made:
        lane.close()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_board_survives_a_fault_at_every_exchange(
    lanes: list[Lane], fault: str, record_property: Callable[[str, object], None]
) -> None:
    middle = lanes[0].middle(fault, NEVER)
    with Bench.open(lanes[0].file) as bench:
        board_session(bench, lanes[0].control, "", lanes[0].name)
    middle.close()
    idle: SimpleQueue[Lane] = SimpleQueue()
    for lane in lanes:
        idle.put(lane)

    def exchange(at: int) -> str:
        lane = idle.get()
        try:
            return lane.exchange(fault, at)
        finally:
            idle.put(lane)

    campaign(record_property, lanes[0].name, fault, middle.messages, exchange, BOARDS_AT_ONCE)
