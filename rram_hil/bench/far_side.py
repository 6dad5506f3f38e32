"""Starting what a bench file's `[simulation]` section describes, through the entry points
`rram_hil.simulators`.
"""

from __future__ import annotations

from typing import cast

from rram_hil.bench.bench_file import BenchFile
from rram_hil.errors import ConfigError
from rram_hil.hardware.far_side import FarSideRequest, Launcher
from rram_hil.plugins import load, names


def request_of(file: BenchFile) -> FarSideRequest:
    """What the simulator of a bench file is started with. Raises `ConfigError` where the file
    describes none.
    """
    if file.simulation is None:
        raise ConfigError(
            f"{file.path}: there is no [simulation] section: this bench file describes a real bench"
        )
    chip = file.chip
    return FarSideRequest(
        file.simulation, chip.geometry, file.limits, chip.id, file.folder, file.driver.settings
    )


def launcher(driver: str) -> Launcher:
    """The function that starts the far side of `driver`. Raises `ConfigError` where it has no
    simulator.
    """
    known = names("rram_hil.simulators")
    if driver not in known:
        there = ", ".join(known) or "none"
        raise ConfigError(
            f"[simulation]: driver {driver!r} has no simulator; those with one: {there}"
        )
    return cast(Launcher, load("rram_hil.simulators", driver, "simulator"))
