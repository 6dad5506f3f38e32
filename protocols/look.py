"""A look at a chip that stresses no cell: shorts, opens and leaky gates, from reads alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rram_hil.array import MAP, Apply, ApplyResult, Cells, Geometry, Status, read
from rram_hil.array.defects import Finding, FindingKind, LookSummary, grouped
from rram_hil.engine.protocol import Plan, Progress, Protocol, Save, Setting
from rram_hil.errors import ConfigError
from rram_hil.report.section import Section
from rram_hil.report.step import RunStep
from rram_hil.types import FloatArray
from rram_hil.validation import PositiveAmperes, PositiveSiemens

from .parts.sections import spread_plot


class Look(Protocol[LookSummary]):
    """Read every cell with its gate open, then with its gate closed, and measure the current into
    every word line.

    All of it under the read condition, or with less: |BL - SL| never passes the read limit, and no
    pulse is counted. The thresholds, and why they are where they are:

    `short_above_s`: 1 mS (1 kohm). The select transistor alone lets about 0.25 mS through at 3 V on
    its gate (RADAR, NI-RRAM: HfO2 cells end near 240 uS), so no cell that works is near it.
    `closed_above_s`: 1 uS. A closed transistor leaks nanosiemens; the read noise of the simulated
    chips is 0.1 uS. What conducts all the same is a broken transistor or a bit line touching a
    source line. `open_below_s`: 0.1 uS (10 Mohm). A formed cell stays above 0.3 uS in its deepest
    reset (HfO2 preset); a pristine one has about 10 nS and looks like a broken line. So opens are
    told only in tiles where at least `formed_fraction` conducts. `gate_leak_a`: 10 nA. A sound gate
    passes picoamperes; one code of a 12-bit converter on its 1 uA range is 0.5 nA. `repeat`: 8. The
    mean of so many reads tells 0 from 0.1 uS by nearly three sigma of that noise. `line_fraction`:
    0.8. A broken line takes all its cells along, noise may hide a few; stuck cells alone are 10 %
    at most.
    """

    repeat: Annotated[int, Field(ge=1, le=1000)] = 8
    short_above_s: PositiveSiemens = 1e-3
    closed_above_s: PositiveSiemens = 1e-6
    open_below_s: PositiveSiemens = 1e-7
    gate_leak_a: PositiveAmperes = 10e-9
    line_fraction: Annotated[float, Field(gt=0.5, le=1)] = 0.8
    formed_fraction: Annotated[float, Field(gt=0, le=1)] = 0.5

    def run(self, setting: Setting) -> Plan[LookSummary]:
        """Yields three read-only operations (gate open, gate closed, gate current) and saves a map
        of each. Shares a map of the cells that conduct less than `open_below_s`, "not conducting".

        Raises `ConfigError` where the bench's read condition is above its own read limit, for then
        a look would be a pulse.
        """
        geometry, cells = setting.geometry, Cells.all(setting.geometry)
        volts = float(np.max(np.abs(setting.read.cell_v(1))))
        if not volts <= setting.limits.read_v:
            raise ConfigError(
                f"read.bl_v: {volts:g} V is above limits.read_v of {setting.limits.read_v:g} V, so"
                " a look would be a pulse"
            )
        gated = geometry.cell == "1T1R"
        yield Progress(0, 3, f"gates open: reading {len(cells)} cells")
        result = yield from read(cells, setting.read, repeat=self.repeat, label="look, gate open")
        opened = _seen(result, geometry)
        closed = np.zeros(geometry.shape)
        if gated:
            # A PMOS closes at the higher of BL and SL, not at 0 V.
            bl_v = 0.0 if setting.read.bl_v is None else float(np.max(setting.read.bl_v))
            closed_v = max(bl_v, 0.0) if geometry.selector == "pmos" else 0.0
            yield Progress(1, 3, f"gates closed: reading {len(cells)} cells")
            result = yield from read(
                cells, replace(setting.read, wl_v=closed_v), label="look, gate closed"
            )
            closed = _seen(result, geometry)
        gates = None
        if gated and setting.capabilities.gate_current:
            yield Progress(2, 3, f"measuring {geometry.tiles * geometry.rows} gates")
            gates = yield from self._gates(setting)
            yield Save("gate_current", gates, MAP[:2], "A")
        yield Save("conductance", opened, MAP, "S")
        setting.share("not conducting", np.abs(opened) < self.open_below_s)
        if gated:
            yield Save("gate_closed", closed, MAP, "S")
        return self._summary(opened, closed, gates)

    @classmethod
    def section(cls, step: RunStep) -> Section | None:
        """How conductances with the gate open, and closed, are distributed."""
        maps = {"gate open": step.map("conductance"), "gate closed": step.map("gate_closed")}
        known = {name: np.abs(values) for name, values in maps.items() if values is not None}
        plot = spread_plot("Conductances of the look", known, "|conductance|", "S")
        return Section("", (plot,)) if known else None

    def _gates(self, setting: Setting) -> Plan[FloatArray]:
        """Current into each word line (A), shape (tiles, rows): measured at one cell of each row,
        BL and SL at 0 V.
        """
        geometry = setting.geometry
        lines = Cells.from_index(
            np.arange(geometry.tiles * geometry.rows) * geometry.columns, geometry
        )
        step = replace(setting.read.without_gate(), bl_v=0.0, sl_v=0.0, measure="gate")
        result = yield from Apply(lines, (step,), label="look, gate current")
        current = np.where(result.status == Status.OK, np.abs(result.current_a), np.nan)
        current[result.status == Status.OVER_RANGE] = np.inf
        return current[:, 0].reshape(geometry.tiles, geometry.rows)

    def _summary(
        self, opened: FloatArray, closed: FloatArray, gates: FloatArray | None
    ) -> LookSummary:
        """Sort every cell into one class at most; what conducts with its gate closed counts as that
        alone.
        """
        through = closed >= self.closed_above_s
        shorted = (opened >= self.short_above_s) & ~through
        unread = np.isnan(opened) | np.isnan(closed)
        low = (np.abs(opened) < self.open_below_s) & ~through
        conducts = 1.0 - low.mean(axis=(1, 2)) >= self.formed_fraction
        pristine = np.flatnonzero(~conducts)
        low &= conducts[:, None, None]
        classes: list[tuple[FindingKind, NDArray[np.bool_], FloatArray]] = [
            ("conducts with the gate closed", through, closed),
            ("short", shorted, opened),
            ("open", low, opened),
            ("no usable reading", unread, np.full(opened.shape, np.nan)),
        ]
        any_defect = through | shorted | low | unread
        findings = [
            finding
            for kind, bad, values in classes
            for finding in grouped(kind, bad, any_defect & ~bad, values, self.line_fraction)
        ] + ([] if gates is None else self._leaks(gates))
        usable = opened[np.isfinite(opened)]
        return LookSummary(
            cells=opened.size,
            shorted=int(shorted.sum()),
            conducting_gate_closed=int(through.sum()),
            open=int(low.sum()),
            no_usable_reading=int(unread.sum()),
            leaky_gates=None if gates is None else int(np.sum(gates >= self.gate_leak_a)),
            pristine_tiles=tuple(int(t) for t in pristine),
            median_s=float(np.median(usable)) if usable.size else float("nan"),
            findings=tuple(findings),
        )

    def _leaks(self, gates: FloatArray) -> list[Finding]:
        leaky: NDArray[np.bool_] = gates >= self.gate_leak_a
        return [
            Finding(
                "gate leak",
                int(t),
                "row",
                np.flatnonzero(leaky[t]),
                float(np.median(gates[t][leaky[t]])),
            )
            for t in np.flatnonzero(leaky.any(axis=1))
        ]


def _seen(result: ApplyResult, geometry: Geometry) -> FloatArray:
    """Mean conductance (S), shape `geometry.shape`: infinite where a reading was over range, NaN
    without a usable one.
    """
    over = (result.status == Status.OVER_RANGE).any(axis=1)
    seen: FloatArray = np.where(over, np.inf, result.mean_s).reshape(geometry.shape)
    return seen
