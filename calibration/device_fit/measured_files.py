"""Measured files of single-cell experiments: which kind a file is, and its columns as arrays.

CSV with a header, plain or gzip; kinds are told apart by their columns (docs/device-model.md lists
them). Run files become the same in `run_files`.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rram_hil.errors import DataError
from rram_hil.types import FloatArray, IntArray

Kind = Literal["sweep", "pulses", "relaxation", "forming", "cycling", "write-verify", "read-noise"]
COLUMNS: dict[Kind, tuple[str, ...]] = {
    "relaxation": ("cell", "g_s", "g_initial_s", "time_bin_s"),
    "write-verify": ("cell", "sets", "resets", "r_low_ohm", "r_high_ohm", "success"),
    "sweep": ("cell", "sweep", "wl_v", "r_before_ohm", "r_after_ohm"),
    "pulses": ("cell", "pulse", "polarity", "g_s"),
    "forming": ("cell", "bl_v", "r_after_ohm", "success"),
    "cycling": ("cell", "r_hrs_ohm", "r_lrs_ohm"),
    "read-noise": ("cell", "g_s", "noise_s"),
}
"""The columns that a file of each kind must have; the first kind that a file satisfies is taken."""
FULL_RESET = (3.0, 4.0)
"""SL and WL (V) of the RESET of a full cycle."""
FULL_SET = (2.0, 2.7)
"""BL and WL (V) of the SET of a full cycle."""
WIDTH_S = 200e-9
"""Width of the pulses of full cycles and of forming, where a file does not tell it."""
_MOST_PULSES = 100_000
_MOST_V = 100.0
_WIDTHS_NS = (1.0, 1e9)
_VOLTS = f"must be a number below {_MOST_V:g} V"
_WIDTH = "must be 1 ns to 1 s"
_NOISE_S = 1e-6
"""Down to here a median below 0 may be noise around nothing."""
_MOST_NOISE = 10.0
"""Noise of a reading beyond so many times the conductance is in another unit."""
_COUNT = "must be a whole number, 0 or more"
_CELL_S = (1e-12, 0.03)
"""Conductances of cells, and of the edges of their windows: half of a column beyond says that it is
in another unit.
"""
LEAST_S = 1e-9
"""What a reading below this, as noise may give one, counts as."""
_OFF_GRID_V = 0.005
"""Where all volts of a sweep lie closer to steps of 50 mV than this they are taken to these, else
to 1 mV: a column may hold what an instrument measured.
"""


@dataclass(frozen=True, eq=False)
class Measured:
    """One measured file, or one experiment of a file: its name, its kind, and its columns, each of
    shape (rows,).

    Trains of equal pulses (kind "pulses") have the columns of a sweep, the number of the pulse in
    the place of the swept volts, and one polarity, amplitude, gate and width each.
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

    def part(self, rows: NDArray[np.bool_] | IntArray) -> Measured:
        """Some of the rows."""
        return Measured(
            self.name, self.kind, {name: values[rows] for name, values in self.columns.items()}
        )

    def of_cells(self, cells: FloatArray) -> Measured:
        """The rows of some of the cells."""
        return self.part(np.isin(self.columns["cell"], cells))

    @property
    def swept(self) -> str:
        """The column of a sweep's swept line: the volts that vary most; "pulse" of trains."""
        if self.kind == "pulses":
            return "pulse"
        lines = [name for name in ("bl_v", "sl_v", "wl_v") if name in self.columns]
        return max(lines, key=lambda name: int(np.unique(self.columns[name]).size))

    @property
    def levels(self) -> FloatArray:
        """The swept volts of each row of a sweep, those of one level alike; of trains the pulses'
        numbers.
        """
        volts = self.columns[self.swept]
        if self.kind == "pulses":
            return volts
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


def read_measured(path: Path) -> list[Measured]:
    """Read a file: one experiment, but one for each kind of pulse where it holds trains of pulses.

    Raises `DataError` with the path: missing, not a CSV of numbers, no rows, or of no known kind.
    """
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    header, _, body = text.partition("\n")
    names = [name.strip() for name in header.strip().split(",")]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{path}: the header names {', '.join(twice)} twice")
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
    table = _table(body, names, COLUMNS[kind], path)
    columns = {name: table[:, k].copy() for k, name in enumerate(names)}
    for name in COLUMNS[kind]:
        if np.all(np.isnan(columns[name])):
            raise DataError(f"{path}: column {name} holds no number")
    for name, values in columns.items():
        _check_unit(values, path, name)
    if kind in _CHECKS:
        _CHECKS[kind](columns, path)
    used = np.logical_and.reduce([np.isfinite(columns[name]) for name in COLUMNS[kind]])
    if not used.any():
        raise DataError(
            f"{path}: no row has a number in every column that is needed"
            f" ({', '.join(COLUMNS[kind])})"
        )
    file = Measured(path.name, kind, columns).part(used)
    return _trains(file, path) if kind == "pulses" else [file]


def _table(body: str, names: list[str], needed: tuple[str, ...], path: Path) -> FloatArray:
    """The rows below the header, shape (rows, names). What stands in the columns that are needed
    is a number, "nan" or nothing.
    """
    lines = []
    for line, row in enumerate(body.split("\n"), 2):
        data = row.partition("#")[0].strip()
        if data and data.count(",") + 1 != len(names):
            raise DataError(
                f"{path}: {len(names)} names in the header, {data.count(',') + 1} columns in line"
                f" {line}"
            )
        if data:
            lines.append((line, data))
    try:
        table: FloatArray = np.genfromtxt(
            io.StringIO(body), delimiter=",", dtype=np.float64, ndmin=2
        )
    except (ValueError, OverflowError) as error:
        raise DataError(f"{path}: not a table of numbers: {error}") from None
    if table.shape[1] != len(names):
        raise DataError(f"{path}: {len(names)} names in the header and {table.shape[1]} columns")
    for name in needed:
        at = names.index(name)
        for k in np.flatnonzero(np.isnan(table[:, at])).tolist():
            number, data = lines[k]
            if (said := data.split(",")[at].strip()).casefold().strip("+-") not in ("", "nan"):
                raise DataError(f"{path}: line {number}: {name} {said!r} is no number")
    return table


def _check_pulses(columns: dict[str, FloatArray], path: Path) -> None:
    """Every row of trains has its numbers: what was not read has no row."""
    for name in COLUMNS["pulses"]:
        _need(np.isfinite(columns[name]), columns[name], path, name, "must be a number")
    for name, allowed in (("amplitude_v", _VOLTS), ("wl_v", _VOLTS), ("pulse_width_ns", _WIDTH)):
        if name in columns:
            _need(np.isfinite(columns[name]), columns[name], path, name, allowed)


def _check_unit(values: FloatArray, path: Path, name: str) -> None:
    """Conductances are in siemens, resistances in ohm, lines in V, widths in ns: numbers in another
    unit would pass for cells that there are none of, or pulses that nobody gave.
    """
    if name.endswith("_width_ns"):
        fine = ~((values < _WIDTHS_NS[0]) | (values > _WIDTHS_NS[1]))
        _need(fine, values, path, name, _WIDTH)
    if name.endswith("_v"):
        _need(~(np.abs(values) >= _MOST_V), values, path, name, _VOLTS)
    siemens = name in ("g_s", "g_initial_s")
    if not (siemens or name.endswith("_ohm")):
        return
    told = values[np.isfinite(values) & (values != 0)]
    if not told.size:
        return
    middle, signed = float(np.median(np.abs(told))), float(np.median(told))
    conductance, unit = (middle, "S") if siemens else (1.0 / middle, "ohm")
    if not _CELL_S[0] <= conductance <= _CELL_S[1]:
        raise DataError(
            f"{path}: column {name} must be in {unit}: its median of {middle:g} {unit} is no"
            " cell's; is it in another unit?"
        )
    if signed < 0 and conductance > _NOISE_S:
        raise DataError(
            f"{path}: column {name} must be above 0: its median is {signed:g} {unit}; is the sign"
            " of the current turned?"
        )


def _check_windows(columns: dict[str, FloatArray], path: Path) -> None:
    """Windows are not upside down; pulses and budgets are counted."""
    for name in ("sets", "resets"):
        count = columns[name]
        _need(
            ~((count < 0) | (count != np.rint(count))) | np.isnan(count), count, path, name, _COUNT
        )
    low, high = columns["r_low_ohm"], columns["r_high_ohm"]
    _need(~((low < 0) | (low > high)), low, path, "r_low_ohm", "must be 0 to r_high_ohm")
    if "max_pulses" in columns:
        most = columns["max_pulses"]
        _need(
            (most >= 0) & (most == np.rint(most)) & np.isfinite(most),
            most,
            path,
            "max_pulses",
            _COUNT,
        )


def _check_cycles(columns: dict[str, FloatArray], path: Path) -> None:
    """The high-resistance state is the higher one."""
    high, low = (float(np.nanmedian(columns[name])) for name in ("r_hrs_ohm", "r_lrs_ohm"))
    if high < low:
        raise DataError(
            f"{path}: column r_hrs_ohm must be above r_lrs_ohm, not {high:g} and {low:g} ohm in the"
            " median; are they exchanged, or in two units?"
        )


def _check_noise(columns: dict[str, FloatArray], path: Path) -> None:
    """The noise of a reading is in siemens, and not many times the cell's conductance."""
    noise = columns["noise_s"]
    _need(~(noise < 0), noise, path, "noise_s", "must be 0 or more")
    middle, cell = float(np.nanmedian(noise)), float(np.nanmedian(np.abs(columns["g_s"])))
    if middle > _MOST_NOISE * cell:
        raise DataError(
            f"{path}: column noise_s must be in S: its median of {middle:g} S is beyond the cells'"
            f" own {cell:g} S; is it in another unit?"
        )


def _check_times(columns: dict[str, FloatArray], path: Path) -> None:
    """Nothing is read before its beginning."""
    times = columns["time_bin_s"]
    _need(~(times < 0), times, path, "time_bin_s", "must be 0 or more")


_CHECKS: dict[Kind, Callable[[dict[str, FloatArray], Path], None]] = {
    "pulses": _check_pulses,
    "write-verify": _check_windows,
    "cycling": _check_cycles,
    "read-noise": _check_noise,
    "relaxation": _check_times,
}


def _need(fine: NDArray[np.bool_], values: FloatArray, path: Path, name: str, allowed: str) -> None:
    """Raise `DataError` for the first row below the header whose value is not fine."""
    if not fine.all():
        row = int(np.argmin(fine))
        raise DataError(f"{path}: row {row + 1}: {name} {allowed}, not {values[row]:g}")


def _trains(file: Measured, path: Path) -> list[Measured]:
    """The trains of pulses of a file, those of the same pulse together.

    A cell's rows are in order; a train ends where the polarity changes or the number of the pulse
    does not rise. It begins at the reading of pulse 0, else, after a train of the other polarity,
    at the last reading of that, else at its own first one. Trains shorter than most of their kind
    are left out, and of longer ones the end.
    """
    rows = file.part(np.argsort(file["cell"], kind="stable"))
    cell, pulse, polarity, g = (rows[name] for name in COLUMNS["pulses"])
    if not np.all(np.isin(polarity, (1, -1))):
        raise DataError(f"{path}: polarity must be 1 (SET) or -1 (RESET)")
    if np.any((pulse < 0) | (pulse != np.rint(pulse)) | (pulse > _MOST_PULSES)):
        raise DataError(f"{path}: pulse must be a whole number from 0 to {_MOST_PULSES}")
    follows = np.append(False, cell[1:] == cell[:-1])
    begins = ~follows | np.append(True, (np.diff(polarity) != 0) | (np.diff(pulse) <= 0))
    train, first = np.cumsum(begins) - 1, np.flatnonzero(begins)
    is_known = follows[first] & (polarity[first] != polarity[first - 1]) & (pulse[first] > 0)
    runs_on = is_known & (pulse[first] > pulse[first - 1])
    skips = runs_on & (pulse[first] > pulse[first - 1] + 1)
    if skips.any():
        at = int(first[np.argmax(skips)])
        raise DataError(
            f"{path}: cell {cell[at]:g}: pulse {pulse[at]:g} follows pulse {pulse[at - 1]:g} of the"
            " other polarity; of which polarity are those between? Read the last pulse of a train,"
            " or begin the next at pulse 0"
        )
    # Numbers may run on from one train of a cell to its next.
    offset = np.where(runs_on, pulse[first - 1], np.where(is_known, 0.0, pulse[first]))
    number = pulse - offset[train]
    pulses = Measured(
        file.name,
        "pulses",
        {
            "cell": cell,
            "sweep": train.astype(np.float64),
            "pulse": number,
            "polarity": polarity,
            "amplitude_v": _or_full(rows, "amplitude_v", FULL_SET[0], FULL_RESET[0]),
            "wl_v": _or_full(rows, "wl_v", FULL_SET[1], FULL_RESET[1]),
            "pulse_width_ns": _or_full(rows, "pulse_width_ns", WIDTH_S * 1e9, WIDTH_S * 1e9),
            "grown": np.ones(cell.size),
            "r_before_ohm": 1 / np.maximum(np.roll(g, 1), LEAST_S),
            "r_after_ohm": 1 / np.maximum(g, LEAST_S),
        },
    ).part(number > 0)
    told = np.stack([pulses[n] for n in ("polarity", "amplitude_v", "wl_v", "pulse_width_ns")])
    kinds, of_kind = np.unique(told, axis=1, return_inverse=True)
    of_kind = of_kind.ravel()
    if np.any((np.diff(of_kind) != 0) & (np.diff(pulses["sweep"]) == 0)):
        raise DataError(f"{path}: volts or width change within a train of pulses; that is a sweep")
    return [
        _of_one_pulse(pulses.part(of_kind == k), path, *kind)
        for k, kind in enumerate(kinds.T.tolist())
    ]


def _or_full(rows: Measured, name: str, of_set: float, of_reset: float) -> FloatArray:
    """A column; without it the values of the pulses of full cycles."""
    return rows.columns.get(name, np.where(rows["polarity"] > 0, of_set, of_reset))


def _of_one_pulse(
    trains: Measured, path: Path, polarity: float, amplitude_v: float, wl_v: float, _width_ns: float
) -> Measured:
    _, at = np.unique(trains["sweep"], return_inverse=True)
    length = np.zeros(at.max() + 1)
    np.maximum.at(length, at, trains["pulse"])
    most = float(np.quantile(length, 0.5, method="lower"))
    kept = trains.part((length[at] >= most) & (trains["pulse"] <= most))
    _, column = np.unique(kept["pulse"], return_inverse=True)
    _, row = np.unique(kept["sweep"], return_inverse=True)
    is_read = np.zeros((row.max() + 1, column.max() + 1), dtype=np.bool_)
    is_read[row, column] = True
    if not is_read.all():
        train, lacks = np.argwhere(~is_read)[0]
        cell = kept["cell"][np.argmax(row == train)]
        raise DataError(
            f"{path}: cell {cell:g}: a train has no reading after its pulse"
            f" {np.unique(kept['pulse'])[lacks]:g}, where others have one; leave that pulse or that"
            " train out"
        )
    driven, what = ("bl_v", "SET") if polarity > 0 else ("sl_v", "RESET")
    columns = {n: v for n, v in kept.columns.items() if n not in ("polarity", "amplitude_v")}
    columns[driven] = kept["amplitude_v"]
    name = f"{trains.name}, {what} pulses of {amplitude_v:g} V, WL {wl_v:g} V"
    return Measured(name, "pulses", columns)
