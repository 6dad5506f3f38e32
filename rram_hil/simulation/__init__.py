"""The device model and the simulated chip, seeded and vectorised."""

from rram_hil import _moved
from rram_hil.simulation.bank import CellBank, cells_of
from rram_hil.simulation.model import DeviceModel

__all__ = ["CellBank", "DeviceModel", "cells_of"]


def __getattr__(name: str) -> object:
    """What `rram_hil.simulation` held before the simulated chip moved here."""
    return _moved.lookup("rram_hil.simulation", name, "hardware.far_side", "bench.far_side")
