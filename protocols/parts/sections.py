"""What the sections of several protocols show alike: what became of targets, and of predictions."""

from __future__ import annotations

import json

import numpy as np

from rram_hil.report.section import Axis, Grid, Line, Plot, Section, Table, by_level, cumulative
from rram_hil.report.step import RunStep
from rram_hil.statistics import Figure, proportion, wilson
from rram_hil.types import FloatArray
from rram_hil.units import count, quantity

BAND = "Line: median; band: 16 to 84 % of the cells."
SHARE = "share of cells"
CLASSES_SHOWN = 100
"""Of more classes there is no matrix of which was taken for which."""


def programmed_plots(
    target: FloatArray, found: FloatArray, who: str, step: RunStep
) -> tuple[Plot, ...]:
    """What became of targets (S), maps of one shape: programmed against target, and the
    distribution of the error; of the cells that `step` and those before it knew as sound.
    """
    known = np.isfinite(target) & np.isfinite(found)
    faulty = known & np.any([np.zeros(target.shape, np.bool_), *step.faults().values()], axis=0)
    known &= ~faulty
    left_out = int(faulty.sum())
    who += f"; {count(left_out)} that are stuck or not formed are left out" if left_out else ""
    x, y = target[known], found[known]
    if not x.size:
        return ()
    error = y - x
    rms = quantity(float(np.sqrt(np.mean(error**2))), "S")
    ends = np.array([x.min(), x.max()])
    return (
        Plot(
            "Programmed against target",
            Axis("target conductance", "S"),
            Axis("conductance", "S"),
            (
                Line(x, y, "cells", look="dots"),
                by_level(x, y, "median, 16 to 84 %"),
                Line(ends, ends, "as wanted", dashed=True),
            ),
            f"{count(x.size)} cells, {who}.",
        ),
        Plot(
            "Error by target",
            Axis("target conductance", "S"),
            Axis("conductance − target", "S"),
            (by_level(x, error), Line(ends, np.zeros(2), dashed=True)),
            f"{BAND} Root mean square: {rms}.",
        ),
        Plot(
            "Distribution of the error",
            Axis("|conductance − target|", "S"),
            Axis(SHARE),
            (cumulative(np.abs(error)),),
            "Band: 95 % interval (Wilson).",
        ),
    )


def spread_plot(title: str, named: dict[str, FloatArray], label: str, unit: str) -> Plot:
    """Cumulative distributions of maps, on a logarithmic axis where they span over a decade."""
    known = {n: v[np.isfinite(v)] for n, v in named.items()}
    whole = np.concatenate([np.zeros(0), *known.values()])
    above = whole[whole > 0]
    log = bool(above.size == whole.size > 0 and above.max() > 10 * above.min())
    return Plot(
        title,
        Axis(label, unit, log),
        Axis(SHARE),
        tuple(cumulative(v, n) for n, v in known.items() if v.size),
        "Bands: 95 % interval (Wilson).",
    )


def classified(step: RunStep) -> Section:
    """Of predictions and labels: how many were right, class by class, and which class was taken for
    which.
    """
    labels, found = (step.values(name).astype(np.int64) for name in ("labels", "predictions"))
    classes = int(max(labels.max(initial=0), found.max(initial=0))) + 1
    right = proportion(int(np.sum(labels == found)), labels.size)
    counts = np.zeros((min(classes, CLASSES_SHOWN),) * 2, dtype=np.int64)
    tables: tuple[Table, ...] = ()
    if step.has("weight_vectors"):
        saved = step.saved("weight_vectors")
        names = json.loads(str(saved.attributes["weights"]))
        rows = tuple((str(n), count(int(v))) for n, v in zip(names, saved.values, strict=True))
        tables = (Table("Ran on the array", ("weight", ">vectors"), rows),)
    text = f"{count(labels.size)} images, {_share(right)} classified as labelled."
    if classes > CLASSES_SHOWN:
        return Section(text, tables=tables)
    np.add.at(counts, (labels, found), 1)
    of = counts.sum(axis=1)
    here = np.flatnonzero(of)
    low, high = wilson(counts.diagonal()[here].astype(np.float64), np.maximum(of[here], 1))
    share = counts.diagonal()[here] / of[here]
    plot = Plot(
        "Accuracy by class",
        Axis("class"),
        Axis("share classified as labelled"),
        (Line(here.astype(np.float64), share, "", low, high, "bars"),),
        "Whiskers: 95 % interval (Wilson).",
    )
    grid = Grid("Which class was taken for which", "labelled", "classified as", counts)
    return Section(text, (plot,), (grid,), tables)


def _share(right: Figure) -> str:
    return f"{100 * right.value:.2f} ± {100 * right.uncertainty:.2f} %"
