"""A step of a run as its section is made of it: what the protocol saved, and what it was told."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rram_hil.statistics import UNCERTAINTY, Figure, proportion
from rram_hil.storage.codec import AnyArray
from rram_hil.storage.run_reader import RunFile, SavedData
from rram_hil.types import FloatArray


class RunStep:
    """One step of a run file: `number`, `name`, `protocol` and its `version` as the run had it.

    What was not saved raises `DataError`, so a section of a step that was cut, or of an older
    version that saved less, is left out as a whole where it does not ask `has` before.
    """

    def __init__(
        self, run: RunFile, number: int, name: str, protocol: str = "", version: str = ""
    ) -> None:
        self.run, self.number, self.name = run, number, name
        self.protocol, self.version = protocol, version

    @cached_property
    def group(self) -> str:
        """The name under which the run file keeps the step's arrays, "2_program"."""
        return f"{self.number}_{self.name.replace('/', '_')}" if self.name else str(self.number)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the saved arrays that are no maps."""
        return tuple(name for group, name in self.run.result_names if group == self.group)

    def has(self, *names: str) -> bool:
        """Whether the step saved all these arrays."""
        return set(names) <= set(self.names)

    def saved(self, name: str) -> SavedData:
        """A saved array with unit, dimensions and attributes. Raises `DataError` for none."""
        return self.run.result(self.group, name)

    def values(self, name: str) -> FloatArray:
        """The numbers of a saved array. Raises `DataError` where there is none."""
        return self.saved(name).values.astype(np.float64)

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """Every saved number by name, its half width NaN where it has none."""
        found = {}
        for name in self.names:
            saved = self.saved(name)
            if saved.values.ndim == 0 and saved.values.dtype.kind in "biuf":
                sure = float(saved.attributes.get(UNCERTAINTY, np.nan))
                found[name] = Figure(float(saved.values), sure, saved.units)
        return found

    @cached_property
    def verified(self) -> dict[str, Figure]:
        """Of a step that verified cells the share of them that it accepted, afterwards too where it
        read them, and what they took; empty for other steps.
        """
        inside, found = self.map("inside"), self.map("conductance")
        sets, resets = self.map("set_pulses"), self.map("reset_pulses")
        if inside is None or found is None or sets is None or resets is None:
            return {}
        pulses, later = sets + resets, self.map("inside_afterwards")
        # What was neither accepted nor pulsed nor read was not asked for.
        n = int(np.sum((inside > 0) | (pulses > 0) | np.isfinite(found)))
        shares = {"inside_share": inside, "inside_afterwards_share": later}
        told = {k: proportion(int(v.sum()), n) for k, v in shares.items() if v is not None}
        counts = {"cells": n, "pulses": pulses.sum(), "mean_pulses": pulses.sum() / max(n, 1)}
        return told | {k: Figure(float(v), np.nan) for k, v in counts.items()}

    def map(self, name: str) -> FloatArray | None:
        """The map that this step saved last under `name`, shape (tiles, rows, columns); None where
        it saved none.
        """
        return self._map(name, lambda step: step == self.number)

    def map_before(self, name: str) -> FloatArray | None:
        """The last map of `name` that this step or one before it saved; None where none did."""
        return self._map(name, lambda step: step <= self.number)

    def faults(self) -> dict[str, NDArray[np.bool_]]:
        """The cells that are stuck, or were not formed, as this step or one before it told last:
        masks by the names of their maps, those that are not known left out.
        """
        names = ("stuck_low_resistance", "stuck_high_resistance", "not_formed")
        known = {name: self.map_before(name) for name in names}
        found = {name: marks > 0 for name, marks in known.items() if marks is not None}
        gate, pristine = self.map_before("forming_gate"), self.map_before("pristine")
        if "not_formed" not in found and gate is not None and pristine is not None:
            # Forming saves no such map, but those from which it follows.
            left: NDArray[np.bool_] = np.isfinite(pristine) & np.isnan(gate)
            for stuck in found.values():
                left &= ~stuck
            found["not_formed"] = left
        return found

    def map_after(self, name: str) -> FloatArray | None:
        """The first map of `name` that a later step saved; None where none did."""
        if name not in self.run.map_names:
            return None
        stack = self.run.map(name)
        at = np.flatnonzero(stack.step > self.number)
        return None if at.size == 0 else np.asarray(stack.values[at[0]], dtype=np.float64)

    def _map(self, name: str, wanted: Callable[[AnyArray], AnyArray]) -> FloatArray | None:
        if name not in self.run.map_names:
            return None
        stack = self.run.map(name)
        at = np.flatnonzero(wanted(stack.step))
        return None if at.size == 0 else np.asarray(stack.values[at[-1]], dtype=np.float64)

    @cached_property
    def keys(self) -> Mapping[str, Any]:
        """The step's keys as the recipe gave them; empty where there is no recipe or it cannot be
        read. Defaults are not among them.
        """
        try:
            steps = tomllib.loads(str(self.run.attributes.get("recipe", ""))).get("step", [])
            return dict(steps[self.number - 1]) if 0 < self.number <= len(steps) else {}
        except (tomllib.TOMLDecodeError, TypeError, ValueError):
            return {}

    def operations(self, *columns: str) -> dict[str, AnyArray]:
        """Columns of the table of operations, rows of this step alone."""
        table = self.run.table("operations", columns={*columns, "step"})
        return {name: table[name][table["step"] == self.number] for name in columns}

    def cells(self, *columns: str) -> dict[str, AnyArray] | None:
        """Columns of the table of cells, rows of this step alone; None where the run kept none."""
        if "cells" not in self.run.tables:
            return None
        whole = self.run.table("operations", columns=("operation", "step"))
        mine = whole["operation"][whole["step"] == self.number]
        table = self.run.table("cells", columns={*columns, "operation"})
        here = np.isin(table["operation"], mine)
        return {name: table[name][here] for name in columns}


def steps_of(run: RunFile) -> list[RunStep]:
    """The steps of a run that have begun, in order; also arrays that were saved outside a recipe,
    as step 0.
    """
    table = run.table("steps", columns=("step", "name", "protocol", "version"))
    found = [
        RunStep(run, int(number), str(name), str(protocol), str(version))
        for number, name, protocol, version in zip(
            *(table[k] for k in ("step", "name", "protocol", "version")), strict=True
        )
    ]
    known = {step.group for step in found}
    for group in dict.fromkeys(group for group, _ in run.result_names):
        if group not in known:
            number, _, name = group.partition("_")
            found.append(RunStep(run, int(number) if number.isdecimal() else 0, name))
    return found
