"""Small pieces of pictures without a plotting library: PNG data URIs, colour maps, and the axes of
SVG charts.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rram_hil.errors import DataError

Rgb = NDArray[np.uint8]

_VIRIDIS = (
    "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c "
    "1fa088 28ae80 3fbc73 5ec962 84d44b addc30 d8e219 fde725"
)
"""17 even steps of viridis (CC0; Smith and van der Walt, matplotlib)."""
_DIVERGING = (
    "144097 2855ae 3c6bc5 5381d8 6e98e6 8cafef adc6f4 cfddf5 f3f3f3 "
    "cfe2d2 acd0b2 8abe94 6aab78 4c975e 308248 256b3a 095727"
)
"""Blue below, white at the middle, green above; OKLab lightness falls evenly and alike on both
sides.
"""

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _table(colours: str) -> NDArray[np.float64]:
    return np.array([list(bytes.fromhex(c)) for c in colours.split()], dtype=np.float64)


def _colours(table: NDArray[np.float64], fraction: ArrayLike) -> Rgb:
    # 200 shades at most, so that with a handful of marks a picture stays within one PNG palette.
    place = np.clip(np.nan_to_num(np.asarray(fraction, dtype=np.float64)), 0.0, 1.0)
    place = np.rint(place * 199) / 199 * (len(table) - 1)
    known = np.arange(len(table))
    channels = [np.interp(place, known, table[:, k]) for k in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def sequential(fraction: ArrayLike) -> Rgb:
    """Colours for 0..1 (clipped; NaN as 0), perceptually uniform, dark to light. Shape: that of
    `fraction`, and 3.
    """
    return _colours(_table(_VIRIDIS), fraction)


def diverging(fraction: ArrayLike) -> Rgb:
    """Colours for -1..1 (clipped; NaN as 0): blue, white at 0, green. Shape: that of `fraction`,
    and 3.
    """
    return _colours(
        _table(_DIVERGING), (np.nan_to_num(np.asarray(fraction, dtype=np.float64)) + 1.0) / 2.0
    )


def png(rgb: Rgb) -> bytes:
    """A PNG file of an image of shape (height, width, 3), uint8; with a palette where it has at
    most 256 colours.

    Raises `DataError` for another shape or type, or an empty image.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or rgb.size == 0:
        raise DataError(
            f"png: an image is uint8 of shape (height, width, 3), not {rgb.dtype} of {rgb.shape}"
        )
    height, width, _ = rgb.shape
    wide = rgb.astype(np.uint32)
    code = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    palette, index = np.unique(code, return_inverse=True)
    if len(palette) <= 256:
        kind, pixels = 3, index.reshape(height, width).astype(np.uint8)
        colours = np.stack([palette >> 16, palette >> 8 & 255, palette & 255], axis=-1).astype(
            np.uint8
        )
        extra = _chunk(b"PLTE", colours.tobytes())
    else:
        kind, pixels, extra = 2, rgb.reshape(height, width * 3), b""
    lines = np.zeros(
        (height, pixels.shape[1] + 1), dtype=np.uint8
    )  # each line begins with its filter: 0, none
    lines[:, 1:] = pixels
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    data = _chunk(b"IDAT", zlib.compress(lines.tobytes(), 9))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + extra + data + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def data_uri(rgb: Rgb) -> str:
    """An image of shape (height, width, 3), uint8, as a data URI that a page can hold. Raises
    `DataError` as `png`.
    """
    return "data:image/png;base64," + base64.b64encode(png(rgb)).decode("ascii")


def minus(text: str) -> str:
    """The text of a number with a true minus sign."""
    return text.replace("-", "\N{MINUS SIGN}")


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers (steps of 1, 2, 2.5 or 5) from `low` to `high`, both included
    where they are round.
    """
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        return [low] if math.isfinite(low) else []
    rough = (high - low) / max(count, 1)
    decade = 10.0 ** math.floor(math.log10(rough))
    step = decade * next(
        (m for m in (1.0, 2.0, 2.5, 5.0) if m * decade >= rough * (1 - 1e-9)), 10.0
    )
    first, last = math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6)
    return [round(k * step, 12) for k in range(first, last + 1)]


@dataclass(frozen=True)
class Axis:
    """One axis of a chart: its ends, its label with the unit, whether it is logarithmic, and the
    places of its ticks.

    Ticks that are not given are chosen. On a logarithmic axis both ends are above zero.
    """

    low: float
    high: float
    label: str
    log: bool = False
    at: tuple[float, ...] | None = None
    per_cent: bool = False

    @property
    def places(self) -> list[float]:
        """Where the ticks stand."""
        if self.at is not None:
            return list(self.at)
        if not self.log:
            return ticks(self.low, self.high)
        first = math.ceil(math.log10(self.low) - 1e-9)
        last = math.floor(math.log10(self.high) + 1e-9)
        return [10.0**k for k in range(first, last + 1)]

    def text(self, value: float) -> str:
        """The label of a tick."""
        if self.per_cent:
            return minus(f"{value * 100:.6g} %")
        if self.log and not 1e-2 <= value <= 1e4:
            return "10" + f"{math.log10(value):.0f}".translate(_RAISED)
        return minus(f"{value:,.6g}" if abs(value) < 1e6 else f"{value:.3g}")

    def place(self, values: ArrayLike) -> NDArray[np.float64]:
        """0 at the low end, 1 at the high end."""
        v = np.asarray(values, dtype=np.float64)
        if self.log:
            v = np.log(np.maximum(v, self.low * 1e-3))
            return np.asarray((v - math.log(self.low)) / (math.log(self.high) - math.log(self.low)))
        return np.asarray((v - self.low) / (self.high - self.low))


@dataclass(frozen=True)
class Plot:
    """A chart's frame in SVG user units: text is 12 units high, colours come from the page's style
    sheet.
    """

    x: Axis
    y: Axis
    width: int = 400
    height: int = 280
    left: int = 66
    right: int = 14
    top: int = 12
    bottom: int = 46

    def at_x(self, values: ArrayLike) -> NDArray[np.float64]:
        """Horizontal places of values on the x axis."""
        return self.left + self.x.place(values) * (self.width - self.left - self.right)

    def at_y(self, values: ArrayLike) -> NDArray[np.float64]:
        """Vertical places of values on the y axis."""
        return (
            self.height
            - self.bottom
            - self.y.place(values) * (self.height - self.top - self.bottom)
        )

    def line(self, x: ArrayLike, y: ArrayLike, style: str) -> str:
        """A line through the points, of a class of the style sheet."""
        return f'<polyline class="{style}" points="{_points(self.at_x(x), self.at_y(y))}"/>'

    def bars(self, edges: ArrayLike, heights: ArrayLike, style: str) -> str:
        """A filled histogram outline: one bar between each two `edges`."""
        x, y = np.asarray(edges, dtype=np.float64), np.asarray(heights, dtype=np.float64)
        across = np.concatenate([x[:1], np.repeat(x[1:-1], 2), x[-1:]])
        outline = _points(self.at_x(across), self.at_y(np.repeat(y, 2)))
        floor = float(self.at_y(self.y.low))
        begin, end = (float(v) for v in self.at_x([x[0], x[-1]]))
        return (
            f'<polygon class="{style}" points="{begin:.1f},{floor:.1f} {outline}'
            f' {end:.1f},{floor:.1f}"/>'
        )

    def svg(self, alt: str, inside: Sequence[str]) -> str:
        """The whole picture: grid, ticks, axis labels, and `inside` drawn over them. `alt` says
        what it shows.
        """
        right, floor = self.width - self.right, self.height - self.bottom
        parts = []
        for value in self.y.places:
            y = float(self.at_y(value))
            parts.append(
                f'<line class="grid" x1="{self.left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            )
            parts.append(label(self.left - 7, y + 4, self.y.text(value), "end"))
        for value in self.x.places:
            x = float(self.at_x(value))
            parts.append(
                f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{floor}" y2="{floor + 5}"/>'
            )
            parts.append(label(x, floor + 18, self.x.text(value), "middle"))
        parts.extend(inside)
        parts.append(
            f'<line class="axis" x1="{self.left}" x2="{right}" y1="{floor}" y2="{floor}"/>'
        )
        parts.append(
            label((self.left + right) / 2, self.height - 8, self.x.label, "middle", "label")
        )
        middle = (self.top + floor) / 2
        turned = f'<g transform="translate(13 {middle:.1f}) rotate(-90)">'
        parts.append(turned + label(0, 0, self.y.label, "middle", "label") + "</g>")
        return drawing(self.width, self.height, alt, parts)


def _points(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def label(x: float, y: float, text: str, anchor: str = "start", style: str = "") -> str:
    """Text in a drawing: `anchor` is start, middle or end, `style` a class of the style sheet."""
    css = f' class="{style}"' if style else ""
    return f'<text{css} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def drawing(width: float, height: float, alt: str, parts: Sequence[str]) -> str:
    """An SVG element that fills the width it is given, read out as `alt`."""
    head = f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(alt)}">'
    return "\n".join([head, *parts, "</svg>"])
