"""rram_hil: hardware-in-the-loop control of RRAM arrays.

The names of daily work stand here and are loaded when they are first used: `from rram_hil import
Bench, read, pulse`.
"""

from __future__ import annotations

import logging
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from rram_hil import _moved

if TYPE_CHECKING:
    from rram_hil.array import (
        Apply,
        ApplyResult,
        Block,
        Cells,
        CodedRead,
        CodedReadResult,
        Geometry,
        Multiply,
        MultiplyResult,
        Operation,
        Program,
        ProgramResult,
        PulseTrain,
        Ramp,
        Scheme,
        Status,
        Step,
        Stop,
        Wait,
        WaitResult,
        WordsResult,
        WriteWords,
        pulse,
        read,
        sweep,
    )
    from rram_hil.bench.bench import Bench
    from rram_hil.bench.forecast import plan_recipe
    from rram_hil.bench.recipe_runner import run_recipe
    from rram_hil.catalogue.catalog import Catalog
    from rram_hil.engine.protocol import (
        CellChoice,
        Compute,
        Plan,
        Progress,
        Protocol,
        Save,
        Setting,
    )
    from rram_hil.errors import (
        AbortedError,
        BenchError,
        ConfigError,
        DataError,
        InstrumentError,
        LimitError,
        LinkError,
        ProtocolError,
        UnknownOutcomeError,
    )
    from rram_hil.storage.run_reader import RunFile, read_run
    from rram_hil.units import Unit

__version__ = "0.1.0"

# Unheard unless somebody listens: `rram-hil -v`, or a handler of your own.
logging.getLogger(__name__).addHandler(logging.NullHandler())

__all__ = [
    "AbortedError",
    "Apply",
    "ApplyResult",
    "Bench",
    "BenchError",
    "Block",
    "Catalog",
    "CellChoice",
    "Cells",
    "CodedRead",
    "CodedReadResult",
    "Compute",
    "ConfigError",
    "DataError",
    "Geometry",
    "InstrumentError",
    "LimitError",
    "LinkError",
    "Multiply",
    "MultiplyResult",
    "Operation",
    "Plan",
    "Program",
    "ProgramResult",
    "Progress",
    "Protocol",
    "ProtocolError",
    "PulseTrain",
    "Ramp",
    "RunFile",
    "Save",
    "Scheme",
    "Setting",
    "Status",
    "Step",
    "Stop",
    "Unit",
    "UnknownOutcomeError",
    "Wait",
    "WaitResult",
    "WordsResult",
    "WriteWords",
    "plan_recipe",
    "pulse",
    "read",
    "read_run",
    "run_recipe",
    "sweep",
]

_ROOMS = {
    "array.cells": "Cells Geometry",
    "array.operations": (
        "Apply Block CodedRead Multiply Operation Program PulseTrain "
        "Ramp Scheme Status Step Stop Wait WriteWords pulse read sweep"
    ),
    "array.results": (
        "ApplyResult CodedReadResult MultiplyResult ProgramResult WaitResult WordsResult"
    ),
    "bench.bench": "Bench",
    "bench.forecast": "plan_recipe",
    "bench.recipe_runner": "run_recipe",
    "catalogue.catalog": "Catalog",
    "engine.protocol": "CellChoice Compute Plan Progress Protocol Save Setting",
    "errors": (
        "AbortedError BenchError ConfigError DataError "
        "InstrumentError LimitError LinkError ProtocolError UnknownOutcomeError"
    ),
    "storage.run_reader": "RunFile read_run",
    "units": "Unit",
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names.split()}


if not TYPE_CHECKING:  # a type checker takes the imports above, and sees a name that is none

    def __getattr__(name: str) -> object:
        if name not in _ROOM_OF:
            raise AttributeError(f"module 'rram_hil' has no attribute {name!r}")
        return getattr(import_module(f"rram_hil.{_ROOM_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


# In a checkout the three plugin folders lie beside this package, not inside it: without this line,
# a non-editable install would lose them to the checkout's own `rram_hil` folder whenever Python
# starts there.
_checkout = Path(__file__).resolve().parent.parent
if (
    not (Path(__file__).parent / "drivers").exists()
    and (_checkout / "drivers" / "__init__.py").exists()
):
    __path__.append(str(_checkout))

_moved.install()
