"""Bodies and unselected word lines of an array behind a matrix, held by sources of their own."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chain_benches import CHAINS, PULSED, bench_text

from rram_hil import Bench
from rram_hil.array import Apply, Cells, Geometry, Limits, Status, Step, Stop, pulse, read, sweep
from rram_hil.drivers.matrix.wiring import Wiring
from rram_hil.drivers.simulated.array.terminals import Drive
from rram_hil.drivers.simulated.rack import Rack
from rram_hil.drivers.simulated.server.control import BoardControl, ControlServer
from rram_hil.drivers.smu_matrix import SmuMatrix
from rram_hil.errors import BenchError, ConfigError, InstrumentError, LimitError
from rram_hil.hardware.far_side import FarSideRequest
from rram_hil.pytest_plugin import GroundTruth
from rram_hil.simulation.cell_array import Fault, gate_opening
from rram_hil.simulation.config import BodyEffect, Simulation
from rram_hil.simulation.selectors import Selectors

SIZE = 3
TSP, TRIGGERED, PLAIN = CHAINS
SPGU, PULSER = PULSED
AUX = """
[driver.instruments.aux]
kind = "keithley-2600b"
model = "2636B"

[driver.wiring]
"""
IDLE = """
[driver.wiring.unselected_wl]
channel = "aux.b"
row = "F"
"""
ON_A_ROW = '\n[driver.wiring.body]\nchannel = "aux.a"\nrow = "E"\ncolumns = "60"\n' + IDLE
STRAIGHT = '\n[driver.wiring.body]\nchannel = "aux.a"\n' + IDLE
GATE_V = 1.1
Opened = tuple[Bench, GroundTruth, BoardControl]


def text_of(chain: str, held: str = ON_A_ROW, size: int = SIZE) -> str:
    text = bench_text(chain, size=size).replace("\n[driver.wiring]\n", AUX, 1)
    limits = "body_v = 2.0\nbody_over_v = 0.2\n"
    text = text.replace("\n[limits]\n", f"{held}\n[limits]\n{limits}", 1)
    return text.replace("[simulation]\n", "[simulation]\nread_noise = false\n", 1)


@pytest.fixture
def open_bench(tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """Opens a simulated bench; at the end nothing was switched hot, and all outputs are off."""
    opened: list[Opened] = []

    def make(chain: str, held: str = ON_A_ROW, size: int = SIZE) -> Opened:
        (tmp_path / "bench.toml").write_text(text_of(chain, held, size), encoding="utf-8")
        bench = Bench.open(tmp_path / "bench.toml")
        assert bench.far_side is not None
        opened.append((bench, GroundTruth(bench), BoardControl(bench.far_side.control)))
        step = replace(bench.file.read.step, width_s=2e-3)
        bench.do(
            sweep(
                *(bench.cells(), "bl", [2.4, 3.0, 3.6]),
                wl_v=2.0,
                width_s=2e-3,
                read=step,
                stop=Stop(above_s=20e-6),
            )
        )
        return opened[-1]

    yield make
    for bench, _, control in opened:
        told = control.status()
        assert (told["hot_switches"], told["shorts"], told["unsolved"]) == (0, 0, 0)
        bench.driver.safe_off()
        assert not control.status()["outputs_on"]
        bench.close()
        control.close()


def conductance(bench: Bench, step: Step) -> Any:
    result = bench.do(read(bench.cells(), step))
    assert (result.status == Status.OK).all()
    return result.last_s.reshape(SIZE, SIZE)


@pytest.mark.parametrize(
    ("chain", "held"),
    [
        (TSP, ON_A_ROW),
        pytest.param(TRIGGERED, STRAIGHT, marks=pytest.mark.long),
        pytest.param(PLAIN, STRAIGHT, marks=pytest.mark.long),
        pytest.param(PLAIN, ON_A_ROW, marks=pytest.mark.long),
    ],
)
def test_reads_see_the_body_and_the_word_lines_of_other_rows(
    open_bench: Callable[..., Opened], chain: str, held: str
) -> None:
    bench, truth, _ = open_bench(chain, held)
    assert bench.capabilities.step_extras == {"body_v", "unselected_wl_v"}
    g = truth.conductance_s()[0]
    # What the chain states of a reading.
    allowed = bench.capabilities.read_fraction * g + bench.capabilities.read_floor_a / 0.2
    half_open = replace(bench.file.read.step, wl_v=GATE_V)
    shift = Selectors("nmos", BodyEffect()).threshold_shift_v
    for body_v in (None, -1.0, 0.2):
        found = conductance(bench, replace(half_open, body_v=body_v))
        passed = gate_opening(np.array(GATE_V) - shift(np.array(-(body_v or 0.0))))
        assert np.all(np.abs(found - g * passed) <= allowed)
    closed = conductance(bench, replace(bench.file.read.step, unselected_wl_v=-0.5))
    assert np.all(np.abs(closed - g) <= allowed)
    opened = conductance(bench, replace(bench.file.read.step, unselected_wl_v=3.0, body_v=0.0))
    assert np.all(np.abs(opened - g.sum(axis=0)) <= SIZE * allowed.max())


@pytest.mark.long
@pytest.mark.parametrize("chain", [TSP, PLAIN])
def test_pulses_at_such_levels_change_the_selected_cells_alone(
    open_bench: Callable[..., Opened], chain: str
) -> None:
    bench, truth, _ = open_bench(chain)
    before = truth.conductance_s()[0]
    moved = Cells.of([(0, 0, 1), (0, 2, 1)])
    asked = pulse(*(moved,), sl_v=1.2, wl_v=3.0, width_s=2e-3, body_v=-0.5, unselected_wl_v=-0.5)
    bench.do(asked)
    changed = truth.conductance_s()[0] != before
    wanted = np.zeros((SIZE, SIZE), dtype=np.bool_)
    wanted[[0, 2], 1] = truth.named("stuck")[0][[0, 2], 1] == 0
    np.testing.assert_array_equal(changed, wanted)


@pytest.mark.long
@pytest.mark.parametrize("chain", [SPGU, PULSER])
def test_pulses_of_a_generator_stand_at_such_levels_too(
    open_bench: Callable[..., Opened], chain: str
) -> None:
    bench, truth, _ = open_bench(chain)
    before = truth.conductance_s()[0]
    one = Cells.of([(0, 1, 1)])
    bench.do(pulse(one, sl_v=1.5, wl_v=3.0, width_s=1e-6, body_v=-0.5, unselected_wl_v=-0.5))
    changed = np.flatnonzero(truth.conductance_s()[0] != before).tolist()
    assert changed == [] or changed == [4]


def test_what_a_wiring_cannot_do_is_refused_by_name(open_bench: Callable[..., Opened]) -> None:
    bench, _, _ = open_bench(PLAIN, '\n[driver.wiring.body]\nchannel = "aux.a"\n')
    one, step = Cells.of([(0, 0, 0)]), bench.file.read.step
    with pytest.raises(ConfigError, match=r"^unselected_wl_v: .* is not available on this bench"):
        bench.do(read(one, replace(step, unselected_wl_v=0.0)))
    with pytest.raises(ConfigError, match=r"^also_gate: .* is not available on this bench"):
        bench.do(read(one, replace(step, also_gate=True)))
    # The body stands at 0 V where nothing is said: 0.3 V above a line at -0.3 V.
    with pytest.raises(LimitError, match=r"body above the lowest line 0\.3 V is beyond"):
        bench.do(pulse(one, sl_v=-0.3, wl_v=0.0, width_s=2e-3))
    before = bench.driver.transactions
    with pytest.raises(ConfigError, match=r"^unselected_wl_v: "):
        bench.driver.execute(read(one, replace(step, unselected_wl_v=0.0)), 9)
    assert bench.driver.transactions == before


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({"body": {"channel": "aux.a", "row": "E"}}, "row and columns belong together"),
        ({"body": {"channel": "smu.a"}}, "need channels of their own"),
        ({"unselected_wl": {"channel": "aux.a", "row": "A"}}, "are on one matrix row"),
        ({"unselected_wl": {"channel": "aux.a"}}, "row"),
        ({"body": {"channel": "aux.a", "row": "E", "columns": "2"}}, "column 2 is given to two"),
    ],
)
def test_wiring_that_makes_no_sense_is_refused(held: dict[str, Any], words: str) -> None:
    lines = {"ground": "C", "wl": "1-3", "bl": "4-6", "sl": "7"}
    wiring = {"channels": {"smu.a": "A", "smu.b": "B"}, **lines}
    with pytest.raises(ValueError, match=words):
        Wiring.model_validate(wiring | held)


def test_an_array_without_selectors_has_no_such_wiring() -> None:
    wiring = Wiring.model_validate(
        {
            **{"channels": {"smu.a": "A", "smu.b": "B"}, "ground": "C", "bl": "1-3", "sl": "4-6"},
            "body": {"channel": "aux.a"},
        }
    )
    with pytest.raises(ConfigError, match="which a 1R array has not"):
        wiring.check(Geometry(1, 3, 3, "1R"))


@pytest.mark.long
def test_a_word_line_that_conducts_is_told_and_all_goes_off(
    open_bench: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, _, control = open_bench(PLAIN)
    monkeypatch.setattr("rram_hil.drivers.matrix.held.HELD_LIMIT_A", 1e-6)
    control.damage(Fault.GATE_LEAK, range(SIZE * SIZE))
    with pytest.raises(InstrumentError, match=r"aux\.b: 3 V is not reached within 1e-06 A"):
        bench.do(read(Cells.of([(0, 0, 0)]), replace(bench.file.read.step, unselected_wl_v=3.0)))
    assert not control.status()["outputs_on"]


class Told:
    """A rack in this process, and what its sources did, in order."""

    def __init__(self, chain: str, folder: Path) -> None:
        settings = tomllib.loads(text_of(chain))
        driver, limits = settings["driver"], Limits.model_validate(settings["limits"])
        geometry = Geometry(1, SIZE, SIZE, source_lines="common")
        del driver["name"]
        request = FarSideRequest(Simulation(device="paper"), geometry, limits, "c", folder, driver)
        self.rack = Rack(request)
        for name, _, resource in self.rack.addresses["instruments"]:
            driver["instruments"][name] |= {"resource": resource, "timeout_s": 10.0}
        control = ControlServer(self.rack.control)
        config = SmuMatrix.Config.model_validate(driver | {"clock": control.address})
        self.driver = SmuMatrix(config, geometry, limits)
        self.levels: dict[str, float] = {}
        self.moments: list[dict[str, float]] = []
        world = self.rack.world
        really = world.drive

        def drive(row: str, level: Drive) -> None:
            really(row, level)
            volts = level.level if level.function == "voltage" else 0.0
            if self.levels.get(row, 0.0) != volts:
                self.levels[row] = volts
                self.moments.append(dict(self.levels))

        world.drive = drive  # type: ignore[method-assign]
        self.driver.connect()
        self.driver.arm()

    def close(self) -> None:
        self.driver.close()
        for server in self.rack.servers.values():
            server.stop()


@pytest.mark.parametrize("chain", [TSP, PLAIN])
def test_bodies_rise_first_and_fall_last_and_gates_stand_between(
    chain: str, tmp_path: Path
) -> None:
    told = Told(chain, tmp_path)
    try:
        step = Step(0.2, 0.0, 3.0, 20e-3, "current", body_v=-0.5, unselected_wl_v=-0.4)
        told.driver.execute(Apply(Cells.all(told.driver.geometry), (step,)), 1)
    finally:
        told.close()
    order = ["E", "F", "B", "A"]  # body, other word lines, gate, bit line
    assert {row: told.moments[-1][row] for row in order} == dict.fromkeys(order, 0.0)
    for moment in told.moments:
        up = [bool(moment.get(row, 0.0)) for row in order]
        assert up == sorted(up, reverse=True), moment
    assert max(m.get("A", 0.0) for m in told.moments) == pytest.approx(0.2, abs=1e-4)


def test_a_bench_file_that_names_no_such_channel_is_refused(tmp_path: Path) -> None:
    text = text_of(PLAIN, ON_A_ROW.replace("aux.a", "aux.c"))
    (tmp_path / "bench.toml").write_text(text, encoding="utf-8")
    with pytest.raises(BenchError, match=r"body or unselected_wl: 'aux\.c' is no source-meter"):
        Bench.open(tmp_path / "bench.toml")
