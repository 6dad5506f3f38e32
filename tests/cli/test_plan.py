"""What `plan` computes: the worst case of every step, from the model, with nothing touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rram_hil.array import Cells, Multiply, Program, PulseTrain, Ramp, pulse, read, read_step
from rram_hil.bench.forecast import Extremes, plan_recipe
from rram_hil.bench.recipe_runner import run_recipe
from rram_hil.errors import ConfigError, LimitError

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


@pytest.mark.parametrize("on_board", ["allowed", "never"])
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
