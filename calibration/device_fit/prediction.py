"""Check of a device model: each measured experiment repeated on it, figure by figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rram_hil.errors import DataError
from rram_hil.simulation.model import DeviceModel
from rram_hil.types import FloatArray

from . import write_verify_schemes as _write_verify
from .experiments import (
    cycle_on_model,
    cycle_plan,
    form_on_model,
    form_plan,
    noise_on_model,
    relax_on_model,
    sweep_on_model,
    sweep_plan,
)
from .key_figures import (
    Compared,
    Curves,
    Figures,
    band_edges_us,
    compare,
    curves,
    cycle_figures,
    form_figures,
    noise_figures,
    relax_figures,
    sweep_figures,
    verify_figures,
)
from .measured_files import Kind, Measured

_BOOTSTRAPS = 200
_COPIES = 16
_SEED = 71
_READS = 256
"""Readings of a model cell, at most and where a file does not tell, of which the noise is taken."""
ENOUGH = 0.9
"""Part of the figures that must pass."""


@dataclass(frozen=True, eq=False)
class Checked:
    """One file: its figures, and what the report draws (by kind; arrays)."""

    name: str
    kind: Kind
    figures: list[Compared]
    drawn: dict[str, Any]


def passed(files: list[Checked]) -> tuple[int, int]:
    """Figures that pass, and all that are judged."""
    judged = [one for file in files for one in file.figures if one.verdict != "told"]
    return sum(one.verdict == "pass" for one in judged), len(judged)


def check_file(
    model: DeviceModel, file: Measured, seed: int = _SEED, earlier: Sequence[Measured] = ()
) -> Checked:
    """Repeat a file's experiment on the model and compare; `earlier` are the files that were
    measured before it. Raises `DataError` for a file that cannot be repeated.
    """
    if file.kind == "write-verify":
        return _check_verify(model, file, seed, earlier)
    return _KINDS[file.kind](model, file, seed)


def _mean(copies: list[Figures]) -> Figures:
    found = {}
    for name in copies[0]:
        values = np.array([one[name] for one in copies])
        found[name] = float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
    return found


@dataclass(frozen=True, eq=False)
class _Sampled:
    """A measured file as its figures are resampled: the cell of each row, shape (rows,), and the
    figures of some of the rows under the cells' numbers that are given.
    """

    cell: FloatArray
    of_rows: Callable[[Any, FloatArray], Figures]

    @property
    def figures(self) -> Figures:
        """Of all rows."""
        return self.of_rows(np.arange(self.cell.size), self.cell)

    def errors(self, seed: int, copies: float) -> Figures:
        """Standard errors of (predicted - measured), by resampled cells: the measured cells' own,
        and those of a prediction by `copies` times as many.
        """
        rng = np.random.default_rng(seed)
        order = np.argsort(self.cell, kind="stable")
        _, begin, count = np.unique(self.cell[order], return_index=True, return_counts=True)
        made = []
        for _ in range(_BOOTSTRAPS):
            chosen = rng.integers(0, begin.size, begin.size)
            n = count[chosen]
            ends = np.cumsum(n)
            within = np.arange(ends[-1]) - np.repeat(ends - n, n)
            rows = order[np.repeat(begin[chosen], n) + within]
            made.append(self.of_rows(rows, np.repeat(np.arange(begin.size, dtype=np.float64), n)))
        found = {}
        for name in made[0]:
            values = np.array([one.get(name, np.nan) for one in made])
            finite = values[np.isfinite(values)]
            found[name] = float("nan")
            if finite.size > 2:
                found[name] = float(finite.std(ddof=1)) * math.sqrt(1 + 1 / copies)
        return found


def _sampled(file: Measured, like: Measured) -> _Sampled:
    """`file`, with figures that compare with those of `like`."""
    cell = file["cell"]
    if file.kind == "sweep":
        sweeps = curves(file)
        return _Sampled(sweeps.cell, lambda rows, cells: sweep_figures(sweeps.of_rows(rows, cells)))
    if file.kind == "relaxation":
        t, g0, g = file["time_bin_s"], file["g_initial_s"], file["g_s"]
        edges = band_edges_us(like["time_bin_s"], like["g_initial_s"])
        return _Sampled(cell, lambda rows, _: relax_figures(t[rows], g0[rows], g[rows], edges))
    if file.kind == "forming":
        good = file["success"] == 1
        bl, ohm = file["bl_v"][good], file["r_after_ohm"][good]
        return _Sampled(cell[good], lambda rows, _: form_figures(bl[rows], ohm[rows]))
    if file.kind == "cycling":
        high, low = file["r_hrs_ohm"], file["r_lrs_ohm"]
        return _Sampled(cell, lambda rows, _: cycle_figures(high[rows], low[rows]))
    if file.kind == "read-noise":
        mean, noise = file["g_s"], file["noise_s"]
        return _Sampled(cell, lambda rows, _: noise_figures(mean[rows], noise[rows]))
    begin, success = file["r_low_ohm"], file["success"]
    pulses = file["sets"] + file["resets"]
    return _Sampled(cell, lambda rows, _: verify_figures(begin[rows], pulses[rows], success[rows]))


def check_half(seen: Measured, unseen: Measured, seed: int = _SEED) -> list[Compared]:
    """The figures of some cells of a measured file taken as the prediction of others of it, by the
    rule of a check: what a perfect model of the cells that were seen would reach.
    """
    wanted, guess = _sampled(unseen, unseen), _sampled(seen, unseen)
    return compare(wanted.figures, guess.figures, wanted.errors(seed, math.inf))


def _check_sweep(model: DeviceModel, file: Measured, seed: int) -> Checked:
    plan = sweep_plan(file)
    if plan.cell.size < 3 or plan.volts.size < 3:
        raise DataError(f"{file.name}: fewer than 3 sweeps or 3 volts: no figures can be formed")
    measured = _sampled(file, file)
    copies = sweep_on_model(model, plan, seed, _COPIES)
    predicted = _mean([sweep_figures(one) for one in copies])
    figures = compare(measured.figures, predicted, measured.errors(seed, _COPIES))
    pooled = Curves(np.zeros(0), plan.volts, np.concatenate([one.ln_g for one in copies]))
    drawn = {
        "line": file.swept,
        "volts": plan.volts,
        "measured": curves(file).ln_g,
        "predicted": pooled.ln_g,
    }
    return Checked(file.name, file.kind, figures, drawn)


def _check_relaxation(model: DeviceModel, file: Measured, seed: int) -> Checked:
    t, g0, g = file["time_bin_s"], file["g_initial_s"], file["g_s"]
    seconds = file["seconds"] if "seconds" in file.columns else t
    edges = band_edges_us(t, g0)
    age_s = file.columns.get("initial_age_s", np.zeros_like(t))
    copies = [
        relax_on_model(model, t, g0, file["cell"], seconds, seed + k, age_s) for k in range(4)
    ]
    predicted = _mean([relax_figures(t, g0, now, edges) for now in copies])
    measured = _sampled(file, file)
    figures = compare(measured.figures, predicted, measured.errors(seed, 4))
    drawn = {"time": t, "measured": (g - g0) * 1e6, "predicted": (copies[0] - g0) * 1e6}
    return Checked(file.name, file.kind, figures, drawn)


def _check_forming(model: DeviceModel, file: Measured, seed: int) -> Checked:
    good = file["success"] == 1
    bl = file["bl_v"][good]
    if bl.size < 3:
        raise DataError(f"{file.name}: fewer than 3 cells formed")
    plan = form_plan(file)
    n = max(20_000, 4 * bl.size)
    found = form_on_model(model, plan, seed, n)
    if found[0].size < 3:
        raise DataError(f"{file.name}: fewer than 3 cells of the model form at these volts")
    measured = _sampled(file, file)
    errors = measured.errors(seed, n // bl.size)
    figures = compare(measured.figures, form_figures(*found), errors)
    drawn = {"step": plan.step_v, "measured": bl, "predicted": found[0]}
    return Checked(file.name, file.kind, figures, drawn)


def _check_cycling(model: DeviceModel, file: Measured, seed: int) -> Checked:
    high, low = file["r_hrs_ohm"], file["r_lrs_ohm"]
    cells = 1000
    ohm = cycle_on_model(model, seed, cells, cycle_plan(file, 30))
    found = ohm[0].ravel(), ohm[1].ravel()
    measured = _sampled(file, file)
    errors = measured.errors(seed, max(cells // file.cells.size, 1))
    figures = compare(measured.figures, cycle_figures(*found), errors)
    drawn = {"measured": (high, low), "predicted": found}
    return Checked(file.name, file.kind, figures, drawn)


def _check_read_noise(model: DeviceModel, file: Measured, seed: int) -> Checked:
    g, noise = file["g_s"], file["noise_s"]
    reads = int(np.clip(file.fixed("reads", _READS), 3, _READS))
    copies = [noise_on_model(model, g, reads, seed + k) for k in range(4)]
    predicted = _mean([noise_figures(g, one) for one in copies])
    measured = _sampled(file, file)
    figures = compare(measured.figures, predicted, measured.errors(seed, 4))
    drawn = {"g": g, "measured": noise, "predicted": copies[0]}
    return Checked(file.name, file.kind, figures, drawn)


def _check_verify(
    model: DeviceModel, file: Measured, seed: int, earlier: Sequence[Measured]
) -> Checked:
    scheme = _write_verify.scheme_of(file.name)
    if scheme is None:
        raise DataError(
            f"{file.name}: which write-verify scheme? Its name must hold ispp, fppv or radar"
        )
    low, high = file["r_low_ohm"], file["r_high_ohm"]
    pulses, success = file["sets"] + file["resets"], file["success"]
    windows = np.unique(np.stack([low, high]), axis=1)
    each = 2000
    lows, highs = np.repeat(windows[0], each), np.repeat(windows[1], each)
    found = scheme(
        model,
        lows,
        highs,
        seed,
        _write_verify.cycles_of(file, earlier),
        _write_verify.top_resets_of(file),
    )
    predicted = verify_figures(
        lows, found.pulses.astype(np.float64), found.success.astype(np.float64)
    )
    measured = _sampled(file, file)
    errors = measured.errors(seed, max(each * windows.shape[1] // file.rows, 1))
    figures = compare(measured.figures, predicted, errors)
    drawn = {
        "low": (low, lows),
        "measured": pulses,
        "predicted": found.pulses,
        "success": (success, found.success),
    }
    return Checked(file.name, file.kind, figures, drawn)


_KINDS: dict[Kind, Callable[[DeviceModel, Measured, int], Checked]] = {
    "sweep": _check_sweep,
    "relaxation": _check_relaxation,
    "forming": _check_forming,
    "cycling": _check_cycling,
    "read-noise": _check_read_noise,
}
