"""Run files as measurements: what the product's own protocols found out about a chip's cells, as
the kinds that a fit and a check know.

Of a step counts what was read: whole steps where a protocol keeps its results at its end, single
sweeps where each stands in the table of cells. Cells that the run marks as stuck or unformed are
left out. What of which protocol is taken stands in docs/device-model.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rram_hil.array import MAP, Status
from rram_hil.errors import DataError
from rram_hil.report.step import RunStep, steps_of
from rram_hil.statistics import median
from rram_hil.storage.run_reader import RunFile, read_run, undamaged
from rram_hil.storage.run_state import is_hdf5
from rram_hil.types import FloatArray, IntArray

from .measured_files import COLUMNS, LEAST_S, Kind, Measured
from .read_verify_write import RAMPS

_FEWEST = 3
"""Sweeps, levels of a sweep, and cells of a distribution below which no figure can be formed."""
_OK = Status.OK.name.lower()
OF_USE = (
    "forming",
    'dc-sweep with measure = "after" and more than one cycle, or its RESET branch',
    "pulse-response with a train of 3 or more pulses",
    "endurance",
    "retention with levels_s",
    "read-noise",
    "write-verify",
)
"""Steps that are taken, as an error lists them."""


def is_run_file(path: Path) -> bool:
    """Whether a file is meant as a run file: by its name, or by how it begins."""
    return path.suffix == ".h5" or is_hdf5(path)


def measured_of_run(path: Path) -> list[Measured]:
    """What a run file tells of single cells, a `Measured` each step and experiment, named by file,
    step and protocol ("run.h5 step 3 dc-sweep, RESET by SL").

    Cells are numbered along the chip: (tile x rows + row) x columns + column. Raises `DataError`
    for a file that is missing, damaged or no run file, and for one that holds nothing of use.
    """
    with read_run(path) as run, undamaged(path, OSError):
        steps = steps_of(run)
        found = []
        if run.attributes["cell"] == "1T1R":
            out_of_use = _out_of_use(steps)
            for step in steps:
                make = _PROTOCOLS.get(step.protocol)
                found += [] if make is None else make(_Step(run, step, path.name, out_of_use))
        if found:
            return found
        held = ", ".join(dict.fromkeys(step.protocol or step.name for step in steps)) or "no step"
        raise DataError(
            "nothing of use for the device model. Of use are, on a 1T1R array:"
            f" {'; '.join(OF_USE)}. They count where they ended, without a compliance current, and"
            f' sweeps with log = "all". The file holds ({run.status}): {held}',
            where=str(path),
        )


def _out_of_use(steps: list[RunStep]) -> NDArray[np.bool_]:
    """Cells that the run marks as stuck or leaves unformed, flat over the chip. What one forming
    step formed conducts before the first pulse of the next, which takes it for stuck.
    """
    size = _size(steps[0].run) if steps else 0
    marks, unformed, formed = (np.zeros(size, dtype=np.bool_) for _ in range(3))
    for step in steps:
        of_step = np.zeros(size, dtype=np.bool_)
        for name in ("stuck_low_resistance", "stuck_high_resistance"):
            if (stuck := step.map(name)) is not None:
                of_step |= stuck.ravel() > 0
        pristine, gate = step.map("pristine"), step.map("forming_gate")
        if pristine is None or gate is None:
            marks |= of_step
            continue
        unformed |= of_step | (np.isfinite(pristine) & ~np.isfinite(gate)).ravel()
        formed |= np.isfinite(gate).ravel()
    return marks | (unformed & ~formed)


def _size(run: RunFile) -> int:
    return int(np.prod([int(run.attributes[name]) for name in ("tiles", "rows", "columns")]))


@dataclass(frozen=True, eq=False)
class _Batch:
    """An `Apply` of a step: its settings, the cells (n,) and what they read (n, readings), in S;
    NaN where a reading is none. `follows`: no batch that was cut stands between it and the one
    before.
    """

    settings: dict[str, Any]
    cell: IntArray
    conductance_s: FloatArray
    follows: bool


@dataclass(frozen=True, eq=False)
class _Step:
    """A step of a run file, and which cells of the chip do not count."""

    run: RunFile
    step: RunStep
    file: str
    out_of_use: NDArray[np.bool_]

    def measured(self, kind: Kind, columns: dict[str, Any], what: str = "") -> list[Measured]:
        """The columns as a `Measured`, rows with a number in each that the kind needs; an empty
        list where fewer than three cells are left.
        """
        name = f"{self.file} step {self.step.number} {self.step.name}{what and ', ' + what}"
        shape = np.shape(columns["cell"])
        whole = {n: np.array(np.broadcast_to(v, shape), dtype=float) for n, v in columns.items()}
        needed = np.stack([whole[n] for n in COLUMNS["sweep" if kind == "pulses" else kind]])
        kept = np.isfinite(needed).all(axis=0) & ~self.out_of_use[np.asarray(columns["cell"])]
        found = Measured(name, kind, whole).part(kept)
        return [found] if found.cells.size >= _FEWEST else []

    def without(self, cells: IntArray, marks: NDArray[np.bool_]) -> _Step:
        """The same with some of its cells left out: those that are marked."""
        out_of_use = self.out_of_use.copy()
        out_of_use[cells] |= marks
        return replace(self, out_of_use=out_of_use)

    def cells(self) -> IntArray:
        """Flat index of each cell that the step's results are of."""
        return self.flat({name: self.step.values(name) for name in MAP})

    def flat(self, address: dict[str, NDArray[Any]]) -> IntArray:
        """Flat index of cells by tile, row and column."""
        rows, columns = (int(self.run.attributes[name]) for name in ("rows", "columns"))
        tile, row, column = (address[name].astype(np.int64) for name in MAP)
        found: IntArray = (tile * rows + row) * columns + column
        return found

    def at(self, name: str, cells: IntArray) -> FloatArray | None:
        """Values of a map of this step at some cells; None where it saved no such map."""
        found = self.step.map(name)
        return None if found is None else found.ravel()[cells]

    def left_s(self) -> FloatArray:
        """What each cell of the chip conducted before this step (S), as the map told that the steps
        before saved last; NaN for a cell that none tells of, or that was pulsed since.
        """
        g, saved_in = np.full((2, self.out_of_use.size), np.nan)
        if "conductance" in self.run.map_names:
            stack = self.run.map("conductance")
            for values, number in zip(stack.values, stack.step, strict=True):
                here = np.isfinite(values.ravel()) & (number < self.step.number)
                g[here], saved_in[here] = values.ravel()[here], number
        done = self.run.table("operations", columns=("operation", "step", "pulses"))
        between = (done["pulses"] > 0) & (done["step"] < self.step.number)
        if "cells" not in self.run.tables:
            g[saved_in < done["step"][between].max(initial=0)] = np.nan
            return g
        cells = self.run.table("cells", columns={"operation", "pulses", *MAP})
        step_of = done["step"][np.searchsorted(done["operation"], cells["operation"])]
        pulsed = (cells["pulses"] > 0) & (step_of < self.step.number)
        at = self.flat({name: cells[name][pulsed] for name in MAP})
        g[at[saved_in[at] < step_of[pulsed]]] = np.nan
        return g

    def settings(self, label: str) -> list[dict[str, Any]]:
        """What the operations of a label were told to do, each setting once."""
        operations = self.step.operations("label", "settings")
        mine = operations["settings"][operations["label"] == label]
        return [self._told(int(number)) for number in dict.fromkeys(mine.tolist())]

    def _told(self, number: int) -> dict[str, Any]:
        text = self.run.table("settings", slice(number, number + 1))["text"][0]
        return dict(json.loads(str(text)))

    def pulsed_s(self, label: str) -> FloatArray:
        """When each cell of the chip took its last pulse of the operations of a label, on the bench
        clock: the middle of the operation, for more is not in the file. NaN for cells without;
        where the run kept no single readings, all are taken for those of the last.
        """
        done = self.step.operations("operation", "label", "started_s", "ended_s", "outcome")
        mine = np.flatnonzero((done["label"] == label) & (done["outcome"] == "done"))
        middle = (done["started_s"] + done["ended_s"])[mine] / 2
        last_s = np.full(self.out_of_use.size, np.nan)
        cells = self.step.cells("operation", *MAP, "pulses")
        if not mine.size:
            return last_s
        if cells is None:
            return np.full_like(last_s, middle[-1])
        number = done["operation"][mine]
        here = (cells["pulses"] > 0) & np.isin(cells["operation"], number)
        at = self.flat({name: cells[name][here] for name in MAP})
        np.fmax.at(last_s, at, middle[np.searchsorted(number, cells["operation"][here])])
        return last_s

    def batches(self, *labels: str) -> Iterator[_Batch]:
        """The operations of these labels that ended as they should, in order, with what was read;
        none of a run that kept no single readings.
        """
        cells = self.step.cells("operation", *MAP, "measurement", "conductance_s", "status")
        if cells is None:
            return
        done = self.step.operations("operation", "label", "settings", "outcome")
        told = {number: self._told(number) for number in set(done["settings"].tolist())}
        follows = True
        for k in np.flatnonzero(np.isin(done["label"], labels)):
            if done["outcome"][k] != "done":
                follows = False
                continue
            number = done["operation"][k]
            here = slice(*np.searchsorted(cells["operation"], [number, number + 1]))
            cell, row = np.unique(
                self.flat({name: cells[name][here] for name in MAP}), return_inverse=True
            )
            settings = told[int(done["settings"][k])]
            readings = sum(step["measure"] != "no" for step in settings["steps"])
            table = np.full((cell.size, readings * settings["repeat"]), np.nan)
            good = cells["status"][here] == _OK
            table[row[good], cells["measurement"][here][good]] = cells["conductance_s"][here][good]
            yield _Batch(settings, cell, table, follows)
            follows = True


def _ohm(conductance_s: FloatArray) -> FloatArray:
    """Resistance; what reads 0 or less, as noise may, is as good as open."""
    return 1.0 / np.maximum(conductance_s, LEAST_S)


def _forming(step: _Step) -> list[Measured]:
    """The ramp with the first gate: cells that formed, and, with its last volts, cells that did
    not.
    """
    settings = step.settings("forming")
    names = ("pristine", "forming_voltage", "forming_gate", "conductance", "stuck_low_resistance")
    maps = [step.step.map(name) for name in names]
    if not settings or any(one is None for one in maps):
        return []
    pristine, volts, gate, after, conducted = (np.ravel(one) for one in maps if one is not None)
    steps = [one for told in settings for one in told["steps"] if one["measure"] == "no"]
    ramp = [one for one in steps if one["wl_v"] == steps[0]["wl_v"]]
    taken = np.flatnonzero(np.isfinite(pristine) & ~(conducted > 0))
    formed = (gate[taken] == ramp[0]["wl_v"]) & np.isfinite(volts[taken])
    columns = {
        "cell": taken,
        "bl_v": np.where(formed, volts[taken], max(one["bl_v"] for one in ramp)),
        "wl_v": ramp[0]["wl_v"],
        "pulse_width_ns": ramp[0]["width_s"] * 1e9,
        "r_after_ohm": _ohm(after[taken]),
        "success": formed,
    }
    if formed.sum() < _FEWEST:
        return []
    # Unformed cells belong to this kind: of all marks only that of cells that nothing forms counts.
    stuck = step.at("stuck_high_resistance", taken)
    everything = replace(step, out_of_use=np.zeros_like(step.out_of_use))
    here = everything if stuck is None else everything.without(taken, stuck > 0)
    return here.measured("forming", columns)


@dataclass(frozen=True)
class _Pulse:
    """A pulse with a reading right before and right after it: volts of each line, width (s), and
    the places of both readings.
    """

    volts: dict[str, float]
    width_s: float
    before: int
    after: int

    @property
    def is_reset(self) -> bool:
        """Whether its volts stand on SL."""
        return self.volts["sl_v"] > self.volts["bl_v"]

    def rises_to(self, other: _Pulse) -> str:
        """The one line in which another pulse of the same polarity and width, next to this one, is
        higher, "pulse" where it is equal; "" where it is no such pulse.
        """
        more = {n: round(volts - self.volts[n], 6) for n, volts in other.volts.items()}
        moving = [name for name, rise in more.items() if rise != 0]
        alike = (self.is_reset, self.width_s) == (other.is_reset, other.width_s)
        if not alike or self.after != other.before or len(moving) > 1:
            return ""
        if not moving:
            return "pulse"
        still = "bl_v" if self.is_reset else "sl_v"
        return moving[0] if more[moving[0]] > 0 and moving[0] != still else ""


@dataclass(frozen=True)
class _Ramp:
    """Pulses each of which has the same line higher than the one before; equal ones where `swept`
    is "pulse".
    """

    swept: str
    pulses: tuple[_Pulse, ...]

    def column(self, line: str) -> FloatArray:
        """Volts of a line, or numbers of the pulses, shape (pulses,)."""
        if line == "pulse":
            return np.arange(1.0, len(self.pulses) + 1)
        return np.array([pulse.volts[line] for pulse in self.pulses])


def _pulses(batches: list[_Batch]) -> list[_Pulse]:
    """The single pulses between readings of batches of the same cells, in order, without those
    under a compliance current.
    """
    found: list[_Pulse] = []
    reading, pending, is_known = -1, [], False
    for batch in batches:
        told = batch.settings
        is_plain = told["compliance_a"] is None and told["stop"] is None and told["repeat"] == 1
        is_known = is_known and batch.follows
        for one in told["steps"]:
            if one["measure"] == "no":
                pending.append((one, is_plain))
                continue
            reading += 1
            if is_known and len(pending) == 1 and pending[0][1]:
                volts = {name: float(pending[0][0][name]) for name in ("bl_v", "sl_v", "wl_v")}
                found.append(_Pulse(volts, float(pending[0][0]["width_s"]), reading - 1, reading))
            pending, is_known = [], True
    return found


def _ramps(pulses: list[_Pulse]) -> list[_Ramp]:
    """The rising ramps, and trains of equal pulses, among pulses, in order."""
    found: list[_Ramp] = []
    for pulse in pulses:
        last = found[-1] if found else None
        rises = "" if last is None else last.pulses[-1].rises_to(pulse)
        if last is not None and rises and last.swept in ("", rises):
            found[-1] = _Ramp(rises, (*last.pulses, pulse))
        else:
            found.append(_Ramp("", (pulse,)))
    return [ramp for ramp in found if len(ramp.pulses) >= _FEWEST]


def _sweeps(step: _Step, labels: tuple[str, ...], first_set: int) -> list[Measured]:
    """The rising ramps of batches as sweeps, and their equal pulses as trains, those of one line,
    polarity, width and other volts together; SET sweeps of a cell count from its `first_set`-th on.
    """
    kinds: dict[tuple[Any, ...], list[dict[str, FloatArray]]] = {}
    taken = np.zeros((2, step.out_of_use.size), dtype=np.int64)
    # A bench that takes fewer steps or cells at once gets an operation in pieces.
    streams: dict[bytes, list[_Batch]] = {}
    for batch in step.batches(*labels):
        streams.setdefault(batch.cell.tobytes(), []).append(batch)
    for batches in streams.values():
        cell = batches[0].cell
        siemens = np.concatenate([batch.conductance_s for batch in batches], axis=1)
        for ramp in _ramps(_pulses(batches)):
            first = ramp.pulses[0]
            number = taken[int(first.is_reset), cell]
            taken[int(first.is_reset), cell] += 1
            counts = np.flatnonzero(first.is_reset | (number >= first_set))
            before, after = (
                siemens[np.ix_(counts, [getattr(pulse, side) for pulse in ramp.pulses])]
                for side in ("before", "after")
            )
            driven = "sl_v" if first.is_reset else "bl_v"
            columns = {
                "cell": cell[counts, None],
                "sweep": number[counts, None],
                "pulse_width_ns": first.width_s * 1e9,
                "grown": 1.0,
                driven: ramp.column(driven),
                "wl_v": ramp.column("wl_v"),
                "r_before_ohm": _ohm(before),
                "r_after_ohm": _ohm(after),
            }
            if ramp.swept == "pulse":
                columns["pulse"] = ramp.column("pulse")
            fixed = tuple(v for n, v in first.volts.items() if n != ramp.swept)
            kinds.setdefault((first.is_reset, ramp.swept, *fixed, first.width_s), []).append(
                {n: np.broadcast_to(v, after.shape).ravel() for n, v in columns.items()}
            )
    found = []
    for (is_reset, swept, *_), parts in kinds.items():
        columns = {n: np.concatenate([part[n] for part in parts]) for n in parts[0]}
        polarity = "RESET" if is_reset else "SET"
        if swept == "pulse":
            found += step.measured("pulses", columns, f"{polarity} pulses")
        else:
            what = f"{polarity} by {swept.removesuffix('_v').upper()}"
            found += step.measured("sweep", columns, what)
    return found


def _dc_sweep(step: _Step) -> list[Measured]:
    """The rising branches, where each level has a reading after it. In what state the first SET
    sweep finds a cell is not known; the others begin after a RESET sweep.
    """
    if step.step.has(*MAP):
        cells = step.cells()
        moved = [step.at(name, cells) for name in ("set_voltage", "reset_voltage")]
        never = [~np.isfinite(volts) for volts in moved if volts is not None]
        step = step.without(cells, np.logical_and.reduce(never)) if never else step
    return _sweeps(step, ("DC sweep", "DC sweep, SET", "DC sweep, RESET"), first_set=1)


def _pulse_response(step: _Step) -> list[Measured]:
    """The trains: ramps, or equal pulses, from a full RESET or SET. Its curves begin anew with
    every point and are neither.
    """
    if step.step.has(*MAP):
        cells = step.cells()
        responds = step.at("responds", cells)
        step = step if responds is None else step.without(cells, responds == 0)
    found = []
    for train in ("potentiation", "depression"):
        found += _sweeps(step, (f"pulse response, {train}",), first_set=0)
    return found


def _endurance(step: _Step) -> list[Measured]:
    """Both states of every cycle that was read, of cells that cycled, up to their failure."""
    settings = step.settings("endurance, measured cycle")
    if not settings or not step.step.has("cycle", "set_conductance", "reset_conductance"):
        return []
    if settings[0]["compliance_a"] is not None:
        return []
    cells, counts = step.cells(), step.step.values("cycle")
    failed_at = step.at("failed_at", cells)
    last = np.full(cells.size, np.inf)
    if failed_at is not None:
        last = np.where(failed_at > 0, failed_at, np.inf)
    shape = (cells.size, counts.size)
    high, low = (step.step.values(f"{name}_conductance") for name in ("reset", "set"))
    is_good = (counts < last[:, None]) & (high > 0) & (low > 0)
    reset, set_ = (one for one in settings[0]["steps"] if one["measure"] == "no")
    columns: dict[str, Any] = {
        "cell": np.broadcast_to(cells[:, None], shape)[is_good],
        "cycles_before": np.broadcast_to(counts - 1, shape)[is_good],
        "r_hrs_ohm": 1.0 / high[is_good],
        "r_lrs_ohm": 1.0 / low[is_good],
        "reset_sl_v": reset["sl_v"],
        "reset_wl_v": reset["wl_v"],
        "reset_width_ns": reset["width_s"] * 1e9,
        "set_bl_v": set_["bl_v"],
        "set_wl_v": set_["wl_v"],
        "set_width_ns": set_["width_s"] * 1e9,
    }
    return step.measured("cycling", columns)


def _retention(step: _Step) -> list[Measured]:
    """Every reading of the cells that were brought to a level and kept, the first as the initial
    one.
    """
    done = step.step.operations("label", "started_s", "outcome")
    readings = (done["label"] == "retention") & (done["outcome"] == "done")
    if not (
        readings.any() and step.step.has("conductance_by_time", "age_s", "level", "level_of_cell")
    ):
        return _write_verify(step)
    cells = step.cells()
    since_s = float(done["started_s"][readings][0]) - step.pulsed_s("write-verify")[cells]
    g, age_s = step.step.values("conductance_by_time"), step.step.values("age_s")
    kept = step.at("kept", cells)
    here = np.isfinite(since_s) & (True if kept is None else kept > 0)
    if not here.any():
        return _write_verify(step)
    level_s = step.step.values("level")[step.step.values("level_of_cell").astype(np.int64)][here]
    cells, g, age_s, since_s = cells[here], g[here], age_s[here], since_s[here]
    # What was planned is not in the file; readings of one time lie closer than 1 %, or as close as
    # the bench reads them.
    times = np.array([float(f"{t:.2g}") for t in median(age_s[:, 1:])])
    shape = g[:, 1:].shape
    columns = {
        "cell": np.broadcast_to(cells[:, None], shape).ravel(),
        "g_s": g[:, 1:].ravel(),
        "g_initial_s": np.broadcast_to(g[:, :1], shape).ravel(),
        "time_bin_s": np.broadcast_to(times, shape).ravel(),
        "seconds": (age_s[:, 1:] - age_s[:, :1]).ravel(),
        "initial_age_s": np.broadcast_to(since_s[:, None] + age_s[:, :1], shape).ravel(),
        "level_s": np.broadcast_to(level_s[:, None], shape).ravel(),
    }
    return step.measured("relaxation", columns) + _write_verify(step)


def _read_noise(step: _Step) -> list[Measured]:
    """Mean and standard deviation of each cell's readings, without cells that switch between two
    levels.
    """
    if not step.step.has("conductance_by_reading"):
        return []
    cells = step.cells()
    g = step.step.values("conductance_by_reading")
    values = [step.at(name, cells) for name in ("conductance", "read_noise", "telegraph")]
    level, noise, telegraph = (np.full(cells.size, np.nan) if v is None else v for v in values)
    columns = {
        "cell": cells,
        "g_s": level,
        "noise_s": np.where(telegraph > 0, np.nan, noise),
        "reads": np.isfinite(g).sum(axis=(1, 2)),
    }
    return step.measured("read-noise", columns)


def _write_verify(step: _Step) -> list[Measured]:
    """Pulses that took each cell into its window, of an operation that was done in one go without a
    compliance current, every cell read by itself, and all that tells how to do it again.
    """
    done = step.step.operations("label", "outcome", "started_s", "ended_s")
    mine = np.flatnonzero(done["label"] == "write-verify")
    names = ("window_low", "window_high", "set_pulses", "reset_pulses", "inside")
    maps = [step.step.map(name) for name in names]
    if mine.size != 1 or done["outcome"][mine[0]] != "done" or any(one is None for one in maps):
        return []
    (told,) = step.settings("write-verify")
    if told["compliance_a"] is not None or told["verify"] != "single":
        return []
    low, high, sets, resets, inside = (np.ravel(one) for one in maps if one is not None)
    cells = np.flatnonzero(np.isfinite(low))
    pulses = (sets + resets)[cells]
    rounds = pulses.max(initial=0) + told["confirm"] + 1
    budget = told["max_pulses"]
    columns: dict[str, Any] = {
        "cell": cells,
        "sets": sets[cells],
        "resets": resets[cells],
        "r_low_ohm": _ohm(high[cells]),
        "r_high_ohm": _ohm(low[cells]),
        "success": inside[cells] > 0,
        "g_start_s": step.left_s()[cells],
        "round_s": (done["ended_s"] - done["started_s"])[mine[0]] / rounds,
        "max_pulses": budget["high"] if isinstance(budget, dict) else budget,
        "max_reversals": told["max_reversals"],
        "confirm": told["confirm"],
        "set_width_ns": told["set_pulses"]["width_s"] * 1e9,
        "reset_width_ns": told["reset_pulses"]["width_s"] * 1e9,
    }
    for polarity, line in RAMPS:
        ramp = told[f"{polarity}_pulses"][f"{line}_v"]
        own = step.at(f"{polarity}_{line}_start", cells)
        name = f"{polarity}_{line}"
        columns[f"{name}_start_v"] = ramp["start_v"] if own is None else own
        columns |= {f"{name}_{what}_v": ramp[f"{what}_v"] for what in ("stop", "step")}
    what = "" if step.step.protocol == "write-verify" else "write-verify"
    return step.measured("write-verify", columns, what)


_PROTOCOLS: dict[str, Callable[[_Step], list[Measured]]] = {
    "forming": _forming,
    "dc-sweep": _dc_sweep,
    "pulse-response": _pulse_response,
    "endurance": _endurance,
    "retention": _retention,
    "read-noise": _read_noise,
    "write-verify": _write_verify,
}
