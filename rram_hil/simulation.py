"""Starting what a bench file's `[simulation]` section describes, through the entry points `rram_hil.simulators`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from rram_hil.cells import Geometry
from rram_hil.device.config import Simulation
from rram_hil.errors import ConfigError
from rram_hil.limits import Limits


@dataclass(frozen=True)
class SimulatedFarSide:
    """A running simulator: the driver settings that reach it, its control address, and how to stop it."""

    settings: dict[str, Any]
    control: str = ""
    stop: Callable[[], None] = field(default=lambda: None)


Launcher = Callable[[Simulation, Geometry, Limits, str, Path], SimulatedFarSide]
"""launch(simulation, geometry, limits, chip id, folder for relative paths) -> the running far side."""


def launcher(driver: str) -> Launcher:
    """The function that starts the far side of `driver`. Raises `ConfigError` where it has no simulator."""
    found = {e.name: e for e in entry_points(group="rram_hil.simulators")}
    if driver not in found:
        names = ", ".join(sorted(found)) or "none"
        raise ConfigError(f"[simulation]: driver {driver!r} has no simulator; those with one: {names}")
    load: Launcher = found[driver].load()
    return load
