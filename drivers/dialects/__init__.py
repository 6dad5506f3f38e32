"""Names that a driver of another package may build on: the bases of SCPI and TSP drivers
(docs/adding-a-driver.md).
"""

from .scpi import ScpiInstrument, floats
from .tsp import TspInstrument, numbers

__all__ = ["ScpiInstrument", "TspInstrument", "floats", "numbers"]
