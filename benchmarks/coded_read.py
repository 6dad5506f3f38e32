"""Maps read by codes beside maps read cell by cell: error and bench time by the size of the block,
by bits of the ADC, by what else is in a column, and behind wires, with and without their
calibration in force.

Simulated arrays in the process, default timing, 0.2 V; errors are root mean squares against the
cells' own conductances. The figures of docs/coded-reads.md.

    python benchmarks/coded_read.py [--parts blocks bits large wires]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rram_hil import Bench
from rram_hil.array import Block, Cells, CodedRead, CodedReadResult, pulse, read
from rram_hil.bench.bench_file import parse_bench_file
from rram_hil.corrections.calibration_file import CalibrationFile
from rram_hil.drivers.simulated_array import SimulatedArray
from rram_hil.hardware.driver import Capabilities

FloatArray = NDArray[np.float64]
LIMITS: dict[str, Any] = {
    **{"bl_v": 4.5, "sl_v": 3.0, "wl_v": 4.0, "cell_v": 4.5, "gate_over_v": 4.0},
    **{"half_select_v": 0.3, "read_v": 0.3, "current_a": 1e-3, "energy_j": 1e-8},
    **{"width_s": 1e-5, "pulses_per_cell": 1000},
}


class WithoutCodes(SimulatedArray):
    """The same array behind a board that multiplies and knows no coded read."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, coded_read=False)


def open_bench(
    rows: int, columns: int, *, coded: bool = True, lines_ohm: float = -1.0, **simulation: Any
) -> Bench:
    """A bench with its array; `lines_ohm` at or above 0 puts a calibration of that wire in
    force.
    """
    folder = Path(tempfile.mkdtemp())
    tables: dict[str, Any] = {
        "chip": {"id": "c", "tiles": 1, "rows": rows, "columns": columns, "cell": "1T1R"},
        "driver": {"name": "simulated-array"},
        "limits": LIMITS,
        "simulation": {"device": "paper", "seed": 1} | simulation,
    }
    if lines_ohm >= 0:
        values = {"line_ohm": lines_ohm, "access_ohm": 0.0}
        CalibrationFile.model_validate(
            {
                "kind": "lines",
                "date": datetime.now(UTC),
                "validity_days": 30.0,
                "instrument": {"chip": "c"},
                "conditions": {"wl_v": 3.0},
                "values": {
                    name: {"value": ohm, "half_width": 0.0, "unit": "ohm"}
                    for name, ohm in values.items()
                },
            }
        ).write(folder / "lines.toml")
        tables["calibration"] = {"files": ["lines.toml"]}
    bench = Bench.open(parse_bench_file(tables, text=repr(tables), path=folder / "bench.toml"))
    if not coded:
        # A driver of another name would have no simulator.
        bench.driver.__class__ = WithoutCodes
    return bench


def set_cells(bench: Bench, seed: int = 1) -> FloatArray:
    """Form all cells and SET each to a conductance of its own; what they have (S)."""
    cells = Cells.all(bench.geometry)
    gate = np.random.default_rng(seed).uniform(1.9, 2.8, len(cells))
    bench.do(pulse(cells, bl_v=3.8, wl_v=2.4, width_s=1e-6))
    bench.do(pulse(cells, bl_v=2.0, wl_v=gate, width_s=1e-7))
    return truth(bench)


def truth(bench: Bench) -> FloatArray:
    driver = bench.driver
    assert isinstance(driver, SimulatedArray)
    return np.asarray(driver.chip.conductance_s().ravel())


@dataclass(frozen=True)
class Maps:
    """A map read both ways: errors (S, flat), bench seconds, vectors, what sigma says, host seconds
    of the coded one.
    """

    single_s: FloatArray
    coded_s: FloatArray
    single_took_s: float
    coded_took_s: float
    coded: CodedReadResult
    host_s: float

    @property
    def z(self) -> float:
        return rms(self.coded_s / self.coded.sigma_s)


def both(bench: Bench, true_s: FloatArray) -> Maps:
    """Read the whole tile once by codes and once cell by cell."""
    geometry = bench.geometry
    first_s = bench.driver.now_s()
    began = time.process_time()
    coded = bench.do(CodedRead((Block(0, 0, geometry.rows, 0, geometry.columns),)))
    host_s = time.process_time() - began
    then_s = bench.driver.now_s()
    single = bench.do(read(Cells.all(geometry))).last_s
    last_s = bench.driver.now_s()
    return Maps(
        single - true_s,
        coded.conductance_s - true_s,
        last_s - then_s,
        then_s - first_s,
        coded,
        host_s,
    )


def rms(values: FloatArray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def by_blocks() -> None:
    print("rows x columns   vectors  single us/cell  coded  ratio   single uS  coded uS   z")
    for signed in (True, False):
        print("signed inputs" if signed else "unsigned inputs")
        for rows, columns in ((1, 64), (4, 64), (16, 64), (64, 1), (64, 64), (128, 64), (256, 128)):
            with open_bench(rows, columns, signed_inputs=signed) as bench:
                found = both(bench, set_cells(bench))
            cells = rows * columns
            print(
                f"{rows:5d} x {columns:<4d} {found.coded.vectors:9d}"
                f" {found.single_took_s / cells * 1e6:12.1f}"
                f" {found.coded_took_s / cells * 1e6:10.2f}"
                f" {found.single_took_s / found.coded_took_s:7.1f}"
                f" {rms(found.single_s) * 1e6:10.3f} {rms(found.coded_s) * 1e6:9.3f}"
                f" {found.z:6.2f}"
            )


def by_bits() -> None:
    print("64 x 64, bits    single uS   coded uS   z")
    for bits in (6, 8, 10, 12):
        with open_bench(64, 64, adc_bits=bits) as bench:
            found = both(bench, set_cells(bench))
        print(
            f"{bits:13d} {rms(found.single_s) * 1e6:11.3f} {rms(found.coded_s) * 1e6:10.3f}"
            f" {found.z:5.2f}"
        )


def by_one_large() -> None:
    print("64 x 64, one cell a column SET     others: single uS   coded uS   z")
    resistors = [{"row": 31, "column": c, "ohm": 1e3} for c in range(64)]
    for gate_v, fixed in ((None, []), (2.6, []), (3.0, []), (None, resistors)):
        with open_bench(64, 64, resistors=fixed) as bench:
            cells = Cells.all(bench.geometry)
            bench.do(pulse(cells, bl_v=3.8, wl_v=2.4, width_s=1e-6))
            bench.do(pulse(cells, sl_v=1.5, wl_v=3.2, width_s=1e-6))
            row = cells.row == 31
            if gate_v is not None:
                bench.do(pulse(cells[row], bl_v=2.0, wl_v=gate_v, width_s=1e-7))
            true = truth(bench)
            if fixed:
                true[row] = 1e-3
            found = both(bench, true)
        print(
            f"{np.median(true[row]) * 1e6:13.0f} among {np.median(true[~row]) * 1e6:4.1f} uS"
            f" {rms(found.single_s[~row]) * 1e6:20.3f} {rms(found.coded_s[~row]) * 1e6:10.3f}"
            f" {found.z:5.2f}"
        )


def by_wires() -> None:
    print("                          uncorrected uS           corrected uS")
    print("block      ohm  way     single      coded      single     coded     z   host s")
    for rows, columns in ((64, 64), (128, 64)):
        for ohm in (0.0, 1.0, 2.5):
            for native in (True, False):
                found: list[Maps] = []
                for lines_ohm in (-1.0, ohm):
                    with open_bench(
                        rows, columns, coded=native, lines_ohm=lines_ohm, line_ohm=ohm
                    ) as bench:
                        found.append(both(bench, set_cells(bench)))
                raw, corrected = found
                figures = [rms(e) * 1e6 for m in found for e in (m.single_s, m.coded_s)]
                print(
                    f"{rows:3d} x {columns:<4d} {ohm:4.1f}  {raw.coded.way:9s}"
                    + "".join(f"{figure:9.3f} " for figure in figures)
                    + f"{corrected.z:5.2f} {corrected.host_s - raw.host_s:7.2f}",
                    flush=True,
                )


PARTS: dict[str, Callable[[], None]] = {
    "blocks": by_blocks,
    "bits": by_bits,
    "large": by_one_large,
    "wires": by_wires,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    for part in parser.parse_args().parts:
        PARTS[part]()
        print()


if __name__ == "__main__":
    main()
