"""Addresses that docs and README of 0.1.0 (commit 9a72aef) named still import, and say where things
are now; nothing of this repository uses them.
"""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path

import pytest

from rram_hil._moved import ROOMS

ROOT = Path(__file__).parents[2]
MOVED = {
    "rram_hil.calibration_file": "load parse",
    "rram_hil.device.ir_drop": "correct_map Lines",
    "rram_hil.driver": "Driver",
    "rram_hil.drivers.bases": "ScpiInstrument TspInstrument floats numbers",
    "rram_hil.instrument": "ChannelLimits Function PulseGenerator Readings SourceMeter SourceSetup"
    " SwitchMatrix make_instrument",
    "rram_hil.link": "number",
    "rram_hil.mapping": "MappingOptions",
    "rram_hil.operations": "FloatArray pulse read",
    "rram_hil.protocol": "Protocol",
    "rram_hil.run_file": "read_run",
    "rram_hil.traffic": "Playback",
}
"""Old address -> names that docs took from it, or pointed at in it."""

STAYED = {
    "rram_hil": "Bench pulse read",
    "rram_hil.bench": "Bench",
    "rram_hil.calibration.device_model": "register",
    "rram_hil.drivers.simulated.bases": "CONFLICT Call Drive Handler Place ScpiInstrument",
    "rram_hil.drivers.simulated.conformance": "checks_of",
    "rram_hil.drivers.simulated.test_chip_board": "launch",
    "rram_hil.drivers.simulated_array": "SimulatedArray",
    "rram_hil.drivers.test_chip_board": "TestChipBoard",
    "rram_hil.errors": "ConfigError InstrumentError LimitError",
    "rram_hil.protocols.forming": "Forming",
}

OUTGROWN = {"rram_hil.plugins": "driver_class", "rram_hil.simulation": "launcher request_of"}
"""Modules whose old names are elsewhere, although a module of the old name is there."""


def pairs(table: dict[str, str]) -> list[tuple[str, str]]:
    return [(module, name) for module, names in table.items() for name in names.split()]


@pytest.mark.parametrize(("module", "name"), pairs(MOVED | OUTGROWN))
def test_a_name_at_its_old_address_says_where_it_is_now(module: str, name: str) -> None:
    space: dict[str, object] = {}
    with pytest.warns(DeprecationWarning, match=rf"{module}\.{name} is now rram_hil\.") as told:
        exec(f"from {module} import {name} as found", space)
    new = str(told[-1].message).rpartition(" ")[2]
    assert space["found"] is getattr(import_module(new.rpartition(".")[0]), name)
    assert told[-1].filename == "<string>"  # the line that imports, not one of the product's


@pytest.mark.parametrize(("module", "name"), pairs(STAYED))
def test_a_name_that_stayed_imports_without_a_word(module: str, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        assert getattr(import_module(module), name)


def test_the_cells_of_the_device_model_import_from_the_old_package() -> None:
    with pytest.warns(DeprecationWarning, match=r"cells_of is now rram_hil\.simulation\.cells_of"):
        from rram_hil.device import cells_of  # type: ignore[import-not-found]
    assert callable(cells_of)


@pytest.mark.parametrize("old", sorted(ROOMS))
def test_every_old_module_imports_and_lists_what_it_had(old: str) -> None:
    if old.startswith("learning"):
        pytest.importorskip("torch")
    module = import_module(f"rram_hil.{old}")
    assert dir(module)
    with pytest.raises(AttributeError):
        _ = module.never_there


def test_everything_of_an_old_module_can_be_imported_at_once() -> None:
    space: dict[str, object] = {}
    with pytest.warns(DeprecationWarning, match=r"rram_hil\.operations\.\w+ is now"):
        exec("from rram_hil.operations import *", space)
    assert {"read", "pulse", "Apply", "ApplyResult", "FloatArray"} <= set(space)


TAKEN = {old for old in ROOMS if (ROOT / "rram_hil" / f"{old}.py").exists()}
IMPORTS = re.compile(r"^\s*(?:from|import) (rram_hil[\w.]*)(?: import (\w+))?", re.MULTILINE)


def test_no_import_of_this_repository_uses_an_old_address() -> None:
    gone = {f"rram_hil.{old}" for old in set(ROOMS) - TAKEN}
    here = (Path(__file__), Path(__file__).parent / "files" / "write.py")
    for folder in ("rram_hil", "drivers", "protocols", "calibration", "tests", "benchmarks"):
        for path in set((ROOT / folder).rglob("*.py")).difference(here):
            for module, name in IMPORTS.findall(path.read_text(encoding="utf-8")):
                used = gone & {module, f"{module}.{name}"}
                assert not used, f"{path.relative_to(ROOT)} imports {used}"


@pytest.mark.long
def test_importing_everything_warns_of_no_old_address(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    code = (
        "import importlib, warnings\n"
        r"warnings.filterwarnings('error', r'rram_hil\S* is now rram_hil', DeprecationWarning)"
        f"\nfor name in {_modules()!r}:\n    importlib.import_module(name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr


def _modules() -> list[str]:
    names = [
        ".".join(("rram_hil", *path.relative_to(ROOT / home).with_suffix("").parts))
        for home, folder in (
            ("rram_hil", "."),
            (".", "drivers"),
            (".", "protocols"),
            (".", "calibration"),
        )
        for path in (ROOT / home / folder).rglob("*.py")
    ]
    return [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
