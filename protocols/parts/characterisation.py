"""What the characterisation protocols share: their pulses, repeating what an interruption cost,
saving arrays and figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rram_hil.array import MAP, Apply, ApplyResult, Cells, OtherLevels, Status, Step, pulses_of
from rram_hil.engine.protocol import Plan, Save, Setting, map_of
from rram_hil.errors import ConfigError, DataError
from rram_hil.report.plots import Chart
from rram_hil.statistics import UNCERTAINTY, Figure
from rram_hil.types import FloatArray, IntArray
from rram_hil.validation import FiniteVolts, PositiveSeconds

T = TypeVar("T")
ATTEMPTS = 3
"""How often a batch whose pulses may be given again is tried before the step ends."""


class SetPulse(OtherLevels):
    """A SET pulse on the bit line; `wl_v` is the gate, which a 1T1R array needs and a 1R array has
    not.
    """

    bl_v: FiniteVolts
    wl_v: FiniteVolts | None = None
    width_s: PositiveSeconds

    def step(self, setting: Setting) -> Step:
        """The same as a step. Raises `ConfigError` for a missing gate."""
        return self.onto(Step(self.bl_v, 0.0, gate_v(self.wl_v, setting), self.width_s))


class ResetPulse(OtherLevels):
    """A RESET pulse on the source line; `wl_v` as in `SetPulse`."""

    sl_v: FiniteVolts
    wl_v: FiniteVolts | None = None
    width_s: PositiveSeconds

    def step(self, setting: Setting) -> Step:
        """The same as a step. Raises `ConfigError` for a missing gate."""
        return self.onto(Step(0.0, self.sl_v, gate_v(self.wl_v, setting), self.width_s))


def gate_v(wl_v: float | None, setting: Setting, key: str = "wl_v") -> float:
    """Gate volts of a step: 0 in an array without gates. Raises `ConfigError` where a 1T1R array is
    given none.
    """
    if setting.geometry.cell == "1R":
        return 0.0
    if wl_v is None:
        raise ConfigError(f"{key}: missing; a pulse on a 1T1R cell needs its gate voltage")
    return wl_v


def applied(operation: Apply) -> Plan[ApplyResult]:
    """The result of an `Apply` that begins by bringing its cells into a known state, so that it may
    be given again.

    After an interruption the whole batch takes it once more: what it measured is lost, and each
    cell starts afresh. Raises `DataError` after three in a row.
    """
    for _ in range(ATTEMPTS):
        result = yield from operation
        if not result.interrupted:
            return result
    raise DataError(
        f"{operation.label}: interrupted {ATTEMPTS} times in a row; its outcome is not known"
    )


def repeated(batch: Apply, times: IntArray, setting: Setting) -> Plan[IntArray]:
    """Give each cell the steps of `batch` `times` (n,) times over; returns how often each took
    them, shape (n,).

    After an interruption the cells take only what they still lack, as their charge of pulses tells;
    a part of a round is none.
    """
    each = pulses_of(batch, setting.limits)
    taken = np.zeros(times.size, dtype=np.int64)
    for _ in range(ATTEMPTS):
        left = times - taken
        for count in np.unique(left[left > 0]):
            at = np.flatnonzero(left == count)
            result = yield from replace(batch.part(at), repeat=int(count))
            rounds = result.pulses // np.maximum(each[at], 1)
            taken[at] += np.where(each[at] > 0, rounds, 0 if result.interrupted else count)
        if np.all(taken >= times):
            break
    return taken


def usable(result: ApplyResult) -> FloatArray:
    """Conductances (S), shape (n, m); NaN where a reading is not OK."""
    return np.where(result.status == Status.OK, result.conductance_s, np.nan)


def log_counts(most: int, per_decade: int) -> list[int]:
    """Whole numbers from 1 to `most`, both included, about `per_decade` in each factor of ten."""
    steps = int(np.ceil(np.log10(max(most, 1)) * per_decade)) + 1
    counts = np.unique(np.rint(np.logspace(0, np.log10(max(most, 1)), steps)).astype(np.int64))
    return [int(c) for c in counts]


def log_times(first_s: float, last_s: float, per_decade: int) -> list[float]:
    """Seconds from `first_s` to `last_s`, both included, about `per_decade` in each factor of
    ten.
    """
    steps = max(int(np.ceil(np.log10(last_s / first_s) * per_decade - 1e-9)), 1)
    return [float(t) for t in np.geomspace(first_s, last_s, steps + 1)]


def log_ratio(values: FloatArray) -> FloatArray:
    """Natural logarithm; NaN for what is not above zero."""
    return np.log(values, out=np.full(values.shape, np.nan), where=values > 0)


def save_cells(cells: Cells) -> Plan[None]:
    """Say which cell each index of the dimension "cell" is."""
    for name in MAP:
        yield Save(name, getattr(cells, name), ("cell",))


def save_figures(summary: T) -> Plan[T]:
    """Keep every `Figure` of a summary as a number with its unit and its 95 % half width as an
    attribute; returns the summary.
    """
    for entry in fields(summary):  # type: ignore[arg-type]
        value = getattr(summary, entry.name)
        if isinstance(value, Figure):
            attrs = (
                {UNCERTAINTY: float(value.uncertainty)} if np.isfinite(value.uncertainty) else {}
            )
            yield Save(entry.name, np.asarray(float(value.value)), (), value.unit, attrs)
    return summary


def save_band(
    name: str, band: Sequence[FloatArray], dims: tuple[str, ...], units: str, chart: Chart
) -> Plan[None]:
    """Keep a median and the band around it (low, median, high, as `quantiles` gives them), drawn as
    one.
    """
    for end, values in (("low", band[0]), ("high", band[2])):
        yield Save(f"{name}_{end}", values, dims, units)
    chart = replace(chart, low=f"{name}_low", high=f"{name}_high")
    yield Save(f"{name}_median", band[1], dims, units, chart.attrs())


def save_map(name: str, cells: Cells, values: NDArray[Any], units: str, setting: Setting) -> Save:
    """A map of one value a cell: False elsewhere for marks (booleans), 0 for counts, else NaN."""
    fill = {"b": False, "i": 0, "u": 0}.get(values.dtype.kind, np.nan)
    return Save(name, map_of(cells, values, setting.geometry, fill), MAP, units)


def listed(cells: Cells, most: int = 4) -> str:
    """Addresses as a summary prints them: "(0, 1, 2) (0, 3, 4) and 5 more"; "none" for none."""
    shown = " ".join(str(cells.address(k)) for k in range(min(most, len(cells))))
    left = len(cells) - most
    return (shown or "none") + (f" and {left} more" if left > 0 else "")
