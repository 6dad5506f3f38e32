"""Every fault of a link, at every exchange, of every link family: a right value or a typed error,
outputs off in the end, no pulse twice, the ledger never below the truth.

Minutes for each family: `python -m pytest -m slow tests/faults/test_link_campaign.py`.
"""

from __future__ import annotations

import time
from pathlib import Path
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
    TO_SWITCH_ON,
    VOLTS,
    Family,
    WatchedLoads,
    role_of,
)
from rram_hil.drivers.simulated.server.control import BoardControl
from rram_hil.drivers.simulated.server.instrument import InstrumentServer
from rram_hil.errors import BenchError
from rram_hil.hardware.instrument import Readings, SourceMeter, SwitchMatrix
from rram_hil.simulation.config import Timing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

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
    "keithley-707b": "707B",
    "keysight-b1500": "B1500A",
    "keysight-b2900": "B2902A",
    "keysight-33500": "33522B",
}


def public(error: BaseException) -> None:
    """Whether an error is one of the tree that users know."""
    assert isinstance(error, BenchError), repr(error)
    assert type(error) in PUBLIC, f"{type(error).__name__} reaches the user: {error}"


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

    def driver(self, port: int) -> Any:
        config = self.family.driver.Config(
            kind=self.family.kind,
            resource=f"TCPIP::127.0.0.1::{port}::SOCKET",
            timeout_s=0.3,
            reconnect_s=0.5,
        )
        return self.family.driver(config)

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
            assert fault in BLIND or instrument.closed()
        else:
            instrument.settings(self.channel)

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


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", FAMILIES)
def test_an_instrument_survives_a_fault_at_every_exchange(kind: str, fault: str) -> None:
    rig = Rig(kind, FAMILIES[kind])
    at, total = 0, 1
    while at < total:
        middle = Middle(rig.server.port, fault, at, lines=True, head=b"#14")
        rig.instrument = rig.driver(middle.port)
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
        rig.instrument = rig.driver(rig.server.port)
        rig.session("")
        rig.instrument.safe_off()
        assert not rig.outputs_on, where
        rig.instrument.close()
        total = max(total, min(middle.messages, 400)) if at == 0 else total
        at += 1
    rig.server.stop()


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
pulses_per_cell = 1000
[read]
bl_v = 0.2
wl_v = 0.0
"""
CHIP = '[chip]\nid = "c"\ntiles = 1\nrows = 6\ncolumns = 5\ncell = "1R"\n'
BOARDS = {
    "test-chip-board": "timeout_s = 0.25\nretries = 2\n",
    "arc-one": "timeout_s = 0.2\nversion_s = 0.2\npace = 0.0\n",
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


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", BOARDS)
def test_a_board_survives_a_fault_at_every_exchange(name: str, fault: str, tmp_path: Path) -> None:
    quiet = '[simulation]\ndevice = "paper"\nread_noise = false\nconverters = false\n'
    (tmp_path / "sim.toml").write_text(f'{CHIP}[driver]\nname = "{name}"\n{LIMITS}{quiet}')
    far = launcher(name)(request_of(load_bench_file(tmp_path / "sim.toml")))
    control = BoardControl(far.control)
    port = int(str(far.settings["port"]).rpartition(":")[2])
    clock = f'clock = "{far.control}"\n' if name == "arc-one" else ""
    at, total, step = 0, 1, 1
    while at < total:
        middle = Middle(port, fault, at, lines=name == "arc-one", head=b"\xa5RBZ\x01\x01\x00\x00")
        link = f'port = "socket://127.0.0.1:{middle.port}"\nreconnect_s = 0.5\n'
        (tmp_path / "real.toml").write_text(
            f'{CHIP}[driver]\nname = "{name}"\n{link}{clock}{BOARDS[name]}{LIMITS}'
        )
        before = control.pulses().ravel()
        bench: Bench | None = None
        met: list[BaseException] = []
        try:
            bench = Bench.open(tmp_path / "real.toml")
            charged = bench.ledger.counts.ravel().copy()
            try:
                board_session(bench, control, fault, name)
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
            if bench is not None:
                bench.driver.close()
                bench.ledger.close()
        where = f"{fault} at message {at}: {met}"
        if fault in GONE:
            assert met or not middle.happened, where
        if name == "test-chip-board" or fault not in GONE:
            end_s = time.monotonic() + 10
            while control.status()["outputs_on"] and time.monotonic() < end_s:
                time.sleep(0.05)
            assert not control.status()["outputs_on"], where
        middle.close()
        if at == 0:
            total = middle.messages
            step = max(1, total // 60)
        at += step
    control.close()
    far.stop()
