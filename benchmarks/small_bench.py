"""The bench file of a small 1T1R chip, and how its cells are pulsed, for tests and benchmarks."""

from __future__ import annotations

PULSES = """\
set.width_s = 1e-7
set.amplitude_v = { start_v = 2.0, stop_v = 2.0 }
set.gate_v = { start_v = 2.0, stop_v = 3.0, step_v = 0.1 }
reset.width_s = 2e-7
reset.amplitude_v = { start_v = 1.0, stop_v = 2.5, step_v = 0.1 }
reset.gate_v = { start_v = 3.5, stop_v = 3.5 }
"""
"""The keys of a write-verify step."""


AIMED_PULSES = """
[step.set]
amplitude_v = { start_v = 2.0, stop_v = 2.0 }
gate_v = { start_v = 1.5, stop_v = 3.2, step_v = 0.02, aim = 0.8, curve = "set" }
width_s = 100e-9
[step.reset]
amplitude_v = { start_v = 0.4, stop_v = 2.4, step_v = 0.02, aim = 1.3, curve = "reset" }
gate_v = { start_v = 3.5, stop_v = 3.5 }
width_s = 200e-9
"""
"""Tables of such a step whose pulses begin near their targets, by the curves measured before."""
GENTLE = """\
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
"""
WHOLE = """\
bl_v = 4.5
sl_v = 3.0
wl_v = 4.0
cell_v = 4.5
gate_over_v = 4.0
half_select_v = 0.3
read_v = 0.3
current_a = 1e-3
energy_j = 1e-8
width_s = 1e-5
"""
"""Limits that leave room to form every cell."""


def bench_toml(
    chip: str,
    rows: int,
    columns: int,
    life: int,
    *,
    tiles: int = 1,
    driver: str = 'name = "simulated-array"',
    limits: str = GENTLE,
    simulation: str | None = 'device = "paper"\nstate = "chip.state"',
) -> str:
    """A bench file whose cells live for `life` pulses; without `[simulation]` where that is
    none.
    """
    text = f"""\
[chip]
id = "{chip}"
tiles = {tiles}
rows = {rows}
columns = {columns}
cell = "1T1R"

[driver]
{driver}

[limits]
{limits}pulses_per_cell = {life}
"""
    return text if simulation is None else f"{text}\n[simulation]\n{simulation}\n"
