"""Finding what entry points, local files and extras add."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TypeVar

from rram_hil import _moved
from rram_hil.errors import ConfigError, near

T = TypeVar("T")


def need_extra(what: str, extra: str, packages: Mapping[str, str]) -> None:
    """Raise `ConfigError` naming those of `packages` (the module of each) that are not installed,
    and the extra of this package that brings them.
    """
    missing = [
        name for name, module in packages.items() if importlib.util.find_spec(module) is None
    ]
    if missing:
        raise ConfigError(f"{what} needs {' and '.join(missing)}: pip install 'rram-hil[{extra}]'")


@functools.cache
def entries(group: str) -> tuple[EntryPoint, ...]:
    """What is registered in an entry-point group, sorted by name; looked up once."""
    return tuple(sorted(entry_points(group=group), key=lambda e: e.name))


def names(group: str) -> list[str]:
    """Names registered in an entry-point group, sorted."""
    return list(dict.fromkeys(e.name for e in entries(group)))


def load(
    group: str, name: str, what: str, folder: Path | None = None, *, beside: Sequence[str] = ()
) -> object:
    """What an entry point of `group` stands for, or, where a `folder` is given, "./file.py:Name"
    relative to it.

    `what` names the kind of thing in messages, `beside` what there is of it in other groups. Raises
    `ConfigError` listing what there is, or saying why it cannot be imported.
    """
    if folder is not None and ":" in name:
        return _from_file(name, folder, what)
    for entry in entries(group):
        if entry.name == name:
            try:
                return entry.load()
            except Exception as error:  # what a third party's module raises is its own affair
                raise ConfigError(
                    f"{what} {name!r}: {entry.value} cannot be imported: {error}"
                ) from error
    there = [*names(group), *beside]
    known = ", ".join(there) or "none (is the package installed? `pip install -e .`)"
    local = "" if folder is None else '; or name a local file as "./file.py:Class"'
    raise ConfigError(f"{what} {name!r} is unknown; there is: {known}{local}{near(name, there)}")


def load_class(
    group: str,
    name: str,
    what: str,
    base: type[T],
    folder: Path | None = None,
    *,
    beside: Sequence[str] = (),
) -> type[T]:
    """As `load`, for a class that can be made an object of. Raises `ConfigError` also for what is
    no complete subclass of `base`.
    """
    found = load(group, name, what, folder, beside=beside)
    if not (isinstance(found, type) and issubclass(found, base)) or inspect.isabstract(found):
        raise ConfigError(
            f"{what} {name!r} is not a complete subclass of {base.__module__}.{base.__name__}"
        )
    return found


def working(group: str, find: Callable[[str], T]) -> list[tuple[str, T]]:
    """What `find` loads of a group, by name. What cannot be loaded is left out: `rram-hil list`
    says why.
    """
    found = []
    for name in names(group):
        with contextlib.suppress(ConfigError):
            found.append((name, find(name)))
    return found


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
