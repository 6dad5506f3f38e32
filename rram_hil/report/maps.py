"""Maps of target and programmed conductance: what is counted of their cells, and their pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rram_hil.report.drawing import Picture, new_axes, svg, view_extra
from rram_hil.report.model import BoolArray, MapPanel
from rram_hil.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rgb = NDArray[np.uint8]
Paint = Callable[[FloatArray], Rgb]

UNUSED, UNREADABLE, STUCK_LOW, STUCK_HIGH = "#9aa0a6", "#e01010", "#ff2bd6", "#ff9100"
NOT_FORMED = "#00d5ff"
"""Colours of the cells of a map that no colour of the scale may stand for."""
DIVERGING = ("#144097", "#6e98e6", "#f3f3f3", "#6aab78", "#095727")
"""Blue below, white at the middle, green above: their lightness falls alike on both sides."""
TILES_OPEN = 2
"""A map of more tiles shows its first and keeps the next ones folded."""
TILES_SHOWN = 8
"""Tiles of a map that are drawn; the numbers and histograms always cover all."""
PICTURE_CELLS = 512
"""A tile with more rows or columns is averaged over square blocks of cells to fit."""


@dataclass(frozen=True, eq=False)
class MapCells:
    """A panel's arrays, all of shape (tiles, rows, columns)."""

    target_s: FloatArray
    programmed_s: FloatArray
    used: BoolArray
    unreadable: BoolArray
    stuck_low: BoolArray
    stuck_high: BoolArray
    not_formed: BoolArray

    @classmethod
    def of(cls, panel: MapPanel) -> MapCells:
        """The cells of a panel; infinite values count as NaN, unused cells bear no mark."""
        shape = np.shape(panel.target_s)
        shape = shape if len(shape) == 3 else (1, *shape)
        target, programmed = (
            np.array(given, dtype=np.float64).reshape(shape)
            for given in (panel.target_s, panel.programmed_s)
        )
        target[~np.isfinite(target)] = np.nan
        programmed[~np.isfinite(programmed)] = np.nan
        used = np.isfinite(target)
        low, high, unformed = (
            used & (False if given is None else np.asarray(given, dtype=np.bool_).reshape(shape))
            for given in (panel.stuck_low, panel.stuck_high, panel.not_formed)
        )
        high &= ~low
        unformed &= ~low & ~high
        unreadable = used & ~low & ~high & ~unformed & ~np.isfinite(programmed)
        return cls(target, programmed, used, unreadable, low, high, unformed)

    @cached_property
    def responsive(self) -> BoolArray:
        """Used cells that were formed, can be read and are not stuck."""
        faulty = self.unreadable | self.stuck_low | self.stuck_high | self.not_formed
        return self.used & ~faulty

    @cached_property
    def counted(self) -> BoolArray:
        """Responsive cells whose target lies above the lowest one (by more than 1 %) and above
        zero.
        """
        # Not the lowest of all: the target of a cell that is known to be stuck is what it was
        # measured at.
        lowest = float(self.target_s[self.responsive].min()) if self.responsive.any() else 0.0
        return self.responsive & (self.target_s > max(lowest * 1.01, 0.0))

    @cached_property
    def error(self) -> FloatArray:
        """G programmed / G target - 1 of the counted cells, shape (n,)."""
        return np.asarray(
            self.programmed_s[self.counted] / self.target_s[self.counted] - 1.0, dtype=np.float64
        )

    @cached_property
    def scales_s(self) -> tuple[float, float]:
        """Upper ends (S) of the scale of conductance and of the scale of error."""
        good = self.responsive
        top = float(self.target_s[self.used].max()) if self.used.any() else 0.0
        error = 0.0
        if good.any():
            top = max(top, float(np.percentile(self.programmed_s[good], 99.5)))
            error = float(np.percentile(np.abs(self.programmed_s - self.target_s)[good], 99))
        return round_up(top), round_up(error)

    @property
    def marks(self) -> list[tuple[str, int, str, bool]]:
        """Colour, number, words, and whether they are a part of the used cells, of every kind of
        cell that the scale leaves out.
        """
        return [
            (STUCK_LOW, int(self.stuck_low.sum()), "stuck at low resistance", True),
            (STUCK_HIGH, int(self.stuck_high.sum()), "stuck at high resistance", True),
            (NOT_FORMED, int(self.not_formed.sum()), "not formed", True),
            (UNREADABLE, int(self.unreadable.sum()), "could not be read", True),
            (UNUSED, int((~self.used).sum()), "not used", False),
        ]

    @property
    def off_scale(self) -> tuple[int, int]:
        """Responsive cells above the scale of conductance, and beyond the scale of error."""
        good, (top_s, error_s) = self.responsive, self.scales_s
        error = np.abs(self.programmed_s - self.target_s)
        return int((self.programmed_s[good] > top_s).sum()), int((error[good] > error_s).sum())

    @property
    def block(self) -> int:
        """Side of the square of cells that is one pixel."""
        return int(np.ceil(max(self.target_s.shape[1:]) / PICTURE_CELLS))


def programming_error(panel: MapPanel) -> FloatArray:
    """G programmed / G target - 1 of every responsive cell with a target above the lowest, shape
    (n,).
    """
    return MapCells.of(panel).error


def round_up(value: float) -> float:
    """The end of a scale that holds a value: the next of 1, 1.2, 1.5 ... times a power of ten."""
    if not value > 0:
        return 1e-6
    decade = 10.0 ** math.floor(math.log10(value))
    return float(
        next(
            m * decade
            for m in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
            if m * decade >= value * (1 - 1e-9)
        )
    )


def blocks(values: FloatArray, block: int) -> FloatArray:
    """Means over blocks of block x block, NaN left out; the blocks at the far edges may be
    smaller.
    """
    if block == 1:
        return values
    rows, columns = (math.ceil(n / block) for n in values.shape)
    padded = np.full((rows * block, columns * block), np.nan)
    padded[: values.shape[0], : values.shape[1]] = values
    stacked = padded.reshape(rows, block, columns, block)
    count = np.isfinite(stacked).sum(axis=(1, 3))
    return np.where(count > 0, np.nansum(stacked, axis=(1, 3)) / np.maximum(count, 1), np.nan)


def tile_pictures(title: str, cells: MapCells, tile: int) -> list[Picture]:
    """Target, programmed conductance and error of one tile."""
    top_s, error_s = cells.scales_s
    conductance = painting(0.0, top_s)
    error = painting(-error_s, error_s, is_change=True)
    target, programmed = cells.target_s[tile], cells.programmed_s[tile]
    programmed = np.where(cells.responsive[tile], programmed, np.nan)
    unused = (~cells.used[tile], UNUSED)
    marks = [
        unused,
        (cells.unreadable[tile], UNREADABLE),
        (cells.not_formed[tile], NOT_FORMED),
        (cells.stuck_high[tile], STUCK_HIGH),
        (cells.stuck_low[tile], STUCK_LOW),
    ]
    where = f", tile {tile}" if len(cells.target_s) > 1 else ""
    size = f"{target.shape[0]} rows by {target.shape[1]} columns"
    return [
        Picture(
            f"{name}{where}",
            _map_svg(
                image(values, shown, paint, cells.block),
                (target.shape[0], target.shape[1]),
                paint,
                ends,
                f"{title}: map of {name.lower()} conductance{where}, {size}",
            ),
        )
        for name, values, shown, paint, ends in (
            ("Target", target, [unused], conductance, (0.0, top_s)),
            ("Programmed", programmed, marks, conductance, (0.0, top_s)),
            (
                "Error: programmed − target",
                programmed - target,
                marks,
                error,
                (-error_s, error_s),
            ),
        )
    ]


def painting(low: float, high: float, *, is_change: bool = False) -> Paint:
    """Colours of values from `low` to `high`: dark to light, or of a change, white in the
    middle.
    """
    with view_extra():
        from matplotlib import colormaps
        from matplotlib.colors import LinearSegmentedColormap
    colours: Callable[..., NDArray[np.float64]] = (
        LinearSegmentedColormap.from_list("change", DIVERGING)
        if is_change
        else colormaps["viridis"]
    )
    return lambda v: np.asarray(
        colours(np.nan_to_num((v - low) / (high - low)), bytes=True)[..., :3], dtype=np.uint8
    )


def image(
    values: FloatArray, marks: Sequence[tuple[BoolArray, str]], paint: Paint, block: int
) -> Rgb:
    """Values (NaN where a mark stands) painted, with the marks in their own colours over them."""
    means = blocks(values, block)
    rgb = paint(means)
    for mask, colour in marks:
        share = blocks(mask.astype(np.float64), block)
        rgb[(share > 0.5) | ((share > 0) & np.isnan(means))] = list(bytes.fromhex(colour[1:]))
    return rgb


def _map_svg(
    rgb: Rgb, shape: tuple[int, int], paint: Paint, ends_s: tuple[float, float], alt: str
) -> str:
    with map_axes(rgb, shape, paint, ends_s, 1e-6, "uS") as axes:
        return svg(axes, alt)


@contextmanager
def map_axes(
    rgb: Rgb,
    shape: tuple[int, int],
    paint: Paint,
    ends: tuple[float, float],
    factor: float,
    unit: str,
    origin: tuple[int, int] = (0, 0),
) -> Iterator[Axes]:
    """The picture of a tile of `shape` with addresses at its edges, those of its first cell being
    `origin`, and its scale, in `unit` of `factor`, beside it.
    """
    rows, columns = shape
    top, left = (first - 0.5 for first in origin)
    height = min(max(280 * rows / columns, 110.0), 380.0)
    with new_axes("column", "row", size=(400, height + 46), margins=(50, 70, 6, 40)) as axes:
        axes.imshow(
            rgb, interpolation="none", aspect="auto", extent=(left, left + columns, top + rows, top)
        )
        scale = axes.inset_axes((1.045, 0, 0.045, 1))
        low, high = (end / factor for end in ends)
        shades = paint(np.linspace(*ends, 101)[:, None])
        scale.imshow(shades, aspect="auto", origin="lower", extent=(0, 1, low, high))
        scale.set_xticks([])
        scale.set_xlabel(unit)
        scale.yaxis.tick_right()
        for one in (axes, scale):
            one.grid(visible=False)
            one.spines[:].set_visible(True)
            one.tick_params(axis="y", length=3)
            one.locator_params(axis="y", nbins=5)
        axes.locator_params(integer=True)
        yield axes
