"""Pulses as they arrive: a scope finds level, width and overshoot of a path that it does not know,
and benches then correct pulses and count their peaks.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chain_benches import LIMITS, PULSED
from chain_benches import bench_text as chain_text
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rram_hil import Bench
from rram_hil.array import (
    Apply,
    Cells,
    Geometry,
    Limits,
    Program,
    PulseTrain,
    Ramp,
    Step,
    check,
    read_step,
)
from rram_hil.calibration.metrology.waveforms import Seen, arrival_of, pulse_shapes
from rram_hil.calibration.pulse_arrival import MeasuredArrival, MeasurePulseArrival, PulseArrival
from rram_hil.corrections.calibration_file import CalibrationFile, load, parse
from rram_hil.corrections.kind import BenchFacts
from rram_hil.drivers.matrix.wiring import Wiring
from rram_hil.drivers.simulated.array.pulse_path import poles_of, stepped
from rram_hil.drivers.simulated.server.control import BoardControl, LinkFault
from rram_hil.errors import ConfigError, InstrumentError, LimitError, LinkError
from rram_hil.hardware.arrival import StatedArrival
from rram_hil.hardware.driver import Identity
from rram_hil.hardware.oscilloscope import Oscilloscope, ScopeSetup, ScopeTrigger
from rram_hil.pytest_plugin import LIMITS as PLUGIN_LIMITS

GAIN, RISE_S, OVERSHOOT, STRETCH_S = -0.08, 9e-9, 0.18, 7e-9
PATH = f"gain = {GAIN}\nrise_s = {RISE_S}\novershoot = {OVERSHOOT}\ndelay_s = 40e-9\n"
KEYS: dict[str, Any] = {
    "generator": "pulser.1",
    "scope": "scope.1",
    "widths_s": [60e-9, 400e-9],
    "levels_v": [-2.0, -0.5, 2.0],
    "row": 0,
    "column": 0,
    "line": "sl",
    "probe": 1.0,
    "repeat": 4,
}


def bench_text(path: str = PATH, more: str = "", **limits: float) -> str:
    """A bench file of one cell between a source-meter and a generator, seen by a scope."""
    text = LIMITS.format(line_v=4.0, half_select_v=4.0).replace("sl_v = 3.0", "sl_v = 4.0")
    for key, value in limits.items():
        lines = [f"{key} = {value}" if x.startswith(f"{key} =") else x for x in text.split("\n")]
        text = "\n".join(lines)
    return (
        '[chip]\nid = "one"\ntiles = 1\nrows = 1\ncolumns = 1\ncell = "1R"\nsource_lines = "row"\n'
        '[driver]\nname = "smu-matrix"\n'
        '[driver.instruments.smu]\nkind = "keithley-2450"\n'
        '[driver.instruments.pulser]\nkind = "keysight-33500"\nmodel = "33511B"\n'
        '[driver.instruments.scope]\nkind = "keysight-infiniivision"\nmodel = "MSOX3054A"\n'
        '[driver.wiring]\nchannels = { "smu.1" = "bl" }\ngenerators = { "pulser.1" = "sl" }\n'
        f'probes = {{ "scope.1" = "pulser.1" }}\n{text}\n'
        "[read]\nbl_v = 0.2\nwidth_s = 20e-3\n[simulation]\n"
        f'[simulation.errors.pulse_paths."pulser.1"]\n{path}stretch_s = {STRETCH_S}\n'
        f'[simulation.errors.scopes."scope.1"]\ngain = 0.01\noffset_v = 0.02\n{more}'
    )


def closed(bench: Bench) -> None:
    """Leave a bench, with everything off."""
    bench.driver.safe_off()
    assert bench.far_side is not None
    with BoardControl(bench.far_side.control) as control:
        assert not control.status()["outputs_on"]
    bench.close()


def opened(folder: Path, text: str, *files: Path) -> Bench:
    """A bench of a text in a folder of its own, with calibrations in force."""
    folder.mkdir(exist_ok=True)
    names = ", ".join(f'"{file}"' for file in files)
    path = folder / "bench.toml"
    path.write_text(f"{text}\n[calibration]\nfiles = [{names}]\n" if files else text)
    return Bench.open(path)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """The bench without a calibration."""
    bench = opened(tmp_path_factory.mktemp("plain"), bench_text())
    yield bench
    closed(bench)


@pytest.fixture(scope="module")
def arrival(plain: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the scope found on that bench."""
    path = tmp_path_factory.mktemp("arrival") / "arrival.toml"
    measured(plain, path)
    return path


@pytest.fixture(scope="module")
def corrected(arrival: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A bench like it with the calibration in force, and limits that 1.5 V keep at their peak."""
    limits = {"cell_v": 2.25, "sl_v": 2.1, "half_select_v": 2.25}
    folder = tmp_path_factory.mktemp("corrected")
    bench = opened(folder, bench_text(**limits), arrival)
    yield bench
    closed(bench)


def measured(bench: Bench, path: Path, **keys: Any) -> CalibrationFile:
    found = bench.run(MeasurePulseArrival(**KEYS | keys))
    file = found.complete(bench.identity, "one", datetime.now(UTC))
    file.write(path, force=True)
    return file


def table(file: CalibrationFile, name: str) -> tuple[np.ndarray, np.ndarray]:
    value = file.values[name]
    return value.values, value.half_widths


def test_what_arrives_is_found_within_what_is_stated(arrival: Path) -> None:
    file = load(arrival)
    widths, levels = file.values["width_s"].values, file.values["level_v"].values
    true = {
        "amplitude_v": np.tile(levels, 2) * (1 + GAIN),
        "arrived_s": np.repeat(widths, 3) + STRETCH_S,
        "rise_s": np.full(6, RISE_S),
        "fall_s": np.full(6, RISE_S),
        "overshoot": np.full(6, OVERSHOOT),
        "undershoot": np.full(6, OVERSHOOT),
        "overshoot_v": np.tile(np.abs(levels), 2) * (1 + GAIN) * OVERSHOOT,
    }
    for name, wanted in true.items():
        values, wide = table(file, name)
        # 95 % intervals, 42 of them: two or three may miss, none by much.
        assert np.all(np.abs(values - wanted) <= 1.5 * wide), name
    assert np.all(table(file, "arrived_s")[1] < 1e-9)
    assert np.all(table(file, "overshoot")[1] < 0.03)
    assert (file.instrument.model, file.instrument.channel) == ("33511B", "1")
    assert "MSOX3054A" in file.reference


def seen_by_scope(bench: Bench, volts: float, width_s: float) -> dict[str, float]:
    """What a scope shows of one pulse of an operation, its gain taken out."""
    scope = bench.driver.instruments["scope"]
    assert isinstance(scope, Oscilloscope)
    scope.configure("1", ScopeSetup(2.5 * abs(volts), -volts / 2))
    span_s = 2 * width_s + 400e-9
    middle_s = span_s / 2 - 0.5 * width_s - 100e-9
    scope.await_trigger(ScopeTrigger("1", -volts / 4, volts < 0, span_s, middle_s))
    bench.do(Apply(bench.cells(), (Step(volts, 0.0, 0.0, width_s),)))
    record = scope.record("1", 100_000, 1.0)
    shapes = pulse_shapes(
        record.volts[None] / 1.01, np.array([record.start_s]), record.step_s, -1.0, width_s
    )
    return {
        "level": float(shapes.amplitude_v[0]),
        "width": float(shapes.width_s[0]),
        "peak": float(shapes.amplitude_v[0] + shapes.overshoot_v[0]),
        "through": float(shapes.undershoot_v[0]),
    }


@pytest.mark.parametrize("width_s", [70e-9, 150e-9])
def test_pulses_arrive_as_they_are_asked_for(
    plain: Bench, corrected: Bench, width_s: float
) -> None:
    raw = seen_by_scope(plain, 1.5, width_s)
    assert raw["level"] == pytest.approx(1.5 * (1 + GAIN), rel=0.02)
    assert raw["width"] == pytest.approx(width_s + STRETCH_S, abs=1e-9)
    right = seen_by_scope(corrected, 1.5, width_s)
    assert right["level"] == pytest.approx(1.5, rel=0.04)
    assert right["width"] == pytest.approx(width_s, abs=1e-9)


def test_the_peak_counts_as_the_volts_at_the_cell(plain: Bench, corrected: Bench) -> None:
    """1.85 V keep a limit of 2.25 V, with their overshoot they do not."""
    shot = Apply(corrected.cells(), (Step(1.85, 0.0, 0.0, 100e-9),))
    plain.do(shot)
    peak = 1.85 / 1.5 * seen_by_scope(corrected, 1.5, 100e-9)["peak"]
    with pytest.raises(
        LimitError, match=r"of 2\.25 V, counting the overshoot of the pulse"
    ) as told:
        corrected.do(shot)
    with pytest.raises(LimitError, match="overshoot"):
        corrected.setting.require(shot)
    assert peak < abs(told.value.value or 0.0) < 1.15 * peak
    # Steps that source-meters time have none.
    corrected.do(Apply(corrected.cells(), (Step(1.85, 0.0, 0.0, 5e-3),)))


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (Step(1.5, 0.0, 0.0, 30e-9), "how pulses arrive was measured from 6e-08 to 4e-07 s"),
        (
            Step(0.3, 0.0, 0.0, 100e-9),
            "how pulses arrive was measured at -2, -0.5, 2 V, as the generator gives them",
        ),
        # Set to the shortest that was measured it arrives 7 ns longer.
        (Step(1.5, 0.0, 0.0, 61e-9), "arrive with its width within 0.05"),
    ],
)
def test_a_pulse_that_cannot_be_made_to_arrive_is_refused_by_name(
    corrected: Bench, step: Step, told: str
) -> None:
    assert corrected.ledger is not None
    before = corrected.ledger.counts.sum()
    with pytest.raises(ConfigError, match=told):
        corrected.do(Apply(corrected.cells(), (step,)))
    assert corrected.ledger.counts.sum() == before


def test_a_level_that_is_not_known_well_enough_is_refused(arrival: Path) -> None:
    file = load(arrival)
    conditions = file.conditions | {"level_tolerance": 0.01}
    strict = MeasuredArrival(file.model_copy(update={"conditions": conditions}))
    with pytest.raises(ConfigError, match=r"with its level within 0\.01 of it: set to"):
        strict.to_set(np.array([-1.0]), 100e-9)


FACTS = BenchFacts(
    Geometry(1, 1, 1, "1R"),
    "one",
    parts={"pulser": Identity("33511B", "SIM0002")},
    generators=("pulser.1",),
)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('serial = "SIM0002"', 'serial = "SIM0009"', "a calibration of 33511B, serial SIM0009"),
        ("width_tolerance = 0.05", "width_tolerance = 5.0", "5.0 is not between 0 and 1"),
        ("value = [-2.0, -0.5, 2.0]", "value = [-2.0, 2.0, -0.5]", "values.level_v: must rise"),
        (
            "value = [-2.0, -0.5, 2.0]",
            "value = [-2.0, 0.5, 2.0]",
            "arrives at 0 V or with the other",
        ),
        (
            'channel = "1"',
            'channel = "2"',
            r"33511B, serial SIM0002, channel 2; channels that give pulses here: pulser\.1",
        ),
        ('channel = "1"', 'channel = ""', "channels that give pulses here: pulser"),
        ("[values.arrived_s]\nvalue = [", "[values.arrived_s]\nvalue = [-", "is out of range"),
        ("[values.rise_s]\nvalue = [", "[values.rise_s]\nvalue = [-", "is out of range"),
        (
            "[values.amplitude_v]\nvalue = [-1.",
            "[values.amplitude_v]\nvalue = [-0.1",
            r"values\.amplitude_v: 0\.09\d+ of -2 V arrives; 0\.3 to 3 of it can be: look at the",
        ),
    ],
)
def test_a_foreign_or_wrong_file_is_refused(arrival: Path, old: str, new: str, told: str) -> None:
    text = arrival.read_text()
    assert old in text
    kind = PulseArrival(parse(text.replace(old, new)), FACTS)

    def check() -> None:
        kind.check_owner()
        kind.check_values()

    with pytest.raises(ConfigError, match=told):
        check()


ONE = {"widths_s": [100e-9], "levels_v": [1.0]}


@pytest.mark.parametrize(
    ("keys", "kind", "told"),
    [
        (
            {"scope": "scope.2"},
            ConfigError,
            r"'scope\.2' does not see .* of 'pulser\.1'; by .*probes scope\.1 sees pulser\.1",
        ),
        ({"generator": "pulser.2"}, ConfigError, "is no channel of a pulse generator|not see"),
        ({"settle_s": 1.0}, ConfigError, r"settle_s: 1\.0 is wrong"),
        ({"headroom": 0.02}, InstrumentError, "is clipped at the bottom of the screen"),
        ({"scope": "pulser.1"}, ConfigError, "'pulser.1' is no channel of an oscilloscope"),
        ({"generator": "smu.1"}, ConfigError, "'smu.1' is no channel of a pulse generator"),
        ({"widths_s": [5e-3]}, ConfigError, "the source-meters of this bench give"),
        ({"levels_v": [5.0]}, LimitError, "beyond the limit of 4 V"),
    ],
)
def test_what_goes_wrong_is_told(
    plain: Bench, keys: dict[str, Any], kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind, match=told):
        plain.run(MeasurePulseArrival(**KEYS | ONE | keys))
    assert plain.far_side is not None
    with BoardControl(plain.far_side.control) as control:
        assert not control.status()["outputs_on"]


def test_a_calibration_in_force_is_not_measured_through(corrected: Bench) -> None:
    with pytest.raises(ConfigError, match="take the calibration of pulse-arrival out"):
        corrected.run(MeasurePulseArrival(**KEYS | ONE))


def test_a_pulse_that_is_moved_to_one_line_keeps_its_limit_at_the_peak(corrected: Bench) -> None:
    """1.75 V across the cell are half on either line as asked, and all on the generator's."""
    shot = Apply(corrected.cells(), (Step(0.875, -0.875, 0.0, 100e-9),))
    corrected.setting.require(shot)
    with pytest.raises(LimitError, match=r"put 2\.1\d+ V on SL, beyond the limit of 2\.1 V"):
        corrected.do(shot)


def test_a_pulse_that_cannot_arrive_is_refused_before_a_step_begins(corrected: Bench) -> None:
    for step in (Step(0.3, 0.0, 0.0, 100e-9), Step(0.0, 1.5, 0.0, 30e-9)):
        with pytest.raises(ConfigError, match="how pulses arrive was measured"):
            corrected.setting.require(Apply(corrected.cells(), (step,)))


def test_what_the_generator_is_set_to_keeps_the_limit_of_its_line(
    arrival: Path, tmp_path: Path
) -> None:
    """1.5 V arrive of 1.63 V: more than the line may have where the path loses nothing."""
    shot = (Step(1.5, 0.0, 0.0, 100e-9),)
    # Little overshoot, so that the peak keeps the limit.
    path = tmp_path / "arrival.toml"
    file = load(arrival)
    values = dict(file.values)
    for name in ("overshoot", "undershoot"):
        none = [0.0] * 6
        values[name] = values[name].model_copy(update={"value": none, "half_width": none})
    wide = [0.001] * 6
    values["amplitude_v"] = values["amplitude_v"].model_copy(update={"half_width": wide})
    file.model_copy(update={"values": values}).write(path)
    bench = opened(tmp_path / "set", bench_text(sl_v=1.6), path)
    with pytest.raises(LimitError, match=r"put 1\.6\d+ V on SL.*which is what it is set to"):
        bench.do(Apply(bench.cells(), shot))
    closed(bench)


@pytest.mark.fast
@pytest.mark.parametrize("line", ["bl", "sl"])
@pytest.mark.parametrize("level_v", [2.0, -2.0])
def test_the_cell_at_the_pad_stays_closed(line: str, level_v: float) -> None:
    protocol = MeasurePulseArrival(**KEYS | {"line": line})
    for selector, opens in (("nmos", min), ("pmos", max)):
        (step,) = protocol.shot(1e-6, level_v, selector).steps
        assert step.wl_v == opens(step.bl_v, step.sl_v)
    open_gate = MeasurePulseArrival(**KEYS | {"wl_v": 3.0}).shot(1e-6, level_v, "nmos")
    assert open_gate.steps[0].wl_v == 3.0


@pytest.mark.fast
def test_a_number_of_a_list_that_is_wrong_is_named(arrival: Path) -> None:
    text = arrival.read_text()
    at = text.index("[values.overshoot]")
    wrong = text[:at] + text[at:].replace("value = [", "value = [nan, ", 1)
    with pytest.raises(ConfigError, match=r"values\.overshoot\.value\.0: nan is wrong"):
        parse(wrong)


@pytest.mark.fast
def test_a_probe_sees_a_generator() -> None:
    wired = {"channels": {"smu.1": "bl"}, "generators": {"pulser.1": "sl"}}
    with pytest.raises(ValidationError, match=r"'scope\.1' = 'smu\.1', which is no generator"):
        Wiring.model_validate(wired | {"probes": {"scope.1": "smu.1"}})


@pytest.mark.long
def test_a_scope_that_is_slower_than_the_edges_is_refused(tmp_path: Path) -> None:
    bench = opened(tmp_path / "fast", bench_text("rise_s = 1e-9\n"))
    with pytest.raises(ConfigError, match=r"the scope's own rise of 7e-10 s hides the edges"):
        bench.run(MeasurePulseArrival(**KEYS | ONE))
    closed(bench)


def test_a_lost_record_is_asked_for_again_and_a_dead_scope_ends_the_run(
    plain: Bench, tmp_path: Path
) -> None:
    bench = plain
    assert bench.far_side is not None
    scope = bench.driver.instruments["scope"]
    scope.dialog.timeout_s = 0.5
    with BoardControl(bench.far_side.control) as control:
        for lost in (LinkFault.DROP_REPLY, LinkFault.HALF_REPLY):
            control.inject(lost, ":WAV:DATA", instrument="scope")
            file = measured(bench, tmp_path / "a.toml", **ONE)
            values, wide = table(file, "arrived_s")
            assert abs(values[0] - 107e-9) <= wide[0]
        control.inject(LinkFault.STUCK, ":SING", instrument="scope")
        with pytest.raises(LinkError):
            bench.run(MeasurePulseArrival(**KEYS | ONE))
        control.clear()


@pytest.mark.long
def test_pulses_of_an_spgu_reach_the_scope_through_a_matrix(tmp_path: Path) -> None:
    text = chain_text(next(iter(PULSED)), "1T1R", 2)
    scope = '[driver.instruments.scope]\nkind = "keysight-infiniivision"\nmodel = "DSOX4034A"\n'
    probes = 'probes = { "scope.3" = "analyser.501" }\n'
    text = text.replace("[driver.wiring]\n", f"{scope}[driver.wiring]\n{probes}")
    path = f'[simulation.errors.pulse_paths."analyser.501"]\n{PATH}'
    bench = opened(tmp_path / "spgu", f"{text}\n{path}")
    keys = {"generator": "analyser.501", "scope": "scope.3", "line": "bl", "levels_v": [1.0, 2.0]}
    file = measured(bench, tmp_path / "spgu.toml", **KEYS | keys)
    values, wide = table(file, "overshoot")
    assert np.all(np.abs(values - OVERSHOOT) <= 1.5 * wide)
    values, wide = table(file, "amplitude_v")
    assert np.all(np.abs(values - np.tile([1.0, 2.0], 2) * (1 + GAIN)) <= 1.5 * wide)
    # The gate is closed: the cell has had its pulses, and stands as it did.
    assert bench.ledger is not None
    assert bench.ledger.counts.sum() == 4 * KEYS["repeat"]
    closed(bench)


def test_another_scope_is_refused_when_the_bench_opens(tmp_path: Path) -> None:
    text = bench_text().replace('model = "MSOX3054A"', 'model = "DSOX3054Z"')
    with pytest.raises(ConfigError, match=r"the nearest is DSOX3054A: treat_as"):
        opened(tmp_path, text)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('probes = { "scope.1" = "pulser.1" }\n', "", "scope has no channel in wiring.channels"),
        (
            '"scope.1"',
            '"smu.1"',
            r"wiring\.probes: 'smu\.1' is no channel of an oscilloscope; there is: scope",
        ),
        ('"scope.1"', '"scope.7"', r"'scope\.7' is no channel of an oscilloscope; .*scope\.4"),
    ],
)
def test_probes_are_channels_of_a_scope(tmp_path: Path, old: str, new: str, told: str) -> None:
    text = bench_text()
    assert old in text
    with pytest.raises(ConfigError, match=told):
        opened(tmp_path, text.replace(old, new))


NMOS = Geometry(1, 2, 2)
SPGU = StatedArrival(0.05, 0.02)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("step", "limit", "told"),
    [
        (
            Step(2.0, 0.0, 3.0, 1e-6),
            {"cell_v": 2.1},
            r"BL - SL 2\.12 V is beyond the limit of 2\.1",
        ),
        (Step(0.0, 2.0, 3.0, 1e-6), {"sl_v": 2.1}, r"SL 2\.12 V"),
        # What swings through after the pulse pulls the line below a gate that is still up.
        (Step(2.0, 0.0, 3.0, 1e-6), {"gate_over_v": 3.1}, r"lower of BL and SL 3\.12 V"),
        (Step(2.0, 0.0, 3.0, 1e-6), {"half_select_v": 0.1}, r"a half-selected cell's 0\.12 V"),
    ],
)
def test_what_documents_state_of_a_generator_counts_where_nothing_was_measured(
    step: Step, limit: dict[str, float], told: str
) -> None:
    free = {"bl_v": 4.0, "sl_v": 4.0, "wl_v": 4.0, "cell_v": 4.0, "gate_over_v": 4.0}
    limits = Limits.model_validate(PLUGIN_LIMITS | free | {"half_select_v": 4.0} | limit)
    shot = Apply(Cells.of([(0, 0, 0)]), (step,))
    check(shot, NMOS, limits)
    with pytest.raises(LimitError, match=f"{told}.*, counting the overshoot of the pulse"):
        check(shot, NMOS, limits, peaks=SPGU.peaks)


@pytest.mark.fast
def test_pulses_of_a_write_verify_count_their_overshoot_too() -> None:
    train = PulseTrain(Ramp(1.0, 2.0, 0.5), Ramp(3.0, 3.0), 1e-6)
    cells, low, high = Cells.of([(0, 0, 0)]), np.array([1e-5]), np.array([2e-5])
    program = Program(cells, low, high, train, train, read_step(), 4)
    free = {"bl_v": 4.0, "sl_v": 4.0, "wl_v": 4.0, "gate_over_v": 4.0, "half_select_v": 4.0}
    limits = Limits.model_validate(PLUGIN_LIMITS | free | {"cell_v": 2.1})
    check(program, NMOS, limits)
    with pytest.raises(LimitError, match=r"2\.12 V .*, counting the overshoot of the pulse"):
        check(program, NMOS, limits, peaks=SPGU.peaks)


SCOPE_RISE_S = 0.35 / 500e6


@pytest.mark.fast
@given(
    rise_s=st.floats(4e-9, 30e-9),
    overshoot=st.sampled_from([0.0, 0.02, 0.1, 0.3]),
    width=st.floats(8.0, 60.0),
    level=st.floats(0.3, 5.0),
    seed=st.integers(0, 1000),
)
def test_figures_of_a_pulse_hold_the_truth(
    rise_s: float, overshoot: float, width: float, level: float, seed: int
) -> None:
    rng, repeats = np.random.default_rng(seed), 8
    width_s, step_s = width * rise_s, 0.5e-9
    poles = (*poles_of(rise_s, overshoot), complex(-2 * np.pi * 500e6))
    start_s = -0.3 * width_s - 8 * rise_s + step_s * rng.uniform(size=repeats)
    time_s = start_s[:, None] + step_s * np.arange(int((1.6 * width_s + 24 * rise_s) / step_s))
    volts = level * (stepped(poles, time_s) - stepped(poles, time_s - width_s))
    digit_v = 3 * level / 256
    volts = volts + rng.normal(0.0, 0.4 * digit_v, volts.shape)
    volts = np.round(volts / digit_v) * digit_v
    shapes = pulse_shapes(volts, start_s, step_s, 1.0, width_s)
    found = arrival_of(shapes, Seen(digit_v, 0.0, 1e-5, SCOPE_RISE_S), 3 * level, step_s)
    true = {
        "amplitude_v": level,
        "arrived_s": width_s,
        "rise_s": rise_s,
        "fall_s": rise_s,
        "overshoot": overshoot,
        "undershoot": overshoot,
    }
    for name, wanted in true.items():
        value, wide = found[name]
        # 95 % intervals, eight readings: hundreds of draws hold within twice as much.
        assert abs(value - wanted) <= 2 * wide, (name, value, wide, wanted)
        assert wide <= 0.1 * (level if name == "amplitude_v" else max(abs(wanted), 1.0))
