"""Where a fit begins: the structure of a fitted model, with round numbers read off the published curves of HfO2 1T1R cells."""

from __future__ import annotations

from typing import Any

from rram_hil.device.model import DeviceModel

_U = 1e-6


def start() -> dict[str, Any]:
    """The model's content as `DeviceModel.model_validate` takes it; a new copy each time."""
    content = DeviceModel.load("hfo2").model_dump()
    content["name"] = "fitted"
    content["relaxation"] = None
    content["set"] |= {
        "gate_v": [1.8, 1.9, 1.95, 2.0, 2.05, 2.1, 2.15, 2.2, 2.25, 2.3, 2.4, 2.5, 2.6, 2.7, 3.0, 3.5],
        "conductance_s": [g * _U for g in (1.5, 3, 9, 32, 70, 110, 140, 162, 180, 193, 212, 224, 232, 240, 250, 258)],
        "bl_v": [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 2.0],
        "bl_ratio": [0.62, 0.64, 0.66, 0.69, 0.735, 0.785, 0.83, 0.87, 0.90, 0.925, 0.945, 0.96, 1.0],
        "reference_width_s": 200e-9,
        "jitter_sd_v": 0.035,
        "offset_sd_v": 0.045,
        "gain_sd_ln": 0.05,
        "settled_gain_v": 0.13,
        "grow": {
            "gate_v": [2.0, 2.2, 2.35, 2.5, 2.65, 3.0],
            "pull": [0.5, 0.6, 0.7, 0.8, 0.88, 0.95],
            "cycle_sd_v": 0.04,
            "cycle_sd_ln": 0.06,
            "cycle_tail_ln": 0.15,
            "stir_s": [10 * _U, 40 * _U, 100 * _U, 220 * _U],
            "stir_ln": [0.07, 0.04, 0.015, 0.01],
        },
    }
    sl_v = [0.6, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.7, 2.0, 2.5, 3.0]
    content["reset"] |= {
        "sl_v": sl_v,
        "conductance_s": [g * _U for g in (180, 130, 90, 63, 45, 33, 26, 22, 20, 17, 15, 13.5, 13)],
        "spread_ln": [0.4] * len(sl_v),
        "offset_sd_v": 0.18,
        "jitter_sd_v": 0.06,
        "reference_width_s": 200e-9,
        "walk": {
            "gate_v": [1.5, 2.3, 2.4, 2.5, 2.6, 2.7, 2.8, 3.15, 3.5, 4.0],
            "through_v": [0.0, 0.80, 0.90, 1.05, 1.18, 1.29, 1.42, 1.75, 2.3, 3.0],
            "on_s": [40 * _U, 100 * _U, 165 * _U, 200 * _U, 216 * _U, 240 * _U],
            "on_v": [0.6, 0.75, 0.9, 1.45, 1.7, 1.85],
            "heal": 0.05,
            "heal_from_v": 0.55,
            "volts": [0.8, 1.2, 2.0, 3.0],
            "pull": [0.35, 0.35, 0.5, 0.65],
            "step_ln": [0.2, 0.33, 0.36, 0.36],
            "device_ln": [0.3, 0.6, 0.85, 0.9],
            "skew": 0.6,
            "offset_skew": 0.8,
            "intact_s": 130 * _U,
            "break_v": 1.0,
            "break_pull": 0.95,
            "break_ln": 0.75,
            "top_s": 200 * _U,
        },
    }
    content["read"] |= {"fraction": 0.004, "floor_s": 0.03 * _U, "telegraph_cells": 0.0}
    content["drift"] = None
    return content
