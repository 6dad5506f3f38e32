"""Errors put into the simulated board and its instruments: none by default, and each does what its
key says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rram_hil import Bench
from rram_hil.array import Apply, ApplyResult, Cells, Geometry, Multiply, MultiplyResult, Step, read
from rram_hil.bench.bench_file import BenchFile
from rram_hil.drivers.simulated.array.erring_terminal import ErringTerminal
from rram_hil.drivers.simulated.array.terminals import Drive, Resistor
from rram_hil.errors import ConfigError
from rram_hil.simulation.config import Errors, Simulation, SourceMeterErrors
from rram_hil.simulation.converters import ADC_RANGES_A, DAC_STEP_V, Converters
from rram_hil.simulation.wire_drops import series_ohm

GEOMETRY = Geometry(1, 8, 8, "1T1R", "row")
volts = st.floats(-5, 5).map(lambda v: v)
amps = st.floats(-1e-2, 1e-2)


@given(st.lists(volts, min_size=1), st.lists(amps, min_size=1))
def test_without_errors_the_converters_are_the_plain_ones_bit_for_bit(
    level: list[float], current: list[float]
) -> None:
    made = Converters(Simulation(), GEOMETRY)
    asked, flows = np.array(level), np.array(current)
    for line in ("bl", "sl", "wl"):
        assert np.array_equal(made.level(asked, line), np.rint(asked / DAC_STEP_V) * DAC_STEP_V)  # type: ignore[arg-type]
    scale = np.asarray(ADC_RANGES_A)
    scale = scale[np.minimum(np.searchsorted(scale, np.abs(flows)), 4)]
    lsb = scale / 2047
    assert np.array_equal(made.reading(flows), np.rint(flows / lsb) * lsb)


def test_without_errors_nothing_stands_in_series() -> None:
    g = np.linspace(0, 1e-3, 64)
    index = np.arange(64)
    assert Converters(Simulation(), GEOMETRY).behind(index, g) is g
    wired = Converters(Simulation(line_ohm=3.0), GEOMETRY).behind(index, g)
    assert np.array_equal(wired, g / (1 + g * series_ohm(index, GEOMETRY, 3.0)))


def test_a_bench_with_an_empty_section_of_errors_is_the_same_bench(
    bench_file: Callable[..., BenchFile],
) -> None:
    def seen(file: Any) -> tuple[ApplyResult, MultiplyResult]:
        with Bench.open(file) as bench:
            cells = Cells.all(bench.geometry)
            bench.apply(Apply(cells, (Step(3.4, 0.0, 2.0, 1e-6),)))
            single = bench.apply(read(cells, repeat=3))
            inputs = np.arange(-64, 64, dtype=np.int16).reshape(16, 8)
            multiplied = bench.do(Multiply(0, 0, 0, 8, inputs))
            assert isinstance(multiplied, MultiplyResult)
            return single, multiplied

    plain, empty = seen(bench_file()), seen(bench_file(errors=Errors().model_dump(), resistors=[]))
    assert np.array_equal(plain[0].current_a, empty[0].current_a)
    assert np.array_equal(plain[0].conductance_s, empty[0].conductance_s)
    assert np.array_equal(plain[1].codes, empty[1].codes)


def test_a_resistor_reads_as_itself_without_noise_and_takes_no_pulse(
    bench_file: Callable[..., BenchFile],
) -> None:
    file = bench_file(resistors=[{"row": 2, "column": 3, "ohm": 2e4}], converters=False)
    with Bench.open(file) as bench:
        cell = Cells.of([(0, 2, 3)])
        bench.apply(Apply(cell, (Step(3.5, 0.0, 2.0, 1e-6), Step(0.0, 2.0, 3.5, 1e-6))))
        assert bench.apply(read(cell, repeat=4)).conductance_s == pytest.approx(5e-5, rel=1e-12)


ERRORS: list[tuple[dict[str, Any], float]] = [
    ({"bl": {"offset_v": 0.01}}, 0.21 * 1e-4),
    ({"bl": {"gain": 0.02}}, 0.204 * 1e-4),
    ({"bl": {"inl_v": [0.0, 0.0, 0.05]}}, (0.2 + 0.05 * 0.2 / 5) * 1e-4),
    ({"sl": {"offset_v": 0.01}}, 0.19 * 1e-4),
    ({"adc": {"offset": 0.001}}, 2e-5 + 0.001 * 1e-4),
    ({"adc": {"gain": -0.03}}, 0.97 * 2e-5),
    ({"adc": {"inl": [0.0, 0.01, 0.0]}}, 2e-5 + 0.01 * (1 - 0.2) * 1e-4),
    ({"access_ohm": 2e3}, 0.2 / 1.2e4),
    ({"lead_ohm": 50.0}, 0.2 / 10050),
]


@pytest.mark.parametrize(("errors", "told"), ERRORS, ids=lambda e: str(e))
def test_an_error_shows_in_single_readings(
    bench_file: Callable[..., BenchFile], errors: dict[str, Any], told: float
) -> None:
    file = bench_file(
        resistors=[{"row": 0, "column": 0, "ohm": 1e4}], converters=False, errors=errors
    )
    with Bench.open(file) as bench:
        result = bench.apply(read(Cells.of([(0, 0, 0)])))
    assert result.current_a[0, 0] == pytest.approx(told, rel=1e-9)


def test_column_amplifiers_err_in_their_own_columns(bench_file: Callable[..., BenchFile]) -> None:
    gain, offset = [0.0] * 8, [0.0] * 8
    gain[5], offset[6] = 0.1, 0.02
    resistors = [{"row": 0, "column": c, "ohm": 1e4} for c in range(8)]
    inputs = np.array([[127] + [0] * 7], dtype=np.int16)
    with Bench.open(
        bench_file(
            resistors=resistors,
            read_noise=False,
            errors={"column_gain": gain, "column_offset": offset},
        )
    ) as bench:
        result = bench.do(Multiply(0, 0, 0, 8, inputs, full_scale_a=1e-4))
    assert isinstance(result, MultiplyResult)
    plain = round(2e-5 / 1e-4 * 2047)
    assert result.codes[0].tolist() == [plain] * 5 + [
        round(2e-5 / 1e-4 * 2047 * 1.1),
        plain + 41,
        plain,
    ]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"errors": {"column_gain": [0.1]}}, "column_gain: 1 values"),
        (
            {"resistors": [{"row": 8, "column": 0, "ohm": 1.0}]},
            r"resistors\.0: \(0, 8, 0\) is off the chip",
        ),
    ],
)
def test_errors_that_do_not_fit_the_chip_are_refused(
    bench_file: Callable[..., BenchFile], keys: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        Bench.open(bench_file(**keys))


finite = st.floats(-1.0, 1.0)
small = st.floats(-0.1, 0.1)


@given(finite, small, small, small, small)
def test_a_channel_takes_for_its_level_what_it_really_forces(
    level: float, offset_v: float, gain_v: float, offset_a: float, gain_a: float
) -> None:
    errors = SourceMeterErrors(offset_v=offset_v, gain_v=gain_v, offset_a=offset_a, gain_a=gain_a)
    load = Resistor(10.0)
    terminal = ErringTerminal(load, errors)
    terminal.drive(Drive("voltage", level, 10.0))
    told, true = terminal.sense(), load.sense()
    assert told.volts == pytest.approx(level, abs=1e-12)
    assert true.volts == pytest.approx(level * (1 + gain_v) + offset_v, abs=1e-12)
    assert told.amps == pytest.approx(true.amps * (1 + gain_a) + offset_a, abs=1e-12)
    terminal.drive(Drive("current", level, 100.0))
    assert terminal.sense().amps == pytest.approx(level, abs=1e-12)


def test_an_output_that_is_off_has_no_current_to_be_wrong_about() -> None:
    terminal = ErringTerminal(Resistor(10.0), SourceMeterErrors(offset_a=1e-3))
    terminal.drive(Drive())
    assert terminal.sense().amps == 0.0
