"""Benches with known errors put in, and calibration files made by hand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rram_hil.bench.bench_file import BenchFile, parse_bench_file
from rram_hil.corrections.calibration_file import CalibrationFile
from rram_hil.corrections.kind import kind_class

LIMITS: dict[str, Any] = {
    "bl_v": 4.0,
    "sl_v": 4.0,
    "wl_v": 4.0,
    "cell_v": 4.0,
    "gate_over_v": 4.2,
    "half_select_v": 0.5,
    "read_v": 0.25,
    "current_a": 1e-3,
    "energy_j": 1e-7,
    "width_s": 1e-5,
    "pulses_per_cell": 1000,
}
MakeBench = Callable[..., BenchFile]
MakeFile = Callable[..., str]


@pytest.fixture
def bench_file(tmp_path: Path) -> MakeBench:
    """A bench file of a simulated 8 x 8 array in memory: keywords are keys of [simulation],
    `calibration` that section.
    """

    def make(calibration: dict[str, Any] | None = None, **simulation: Any) -> BenchFile:
        tables: dict[str, Any] = {
            "chip": {"id": "cal", "tiles": 1, "rows": 8, "columns": 8, "cell": "1T1R"},
            "driver": {"name": "simulated-array"},
            "limits": dict(LIMITS),
            "simulation": {"device": "paper"} | simulation,
        }
        if calibration is not None:
            tables["calibration"] = calibration
        return parse_bench_file(tables, text=repr(tables), path=tmp_path / "bench.toml")

    return make


@pytest.fixture
def calibration(tmp_path: Path) -> MakeFile:
    """Writes a calibration file of chip "cal" on the simulated array and returns its name."""

    def make(kind: str, values: dict[str, Any], **more: Any) -> str:
        owner = (
            {"chip": "cal"}
            if kind == "lines"
            else {"model": "simulated array (paper)", "serial": "seed-1"}
        )
        units = {n: q.unit for n, q in kind_class(kind).VALUES.items()}
        tables: dict[str, Any] = {
            "kind": kind,
            "date": datetime.now(UTC),
            "validity_days": 30.0,
            "instrument": owner,
            "values": {
                n: {"value": v, "half_width": u, "unit": units.get(n, "1")}
                for n, (v, u) in values.items()
            },
        }
        tables |= {"conditions": {"wl_v": 3.0}} if kind == "lines" else {}
        name = f"{kind}.toml"
        CalibrationFile.model_validate(tables | more).write(tmp_path / name, force=True)
        return name

    return make
