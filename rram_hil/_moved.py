"""Addresses of modules before the house had rooms: they still import, with a `DeprecationWarning`
that names the new one.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

ROOMS = {
    "bench_file": "bench.bench_file validation",
    "calibration_file": "corrections.calibration_file",
    "cells": "array.cells types",
    "check": "array.defects",
    "console": "terminal.console units",
    "correction": "corrections.correction bench.calibrations",
    "curve": "array.pulse_curves",
    "device": "simulation",
    "device.bank": "simulation.bank",
    "device.chip": "simulation.chip",
    "device.config": "simulation.config",
    "device.converters": "simulation.converters",
    "device.crossbar": "crossbar.solver",
    "device.draws": "simulation.draws",
    "device.half_select": "simulation.half_select",
    "device.ir_drop": "crossbar.ir_drop",
    "device.lines": "simulation.wire_drops",
    "device.model": "simulation.model",
    "device.passive": "simulation.passive",
    "device.state": "simulation.state",
    "devices": "bench.discovery",
    "driver": "hardware.driver",
    "drivers.bases": "drivers.dialects",
    "drivers.simulated.control": "drivers.simulated.server.control",
    "dry_run": "bench.forecast",
    "durable": "storage.safe_files",
    "export": "storage.export",
    "far_clock": "wire.bench_clock",
    "figures": "statistics",
    "html_report": "report.page report.model report.maps units",
    "inference": "networks.inference array.operations",
    "instrument": "hardware.instrument",
    "journal": "storage.journal storage.frames",
    "learning.devices": "learning.torch_device",
    "ledger": "storage.ledger",
    "limits": "array.limits",
    "link": "wire.link wire.visa wire.serial_port wire.playback_link wire.dialog wire.open_link",
    "lowering": "engine.lowering",
    "mapping": "networks.mapping",
    "network": "networks.network",
    "operations": "array.operations types array.results",
    "picture": "report.drawing",
    "plots": "report.plots",
    "plugins": "bench.plugins",
    "programmed": "networks.programmed_network",
    "protocol": "engine.protocol",
    "protocols.targets": "protocols.parts.targets",
    "recipe": "bench.recipe",
    "records": "storage.codec",
    "replay": "engine.replay",
    "run": "bench.recipe_runner",
    "run_file": "storage.run_writer storage.run_reader storage.run_layout",
    "screens": "terminal.screens",
    "show": "terminal.show",
    "simulate": "bench.standalone",
    "sound": "array.result_checks",
    "traffic": "wire.recording",
    "write_verify": "array.write_verify_rules",
}
"""Old address below `rram_hil` -> where its names are now, separated by spaces."""


def lookup(old: str, name: str, *rooms: str) -> object:
    """What `name` of a module that has moved stands for. Raises `AttributeError` where no room has
    it.
    """
    # Python itself asks every module for names like __path__, while rooms are being imported.
    for room in () if name.startswith("__") else rooms:
        address = f"rram_hil.{room}"
        module = import_module(address)
        if hasattr(module, name):
            warnings.warn(f"{old}.{name} is now {address}.{name}", DeprecationWarning, stacklevel=3)
            return getattr(module, name)
    raise AttributeError(f"module {old!r} has no attribute {name!r}")


class _Alias(ModuleType):
    """A module that holds nothing itself."""

    @property
    def _rooms(self) -> list[str]:
        return ROOMS[self.__name__.removeprefix("rram_hil.")].split()

    def __dir__(self) -> list[str]:
        names = {n for room in self._rooms for n in dir(import_module(f"rram_hil.{room}"))}
        return sorted(name for name in names if name.isidentifier() and not name.startswith("_"))

    def __getattr__(self, name: str) -> object:
        if name == "__all__":  # what `from ... import *` asks for
            return dir(self)
        return lookup(self.__name__, name, *self._rooms)


class MovedFinder(MetaPathFinder, Loader):
    """Finds the old addresses after everything else has been asked."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec for an old address, None for any other name."""
        old = fullname.removeprefix("rram_hil.")
        if old == fullname or old not in ROOMS:
            return None
        return ModuleSpec(
            fullname, self, is_package=any(name.startswith(f"{old}.") for name in ROOMS)
        )

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """An alias."""
        return _Alias(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: an alias looks its names up when they are asked for."""


def install() -> None:
    """Let old addresses be found, once."""
    if not any(isinstance(finder, MovedFinder) for finder in sys.meta_path):
        sys.meta_path.append(MovedFinder())
