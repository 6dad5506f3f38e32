"""How many words an arm needs for a given gap, from its rows with different fractions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rram_hil.studies.results import Row
from rram_hil.studies.study_file import Study

GAPS = (0.01, 0.005, 0.002, 0.001)
"""Gaps to floating point, as fractions of the images, for which words are told."""


def _own(keys: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys in which the rows of one series differ. Where an arm has its `words`, its `fraction`
    is of something else (of the weights that are verified).
    """
    return ("name", "words") if keys.get("words") is not None else ("name", "fraction", "mac_share")


@dataclass(frozen=True, eq=False)
class Series:
    """Rows of one arm that differ in their words alone, the fewest first; `name` is that of the row
    with the shortest name.
    """

    name: str
    rows: tuple[Row, ...]

    @property
    def fractions(self) -> list[float]:
        """Words and digital parameters over the weights, a row."""
        return [row.mean("fraction") for row in self.rows]

    def needed(self, gap: float) -> float | None:
        """The fraction with which accuracy is not more than `gap` below floating point: between the
        first row of which that is true and the one before it, on the straight line. None: no row
        reaches it. The first row's own where that does.
        """
        missed: tuple[float, float] | None = None
        for fraction, row in zip(self.fractions, self.rows, strict=True):
            if row.gap >= -gap:
                if missed is None:
                    return fraction
                before, below = missed
                return before + (fraction - before) * (-gap - below) / (row.gap - below)
            missed = fraction, row.gap
        return None


def series_of(study: Study, rows: Sequence[Row]) -> list[Series]:
    """The series among the rows of one device, in the order of the study."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    known = {row.arm: row for row in rows}
    for choice in study.arm:
        row = known.get(choice.name)
        if row is not None and row.mean("fraction"):
            keys = choice.model_dump()
            own = _own(keys)
            other = tuple(sorted((k, repr(v)) for k, v in keys.items() if k not in own))
            found.setdefault(other, []).append(row)
    return [
        Series(
            min((row.arm for row in members), key=len),
            tuple(sorted(members, key=lambda row: row.mean("fraction"))),
        )
        for members in found.values()
    ]
