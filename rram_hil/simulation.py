"""Starting what a bench file's `[simulation]` section describes, through the entry points `rram_hil.simulators`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from rram_hil.bench_file import BenchFile
from rram_hil.cells import Geometry
from rram_hil.device.config import Simulation
from rram_hil.errors import ConfigError
from rram_hil.limits import Limits


@dataclass(frozen=True)
class SimulatedFarSide:
    """A running simulator: the driver settings that reach it, its control address, and how to stop it.

    `instruments` lists what it stands for as (name, model, resource), for `rram-hil simulate`; `is_running` tells whether it
    has not ended by itself.
    """

    settings: dict[str, Any]
    control: str = ""
    stop: Callable[[], None] = field(default=lambda: None)
    instruments: tuple[tuple[str, str, str], ...] = ()
    is_running: Callable[[], bool] = field(default=lambda: True)


@dataclass(frozen=True)
class FarSideRequest:
    """What a simulator is started with: sections of the bench file, and `folder`, where relative paths start.

    `settings` are the driver's own, as given: the far side of a rack is wired as they say.
    """

    simulation: Simulation
    geometry: Geometry
    limits: Limits
    chip_id: str
    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)


def request_of(file: BenchFile) -> FarSideRequest:
    """What the simulator of a bench file is started with. Raises `ConfigError` where the file describes none."""
    if file.simulation is None:
        raise ConfigError(f"{file.path}: there is no [simulation] section: this bench file describes a real bench")
    chip = file.chip
    return FarSideRequest(file.simulation, chip.geometry, file.limits, chip.id, file.folder, file.driver.settings)


Launcher = Callable[[FarSideRequest], SimulatedFarSide]
"""Starts the far side of a driver."""


def launcher(driver: str) -> Launcher:
    """The function that starts the far side of `driver`. Raises `ConfigError` where it has no simulator."""
    found = {e.name: e for e in entry_points(group="rram_hil.simulators")}
    if driver not in found:
        names = ", ".join(sorted(found)) or "none"
        raise ConfigError(f"[simulation]: driver {driver!r} has no simulator; those with one: {names}")
    load: Launcher = found[driver].load()
    return load
