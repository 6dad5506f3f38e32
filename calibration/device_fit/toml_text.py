"""Writing a device model as TOML."""

from __future__ import annotations

from typing import Any

import tomlkit

from rram_hil.simulation.model import DeviceModel


def to_toml(model: DeviceModel) -> str:
    """The text of a model file; `DeviceModel.load` reads it back to the same numbers (7 digits)."""
    return tomlkit.dumps(_rounded(model.model_dump(exclude_none=True)))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        array = tomlkit.item([_rounded(one) for one in value])
        return array.multiline(bool(value) and isinstance(value[0], list))
    return float(f"{value:.7g}") if isinstance(value, float) else value
