"""Names that a simulator of another package may build on: parser, terminals, clock and server (docs/adding-a-driver.md)."""

from ._instrument import InstrumentServer, SimulatedInstrument
from ._scpi import CONFLICT, ILLEGAL, MISSING, PARAMETER, Call, Handler, ScpiError, ScpiInstrument
from ._world import Bus, Drive, Fabric, Loads, Place, Resistor, Sensed, Terminal, VirtualClock
from .control import Injected, LinkFault

__all__ = [
    "CONFLICT",
    "ILLEGAL",
    "MISSING",
    "PARAMETER",
    "Bus",
    "Call",
    "Drive",
    "Fabric",
    "Handler",
    "Injected",
    "InstrumentServer",
    "LinkFault",
    "Loads",
    "Place",
    "Resistor",
    "ScpiError",
    "ScpiInstrument",
    "Sensed",
    "SimulatedInstrument",
    "Terminal",
    "VirtualClock",
]
