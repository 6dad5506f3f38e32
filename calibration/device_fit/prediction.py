"""Check of a device model: each measured experiment repeated on it, figure by figure."""

from __future__ import annotations

from collections.abc import Callable
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
    bands_of,
    compare,
    curves,
    cycle_figures,
    figures_of,
    form_figures,
    noise_figures,
    relax_figures,
    verify_figures,
)
from .measured_files import Kind, Measured
from .read_verify_write import SCHEME, is_told, program_on_model

_BOOTSTRAPS = 200
_COPIES = 16
_SEED = 71
_READS = 256
"""Readings of a model cell, at most and where a file does not tell, of which the noise is taken."""
_VERIFIED, _EACH = 4000, 2000
"""Model cells that a write-verify is repeated on: in all, and for each window of a published
scheme.
"""
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


def check_file(model: DeviceModel, file: Measured, seed: int = _SEED) -> Checked:
    """Repeat a file's experiment on the model and compare. Raises `DataError` for a file that
    cannot be repeated.
    """
    return _KINDS[file.kind](model, file, seed)


def _mean(copies: list[Figures]) -> Figures:
    found = {}
    for name in copies[0]:
        values = np.array([one[name] for one in copies])
        found[name] = float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
    return found


def _errors(made: list[Figures], predicted: int) -> Figures:
    """Standard errors of (model - measured): the bootstrap's, and the model's own of its
    `predicted` copies of the cells.
    """
    found = {}
    for name in made[0]:
        values = np.array([one.get(name, np.nan) for one in made])
        finite = values[np.isfinite(values)]
        found[name] = (
            float(finite.std(ddof=1)) * np.sqrt(1 + 1 / predicted)
            if finite.size > 2
            else float("nan")
        )
    return found


def _bootstrap(
    cell: FloatArray, figures: Callable[[Any, FloatArray], Figures], seed: int
) -> list[Figures]:
    """Figures of resampled cells; `figures` takes row numbers and the cell numbers that they go
    under.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(cell, kind="stable")
    _, begin, count = np.unique(cell[order], return_index=True, return_counts=True)
    found = []
    for _ in range(_BOOTSTRAPS):
        chosen = rng.integers(0, begin.size, begin.size)
        n = count[chosen]
        ends = np.cumsum(n)
        within = np.arange(ends[-1]) - np.repeat(ends - n, n)
        rows = order[np.repeat(begin[chosen], n) + within]
        found.append(figures(rows, np.repeat(np.arange(begin.size, dtype=np.float64), n)))
    return found


def _check_sweep(model: DeviceModel, file: Measured, seed: int) -> Checked:
    plan = sweep_plan(file)
    if plan.cell.size < 3 or plan.volts.size < 3:
        raise DataError(
            f"{file.name}: fewer than 3 sweeps or 3 volts (trains or pulses): no figures can be"
            " formed"
        )
    measured, make = curves(file), figures_of(file)
    copies = sweep_on_model(model, plan, seed, _COPIES)
    errors = _errors(
        _bootstrap(measured.cell, lambda rows, cell: make(measured.of_rows(rows, cell)), seed),
        _COPIES,
    )
    figures = compare(make(measured), _mean([make(one) for one in copies]), errors)
    pooled = Curves(np.zeros(0), measured.volts, np.concatenate([one.ln_g for one in copies]))
    drawn = {
        "line": file.swept,
        "volts": measured.volts,
        "measured": measured.ln_g,
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
    measured = relax_figures(t, g0, g, edges)

    def resampled(rows: Any, _cell: FloatArray) -> Figures:
        return relax_figures(t[rows], g0[rows], g[rows], edges)

    errors = _errors(_bootstrap(file["cell"], resampled, seed), 4)
    drawn = {"time": t, "measured": (g - g0) * 1e6, "predicted": (copies[0] - g0) * 1e6}
    return Checked(file.name, file.kind, compare(measured, predicted, errors), drawn)


def _check_forming(model: DeviceModel, file: Measured, seed: int) -> Checked:
    good = file["success"] == 1
    bl, ohm = file["bl_v"][good], file["r_after_ohm"][good]
    if bl.size < 3:
        raise DataError(f"{file.name}: fewer than 3 cells formed")
    plan = form_plan(file)
    n = max(20_000, 4 * bl.size)
    found = form_on_model(model, plan, seed, n)
    if found[0].size < 3:
        raise DataError(f"{file.name}: fewer than 3 cells of the model form at these volts")
    errors = _errors(
        _bootstrap(file["cell"][good], lambda rows, _: form_figures(bl[rows], ohm[rows]), seed),
        n // bl.size,
    )
    drawn = {"step": plan.step_v, "measured": bl, "predicted": found[0]}
    return Checked(
        file.name, file.kind, compare(form_figures(bl, ohm), form_figures(*found), errors), drawn
    )


def _check_cycling(model: DeviceModel, file: Measured, seed: int) -> Checked:
    high, low = file["r_hrs_ohm"], file["r_lrs_ohm"]
    cells = 1000
    ohm = cycle_on_model(model, seed, cells, cycle_plan(file, 30))
    found = ohm[0].ravel(), ohm[1].ravel()
    errors = _errors(
        _bootstrap(file["cell"], lambda rows, _: cycle_figures(high[rows], low[rows]), seed),
        max(cells // file.cells.size, 1),
    )
    drawn = {"measured": (high, low), "predicted": found}
    return Checked(
        file.name,
        file.kind,
        compare(cycle_figures(high, low), cycle_figures(*found), errors),
        drawn,
    )


def _check_read_noise(model: DeviceModel, file: Measured, seed: int) -> Checked:
    g, noise = file["g_s"], file["noise_s"]
    reads = int(np.clip(file.fixed("reads", _READS), 3, _READS))
    copies = [noise_on_model(model, g, reads, seed + k) for k in range(4)]
    errors = _errors(
        _bootstrap(file["cell"], lambda rows, _: noise_figures(g[rows], noise[rows]), seed), 4
    )
    predicted = _mean([noise_figures(g, one) for one in copies])
    drawn = {"g": g, "measured": noise, "predicted": copies[0]}
    return Checked(file.name, file.kind, compare(noise_figures(g, noise), predicted, errors), drawn)


def _check_verify(model: DeviceModel, file: Measured, seed: int) -> Checked:
    low, pulses = bands_of(file["r_low_ohm"]), file["sets"] + file["resets"]
    lows, found = _verified_on_model(model, file, seed)
    predicted = verify_figures(
        lows, found.pulses.astype(np.float64), found.success.astype(np.float64)
    )
    success = file["success"]
    errors = _errors(
        _bootstrap(
            file["cell"],
            lambda rows, _: verify_figures(low[rows], pulses[rows], success[rows]),
            seed,
        ),
        max(lows.size // file.rows, 1),
    )
    measured = verify_figures(low, pulses, success)
    drawn = {
        "low": (low, lows),
        "measured": pulses,
        "predicted": found.pulses,
        "success": (success, found.success),
    }
    return Checked(file.name, file.kind, compare(measured, predicted, errors), drawn)


def _verified_on_model(
    model: DeviceModel, file: Measured, seed: int
) -> tuple[FloatArray, _write_verify.Outcome]:
    """The band of windows of each model cell, and what the file's scheme did with it."""
    if is_told(file):
        copies = max(_VERIFIED // file.rows, 1)
        outcome = program_on_model(model, file, seed, copies)
        return np.tile(bands_of(file["r_low_ohm"]), copies), outcome
    scheme = _write_verify.scheme_of(file.name)
    if scheme is None:
        raise DataError(
            f"{file.name}: which write-verify scheme? Its name must hold ispp, fppv or radar, or it"
            f" needs the columns {', '.join(SCHEME)}"
        )
    windows = np.unique(np.stack([file["r_low_ohm"], file["r_high_ohm"]]), axis=1)
    lows, highs = (np.repeat(ends, _EACH) for ends in windows)
    return lows, scheme(model, lows, highs, seed, _write_verify.cycles_before(file.name))


_KINDS: dict[Kind, Callable[[DeviceModel, Measured, int], Checked]] = {
    "sweep": _check_sweep,
    "pulses": _check_sweep,
    "relaxation": _check_relaxation,
    "forming": _check_forming,
    "cycling": _check_cycling,
    "write-verify": _check_verify,
    "read-noise": _check_read_noise,
}
