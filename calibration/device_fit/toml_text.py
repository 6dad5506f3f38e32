"""Writing a device model as TOML."""

from __future__ import annotations

import json
from typing import Any

from rram_hil.simulation.model import DeviceModel


def to_toml(model: DeviceModel) -> str:
    """The text of a model file; `DeviceModel.load` reads it back to the same numbers (7 digits)."""
    content = model.model_dump(exclude_none=True)
    return "\n".join(_table("", content)) + "\n"


def _table(path: str, content: dict[str, Any]) -> list[str]:
    lines = [
        f"{name} = {_value(value)}"
        for name, value in content.items()
        if not isinstance(value, dict)
    ]
    if path and lines:
        lines = ["", f"[{path}]", *lines]
    for name, value in content.items():
        if isinstance(value, dict):
            lines += _table(f"{path}.{name}" if path else name, value)
    return lines


def _value(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        inner = [_value(one) for one in value]
        if value and isinstance(value[0], list):
            return "[\n" + "".join(f"  {one},\n" for one in inner) + "]"
        return "[" + ", ".join(inner) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        text = f"{value:.7g}"
        return text if any(mark in text for mark in ".en") else text + ".0"
    return str(value)
