"""What `plan` computes: the worst case of every step, from the model, with nothing touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chain_benches import bench_text
from chain_recipes import steps_of, toml

from rram_hil.array import Cells, Multiply, Program, PulseTrain, Ramp, pulse, read, read_step
from rram_hil.bench.far_side import launcher
from rram_hil.bench.forecast import Extremes, plan_recipe
from rram_hil.bench.recipe_runner import run_recipe
from rram_hil.errors import ConfigError, LimitError
from rram_hil.storage.run_reader import read_run

FORMED = """
[[step]]
protocol = "forming"

[[step]]
protocol = "write-verify"
targets = { map = "target.npy" }
max_pulses = 20
on_board = "ON_BOARD"
[step.set]
amplitude_v = { start_v = 2.0, stop_v = 2.0 }
gate_v = { start_v = 2.0, stop_v = 3.0, step_v = 0.1 }
width_s = 100e-9
[step.reset]
amplitude_v = { start_v = 0.6, stop_v = 2.5, step_v = 0.1 }
gate_v = { start_v = 3.5, stop_v = 3.5 }
width_s = 200e-9
"""

READ = """
[[step]]
protocol = "read-map"
"""


@pytest.mark.long
@pytest.mark.parametrize("driver", ["simulated-array", "test-chip-board"])
def test_other_chips_of_the_model_tell_what_a_run_on_one_takes(here: Any, driver: str) -> None:
    np.save("target.npy", np.full((1, 16, 16), 60e-6))
    here.bench('name = "simulated-array"', f'name = "{driver}"')
    here.write("recipe.toml", FORMED.replace("ON_BOARD", "allowed") + READ)
    forecast = plan_recipe("recipe.toml", "bench.toml")
    assert (len(forecast.others), forecast.ended) == (5, ())
    pulses = [sum(step.pulses for step in steps) for steps in forecast.others]
    assert len(set(pulses)) == 5, "each is a chip of its own"
    took = []
    for seed in range(2, 7):
        here.bench('seed = 1\nstate = "c1.state"', f"seed = {seed}", "other.toml")
        (here.folder / "other.toml").write_text(
            (here.folder / "other.toml")
            .read_text()
            .replace('"c1"', f'"c{seed}"')
            .replace('name = "simulated-array"', f'name = "{driver}"')
        )
        outcome = run_recipe("recipe.toml", "other.toml", f"{seed}.h5")
        with read_run(outcome.run_file) as run:
            steps = run.table("steps")
            took.append(steps["ended_s"] - steps["started_s"])
    for step, (seconds, within) in enumerate(
        zip(np.median(took, axis=0), (0.2, 0.2, 0.1), strict=True)
    ):
        spread = forecast.spread("bench_s", step)
        assert spread is not None
        assert spread[0] * (1 - within) <= seconds <= spread[1] * (1 + within)


def test_other_chips_begin_in_the_state_of_this_one(here: Any) -> None:
    run_recipe("recipe.toml", "bench.toml", "run.h5")
    here.write("read.toml", READ)
    forecast = plan_recipe("read.toml", "bench.toml", chips=2)
    assert forecast.remembered
    own, *others = (steps[0].outcome.median_s for steps in (forecast.steps, *forecast.others))
    assert others == pytest.approx([own, own], rel=0.05), "formed, and no other chip's truth"


PICKY = """
from dataclasses import dataclass
from rram_hil.array import Cells, read
from rram_hil.engine.protocol import Protocol
from rram_hil.errors import ConfigError


class Picky(Protocol[float]):
    \"\"\"Ends on every chip but one.\"\"\"

    wanted: float = 0.0

    def run(self, setting):
        found = yield from read(Cells.all(setting.geometry), setting.read)
        total = float(found.last_s.sum())
        if self.wanted and abs(total / self.wanted - 1) > 1e-9:
            raise ConfigError("not this chip")
        return total
"""


def test_other_chips_that_end_a_recipe_are_told(here: Any) -> None:
    here.write("picky.py", PICKY)
    step = '[[step]]\nprotocol = "./picky.py:Picky"\n'
    here.write("recipe.toml", step)
    total = plan_recipe("recipe.toml", "bench.toml", chips=0).steps[0].outcome
    here.write("recipe.toml", f"{step}wanted = {total!r}\n")
    forecast = plan_recipe("recipe.toml", "bench.toml", chips=3)
    assert (len(forecast.others), len(forecast.ended)) == (0, 3)
    said = here.command("plan", "recipe.toml", "-b", "bench.toml", "--chips", "3")
    assert "3 of 3 other chips ended it: step 1" in said.out
    assert "not this chip" in said.out


def test_the_terminal_shows_ranges_and_none_without_other_chips(here: Any) -> None:
    many = here.command("plan", "recipe.toml", "-b", "bench.toml", "--chips", "3")
    assert "On 3 other chips of the model  p5 to p95" in many.out
    assert " to " in many.out
    none = here.command("plan", "recipe.toml", "-b", "bench.toml", "--chips", "0")
    assert "other chips" not in none.out


def test_extremes_of_every_kind_of_operation() -> None:
    cells = Cells.block(0, [0, 1], [0, 1])
    e = Extremes()
    e.include(read(cells), 0.25)
    assert (e.bl_v, e.sl_v, e.wl_v, e.cell_v, e.pulse_s) == (0.2, 0.0, 3.0, 0.2, None)
    e.include(pulse(cells, sl_v=-1.5, wl_v=np.array([1.0, 2.0, 3.5, 3.0]), width_s=1e-6), 0.25)
    assert (e.bl_v, e.sl_v, e.wl_v, e.cell_v, e.pulse_s) == (0.2, 1.5, 3.5, 1.5, (1e-6, 1e-6))
    e.include(pulse(cells, bl_v=None, sl_v=2.5, wl_v=0.0, width_s=1.0), 0.25)
    assert (e.sl_v, e.cell_v, e.pulse_s) == (2.5, 1.5, (1e-6, 1e-6))
    sets = PulseTrain(Ramp(1.0, 2.0, 0.1), Ramp(2.0, 3.0), 1e-7)
    resets = PulseTrain(Ramp(0.5, 2.8, 0.1), Ramp(3.7, 3.7), 2e-6)
    e.include(Program(cells, np.zeros(4), np.ones(4), sets, resets, read_step()), 0.25)
    assert (e.bl_v, e.sl_v, e.wl_v, e.cell_v, e.pulse_s) == (2.0, 2.8, 3.7, 2.8, (1e-7, 2e-6))
    e = Extremes()
    e.include(Multiply(0, 0, 0, 2, np.ones((1, 2), dtype=np.int16)), 0.25)
    assert (e.bl_v, e.sl_v, e.wl_v, e.cell_v, e.pulse_s) == (0.0, 0.2, 3.0, 0.2, None)


@pytest.mark.parametrize("on_board", ["allowed", pytest.param("never", marks=pytest.mark.long)])
def test_worst_case_holds_wherever_write_verify_runs(here: Any, on_board: str) -> None:
    np.save("target.npy", np.full((1, 16, 16), 60e-6))
    here.write("recipe.toml", FORMED.replace("ON_BOARD", on_board))
    forecast = plan_recipe("recipe.toml", "bench.toml")
    forming, verify = forecast.steps
    assert forming.worst_pulses == 30
    assert verify.worst_pulses == 20
    assert 0 < verify.pulses < 20 * 256
    assert verify.reads > 256
    # The 15 pulses of the first forming ramp and 20 of write-verify; the second ramp takes cells
    # that are then left alone.
    assert forecast.worst_left == 100 - 35
    assert verify.bench_s > 0


def test_a_plan_is_what_the_run_then_does(here: Any) -> None:
    text = Path("recipe.toml").read_text()
    here.write("recipe.toml", text.replace('"forming"\n', '"forming"\nconducting_fraction = 1.0\n'))
    forecast = plan_recipe("recipe.toml", "bench.toml")
    assert (forecast.remembered, forecast.ledger) == (False, None)
    assert not any("ledger" in f or "state" in f for f in here.files())
    outcome = run_recipe("recipe.toml", "bench.toml", "r.h5")
    assert [s.outcome for s in forecast.steps] == [left for _, left in outcome.steps]
    state, ledger = Path("c1.state").read_bytes(), Path("c1.ledger.npy").read_bytes()
    again = plan_recipe("recipe.toml", "bench.toml")
    assert again.remembered
    assert again.ledger == here.folder / "c1.ledger.npy"
    assert again.steps[0].outcome != forecast.steps[0].outcome  # the chip is formed now
    assert (Path("c1.state").read_bytes(), Path("c1.ledger.npy").read_bytes()) == (state, ledger)


def test_a_bench_without_simulation_is_planned_without_its_link(here: Any) -> None:
    text = Path("bench.toml").read_text()
    board = 'name = "test-chip-board"\nport = "no_such_port"'
    here.write(
        "bench.toml", text[: text.index("[simulation]")].replace('name = "simulated-array"', board)
    )
    forecast = plan_recipe("recipe.toml", "bench.toml")
    assert "hfo2" in forecast.device
    assert forecast.steps[0].pulses > 0


def test_a_refusal_names_the_step(here: Any) -> None:
    here.write("recipe.toml", '[[step]]\nname = "hot"\nprotocol = "forming"\nwl_v = [4.5]\n')
    with pytest.raises(
        LimitError, match=r"step 1 \(hot\): cell \(0, 0, 0\): WL 4.5 V is beyond the limit of 4 V"
    ):
        plan_recipe("recipe.toml", "bench.toml")


RACK = """name = "smu-matrix"
[driver.instruments]
smu = { kind = "keithley-2600b", resource = "TCPIP::smu::INSTR", lime_hz = 60.0 }
matrix = { kind = "keithley-707b" }
[driver.wiring]
channels = { "smu.a" = "A", "smu.b" = "B" }
ground = "C"
wl = "1-16"
bl = "17-32"
sl = "33-48"
"""


@pytest.mark.parametrize(
    ("driver", "told"),
    [
        ('name = "test-chip-board"\nretrys = 2', "retrys: unknown key; did you mean retries"),
        ('name = "test-chip-board"\nport = "GPIB0::1::INSTR"\nbaud = 9600', "delete `baud`"),
        ('name = "test-chip-bord"', "did you mean test-chip-board"),
        (RACK, "driver.instruments.smu: lime_hz: unknown key; did you mean line_hz"),
    ],
)
@pytest.mark.parametrize("simulated", [True, False])
def test_the_table_of_the_driver_is_checked(
    here: Any, driver: str, told: str, simulated: bool
) -> None:
    text = Path("bench.toml").read_text()
    if not simulated:
        text = text[: text.index("[simulation]")]
    here.write("bench.toml", text.replace('name = "simulated-array"', driver))
    with pytest.raises(ConfigError) as refused:
        plan_recipe("recipe.toml", "bench.toml")
    assert told in str(refused.value)
    assert told in here.refused("plan", "recipe.toml", "--bench", "bench.toml")
    assert told in here.refused("check", "bench.toml")


@pytest.mark.long
@pytest.mark.parametrize("chain", ["2636B + 707B", "2400 + 2450 + 707B", "ArC ONE"])
@pytest.mark.parametrize("simulated", [True, False])
def test_other_instruments_take_their_own_times(here: Any, chain: str, simulated: bool) -> None:
    cell = "1R" if chain == "ArC ONE" else "1T1R"
    text = bench_text(chain, cell, 4, device="hfo2-measured")
    here.write("run.toml", text)
    real = text[: text.index("[simulation]")]
    here.write("bench.toml", text if simulated else real)
    every = steps_of(chain, cell)
    here.write("recipe.toml", toml({k: every[k] for k in ("forming", "array-statistics")}) + READ)
    forecast = plan_recipe("recipe.toml", "bench.toml", chips=1)
    assert not forecast.keeps_times
    assert forecast.paced_by
    assert not any("ledger" in name for name in here.files())
    outcome = run_recipe("recipe.toml", "run.toml", "r.h5")
    with read_run(outcome.run_file) as run:
        steps = run.table("steps")
    took = steps["ended_s"] - steps["started_s"]
    planned = [step.bench_s for step in forecast.steps]
    assert planned[0] == pytest.approx(took[0], rel=0.2)
    # What a job of ArC ONE needs beforehand depends on the job before it.
    assert planned[1:] == pytest.approx(took[1:].tolist(), rel=0.1, abs=0.01)
    said = here.command("plan", "recipe.toml", "-b", "bench.toml", "--chips", "0").out
    assert "Bench times are those of simulated instruments" in said


def test_what_instruments_cannot_do_is_told_by_the_plan(here: Any) -> None:
    here.write("bench.toml", bench_text("2636B + 707B", "1T1R", 4))
    width = {**steps_of("2636B + 707B", "1T1R")["forming"], "width_s": 1e-6}
    here.write("recipe.toml", toml({"forming": width}))
    with pytest.raises(ConfigError, match=r"step 1 \(forming\): a width of 1e-06 s"):
        plan_recipe("recipe.toml", "bench.toml", chips=0)


def test_instruments_that_nothing_stands_in_for_are_planned_at_the_pace_of_the_model(
    here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = bench_text("2636B + 707B", "1T1R", 4)
    here.write("bench.toml", text[: text.index("[simulation]")])
    here.write("recipe.toml", READ)

    def none(_: object) -> object:
        raise ConfigError("no simulator")

    launchers = {"smu-matrix": none, "simulated-array": launcher("simulated-array")}
    monkeypatch.setattr("rram_hil.bench.bench.launcher", launchers.get)
    forecast = plan_recipe("recipe.toml", "bench.toml", chips=0)
    assert (forecast.keeps_times, forecast.paced_by) == (False, "")
    said = here.command("plan", "recipe.toml", "-b", "bench.toml", "--chips", "0").out
    assert "Bench times are those of an ideal board" in said


def test_worst_case_of_a_method_by_rounds_is_what_it_may_give(here: Any) -> None:
    """On the model's chip every cell is inside at once: no pulse is given, and 40 of 2.5 V may be
    on another.
    """
    np.save("target.npy", np.full((1, 16, 16), 60e-6))
    here.write(
        "recipe.toml",
        """
[[step]]
protocol = "ispp"
targets = { map = "target.npy" }
tolerance_s = 900e-6
max_pulses = 40
reset_first = false
set = { amplitude_v = 2.0, gate_v = 2.0, width_s = 1e-7, step_v = 0.1, stop_v = 3.0 }
reset = { amplitude_v = 2.5, gate_v = 3.5, width_s = 2e-7 }
""",
    )
    forecast = plan_recipe("recipe.toml", "bench.toml", chips=0)
    (step,) = forecast.steps
    assert step.pulses == 0
    assert step.worst_pulses == 40
    assert forecast.worst_left == 100 - 40
    e = step.extremes
    assert (e.bl_v, e.sl_v, e.pulse_s) == (2.0, 2.5, (1e-7, 2e-7))
