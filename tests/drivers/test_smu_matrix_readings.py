"""What reaches the cells behind a matrix, and what a reading is worth, with the rack in the same
process as referee.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chain_benches import CHAINS, bench_text
from hypothesis import given
from hypothesis import strategies as st

from rram_hil.array import Apply, ApplyResult, Cells, Geometry, Limits, Scheme, Status, Step, Stop
from rram_hil.bench.bench_file import parse_bench_file
from rram_hil.drivers.dialects.setups import SetupSourceMeter
from rram_hil.drivers.dialects.tsp import TspInstrument
from rram_hil.drivers.keithley_2600b import Keithley2600B
from rram_hil.drivers.matrix.routes import Router
from rram_hil.drivers.matrix.wiring import Wiring
from rram_hil.drivers.simulated.array.terminals import Drive, Sensed
from rram_hil.drivers.simulated.rack import Rack
from rram_hil.drivers.simulated.server.control import ControlServer
from rram_hil.drivers.smu_matrix import SmuMatrix
from rram_hil.errors import BenchError, ConfigError, InstrumentError, UnknownOutcomeError
from rram_hil.hardware import instrument
from rram_hil.hardware.abilities import ScriptedSourceMeter
from rram_hil.hardware.far_side import FarSideRequest
from rram_hil.hardware.instrument import Instrument, instrument_class
from rram_hil.pytest_plugin import LIMITS
from rram_hil.simulation.chip import Fault
from rram_hil.wire.bench_clock import FarClock

TSP, TRIGGERED, PLAIN = CHAINS
SIZE = 3
READ = Step(0.2, 0.0, 3.0, 5e-3, "current")
FORM = Step(3.6, 0.0, 2.0, 2e-3)


@dataclass
class Rig:
    """A rack, the driver in front of it, and the levels that the matrix rows have had, in order."""

    rack: Rack
    driver: SmuMatrix
    seen: list[dict[str, float]] = field(default_factory=list)
    number: int = 0

    @property
    def cells(self) -> Cells:
        """Every cell."""
        return Cells.block(0, np.arange(SIZE), np.arange(SIZE))

    def do(self, *steps: Step, cells: Cells | None = None, **options: Any) -> ApplyResult:
        """Apply steps to cells."""
        self.number += 1
        operation = Apply(self.cells if cells is None else cells, steps, **options)
        result = self.driver.execute(operation, self.number)
        assert isinstance(result, ApplyResult)
        return result

    @property
    def g(self) -> np.ndarray[Any, Any]:
        """True conductance of each cell, flat."""
        with self.rack.bus.lock:
            return np.array(self.rack.truth("conductance_s")).ravel()

    @property
    def status(self) -> dict[str, Any]:
        """Ground truth of the rack."""
        return self.rack.control({"do": "status"})


def rig_of(
    folder: Path,
    chain: str = TSP,
    cell: str = "1T1R",
    change: Callable[[str], str] = lambda text: text,
    *,
    arm: bool = True,
) -> Rig:
    """A rack in this process with the driver connected and armed."""
    text = change(bench_text(chain, cell, SIZE, device="paper"))
    tables = tomllib.loads(text)
    file = parse_bench_file(tables, path=folder / "bench.toml")
    assert file.simulation is not None
    settings = file.driver.settings
    simulation = file.simulation.model_copy(update={"read_noise": False})
    rack = Rack(
        FarSideRequest(simulation, file.chip.geometry, file.limits, "test", folder, settings)
    )
    resources = {name: resource for name, _, resource in rack.addresses["instruments"]}
    instruments = {
        name: section | {"resource": resources[name], "timeout_s": 5.0}
        for name, section in settings["instruments"].items()
    }
    control = ControlServer(rack.control)
    config = SmuMatrix.Config.model_validate(
        settings | {"instruments": instruments, "clock": control.address}
    )
    driver = SmuMatrix(config, file.chip.geometry, file.limits)
    rig = Rig(rack, driver)
    drive = rack.world.drive

    def told(row: str, wanted: Drive) -> None:
        drive(row, wanted)
        # Private: the levels at each moment are told nowhere else.
        rig.seen.append({r: d.level for r, d in rack.world._drives.items()})

    rack.world.drive = told  # type: ignore[method-assign]
    driver.connect()
    if arm:
        driver.arm()
    return rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    """Makes racks; afterwards nothing may have been switched hot and everything must go off."""
    made: list[Rig] = []

    def make(*args: Any, **options: Any) -> Rig:
        made.append(rig_of(tmp_path, *args, **options))
        return made[-1]

    yield make
    for one in made:
        assert (one.status["hot_switches"], one.status["shorts"]) == (0, 0)
        one.driver.safe_off()
        assert not one.status["outputs_on"]
        one.driver.close()
        for server in one.rack.servers.values():
            server.stop()


def _router(cell: str, channels: int, source_lines: str = "common", **limits: float) -> Router:
    geometry = Geometry(1, 2, 3, cell, source_lines)  # type: ignore[arg-type]
    sl = {"common": "10", "row": "10-11", "column": "10-12"}[source_lines]
    names = {f"s.{k}": "ABCD"[k] for k in range(channels)}
    wiring = Wiring(channels=names, ground="G", bl="4-6", sl=sl, wl="" if cell == "1R" else "1-2")
    return Router(wiring, geometry, Limits.model_validate(LIMITS | limits))


def _one(*steps: Step, unselected: Scheme = Scheme.INHIBIT, **more: Any) -> Apply:
    return Apply(Cells.of([(0, 1, 2)]), steps, unselected, **more)


# Levels on their way


@pytest.mark.parametrize(
    ("router", "step", "unselected"),
    [
        # A read of 0.2 V on lines lifted to 1.8 V: one of them is there first.
        (_router("1T1R", 3), Step(2.0, 1.8, 3.0, 1e-3, "current"), Scheme.INHIBIT),
        (_router("1T1R", 3), Step(-2.0, -1.8, 1.0, 1e-3), Scheme.INHIBIT),
        (_router("1R", 2, "row"), Step(2.0, 1.5, 0.0, 1e-3), Scheme.GROUNDED),
        (_router("1R", 2, "row"), Step(2.0, 1.5, 0.0, 1e-3), Scheme.FLOATING),
    ],
)
def test_lines_that_would_pass_more_than_their_difference_on_the_way_are_refused(
    router: Router, step: Step, unselected: Scheme
) -> None:
    with pytest.raises(ConfigError, match="one after the other"):
        router.routes(_one(step, unselected=unselected))


def test_a_gate_that_is_up_before_the_lines_is_held_to_the_limit_of_the_oxide() -> None:
    router = _router("1T1R", 3, gate_over_v=2.5)
    with pytest.raises(ConfigError, match="gate rises first"):
        router.routes(_one(Step(0.2, 0.2, 2.6, 1e-3)))


def test_the_shifted_pair_of_a_resistive_array_stays_within_the_limits_of_its_lines() -> None:
    router = _router("1R", 2, "row", bl_v=2.0, half_select_v=4.0)
    with pytest.raises(ConfigError, match=r"BL .* limit of 2 V"):
        router.routes(_one(Step(0.0, 2.5, 0.0, 1e-3)))


def test_the_current_of_a_driven_source_line_is_not_that_of_its_row() -> None:
    with pytest.raises(ConfigError, match="whole row"):
        _router("1R", 2, "row").routes(
            _one(Step(0.0, 0.9, 0.0, 1e-3, "current"), unselected=Scheme.GROUNDED)
        )


def test_a_gate_that_floats_has_no_current_to_measure() -> None:
    with pytest.raises(ConfigError, match="floats"):
        _router("1T1R", 2).routes(_one(Step(0.2, 0.0, None, 1e-3, "gate")))


@pytest.mark.parametrize("chain", CHAINS)
def test_the_gate_is_up_first_and_down_last(rig: Callable[..., Rig], chain: str) -> None:
    bench = rig(chain)
    bench.seen.clear()
    bench.do(READ, FORM, cells=Cells.of([(0, 1, 1)]))
    levels = [(abs(s["A"]) > 1e-3, abs(s["B"]) > 1e-3) for s in bench.seen]
    assert (True, False) not in levels
    assert (True, True) in levels


def test_a_gate_stands_along_its_row_and_is_down_where_its_relays_move(
    rig: Callable[..., Rig],
) -> None:
    bench = rig(TRIGGERED)
    bench.do(READ)
    assert _rises(bench) == [3.0] * SIZE
    volts = np.array([2.0, 2.0, 2.5] + [3.0] * (SIZE * SIZE - 3))
    bench.seen.clear()
    assert np.all(bench.do(Step(0.2, 0.0, volts, 5e-3, "current")).status == Status.OK)
    assert _rises(bench) == [2.0, 2.5] + [3.0] * (SIZE - 1)


def _rises(bench: Rig) -> list[float]:
    """The levels that the gate has gone up to."""
    levels = [0.0, *(round(seen["B"], 2) for seen in bench.seen)]
    return [after for before, after in itertools.pairwise(levels) if after > before]


@pytest.mark.parametrize("chain", CHAINS)
def test_a_level_lasts_as_long_as_asked(rig: Callable[..., Rig], chain: str) -> None:
    bench = rig(chain)
    lasted = _lasting(bench)["A"]
    for measure in ("no", "current"):
        lasted.clear()
        bench.do(Step(1.0, 0.0, 2.0, 2e-3, measure), cells=Cells.of([(0, 1, 1)]))  # type: ignore[arg-type]
        assert sum(lasted) == pytest.approx(2e-3, rel=0.15)


@pytest.mark.parametrize("chain", [TSP, TRIGGERED])
def test_half_the_volts_stand_for_the_width_alone(rig: Callable[..., Rig], chain: str) -> None:
    bench = rig(chain, "1R")
    lasted = _lasting(bench)
    bench.do(Step(2.0, 0.0, 0.0, 1e-3), cells=Cells.of([(0, 1, 1)]), unselected=Scheme.HALF)
    # The script of the one sets the two channels some microseconds apart; the world counts that as
    # segments of their own.
    assert sum(lasted["A"]) == pytest.approx(1e-3, rel=0.05)
    assert sum(lasted["B"]) == pytest.approx(1e-3, rel=0.05)
    if chain == TRIGGERED:
        assert np.array(bench.rack.chip.pulses).tolist() == [[[0, 1, 0], [1, 1, 1], [0, 1, 0]]]


def _lasting(bench: Rig) -> dict[str, list[float]]:
    """How long each row has more than a read's volts, filled as time passes."""
    lasted: dict[str, list[float]] = {"A": [], "B": []}
    advance = bench.rack.world.advance

    def counted(seconds: float) -> None:
        for row, passed in lasted.items():
            # Private: the level at this very moment.
            if abs(bench.rack.world._drives[row].level) > 0.3:
                passed.append(seconds)
        advance(seconds)

    bench.rack.world.advance = counted  # type: ignore[method-assign]
    return lasted


def test_a_line_that_only_the_host_could_time_is_not_put_to_stress(rig: Callable[..., Rig]) -> None:
    bench = rig(PLAIN, "1R")
    assert Scheme.HALF not in bench.driver.capabilities.schemes
    for step in (Step(2.0, 0.0, 0.0, 1e-3, "current"), Step(1.0, -1.0, 0.0, 1e-3)):
        with pytest.raises(ConfigError, match="host"):
            bench.do(step, unselected=Scheme.GROUNDED)
    assert not np.array(bench.rack.chip.pulses).any()


# What a reading is worth


@pytest.mark.parametrize("chain", CHAINS)
def test_a_channel_that_does_not_reach_its_level_shows_in_the_status(
    rig: Callable[..., Rig], chain: str
) -> None:
    """A bit line that feeds shorted neighbours sags; the source line, where the current is
    measured, is well.
    """
    bench = rig(chain, "1R", lambda text: text.replace("current_a = 1e-3", "current_a = 5e-6"))
    column = Cells.of([(0, 1, 0), (0, 2, 0)])
    bench.rack.control(
        {
            "do": "damage",
            "fault": int(Fault.SHORT),
            "cells": column.index(bench.driver.geometry).tolist(),
        }
    )
    result = bench.do(READ, cells=Cells.of([(0, 0, 0), (0, 0, 1)]))
    assert result.status[:, 0].tolist() == [Status.COMPLIANCE, Status.OK]
    assert result.conductance_s[1, 0] == pytest.approx(bench.g[1], rel=0.05, abs=1e-8)


@pytest.mark.parametrize("is_told", [True, False])
@pytest.mark.parametrize("chain", CHAINS)
def test_a_reading_at_compliance_ends_a_cells_steps_where_the_bench_file_says_so(
    rig: Callable[..., Rig], chain: str, is_told: bool
) -> None:
    model = next(f'model = "{m}"' for m in ("2636B", "B2902A", "2450") if m in bench_text(chain))
    said = f"{model}\nstop_at_compliance = {str(is_told).lower()}"
    bench = rig(chain, "1T1R", lambda text: text.replace(model, said))
    cells = Cells.of([(0, 1, 0), (0, 1, 1)])
    shorted = cells[np.array([0])].index(bench.driver.geometry).tolist()
    bench.rack.control({"do": "damage", "fault": int(Fault.SHORT), "cells": shorted})
    pulse = Step(1.0, 0.0, 2.0, 2e-3)
    result = bench.do(READ, pulse, READ, cells=cells, compliance_a=1e-6)
    limited = [Status.COMPLIANCE, Status.NOT_RUN if is_told else Status.COMPLIANCE]
    assert result.status.tolist() == [limited, [Status.OK, Status.OK]]
    assert result.pulses.tolist() == [0 if is_told else 1, 1]
    assert result.reads.tolist() == [1 if is_told else 2, 2]


@pytest.mark.parametrize("chain", CHAINS)
def test_a_gate_measurement_never_ends_a_cells_steps(rig: Callable[..., Rig], chain: str) -> None:
    bench = rig(chain)
    gate = Step(0.2, 0.0, 3.0, 5e-3, "gate")
    low, high = float(bench.g.min()) * 0.5, 1.0
    result = bench.do(gate, READ, gate, READ, stop=Stop(above_s=high, below_s=low))
    assert np.all(result.status != Status.NOT_RUN)
    assert np.all(np.isnan(result.conductance_s[:, [0, 2]]))
    assert np.all(np.abs(result.current_a[:, 0]) < 1e-8)


@pytest.mark.parametrize("chain", CHAINS)
def test_a_reading_without_volts_never_ends_a_cells_steps(
    rig: Callable[..., Rig], chain: str
) -> None:
    bench = rig(chain)
    nothing = Step(0.0, 0.0, 3.0, 5e-3, "current")
    result = bench.do(nothing, READ, stop=Stop(above_s=1.0))
    assert np.all(result.status[:, 0] == Status.NOT_A_NUMBER)
    assert np.all(result.status[:, 1] == Status.OK)


@pytest.mark.parametrize("chain", CHAINS)
def test_reads_are_taken_in_the_range_of_a_read(rig: Callable[..., Rig], chain: str) -> None:
    """Beside pulses of volts, a read in the pulses' range would be off by that range's offset."""
    bench = rig(chain)
    ranges: list[float] = []
    sense = bench.rack.world.sense

    def looked(row: str) -> Any:
        # Private: the level at this very moment.
        if row == "A" and 0.1 < abs(bench.rack.world._drives["A"].level) < 0.3:
            ranges.append(_range_of(bench, chain))
        return sense(row)

    bench.rack.world.sense = looked  # type: ignore[method-assign]
    result = bench.do(FORM, READ)
    assert np.all(result.status == Status.OK)
    assert ranges
    assert max(ranges) < 2.0
    assert np.all(result.pulses == 1)


def _range_of(bench: Rig, chain: str) -> float:
    if chain == TSP:
        return float(bench.rack.instruments["smu"].smus["a"].source_range["v"])  # type: ignore[attr-defined]
    if chain == TRIGGERED:
        return float(bench.rack.instruments["smu"]._outputs[1].source_range["VOLT"])  # type: ignore[attr-defined]
    return float(bench.rack.instruments["bl"].source_scale["VOLT"].full)  # type: ignore[attr-defined]


@pytest.mark.parametrize("chain", CHAINS)
def test_cells_of_many_rows_in_any_order_keep_their_places(
    rig: Callable[..., Rig], chain: str
) -> None:
    bench = rig(chain)
    bench.do(FORM, cells=Cells.of([(0, 0, 2), (0, 2, 0), (0, 1, 1)]))
    order = np.random.default_rng(3).permutation(SIZE * SIZE)
    shuffled = bench.cells[order]
    volts = np.linspace(0.1, 0.2, SIZE * SIZE)
    wide = Step(volts, 0.0, 3.0, 10e-3, "current")
    result = bench.do(READ, wide, cells=shuffled, repeat=2)
    assert result.conductance_s.shape == (SIZE * SIZE, 4)
    for k in range(4):
        assert np.allclose(result.conductance_s[:, k], bench.g[order], rtol=0.01, atol=2e-8)
    assert np.all(result.reads == 4)
    assert np.all(np.diff(result.time_s, axis=1) > 0)


@pytest.mark.parametrize("chain", CHAINS)
def test_an_empty_batch_moves_nothing(rig: Callable[..., Rig], chain: str) -> None:
    bench = rig(chain)
    closures = bench.status["closures"]
    result = bench.do(READ, cells=Cells.of([]))
    assert result.conductance_s.shape == (0, 1)
    assert bench.status["closures"] == closures


def _row_s(seconds: float) -> tuple[str, str]:
    return '[driver]\nname = "smu-matrix"\n', f'[driver]\nname = "smu-matrix"\nrow_s = {seconds}\n'


def _one_row_at_a_time(text: str) -> str:
    """A stretch of a triggered chain holds the cells of one row, read for 5 ms each."""
    return text.replace(*_row_s(0.03))


@pytest.mark.parametrize("chain", [TSP, TRIGGERED])
def test_long_reads_last_their_width(rig: Callable[..., Rig], chain: str) -> None:
    """Longer than the longest integration, and longer than one stretch may last for a cell's steps
    together.
    """
    longest = "read_width_s = 0.1", "read_width_s = 5.0"
    bench = rig(chain, change=lambda t: t.replace(*_row_s(4.0)).replace(*longest))
    long = Step(0.2, 0.0, 3.0, 3.0, "current")
    before = bench.status["now_s"]
    turns = bench.driver.transactions
    result = bench.do(long, long, cells=Cells.of([(0, 0, 0)]))
    assert np.all(result.status == Status.OK)
    assert bench.status["now_s"] - before == pytest.approx(6.0, abs=0.3)
    assert bench.driver.transactions - turns >= 2


@pytest.mark.parametrize("chain", CHAINS)
def test_no_stretch_is_longer_than_its_bound(rig: Callable[..., Rig], chain: str) -> None:
    bench = rig(chain)
    assert bench.driver.capabilities.width_s.high <= bench.driver.capabilities.abort_s


def test_more_steps_than_one_list_holds_are_cut(rig: Callable[..., Rig]) -> None:
    bench = rig(TRIGGERED, change=lambda t: t.replace(*_row_s(10.0)))
    short = Step(0.1, 0.0, 3.0, 1e-3)
    cells = Cells.of([(0, 0, k) for k in range(SIZE)])
    result = bench.do(short, cells=cells, repeat=300)
    assert result.pulses.sum() == 0


# What fails, and what is left then


@pytest.mark.parametrize("chain", CHAINS)
def test_a_compliance_that_no_channel_has_is_refused_before_anything_moves(
    rig: Callable[..., Rig], chain: str
) -> None:
    bench = rig(chain)
    before = bench.status["closures"], len(bench.seen)
    with pytest.raises(ConfigError, match="compliance"):
        bench.do(FORM, compliance_a=1e-13)
    assert (bench.status["closures"], len(bench.seen)) == before
    assert not bench.status["outputs_on"]


@pytest.mark.parametrize("chain", CHAINS)
def test_whatever_breaks_in_the_middle_leaves_everything_off(
    rig: Callable[..., Rig], chain: str
) -> None:
    bench = rig(chain, change=_one_row_at_a_time if chain == TRIGGERED else str)
    # Private: the moment between two rows shows nowhere else.
    chained = bench.driver._chain
    assert chained is not None
    run, calls = chained.run, []

    def breaks(plan: Any, takes_s: float) -> Any:
        calls.append(plan)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return run(plan, takes_s)

    chained.run = breaks  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        bench.do(READ)
    assert not bench.status["outputs_on"]
    chained.run = run  # type: ignore[method-assign]
    assert np.all(bench.do(READ).status == Status.OK)


@pytest.mark.parametrize("chain", CHAINS)
def test_relays_that_failed_to_close_are_no_reading(rig: Callable[..., Rig], chain: str) -> None:
    bench = rig(chain)
    bench.do(READ)
    bench.rack.control({"do": "inject", "kind": "queue-full", "instrument": "matrix"})
    try:
        result = bench.do(READ)
    except BenchError:
        assert not bench.status["outputs_on"]
    else:
        assert np.allclose(result.conductance_s[:, 0], bench.g, rtol=0.01, atol=2e-8)


@pytest.mark.parametrize("chain", CHAINS)
def test_a_lost_link_in_a_row_of_pulses_is_an_unknown_outcome_with_all_off(
    rig: Callable[..., Rig], chain: str
) -> None:
    bench = rig(chain)
    name = "bl" if chain == PLAIN else "smu"
    bench.rack.control({"do": "inject", "kind": "disconnect-reply", "instrument": name})
    with pytest.raises(UnknownOutcomeError, match="may have been given"):
        bench.do(FORM, cells=Cells.of([(0, 0, 0)]))
    assert not bench.status["outputs_on"]
    assert np.array(bench.rack.chip.pulses).sum() <= 1
    assert np.all(bench.do(READ).status == Status.OK)


@pytest.mark.parametrize("chain", CHAINS)
def test_many_relays_that_somebody_else_closed_are_opened_before_a_reading(
    rig: Callable[..., Rig], chain: str
) -> None:
    """More names than one line of code holds."""
    bench = rig(chain)
    others = [(row, column) for row in "DEFGH" for column in range(13, 73)]
    bench.driver.instruments["matrix"].switch(close=others)  # type: ignore[attr-defined]
    bench.rack.world.shorts = 0
    # Private: so that it believes nothing about the relays.
    bench.driver._relays = None
    assert np.all(bench.do(READ).status == Status.OK)
    # Private: the truth, without the instrument.
    assert not bench.rack.world._closed & set(others)


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("kind", ["disconnect-reply", "disconnect-request", "line-overrun"])
def test_a_matrix_that_fails_in_a_row_leaves_everything_off(
    rig: Callable[..., Rig], chain: str, kind: str
) -> None:
    bench = rig(chain)
    bench.do(READ)
    bench.rack.control({"do": "inject", "kind": kind, "instrument": "matrix"})
    try:
        result = bench.do(FORM, READ)
    except BenchError:
        assert not bench.status["outputs_on"]
    else:
        assert np.allclose(result.conductance_s[:, 0], bench.g, rtol=0.01, atol=2e-8)
    assert np.array(bench.rack.chip.pulses).max() <= 1
    bench.rack.control({"do": "clear"})
    assert np.all(bench.do(READ).status == Status.OK)


def test_an_output_that_stays_on_after_a_row_is_told(rig: Callable[..., Rig]) -> None:
    bench = rig(TSP)
    smu = bench.driver.instruments["smu"]
    smu.run("function rram.finish() print('on', 1) end")  # type: ignore[attr-defined]
    with pytest.raises(InstrumentError, match="still on"):
        bench.do(READ)


def test_the_mains_that_the_instrument_tells_counts(rig: Callable[..., Rig]) -> None:
    bench = rig(TSP)
    smu = bench.driver.instruments["smu"]
    # Private: what the driver has read from the instrument.
    assert smu.line_hz == smu._line_hz  # type: ignore[attr-defined]
    bench.driver.instruments["smu"]._line_hz = 60.0  # type: ignore[attr-defined]
    said: list[str] = []
    lines = smu.lines  # type: ignore[attr-defined]
    smu.lines = lambda code, **more: (said.append(code), lines(code, **more))[1]  # type: ignore[attr-defined]
    bench.do(Step(0.2, 0.0, 3.0, 0.05, "current"), cells=Cells.of([(0, 0, 0)]))
    assert "measure.nplc = 3.0" in said[0]


@pytest.mark.parametrize("chain", CHAINS)
def test_arming_twice_and_connecting_again_work_and_touch_nothing_on_the_way(
    rig: Callable[..., Rig], chain: str
) -> None:
    bench = rig(chain)
    bench.do(READ)
    bench.driver.arm()
    bench.driver.arm()
    before = len(bench.seen), bench.status["closures"]
    bench.driver.connect()
    assert (len(bench.seen), bench.status["closures"]) == before
    bench.driver.arm()
    assert np.all(bench.do(READ).status == Status.OK)


# Wiring


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("tsp_node = 2", "tsp_node = 3", "node 3"),
        ('wl = "1-3"', 'wl = "1-2,80"', "column 80"),
        ('ground = "C"', 'ground = "Z"', "no row of the matrix"),
        ('"smu.b"', '"smu.c"', "smu.c"),
    ],
)
def test_wiring_that_does_not_fit_the_instruments_is_refused(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    rig = rig_of(tmp_path, arm=False)
    config = rig.driver.config
    wiring = config.wiring.model_dump()
    wiring = tomllib.loads(_as_toml(wiring).replace(old, new))
    changed = SmuMatrix.Config.model_validate(config.model_dump() | {"wiring": wiring})
    rig.driver.close()
    driver = SmuMatrix(changed, rig.driver.geometry, rig.driver.limits)
    with pytest.raises(ConfigError, match=said):
        _start(driver)
    driver.close()
    assert not rig.status["outputs_on"]


def _as_toml(wiring: dict[str, Any]) -> str:
    channels = ", ".join(f'"{c}" = "{r}"' for c, r in wiring["channels"].items())
    lines = [f"channels = {{ {channels} }}", f"tsp_node = {wiring['tsp_node']}"]
    return "\n".join([*lines, *(f'{k} = "{wiring[k]}"' for k in ("ground", "bl", "sl", "wl"))])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"smu": "matrix"}, "triggers.smu"),
        ({"smu_in": 2}, "line 2"),
        ({"matrix_in": 15}, "matrix_in"),
    ],
)
def test_trigger_lines_that_cannot_be_are_refused(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    rig = rig_of(tmp_path, TRIGGERED, arm=False)
    settings = rig.driver.config.model_dump()
    settings["wiring"]["triggers"] |= change
    rig.driver.close()
    with pytest.raises((ConfigError, ValueError), match=said):
        _start(
            SmuMatrix(
                SmuMatrix.Config.model_validate(settings), rig.driver.geometry, rig.driver.limits
            )
        )


def _start(driver: SmuMatrix) -> None:
    driver.connect()
    driver.arm()


BENCH_3706A = ('kind = "keithley-707b"\nmodel = "707B"', 'kind = "keithley-3706a"\nmodel = "3706A"')


@pytest.mark.parametrize("cell", ["1T1R", "1R"])
def test_a_3706a_is_driven_from_the_host(rig: Callable[..., Rig], cell: str) -> None:
    bench = rig(TSP, cell, lambda t: t.replace(*BENCH_3706A).replace("tsp_node = 2", ""))
    assert "host" in bench.driver.capabilities.link
    assert np.allclose(bench.do(READ).conductance_s[:, 0], bench.g, rtol=0.01, atol=2e-8)


def test_a_b1500a_reads_cells_from_the_host(rig: Callable[..., Rig]) -> None:
    old = '[driver.instruments.smu]\nkind = "keithley-2600b"\nmodel = "2636B"'
    new = '[driver.instruments.smu]\nkind = "keysight-b1500"\nmodel = "B1500A"'
    bench = rig(TSP, "1T1R", lambda t: _b1500(t, old, new))
    result = bench.do(FORM, READ)
    assert np.allclose(result.conductance_s[:, 0], bench.g, rtol=0.01, atol=2e-8)
    assert np.all(result.pulses == np.array(bench.rack.chip.pulses).ravel())


def _b1500(text: str, old: str, new: str) -> str:
    assert old in text
    text = text.replace(old, new).replace("tsp_node = 2", "")
    return text.replace('"smu.a" = "A", "smu.b" = "B"', '"smu.1" = "A", "smu.2" = "B"')


def test_a_708b_is_linked_as_a_707b_is(rig: Callable[..., Rig]) -> None:
    bench = rig(TSP, change=lambda t: t.replace('model = "707B"', 'model = "708B"'))
    assert bench.driver.capabilities.link.startswith("TSP")
    assert np.allclose(bench.do(READ).conductance_s[:, 0], bench.g, rtol=0.01, atol=2e-8)


def test_a_3706a_is_linked_too_for_its_scripts_switch_relays_as_well(
    rig: Callable[..., Rig],
) -> None:
    bench = rig(TSP, change=lambda t: t.replace(*BENCH_3706A))
    assert bench.driver.capabilities.link.startswith("TSP")
    assert np.allclose(bench.do(READ).conductance_s[:, 0], bench.g, rtol=0.01, atol=2e-8)


class Acme(TspInstrument, SetupSourceMeter, ScriptedSourceMeter):
    """A third party's source-meter: no subclass of the 2600B's driver, the same abilities."""

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self._setups: dict[str, Any] = {}


for _name, _member in vars(Keithley2600B).items():
    if not _name.startswith("__"):
        setattr(Acme, _name, _member)
Acme.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]


def test_another_source_meter_with_the_same_abilities_gets_the_same_chain(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(kind: str) -> type[Instrument]:
        return Acme if kind == "keithley-2600b" else instrument_class(kind)

    monkeypatch.setattr(instrument, "instrument_class", found)
    bench = rig(TSP)
    assert type(bench.driver.instruments["smu"]) is Acme
    assert bench.driver.capabilities.link.startswith("TSP")
    assert np.allclose(bench.do(READ).conductance_s[:, 0], bench.g, rtol=0.01, atol=2e-8)


@pytest.mark.parametrize("chain", CHAINS)
def test_relays_are_counted(rig: Callable[..., Rig], chain: str) -> None:
    bench = rig(chain)
    relays = (2 + 1) * (2 * SIZE + 1)
    assert bench.driver.wear() == f"none of {relays} relays has closed yet"
    bench.do(READ)
    closed = sum(bench.rack.world.closures.values())
    assert f"have closed {closed} times" in bench.driver.wear()


@pytest.mark.parametrize("chain", CHAINS)
def test_an_abort_keeps_what_was_done_and_ends_with_all_off(
    rig: Callable[..., Rig], chain: str
) -> None:
    bench = rig(chain, change=_one_row_at_a_time if chain == TRIGGERED else str)
    # Private: the moment between two rows shows nowhere else.
    chained = bench.driver._chain
    assert chained is not None
    run = chained.run

    def then_cancel(plan: Any, takes_s: float) -> Any:
        bench.driver.cancel.set()
        return run(plan, takes_s)

    chained.run = then_cancel  # type: ignore[method-assign]
    result = bench.do(READ)
    assert int((result.status == Status.OK).sum()) == SIZE == int(result.reads.sum())
    assert not bench.status["outputs"]["bl" if chain == PLAIN else "smu"]
    bench.driver.cancel.clear()


@pytest.mark.parametrize("chain", CHAINS)
def test_the_stated_uncertainty_covers_the_instruments_own(
    rig: Callable[..., Rig], chain: str
) -> None:
    can = rig(chain).driver.capabilities
    # Private: the data sheet of the channel, as the driver joins it.
    forces = rig(chain).driver._channel_limits(
        "bl.1" if chain == PLAIN else "smu.a" if chain == TSP else "smu.1"
    )
    for amps in np.geomspace(1e-9, 1e-3, 200):
        one = next(a for a in forces.measures_a if a.range >= amps)
        assert one.fraction * amps + one.offset <= can.read_fraction * amps + can.read_floor_a


@given(
    bl=st.floats(-3, 3).map(lambda v: round(v, 2)),
    sl=st.floats(-3, 3).map(lambda v: round(v, 2)),
    which=st.sampled_from(
        [("1T1R", 3, "common"), ("1T1R", 3, "row"), ("1T1R", 3, "column"), ("1R", 2, "row")]
    ),
    scheme=st.sampled_from([Scheme.INHIBIT, Scheme.GROUNDED, Scheme.FLOATING, Scheme.HALF]),
)
def test_no_level_on_its_way_is_more_than_what_was_asked(
    bl: float, sl: float, which: tuple[str, int, str], scheme: Scheme
) -> None:
    """Whatever is not refused: the selected cell sees its difference or less, or a read's volts, at
    every moment.
    """
    router, limits = _router(*which), Limits.model_validate(LIMITS)
    try:
        route = router.routes(_one(Step(bl, sl, 3.0, 1e-3), unselected=scheme))[0]
    except ConfigError:
        return
    on = {"bl": 0.0, "sl": 0.0}
    line_of = {route.bl: "bl", route.sl: "sl"}
    names = {f"s.{k}": "ABCD"[k] for k in range(which[1])}
    for channel, level in route.levels.items():
        if names[channel] in line_of:
            on[line_of[names[channel]]] = float(level[0])
        assert abs(on["bl"] - on["sl"]) <= max(abs(bl - sl), limits.read_v) + 1e-9
        assert abs(on["bl"]) <= limits.bl_v
        assert abs(on["sl"]) <= limits.sl_v
    assert on["bl"] - on["sl"] == pytest.approx(bl - sl)


def test_the_clock_of_a_bench_is_asked_by_many_threads(rig: Callable[..., Rig]) -> None:
    import threading

    bench = rig(TSP)
    clock = FarClock(bench.driver.config.clock)  # type: ignore[attr-defined]
    wrong: list[BaseException] = []

    def ask() -> None:
        try:
            for _ in range(100):
                assert clock.now_s() >= 0
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    clock.close()
    clock.close()
    assert not wrong


# A line that is held while another instrument times one


def _leak(bench: Rig, above_v: float) -> None:
    """Let the gate's channel (row B) be at its limit while the bit line's (row A) forces more."""
    world = bench.rack.world
    # Private: there is no cell whose gate leaks.
    look = world._at

    def leaking(circuit: Any, row: str) -> Sensed:
        sensed = look(circuit, row)
        leaks = row == "B" and abs(world._drives["A"].level) > above_v
        return replace(sensed, limited=True) if leaks else sensed

    world._at = leaking  # type: ignore[method-assign]


@pytest.mark.parametrize("above_v", [-1.0, 0.1])
def test_a_gate_that_is_limited_while_a_cell_is_read_is_told_with_the_reading(
    rig: Callable[..., Rig], above_v: float
) -> None:
    bench = rig(PLAIN)
    assert (bench.do(READ).status == Status.OK).all()
    _leak(bench, above_v)
    assert (bench.do(READ).status == Status.COMPLIANCE).all()


@pytest.mark.parametrize("above_v", [-1.0, 0.1])
def test_pulses_end_at_the_first_whose_gate_is_limited(
    rig: Callable[..., Rig], above_v: float
) -> None:
    bench = rig(PLAIN)
    _leak(bench, above_v)
    bench.seen.clear()
    with pytest.raises(UnknownOutcomeError, match=r"does not hold the word line at 2 V: .* leaks"):
        bench.do(FORM)
    levels = [0.0, *(seen["A"] for seen in bench.seen)]
    assert [after for before, after in itertools.pairwise(levels) if after != before] == [3.6, 0.0]
    assert not bench.status["outputs_on"]


def test_a_source_line_that_is_limited_before_the_bit_line_is_told(
    rig: Callable[..., Rig],
) -> None:
    more = '[driver.instruments.sl]\nkind = "keithley-2450"\nmodel = "2450"\n\n[driver.wiring]'

    def with_source_line(text: str) -> str:
        text = text.replace("[driver.wiring]", more)
        text = text.replace('"gate.1" = "B"', '"sl.1" = "D", "gate.1" = "B"')
        # It takes a tenth of a percent less for its limit.
        return f'{text}\n[simulation.errors.source_meters]\n"sl.1" = {{ gain_a = 1e-3 }}\n'

    bench = rig(PLAIN, change=with_source_line)
    bench.do(FORM)
    free = bench.do(READ)
    assert (free.status == Status.OK).all()
    limit_a = float(np.nanmin(free.current_a)) / 2
    assert (bench.do(READ, compliance_a=limit_a).status == Status.COMPLIANCE).all()
