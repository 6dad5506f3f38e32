"""Finding what entry points and local files add."""

from __future__ import annotations

import importlib.util
import sys
from importlib.metadata import entry_points
from pathlib import Path

from rram_hil import _moved
from rram_hil.errors import ConfigError


def names(group: str) -> list[str]:
    """Names registered in an entry-point group, sorted."""
    return sorted({e.name for e in entry_points(group=group)})


def load(group: str, name: str, what: str, folder: Path = Path()) -> object:
    """What an entry point of `group`, or "./file.py:Name" relative to `folder`, stands for.

    `what` names the kind of thing in messages. Raises `ConfigError` listing what there is, or
    saying why it cannot be imported.
    """
    if ":" in name:
        return _from_file(name, folder, what)
    for entry in entry_points(group=group):
        if entry.name == name:
            try:
                return entry.load()
            except (ImportError, AttributeError) as error:
                raise ConfigError(
                    f"{what} {name!r}: {entry.value} cannot be imported: {error}"
                ) from error
    known = ", ".join(names(group)) or "none (is the package installed? `pip install -e .`)"
    raise ConfigError(
        f'{what} {name!r} is unknown; there is: {known}; or name a local file as "./file.py:Class"'
    )


def _from_file(name: str, folder: Path, what: str) -> object:
    file_name, _, attribute = name.rpartition(":")
    path = (folder / file_name).resolve()
    if not path.is_file():
        raise ConfigError(f"{what} {name!r}: there is no file {path}")
    module_name = f"rram_hil_local_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{what} {name!r}: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(
            f"{what} {name!r}: {path} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(module, attribute):
        raise ConfigError(f"{what} {name!r}: {path} has no {attribute!r}")
    return getattr(module, attribute)


def __getattr__(name: str) -> object:
    """What `rram_hil.plugins` held before the parts of a bench moved out."""
    return _moved.lookup("rram_hil.plugins", name, "bench.plugins")
