"""Names that a simulator of another package may build on: parser, terminals, clock and server
(docs/adding-a-driver.md).
"""

from .array.terminals import (
    Bus,
    Drive,
    Fabric,
    Loads,
    Place,
    Resistor,
    Sensed,
    Terminal,
    VirtualClock,
)
from .scpi.instrument import (
    CONFLICT,
    ILLEGAL,
    MISSING,
    PARAMETER,
    Call,
    Handler,
    ScpiError,
    ScpiInstrument,
)
from .server.control import Injected, LinkFault
from .server.instrument import InstrumentServer, SimulatedInstrument

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
