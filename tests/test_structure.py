"""What keeps the house simple: what is registered, what is documented, what a wheel holds."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from abc import ABC
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from wheels import copy_of_sources, install_from_wheel

from rram_hil.engine.protocol import Protocol
from rram_hil.hardware.driver import Driver
from rram_hil.hardware.instrument import Instrument

ROOT = Path(__file__).parents[1]
PLUGIN_FOLDERS = ("drivers", "protocols", "calibration")
EXAMPLES = ("*.toml", "*.py", "*.npy", "*.safetensors")
HEAVY = {
    "torch",
    "safetensors",
    "matplotlib",
    "dask",
    "distributed",
    "joblib",
    "sklearn",
    "xarray",
    "h5netcdf",
}
HEAVY_ALLOWED = ("rram_hil/learning/", "rram_hil/demo/", "rram_hil/networks/pytorch/")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ENTRY_POINTS: dict[str, dict[str, str]] = PROJECT["project"]["entry-points"]

SOURCES = sorted(
    p for folder in ("rram_hil", *PLUGIN_FOLDERS) for p in (ROOT / folder).rglob("*.py")
)
NAMES = [p.relative_to(ROOT).as_posix() for p in SOURCES]
each_source = pytest.mark.parametrize("path", SOURCES, ids=NAMES)


def module_of(path: Path) -> str:
    """The module that a source file becomes: the plugin folders are packages of rram_hil."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "rram_hil" else ("rram_hil", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree_of(path: Path) -> ast.Module:
    """A source file's syntax tree, parsed once for all tests."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(path: Path, *, top_level_only: bool = False) -> Iterator[tuple[str, bool]]:
    """Modules that a file imports, absolute, and whether the import was written relatively;
    types-only ones too.
    """
    tree = tree_of(path)
    package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]
    for node in _top_level(tree) if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(p for p in (base, node.module) if p)
            yield module, node.level > 0
            yield from ((f"{module}.{alias.name}", node.level > 0) for alias in node.names)


def _top_level(tree: ast.Module) -> Iterator[ast.AST]:
    """Statements that run when the module is imported: not those in functions, nor those for type
    checkers.
    """
    todo: list[ast.AST] = list(tree.body)
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            todo += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            todo += list(ast.iter_child_nodes(node))


@each_source
def test_plugins_import_their_siblings_relatively(path: Path) -> None:
    """import-linter keeps who may import whom; the spelling lets a folder stand alone."""
    folder = path.relative_to(ROOT).parts[0]
    for module, is_relative in imports_of(path):
        if folder != "rram_hil" and f"{module}.".startswith(f"rram_hil.{folder}."):
            assert is_relative, f"{path.name} imports {module}: siblings are imported relatively"


@each_source
def test_heavy_packages_are_imported_where_they_are_used_and_not_before(path: Path) -> None:
    if path.relative_to(ROOT).as_posix().startswith(HEAVY_ALLOWED):
        return
    heavy = {module.split(".")[0] for module, _ in imports_of(path, top_level_only=True)} & HEAVY
    assert not heavy, (
        f"{path.name} imports {heavy} at its top level: an installation without extras has not"
        " got it"
    )


def test_every_instrument_has_a_simulator_of_its_name_and_the_other_way_round() -> None:
    instruments = ENTRY_POINTS["rram_hil.instruments"]
    simulated = ENTRY_POINTS["rram_hil.simulated_instruments"]
    assert set(instruments) <= set(simulated)
    # What else runs alone is the far side of a whole driver.
    assert set(simulated) - set(instruments) <= set(ENTRY_POINTS["rram_hil.simulators"])
    for group, folder in (
        ("instruments", "drivers"),
        ("simulated_instruments", "drivers.simulated"),
    ):
        for name, value in ENTRY_POINTS[f"rram_hil.{group}"].items():
            assert value.partition(":")[0] == f"rram_hil.{folder}.{name.replace('-', '_')}"
    for name, value in instruments.items():
        driver = EntryPoint("x", value, "g").load()
        simulator = EntryPoint("x", simulated[name], "g").load()
        assert issubclass(driver, Instrument)
        assert not inspect.isabstract(driver)
        assert not inspect.isabstract(simulator)
        assert (driver.MAKER, set(driver.MODELS)) == (simulator.MAKER, set(simulator.MODELS))
        assert not set(driver.__mro__) & set(simulator.__mro__) - {ABC, object}


def test_no_model_belongs_to_two_families() -> None:
    models: dict[str, str] = {}
    for name, value in ENTRY_POINTS["rram_hil.instruments"].items():
        for model in EntryPoint("x", value, "g").load().MODELS:
            assert models.setdefault(model, name) == name, (
                f"{model} is driven by {models[model]} and {name}"
            )


def test_no_known_model_is_near_another_family() -> None:
    loaded = {
        name: EntryPoint("x", value, "g").load()
        for name, value in ENTRY_POINTS["rram_hil.instruments"].items()
    }
    for name, driver in loaded.items():
        for other in loaded.values():
            near = [m for m in driver.MODELS if other is not driver and other.offer(m)]
            assert not near, f"{name}: {near} would be taken for a {other.__name__}"


@each_source
def test_everything_public_has_a_docstring(path: Path) -> None:
    tree = tree_of(path)
    missing = [] if ast.get_docstring(tree) else ["the module"]
    todo: list[tuple[str, ast.AST]] = [("", tree)]
    while todo:
        prefix, parent = todo.pop()
        for node in ast.iter_child_nodes(parent):
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            if isinstance(node, ast.ClassDef):
                todo.append((f"{prefix}{node.name}.", node))
            if not (
                ast.get_docstring(node) or _inherits_its_docstring(node) or _is_private(prefix)
            ):
                missing.append(prefix + node.name)
    assert not missing, f"without a docstring: {missing}"


def _inherits_its_docstring(node: ast.FunctionDef | ast.ClassDef) -> bool:
    return any(isinstance(d, ast.Name) and d.id == "override" for d in node.decorator_list)


def _is_private(prefix: str) -> bool:
    return any(part.startswith("_") for part in prefix.split("."))


def _classes_in(folder: str, base: type) -> dict[str, str]:
    """Concrete subclasses of `base` defined in the public files of a plugin folder: name ->
    module.
    """
    found = {}
    for path in (ROOT / folder).glob("[!_]*.py"):
        module = import_module(module_of(path))
        for name, value in vars(module).items():
            own = inspect.isclass(value) and value.__module__ == module.__name__
            if (
                own
                and issubclass(value, base)
                and not inspect.isabstract(value)
                and not name.startswith("_")
            ):
                found[f"{module.__name__}:{name}"] = module.__name__
    return found


@pytest.mark.parametrize(
    ("folder", "group", "base"),
    [
        ("drivers", "drivers", Driver),
        ("drivers", "instruments", Instrument),
        ("protocols", "protocols", Protocol),
        ("calibration", "calibration", Protocol),
    ],
)
def test_every_plugin_is_registered_and_every_entry_point_is_a_plugin(
    folder: str, group: str, base: type
) -> None:
    # A calibration is a protocol that is found beside the others, or under a group of its own.
    registered = {
        v
        for name in (f"rram_hil.{group}", "rram_hil.protocols")
        for v in ENTRY_POINTS.get(name, {}).values()
    }
    for value in ENTRY_POINTS.get(f"rram_hil.{group}", {}).values():
        loaded = EntryPoint("x", value, "g").load()
        assert issubclass(loaded, base)
        assert not inspect.isabstract(loaded)
    unregistered = set(_classes_in(folder, base)) - registered
    assert not unregistered, f"no entry point in pyproject.toml for {unregistered}"


def test_names_of_entry_points_are_the_file_names_with_dashes() -> None:
    for folder in PLUGIN_FOLDERS:
        for name, value in ENTRY_POINTS.get(f"rram_hil.{folder}", {}).items():
            assert value.partition(":")[0].rpartition(".")[2] == name.replace("-", "_")


def test_what_is_promised_names_its_sections_and_tests_that_there_are() -> None:
    page = (ROOT / "docs" / "safety.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert re.findall(r"^\| \[(.+)\]\(#.+\) \|", page, re.MULTILINE) == sections
    files = {path.name: path for path in (ROOT / "tests").rglob("*.py")}
    for named in re.findall(r"(?:(?:tests|benchmarks)/[\w/]*)?\b\w+\.py\b", page):
        assert (ROOT / named).exists() or ("/" not in named and named in files), named
    tests = {
        name
        for path in files.values()
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    for named in re.findall(r"(?:::|`)(test_\w+)(?:\.\.\.)?`", page):
        assert any(name.startswith(named) for name in tests), named


def test_no_driver_is_left_out_of_the_contract_that_keeps_simulators_apart() -> None:
    contracts = {c["name"]: c for c in PROJECT["tool"]["importlinter"]["contracts"]}
    kept = contracts["a simulator shares no code with the driver that faces it"]
    drivers = {p.stem for p in (ROOT / "drivers").glob("*.py")} - {"__init__"}
    assert {f"rram_hil.drivers.{name}" for name in drivers} <= set(kept["forbidden_modules"])


def test_every_simulator_belongs_to_a_driver() -> None:
    assert set(ENTRY_POINTS["rram_hil.simulators"]) <= set(ENTRY_POINTS["rram_hil.drivers"])
    for value in ENTRY_POINTS["rram_hil.simulators"].values():
        assert callable(EntryPoint("x", value, "g").load())


def test_the_installed_entry_points_are_those_of_pyproject() -> None:
    from importlib.metadata import entry_points

    for group, wanted in ENTRY_POINTS.items():
        installed = {e.name: e.value for e in entry_points(group=group)}
        assert wanted.items() <= installed.items(), (
            f"{group}: reinstall the package (pip install -e .)"
        )


def test_every_package_of_the_tree_is_in_pyproject_and_the_other_way_round() -> None:
    packages = {module_of(p) for p in SOURCES if p.name == "__init__.py"}
    packages |= {"rram_hil.examples", "rram_hil.docs"}  # data of a wheel, for `rram-hil new`
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == packages
    for path in SOURCES:
        assert (path.parent / "__init__.py").exists(), f"{path.parent} has no __init__.py"


@pytest.mark.parametrize(
    "module", ["rram_hil", "rram_hil.cli", "rram_hil.bench", "rram_hil.pytest_plugin"]
)
def test_importing_the_core_brings_no_heavy_package(module: str) -> None:
    code = f"import sys, {module}\nheavy = {HEAVY!r} & set(sys.modules)\nassert not heavy, heavy"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package installed from a wheel, as `pip install .` does."""
    site = tmp_path_factory.mktemp("site")
    install_from_wheel(copy_of_sources(tmp_path_factory.mktemp("tree")), site)
    return site


def _ran(command: list[str], folder: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LOOK = """
import importlib, sys
from importlib.metadata import entry_points
import rram_hil
from rram_hil.simulation.model import DeviceModel
groups = ("drivers", "instruments", "protocols", "simulators", "simulated_instruments")
for group in (f"rram_hil.{name}" for name in groups):
    assert len(entry_points(group=group))
    for entry in entry_points(group=group):
        entry.load()
DeviceModel.load("paper")
print(rram_hil.__file__)
"""


@pytest.mark.parametrize("inside", [True, False], ids=["in the checkout", "elsewhere"])
def test_an_install_that_is_not_editable_works(
    wheel_site: Path, tmp_path: Path, inside: bool
) -> None:
    # Without the site module no editable install is seen; dependencies come from where they are.
    seen = os.pathsep.join(
        [str(wheel_site), sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"]]
    )
    folder = ROOT if inside else tmp_path
    told = _ran([sys.executable, "-S", "-c", LOOK], folder, PYTHONPATH=seen)
    assert Path(told.strip()).is_relative_to(ROOT if inside else wheel_site)


def test_a_wheel_holds_the_package_and_nothing_else(wheel_site: Path) -> None:
    assert (wheel_site / "rram_hil" / "py.typed").exists()
    assert list((wheel_site / "rram_hil" / "simulation" / "presets").glob("*.toml"))
    for name in NAMES:
        inside = name if name.startswith("rram_hil/") else f"rram_hil/{name}"
        assert (wheel_site / inside).exists()
    examples = wheel_site / "rram_hil" / "examples"
    held = {path.name for path in examples.iterdir()}
    assert held == {p.name for kind in EXAMPLES for p in (ROOT / "examples").glob(kind)}
    pages = {path.name for path in (wheel_site / "rram_hil" / "docs").iterdir()}
    assert pages == {path.name for path in (ROOT / "docs").glob("adding-*.md")}
    top = {p.name for p in wheel_site.iterdir() if not p.name.endswith(".dist-info")}
    assert top == {"rram_hil"} | ({"bin"} & top)
