"""rram_hil: hardware-in-the-loop control of RRAM arrays.

The names of daily work stand here and are loaded when they are first used: `from rram_hil import
Bench, read, pulse`.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from rram_hil import _moved

if TYPE_CHECKING:
    from rram_hil.array.cells import Cells, Geometry
    from rram_hil.array.operations import (
        Apply,
        Multiply,
        Program,
        PulseTrain,
        Ramp,
        Scheme,
        Status,
        Step,
        Stop,
        Wait,
        WriteWords,
        pulse,
        read,
        sweep,
    )
    from rram_hil.bench.bench import Bench
    from rram_hil.bench.recipe_runner import run_recipe
    from rram_hil.storage.run_reader import read_run

__version__ = "0.1.0"

__all__ = [
    "Apply",
    "Bench",
    "Cells",
    "Geometry",
    "Multiply",
    "Program",
    "PulseTrain",
    "Ramp",
    "Scheme",
    "Status",
    "Step",
    "Stop",
    "Wait",
    "WriteWords",
    "pulse",
    "read",
    "read_run",
    "run_recipe",
    "sweep",
]

_MODULES = {
    "Bench": "bench.bench",
    "Cells": "array.cells",
    "Geometry": "array.cells",
    "run_recipe": "bench.recipe_runner",
    "read_run": "storage.run_reader",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'rram_hil' has no attribute {name!r}")
    return getattr(import_module(f"rram_hil.{_MODULES.get(name, 'array.operations')}"), name)


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
