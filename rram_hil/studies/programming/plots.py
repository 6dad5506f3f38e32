"""The plots of the study, as PNG files: pulses a cell, and how what was reached lasts."""

from __future__ import annotations

import math
from pathlib import Path

from rram_hil.report.drawing import new_axes
from rram_hil.studies.plots import COLOURS, MARKS, clear, save
from rram_hil.studies.programming.figures import AFTER
from rram_hil.studies.programming.results import MethodResults, MethodRow


def draw_methods(results: MethodResults, folder: Path) -> list[Path]:
    """Draw pulses a cell and errors over time, one file a device, set of targets and plot. Plots of
    an earlier table go away. Raises `DataError` where the disk refuses it.
    """
    clear(folder, "pulses", "errors")
    drawn = []
    for device in results.planned.study.devices_used:
        for targets in results.planned.study.targets:
            rows = results.rows(device.name, targets.name)
            name = f"{device.name}-{targets.name}.png"
            if rows:
                title = f"{device.name}, {targets.name}"
                drawn.append(_pulses(rows, title, folder / f"pulses-{name}"))
                drawn.append(_errors(rows, title, folder / f"errors-{name}"))
    return drawn


def _pulses(rows: list[MethodRow], title: str, path: Path) -> Path:
    """One line a method: median, mean, 95th and 99th percentile."""
    size = (640.0, 96.0 + 26.0 * len(rows))
    taken = {"p50": "median", "mean": "mean", "p95": "95 %", "p99": "99 %"}
    with new_axes("pulses a cell", log="x", size=size, margins=(180, 90, 40, 46)) as axes:
        places = range(len(rows))
        for colour, mark, (key, told) in zip(COLOURS, MARKS, taken.items(), strict=False):
            values = [max(row.mean(f"pulses_{key}"), 0.5) for row in rows]
            axes.plot(values, places, mark, color=colour, label=told)
        axes.set_yticks(places, [row.method for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(visible=True, axis="x")
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=10)
        return save(axes, path, f"{title}; failed cells included")


def _errors(rows: list[MethodRow], title: str, path: Path) -> Path:
    """Cells outside their windows, or errors of continuous targets, at once and after each
    rest.
    """
    levels = math.isnan(rows[0].mean("rms_error_s_at_once"))
    name, factor = ("outside", 100.0) if levels else ("rms_error_s", 1e6)
    label = "cells outside (%)" if levels else "rms error (uS)"
    with new_axes("", label, size=(640, 380), margins=(66, 210, 40, 46)) as axes:
        for place, row in enumerate(rows):
            axes.plot(
                range(len(AFTER)),
                [factor * row.mean(f"{name}_{key}") for key in AFTER],
                f"{MARKS[place % len(MARKS)]}-",
                color=COLOURS[place % len(COLOURS)],
                label=row.method,
                clip_on=False,
            )
        axes.set_xticks(range(len(AFTER)), list(AFTER.values()))
        axes.set_ylim(bottom=0)
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=10)
        return save(axes, path, f"{title}; failed cells included")
