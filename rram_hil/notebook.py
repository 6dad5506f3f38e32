"""Pieces of what a notebook shows: plain HTML, everything escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rram_hil.errors import printable
from rram_hil.units import duration, scaled

_UNITS = (("_s", "S"), ("_a", "A"), ("_v", "V"))
"""What names of arrays over cells end in, and the unit of what they hold."""
_TIMES = ("time_s", "away_s")


def html_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, its words escaped; text as `printable` gives it."""

    def cells(tag: str, words: Sequence[str]) -> str:
        return "".join(f'<{tag} style="text-align:left">{html_text(w)}</{tag}>' for w in words)

    head = f"<thead><tr>{cells('th', columns)}</tr></thead>" if columns else ""
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table>{head}<tbody>{body}</tbody></table>"


def html_text(text: str) -> str:
    """Text of a file as it may stand in a page."""
    return escape(printable(text))


def spread_words(values: NDArray[Any], unit: str = "") -> tuple[str, str, str, str]:
    """How many numbers an array has that are known, and the lowest, middle and highest of them with
    their unit.
    """
    flat = np.asarray(values).ravel()
    known = flat[np.isfinite(flat)].astype(np.float64) if flat.dtype.kind in "biuf" else flat[:0]
    if not known.size:
        return f"0 of {flat.size}", "-", "-", "-"
    low, middle, high = (float(v) for v in (known.min(), np.median(known), known.max()))
    texts, unit = scaled([low, middle, high], unit)
    low_text, middle_text, high_text = (f"{text} {unit}".rstrip() for text in texts)
    return f"{known.size} of {flat.size}", low_text, middle_text, high_text


class ShownResult:
    """A base for dataclasses of arrays: a notebook shows each array by its numbers."""

    def _repr_html_(self) -> str:
        arrays: list[tuple[str, ...]] = []
        facts: list[tuple[str, str]] = []
        assert is_dataclass(self)
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, np.ndarray):
                ends = [unit for end, unit in _UNITS if one.name.endswith(end)]
                unit = "s" if one.name in _TIMES else (ends or [""])[0]
                shape = " x ".join(str(n) for n in value.shape)
                arrays.append((one.name, shape, *spread_words(value, unit)))
            elif one.name == "span":
                facts.append(("took", duration(value.ended_s - value.started_s)))
            elif value is not None:
                facts.append((one.name, str(value)))
        head = ("array", "shape", "known", "lowest", "median", "highest")
        return (
            f"<div><strong>{html_text(type(self).__name__)}</strong>"
            f"{html_table((), facts)}{html_table(head, arrays) if arrays else ''}</div>"
        )
