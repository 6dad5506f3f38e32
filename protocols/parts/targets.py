"""What programming protocols share: targets from a network or a map, tables of a characterisation,
images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BeforeValidator,
    Field,
    GetPydanticSchema,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from rram_hil.array import MAP, Cells
from rram_hil.engine.protocol import Plan, Save, Setting
from rram_hil.errors import ConfigError, DataError, LimitError
from rram_hil.networks.mapping import Mapping, MappingOptions, map_network
from rram_hil.networks.network import Network, NoLayersError, tensors_from
from rram_hil.networks.placement import FIELDS, places, to_table
from rram_hil.networks.programmed_network import Programmed
from rram_hil.storage.array_files import read_npy, read_npz
from rram_hil.types import FloatArray, IntArray
from rram_hil.units import quantity
from rram_hil.validation import StrictModel


def _array_or(value: Any, validated: ValidatorFunctionWrapHandler) -> Any:
    return value if isinstance(value, np.ndarray) else validated(value)


MapSource = Annotated[
    str | FloatArray | None,
    GetPydanticSchema(lambda _, schema: schema(str | None)),
    WrapValidator(_array_or),
]
"""A map's .npy file or, in Python, the array itself."""


class TargetChoice(StrictModel):
    """Where target conductances come from: a network's weights, or a map of siemens (NaN: leave
    alone), in a .npy file or, in Python, as the array itself.

    With a map, `low` and `high` may be maps of each cell's own window (S) in place of the one that
    a protocol makes around every target: a `low` of 0 takes anything below `high`, an infinite
    `high` anything above `low`.

    A file of weights without layers (any .safetensors) may hold tensors that are no weights of a
    known layer: those that `allow_digital` names, or whose module it names, are left out.
    """

    network: str | None = None
    map: MapSource = None
    low: MapSource = None
    high: MapSource = None
    options: MappingOptions = MappingOptions()
    allow_digital: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.network is None) == (self.map is None):
            raise ValueError("give either network (a .safetensors file) or map (a .npy file)")
        if (self.low is None) != (self.high is None):
            raise ValueError("low and high belong together: maps of each cell's window (S)")
        if self.low is not None and self.map is None:
            raise ValueError("low and high go with a map; a network's windows follow its weights")
        return self

    def files(self) -> tuple[str, ...]:
        """The files that it is read from."""
        sources = (self.network, self.map, self.low, self.high)
        return tuple(f for f in sources if isinstance(f, str))

    def load(self, setting: Setting) -> Programmed:
        """Targets and, for a network, its mapping. Known faults are taken from an earlier forming
        of this run.
        """
        if self.map is not None:
            mapping = _map_targets(self.map, setting)
            responsive = np.isnan(known_faults(setting))
            if self.low is None or self.high is None:
                return Programmed(mapping, responsive)
            windows = _loaded_windows(self.low, self.high, mapping.target_map_s, setting)
            return Programmed(mapping, responsive, windows_s=windows)
        path = setting.folder / str(self.network)
        if not path.is_file():
            raise ConfigError(f"network: there is no file {path}")
        network: Network | None
        try:
            network = Network.load(path)
            weights = dict(network.weights)
        except NoLayersError:
            network, weights = None, tensors_from(path, allow_digital=self.allow_digital)
        faults = known_faults(setting)
        return Programmed(
            map_network(weights, setting.geometry, self.options, faults), np.isnan(faults), network
        )


def _choice(value: Any) -> Any:
    return TargetChoice(map=value) if isinstance(value, np.ndarray) else value


Targets = Annotated[
    TargetChoice | FloatArray,
    GetPydanticSchema(lambda _, schema: schema(TargetChoice)),
    BeforeValidator(_choice),
]
"""A `TargetChoice`; in Python also the map itself, an array of siemens of the chip's shape."""


def load_targets(targets: Targets, setting: Setting) -> Programmed:
    """What a protocol's `targets` say; see `TargetChoice.load`."""
    choice: TargetChoice = _choice(targets)
    return choice.load(setting)


def target_files(targets: Targets | None) -> tuple[str, ...]:
    """The file of a protocol's `targets`, if they are read from one."""
    if targets is None:
        return ()
    choice: TargetChoice = _choice(targets)
    return choice.files()


@dataclass(frozen=True, eq=False)
class Condition:
    """What forming learnt of each cell, boolean maps of shape `geometry.shape`, and its last
    conductance (S).

    `stuck_low_resistance` cells conducted before they were formed; `stuck_high_resistance` cells
    never formed, or could not be read.
    """

    stuck_low_resistance: NDArray[np.bool_]
    stuck_high_resistance: NDArray[np.bool_]
    conductance_s: FloatArray


@dataclass(frozen=True, eq=False)
class Windows:
    """The windows (S) of the last write-verify and which cells it accepted, maps of shape
    `geometry.shape`; NaN and False elsewhere.
    """

    low_s: FloatArray
    high_s: FloatArray
    accepted: NDArray[np.bool_]

    def inside(self, conductance_s: FloatArray) -> NDArray[np.bool_]:
        """Which cells of a map lie in their windows."""
        return (conductance_s >= self.low_s) & (conductance_s <= self.high_s)


def known_faults(setting: Setting) -> FloatArray:
    """Conductance (S) of the cells that an earlier forming of this run found stuck, NaN
    elsewhere.
    """
    condition = setting.shared.get("condition")
    if not isinstance(condition, Condition):
        return np.full(setting.geometry.shape, np.nan)
    stuck = condition.stuck_low_resistance | condition.stuck_high_resistance
    conductance = np.nan_to_num(condition.conductance_s, nan=0.0)
    return np.where(stuck, conductance, np.nan)


def _conductances(key: str, source: str | FloatArray, setting: Setting) -> tuple[str, FloatArray]:
    """What a map of siemens is called, and its numbers. Raises `DataError` for another shape."""
    if isinstance(source, np.ndarray):
        path, values = "the array", source
    else:
        path = str(setting.folder / source)
        values = read_npy(setting.folder / source)
    if values.shape != setting.geometry.shape or values.dtype.kind != "f":
        raise DataError(
            f"{key}: {path} must hold conductances of shape"
            f" {setting.geometry.shape}, not {values.dtype} of shape {values.shape}"
        )
    return path, values.astype(np.float64)


def _loaded_windows(
    low: str | FloatArray, high: str | FloatArray, target_s: FloatArray, setting: Setting
) -> tuple[FloatArray, FloatArray]:
    """The windows (S) of a map of targets. Raises `DataError` naming the first cell whose target
    does not lie in its window, or whose window has no width.
    """
    _, low_s = _conductances("low", low, setting)
    _, high_s = _conductances("high", high, setting)
    good = (low_s >= 0) & (low_s < high_s) & (low_s <= target_s) & (target_s <= high_s)
    bad = np.argwhere(~good & ~np.isnan(target_s))
    if len(bad):
        tile, row, column = (int(k) for k in bad[0])
        values = (quantity(float(v[tile, row, column]), "S") for v in (low_s, high_s, target_s))
        raise DataError(
            "low, high: the window of cell ({}, {}, {}) is {} to {}, its target {}; needed is"
            " 0 S <= low < high with the target between them".format(tile, row, column, *values)
        )
    return low_s, high_s


def _map_targets(source: str | FloatArray, setting: Setting) -> Mapping:
    path, target = _conductances("map", source, setting)
    if np.any(np.isinf(target) | (target < 0)):
        raise DataError(f"map: {path} holds negative or infinite conductances")
    _within_limits(target, path, setting)
    return Mapping(setting.geometry, (), target, np.zeros(target.shape, dtype=np.bool_))


def _within_limits(target: FloatArray, path: str, setting: Setting) -> None:
    """Refuse a map with a target above the highest that the bench allows: `LimitError`."""
    low, high = setting.limits.conductance_s
    beyond = np.argwhere(target > high)
    if not len(beyond):
        return
    tile, row, column = (int(k) for k in beyond[0])
    value = float(target[tile, row, column])
    hint = "; targets are in siemens" if value > 1 else ""
    raise LimitError(
        f"map: {path}: target {quantity(value, 'S')} of cell {(tile, row, column)} is beyond"
        f" limits.conductance_s ({quantity(low, 'S')} to {quantity(high, 'S')}){hint}",
        cell=(tile, row, column),
        line="target",
        value=value,
        allowed=(low, high),
    )


def save_targets(programmed: Programmed) -> Plan[None]:
    """Keep the target map in the run file, and which weights are where; which weight each cell is
    of, where that does not follow from the places.
    """
    mapping = programmed.mapping
    yield Save("target", mapping.target_map_s, MAP, "S")
    if mapping.order_bits:
        yield Save("weight", mapping.weight_map(), MAP)
        yield Save("order_bits", np.array(mapping.order_bits))
    if mapping.layers:
        table, names = to_table(places(mapping, programmed.network))
        fields = ", ".join(FIELDS)
        yield Save("places", table, ("place", "field"), attrs={"fields": fields, "weights": names})


def load_images(path: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Arrays `images` (n, channels, h, w), uint8 or float 0..1, and `labels` of a .npz file. Raises
    `DataError`.
    """
    try:
        images, labels = read_npz(path, ("images", "labels"))
    except DataError as error:
        raise DataError(f"{error}; it must be a .npz file with images and labels") from None
    if images.dtype.kind not in "fiu" or labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(
            f"{path}: images of {images.dtype} and labels of {labels.dtype}, shape {labels.shape},"
            " are no numbers and one whole number an image"
        )
    if images.ndim < 1 or len(images) != len(labels) or len(images) == 0:
        raise DataError(f"{path} has images {images.shape} and labels {labels.shape}")
    if not np.isfinite(images).all():
        raise DataError(f"{path}: an image holds what is no number")
    scale = np.float32(1 / 255) if images.dtype == np.uint8 else np.float32(1)
    return images.astype(np.float32) * scale, labels.astype(np.int64)


def own_windows(
    programmed: Programmed, cells: Cells, setting: Setting
) -> tuple[FloatArray, FloatArray] | None:
    """The windows (S) of these cells that their targets came with, shape (n,); None where they came
    with none.
    """
    if programmed.windows_s is None:
        return None
    at = cells.index(setting.geometry)
    low, high = (values.ravel()[at] for values in programmed.windows_s)
    return low, high


def to_program(programmed: Programmed) -> tuple[Cells, FloatArray]:
    """The cells worth pulsing and their targets (S): those in use that respond, so far as forming
    told.
    """
    mapping = programmed.mapping
    worth = programmed.responsive.ravel()[mapping.cells.index(mapping.geometry)]
    return mapping.cells[worth], mapping.target_s[worth]


def partners(mapping: Mapping) -> IntArray:
    """Position of the other cell of each cell's pair, shape (n,), among the mapping's cells."""
    index = mapping.cells.index(mapping.geometry)
    partner = np.empty(len(index), dtype=np.int64)
    for layer in mapping.layers:
        first, second = (np.searchsorted(index, found) for found in mapping.pair_index(layer.name))
        partner[first], partner[second] = second, first
    return partner
