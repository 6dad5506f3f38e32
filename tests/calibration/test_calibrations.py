"""Every calibration finds the errors that were put in, within what it states; with it in force
readings agree with the truth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calibration_coverage import (
    LADDER_OHM,
    NORMAL,
    STATED,
    STUDIES,
    Leaded,
    Size,
    bench_of,
    converters,
    coverage,
    gain,
    is_remote,
    lines,
    two_meters,
    zero,
)
from chain_benches import write_bench
from typing_extensions import override

from rram_hil import Bench
from rram_hil.array import Cells, Multiply, MultiplyResult, Status, read
from rram_hil.bench.bench_file import BenchFile
from rram_hil.bench.recipe_runner import run_recipe
from rram_hil.calibration.board_converters import BoardConverters
from rram_hil.calibration.leads import Leads
from rram_hil.calibration.lines import Lines
from rram_hil.calibration.metrology.gum import refuse_bent, solve
from rram_hil.calibration.source_meter import SourceMeterCalibration
from rram_hil.corrections.calibration_file import load
from rram_hil.drivers.simulated.array.terminals import Resistor, Sensed
from rram_hil.errors import ConfigError, LimitError
from rram_hil.simulation.config import SourceMeterErrors

MakeBench = Callable[..., BenchFile]
SMALL = Size(rows=16, columns=16)


@pytest.mark.parametrize(
    "study",
    [
        pytest.param(study, marks=pytest.mark.long if study == "source-meter (gain)" else ())
        for study in STUDIES
    ],
)
def test_intervals_hold_the_truth_and_are_no_wider_than_stated(study: str) -> None:
    seeds, size = (3, SMALL) if study == "board-converters" else (8, Size())
    for name, found in coverage(study, seeds, size).items():
        # Of few seeds, and of lists whose values share their references' errors, only gross faults
        # show.
        assert found.covered >= 0.6, name
        assert found.largest <= STATED[study][name], name


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("study", STUDIES)
def test_95_percent_intervals_hold_the_truth_for_90_to_99_of_100_seeds(study: str) -> None:
    for name, found in coverage(study, 200).items():
        # What ringing and rounding hide of a pulse is bounded, not drawn: it counts in full.
        most = 1.0 if study == "pulse-arrival" else 0.99
        assert 0.90 <= found.covered <= most, name
        assert found.largest <= STATED[study][name], name


def test_least_squares_spreads_as_it_says() -> None:
    rng = np.random.default_rng(5)
    x = np.linspace(0, 1, 20)
    design = np.column_stack((np.ones(20), x, x))
    pulls = []
    for _ in range(400):
        shared = 0.05 * rng.standard_normal()
        seen = 1 + (2 + shared) * x + 0.1 * rng.standard_normal(20)
        fit = solve(design, seen, np.full(20, 0.01), np.array([np.inf, np.inf, 0.05]))
        values, widths = fit.of(np.eye(3)[:2])
        pulls.append((values - [1, 2]) / widths * NORMAL)
    assert np.std(pulls, axis=0) == pytest.approx([1, 1], abs=0.1)


def test_what_the_readings_do_not_tell_is_an_error_and_no_number() -> None:
    with pytest.raises(ConfigError, match="more references, positions or levels"):
        solve(np.ones((10, 2)), np.ones(10), np.ones(10))


def test_a_calibrated_board_reads_and_multiplies_what_is_there(tmp_path: Path) -> None:
    found, _, file = converters(7, SMALL, tmp_path)
    with Bench.open(file) as bench:
        found.complete(bench.identity, "cal", datetime.now(UTC)).write(tmp_path / "board.toml")
    assert file.simulation is not None
    simulation = file.simulation.model_dump()
    with Bench.open(
        bench_of(simulation, SMALL, tmp_path, calibration={"files": ["board.toml"]})
    ) as bench:
        fixed = [(0, r["row"], r["column"]) for r in simulation["resistors"]]
        truth = np.array([1 / r["ohm"] for r in simulation["resistors"]])
        operation = read(Cells.of(fixed))
        result = bench.apply(operation)
        wide = bench.correction.half_width_s(operation, result, bench.driver.reading_paths)[:, 0]
        rows = SMALL.rows - 2
        inputs = np.zeros((100, 2), dtype=np.int16)
        inputs[:] = np.linspace(-127, 127, 100).astype(np.int16)[:, None]
        block = Multiply(0, rows, 0, SMALL.columns, inputs, full_scale_a=6e-5)
        answer = bench.do(block)
        assert isinstance(answer, MultiplyResult)
        code_wide = bench.correction.code_half_width(block, answer)
    assert (result.status == Status.OK).all()
    raw = np.abs(result.current_a[:, 0] / 0.2 - truth)
    apart = np.abs(result.conductance_s[:, 0] - truth)
    assert np.mean(apart <= wide) >= 0.85
    assert np.all(apart <= 2 * wide)
    assert np.median(apart) < 0.2 * np.median(raw)
    cells = truth[-2 * SMALL.columns :].reshape(2, SMALL.columns)
    exact = inputs @ cells * 0.2 / 127 / answer.lsb_a
    assert np.mean(np.abs(answer.codes - exact) <= code_wide) >= 0.85


def test_with_lines_in_force_maps_are_free_of_wire_and_transistor(tmp_path: Path) -> None:
    found, _, file = lines(3, SMALL, tmp_path)
    with Bench.open(file) as bench:
        found.complete(bench.identity, "cal", datetime.now(UTC)).write(tmp_path / "lines.toml")
    assert file.simulation is not None
    simulation = file.simulation.model_dump() | {"read_noise": False, "converters": False}
    with Bench.open(
        bench_of(simulation, SMALL, tmp_path, calibration={"files": ["lines.toml"]})
    ) as bench:
        cells = bench.cells()
        operation = read(cells)
        result = bench.apply(operation)
        wide = bench.correction.half_width_s(operation, result, bench.driver.reading_paths)
        truth = bench.driver.chip.conductance_s().reshape(-1)  # type: ignore[attr-defined]
        raw = np.abs(result.current_a[:, 0] / 0.2 - truth)
    assert np.all(np.abs(result.conductance_s[:, 0] - truth) <= 2 * wide[:, 0] + 1e-15)
    large = truth > 1e-4
    assert np.all(raw[large] > 0.05 * truth[large])


CHAIN = "2400 + 2450 + 707B"


@pytest.mark.long
def test_a_calibrated_source_meter_makes_a_rack_read_right(tmp_path: Path) -> None:
    errors = SourceMeterErrors(offset_v=2e-3, gain_v=4e-3, offset_a=3e-9, gain_a=-6e-3)
    path = write_bench(tmp_path, CHAIN, size=4)
    put_in = "".join(f"{k} = {v}\n" for k, v in errors.model_dump().items())
    resistors = "".join(
        f"\n[[simulation.resistors]]\nrow = {k}\ncolumn = {k}\nohm = {1e4 * (k + 1)}\n"
        for k in range(4)
    )
    path.write_text(
        path.read_text() + f'\n[simulation.errors.source_meters."bl.1"]\n{put_in}{resistors}'
    )
    with Bench.open(path, arm=False) as bench:
        serial = bench.driver.parts()["bl"].serial
    # On the laboratory's table: the same instrument, a resistor, a second meter.
    load = Resistor()
    with (
        two_meters(1, errors, load, SourceMeterErrors(), name="bl", serial=serial) as (
            _,
            section,
            reference,
        ),
        Bench.open(bench_of({}, folder=tmp_path)) as table,
    ):
        setting = replace(table.setting, folder=tmp_path)

        def calibrate(**keys: Any) -> None:
            keys |= {"instrument": section, "channel": "1", "repeat": 4}
            found: Any = table.run(SourceMeterCalibration.model_validate(keys).run(setting))
            name = f"{keys['part']}.toml"
            found.complete(table.identity, "", datetime.now(UTC)).write(tmp_path / name)

        calibrate(part="zero")
        load.siemens = 1e-4
        more = {
            "meter": reference,
            "meter_channel": "1",
            "meter_fraction": 3e-4,
            "meter_offset_v": 3e-4,
        }
        calibrate(
            part="gain",
            ohm=1e4,
            half_width_ohm=1.0,
            zero="zero.toml",
            most_v=2.0,
            most_a=2e-4,
            **more,
        )
    read_s = {}
    for name in ("", '\n[calibration]\nfiles = ["gain.toml"]\n'):
        path.write_text(path.read_text() + name)
        with Bench.open(path) as bench:
            cells = Cells.of([(0, k, k) for k in range(4)])
            operation = read(cells, bench.file.read.step)
            result = bench.apply(operation)
            wide = bench.correction.half_width_s(operation, result, bench.driver.reading_paths)[
                :, 0
            ]
            read_s[bool(name)] = result.conductance_s[:, 0]
            raw = result.current_a[:, 0]
    truth = 1 / (1e4 * np.arange(1, 5))
    assert np.all(np.abs(read_s[False] - truth) > 5e-3 * truth)
    assert np.all(np.abs(read_s[True] - truth) <= wide + 1e-9)
    assert np.all(wide < 3e-3 * truth)
    assert raw / 0.2 == pytest.approx(read_s[False], rel=1e-3)


def test_a_recipe_writes_the_file_that_the_next_bench_names(
    bench_file: MakeBench, tmp_path: Path
) -> None:
    corners = (
        "{ row = 0, column = 7, ohm = 500.0, half_width_ohm = 0.1 }",
        "{ row = 7, column = 0, ohm = 500.0, half_width_ohm = 0.1 }",
    )
    references = f"[{', '.join(corners)}]"
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'[[step]]\nprotocol = "lines"\nfile = "lines.toml"\nreferences = {references}\n'
    )
    resistors = [{"row": 0, "column": 7, "ohm": 500.0}, {"row": 7, "column": 0, "ohm": 500.0}]
    keys: dict[str, Any] = {
        "resistors": resistors,
        "line_ohm": 4.0,
        "errors": {"access_ohm": 900.0},
        "state": "chip.state",
    }
    run_recipe(recipe, bench_file(**keys), tmp_path / "run.h5")
    file = load(tmp_path / "lines.toml")
    assert file.value("line_ohm") == pytest.approx(4.0, abs=file.half_width("line_ohm") * 2)
    assert file.instrument.chip == "cal"
    before = (tmp_path / "lines.toml").read_text()
    run_recipe(recipe, bench_file(**keys), tmp_path / "run.h5", resume=True)
    assert (tmp_path / "lines.toml").read_text() == before
    with pytest.raises(
        ConfigError, match=r"take the calibration of lines out of \[calibration\] first"
    ):
        run_recipe(recipe, bench_file({"files": ["lines.toml"]}, **keys), tmp_path / "again.h5")


REFERENCE = {"row": 0, "column": 0, "ohm": 1e3, "half_width_ohm": 0.1}


@pytest.mark.parametrize(
    ("protocol", "told"),
    [
        (Lines(references=[REFERENCE, REFERENCE]), "a place is given twice"),  # type: ignore[list-item]
        (Lines(references=[REFERENCE, REFERENCE | {"row": 8}]), "off the chip"),  # type: ignore[list-item]
        (
            Lines(references=[REFERENCE, REFERENCE | {"row": 1}], lowest_v=0.3),
            "must lie below limits.read_v",
        ),  # type: ignore[list-item]
        (
            Leads(method="four-wire", instrument="smu", channel="1"),
            "'smu' is no instrument of this bench",
        ),
        (
            BoardConverters(references=[REFERENCE, REFERENCE | {"row": 1}], adc_points=129),  # type: ignore[list-item]
            "more references, positions or levels",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(
    bench_file: MakeBench, protocol: Any, told: str
) -> None:
    resistors = [{"row": r, "column": 0, "ohm": 1e3} for r in range(2)]
    with (
        Bench.open(bench_file(resistors=resistors)) as bench,
        pytest.raises(ConfigError, match=told),
    ):
        bench.run(protocol)


@pytest.mark.parametrize(
    ("kind", "more"),
    [(Leads, {}), (Lines, {}), (BoardConverters, {"adc_points": 9, "lowest_v": 0.05})],
    ids=["leads", "lines", "converters"],
)
def test_references_that_contradict_each_other_are_refused_by_name(
    bench_file: MakeBench, kind: Any, more: dict[str, Any]
) -> None:
    """One of 2060 ohm is said to have 1000."""
    truth = [2060.0, *LADDER_OHM]
    resistors = [{"row": k // 4, "column": k % 4, "ohm": ohm} for k, ohm in enumerate(truth)]
    said = [1e3, *LADDER_OHM]
    references = [
        r | {"ohm": ohm, "half_width_ohm": 1e-4 * ohm}
        for r, ohm in zip(resistors, said, strict=True)
    ]
    protocol = kind(references=references, **more)
    with (
        Bench.open(bench_file(resistors=resistors, errors={"access_ohm": 10.0})) as bench,
        pytest.raises(ConfigError, match="references contradict each other: ") as refused,
    ):
        bench.run(protocol)
    assert "1000 ohm" in str(refused.value)


class _Contact(Leaded):
    """Leads that do not keep to one value: `extra_v` of the amperes, and of whether there were
    four-wire readings before, comes on top of the volts of two wires.
    """

    def __init__(self, extra_v: Callable[[float, bool], float]) -> None:
        super().__init__(100.0, 2.0)
        self._extra_v, self._is_later = extra_v, False

    @override
    def sense(self) -> Sensed:
        found = super().sense()
        if self.is_remote():
            self._is_later = True
            return found
        return replace(found, volts=found.volts + self._extra_v(found.amps, self._is_later))


@pytest.mark.parametrize(
    ("extra_v", "told"),
    [
        (lambda amps, _: 0.0, ""),
        # A contact with a threshold; one that lets go between the two-wire readings; sense leads
        # that are exchanged with those of the force.
        (lambda amps, _: float(np.copysign(3e-4, amps)), "at 0.001 A, .* at 0.0005 A; is every"),
        (lambda amps, is_later: amps * is_later, "before .* after the four-wire"),
        (lambda amps, _: -4.0 * amps, "four-wire reads 2.* ohm more than two-wire"),
    ],
)
def test_leads_whose_readings_contradict_each_other_are_refused(
    extra_v: Callable[[float, bool], float], told: str
) -> None:
    contact = _Contact(extra_v)
    nothing = SourceMeterErrors()
    with (
        two_meters(1, nothing, contact, nothing) as (simulated, section, _),
        Bench.open(bench_of({})) as bench,
    ):
        contact.is_remote = lambda: is_remote(simulated)
        keys = {"method": "four-wire", "instrument": section, "channel": "1", "repeat": 8}
        protocol = Leads.model_validate(keys)
        if told:
            with pytest.raises(ConfigError, match=told):
                bench.run(protocol)
            assert not simulated.outputs_on
            return
        found = bench.run(protocol).values["series_ohm"]
        assert found.values[0] == pytest.approx(2.0, abs=2 * found.half_widths[0])
        assert found.half_widths[0] < 0.05


@pytest.mark.parametrize("off", [0.0, 0.01, 0.05, 1.0])
def test_a_line_that_bends_is_refused(off: float) -> None:
    levels = np.linspace(-1, 1, 11)
    bent = levels + off * levels**2
    if off <= 0.01:
        refuse_bent(bent, levels, 1.0, "the resistor")
        return
    with pytest.raises(ConfigError, match="the resistor does not give a straight line"):
        refuse_bent(bent, levels, 1.0, "the resistor")


def test_keys_that_do_not_go_together_are_refused() -> None:
    for kind, keys, told in (
        (Leads, {}, "references are needed"),
        (Leads, {"method": "four-wire"}, "instrument and channel are needed"),
        (
            Leads,
            {"method": "four-wire", "instrument": "x", "channel": "1", "references": [REFERENCE]},
            "references are for method",
        ),
        (
            Leads,
            {"references": [REFERENCE], "instrument": "x"},
            "instrument and channel are for method",
        ),
        (
            SourceMeterCalibration,
            {"part": "gain", "instrument": "x", "channel": "1"},
            "ohm and zero are needed",
        ),
        (
            SourceMeterCalibration,
            {"part": "zero", "instrument": "x", "channel": "1", "meter": "y"},
            "meter_channel",
        ),
    ):
        with pytest.raises(ConfigError, match=told):
            kind.model_validate(keys)  # type: ignore[attr-defined]


def test_a_reference_that_does_not_conduct_is_named(bench_file: MakeBench) -> None:
    file = bench_file(
        resistors=[{"row": 0, "column": 0, "ohm": 1e3}, {"row": 1, "column": 0, "ohm": 1e15}]
    )
    with (
        Bench.open(file) as bench,
        pytest.raises(ConfigError, match=r"no usable reading of the reference at .*1, 0"),
    ):
        bench.run(Lines(references=[REFERENCE, REFERENCE | {"row": 1}]))  # type: ignore[list-item]


def test_an_instrument_of_the_bench_keeps_to_its_limits(tmp_path: Path) -> None:
    path = write_bench(tmp_path, CHAIN, size=4)
    keys = {"part": "gain", "instrument": "bl", "channel": "1", "ohm": 1e4, "zero": "zero.toml"}
    with Bench.open(path) as bench:
        for more, told in (
            ({"most_v": 5.0}, r"limits\.bl_v"),
            ({"most_a": 1e-2}, r"limits\.current_a"),
        ):
            with pytest.raises(LimitError, match=told):
                bench.run(SourceMeterCalibration.model_validate(keys | more))


def test_zero_current_of_the_benchs_own_source_meter_with_the_matrix_open(tmp_path: Path) -> None:
    path = write_bench(tmp_path, CHAIN, size=4)
    path.write_text(
        path.read_text() + '\n[simulation.errors.source_meters."bl.1"]\noffset_a = 5e-9\n'
    )
    with Bench.open(path) as bench:
        found: Any = bench.run(
            SourceMeterCalibration(part="zero", instrument="bl", channel="1", repeat=4)
        )
        assert bench.driver.instruments["bl"].is_off()
    small = found.values["range_a"].values <= 1e-6
    assert found.values["offset_a"].values[small] == pytest.approx(5e-9, abs=1e-9)
    assert found.identity.model == "2450"


def test_a_gain_is_not_measured_with_the_zero_of_another_instrument(tmp_path: Path) -> None:
    found, _, _ = zero(1, folder=tmp_path)
    assert found.identity is not None
    stranger = replace(found, identity=replace(found.identity, serial="OTHER"))
    stranger.complete(found.identity, "", datetime.now(UTC)).write(tmp_path / "zero.toml")
    with two_meters(1, SourceMeterErrors(), Resistor(1e5), SourceMeterErrors()) as (
        _,
        section,
        _other,
    ):
        keys = {
            "part": "gain",
            "instrument": section,
            "channel": "1",
            "ohm": 1e5,
            "zero": "zero.toml",
            "repeat": 4,
        }
        with Bench.open(bench_of({}, folder=tmp_path)) as bench:
            setting = replace(bench.setting, folder=tmp_path)
            with pytest.raises(
                ConfigError, match=r"zero\.toml is a calibration of 2450, serial OTHER"
            ):
                bench.run(SourceMeterCalibration.model_validate(keys).run(setting))


def test_ranges_that_the_resistor_does_not_reach_are_as_documents_state(tmp_path: Path) -> None:
    found, _, _ = gain(2, folder=tmp_path)
    ranges, gains, wide = (found.values[n] for n in ("range_a", "gain_a", "gain_a"))
    top = ranges.values > 1.1e-3
    assert np.all(gains.values[top] == 0)
    assert np.all(wide.half_widths[top] > 0)
    assert np.all(gains.values[(ranges.values > 5e-6) & ~top] != 0)
