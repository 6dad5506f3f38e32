"""Programming methods as recipes have them, and cells whose answers to pulses a test chooses."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rram_hil.array import (
    Apply,
    ApplyResult,
    Geometry,
    Limits,
    Operation,
    Status,
    Wait,
    WaitResult,
    read_step,
)
from rram_hil.bench.plugins import protocol_class
from rram_hil.engine.protocol import Progress, ReadTemperature, Remark, Save, Setting
from rram_hil.hardware.driver import Capabilities, Span

CHIP = Geometry(1, 2, 3)
LIMITS = Limits(
    bl_v=4.0, sl_v=4.0, wl_v=4.5, cell_v=4.0, gate_over_v=4.5, half_select_v=0.5, read_v=0.25,
    current_a=1e-3, energy_j=1e-7, width_s=1e-5, pulses_per_cell=1000,
)  # fmt: skip
CURVE = {"volts_v": [2.0, 3.0], "conductance_s": [10e-6, 110e-6]}
PULSES = {
    "set": {
        "amplitude_v": {"start_v": 2.0, "stop_v": 2.0},
        "gate_v": {"start_v": 2.0, "stop_v": 3.0, "step_v": 0.1},
        "width_s": 1e-7,
    },
    "reset": {
        "amplitude_v": {"start_v": 1.5, "stop_v": 2.5, "step_v": 0.1},
        "gate_v": {"start_v": 3.5, "stop_v": 3.5},
        "width_s": 2e-7,
    },
}
"""Ramps of both polarities."""
ONE = PULSES | {"set": PULSES["set"] | {"gate_v": {"start_v": 2.0, "stop_v": 3.0, "curve": CURVE}}}
"""The SET gate of each target as a curve has it."""
FINE = {
    "set": {
        "amplitude_v": {"start_v": 1.5, "stop_v": 2.5, "step_v": 0.05},
        "gate_v": {"start_v": 2.0, "stop_v": 3.0, "curve": CURVE, "aim": 1.05},
        "width_s": 1e-7,
    },
    "reset": PULSES["reset"] | {"amplitude_v": {"start_v": 0.8, "stop_v": 2.4, "step_v": 0.04}},
}
METHODS: dict[str, dict[str, Any]] = {
    "ispp": {
        "set": {"amplitude_v": 2.0, "gate_v": 2.0, "width_s": 1e-7, "step_v": 0.1, "stop_v": 3.0},
        "reset": {"amplitude_v": 2.0, "gate_v": 3.5, "width_s": 2e-7},
    },
    "fixed-pulses": ONE,
    "model-aware": {
        "model": "paper",
        "virtual_cells": 8,
        "set": {
            "amplitude_v": 2.0,
            "gate_v": {"start_v": 2.0, "stop_v": 3.0, "step_v": 0.1},
            "width_s": 1e-7,
        },
        "reset": {
            "amplitude_v": {"start_v": 1.5, "stop_v": 2.5, "step_v": 0.5},
            "gate_v": 3.5,
            "width_s": 2e-7,
        },
    },
    "coarse-fine": {"coarse": ONE, "fine": FINE},
    "relaxation-aware": PULSES,
    "pair-verify": PULSES,
    "early-stop": ONE | {"least_gain_s": 1e-8},
    "adaptive-step": {
        "set": {
            "amplitude_v": 2.0,
            "gate_v": 2.0,
            "width_s": 1e-7,
            "varied": "gate",
            "stop_v": 3.0,
            "least_step_v": 0.05,
            "most_step_v": 0.3,
        },
        "reset": {
            "amplitude_v": 1.0,
            "gate_v": 3.5,
            "width_s": 2e-7,
            "varied": "amplitude",
            "stop_v": 2.5,
            "least_step_v": 0.05,
            "most_step_v": 0.3,
        },
    },
}
"""By the name of the protocol the keys that it cannot do without, for an array of preset
`paper`."""


def method(name: str, **keys: Any) -> Any:
    """The protocol, with these keys beside those of `METHODS`."""
    return protocol_class(name).model_validate(METHODS[name] | keys)


def a_setting(folder: Path = Path(), geometry: Geometry = CHIP, **changes: Any) -> Setting:
    """The bench that a method may know of, without one."""
    wide = Span(-5.0, 5.0)
    can = Capabilities(wide, wide, wide, Span(1e-8, 1.0))
    return Setting(geometry, LIMITS, read_step(), can, folder, **changes)


Respond = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float], np.ndarray]
"""Conductance (S) after a pulse of these cells (flat indices), from the one before, BL - SL, gate
and width."""


class Cells:
    """Cells without noise that answer pulses as `respond` says, and what was asked of them."""

    def __init__(self, start_s: Any, respond: Respond, geometry: Geometry = CHIP) -> None:
        self.geometry = geometry
        self.g = np.broadcast_to(np.asarray(start_s, dtype=float), (geometry.size,)).copy()
        self.respond = respond
        self.pulses = np.zeros(geometry.size, dtype=np.int64)
        self.volts: list[list[float]] = [[] for _ in range(geometry.size)]
        self.gates: list[list[float]] = [[] for _ in range(geometry.size)]
        self.widths: list[list[float]] = [[] for _ in range(geometry.size)]
        self.asked: list[Operation] = []

    def __call__(self, operation: Operation) -> Any:
        self.asked.append(operation)
        if isinstance(operation, Wait):
            return WaitResult()
        assert isinstance(operation, Apply)
        n, at = len(operation.cells), operation.cells.index(self.geometry)
        readings, pulses = [], np.zeros(n, dtype=np.int64)
        for step in operation.steps * operation.repeat:
            volts, gate = step.cell_v(n), step.levels("wl", n)
            assert gate is not None
            pulsed = np.abs(volts) > 0.25
            for k in np.flatnonzero(pulsed):
                self.volts[at[k]].append(float(volts[k]))
                self.gates[at[k]].append(float(gate[k]))
                self.widths[at[k]].append(step.width_s)
            here = at[pulsed]
            self.g[here] = self.respond(
                here, self.g[here], volts[pulsed], gate[pulsed], step.width_s
            )
            pulses += pulsed
            if step.measure == "current":
                readings.append(self.g[at].copy())
        self.pulses[at] += pulses
        table = np.stack(readings, axis=1) if readings else np.zeros((n, 0))
        status = np.full(table.shape, Status.OK, dtype=np.uint8)
        reads = np.full(n, table.shape[1], dtype=np.int64)
        return ApplyResult(table * 0.2, table, status, table, pulses, reads)


def follow(
    protocol: Any, setting: Setting, answer: Callable[[Operation], Any]
) -> tuple[Any, dict[str, Any]]:
    """Run a protocol on invented results: its summary and what it saved."""
    saved: dict[str, Any] = {}
    plan = protocol.run(setting)
    reply: object = None
    try:
        while True:
            message = plan.send(reply)
            reply = None
            if isinstance(message, Save):
                saved[message.name] = message.values
            elif isinstance(message, ReadTemperature):
                reply = math.nan
            elif not isinstance(message, Progress | Remark):
                reply = answer(message)
    except StopIteration as stop:
        return stop.value, saved
