"""Drivers, protocols and commands that entry points and local files add, and every plug-in that is
installed with its package, for `rram-hil list`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from rram_hil.corrections.calibration_file import KINDS
from rram_hil.corrections.kind import kind_class
from rram_hil.engine.protocol import Protocol
from rram_hil.errors import ConfigError
from rram_hil.hardware.driver import Driver
from rram_hil.hardware.examination import BoardTest
from rram_hil.hardware.instrument import instrument_class
from rram_hil.plugins import entries, load, load_class, names


def calibrate_commands() -> list[Callable[[Any], None]]:
    """What adds commands to `rram-hil calibrate`: each is called with the typer application. Raises
    `ConfigError`.
    """
    group = "rram_hil.calibrate_commands"
    return [
        cast("Callable[[Any], None]", load(group, name, "calibrate command"))
        for name in names(group)
    ]


def board_examination(driver: str) -> BoardTest:
    """What takes a person's board of this driver through its protocol. Raises `ConfigError`
    listing what there is.
    """
    return cast("BoardTest", load(EXAMINATIONS, driver, "board test"))


def driver_class(name: str, folder: Path = Path()) -> type[Driver]:
    """The driver that a bench file names. Raises `ConfigError` listing what there is."""
    return load_class("rram_hil.drivers", name, "driver", Driver, folder)


def protocol_class(name: str, folder: Path = Path()) -> type[Protocol]:
    """The protocol or calibration that a recipe names. Raises `ConfigError` listing what there
    is.
    """
    calibrations = names("rram_hil.calibration")
    group = "rram_hil.calibration" if name in calibrations else "rram_hil.protocols"
    return load_class(group, name, "protocol", Protocol, folder, beside=calibrations)


SIMULATORS, RACK, PRESETS, ARMS, EXAMINATIONS = (
    f"rram_hil.{name}"
    for name in ("simulators", "simulated_instruments", "presets", "arms", "board_tests")
)
GROUPS: dict[str, tuple[str, Callable[[str], object]]] = {
    "driver": ("rram_hil.drivers", driver_class),
    "instrument": ("rram_hil.instruments", instrument_class),
    "simulator": (SIMULATORS, partial(load, SIMULATORS, what="simulator")),
    "simulated instrument": (RACK, partial(load, RACK, what="simulated instrument")),
    "protocol": ("rram_hil.protocols", protocol_class),
    "calibration": ("rram_hil.calibration", protocol_class),
    "calibration kind": (KINDS, kind_class),
    "preset": (PRESETS, partial(load, PRESETS, what="preset")),
    "arm": (ARMS, partial(load, ARMS, what="arm")),
    "board test": (EXAMINATIONS, board_examination),
}
"""Of each sort of plug-in its entry-point group and what loads one."""


@dataclass(frozen=True)
class Installed:
    """One plug-in. `problem` says why it cannot be used; empty where it can."""

    sort: str
    name: str
    package: str
    version: str
    entry_point: str
    problem: str = ""


def installed() -> list[Installed]:
    """Every plug-in, sort by sort, each imported to see whether it can be used."""
    found = []
    for sort, (group, find) in GROUPS.items():
        for entry in entries(group):
            problem = ""
            try:
                find(entry.name)
            except ConfigError as error:
                problem = str(error)
            package, version = (entry.dist.name, entry.dist.version) if entry.dist else ("", "")
            found.append(Installed(sort, entry.name, package, version, entry.value, problem))
    return found
