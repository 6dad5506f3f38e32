import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

from rram_hil.array import (
    Apply,
    ApplyResult,
    Cells,
    Geometry,
    Multiply,
    MultiplyResult,
    Program,
    ProgramResult,
    PulseTrain,
    Ramp,
    Status,
    Step,
    Stop,
    Wait,
    WriteWords,
    pulse,
    read,
    read_step,
)
from rram_hil.errors import AbortedError, ConfigError, DataError
from rram_hil.simulation.chip import Fault, SimulatedChip
from rram_hil.simulation.config import Simulation, Timing
from rram_hil.simulation.wire_drops import block_transfer

QUIET: dict[str, Any] = {"read_noise": False, "converters": False}


class Bench:
    """A chip and its operation numbers."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        device: str,
        *,
        cell: Any = "1T1R",
        folder: Path = Path("."),
        **settings: Any,
    ):
        self.geometry = Geometry(*shape, cell=cell)
        simulation = Simulation(device=device, **settings)
        self.chip = SimulatedChip(
            self.geometry, simulation, read_v=0.3, chip_id="T1", folder=folder
        )
        self.cells = Cells.all(self.geometry)
        self.number = self.chip.last_number

    def apply(self, operation: Apply) -> ApplyResult:
        self.number += 1
        result = self.chip.execute(operation, self.number)
        assert isinstance(result, ApplyResult)
        return result

    def program(self, operation: Program) -> ProgramResult:
        self.number += 1
        result = self.chip.execute(operation, self.number)
        assert isinstance(result, ProgramResult)
        return result

    def multiply(self, operation: Multiply) -> MultiplyResult:
        self.number += 1
        result = self.chip.execute(operation, self.number)
        assert isinstance(result, MultiplyResult)
        return result

    def form(self) -> ApplyResult:
        return self.apply(forming(self.cells))

    def reset(self, sl_v: float) -> ApplyResult:
        return self.apply(pulse(self.cells, sl_v=sl_v, wl_v=3.5, width_s=200e-9, read=read_step()))

    def set(self, wl_v: Any, bl_v: float = 2.0) -> ApplyResult:
        return self.apply(pulse(self.cells, bl_v=bl_v, wl_v=wl_v, width_s=100e-9, read=read_step()))

    @property
    def responsive(self) -> Any:
        return (self.chip.formed & (self.chip.stuck == 0)).ravel()


def forming(cells: Cells) -> Apply:
    steps: list[Step] = []
    for level in np.arange(2.4, 4.01, 0.05):
        steps += [Step(float(level), 0.0, 2.0, 1e-6), read_step()]
    return Apply(cells, tuple(steps), stop=Stop(above_s=30e-6))


def write_verify(
    chip: SimulatedChip, cells: Cells, target: Any, width: float = 0.05, max_pulses: int = 60
) -> Program:
    model = chip.model
    return Program(
        cells,
        target * (1 - width),
        target * (1 + width),
        PulseTrain(Ramp(2.0, 2.0), Ramp(model.nominal_set_gate_v(target * 0.8), 3.2, 0.02), 100e-9),
        PulseTrain(Ramp(model.nominal_reset_sl_v(target * 1.3), 2.4, 0.02), Ramp(3.5, 3.5), 200e-9),
        read_step(),
        max_pulses=max_pulses,
        max_reversals=30,
    )


@pytest.fixture(scope="module")
def formed_hfo2() -> Bench:
    bench = Bench((1, 150, 150), "hfo2", seed=3)
    bench.form()
    return bench


def test_forming_takes_the_measured_volts_and_leaves_the_measured_resistance(
    formed_hfo2: Bench,
) -> None:
    bench = Bench((1, 150, 150), "hfo2", seed=4)
    assert np.median(bench.chip.conductance_s()) < 1e-7
    result = bench.form()
    good = bench.responsive
    assert good.mean() > 0.985
    last_v = 2.4 + 0.05 * (result.pulses[good] - 1)
    assert last_v.mean() == pytest.approx(3.15 + 0.025, abs=0.02)
    assert last_v.std() == pytest.approx(0.25, abs=0.02)
    assert 1 / np.median(result.last_s[good]) == pytest.approx(7500, rel=0.05)


@pytest.mark.parametrize(
    ("wl_v", "median", "sd"), [(2.35, 74, 21), (2.49, 134, 17), (2.63, 170, 14)]
)
def test_one_set_of_hfo2_spreads_as_measured(
    formed_hfo2: Bench, wl_v: float, median: float, sd: float
) -> None:
    bench = formed_hfo2
    runs = []
    for _ in range(4):
        bench.reset(2.2)
        runs.append(1e6 * bench.set(wl_v).last_s[bench.responsive])
    assert np.median(runs[0]) == pytest.approx(median, rel=0.03)
    assert runs[0].std() == pytest.approx(sd, rel=0.15)
    cycle = np.std(runs, axis=0, ddof=1).mean()
    expected = {74: 17, 134: 12, 170: 9}[int(median)]
    assert cycle == pytest.approx(expected, rel=0.25)


def test_one_reset_of_hfo2_spreads_as_measured(formed_hfo2: Bench) -> None:
    bench = formed_hfo2
    for sl_v, median in ((0.6, 166), (0.9, 105), (1.2, 37), (1.5, 22)):
        bench.reset(2.2)
        bench.set(2.6155)
        g = 1e6 * bench.reset(sl_v).last_s[bench.responsive]
        assert np.median(g) == pytest.approx(median, rel=0.08)
        if sl_v > 1:
            assert 0.4 < np.log(g).std() < 0.65


def test_full_cycling_of_hfo2_reaches_the_measured_states(formed_hfo2: Bench) -> None:
    bench = formed_hfo2
    bench.set(2.8)
    high = 1 / np.maximum(bench.reset(2.2).last_s[bench.responsive], 1e-8)
    assert 85e3 < np.median(high) < 105e3
    assert 1.0 < np.log(high).std() < 1.3
    low = 1 / bench.set(2.8).last_s[bench.responsive]
    assert np.median(low) == pytest.approx(4900, rel=0.03)


def test_one_shot_programming_of_paper_is_off_by_a_tenth_over_the_whole_window() -> None:
    bench = Bench((1, 150, 150), "paper", seed=5)
    bench.form()
    bench.reset(2.2)
    target = np.geomspace(1e-6, 100e-6, len(bench.cells))
    got = bench.set(bench.chip.model.nominal_set_gate_v(target)).last_s
    good = bench.responsive
    error = got[good] / target[good] - 1
    assert abs(error.mean()) < 0.01
    assert error.std() == pytest.approx(0.10, abs=0.01)
    for part in np.array_split(error, 6):
        assert part.std() == pytest.approx(0.10, abs=0.01)


@pytest.mark.parametrize("sigma", [0.05, 0.2, 0.3, 0.4, 0.5])
def test_one_shot_programming_is_lognormal_with_the_sigma_of_the_preset(sigma: float) -> None:
    bench = Bench((1, 150, 150), f"paper-{sigma}", seed=5)
    bench.form()
    target = np.geomspace(1e-6, 100e-6, len(bench.cells))
    good = bench.responsive
    runs = []
    for _ in range(2):
        bench.reset(2.2)
        got = bench.set(bench.chip.model.nominal_set_gate_v(target)).last_s
        runs.append(np.log(got[good] / target[good]))
    for part in np.array_split(runs[0], 6):
        assert part.mean() == pytest.approx(0.0, abs=4 * sigma / np.sqrt(part.size))
        assert part.std() == pytest.approx(sigma, rel=0.05)
    # 0.8 of it stays with the cell, as in the preset `paper`.
    assert np.corrcoef(runs)[0, 1] == pytest.approx(0.64, abs=0.03)


@pytest.mark.parametrize(
    ("device", "sigma_s"),
    [("paper-additive", 10e-6), ("paper-0.3-additive", 30e-6), ("paper-0.5-additive", 50e-6)],
)
def test_an_additive_error_is_one_normal_at_every_target_cut_where_nothing_conducts(
    device: str, sigma_s: float
) -> None:
    bench = Bench((1, 150, 150), device, seed=5)
    bench.form()
    good = bench.responsive
    chances = np.linspace(0.06, 0.94, 23)
    normal = sigma_s * ndtri(chances)
    # What a RESET leaves is off upwards by the same normal, and half of it not at all.
    left = bench.reset(2.2).last_s[good]
    wanted = 0.2e-6 + np.maximum(normal, 0)
    np.testing.assert_allclose(np.quantile(left, chances), wanted, atol=0.08 * sigma_s)
    for target in (1e-6, 20e-6, 50e-6, 100e-6, 20e-6):  # one after the other on the same cells
        bench.reset(2.2)
        found = bench.set(float(bench.chip.model.nominal_set_gate_v(target))).last_s[good]
        wanted = np.maximum(target + normal, 0.2e-6)
        np.testing.assert_allclose(np.quantile(found, chances), wanted, atol=0.08 * sigma_s)


def test_most_of_an_additive_error_stays_with_the_cell_and_all_of_it_until_the_next_reset() -> None:
    bench = Bench((1, 150, 150), "paper-additive", seed=5)
    bench.form()
    good = bench.responsive
    gates = bench.chip.model.nominal_set_gate_v([60e-6, 90e-6])
    errors = []
    for _ in range(2):
        bench.reset(2.2)
        errors += [bench.set(gates[0]).last_s - 60e-6, bench.set(gates[1]).last_s - 90e-6]
    share = np.corrcoef([error[good] for error in errors])
    assert share[0, 1] > 0.99
    assert share[0, 2] == pytest.approx(0.64, abs=0.03)


@pytest.mark.parametrize(
    ("device", "low", "high", "pulses", "share"),
    [
        ("paper", 1, 100, 30, 0.995),
        ("hfo2", 20, 200, 60, 0.98),
        ("paper-0.5", 1, 100, 60, 0.98),
        ("paper-0.5-additive", 2, 100, 120, 0.95),
    ],
)
def test_write_verify_converges(
    device: str, low: float, high: float, pulses: int, share: float
) -> None:
    bench = Bench((1, 100, 100), device, seed=6)
    bench.form()
    bench.reset(2.2)
    target = 1e-6 * np.geomspace(low, high, len(bench.cells))
    result = bench.program(write_verify(bench.chip, bench.cells, target, max_pulses=pulses))
    good = bench.responsive
    assert result.inside[good].mean() >= share
    assert np.all(result.pulses <= pulses)
    assert np.all(np.abs(result.conductance_s[result.inside] / target[result.inside] - 1) <= 0.0501)
    assert np.all(result.reads >= result.pulses)
    assert result.reset_pulses.sum() > 0
    assert not np.any(result.inside[~good] & (bench.chip.stuck.ravel()[~good] == -1))
    assert np.array_equal(bench.chip.executed(bench.number, bench.cells), result.pulses)


def test_stuck_cells_read_their_level_before_and_after_everything() -> None:
    bench = Bench((1, 100, 100), "paper", seed=7, **QUIET)
    stuck = bench.chip.stuck.ravel()
    before = bench.apply(read(bench.cells)).last_s
    assert np.median(before[stuck == 1]) == pytest.approx(100e-6, rel=0.02)
    assert np.all(before[stuck == -1] < 1e-6)
    bench.form()
    bench.reset(2.2)
    after = bench.set(3.0).last_s
    assert np.array_equal(after[stuck != 0], before[stuck != 0])
    assert np.all(after[bench.responsive] > 10e-6)


def _worked(device: str, cuts: list[int]) -> tuple[Any, ...]:
    """Form, reset, set, verify and read 40 cells, in batches cut at `cuts`."""
    bench = Bench((2, 5, 4), device, seed=8, timing=Timing())
    parts = [slice(a, b) for a, b in zip([0, *cuts], [*cuts, 40], strict=True)]
    target = np.geomspace(30e-6, 90e-6, 40)
    seen = []
    for part in parts:
        bench.apply(forming(bench.cells).part(part))
    for part in parts:
        bench.apply(pulse(bench.cells, sl_v=1.6, wl_v=3.5, width_s=200e-9).part(part))
    for part in parts:
        found = bench.program(write_verify(bench.chip, bench.cells, target).part(part))
        seen.append(np.stack([found.conductance_s, found.pulses, found.reads, found.inside]))
    for part in parts:
        result = bench.apply(read(bench.cells, repeat=3).part(part))
        seen.append(result.conductance_s.T)
    halves = len(parts)
    return (
        np.concatenate(seen[:halves], axis=1),
        np.concatenate(seen[halves:], axis=1),
        bench.chip.pulses,
    )


@pytest.mark.long
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 40), max_size=6).map(sorted))
def test_one_batch_gives_what_any_partition_of_it_gives(cuts: list[int]) -> None:
    for whole, parts in zip(_worked("paper", []), _worked("paper", cuts), strict=True):
        np.testing.assert_array_equal(whole, parts)


@settings(max_examples=15, deadline=None)
@given(cut=st.integers(1, 199))
def test_a_multiply_gives_what_any_partition_of_it_gives(cut: int) -> None:
    inputs = np.random.default_rng(0).integers(-127, 128, size=(200, 9)).astype(np.int16)
    operation = Multiply(0, 1, 2, 7, inputs, full_scale_a=100e-6)
    whole, parts = (Bench((1, 12, 10), "paper", seed=9) for _ in range(2))
    whole.form()
    parts.form()
    expected = whole.multiply(operation).codes
    found = [parts.multiply(operation.part(p)).codes for p in (slice(0, cut), slice(cut, 200))]
    np.testing.assert_array_equal(np.concatenate(found), expected)


def test_a_noisy_multiply_of_all_rows_gives_what_its_columns_and_vectors_give_alone() -> None:
    inputs = np.random.default_rng(0).integers(0, 128, size=(700, 256)).astype(np.int16)

    def codes(column: int, columns: int, *cuts: int) -> Any:
        bench = Bench((1, 256, 12), "paper", seed=9)
        bench.form()
        whole = Multiply(0, 0, column, columns, inputs, full_scale_a=4e-3)
        starts, stops = (0, *cuts), (*cuts, len(inputs))
        parts = [whole.part(slice(*ends)) for ends in zip(starts, stops, strict=True)]
        return np.concatenate([bench.multiply(part).codes for part in parts])

    whole = codes(0, 12)
    assert np.abs(whole).max() < 2047
    for column, columns in ((0, 5), (5, 1), (6, 6)):
        alone = codes(column, columns, 1, 130, 389)
        np.testing.assert_array_equal(alone, whole[:, column : column + columns])


def test_codes_of_a_noisy_multiply_are_the_product_in_the_mean() -> None:
    bench = Bench((1, 256, 12), "paper", seed=10)
    bench.form()
    some = np.random.default_rng(1).integers(0, 128, size=(10, 256)).astype(np.int16)
    g = bench.chip.conductance_s().ravel()
    mean_s = bench.chip.cells.read_moments(np.arange(g.size), g)[0].reshape(256, 12)
    current = (some * 0.2 / 127) @ mean_s
    operation = Multiply(0, 0, 0, 12, np.tile(some, (4000, 1)), full_scale_a=1.2 * current.max())
    result = bench.multiply(operation)
    error = result.codes.reshape(4000, 10, 12).mean(axis=0) - current / result.lsb_a
    assert np.sqrt(np.mean(error**2)) < 0.2
    assert result.codes.max() > 1000


def test_without_noise_codes_are_the_rounded_product() -> None:
    bench = Bench((2, 30, 20), "paper", seed=10, **QUIET)
    bench.form()
    bench.reset(2.0)
    bench.set(np.linspace(2.0, 3.0, 1200))
    inputs = np.random.default_rng(1).integers(-127, 128, size=(500, 21)).astype(np.int16)
    result = bench.multiply(Multiply(1, 4, 3, 11, inputs, full_scale_a=50e-6))
    current = (inputs * 0.2 / 127) @ bench.chip.conductance_s()[1, 4:25, 3:14]
    expected = np.rint(current / result.lsb_a)
    assert result.lsb_a == pytest.approx(50e-6 / 2047)
    assert np.array_equal(result.codes, np.clip(expected, -2047, 2047))
    assert result.saturated == np.count_nonzero(np.abs(expected) > 2047)


def test_multiply_noise_has_the_variance_of_the_cells_read_noise() -> None:
    bench = Bench((1, 16, 4), "hfo2", seed=11, adc_bits=24)
    bench.form()
    inputs = np.tile(np.linspace(-127, 127, 16).astype(np.int16), (20_000, 1))
    result = bench.multiply(Multiply(0, 0, 0, 4, inputs, full_scale_a=100e-6))
    volts = inputs[0] * 0.2 / 127
    index = np.arange(64)
    _, variance = bench.chip.cells.read_moments(index, bench.chip.conductance_s().ravel())
    expected = np.sqrt(volts**2 @ variance.reshape(16, 4))
    np.testing.assert_allclose((result.codes * result.lsb_a).std(axis=0), expected, rtol=0.03)


def test_words_are_multiplied_exactly_and_stay_until_cleared() -> None:
    bench = Bench((1, 8, 8), "paper")
    values = np.random.default_rng(2).integers(-127, 128, size=10).astype(np.int32)
    cells = Cells.from_index(np.random.default_rng(3).choice(64, 10, replace=False), bench.geometry)
    bench.chip.execute(WriteWords(cells, values), 1)
    inputs = np.random.default_rng(4).integers(-127, 128, size=(50, 8)).astype(np.int16)
    result = bench.multiply(Multiply(0, 0, 0, 8, inputs, words=True))
    assert result.word_sums is not None
    np.testing.assert_array_equal(result.word_sums, inputs.astype(np.int64) @ bench.chip.words[0])
    bench.chip.execute(
        WriteWords(Cells.of([(0, 0, 0)]), np.array([5], dtype=np.int32), clear=True), 3
    )
    assert bench.chip.words.sum() == 5
    with pytest.raises(ConfigError, match="8-bit words must lie in"):
        bench.chip.execute(WriteWords(Cells.of([(0, 0, 0)]), np.array([128], dtype=np.int32)), 4)


def test_pulses_reads_and_numbers_are_counted() -> None:
    bench = Bench((1, 4, 4), "paper")
    some = bench.cells[np.array([3, 5])]
    train = Apply(some, (Step(1.0, 0, 2.0, 1e-7), read_step(), Step(0.2, 0.0, 3.0, 1e-6)), repeat=3)
    result = bench.apply(train)
    assert result.pulses.tolist() == result.reads.tolist() == [3, 3]
    assert bench.chip.pulses.ravel()[[3, 5]].tolist() == [3, 3]
    assert bench.chip.pulses.sum() == 6
    assert bench.chip.executed(1, bench.cells[:6]).tolist() == [0, 0, 0, 3, 0, 3]
    assert bench.chip.last_numbers(some).tolist() == [1, 1]
    bench.apply(read(some))
    assert bench.chip.executed(1, some).tolist() == [0, 0]
    assert bench.chip.last_number == 2


def test_a_cell_that_met_its_stop_takes_no_further_step() -> None:
    bench = Bench((1, 20, 20), "paper", seed=12)
    result = bench.form()
    ran = result.status != Status.NOT_RUN
    assert np.array_equal(ran.sum(axis=1), result.pulses)
    assert np.all(np.isnan(result.conductance_s[~ran]))
    formed = bench.responsive
    assert np.all(result.last_s[formed] >= 30e-6)
    assert np.all(result.pulses[bench.chip.stuck.ravel() == 1] == 1)


def test_time_stamps_follow_the_virtual_clock_cell_after_cell() -> None:
    timing = Timing(edge_s=1e-8, settle_s=2e-7, conversion_s=2e-6)
    bench = Bench((1, 4, 4), "paper", timing=timing)
    one = 2e-8 + 2e-7 + 1e-6 + 2e-6
    result = bench.apply(read(bench.cells, repeat=2))
    np.testing.assert_allclose(result.time_s.ravel(), one * np.arange(1, 33), rtol=1e-9)
    assert bench.chip.now_s == pytest.approx(32 * one)
    stopped = bench.apply(forming(bench.cells))
    assert np.all(np.diff(stopped.time_s[~np.isnan(stopped.time_s)]) > 0)
    assert np.nanmax(stopped.time_s) == pytest.approx(bench.chip.now_s)
    bench.chip.execute(Wait(3600.0), 9)
    assert bench.chip.now_s > 3600


def test_relaxation_runs_with_the_clock_and_not_with_reads(formed_hfo2: Bench) -> None:
    bench = Bench((1, 60, 60), "hfo2", seed=13)
    bench.form()
    bench.reset(2.0)
    bench.set(2.4)
    start = bench.chip.conductance_s()
    bench.apply(read(bench.cells[:10], repeat=5))
    bench.chip.advance(1e4)
    moved = bench.chip.conductance_s() - start
    assert 2e-6 < moved.std() < 10e-6
    again = bench.chip.conductance_s()
    assert np.array_equal(again, bench.chip.conductance_s())


def test_readings_say_what_they_are_worth() -> None:
    bench = Bench((1, 6, 6), "paper", **QUIET)
    bench.form()
    cell = bench.cells[np.flatnonzero(bench.responsive)[:1]]
    bounded = bench.apply(Apply(cell, (read_step(),), compliance_a=1e-6))
    assert bounded.status[0, 0] == Status.COMPLIANCE
    assert bounded.current_a[0, 0] == 1e-6
    floating = bench.apply(Apply(cell, (Step(None, 0.0, 3.0, 1e-6, "current"),)))
    assert floating.status[0, 0] == Status.NOT_A_NUMBER
    assert np.isnan(floating.conductance_s[0, 0])
    bench.chip.inject(Fault.SHORT, cell)
    over = bench.apply(read(cell, read_step(1.2)))
    assert over.status[0, 0] == Status.OVER_RANGE
    assert np.isnan(over.conductance_s[0, 0])
    bench.chip.inject(Fault.OPEN, cell)
    assert bench.apply(read(cell)).last_s[0] == 0
    bench.chip.inject(Fault.NONE, cell)
    assert bench.apply(read(cell)).last_s[0] > 30e-6
    closed = bench.apply(read(cell, read_step(wl_v=0.0)))
    assert closed.last_s[0] == 0


def test_a_broken_gate_shows_on_its_whole_row() -> None:
    bench = Bench((1, 4, 4), "paper")
    bench.chip.inject(Fault.GATE_LEAK, Cells.of([(0, 2, 1)]))
    leak = bench.apply(Apply(bench.cells, (Step(0.0, 0.0, 3.0, 1e-3, "gate"),))).current_a.reshape(
        4, 4
    )
    assert np.all(leak[2] == pytest.approx(3e-6, rel=1e-3))
    assert np.all(np.delete(leak, 2, axis=0) < 1e-11)
    assert bench.chip.pulses.sum() == 0


def test_converters_quantise_levels_and_readings() -> None:
    exact, real = (
        Bench((1, 10, 10), "paper", seed=14, read_noise=False, converters=c) for c in (False, True)
    )
    exact.form()
    real.form()
    a, b = (bench.apply(read(bench.cells)).last_s for bench in (exact, real))
    assert not np.array_equal(a, b)
    lsb = 1e-4 / 2047
    codes = b[b > 60e-6] * 0.2 / lsb
    np.testing.assert_allclose(codes, np.rint(codes), atol=1e-6)


def test_an_array_without_gates_is_limited_by_the_compliance_current() -> None:
    bench = Bench((1, 10, 10), "hfo2", cell="1R", seed=15)
    steps = (Step(4.4, 0.0, 0.0, 1e-6),)
    bench.apply(Apply(bench.cells, steps, compliance_a=50e-6))
    assert bench.responsive.mean() > 0.95
    assert bench.chip.conductance_s().ravel()[bench.responsive].max() <= 115e-6
    bench.apply(Apply(bench.cells, (Step(0.0, 2.0, 0.0, 1e-6),)))
    assert np.median(bench.chip.conductance_s().ravel()[bench.responsive]) < 20e-6


def test_wires_take_their_part_and_vanish_with_their_resistance() -> None:
    geometry = Geometry(1, 12, 9)
    g = np.random.default_rng(5).uniform(1e-6, 200e-6, (12, 9))
    np.testing.assert_allclose(block_transfer(g, 0, 0, geometry, 1e-6), g, rtol=1e-6)
    real = block_transfer(g, 0, 0, geometry, 2.0)
    assert np.all(real < g)
    one = block_transfer(np.array([[100e-6]]), 3, 4, geometry, 2.0)
    assert one[0, 0] == pytest.approx(100e-6 / (1 + 100e-6 * 2.0 * (5 + 9)))
    bench = Bench((1, 12, 9), "paper", line_ohm=2.0, **QUIET)
    bench.form()
    seen = bench.apply(read(bench.cells)).last_s.reshape(12, 9)
    true = bench.chip.conductance_s()[0]
    assert seen[3, 4] == pytest.approx(true[3, 4] / (1 + true[3, 4] * 2.0 * (5 + 9)))


def test_a_cancelled_operation_stops_between_cells_and_says_what_it_did() -> None:
    bench = Bench((1, 40, 40), "paper", pace=2000.0)
    cancel = threading.Event()
    threading.Timer(0.15, cancel.set).start()
    result = bench.chip.execute(
        pulse(bench.cells, bl_v=1.0, wl_v=2.0, width_s=1e-6, read=read_step()), 1, cancel
    )
    assert isinstance(result, ApplyResult)
    done = result.status[:, 0] != Status.NOT_RUN
    assert 0 < done.sum() < 1600
    assert np.array_equal(result.pulses, done.astype(int))
    assert np.array_equal(bench.chip.pulses.ravel(), done.astype(int))
    program = bench.chip.execute(
        write_verify(bench.chip, bench.cells, np.full(1600, 5e-5)), 2, cancel
    )
    assert isinstance(program, ProgramResult)
    assert program.pulses.sum() == 0
    with pytest.raises(AbortedError):
        bench.chip.execute(Multiply(0, 0, 0, 4, np.zeros((5, 4), dtype=np.int16)), 3, cancel)


class Looks(threading.Event):
    """Cancelled from the n-th look on."""

    def __init__(self, allowed: int) -> None:
        super().__init__()
        self.allowed = allowed

    def is_set(self) -> bool:
        self.allowed -= 1
        return self.allowed < 0


def test_a_cancelled_batch_stops_between_steps_and_between_rounds() -> None:
    bench = Bench((1, 4, 4), "paper")
    steps = Apply(bench.cells, (Step(1.0, 0.0, 2.0, 1e-6), read_step()), repeat=100)
    result = bench.chip.execute(steps, 1, Looks(8))
    assert isinstance(result, ApplyResult)
    given = bench.chip.pulses.ravel()
    assert 0 < given.max() < 100
    assert np.array_equal(result.pulses, given)
    assert np.array_equal(result.reads, np.sum(result.status != Status.NOT_RUN, axis=1))
    # A window that no cell can hold: it would go on to the last of its pulses.
    endless = write_verify(bench.chip, bench.cells, np.full(16, 5e-5), width=1e-6, max_pulses=500)
    program = bench.chip.execute(endless, 2, Looks(8))
    assert isinstance(program, ProgramResult)
    assert 0 < program.pulses.max() <= 8
    assert np.array_equal(bench.chip.pulses.ravel() - given, program.pulses)
    assert not program.inside.any()


def test_a_new_process_meets_the_same_chip(tmp_path: Path) -> None:
    shared = {"seed": 16, "state": "chip.state", "folder": tmp_path}
    first, alone = Bench((1, 12, 12), "hfo2", **shared), Bench((1, 12, 12), "hfo2", seed=16)
    first.form()
    first.chip.close()
    alone.form()
    second = Bench((1, 12, 12), "hfo2", **shared)
    assert second.chip.now_s == alone.chip.now_s
    assert second.chip.last_number == 1
    np.testing.assert_array_equal(second.chip.conductance_s(), alone.chip.conductance_s())
    np.testing.assert_array_equal(second.set(2.5).conductance_s, alone.set(2.5).conductance_s)


KILLED = """
from pathlib import Path
from rram_hil.array import Cells, Geometry
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.simulation.config import Simulation
from rram_hil.array import Step, Apply
simulation = Simulation(device="paper", state="chip.state")
folder = Path({folder!r})
chip = SimulatedChip(Geometry(1, 16, 16), simulation, read_v=0.3, chip_id="T1", folder=folder)
print("ready", flush=True)
number = 0
while True:
    number += 1
    chip.execute(Apply(Cells.all(chip.geometry), (Step(3.3, 0.0, 2.0, 1e-7),)), number)
    print(number, flush=True)
"""


def test_a_killed_process_leaves_counters_that_cover_what_it_did(tmp_path: Path) -> None:
    code = KILLED.format(folder=str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        seen = [process.stdout.readline() for _ in range(4)]
        process.kill()
        finished = len(seen) + len(process.stdout.readlines())
    bench = Bench((1, 16, 16), "paper", state="chip.state", folder=tmp_path)
    pulses = bench.chip.pulses
    assert finished > 3
    assert bench.chip.last_number in (finished, finished + 1)
    assert finished <= pulses.min() <= pulses.max() <= finished + 1
    assert np.array_equal(
        bench.chip.executed(bench.chip.last_number, bench.cells) > 0,
        pulses.ravel() == bench.chip.last_number,
    )
    assert np.all((bench.chip.conductance_s() > 50e-6).ravel()[bench.responsive])


def test_a_state_file_of_another_chip_is_refused(tmp_path: Path) -> None:
    Bench((1, 4, 4), "paper", state="chip.state", folder=tmp_path)
    for shape, changed in (((1, 4, 5), {}), ((1, 4, 4), {"seed": 2})):
        with pytest.raises(DataError, match="state of another simulated chip"):
            Bench(shape, "paper", state="chip.state", folder=tmp_path, **changed)
    with pytest.raises(DataError, match="its device is"):
        Bench((1, 4, 4), "hfo2", state="chip.state", folder=tmp_path)
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(DataError, match="not the state of a simulated chip"):
        Bench((1, 4, 4), "paper", state="notes.txt", folder=tmp_path)
