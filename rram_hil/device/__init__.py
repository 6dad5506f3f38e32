"""The device model: cells, chip and seeded draws of the simulated bench."""

from rram_hil.device.bank import CellBank, cells_of
from rram_hil.device.model import DeviceModel

__all__ = ["CellBank", "DeviceModel", "cells_of"]
