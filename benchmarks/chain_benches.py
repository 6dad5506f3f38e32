"""Bench files of one simulated array behind each chain of instruments, for tests and benchmarks."""

from __future__ import annotations

from pathlib import Path

LIMITS = """
[limits]
bl_v = {line_v}
sl_v = 3.0
wl_v = 4.0
cell_v = {line_v}
gate_over_v = 4.0
half_select_v = {half_select_v}
read_v = 0.25
current_a = 1e-3
energy_j = 1e-4
width_s = 0.1
pulses_per_cell = 100000
conductance_s = [0.0, 400e-6]
read_width_s = 0.1
"""

MATRIX_707B = """
[driver.instruments.matrix]
kind = "keithley-707b"
model = "707B"
"""

CHAINS = {
    "2636B + 707B": (
        """
[driver.instruments.smu]
kind = "keithley-2600b"
model = "2636B"
"""
        + MATRIX_707B,
        'channels = { "smu.a" = "A", "smu.b" = "B" }',
        "tsp_node = 2",
    ),
    "B2902A + 707B": (
        """
[driver.instruments.smu]
kind = "keysight-b2900"
model = "B2902A"
"""
        + MATRIX_707B,
        'channels = { "smu.1" = "A", "smu.2" = "B" }',
        (
            'triggers = { smu = "smu", smu_in = 1, smu_measure = 2, smu_out = 3, matrix_out = 1,'
            " matrix_measure = 2, matrix_in = 3 }"
        ),
    ),
    "2400 + 2450 + 707B": (
        """
[driver.instruments.bl]
kind = "keithley-2450"
model = "2450"

[driver.instruments.gate]
kind = "keithley-2400"
model = "2400"
"""
        + MATRIX_707B,
        'channels = { "bl.1" = "A", "gate.1" = "B" }',
        "",
    ),
}
PULSED = {
    "B1500A SPGU + 707B": (
        """
[driver.instruments.analyser]
kind = "keysight-b1500"
model = "B1500A"
"""
        + MATRIX_707B,
        'channels = { "analyser.1" = "A", "analyser.2" = "B" }',
        'generators = { "analyser.501" = "D" }',
    ),
    "2636B + 33522B + 707B": (
        """
[driver.instruments.smu]
kind = "keithley-2600b"
model = "2636B"

[driver.instruments.pulser]
kind = "keysight-33500"
model = "33522B"
"""
        + MATRIX_707B,
        'channels = { "smu.a" = "A", "smu.b" = "B" }',
        'generators = { "pulser.1" = "D" }\ntsp_node = 2',
    ),
}
"""Chains whose pulses are a generator's, below what source-meters time."""
BOARD = "board"
ARC_ONE = "ArC ONE"


def bench_text(
    chain: str,
    cell: str = "1T1R",
    size: int = 32,
    *,
    device: str = "paper",
    timing: str = "",
    seed: int = 1,
    firmware: Path | None = None,
) -> str:
    """A bench file of `size` x `size` cells; 1T1R arrays have one common source plate. `firmware`
    is a program that is the board, instead of the simulated one.
    """
    source_lines = "common" if cell == "1T1R" else "row"
    text = f'[chip]\nid = "test"\ntiles = 1\nrows = {size}\ncolumns = {size}\n'
    text += f'cell = "{cell}"\nsource_lines = "{source_lines}"\n\n'
    if chain == BOARD:
        text += '[driver]\nname = "test-chip-board"\n'
    elif chain == ARC_ONE:
        text += '[driver]\nname = "arc-one"\n'
    else:
        instruments, channels, link = (CHAINS | PULSED)[chain]
        text += (
            f'[driver]\nname = "smu-matrix"\n{instruments}\n[driver.wiring]\n{channels}\nground ='
            f' "C"\n{link}\n'
        )
        if cell == "1T1R":
            text += f'wl = "1-{size}"\nbl = "{size + 1}-{2 * size}"\nsl = "{2 * size + 1}"\n'
        else:
            text += f'bl = "1-{size}"\nsl = "{size + 1}-{2 * size}"\n'
    # Of a generator the peak counts: 3.8 V from an SPGU may be 4.01 V.
    text += LIMITS.format(
        half_select_v=0.3 if cell == "1T1R" else 2.2, line_v=4.2 if chain in PULSED else 4.0
    )
    width = "1e-6" if chain in (BOARD, ARC_ONE) else "20e-3"
    text += (
        f"\n[read]\nbl_v = 0.2\nwl_v = 3.0\nwidth_s = {width}\n\n[simulation]\ndevice ="
        f' "{device}"\nseed = {seed}\n'
    )
    if firmware is not None:
        text += f'firmware = "{firmware.as_posix()}"\n'
    return text + (f"\n[simulation.timing]\n{timing}\n" if timing else "")


def write_bench(
    folder: Path, chain: str, cell: str = "1T1R", size: int = 32, **options: object
) -> Path:
    """Write the bench file into a folder and return its path."""
    path = folder / "bench.toml"
    path.write_text(bench_text(chain, cell, size, **options), encoding="utf-8")  # type: ignore[arg-type]
    return path
