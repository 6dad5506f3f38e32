"""Which drivers of PyMeasure and QCoDeS there are for the models of issue 3, and that each
identifies our simulator of it.

What each does then (source, measure, sweep, shut down) is in the test of its family. `pytest -s`
prints the list.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from rram_hil.drivers.simulated.bases import InstrumentServer, Loads, Place
from rram_hil.drivers.simulated.conformance import Family
from rram_hil.simulation.config import Timing

PINNED = {"pymeasure": "0.16.0", "qcodes": "0.58.0"}
MODULES = {
    "pymeasure": (
        "pymeasure.instruments.keithley",
        "pymeasure.instruments.agilent",
        "pymeasure.instruments.keysight",
    ),
    "qcodes": ("qcodes.instrument_drivers.Keithley", "qcodes.instrument_drivers.Keysight"),
}
SERIES = re.compile(
    r"^(?:Keithley|Keysight|Agilent)(?:24[056]0|26\d\d|70[78]|3706|B1500|B29[01]\d|33[56]\d\d)[AB]?(?:Legacy)?$"
)
"""Class names of the series of issue 3."""
KINDS = {
    **dict.fromkeys(("240", "241", "242", "243", "244"), "keithley-2400"),
    **dict.fromkeys(("245", "246", "247"), "keithley-2450"),
    "26": "keithley-2600b",
    "70": "keithley-707b",
    "3706": "keithley-3706a",
    "B1500": "keysight-b1500",
    "B29": "keysight-b2900",
    "33": "keysight-33500",
}
PUBLIC: dict[tuple[str, str], str] = {
    ("pymeasure", "Keithley2400"): "2400",
    ("pymeasure", "Keithley2400Legacy"): "2400",
    ("pymeasure", "Keithley2450"): "2450",
    ("pymeasure", "Keithley2600"): "2602B",
    ("pymeasure", "AgilentB1500"): "B1500A",
    ("pymeasure", "Agilent33500"): "33522B",
    ("pymeasure", "Agilent33521A"): "33521A",
    ("qcodes", "Keithley2400"): "2400",
    ("qcodes", "Keithley2450"): "2450",
    ("qcodes", "Keithley2601B"): "2601B",
    ("qcodes", "Keithley2602A"): "2602A",
    ("qcodes", "Keithley2602B"): "2602B",
    ("qcodes", "Keithley2604B"): "2604B",
    ("qcodes", "Keithley2611B"): "2611B",
    ("qcodes", "Keithley2612B"): "2612B",
    ("qcodes", "Keithley2614B"): "2614B",
    ("qcodes", "Keithley2634B"): "2634B",
    ("qcodes", "Keithley2635B"): "2635B",
    ("qcodes", "Keithley2636B"): "2636B",
    ("qcodes", "Keithley3706A"): "3706A",
    ("qcodes", "KeysightB1500"): "B1500A",
    ("qcodes", "Keysight33511B"): "33511B",
    ("qcodes", "Keysight33512B"): "33512B",
    ("qcodes", "Keysight33522B"): "33522B",
    ("qcodes", "Keysight33611A"): "33611A",
    ("qcodes", "Keysight33622A"): "33622A",
}
"""(library, class) -> the model that it meets here; PyMeasure's class of a series meets others in
the test of the family.
"""
OTHERS = {("qcodes", "Keithley2600")}
"""Of these series, but an abstract base."""
WITHOUT = {
    "pymeasure": set[str](),
    "qcodes": {"2601A", "2611A", "2612A", "2635A", "2636A"},
}
"""Models of source-meters that one library has no class for and the other has."""


def kind_of(model: str) -> str:
    return next(kind for start, kind in KINDS.items() if model.startswith(start))


def in_the_library(library: str) -> dict[str, type]:
    """Classes of the series, by name; deprecated aliases of one class count once."""
    found: dict[str, type] = {}
    for name in MODULES[library]:
        module = importlib.import_module(name)
        found |= {n: c for n, c in inspect.getmembers(module, inspect.isclass) if SERIES.match(n)}
    return found


@pytest.mark.parametrize("library", MODULES)
def test_the_list_of_public_drivers_is_whole(library: str) -> None:
    assert version(library) == PINNED[library]
    there = {(library, name) for name in in_the_library(library)}
    known = {key for key in PUBLIC if key[0] == library}
    assert there - OTHERS == known
    for _, name in sorted(known):
        model = PUBLIC[library, name]
        print(f"{library} {PINNED[library]}\t{name}\t{model}\t{kind_of(model)}")


@pytest.mark.parametrize("library", MODULES)
def test_models_without_a_public_driver_are_known(library: str) -> None:
    models = {m for kind in dict.fromkeys(KINDS.values()) for m in Family.of(kind).driver.MODELS}
    covered = {model for (of, _), model in PUBLIC.items() if of == library}
    if library == "pymeasure":  # one class a series
        covered |= {m for m in models if m.startswith("26") or kind_of(m) == "keysight-33500"}
    without = {m for m in models if m not in covered and kind_of(m) != "keysight-33500"}
    without -= {m for m in models if kind_of(m) in ("keithley-2400", "keithley-2450")}
    of_b2900 = set(Family.of("keysight-b2900").driver.MODELS)
    assert without - {"3706A"} == {"707B", "708B", "3706"} | of_b2900 | WITHOUT[library]
    assert {"2400", "2450"} <= covered


@pytest.mark.parametrize("kind", sorted(set(KINDS.values())))
def test_each_family_has_a_test_of_the_public_drivers_that_there_are(kind: str) -> None:
    text = (Path(__file__).parent / f"test_{kind.replace('-', '_')}.py").read_text(encoding="utf-8")
    for library, name in PUBLIC:
        if kind_of(PUBLIC[library, name]) == kind:
            assert f"{library}.instrument" in text, (
                f"test_{kind} does not use {library}, which has {name}"
            )


def pymeasure_identity(made: type, resource: str, ending: str) -> str:
    # That of the B1500 sets its endings itself.
    endings = {"read_termination": "\n", "write_termination": "\n"} if ending == "\n" else {}
    device: Any = made(resource, visa_library="@py", timeout=3000, **endings)
    try:
        return str(device.id)
    finally:
        device.adapter.connection.close()


def qcodes_identity(made: type, resource: str, ending: str) -> str:
    device: Any = made(
        f"under_test_{made.__name__}", resource, visalib="@py", terminator=ending, timeout=3
    )
    try:
        return str(device.get_idn())
    finally:
        device.close()


IDENTIFY: dict[str, Callable[[type, str, str], str]] = {
    "pymeasure": pymeasure_identity,
    "qcodes": qcodes_identity,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("library", "name"), PUBLIC, ids="-".join)
def test_a_public_driver_connects_and_switches_nothing_on(library: str, name: str) -> None:
    model = PUBLIC[library, name]
    kind = kind_of(model)
    simulator = Family.of(kind).simulator(model, Place(terminals=Loads(1e4)))
    server = InstrumentServer(simulator, Timing())
    try:
        ending = "\r\n" if kind == "keysight-b1500" else "\n"
        told = IDENTIFY[library](in_the_library(library)[name], server.resource, ending)
        assert model in told
        assert not simulator.outputs_on
    finally:
        server.stop()
