"""The bench file of one small 1T1R chip, and how its cells are pulsed, for tests and benchmarks."""

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


def bench_toml(
    chip: str,
    rows: int,
    columns: int,
    life: int,
    *,
    driver: str = 'name = "simulated-array"',
    simulation: str | None = 'device = "paper"\nstate = "chip.state"',
) -> str:
    """A bench file of one tile whose cells live for `life` pulses; without `[simulation]` where
    that is none.
    """
    text = f"""\
[chip]
id = "{chip}"
tiles = 1
rows = {rows}
columns = {columns}
cell = "1T1R"

[driver]
{driver}

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
pulses_per_cell = {life}
"""
    return text if simulation is None else f"{text}\n[simulation]\n{simulation}\n"
