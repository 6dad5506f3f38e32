"""The page of a check: measured over predicted for each file, and the table of figures. One HTML
file that needs nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape

import numpy as np

from rram_hil.report.page import page
from rram_hil.report.picture import Axis, Plot, minus
from rram_hil.simulation.model import DeviceModel
from rram_hil.types import FloatArray

from .prediction import ENOUGH, Checked, passed

_MEASURED, _PREDICTED = "goal", "curve"
_LINES = {"bl_v": "BL", "sl_v": "SL", "wl_v": "WL"}


def device_report(model: DeviceModel, files: list[Checked]) -> str:
    """The HTML of the page."""
    good, judged = passed(files)
    verdict = "pass" if good >= ENOUGH * judged else "fail"
    parts = [
        "<main><header>",
        f"<h1>Device model {escape(model.name)}: measured and predicted</h1>",
        (
            f"<p><strong>{good} of {judged} figures pass</strong> ({good / judged:.1%};"
            f" {ENOUGH:.0%} are wanted: {verdict}). Model {escape(model.digest)};"
            f" {escape(model.about or 'numbers as in its file')}.</p>"
        ),
        (
            '<p class="small">Measured: dashed. Predicted: solid. A figure passes within its'
            " tolerance or twice the standard error of (predicted - measured), resampled over the"
            " measured cells.</p>"
        ),
        "</header>",
    ]
    for file in files:
        mine, of = passed([file])
        parts.append(
            f"<section><h2>{escape(file.name)}</h2><p>{file.kind}: {mine} of {of} figures pass</p>"
        )
        parts.append(
            # The table as wide as its columns, so that no verdict hides; the plots beside it, or
            # above on a narrow screen.
            '<div class="pair" style="display: flex; flex-wrap: wrap">'
            f'<div class="card" style="flex: 1 1 28rem">{_DRAW[file.kind](file)}</div>'
            f'<div class="card" style="flex: 0 1 auto">{_table(file)}</div></div>'
        )
        parts.append("</section>")
    parts.append("</main>")
    return page(f"Device model {model.name}", parts)


def _table(file: Checked) -> str:
    rows = []
    for one in file.figures:
        allowed = "" if math.isnan(one.allowed) else f"{one.allowed:.3g}"
        cells = "".join(
            f"<td>{minus(text)}</td>"
            for text in (f"{one.measured:.4g}", f"{one.predicted:.4g}", allowed)
        )
        mark = "<strong>miss</strong>" if one.verdict == "miss" else one.verdict
        rows.append(f"<tr><th>{escape(one.figure)}</th>{cells}<td>{mark}</td></tr>")
    head = "".join(
        f"<th>{name}</th>" for name in ("figure", "measured", "predicted", "allowed", "")
    )
    body = "".join(rows)
    return (
        '<table style="white-space:'
        f' nowrap"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    )


def _sweep(file: Checked) -> str:
    """Median and the band of the middle 70 % of the sweeps, against the swept volts."""
    volts: FloatArray = file.drawn["volts"]
    sets = {
        style: np.exp(file.drawn[key])
        for style, key in ((_MEASURED, "measured"), (_PREDICTED, "predicted"))
    }
    low = min(float(np.quantile(g, 0.15, axis=0).min()) for g in sets.values())
    high = max(float(np.quantile(g, 0.85, axis=0).max()) for g in sets.values())
    line = _LINES[file.drawn["line"]]
    plot = Plot(
        Axis(float(volts[0]), float(volts[-1]), f"{line} (V)"),
        Axis(max(low * 0.8, 0.01), high * 1.25, "conductance (uS)", log=True),
    )
    inside = []
    for style, g in sets.items():
        for q, thin in ((0.15, " thin"), (0.5, ""), (0.85, " thin")):
            inside.append(plot.line(volts, np.quantile(g, q, axis=0), style + thin))
    return plot.svg(
        f"Conductance against {line}, measured and predicted: median and middle 70 %", inside
    )


def _distribution(
    pairs: list[tuple[FloatArray, FloatArray]], label: str, alt: str, *, log: bool = False
) -> str:
    """Cumulative distributions, a pair (measured, predicted) each."""
    values = np.concatenate([x for pair in pairs for x in pair])
    low, high = (float(v) for v in np.quantile(values, [0.002, 0.998]))
    if not high > low:
        high = low + 1.0
    plot = Plot(Axis(low, high, label, log=log), Axis(0.0, 1.0, "part of them", per_cent=True))
    p = np.linspace(0.002, 0.998, 120)
    inside = []
    for measured, predicted in pairs:
        inside.append(plot.line(np.clip(np.quantile(measured, p), low, high), p, _MEASURED))
        inside.append(plot.line(np.clip(np.quantile(predicted, p), low, high), p, _PREDICTED))
    return plot.svg(alt, inside)


def _relaxation(file: Checked) -> str:
    t: FloatArray = file.drawn["time"]
    pictures = []
    for at in np.unique(t[t > 0]):
        mine = t == at
        pair = (file.drawn["measured"][mine], file.drawn["predicted"][mine])
        pictures.append(
            _distribution(
                [pair], f"change after {at:g} s (uS)", f"Change of conductance after {at:g} s"
            )
        )
    return "".join(pictures)


def _forming(file: Checked) -> str:
    return _distribution(
        [(file.drawn["measured"], file.drawn["predicted"])], "forming BL (V)", "Forming volts"
    )


def _cycling(file: Checked) -> str:
    measured, predicted = file.drawn["measured"], file.drawn["predicted"]
    pairs = [
        (np.maximum(a, 1.0), np.maximum(b, 1.0)) for a, b in zip(measured, predicted, strict=True)
    ]
    return _distribution(
        pairs, "resistance (ohm)", "Resistance of the two states of full cycles", log=True
    )


def _verify(file: Checked) -> str:
    measured_low, predicted_low = file.drawn["low"]
    good, found = file.drawn["success"]
    pictures = []
    for low in np.unique(measured_low):
        a = file.drawn["measured"][(measured_low == low) & (good == 1)].astype(np.float64)
        b = file.drawn["predicted"][(predicted_low == low) & (found == 1)].astype(np.float64)
        if a.size and b.size:
            label = f"pulses, window from {low:g} ohm"
            pictures.append(
                _distribution(
                    [(a, b)], label, f"Pulses of the cells that reached the window from {low:g} ohm"
                )
            )
    return "".join(pictures)


_DRAW: dict[str, Callable[[Checked], str]] = {
    "sweep": _sweep,
    "relaxation": _relaxation,
    "forming": _forming,
    "cycling": _cycling,
    "write-verify": _verify,
}
