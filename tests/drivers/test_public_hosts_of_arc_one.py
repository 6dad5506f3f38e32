"""The maker's own host programs as clients of the simulated ArC ONE: every module of libarc1, and
every panel of arc1_pyqt (package arc1-pyqt, which brings Qt). `pytest -s` prints what passed.

Both are skipped where they are not installed. They are run as they are, but for what a
pseudo-terminal has not (a parity bit), for two ways in which they wait for ever, and for arrays of
one number, which arc1_pyqt gives to Qt and today's numpy no longer turns into numbers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import serial

from rram_hil.drivers.simulated.arc_one import start_alone
from rram_hil.drivers.simulated.server.control import BoardControl

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals"),
]
LOAD_OHM = 2e4
DEVICES = [(1, 1), (2, 3)]
PATIENCE_S = 10.0


@dataclass
class Side:
    """A simulated board with a resistor at each place, and its control."""

    port: str
    control: BoardControl
    passed: list[str] = field(default_factory=list)

    def is_in_step(self) -> bool:
        """Whether the board comes to rest, and knew every job."""
        end_s = time.monotonic() + PATIENCE_S
        while (told := self.control.status())["busy"] and time.monotonic() < end_s:
            time.sleep(0.005)
        return not told["busy"] and not told["unknown_jobs"]


@pytest.fixture(scope="module")
def side() -> Iterator[Side]:
    started = start_alone(load_ohm=LOAD_OHM, transport="pty")
    made = Side(started.settings["port"], BoardControl(started.control))
    yield made
    print(f"\n{len(made.passed)} passed: {', '.join(made.passed)}")
    made.control.close()
    started.stop()


def opened(port: str, **settings: Any) -> serial.Serial:
    """As the hosts open it, without the parity bit that a pseudo-terminal refuses."""
    return serial.Serial(port, **{**settings, "parity": serial.PARITY_NONE, "timeout": PATIENCE_S})


# libarc1


@pytest.fixture(scope="module")
def library(side: Side) -> Iterator[Any]:
    arc = pytest.importorskip(
        "libarc1.arc",
        reason="libarc1 is not installed (pip install --no-deps libarc1: it asks for NumPy 1)",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arc, "serial", SimpleNamespace(**{**vars(serial), "Serial": opened}))
        yield arc.ArC1(side.port)


@pytest.mark.parametrize(
    ("module", "keys", "told"),
    [
        ("RA", {"words": 4, "bits": 5}, 20),
        ("RM", {}, 2),
        ("RET", {"step": 0.01, "duration": 0.03}, 6),
        ("FF", {"Rthr": 1.0}, 2 * (1 + 12 * 4)),
        ("CT", {"cycles": 2, "Vstart": 0.25, "Vstep": 0.25, "PW": 1e-3}, 2 * 2 * 2 * 7),
        ("EN", {}, 2 * 20),
        ("CTS", {"Rtarget": LOAD_OHM * 2, "PWmin": 1e-3, "PWmax": 2e-3}, None),
        # Its SwitchSeeker sends the job as "b'152'", which no board knows.
        ("CRA", {}, 2 * 2),
    ],
)
def test_libarc1_runs_its_modules(
    side: Side, library: Any, module: str, keys: dict[str, Any], told: int | None
) -> None:
    if module not in library.modules:
        pytest.skip(f"this libarc1 has no {module}")
    found: list[Any] = []
    kind = library.modules[module]
    made = kind(library, found.append)
    made.run(DEVICES, getattr(kind, "default_config", {}) | keys)
    assert told is None or len(found) == told
    assert len(found) > 0
    assert [row[2] for row in found] == pytest.approx([LOAD_OHM] * len(found), rel=1e-4)
    assert library._port.in_waiting == 0
    assert side.is_in_step()
    side.passed.append(f"libarc1 {kind.name}")


def test_libarc1_reads_and_pulses_word_lines_together(side: Side, library: Any) -> None:
    if "MB" not in library.modules:
        pytest.skip("this libarc1 has no MB")
    kind, found = library.modules["MB"], []
    kind(library, found.append).run(conf=kind.default_config)
    assert found == [(1, pytest.approx(2 * 0.5 / LOAD_OHM, rel=1e-4))]
    assert library._port.in_waiting == 0
    assert side.is_in_step()
    side.passed.append(f"libarc1 {kind.name}")


# arc1_pyqt


class One(float):
    """A reading of one float, which the host takes for a number here and for an array there."""

    def __getitem__(self, at: int) -> float:
        return [float(self)][at]


@pytest.fixture(scope="module")
def panels(side: Side) -> Iterator[Callable[[str], Any]]:
    """The panel modules of arc1_pyqt by name, over a connection to the board."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QT_QPA_PLATFORM", "offscreen")
        found = pytest.importorskip("arc1pyqt", reason="arc1-pyqt is not installed")
        instrument = import_module("arc1pyqt.instrument")
        widgets = import_module("PyQt5.QtWidgets")
        # Kept for as long as its widgets are.
        application = widgets.QApplication([])
        state = import_module("arc1pyqt.state")
        patch.setattr(instrument, "Serial", opened)

        class Board(instrument.ArC1):  # type: ignore[name-defined, misc]
            def read_floats(self, how_many: int) -> Any:
                """As the host's, but not for ever."""
                data = self._port.read(4 * how_many)
                assert len(data) == 4 * how_many, "the board is silent"
                values = np.frombuffer(data, dtype=np.float32)
                return One(values[0]) if how_many == 1 else values

        state.hardware.conf = instrument.HWConfig(Vread=0.2)
        state.hardware.ArC = Board(side.port)
        state.hardware.ArC.initialise(state.hardware.conf)
        yield lambda name: import_module(f"{found.__name__}.ProgPanels.{name}")
        state.hardware.ArC.close()
        application.quit()


SPIKE = ([0.0, 1e-3, 2e-3], [0.0, 1.0, 0.0])
CONVERGE = {
    **{"vmin": 0.5, "vstep": 0.1, "vmax": 1.5, "pwmin": 1e-4, "pwstep": 100.0, "pwmax": 4e-4},
    **{"interpulse": 1e-3, "res_target": 5e3, "res_target_tolerance": 5.0},
    **{"res_initial_tolerance": 5.0, "pulses": 1, "init_pol": 1},
}
STATES: dict[str, Any] = {
    **{"pulse_duration": 1e-4, "vmin": 0.5, "vstep": 0.5, "vmax": 2.0, "interpulse": 1e-3},
    **{"trailer_reads": 3, "prog_pulses": 2, "tolerance_band": 10, "read_write": 0},
    **{"state_mode": 1, "single_phase_run": True, "stability_voltage": 2.0, "stability_pw": 1e-4},
    **{"stability_mode": "linear", "stability_slope": 10.0, "stability_tmetric": 50.0},
    **{"stability_tmax": 0.2, "state_reads": 3, "state_prog_pulses": 2, "state_stdev": 2},
    **{"state_monotonic": 0, "state_counter_reset": 0, "state_pulse_duration": 1e-4},
    **{"state_vmin": 0.5, "state_vstep": 0.5, "state_vmax": 3.0, "state_interpulse": 1e-3},
    **{"state_retention": 0.01, "state_voltage": 1.0, "state_pwmin": 1e-5, "state_pwstep": 1e-5},
    **{"state_pwmax": 5e-5, "state_prog_pulses_min": 1, "state_prog_pulses_step": 1},
    **{"state_prog_pulses_max": 4},
}
FIT = {
    **{"vstart_pos": 0.5, "vstop_pos": 1.1, "vstep_pos": 0.5, "vstart_neg": -0.5},
    **{"vstop_neg": -1.1, "vstep_neg": -0.5, "pulse_width": 1e-4, "interpulse": 1e-3},
    **{"pulses": 3, "run_iv": True, "ivstop_pos": 0.5, "ivstop_neg": 0.5, "ivstart": 0.1},
    **{"ivstep": 0.1, "iv_interpulse": 1e-3, "ivpw": 1e-3, "ivtype": 0},
}


def states(phase: int, mode: str = "voltage") -> Callable[[Any], Any]:
    keys = STATES | {"single_phase_run_phase": phase, "assess_mode": mode}
    return lambda panel: panel.ThreadWrapper(DEVICES, keys)


@pytest.mark.parametrize(
    ("name", "lines", "thread", "points"),
    [
        (
            "FormFinder",
            (14, 0.5, 0.5, 1.5, 1e-4, 100.0, 1e-3, 1e-3, 10.0, 0.0, 7, 2),
            lambda p: p.ThreadWrapper(DEVICES),
            2 * (1 + 3 * 4 * 2),
        ),
        (
            "FormFinder",
            (141, -0.5, -0.5, -1.5, 1e-4, 1e-4, 4e-4, 1e-3, 10.0, 0.0, 1, 7, 2),
            lambda p: p.ThreadWrapper(DEVICES),
            None,
        ),
        (
            "CurveTracer",
            (201, 1.0, 1.0, 0.05, 0.05, 0.0, 0.01, 0.0, 0.0, 2, 0, 0, 0),
            lambda p: p.ThreadWrapper(DEVICES, 2),
            None,
        ),
        (
            "Endurance",
            (191, 1.0, 1e-4, 0.0, -1.0, 1e-4, 0.0, 0.0, 1, 1, 10),
            lambda p: p.ThreadWrapper(DEVICES),
            2 * 20,
        ),
        (
            "SwitchSeeker",
            (15, 1e-4, 0.5, 0.5, 2.0, 1e-3, 1e6, 2, 2, 2, 10, 0, 0),
            lambda p: p.ThreadWrapper(DEVICES),
            2 * (2 + 8 * 4),
        ),
        (
            "SwitchSeeker",
            (152, 1e-4, 0.5, 0.5, 2.0, 1e-3, 1e6, 2, 2, 2, 10, 1, 1),
            lambda p: p.ThreadWrapper(DEVICES),
            2 * (2 + 2 * (2 + 4 * 4)),
        ),
        (
            "VolatilityRead",
            (33, 2.0, 1e-4, 60.0, 100.0),
            lambda p: p.ThreadWrapper(DEVICES, 2.0, 1e-4, 60, 1, 10.0, 0.1, "T-Test"),
            None,
        ),
        (
            "VolatilityRead",
            (33, 2.0, 1e-4, 10.0, 100.0),
            lambda p: p.ThreadWrapper(DEVICES, 2.0, 1e-4, 10, 0.1, 10.0, 0.1, "FixTime"),
            None,
        ),
        (
            "STDP",
            (40,),
            lambda p: p.ThreadWrapper(
                DEVICES, [1, 1, 2e-3, *map(list, SPIKE), *map(list, SPIKE)], [0, 1e-3, -1e-3]
            ),
            2 * (1 + 3 * 2 + 1),
        ),
        (
            "MultiBias",
            (50, 1.0, 1e-4, 0.5, 2, 1, 2, 1, 2),
            lambda p: p.ThreadWrapper([1, 2], 1, 2, 1.0, 1e-4),
            64,
        ),
        ("ChronoAmperometry", (), lambda p: p.ThreadWrapper(DEVICES, CHRONO), 2 * 5),
        ("ConvergeToState", (), lambda p: p.ThreadWrapper(DEVICES, CONVERGE), None),
        ("Retention", (), lambda p: p.ThreadWrapper(DEVICES, 0.05, 0.1, 0.2), None),
        ("MultiStateSeeker", (), states(1), None),
        ("MultiStateSeeker", (), states(2), None),
        ("MultiStateSeeker", (), states(3), None),
        ("MultiStateSeeker", (), states(3, "pulse"), None),
        ("MultiStateSeeker", (), states(3, "program"), None),
        ("ParameterFit", (), lambda p: p.ThreadWrapper(DEVICES, FIT), None),
    ],
)
def test_arc1_pyqt_runs_its_panels(
    side: Side,
    panels: Callable[[str], Any],
    name: str,
    lines: tuple[float, ...],
    thread: Callable[[Any], Any],
    points: int | None,
) -> None:
    panel = panels(name)
    board = panel.HW.ArC
    board.write_b("".join(f"{line}\n" for line in lines))
    found: list[tuple[Any, ...]] = []
    made = thread(panel)
    made.sendData.connect(lambda *row: found.append(row))
    made.run()
    assert points is None or len(found) == points
    assert len(found) > 0
    # Of a state the host tells another number; of none is the resistance anything but the load's.
    assert [row[2] for row in found] == pytest.approx([LOAD_OHM] * len(found), rel=1e-4)
    assert board.port.in_waiting == 0
    assert side.is_in_step()
    side.passed.append(f"{name} {' '.join(map(str, lines[:1]))}".strip())


CHRONO = {"bias": 0.5, "pw": 0.1, "num_reads": 5}


def test_arc1_pyqt_reads_word_lines_together_and_the_version(
    side: Side, panels: Callable[[str], Any]
) -> None:
    panel = panels("MultiBias")
    board = panel.HW.ArC
    board.write_b("50\n1.0\n0.0001\n0.5\n2\n1\n1\n1\n2\n")
    found: list[float] = []
    made = panel.ThreadWrapper([1, 2], 1, 1, 1.0, 1e-4)
    made.updateCurrentRead.connect(found.append)
    made.run()
    assert found == pytest.approx([2 * 0.5 / LOAD_OHM], rel=1e-4)
    told = type(board).firmware_version
    version = told.fget(board) if isinstance(told, property) else board.firmware_version()
    assert version == (3, 2)
    assert side.is_in_step()
    side.passed.append("MultiBias read")
