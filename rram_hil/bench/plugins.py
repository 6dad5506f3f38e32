"""Drivers, protocols and commands that entry points and local files add."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from rram_hil.engine.protocol import Protocol
from rram_hil.hardware.driver import Driver
from rram_hil.plugins import load, load_class, names


def calibrate_commands() -> list[Callable[[Any], None]]:
    """What adds commands to `rram-hil calibrate`: each is called with the typer application. Raises
    `ConfigError`.
    """
    group = "rram_hil.calibrate_commands"
    return [
        cast("Callable[[Any], None]", load(group, name, "calibrate command"))
        for name in names(group)
    ]


def driver_class(name: str, folder: Path = Path()) -> type[Driver]:
    """The driver that a bench file names. Raises `ConfigError` listing what there is."""
    return load_class("rram_hil.drivers", name, "driver", Driver, folder)


def protocol_class(name: str, folder: Path = Path()) -> type[Protocol]:
    """The protocol or calibration that a recipe names. Raises `ConfigError` listing what there
    is.
    """
    group = (
        "rram_hil.calibration" if name in names("rram_hil.calibration") else "rram_hil.protocols"
    )
    return load_class(group, name, "protocol", Protocol, folder)
