"""The page of a check: measured over predicted for each file, and the table of figures. One HTML
file that needs nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from rram_hil.report.drawing import CURVE, DASHED, new_axes, svg
from rram_hil.report.page import render
from rram_hil.simulation.model import DeviceModel
from rram_hil.types import FloatArray

from .prediction import ENOUGH, Checked, passed

_MEASURED, _PREDICTED = DASHED, CURVE
_LINES = {"bl_v": "BL (V)", "sl_v": "SL (V)", "wl_v": "WL (V)", "pulse": "pulses"}


def device_report(model: DeviceModel, files: list[Checked]) -> str:
    """The HTML of the page. Raises `ConfigError` where the extra `view` is missing."""
    good, judged = passed(files)
    sections = [
        {
            "name": file.name,
            "kind": file.kind,
            "figures": file.figures,
            "passed": passed([file]),
            "pictures": _DRAW[file.kind](file),
        }
        for file in files
    ]
    return render(
        "device.html",
        Path(__file__).parent / "templates",
        title=f"Device model {model.name}",
        model=model,
        good=good,
        judged=judged,
        enough=ENOUGH,
        files=sections,
    )


def _sweep(file: Checked) -> list[str]:
    """Median and the band of the middle 70 % of the sweeps, against the swept volts."""
    volts: FloatArray = file.drawn["volts"]
    line = _LINES[file.drawn["line"]]
    with new_axes(line, "conductance (uS)", log="y") as axes:
        for style, key in ((_MEASURED, "measured"), (_PREDICTED, "predicted")):
            low, middle, high = np.exp(np.quantile(file.drawn[key], [0.15, 0.5, 0.85], axis=0))
            axes.plot(volts, middle, **style)
            for edge in (low, high):
                axes.plot(volts, edge, **style | {"linewidth": 1, "alpha": 0.5})
        bottom, top = axes.get_ylim()
        axes.set(xlim=(volts[0], volts[-1]), ylim=(max(bottom, 0.01), top))
        alt = f"Conductance against {line}, measured and predicted: median and middle 70 %"
        return [svg(axes, f"{file.name}. {alt}")]


def _distribution(
    pairs: list[tuple[FloatArray, FloatArray]], label: str, alt: str, *, log: bool = False
) -> str:
    """Cumulative distributions, a pair (measured, predicted) each."""
    values = np.concatenate([x for pair in pairs for x in pair])
    low, high = (float(v) for v in np.quantile(values, [0.002, 0.998]))
    with new_axes(label, "part of them", log="x" if log else "") as axes:
        p = np.linspace(0.002, 0.998, 120)
        for measured, predicted in pairs:
            axes.plot(np.quantile(measured, p), p, **_MEASURED)
            axes.plot(np.quantile(predicted, p), p, **_PREDICTED)
        axes.set(xlim=(low, high if high > low else low + 1.0), ylim=(0.0, 1.0))
        axes.yaxis.set_major_formatter(lambda value, place: f"{value * 100:.6g} %")
        return svg(axes, alt)


def _relaxation(file: Checked) -> list[str]:
    t: FloatArray = file.drawn["time"]
    pictures = []
    for at in np.unique(t[t > 0]):
        mine = t == at
        pair = (file.drawn["measured"][mine], file.drawn["predicted"][mine])
        alt = f"{file.name}. Change of conductance after {at:g} s"
        pictures.append(_distribution([pair], f"change after {at:g} s (uS)", alt))
    return pictures


def _forming(file: Checked) -> list[str]:
    pair = (file.drawn["measured"], file.drawn["predicted"])
    return [_distribution([pair], "forming BL (V)", f"{file.name}. Forming volts")]


def _cycling(file: Checked) -> list[str]:
    pairs = [
        (np.maximum(a, 1.0), np.maximum(b, 1.0))
        for a, b in zip(file.drawn["measured"], file.drawn["predicted"], strict=True)
    ]
    alt = f"{file.name}. Resistance of the two states of full cycles"
    return [_distribution(pairs, "resistance (ohm)", alt, log=True)]


def _read_noise(file: Checked) -> list[str]:
    """Noise of each cell, as a part of its conductance."""
    g = np.maximum(file.drawn["g"], 1e-9)
    pair = file.drawn["measured"] / g, file.drawn["predicted"] / g
    alt = f"{file.name}. Noise of the readings over conductance"
    return [_distribution([pair], "sd(G) / G", alt, log=True)]


def _verify(file: Checked) -> list[str]:
    measured_low, predicted_low = file.drawn["low"]
    measured_good, predicted_good = file.drawn["success"]
    pictures = []
    for low in np.unique(measured_low):
        a = file.drawn["measured"][(measured_low == low) & (measured_good == 1)]
        b = file.drawn["predicted"][(predicted_low == low) & (predicted_good == 1)]
        if a.size and b.size:
            pair = (a.astype(np.float64), b.astype(np.float64))
            alt = f"{file.name}. Pulses of the cells that reached the window from {low:g} ohm"
            pictures.append(_distribution([pair], f"pulses, window from {low:g} ohm", alt))
    return pictures


_DRAW: dict[str, Callable[[Checked], list[str]]] = {
    "sweep": _sweep,
    "pulses": _sweep,
    "relaxation": _relaxation,
    "forming": _forming,
    "cycling": _cycling,
    "write-verify": _verify,
    "read-noise": _read_noise,
}
