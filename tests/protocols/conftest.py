"""Model files whose parameters are known, and simulated arrays of them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from rram_hil.bench.bench import Bench
from rram_hil.protocols.forming import Forming


@pytest.fixture
def known_model(tmp_path: Path) -> Callable[..., Path]:
    """Writes a model file: preset `paper` with some numbers replaced, such as read={"fraction":
    0.01}; no stuck cells.
    """

    def make(name: str = "model", **changes: dict[str, Any]) -> Path:
        model = tomllib.loads(
            (files("rram_hil.simulation") / "presets" / "paper.toml").read_text(encoding="utf-8")
        )
        model["stuck"] |= {"low_resistance": 0.0, "high_resistance": 0.0}
        for part, values in changes.items():
            model[part] = model.get(part, {}) | values
        lines = [f"{k} = {json.dumps(v)}" for k, v in model.items() if not isinstance(v, dict)]
        for part, values in model.items():
            if isinstance(values, dict):
                lines += [f"[{part}]", *(f"{k} = {json.dumps(v)}" for k, v in values.items())]
        path = tmp_path / f"{name}.toml"
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    return make


LIMITS = """
[limits]
bl_v = 4.0
sl_v = 4.0
wl_v = 4.0
cell_v = 4.0
gate_over_v = 4.2
half_select_v = {half_select_v}
read_v = 0.25
current_a = 1e-3
energy_j = 1e-3
width_s = 0.1
pulses_per_cell = 1000000000
"""


@pytest.fixture
def open_array(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Opens a simulated array of some model, without converters between it and its numbers, formed
    where asked for.
    """
    opened: list[Bench] = []

    def make(
        model: Path | str, size: int = 12, seed: int = 1, *, form: bool = True, cell: str = "1T1R"
    ) -> Bench:
        folder = tmp_path / f"array{len(opened)}"
        folder.mkdir()
        limits = LIMITS.format(half_select_v=0.5 if cell == "1T1R" else 4.0)
        text = (
            f'[chip]\nid = "test"\ntiles = 1\nrows = {size}\ncolumns = {size}\ncell ='
            f' "{cell}"\n\n[driver]\nname = "simulated-array"\n{limits}\n[simulation]\ndevice ='
            f' "{model}"\nseed = {seed}\nconverters = false\n'
        )
        (folder / "bench.toml").write_text(text, encoding="utf-8")
        bench = Bench.open(folder / "bench.toml")
        opened.append(bench)
        if form:
            ramp = {"start_v": 3.9, "stop_v": 4.0, "step_v": 0.1}
            bench.run(
                Forming.model_validate({"bl_v": ramp, "width_s": 1e-4, "unselected": "inhibit"})
            )
        return bench

    yield make
    for bench in opened:
        bench.close()
