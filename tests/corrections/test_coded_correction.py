"""Maps read by codes with a calibration in force: columns' gains, wires and transistors; and what
their uncertainties say then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rram_hil import Bench
from rram_hil.array import (
    Block,
    CodedRead,
    CodedReadResult,
    Program,
    ProgramResult,
    PulseTrain,
    Ramp,
    Status,
    pulse,
    read_step,
)
from rram_hil.bench.bench_file import BenchFile
from rram_hil.drivers.simulated_array import SimulatedArray
from rram_hil.errors import ConfigError
from rram_hil.hardware.driver import Capabilities

MakeBench = Callable[..., BenchFile]
MakeFile = Callable[..., str]
WHOLE = CodedRead((Block(0, 0, 8, 0, 8),))
OHM = [{"row": r, "column": c, "ohm": 1e4 * (1 + r + 8 * c)} for r in range(8) for c in range(8)]
TRUTH = np.array([1 / (1e4 * (1 + r + 8 * c)) for r in range(8) for c in range(8)])
GAIN = [0.05, -0.04, 0.03, 0.0, -0.02, 0.1, -0.1, 0.01]
OFFSET = [0.02, -0.03, 0.01, 0.0, 0.05, -0.05, 0.02, 0.01]


class WithoutCodes(SimulatedArray):
    """The same array behind a board that multiplies and knows no coded read."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, coded_read=False)


def opened(file: BenchFile, native: bool) -> Bench:
    bench = Bench.open(file)
    if not native:
        bench.driver.__class__ = WithoutCodes
    return bench


def z_of(found: CodedReadResult) -> NDArray[np.float64]:
    return np.asarray((found.conductance_s - TRUTH) / found.sigma_s)


@pytest.mark.parametrize("native", [True, False])
def test_gains_of_columns_are_corrected_and_offsets_do_nothing(
    bench_file: MakeBench, calibration: MakeFile, native: bool
) -> None:
    name = calibration(
        "board-converters", {"column_gain": (GAIN, [0.0] * 8), "column_offset": (OFFSET, [0.0] * 8)}
    )
    errors: dict[str, Any] = {"column_gain": GAIN, "column_offset": OFFSET}
    found = {}
    for key, files, keys in (
        ("raw", None, {"errors": errors}),
        ("corrected", {"files": [name]}, {"errors": errors}),
        ("offset", None, {"errors": {"column_offset": OFFSET}}),
    ):
        with opened(bench_file(files, resistors=OHM, **keys), native) as bench:
            found[key] = bench.do(WHOLE)
    assert found["raw"].way == ("board" if native else "multiply")
    wrong = found["raw"].conductance_s / TRUTH - 1
    assert wrong.reshape(8, 8)[0] == pytest.approx(GAIN, abs=0.02)
    for key in ("corrected", "offset"):
        assert np.sqrt(np.mean(z_of(found[key]) ** 2)) < 1.4
        assert found[key].conductance_s == pytest.approx(TRUTH, abs=1e-7)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("ohm", [0.0, 2.5, 20.0])
def test_wires_and_transistors_are_taken_off_the_whole_map(
    bench_file: MakeBench, calibration: MakeFile, ohm: float, native: bool
) -> None:
    name = calibration("lines", {"line_ohm": (ohm, 0.0), "access_ohm": (2000.0, 0.0)})
    keys: dict[str, Any] = {
        "errors": {"access_ohm": 2000.0},
        "line_ohm": ohm,
        "resistors": OHM,
        "adc_bits": 16,
    }
    with opened(bench_file(**keys), native) as bench:
        raw = bench.do(WHOLE)
    with opened(bench_file({"files": [name]}, **keys), native) as bench:
        found = bench.do(WHOLE)
        parts = bench.do(CodedRead((Block(0, 0, 3, 2, 5), Block(0, 3, 5, 0, 8))))
    assert np.abs(raw.conductance_s / TRUTH - 1).max() > 0.1
    assert found.conductance_s == pytest.approx(TRUTH, abs=2e-8)
    assert np.sqrt(np.mean(z_of(found) ** 2)) < 1.4
    # A block of its own sees only its own rows and columns, at their place in the array.
    cells = CodedRead((Block(0, 0, 3, 2, 5), Block(0, 3, 5, 0, 8))).cells
    assert parts.conductance_s == pytest.approx(TRUTH[cells.row * 8 + cells.column], abs=2e-8)


@pytest.mark.parametrize("native", [True, False])
def test_a_map_that_no_conductances_explain_is_not_a_number(
    bench_file: MakeBench, calibration: MakeFile, native: bool
) -> None:
    name = calibration("lines", {"line_ohm": (0.0, 0.0), "access_ohm": (2e4, 0.0)})
    with opened(bench_file({"files": [name]}, resistors=OHM), native) as bench:
        found = bench.do(WHOLE)
    assert (found.status == Status.NOT_A_NUMBER).all()


@pytest.mark.parametrize("ohm", [1.0, 2.5])
def test_what_sigma_says_holds_behind_wires(
    bench_file: MakeBench, calibration: MakeFile, ohm: float
) -> None:
    name = calibration("lines", {"line_ohm": (ohm, 0.0), "access_ohm": (0.0, 0.0)})
    squares = []
    for seed in range(1, 13):
        file = bench_file({"files": [name]}, line_ohm=ohm, seed=seed)
        with Bench.open(file) as bench:
            cells = bench.cells()
            gate = np.random.default_rng(seed).uniform(1.9, 2.8, len(cells))
            bench.do(pulse(cells, bl_v=3.8, wl_v=2.0, width_s=1e-6))
            bench.do(pulse(cells, bl_v=2.0, wl_v=gate, width_s=1e-7))
            found = bench.do(WHOLE)
            assert isinstance(bench.driver, SimulatedArray)
            true = bench.driver.chip.conductance_s().ravel()
        squares.append(np.mean(((found.conductance_s - true) / found.sigma_s) ** 2))
    # 96 columns, each with a sigma of its own of 23 degrees of freedom: the mean is 23/21.
    assert 0.7 < np.mean(squares) < 1.5


def _program(bench: Bench, **more: Any) -> Program:
    cells = bench.cells()
    ramps = (Ramp(1.6, 2.4, 0.1), Ramp(2.0, 3.0, 0.05))
    target = np.full(len(cells), 60e-6)
    train = PulseTrain(*ramps, 1e-7)
    back = PulseTrain(Ramp(1.6, 2.8, 0.1), Ramp(3.0, 3.5, 0.05), 1e-7)
    return Program(
        cells, target - 6e-6, target + 6e-6, train, back, read_step(), 30, verify="coded", **more
    )


def test_windows_of_a_coded_verify_are_those_of_corrected_columns(
    bench_file: MakeBench, calibration: MakeFile
) -> None:
    gain = [0.25] * 8
    name = calibration(
        "board-converters", {"column_gain": (gain, [0.0] * 8), "column_offset": ([0.0] * 8,) * 2}
    )
    found: list[ProgramResult] = []
    for on_board in ("allowed", "never"):
        file = bench_file({"files": [name]}, errors={"column_gain": gain})
        with Bench.open(file) as bench:
            bench.do(pulse(bench.cells(), bl_v=3.8, wl_v=2.0, width_s=1e-6))
            found.append(bench.do(_program(bench, on_board=on_board)))
            assert isinstance(bench.driver, SimulatedArray)
            g = bench.driver.chip.conductance_s().ravel()
        assert np.abs(g - 60e-6)[found[-1].inside].max() < 8e-6
        assert found[-1].inside.mean() > 0.5
    assert np.array_equal(found[0].set_pulses, found[1].set_pulses)


def test_a_coded_verify_on_the_board_behind_wires_is_refused_and_from_the_host_is_not(
    bench_file: MakeBench, calibration: MakeFile
) -> None:
    name = calibration("lines", {"line_ohm": (2.5, 0.0), "access_ohm": (0.0, 0.0)})
    with Bench.open(bench_file({"files": [name]}, line_ohm=2.5)) as bench:
        bench.do(pulse(bench.cells(), bl_v=3.8, wl_v=2.0, width_s=1e-6))
        with pytest.raises(ConfigError, match="not freed of the wires"):
            bench.do(_program(bench))
        found = bench.do(_program(bench, on_board="never"))
    assert found.inside.mean() > 0.5
    assert found.vectors > 0


@pytest.mark.parametrize("native", [True, False])
def test_a_coded_verify_from_the_host_compares_maps_freed_of_their_wires(
    bench_file: MakeBench, calibration: MakeFile, native: bool
) -> None:
    name = calibration("lines", {"line_ohm": (20.0, 0.0), "access_ohm": (0.0, 0.0)})
    with opened(bench_file({"files": [name]}, line_ohm=20.0, adc_bits=16), native) as bench:
        bench.do(pulse(bench.cells(), bl_v=3.8, wl_v=2.0, width_s=1e-6))
        found = bench.do(_program(bench, on_board="never"))
        assert isinstance(bench.driver, SimulatedArray)
        g = bench.driver.chip.conductance_s().ravel()
    assert found.inside.mean() > 0.5
    assert np.abs(g - 60e-6)[found.inside].max() < 8e-6
    assert found.conductance_s == pytest.approx(g, abs=3e-6)
