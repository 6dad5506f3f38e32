"""Finding what entry points and local files add: drivers and protocols."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast

from rram_hil.driver import Driver
from rram_hil.errors import ConfigError
from rram_hil.protocol import Protocol


def names(group: str) -> list[str]:
    """Names registered in an entry-point group, sorted."""
    return sorted({e.name for e in entry_points(group=group)})


def _load(group: str, name: str, folder: Path, what: str) -> object:
    if ":" in name:
        return _from_file(name, folder, what)
    for entry in entry_points(group=group):
        if entry.name == name:
            try:
                return entry.load()
            except (ImportError, AttributeError) as error:
                raise ConfigError(f"{what} {name!r}: {entry.value} cannot be imported: {error}") from error
    known = ", ".join(names(group)) or "none (is the package installed? `pip install -e .`)"
    raise ConfigError(f'{what} {name!r} is unknown; there is: {known}; or name a local file as "./file.py:Class"')


def _from_file(name: str, folder: Path, what: str) -> object:
    file_name, _, attribute = name.rpartition(":")
    path = (folder / file_name).resolve()
    if not path.is_file():
        raise ConfigError(f"{what} {name!r}: there is no file {path}")
    module_name = f"rram_hil_local_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{what} {name!r}: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"{what} {name!r}: {path} cannot be imported: {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        raise ConfigError(f"{what} {name!r}: {path} has no {attribute!r}")
    return getattr(module, attribute)


def calibrate_commands() -> list[Callable[[Any], None]]:
    """What adds commands to `rram-hil calibrate`: each is called with the typer application. Raises `ConfigError`."""
    found: list[Callable[[Any], None]] = []
    for name in names("rram_hil.calibrate_commands"):
        register = _load("rram_hil.calibrate_commands", name, Path(), "calibrate command")
        if not callable(register):
            raise ConfigError(f"calibrate command {name!r} cannot be called")
        found.append(cast("Callable[[Any], None]", register))
    return found


def driver_class(name: str, folder: Path = Path()) -> type[Driver]:
    """The driver that a bench file names. Raises `ConfigError` listing what there is."""
    found = _load("rram_hil.drivers", name, folder, "driver")
    if not (isinstance(found, type) and issubclass(found, Driver)) or inspect.isabstract(found):
        raise ConfigError(f"driver {name!r} is not a complete subclass of rram_hil.driver.Driver")
    return found


def protocol_class(name: str, folder: Path = Path()) -> type[Protocol]:
    """The protocol or calibration that a recipe names. Raises `ConfigError` listing what there is."""
    group = "rram_hil.calibration" if name in names("rram_hil.calibration") else "rram_hil.protocols"
    found = _load(group, name, folder, "protocol")
    if not (isinstance(found, type) and issubclass(found, Protocol)) or inspect.isabstract(found):
        raise ConfigError(f"protocol {name!r} is not a complete subclass of rram_hil.protocol.Protocol")
    return found
