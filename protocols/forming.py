"""Forming: ramp the bit line of every pristine cell until it conducts, the gate limiting the
current.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rram_hil.array import Apply, ApplyResult, Cells, Scheme, Status, Stop, read, sweep
from rram_hil.engine.protocol import (
    CellChoice,
    Plan,
    Progress,
    Protocol,
    Save,
    Setting,
    Unselected,
    map_of,
)
from rram_hil.errors import ConfigError
from rram_hil.report.plots import Chart
from rram_hil.report.section import Axis, Line, Plot, Section, Table, cumulative
from rram_hil.report.step import RunStep
from rram_hil.statistics import Figure
from rram_hil.types import FloatArray
from rram_hil.units import Volts, count, quantity
from rram_hil.validation import (
    FiniteVolts,
    PositiveAmperes,
    PositiveSeconds,
    PositiveSiemens,
    PositiveVolts,
    StrictModel,
)

from .parts.characterisation import ATTEMPTS, listed, save_figures, save_map
from .parts.sections import spread_plot
from .parts.targets import Condition


class Levels(StrictModel):
    """Evenly spaced volts, both ends included."""

    start_v: FiniteVolts
    stop_v: FiniteVolts
    step_v: PositiveVolts

    def volts(self) -> list[float]:
        """The levels, in order; the last is exactly `stop_v`. Raises `ConfigError` for a ramp that
        falls.
        """
        if self.stop_v < self.start_v:
            raise ConfigError(
                f"a ramp from {self.start_v:g} V must not end below it, at {self.stop_v:g} V"
            )
        count = int(np.floor((self.stop_v - self.start_v) / self.step_v + 1e-9)) + 1
        levels = [self.start_v + k * self.step_v for k in range(count)]
        if levels[-1] < self.stop_v - 1e-9:
            levels.append(self.stop_v)
        levels[-1] = self.stop_v
        return levels


@dataclass(frozen=True)
class FormingSummary:
    """Counts of a forming run, the median forming voltage (V; NaN if no cell formed), and the law
    of the cells' thresholds.

    A cell that took the whole ramp and does not conduct is `not_formed` up to `up_to_v`. It counts
    as stuck (`stuck_high_resistance`) only where the law of the others says that the ramp went far
    enough: where most of those left would have formed if they could. `unreadable` cells took no
    pulse. `hard_to_form` cells needed more than the first gate, or never formed; `hardest` are the
    first of them. `threshold_v` and `threshold_sd_v` are mean and standard deviation of a normal
    distribution of thresholds: a cell's own lies between the level at which it formed and the one
    before. They are of the cells that formed with the first gate, fitted by maximum likelihood, the
    distribution cut at the last level.
    """

    cells: int
    formed: int
    stuck_low_resistance: int
    stuck_high_resistance: int
    median_v: Volts
    hard_to_form: int
    threshold_v: Figure
    threshold_sd_v: Figure
    hardest: str
    not_formed: int = 0
    unreadable: int = 0
    up_to_v: Volts = float("nan")


class Forming(Protocol[FormingSummary]):
    """Form cells: read; ramp the bit line with a read after each pulse; repeat the hard ones with a
    higher gate.

    A cell that conducts before its first pulse, or cannot be read, takes none. Defaults: ramps and
    gate of the RADAR data set (HfO2 class 1T1R: 3.12 to 3.17 V at WL 2.0 V, 99th percentile about
    3.6 V). Where more than `conducting_fraction` of the cells conduct at the start, the array was
    formed before: it is refused, for they would all be taken for stuck cells. A 1R array, which has
    no gate, needs `unselected` ("half") and `compliance_a` or a bench that limits the current.
    """

    cells: CellChoice = CellChoice()
    bl_v: Levels = Levels(start_v=2.4, stop_v=3.8, step_v=0.1)
    wl_v: list[FiniteVolts] = Field(default=[2.0, 2.3], min_length=1)
    width_s: PositiveSeconds = 1e-6
    formed_above_s: PositiveSiemens = 20e-6
    conducting_fraction: Annotated[float, Field(ge=0, le=1)] = 0.5
    unselected: Unselected = "inhibit"
    compliance_a: PositiveAmperes | None = None
    body_v: FiniteVolts | None = None
    unselected_wl_v: FiniteVolts | None = None

    def run(self, setting: Setting) -> Plan[FormingSummary]:
        """Yields reads and ramps; shares the array's `Condition` as "condition"."""
        cells = self.cells.cells(setting.geometry)
        n = len(cells)
        levels = self.bl_v.volts()
        setting.require(*(self._sweep(cells, levels, wl_v, setting) for wl_v in self.wl_v))
        yield Progress(0, 1 + len(self.wl_v), f"reading {n} pristine cells")
        result = yield from read(cells, setting.read, label="pristine")
        pristine = result.last_s
        conducting = _conducts(result, self.formed_above_s)
        if conducting.sum() > self.conducting_fraction * n:
            raise ConfigError(
                f"{int(conducting.sum())} of {n} cells conduct before their"
                " first pulse: this array was formed before; leave the step out (`recall` in its"
                " place tells later steps of cells that are stuck or did not form), or raise"
                " conducting_fraction if they are to count as stuck"
            )
        conductance, formed_v, formed_wl_v = pristine.copy(), np.full(n, np.nan), np.full(n, np.nan)
        todo = ~conducting
        # Without a reading nothing would stop the ramp.
        readable = result.last_status == Status.OK
        for number, wl_v in enumerate(self.wl_v, 1):
            here = np.flatnonzero(todo & readable)
            if here.size == 0:
                break
            yield Progress(
                number, 1 + len(self.wl_v), f"forming {here.size} cells at WL {wl_v:g} V"
            )
            conductance[here], formed_v[here], conducts = yield from self._ramp(
                cells[here], levels, wl_v, setting
            )
            todo[here] = ~conducts
            formed_wl_v[here[conducts]] = wl_v
        easy_v = np.sort(formed_v[formed_wl_v == self.wl_v[0]])
        threshold = _threshold(easy_v, np.asarray(levels))
        left = todo & readable
        later = int(np.isfinite(formed_wl_v).sum()) - easy_v.size
        is_far = _went_far_enough(easy_v, threshold, levels[-1], later, int(left.sum()))
        stuck = left & is_far
        for name, values, units in (
            ("pristine", pristine, "S"),
            ("forming_voltage", formed_v, "V"),
            ("forming_gate", formed_wl_v, "V"),
            ("conductance", conductance, "S"),
            ("stuck_low_resistance", conducting, ""),
            ("stuck_high_resistance", stuck, ""),
        ):
            yield save_map(name, cells, values, units, setting)
        setting.share(
            "condition",
            Condition(
                map_of(cells, conducting, setting.geometry, False),
                map_of(cells, todo, setting.geometry, False),
                map_of(cells, conductance, setting.geometry),
            ),
        )
        formed = ~todo & ~conducting
        median_v = float(np.nanmedian(formed_v)) if np.isfinite(formed_v).any() else float("nan")
        hard = cells[~conducting & (formed_wl_v != self.wl_v[0])]
        yield Save(
            "hard_to_form",
            np.stack([hard.tile, hard.row, hard.column], axis=1),
            ("hard_cell", "address"),
        )
        yield from _save_distribution(easy_v)
        counts = (n, int(formed.sum()), int(conducting.sum()), int(stuck.sum()))
        return (
            yield from save_figures(
                FormingSummary(
                    *counts,
                    median_v,
                    len(hard),
                    *threshold,
                    listed(hard),
                    not_formed=int((left & ~stuck).sum()),
                    unreadable=int((todo & ~readable).sum()),
                    up_to_v=levels[-1],
                )
            )
        )

    def _sweep(self, cells: Cells, levels: list[float], wl_v: float, setting: Setting) -> Apply:
        """The ramp as an operation: a read after every level, no further level for a cell that
        conducts.
        """
        return sweep(
            cells,
            "bl",
            levels,
            wl_v=wl_v,
            width_s=self.width_s,
            read=setting.read,
            stop=Stop(above_s=self.formed_above_s),
            unselected=Scheme(self.unselected),
            compliance_a=self.compliance_a,
            body_v=self.body_v,
            unselected_wl_v=self.unselected_wl_v,
            label="forming",
        )

    def _ramp(
        self, cells: Cells, levels: list[float], wl_v: float, setting: Setting
    ) -> Plan[tuple[FloatArray, FloatArray, NDArray[np.bool_]]]:
        """One ramp over `cells`: last conductance (S), volts at which each formed (V, or NaN),
        which conduct now.

        After an interruption cells of which not all is known are read, and those that do not
        conduct go on with the level after the last one that they may have taken; where that was the
        whole ramp, with its first. One that was reached `ATTEMPTS` times is left. A cell that
        formed unseen has no volts.
        """
        n, most = len(cells), len(levels)
        last, formed_v = np.full(n, np.nan), np.full(n, np.nan)
        conducts = np.zeros(n, dtype=np.bool_)
        # The level that each cell takes next; `most` where it is done.
        due, tries = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        while np.any(due < most):
            for first in np.unique(due[due < most]):
                here = np.flatnonzero(due == first)
                due[here] = most
                rest = np.asarray(levels[first:])
                result = yield from self._sweep(cells[here], levels[first:], wl_v, setting)
                hit = (result.conductance_s >= self.formed_above_s) | (
                    result.status == Status.OVER_RANGE
                )
                formed = hit.any(axis=1)
                formed_v[here] = np.where(formed, rest[np.argmax(hit, axis=1)], np.nan)
                last[here] = result.last_s
                conducts[here] = _conducts(result, self.formed_above_s)
                lost = ~formed & np.isin(result.status, (Status.UNKNOWN, Status.NOT_RUN)).any(
                    axis=1
                )
                if not (result.interrupted and lost.any()):
                    continue
                again = here[lost]
                taken = first + result.pulses[lost]
                reading = yield from read(cells[again], setting.read, label="after interruption")
                last[again] = reading.last_s
                conducts[again] = _conducts(reading, self.formed_above_s)
                # Where nobody was reached, nobody gets further either.
                tries[again] += (result.pulses[lost] > 0) | ~result.pulses.any()
                # Without a reading nothing would stop the ramp.
                readable = reading.last_status == Status.OK
                left = ~conducts[again] & readable & (tries[again] < ATTEMPTS)
                due[again[left]] = np.where(taken < most, taken, 0)[left]
        return last, formed_v, conducts

    @classmethod
    def section(cls, step: RunStep) -> Section | None:
        """Share of formed cells against the voltage, gate by gate; conductances before and after;
        the cells that were hard to form.
        """
        maps = {
            name: step.map(name)
            for name in ("forming_voltage", "forming_gate", "pristine", "conductance")
        }
        stuck = {name: step.map(f"stuck_{name}_resistance") for name in ("low", "high")}
        voltage, gate, pristine, after = maps.values()
        if voltage is None or gate is None or pristine is None or after is None:
            return None
        low, high = (np.zeros(voltage.shape) if m is None else m for m in stuck.values())
        visited = int(np.sum(np.isfinite(pristine) | (low > 0) | np.isfinite(gate)))
        formed = int(np.isfinite(gate).sum())
        text = (
            f"{count(formed)} of {count(visited)} cells formed, {count(int(low.sum()))} conducted"
            f" before their first pulse, {count(int(high.sum()))} count as stuck at high"
            " resistance."
        )
        left, tables = _hard_cells(voltage, gate, step)
        return Section(
            text + left,
            (
                _formed_plot(voltage, gate, visited, step),
                spread_plot(
                    "Conductance before and after",
                    {"pristine": pristine, "after forming": after},
                    "conductance",
                    "S",
                ),
            ),
            tables=tables,
        )


HARD_SHOWN = 50
"""Of more cells that needed a higher gate a report lists only so many."""
LEFT_SHOWN = 12
"""Of more cells that did not form it names only so many."""


def _formed_plot(voltage: FloatArray, gate: FloatArray, visited: int, step: RunStep) -> Plot:
    lines = [
        cumulative(np.where(gate == v, voltage, np.nan), f"gate {v:g} V", of=visited)
        for v in np.unique(gate[np.isfinite(gate)])
    ]
    law = [step.figures.get(name) for name in ("threshold_v", "threshold_sd_v")]
    if lines and law[0] and law[1] and np.isfinite(law[0].value) and law[1].value > 0:
        from scipy.special import ndtr

        x = np.linspace(lines[0].x.min(), lines[0].x.max(), 101)
        cut = ndtr((x[-1] - law[0].value) / law[1].value)
        y = lines[0].y[-1] * ndtr((x - law[0].value) / law[1].value) / cut
        lines.append(Line(x, y, "normal law of thresholds", dashed=True))
    return Plot(
        "Formed cells against voltage",
        Axis("bit-line voltage", "V"),
        Axis("share of all cells"),
        tuple(lines),
        "Bands: 95 % interval (Wilson). A cell forms at the first level after which it conducts.",
    )


def _hard_cells(
    voltage: FloatArray, gate: FloatArray, step: RunStep
) -> tuple[str, tuple[Table, ...]]:
    """Which cells did not form, in a sentence, and a table of those that needed a higher gate."""
    hard = step.values("hard_to_form").astype(np.int64).reshape(-1, 3)
    formed = np.isfinite(gate[tuple(hard.T)])
    left, hard = Cells(*hard[~formed].T), hard[formed][:HARD_SHOWN]
    text = f" Not formed: {listed(left, LEFT_SHOWN)}." if len(left) else ""
    if not len(hard):
        return text, ()
    rows = tuple(
        (
            f"{tile}, {row}, {column}",
            quantity(float(voltage[tile, row, column]), "V"),
            quantity(float(gate[tile, row, column]), "V"),
        )
        for tile, row, column in hard
    )
    columns = ("tile, row, column", ">formed at", ">with the gate at")
    return text, (Table("Cells that needed a higher gate", columns, rows),)


def _save_distribution(formed_v: FloatArray) -> Plan[None]:
    formed_v = formed_v[np.isfinite(formed_v)]
    if formed_v.size:
        share = (np.arange(formed_v.size) + 1) / formed_v.size
        yield Save("formed_at", formed_v, ("formed_cell",), "V")
        chart = Chart("Forming voltage", "formed_at", label="share of formed cells")
        yield Save("formed_share", share, ("formed_cell",), "", chart.attrs())


def _went_far_enough(
    formed_v: FloatArray, law: tuple[Figure, Figure], last_v: float, later: int, left: int
) -> bool:
    """Whether most of the `left` cells that did not form up to `last_v` cannot: fewer of them than
    half are what the law of those that formed with the first gate leaves beyond the ramp.

    `later` cells of these formed with a higher gate. Without a law the ramp went far enough if
    cells formed, and none of them at its last level.
    """
    formed_v = formed_v[np.isfinite(formed_v)]
    if formed_v.size == 0:
        return False
    mean_v, sd_v = law[0].value, law[1].value
    if not np.isfinite(mean_v):
        return bool(formed_v.max() < last_v - 1e-9)
    from scipy.special import ndtr

    share = float(ndtr((last_v - mean_v) / sd_v))
    beyond = formed_v.size * (1 - share) / max(share, 1e-9) - later
    return beyond < 0.5 * left


def _threshold(formed_v: FloatArray, levels: FloatArray) -> tuple[Figure, Figure]:
    """Mean and standard deviation (V) of normal thresholds that lie between level and level before;
    half widths from the curvature.

    NaN where the cells formed at fewer than three levels: then the steps are too coarse to tell.
    """
    from scipy.optimize import minimize
    from scipy.special import ndtr

    nan = Figure(float("nan"), float("nan"), "V")
    upper = formed_v[np.isfinite(formed_v)]
    at, counts = np.unique(np.searchsorted(levels, upper - 1e-9), return_counts=True)
    if at.size < 3:
        return nan, nan
    lower = np.where(at > 0, levels[at - 1], -np.inf)

    def cost(law: FloatArray) -> float:
        mean_v, sd_v = law[0], np.exp(law[1])
        share = ndtr((levels[at] - mean_v) / sd_v) - ndtr((lower - mean_v) / sd_v)
        whole = float(ndtr((levels[-1] - mean_v) / sd_v))
        return float(
            -np.sum(counts * np.log(np.maximum(share, 1e-300)))
            + upper.size * np.log(max(whole, 1e-300))
        )

    start = np.array([float(np.mean(upper)), np.log(max(float(np.std(upper)), 1e-3))])
    best = minimize(
        cost, start, method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9, "maxiter": 2000}
    )
    place, step = np.asarray(best.x, dtype=np.float64), np.array([1e-3, 1e-2]) * np.exp(best.x[1])
    step[1] = 1e-2
    bend = np.empty((2, 2))
    for i in range(2):
        for j in range(2):
            corners = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
            values = [
                a
                * b
                * cost(place + a * step * (np.arange(2) == i) + b * step * (np.arange(2) == j))
                for a, b in corners
            ]
            bend[i, j] = sum(values) / (4 * step[i] * step[j])
    covariance = np.linalg.pinv(bend)
    if not np.all(np.diag(covariance) > 0):
        return nan, nan
    half = 1.96 * np.sqrt(np.diag(covariance))
    sd_v = float(np.exp(place[1]))
    return Figure(float(place[0]), float(half[0]), "V"), Figure(sd_v, sd_v * float(half[1]), "V")


def _conducts(result: ApplyResult, above_s: float) -> NDArray[np.bool_]:
    return np.asarray((result.last_s >= above_s) | (result.last_status == Status.OVER_RANGE))
