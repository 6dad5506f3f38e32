"""Measured files of single-cell experiments: which kind a file is, and its columns as arrays.

CSV with a header, plain or gzip; kinds are told apart by their columns (docs/device-model.md lists
them). Run files become the same in `run_files`.
"""

from __future__ import annotations

import gzip
import io
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rram_hil.errors import DataError
from rram_hil.types import FloatArray

Kind = Literal["sweep", "relaxation", "forming", "cycling", "write-verify", "read-noise"]
COLUMNS: dict[Kind, tuple[str, ...]] = {
    "relaxation": ("cell", "g_s", "g_initial_s", "time_bin_s"),
    "write-verify": ("cell", "sets", "resets", "r_low_ohm", "r_high_ohm", "success"),
    "sweep": ("cell", "sweep", "wl_v", "r_before_ohm", "r_after_ohm"),
    "forming": ("cell", "bl_v", "r_after_ohm", "success"),
    "cycling": ("cell", "r_hrs_ohm", "r_lrs_ohm"),
    "read-noise": ("cell", "g_s", "noise_s"),
}
"""The columns that a file of each kind must have; the first kind that a file satisfies is taken."""
_OFF_GRID_V = 0.005
"""Where all volts of a sweep lie closer to steps of 50 mV than this they are taken to these, else
to 1 mV: a column may hold what an instrument measured.
"""


@dataclass(frozen=True, eq=False)
class Measured:
    """One measured file, or one experiment of a run file: its name, its kind, and its columns, each
    of shape (rows,).
    """

    name: str
    kind: Kind
    columns: dict[str, FloatArray]

    def __getitem__(self, column: str) -> FloatArray:
        return self.columns[column]

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return int(self.columns["cell"].size)

    @property
    def cells(self) -> FloatArray:
        """The numbers of its cells, sorted."""
        return np.unique(self.columns["cell"])

    @property
    def rows_per_cell(self) -> int:
        """Rows of one of its cells, in the mean; at least 1."""
        return max(round(self.rows / self.cells.size), 1)

    def part(self, rows: NDArray[np.bool_]) -> Measured:
        """Some of the rows."""
        return Measured(
            self.name, self.kind, {name: values[rows] for name, values in self.columns.items()}
        )

    def of_cells(self, cells: FloatArray) -> Measured:
        """The rows of some of the cells."""
        return self.part(np.isin(self.columns["cell"], cells))

    @property
    def swept(self) -> str:
        """The column of a sweep's swept line: the volts that vary most."""
        lines = [name for name in ("bl_v", "sl_v", "wl_v") if name in self.columns]
        return max(lines, key=lambda name: int(np.unique(self.columns[name]).size))

    @property
    def levels(self) -> FloatArray:
        """The swept volts of each row of a sweep, those of one level alike."""
        volts = self.columns[self.swept]
        coarse = np.rint(volts * 20) / 20
        fine = np.rint(volts * 1000) / 1000
        return coarse if np.all(np.abs(coarse - volts) < _OFF_GRID_V) else fine

    @property
    def is_reset(self) -> bool:
        """Whether a sweep's pulses put their volts on SL."""
        return "sl_v" in self.columns

    def fixed(self, name: str, default: float = 0.0) -> float:
        """The value of a line that is not swept (its median), V."""
        return float(np.median(self.columns[name])) if name in self.columns else default


def read_measured(path: Path) -> Measured:
    """Read a file. Raises `DataError` with the path: missing, not a CSV of numbers, no rows, or of
    no known kind.
    """
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8")
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    header, _, body = text.partition("\n")
    names = [name.strip() for name in header.strip().split(",")]
    kind = next((kind for kind, columns in COLUMNS.items() if set(columns) <= set(names)), None)
    if kind is None:
        known = "; ".join(f"{kind}: {', '.join(columns)}" for kind, columns in COLUMNS.items())
        raise DataError(
            f"{path}: no known kind of measurement has the columns {', '.join(names)} (known:"
            f" {known})"
        )
    if kind == "sweep" and not {"bl_v", "sl_v"} & set(names):
        raise DataError(f"{path}: a sweep needs a column bl_v (SET) or sl_v (RESET)")
    if not body.strip():
        raise DataError(f"{path}: has a header and no rows")
    for line, row in enumerate(body.splitlines(), 2):
        data = row.partition("#")[0].strip()
        if data and data.count(",") + 1 != len(names):
            raise DataError(
                f"{path}: {len(names)} names in the header, {data.count(',') + 1} columns in line"
                f" {line}"
            )
    try:
        table = np.genfromtxt(io.StringIO(body), delimiter=",", dtype=np.float64, ndmin=2)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{path}: not a table of numbers: {error}") from None
    if table.shape[1] != len(names):
        raise DataError(f"{path}: {len(names)} names in the header and {table.shape[1]} columns")
    columns = {name: table[:, k].copy() for k, name in enumerate(names)}
    for name in COLUMNS[kind]:
        if np.all(np.isnan(columns[name])):
            raise DataError(f"{path}: column {name} holds no number")
    used = np.logical_and.reduce([np.isfinite(columns[name]) for name in COLUMNS[kind]])
    if not used.any():
        raise DataError(
            f"{path}: no row has a number in every column that is needed"
            f" ({', '.join(COLUMNS[kind])})"
        )
    return Measured(path.name, kind, columns).part(used)
