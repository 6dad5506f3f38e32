"""Small recipes of every characterisation protocol for each chain of instruments, for tests; and
bench files of any backend.
"""

from __future__ import annotations

import json
from typing import Any

from chain_benches import ARC_ONE, BOARD, bench_text

ARRAY = "simulated array"
Steps = dict[str, dict[str, Any]]


def toml(steps: Steps) -> str:
    """A recipe of these steps: JSON is TOML where tables are inline."""

    def value(thing: Any) -> str:
        if isinstance(thing, dict):
            return "{ " + ", ".join(f"{k} = {value(v)}" for k, v in thing.items()) + " }"
        if isinstance(thing, list):
            return "[" + ", ".join(value(v) for v in thing) + "]"
        return repr(thing) if isinstance(thing, float) else json.dumps(thing)

    blocks = []
    for name, keys in steps.items():
        lines = [f'protocol = "{name}"', *(f"{k} = {value(v)}" for k, v in keys.items())]
        blocks.append("[[step]]\n" + "\n".join(lines) + "\n")
    return "\n".join(blocks)


def backend_text(chain: str, cell: str, size: int, **options: Any) -> str:
    """The bench file of any array backend, the simulated array among them."""
    if chain == ARRAY:
        text = bench_text(BOARD, cell, size, **options)
        return text.replace('name = "test-chip-board"', 'name = "simulated-array"')
    return bench_text(chain, cell, size, **options)


def steps_of(chain: str, cell: str) -> Steps:
    """Every characterisation protocol, small, for one backend: boards make microseconds,
    source-meters milliseconds.
    """
    fast = chain in (BOARD, ARC_ONE, ARRAY)
    width = 1e-6 if fast else 2e-3
    if cell == "1T1R":
        gate, open_gate, scheme = {"wl_v": 2.6}, {"wl_v": 3.5}, "inhibit"
        set_v, reset_v = 2.0, 1.4
    else:
        gate, open_gate, scheme = {}, {}, "half"
        # Half of either moves no cell.
        set_v, reset_v = 1.0, 0.98
    both: dict[str, Any] = {
        "set": {"bl_v": set_v, **gate, "width_s": width},
        "reset": {"sl_v": reset_v, **open_gate, "width_s": width},
        "unselected": scheme,
    }
    flat = {"start_v": 3.5, "stop_v": 3.5}
    ramps = {
        "set": {
            "amplitude_v": {"start_v": 0.7, "stop_v": set_v, "step_v": 0.1}
            if cell == "1R"
            else {"start_v": 2.0, "stop_v": 2.0},
            "gate_v": flat if cell == "1R" else {"start_v": 2.0, "stop_v": 3.2, "step_v": 0.1},
            "width_s": width,
        },
        "reset": {
            "amplitude_v": {"start_v": 0.6, "stop_v": reset_v, "step_v": 0.04},
            "gate_v": flat,
            "width_s": width,
        },
        "unselected": scheme,
    }
    curves: dict[str, Any] = {
        "reset_sl_v": {"start_v": 0.7, "stop_v": reset_v, "points": 3},
        "set_width_s": {"start_s": width, "stop_s": 4 * width, "points": 2},
    }
    if cell == "1T1R":
        curves["set_wl_v"] = {"start_v": 2.4, "stop_v": 2.8, "points": 3}
    # Without gates the current of one cell is told apart from its neighbours' only with their lines
    # grounded.
    at_level = cell == "1T1R"
    branch = {"start_v": 0.2, "step_v": 0.3}
    return {
        "forming": {
            "bl_v": {"start_v": 2.4, "stop_v": 3.8, "step_v": 0.2},
            "wl_v": [2.0],
            "width_s": width,
            "unselected": scheme,
        },
        "array-statistics": {**both, "repeat": 2},
        "pulse-response": {
            **both,
            **curves,
            "cycles": 2,
            "potentiation": {"pulses": 2, "bl_v": set_v, **gate, "width_s": width},
            "depression": {"pulses": 2, "sl_v": 0.8, **open_gate, "width_s": width},
        },
        "dc-sweep": {
            "set": {**branch, "stop_v": 1.1, **({"wl_v": 3.0} if gate else {})},
            "reset": {**branch, "stop_v": 1.1, **open_gate},
            "width_s": 1e-6 if fast else 20e-3,
            "measure": "level" if at_level else "after",
            "switch_ratio": 1.3,
            "unselected": scheme,
        },
        "endurance": {**both, "cycles": 10, "per_decade": 1},
        "retention": {
            **ramps,
            "levels_s": [90e-6],
            "tolerance": 0.5,
            "max_pulses": 12,
            "first_s": 5.0,
            "last_s": 20.0,
            "per_decade": 1,
            "repeat": 2,
        },
        "read-noise": {"reads": 32},
        "read-disturb": {"reads": 10, "per_decade": 1, "repeat": 2},
        "half-select-disturb": {
            "cells": {"columns": [0, 0]},
            "pulse": both["set"],
            "pulses": 10,
            "per_decade": 1,
            "repeat": 2,
            "unselected": scheme,
        },
    }
