"""Where a chip's ledger lies: one for each real chip and machine, whatever folder its bench file is
in; a simulated chip's beside its state.

A real chip's lies in this machine's folder of `platformdirs` where that can be written, else in the
user's, or in the folder that the environment variable `RRAM_HIL_LEDGERS` names. `[chip] ledger`
says otherwise. One found beside the bench file, where ledgers were kept before, is taken over once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from rram_hil.errors import ConfigError, DataError
from rram_hil.storage.ledger import Ledger, merged, with_more
from rram_hil.storage.ledger_file import read_ledger, write_whole

if TYPE_CHECKING:
    from rram_hil.bench.bench_file import BenchFile

FOLDER_VARIABLE = "RRAM_HIL_LEDGERS"
_APP = "rram-hil"


def ledger_path(file: BenchFile) -> Path:
    """The file of a bench's ledger, whether it exists or not."""
    if file.chip.ledger:
        return file.folder / file.chip.ledger
    if file.simulation is None:
        return shared_folder(file.chip.id) / _name(file.chip.id)
    state = file.simulation.model_dump().get("state")
    return (file.folder if state is None else (file.folder / state).parent) / _name(file.chip.id)


def found_ledger(file: BenchFile) -> Path:
    """`ledger_path`, or the ledger beside the bench file that is still to be taken over."""
    path, beside = ledger_path(file), file.folder / _name(file.chip.id)
    is_beside = not file.chip.ledger and not path.exists() and beside.exists()
    return beside if is_beside else path


def _name(chip_id: str) -> str:
    return f"{chip_id}.ledger.npy"


def shared_folder(chip_id: str) -> Path:
    """The folder of real chips' ledgers on this machine: the one that has this chip's already, else
    the first that can be written. Raises `DataError` where two have one.
    """
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named)
    folders = _machine_folder(), _user_folder()
    holding = [f for f in folders if (f / _name(chip_id)).exists()]
    if len(holding) > 1:
        raise DataError(
            f"chip {chip_id} has two ledgers, in {folders[0]} and {folders[1]}: make one of them"
            f" (move one aside, then rram-hil ledger merge), or set {FOLDER_VARIABLE}"
        )
    return holding[0] if holding else folders[0] if _is_writable(folders[0]) else folders[1]


def _machine_folder() -> Path:
    return platformdirs.site_data_path(_APP, appauthor=False) / "ledgers"


def _user_folder() -> Path:
    return platformdirs.user_data_path(_APP, appauthor=False) / "ledgers"


def _is_writable(folder: Path) -> bool:
    there = next(f for f in (folder, *folder.parents) if f.exists())
    return os.access(there, os.W_OK)


def ready_ledger(file: BenchFile) -> tuple[Path, str]:
    """The path of a bench's ledger, its folder made and an older ledger taken over; and what to say
    of it. Raises `DataError` where the chip has two, or the disk refuses.
    """
    path = ledger_path(file)
    if file.chip.ledger:
        return path, ""
    remarks = []
    if file.simulation is None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{path.parent}: cannot be made: {error.strerror or error}") from None
        if not os.environ.get(FOLDER_VARIABLE) and path.parent == _user_folder():
            remarks.append(
                f"the ledger of chip {file.chip.id} lies in this user's folder ({path}), for"
                f" {_machine_folder()} cannot be written: other users of this machine count apart"
            )
    beside = file.folder / _name(file.chip.id)
    if beside.exists() and not path.exists():
        remarks.append(_take_over(file, beside, path))
    elif beside.exists() and not beside.samefile(path):
        remarks.append(_left_over(file, beside, path))
    return path, "; ".join(remarks)


def _take_over(file: BenchFile, beside: Path, path: Path) -> str:
    with _opened(file, beside) as old:
        # While its lock is held no other process can count in it.
        write_whole(path, old.content)
    set_aside(beside, "adopted")
    return f"the ledger beside the bench file was taken over: it is {path} now"


def _left_over(file: BenchFile, beside: Path, path: Path) -> str:
    """What to do with a second ledger: nothing where it is the first as it once was, as a process
    killed while it took it over leaves it.
    """
    old, now = (read_ledger(p, file.chip.id, file.chip.geometry) for p in (beside, path))
    counts = now.counts_at(old.count) if old.id == now.id else None
    if counts is not None and (counts == old.counts).all():
        set_aside(beside, "adopted")
        return f"the ledger beside the bench file was taken over before: it is {path}"
    raise DataError(
        f"chip {file.chip.id} has two ledgers: {path}, and {beside} of earlier times; add them:"
        f" rram-hil ledger merge {beside} --bench {file.path}"
    )


def set_aside(path: Path, how: str) -> Path:
    """Rename a file of a chip to `<name>.<how>`; returns the new path. Raises `DataError` where the
    disk refuses.
    """
    aside = path.with_name(f"{path.name}.{how}")
    try:
        os.replace(path, aside)
    except OSError as error:
        raise DataError(f"{path}: cannot be renamed: {error.strerror or error}") from None
    return aside


def _opened(file: BenchFile, path: Path) -> Ledger:
    return Ledger(path, file.chip.geometry, file.chip.id, limit=file.limits.pulses_per_cell)


def adopt_ledger(file: BenchFile, source: Path | None, pulses: int | None) -> Path:
    """Put a ledger in its place: a copy of `source`, else the one that is there or a new one; with
    `pulses` more for every cell, the most that one may have taken without any ledger. Returns its
    path.

    Raises `DataError` where `source` is given and the chip has a ledger already that was counted
    in, or `source` is none of this chip; `ConfigError` where nothing is given.
    """
    if source is None and pulses is None:
        raise ConfigError(
            "ledger adopt: give a FILE, or --pulses for what no ledger knows, or both"
        )
    if pulses is not None and pulses < 0:
        raise ConfigError(f"ledger adopt: --pulses must be 0 or more, not {pulses}")
    path = ledger_path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _opened(file, path) as there:
        content = there.content
        is_counted = bool(there.counts.any()) or content.count > 1
        if source is not None:
            if is_counted:
                raise DataError(
                    f"{path}: this chip has a ledger already; to add another to it: rram-hil ledger"
                    " merge"
                )
            with _opened(file, source) as old:
                content = old.content
    write_whole(path, content if pulses is None else with_more(content, pulses))
    return path


def merge_ledger(file: BenchFile, other: Path, *, unrelated: bool = False) -> Path:
    """Add to the bench's ledger what `other` counted since the two parted; `other` is renamed
    `<name>.merged`. Returns the path. Raises `DataError` as `storage.ledger.merged`.
    """
    path = ledger_path(file)
    if not path.exists():
        raise DataError(f"{path}: this chip has no ledger here; rram-hil ledger adopt {other}")
    with _opened(file, other) as second, _opened(file, path) as first:
        both = merged(first.content, second.content, unrelated=unrelated)
    write_whole(path, both)
    set_aside(other, "merged")
    return path
