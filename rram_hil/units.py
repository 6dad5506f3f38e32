"""Units of fields, and how numbers, quantities and durations are written on screens, pages and in
files: nothing else in the package formats them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic_core import CoreSchema

_PREFIXES = (
    ("G", 1e9),
    ("M", 1e6),
    ("k", 1e3),
    ("", 1.0),
    ("m", 1e-3),
    ("u", 1e-6),
    ("n", 1e-9),
    ("p", 1e-12),
)


@dataclass(frozen=True)
class Unit:
    """The unit of a field, in its annotation: `settling_s: Annotated[float, Unit("s")]`; also in a
    model's JSON schema, as `"unit": "s"`.
    """

    symbol: str

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "unit": self.symbol}


Amperes = Annotated[float, Unit("A")]
Kelvins = Annotated[float, Unit("K")]
Ohms = Annotated[float, Unit("ohm")]
Seconds = Annotated[float, Unit("s")]
Siemens = Annotated[float, Unit("S")]
Volts = Annotated[float, Unit("V")]


def units_of(owner: type) -> dict[str, str]:
    """The unit of every field of a class that says one, also of one that may be None or is a
    list.
    """
    try:
        hints = get_type_hints(owner, include_extras=True)
    except (NameError, AttributeError, TypeError):  # annotations that only a type checker resolves
        return {}
    return {
        name: mark.symbol
        for name, hint in hints.items()
        for mark in _parts(hint)
        if isinstance(mark, Unit)
    }


def _parts(hint: object) -> Iterator[object]:
    """A type hint, what it is put together from, and what is said beside these."""
    yield hint
    for part in (*getattr(hint, "__metadata__", ()), *get_args(hint)):
        yield from _parts(part)


TOLD = "told"
"""Key of a field's metadata: how a summary tells its count or its tuple of sorted whole numbers,
"first failure at {} cycles"; nothing where that is 0 or empty.
"""


def words_of(name: str, unit: str) -> str:
    """A field's name as words, without the unit that it ends in: "settling" of `settling_s`."""
    words = name.replace("_", " ")
    return re.sub(f"(?i) {re.escape(unit)}$", "", words) if unit else words


def value_text(value: float, unit: str) -> str:
    """A field's value: a duration, a quantity, or four digits of what has no unit."""
    if unit == "s":
        return duration(value)
    return quantity(value, unit) if unit else f"{value:.4g}"


def field_text(owner: object, name: str) -> str:
    """The value of a field with the unit that its class says, as in "4 V"."""
    return value_text(getattr(owner, name), units_of(type(owner)).get(name, ""))


def prefix_of(size: float) -> tuple[str, float]:
    """The prefix from pico to giga that suits a size above zero, and its factor."""
    return next(((name, factor) for name, factor in _PREFIXES if size >= factor), _PREFIXES[-1])


def quantity(value: float, unit: str, digits: int = 3) -> str:
    """A number with its unit and a prefix from pico to giga, as in "12.5 uS"; "-" for NaN."""
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return ("over range" if value > 0 else "-over range") if unit else f"{value}"
    # The rounded number chooses the prefix: 999.96 becomes 1.00 k, not 1e+03.
    rounded = float(f"{abs(value):.{digits}g}")
    if rounded < 1e-15:
        return f"0 {unit}".rstrip()
    prefix, factor = prefix_of(rounded)
    return f"{value / factor:.{digits}g} {prefix}{unit}".rstrip()


def duration(seconds: float) -> str:
    """A duration for people: "1.5 ms", "12.3 s", "4 min 05 s", "3 h 20 min", "12 d 3 h"; "-" for
    NaN.
    """
    if not 60 <= seconds < math.inf:
        return quantity(seconds, "s")
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def elapsed(started_s: float, ended_s: float) -> float:
    """Seconds between two times of one clock; NaN where the clock began anew between them."""
    return float(ended_s - started_s) if ended_s >= started_s else math.nan


def count(number: int) -> str:
    """A whole number with thin groups: "12 345"."""
    return f"{number:,}".replace(",", " ")


def counted(number: int, what: str) -> str:
    """A number of things: "1 run", "12 345 runs"."""
    return f"{count(number)} {what}{'' if number == 1 else 's'}"


def number(value: float, digits: int = 3) -> str:
    """A number of a page: counts exactly, with commas, others to `digits` significant digits; "not
    known" for NaN.
    """
    if not math.isfinite(value):
        return "not known"
    if float(value).is_integer() and abs(value) < 1e15:
        return minus(f"{int(value):,}")
    if abs(value) >= 10 ** (digits - 1):
        return minus(f"{value:,.0f}")
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return minus(f"{value:.{decimals}f}" if decimals <= 6 else f"{value:.{digits - 1}e}")


def per_cent(fraction: float, images: int = 0) -> str:
    """An accuracy: two decimals, one where fewer than 1,000 images were classified; "not known" for
    NaN.
    """
    return f"{points(fraction, images)} %" if math.isfinite(fraction) else "not known"


def points(fraction: float, images: int = 0) -> str:
    """The digits of `per_cent`."""
    return f"{fraction * 100:.{1 if 0 < images < 1000 else 2}f}"


def minus(text: str) -> str:
    """The text of a number with a true minus sign."""
    return text.replace("-", "\N{MINUS SIGN}")


def figure_text(value: float, uncertainty: float, unit: str = "") -> str:
    """A figure and the half width of its 95 % interval under one prefix, "72.10 ± 0.83 uS"; without
    one the value alone.
    """
    if not math.isfinite(value) or not math.isfinite(uncertainty):
        return quantity(value, unit, 4) if unit or math.isnan(value) else f"{value:.4g}"
    size = max(abs(value), uncertainty)
    if size < 1e-15:
        return f"0 ± 0 {unit}".rstrip()
    prefix, factor = prefix_of(size) if unit and size >= 1e-12 else ("", 1.0)
    value, uncertainty = value / factor, uncertainty / factor
    if uncertainty <= 0:
        return f"{value:.4g} ± 0 {prefix}{unit}".rstrip()
    # Two digits of the uncertainty, and of the value as many as go with them.
    digits = min(max(1 - math.floor(math.log10(uncertainty)), 0), 9)
    return f"{value:.{digits}f} ± {uncertainty:.{digits}f} {prefix}{unit}".rstrip()


def scaled(values: Sequence[float], unit: str) -> tuple[list[str], str]:
    """Numbers under the one prefix that suits the largest, and the prefixed unit: ["0.02", "132"],
    "uS".
    """
    if unit in ("", "1"):
        return [f"{v:.4g}" for v in values], ""
    largest = max((abs(v) for v in values if math.isfinite(v)), default=0.0)
    prefix, factor = prefix_of(largest) if largest else ("", 1.0)
    texts = [
        f"{v / factor:.3g}" if v == 0 or abs(v) >= 0.01 * factor else f"{v / factor:.2f}"
        for v in values
    ]
    return texts, f"{prefix}{unit}"


def ranges(numbers: Sequence[int], most: int = 12) -> str:
    """Sorted whole numbers, neighbours joined: "3, 7-9, 12"; beyond `most` parts only how many more
    there are.
    """
    parts: list[list[int]] = []
    for one in numbers:
        if parts and one == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], one]
        else:
            parts.append([one])
    shown = ", ".join("-".join(str(n) for n in p) for p in parts[:most])
    left = sum(p[-1] - p[0] + 1 for p in parts[most:])
    return f"{shown} and {left} more" if left else shown


def micro(text: str) -> str:
    """Text in which units of millionths have their Greek letter, "12 uS" as "12 µS"."""
    return re.sub(r"(?<![A-Za-z])u(?=[ASVWJFs]\b)", "µ", text)
