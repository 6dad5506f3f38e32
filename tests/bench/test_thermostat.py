"""A bench with a thermostat: its temperature is asked for by a recipe, kept with what is measured,
and gone when the run is over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from rram_hil.array import Apply, Charge, Operation, Result, Step, Wait
from rram_hil.bench.bench import Bench
from rram_hil.bench.bench_file import load_bench_file
from rram_hil.bench.forecast import plan_recipe
from rram_hil.bench.recipe import load_recipe
from rram_hil.bench.recipe_runner import run_recipe
from rram_hil.engine.engine import Watcher
from rram_hil.engine.protocol import HoldTemperature, ReadTemperature
from rram_hil.errors import AbortedError, BenchError, ConfigError, InstrumentError, LimitError
from rram_hil.protocols.read_map import ReadMap
from rram_hil.protocols.temperature import Temperature
from rram_hil.storage.run_reader import RunFile
from rram_hil.terminal.console import Output
from rram_hil.terminal.screens import show_bench
from rram_hil.terminal.show import show_run

EXAMPLES = Path(__file__).parents[2] / "examples"
BENCH = """
[chip]
id = "warm"
tiles = 1
rows = 4
columns = 4
cell = "1T1R"

[driver]
name = "simulated-array"

[limits]
bl_v = 4.0
sl_v = 3.0
wl_v = 4.0
cell_v = 4.0
gate_over_v = 4.0
half_select_v = 0.3
read_v = 0.25
current_a = 1e-3
energy_j = 1e-8
width_s = 1e-5
pulses_per_cell = 2000
conductance_s = [0.0, 300e-6]

[simulation]
device = "hfo2"
seed = 1
"""
LAKE_SHORE = '[thermostat]\nkind = "lakeshore-336"\nlowest_k = 290.0\nhighest_k = 400.0\n'
THERMO_STREAM = (
    '[thermostat]\nkind = "temptronic-thermostream"\nlowest_k = 230.0\nhighest_k = 400.0\n'
)
TOO_MUCH = (Step(100.0, 0.0, 3.0, 1e-6),)
RETENTION = """
[[step]]
name = "warm"
protocol = "temperature"
temperature_k = 350.0

[[step]]
name = "warm retention"
protocol = "retention"
first_s = 1.0
last_s = 100.0
per_decade = 1

[[step]]
name = "warm map"
protocol = "read-map"

[[step]]
name = "hot"
protocol = "temperature"
temperature_c = 110.0
tolerance_k = 0.2
steady_s = 30.0

[[step]]
name = "hot map"
protocol = "read-map"
"""


@pytest.fixture(autouse=True)
def _own_ledgers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def bench_file(tmp_path: Path) -> Path:
    path = tmp_path / "bench.toml"
    path.write_text(BENCH + LAKE_SHORE)
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(RETENTION)
    return path


@pytest.fixture
def bench(bench_file: Path) -> Iterator[Bench]:
    with Bench.open(bench_file) as opened:
        yield opened


def thermostat(bench: Bench) -> Any:
    assert bench.climate is not None
    return bench.climate.thermostat


def hold(bench: Bench, kelvin: float, **keys: float) -> Any:
    return bench.run(Temperature(temperature_k=kelvin, **keys))


def test_every_map_and_reading_has_its_temperature(
    bench_file: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run.h5"
    outcome = run_recipe(recipe, bench_file, run)
    steps: dict[str, Any] = dict(outcome.steps)
    assert (steps["warm"].set_point_k, steps["hot"].set_point_k) == (350.0, 383.15)
    assert abs(steps["hot"].median_k - 383.15) < 0.2
    with h5py.File(run) as file:
        kelvin = file["maps/conductance/conductance_temperature_k"]
        assert kelvin.attrs["units"] == "K"
        assert file.attrs["thermostat"] == "Lake Shore 336, serial SIM0001/SIM0001"
        np.testing.assert_allclose(kelvin[()], [350.0, 383.15], atol=0.5)
        assert kelvin.shape == file["maps/conductance/conductance"].shape[:1]
        kept = file["results/2_warm retention"]
        assert kept["temperature"].attrs["units"] == "K"
        assert kept["temperature"].shape == kept["conductance_by_time"].shape[1:]
        np.testing.assert_allclose(kept["temperature"][()], 350.0, atol=0.5)
        np.testing.assert_allclose(kept["conductance_by_time"].attrs["temperature_k"], 350, atol=1)
        course = file["results/1_warm"]
        assert course["temperature"][0] == pytest.approx(295.0, abs=0.1)
        assert np.all(np.diff(course["temperature_time_s"][()]) > 0)
    with RunFile(run) as kept_run:
        told = kept_run.map("conductance").temperature_k
        assert told is not None
        np.testing.assert_allclose(told, [350.0, 383.15], atol=0.5)
    show_run(run, Output())
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[-1] for row in rows if row.strip().startswith("conductance")][:2] == [
        "350",
        "383",
    ]


def test_a_step_waits_until_the_temperature_has_been_steady(bench: Bench) -> None:
    done = hold(bench, 350.0, tolerance_k=0.1, steady_s=120.0)
    # One time constant of 60 s from 295 K: within 0.1 K after 60 s x ln(550).
    assert 60.0 * math.log(550.0) <= done.took_s - 120.0 < 60.0 * math.log(550.0) + 10.0
    assert thermostat(bench).temperature_k() == pytest.approx(350.0, abs=0.1)


def test_a_temperature_that_is_not_reached_ends_with_the_heater_off(bench: Bench) -> None:
    with pytest.raises(InstrumentError, match=r"350 K \+- 0\.5 K was not steady") as caught:
        hold(bench, 350.0, steady_s=10.0, at_most_s=30.0)
    assert caught.value.outputs_off
    assert thermostat(bench).is_off()


def test_an_error_of_the_driver_switches_the_heater_off_too(bench: Bench) -> None:
    hold(bench, 350.0)
    assert not thermostat(bench).is_off()
    with pytest.raises(LimitError):
        bench.do(Apply(bench.cells(), TOO_MUCH))
    assert thermostat(bench).is_off()


def test_what_follows_an_error_is_done_at_the_temperature_that_was_asked_for(bench: Bench) -> None:
    hold(bench, 350.0)
    with pytest.raises(LimitError):
        bench.do(Apply(bench.cells(), TOO_MUCH))
    bench.do(Wait(3600.0))  # comes back first
    assert thermostat(bench).temperature_k() == pytest.approx(350.0, abs=0.5)
    with pytest.raises(LimitError):
        bench.do(Apply(bench.cells(), TOO_MUCH))
    done = hold(bench, 320.0)  # and not to 350 K on its way
    assert done.set_point_k == 320.0


def test_what_follows_an_abort_leaves_the_heater_off(bench: Bench) -> None:
    hold(bench, 350.0)

    def aborts() -> Any:
        bench.abort()
        yield Wait(1.0)

    with pytest.raises(AbortedError):
        bench.run(aborts())
    bench.do(Wait(3600.0))
    assert thermostat(bench).is_off()


@pytest.mark.parametrize("kelvin", [415.0, 270.0, math.nan])
def test_a_temperature_that_runs_away_switches_the_heater_off(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kelvin: float
) -> None:
    hold(bench, 350.0)
    monkeypatch.setattr(thermostat(bench), "temperature_k", lambda: kelvin)
    with pytest.raises(InstrumentError, match=r"it reads .* 290 to 400 K") as caught:
        bench.run(ReadMap())
    assert caught.value.outputs_off
    assert thermostat(bench).is_off()
    # Nor is it switched on again before it reads what a chip may have.
    switched: list[float] = []
    monkeypatch.setattr(thermostat(bench), "hold", switched.append)
    with pytest.raises(InstrumentError, match="it reads"):
        bench.do(Wait(1.0))
    assert switched == []


def test_an_input_that_reads_nothing_never_gets_a_heater(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thermostat(bench), "temperature_k", lambda: 0.0)
    with pytest.raises(InstrumentError, match="it reads 0 K"):
        hold(bench, 350.0)
    assert thermostat(bench).set_point_k() == 0.0


def test_a_ctrl_c_while_outputs_go_off_does_not_keep_the_heater_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(bench, 350.0)

    def impatient() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(bench.driver, "safe_off", impatient)
        with pytest.raises(KeyboardInterrupt):
            bench.safe_off()
    assert thermostat(bench).is_off()


def test_leaving_the_bench_leaves_the_heater_off(bench_file: Path) -> None:
    with Bench.open(bench_file) as bench:
        hold(bench, 350.0)
        told = thermostat(bench)
        seen: list[bool] = []
        close = told.close
        told.close = lambda: (seen.append(told.is_off()), close())
    assert seen == [True]


def test_a_heater_that_stays_on_is_said_loudly(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(bench, 350.0)
    with monkeypatch.context() as stuck:
        stuck.setattr(thermostat(bench), "is_off", lambda: False)
        with pytest.raises(BenchError, match="OUTPUTS COULD NOT BE VERIFIED AS OFF"):
            bench.do(Apply(bench.cells(), TOO_MUCH))


@pytest.mark.parametrize("kelvin", [280.0, 500.0])
def test_temperatures_outside_the_bench_files_limits_are_refused(
    bench: Bench, kelvin: float
) -> None:
    with pytest.raises(LimitError, match=r"thermostat\.lowest_k to thermostat\.highest_k") as error:
        hold(bench, kelvin)
    assert error.value.allowed == (290.0, 400.0)
    assert thermostat(bench).set_point_k() == 0.0


def test_check_names_the_thermostat_and_its_limits(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    show_bench(bench, Output())
    assert "Lake Shore 336, serial SIM0001/SIM0001; 290 to 400 K" in capsys.readouterr().out


def test_a_near_model_is_driven_as_a_known_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bench.toml"
    path.write_text(BENCH + THERMO_STREAM + 'model = "ATS-605"\ntreat_as = "ATS-545"\n')
    with Bench.open(path) as bench:
        show_bench(bench, Output())
        assert "ATS-605 treated as ATS-545" in capsys.readouterr().out
        assert hold(bench, 300.0, tolerance_k=1.0, steady_s=1.0).set_point_k == 300.0


def test_a_bench_without_a_thermostat_says_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "bench.toml"
    path.write_text(BENCH)
    with Bench.open(path) as bench:
        with pytest.raises(ConfigError, match=r"describe it in \[thermostat\]"):
            hold(bench, 350.0)

        def plan() -> Any:
            return (yield from ReadTemperature())

        assert math.isnan(bench.run(plan()))


def test_without_a_thermostat_nothing_tells_of_temperatures(tmp_path: Path) -> None:
    (tmp_path / "bench.toml").write_text(BENCH)
    (tmp_path / "recipe.toml").write_text('[[step]]\nprotocol = "read-map"\n')
    run_recipe(tmp_path / "recipe.toml", tmp_path / "bench.toml", tmp_path / "run.h5")
    with h5py.File(tmp_path / "run.h5") as file:
        assert not [name for name in file["maps/conductance"] if "temperature" in name]
        assert "temperature_k" not in file["maps/conductance/conductance"].attrs
        assert "thermostat" not in file.attrs


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ('[thermostat]\nkind = "lakeshore-336"\nhighest_k = 400.0\n', "lowest_k"),
        (LAKE_SHORE.replace("290.0", "410.0"), "lies above highest_k"),
        (LAKE_SHORE.replace("lakeshore-336", "keithley-2400"), "is no thermostat"),
        (LAKE_SHORE.replace("lakeshore-336", "oven"), "oven"),
        (LAKE_SHORE + "heater_range = 9\n", "heater_range"),
        (LAKE_SHORE + 'model = "325"\noutput = 3\n', "a 325 has outputs 1 to 2"),
        (LAKE_SHORE + 'model = "335"\ninput = "C"\n', "a 335 has A, B"),
        (
            LAKE_SHORE + 'model = "346"\n',
            r"thermostat.model: '346' is not known to lakeshore-336; one of 336, 335, 350, 325",
        ),
        (
            LAKE_SHORE + 'model = "346"\ntreat_as = "336"\n',
            r"thermostat.model: '346' is not known to lakeshore-336; one of 336, 335, 350, 325",
        ),
        (
            THERMO_STREAM + 'model = "ATS-605"\n',
            r"'ATS-605' is not known to .* the nearest is ATS-.* treat_as = ",
        ),
    ],
)
def test_a_wrong_section_is_refused_in_one_line(tmp_path: Path, section: str, says: str) -> None:
    path = tmp_path / "bench.toml"
    path.write_text(BENCH + section)
    with pytest.raises(ConfigError, match=says) as caught:
        Bench.open(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({}, "give one of temperature_k"),
        ({"temperature_k": 300.0, "temperature_c": 20.0}, "give one of temperature_k"),
        ({"temperature_c": -300.0}, "temperature_c"),
        ({"temperature_k": 300.0, "steady_s": 10.0, "at_most_s": 5.0}, "steady_s"),
    ],
)
def test_a_wrong_step_is_refused(keys: dict[str, float], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Temperature(**keys)


class Cut(Watcher):
    """Ends the run at operation number `at`, from 1, of those with this label."""

    def __init__(self, label: str = "", at: int = 0) -> None:
        self.label, self.left = label, at
        self.notes: list[str] = []

    def operation(self, operation: Operation, result: Result, charge: Charge) -> None:
        self.left -= operation.label == self.label
        if self.left == 0 and operation.label == self.label:
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize(
    ("label", "at", "back"),
    [
        ("temperature", 5, []),  # on the way to the first: it goes there again
        ("retention", 2, ["back to 350 K"]),
        pytest.param("read map", 2, ["back to 383.15 K"], marks=pytest.mark.long),
        # On the way to the second: not to the first before.
        pytest.param("temperature", 140, [], marks=pytest.mark.long),
    ],
)
def test_a_resumed_run_comes_back_to_its_temperature(
    bench_file: Path, recipe: Path, tmp_path: Path, label: str, at: int, back: list[str]
) -> None:
    run = tmp_path / "run.h5"
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, bench_file, run, watcher=Cut(label, at))
    watcher = Cut()
    run_recipe(recipe, bench_file, run, resume=True, watcher=watcher)
    assert [note for note in watcher.notes if note.startswith("back to")] == back
    with h5py.File(run) as file:
        kelvin = file["maps/conductance/conductance_temperature_k"][()]
        np.testing.assert_allclose(kelvin, [350.0, 383.15], atol=0.5)
        np.testing.assert_allclose(file["results/2_warm retention/temperature"], 350.0, atol=0.5)


def test_an_abort_on_the_way_leaves_the_heater_off(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings: list[float] = []

    def third_aborts() -> float:
        readings.append(300.0)
        if len(readings) == 3:
            bench.abort()
        return 300.0

    monkeypatch.setattr(thermostat(bench), "temperature_k", third_aborts)
    with pytest.raises(AbortedError) as caught:
        hold(bench, 350.0)
    assert caught.value.outputs_off
    assert len(readings) == 3
    assert thermostat(bench).is_off()


def test_a_plan_counts_the_steady_time_and_needs_no_thermostat(
    bench_file: Path, recipe: Path
) -> None:
    forecast = plan_recipe(recipe, bench_file, chips=0)
    warm, hot = (next(s for s in forecast.steps if s.name == n) for n in ("warm", "hot"))
    assert warm.bench_s == pytest.approx(60.0, rel=1e-3)
    assert hot.bench_s == pytest.approx(30.0, rel=1e-3)
    recipe.write_text(RETENTION.replace("350.0", "500.0"))
    with pytest.raises(LimitError, match="500 K"):
        plan_recipe(recipe, bench_file, chips=0)


def test_a_stream_of_air_cools(tmp_path: Path) -> None:
    path = tmp_path / "bench.toml"
    path.write_text(BENCH + THERMO_STREAM)
    with Bench.open(path) as bench:
        hold(bench, 250.0)
        bench.run(ReadMap())
        assert thermostat(bench).temperature_k() == pytest.approx(250.0, abs=0.5)


def test_a_sensor_without_a_reading_ends_the_step(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> float:
        raise InstrumentError("input A has no reading")

    monkeypatch.setattr(thermostat(bench), "temperature_k", broken)

    def plan() -> Any:
        return (yield from HoldTemperature(350.0))

    with pytest.raises(InstrumentError, match="no reading"):
        bench.run(plan())
    assert thermostat(bench).is_off()


def test_the_example_measures_retention_at_three_temperatures() -> None:
    recipe = load_recipe(EXAMPLES / "recipe-retention-temperature.toml")
    kinds = [(step.protocol_name, step.name) for step in recipe.steps[1:]]
    assert kinds == [
        (protocol, f"{words} {kelvin} K")
        for kelvin in (300, 340, 380)
        for protocol, words in (("temperature", "to"), ("retention", "retention at"))
    ]
    section = load_bench_file(EXAMPLES / "bench-thermostat.toml").thermostat
    assert section is not None
    for step in recipe.steps:
        if isinstance(step.protocol, Temperature):
            assert section.lowest_k <= step.protocol.kelvin <= section.highest_k


def test_a_thermostat_at_the_address_of_the_bench_is_refused(tmp_path: Path) -> None:
    at = "/dev/ttyUSB0"
    board = f'name = "test-chip-board"\nport = "{at}"'
    text = BENCH.replace('name = "simulated-array"', board) + LAKE_SHORE
    (tmp_path / "bench.toml").write_text(f'{text}resource = "{at}"\n')
    with pytest.raises(ConfigError, match=f"thermostat.resource: '{at}' is that of driver"):
        Bench.open(tmp_path / "bench.toml")
