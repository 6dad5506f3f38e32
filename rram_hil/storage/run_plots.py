"""Maps of a run drawn with matplotlib (extra `view`), in whatever style is set: for notebooks and
for figures of one's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rram_hil.errors import ConfigError
from rram_hil.plugins import need_extra
from rram_hil.storage.run_reader import MapStack
from rram_hil.types import FloatArray
from rram_hil.units import micro, prefix_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_map(stack: MapStack, place: int, tile: int = 0, axes: Axes | None = None) -> Axes:
    """Draw one tile of a save into `axes`, or a figure of its own, with its scale. Raises
    `ConfigError` for a tile that there is not.
    """
    title = f"{stack.name}, step {stack.step[place]}"
    return _draw(stack.values[place], stack.units, tile, title, axes)


def plot_stack(stack: MapStack, tile: int = 0) -> Figure:
    """The last save of a map; before it the first one and after it the change, where there are
    more.
    """
    need_extra("plot", "view", {"matplotlib": "matplotlib"})
    from matplotlib import pyplot

    if len(stack.values) == 1:
        figure, axes = pyplot.subplots(layout="constrained")
        plot_map(stack, 0, tile, axes)
        return figure
    figure, places = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for k, one in zip((0, len(stack.values) - 1), places, strict=False):
        plot_map(stack, k, tile, one)
    change = stack.values[-1].astype(np.float64) - stack.values[0]
    _draw(change, stack.units, tile, f"{stack.name}: last − first", places[2], is_change=True)
    return figure


def _draw(
    values: FloatArray,
    units: str,
    tile: int,
    title: str,
    axes: Axes | None,
    *,
    is_change: bool = False,
) -> Axes:
    need_extra("plot", "view", {"matplotlib": "matplotlib"})
    from matplotlib import pyplot

    if not 0 <= tile < len(values):
        raise ConfigError(f"tile {tile}: must lie in 0..{len(values) - 1}", key="tile", value=tile)
    if axes is None:
        axes = pyplot.subplots(layout="constrained")[1]
    shown = np.asarray(values[tile], dtype=np.float64)
    sizes = np.abs(shown[np.isfinite(shown)])
    unit, factor = ("", 1.0) if units in ("", "1") else (units, 1.0)
    if unit and sizes.any():
        prefix, factor = prefix_of(float(sizes.max()))
        unit = micro(prefix + units)
    end = float(sizes.max(initial=0.0)) / factor or 1.0
    image = axes.imshow(
        shown / factor,
        interpolation="nearest",
        cmap="RdBu_r" if is_change else "viridis",
        vmin=-end if is_change else None,
        vmax=end if is_change else None,
    )
    axes.set(xlabel="column", ylabel="row", title=title)
    figure = axes.get_figure()
    assert figure is not None
    figure.colorbar(image, ax=axes, label=f"{title.partition(',')[0]} ({unit})" if unit else "")
    return axes
