"""Where a fit begins: the structure of a fitted model, with round numbers read off the published
curves of HfO2 1T1R cells.
"""

from __future__ import annotations

from typing import Any

from rram_hil.simulation.model import DeviceModel

_U = 1e-6
CREEP = {"part": 0.4, "most_ohm": 1200.0}
"""Cells that creep, and that do not open: where they are fitted, to write-verify."""
SHALLOW = {"part": 0.18, "floor_s": 32 * _U, "spread_ln": 0.6, "link": 0.95}
AGAIN_LN = 0.7
"""`again_ln` of wear, where it is fitted."""


def start() -> dict[str, Any]:
    """The model's content as `DeviceModel.model_validate` takes it; a new copy each time."""
    content = DeviceModel.load("hfo2").model_dump()
    content["name"] = "fitted"
    content["set"] |= {
        "gate_v": [
            1.8,
            1.9,
            1.95,
            2.0,
            2.05,
            2.1,
            2.15,
            2.2,
            2.25,
            2.3,
            2.4,
            2.5,
            2.6,
            2.7,
            3.0,
            3.5,
        ],
        "conductance_s": [
            g * _U
            for g in (0.25, 1.0, 4.0, 16, 43, 65, 81, 96, 108, 118, 135, 155, 180, 205, 225, 240)
        ],
        "bl_v": [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 2.0],
        "bl_ratio": [0.12, 0.16, 0.22, 0.30, 0.40, 0.50, 0.60, 0.69, 0.77, 0.83, 0.88, 0.92, 1.0],
        "reference_width_s": 200e-9,
        "width_v_per_decade": 0.0,
        "jitter_sd_v": 0.035,
        "offset_sd_v": 0.04,
        "gain_sd_ln": 0.2,
        "settled_gain_v": 0.13,
        "grow": {
            "series_ohm": 3900.0,
            "power": 0.8,
            "cycle_sd_v": 0.04,
            "cycle_sd_ln": 0.2,
            "cycle_slow_ln": 1.2,
            "stir_s": [10 * _U, 40 * _U, 100 * _U, 220 * _U],
            "stir_ln": [0.07, 0.04, 0.015, 0.01],
            "overdrive": {
                "gate_v": [2.3, 2.4, 2.75, 3.0, 3.3, 3.7],
                "part": [0.0, 0.02, 0.09, 0.33, 0.48, 0.7],
                "bl_v": 1.5,
                "own_ohm": 1500.0,
                "memory": 0.8,
                "spread_ln": 0.5,
            },
        },
    }
    sl_v = [0.6, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.7, 2.0, 2.5, 3.0]
    content["reset"] |= {
        "sl_v": sl_v,
        "conductance_s": [
            g * _U for g in (180, 125, 95, 68, 50, 41, 34, 27, 21, 14, 11.7, 10.5, 10)
        ],
        "spread_ln": [0.4] * len(sl_v),
        "offset_sd_v": 0.18,
        "jitter_sd_v": 0.06,
        "reference_width_s": 200e-9,
        "redraw": {
            "gate_v": [1.5, 2.3, 2.4, 2.5, 2.6, 2.7, 2.8, 3.15, 3.5, 4.0],
            "through_v": [0.0, 0.80, 0.90, 1.05, 1.18, 1.29, 1.42, 1.75, 2.3, 3.0],
            "on_s": [40 * _U, 100 * _U, 165 * _U, 200 * _U, 216 * _U, 240 * _U],
            "on_v": [0.6, 0.75, 0.85, 1.4, 1.67, 1.85],
            "heal": 0.05,
            "heal_from_v": 0.55,
            "volts": [0.8, 1.2, 2.0, 3.0],
            "white_ln": [0.18, 0.27, 0.38, 0.38],
            "device_ln": [0.2, 0.45, 0.7, 0.9],
            "cycle_sd_v": 0.08,
            "lag": 0.6,
            "skew": 0.4,
            "device_skew": 0.4,
            "offset_skew": 0.7,
            "intact_s": 130 * _U,
            "break_v": 1.0,
            "break_ln": 0.7,
            "break_more_ln": 0.2,
            "reach_ln": 1.0,
        },
        "wear": {"cycles": 35.0, "less_ln": 0.7},
    }
    content["read"] |= {"fraction": 0.004, "floor_s": 0.03 * _U, "telegraph_cells": 0.0}
    content["drift"] = None
    return content
