"""A whole run on an array of PMOS selectors: formed, looked at, programmed and read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rram_hil import Bench
from rram_hil.bench.plugins import protocol_class
from rram_hil.errors import LimitError

BENCH = """
[chip]
id = "pmos"
tiles = 1
rows = 6
columns = 6
cell = "1T1R"
selector = "pmos"

[driver]
name = "{driver}"

[read]
bl_v = 0.2
wl_v = -2.5

[limits]
bl_v = 4.0
sl_v = 4.0
wl_v = 4.0
cell_v = 4.0
gate_over_v = 3.8
half_select_v = 0.5
read_v = 0.25
current_a = 1e-3
energy_j = 1e-6
width_s = 1e-5
pulses_per_cell = 10000

[simulation]
device = "paper"
seed = 3
"""
FORMING = {
    "bl_v": {"start_v": 2.6, "stop_v": 3.8, "step_v": 0.2},
    "wl_v": [1.6, 1.2],
    "unselected_wl_v": 3.8,
}
VERIFY = {
    "targets": {"map": "target.npy"},
    "tolerance_s": 6e-6,
    "set": {
        "amplitude_v": {"start_v": 2.0, "stop_v": 2.0},
        "gate_v": {"start_v": 0.0, "stop_v": -1.0, "step_v": -0.05},
        "width_s": 1e-7,
        "unselected_wl_v": 2.0,
    },
    "reset": {
        "amplitude_v": {"start_v": 1.0, "stop_v": 2.4, "step_v": 0.1},
        "gate_v": {"start_v": -1.1, "stop_v": -1.1},
        "width_s": 2e-7,
        "unselected_wl_v": 2.4,
    },
    "max_pulses": 60,
}


@pytest.mark.parametrize(
    "driver", ["simulated-array", pytest.param("test-chip-board", marks=pytest.mark.long)]
)
def test_cells_behind_pmos_selectors_are_formed_and_programmed(
    driver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "target.npy", np.full((1, 6, 6), 6e-5))
    (tmp_path / "bench.toml").write_text(BENCH.format(driver=driver), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with Bench.open(tmp_path / "bench.toml") as bench:
        formed = bench.run(protocol_class("forming").model_validate(FORMING))
        look = bench.run(protocol_class("look").model_validate({}))
        verified = bench.run(protocol_class("write-verify").model_validate(VERIFY))
        read = bench.run(protocol_class("read-map").model_validate({"repeat": 16}))
    assert formed.formed > 25
    assert look.conducting_gate_closed == 0
    assert verified.inside >= 0.9 * formed.formed
    assert read.median_s == pytest.approx(6e-5, abs=6e-6)


def test_word_lines_that_stay_at_0_v_are_open_and_refused(tmp_path: Path) -> None:
    (tmp_path / "bench.toml").write_text(BENCH.format(driver="simulated-array"), encoding="utf-8")
    without = {k: v for k, v in FORMING.items() if k != "unselected_wl_v"}
    with (
        Bench.open(tmp_path / "bench.toml") as bench,
        pytest.raises(LimitError, match=r"a half-selected cell's 2\.6 V is beyond"),
    ):
        bench.run(protocol_class("forming").model_validate(without))
