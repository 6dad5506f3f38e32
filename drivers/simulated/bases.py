"""Names that a simulator of another package may build on: parser, terminals, clock and server
of an instrument (docs/adding-a-driver.md), process, control socket and faults of a whole bench
(docs/adding-a-board.md).
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
from .server.control import BoardControl, FaultQueue, Injected, LinkFault, checked_fault
from .server.far_side import FarSide
from .server.instrument import InstrumentServer, SimulatedInstrument
from .server.listening import connections
from .server.process import GONE_S, serve, start

__all__ = [
    "CONFLICT",
    "GONE_S",
    "ILLEGAL",
    "MISSING",
    "PARAMETER",
    "BoardControl",
    "Bus",
    "Call",
    "Drive",
    "Fabric",
    "FarSide",
    "FaultQueue",
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
    "checked_fault",
    "connections",
    "serve",
    "start",
]
