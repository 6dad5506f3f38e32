"""`rram-hil report`: which page of what, and where it is written."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rram_hil.bench.bench_file import load_bench_file
from rram_hil.bench.ledgers import found_ledger
from rram_hil.catalogue.catalog import Catalog
from rram_hil.errors import ConfigError, DataError, near
from rram_hil.report.chip_page import Wear, chips_of, write_chip_page, write_dies_page
from rram_hil.report.compare import write_comparison
from rram_hil.report.run_page import write_run_page
from rram_hil.report.sections import write_numbers
from rram_hil.storage.ledger_file import read_ledger
from rram_hil.storage.run_state import JOURNAL, newest
from rram_hil.terminal.console import Output
from rram_hil.units import counted


def report_runs(paths: Sequence[Path], out: Path | None, csv: Path | None, output: Output) -> None:
    """Write the page of one run, or of two beside each other, and say where it is. Raises
    `DataError` for a damaged file, `ConfigError` for other counts and a page of another name.
    """
    if len(paths) > 2:
        raise ConfigError(f"report: {len(paths)} runs; a page is of one, or of two compared")
    stems = [path.name.removesuffix(JOURNAL).removesuffix(".h5") for path in paths]
    target = page_path(out, "-and-".join(stems))
    if len(paths) == 2:
        if csv is not None:
            raise ConfigError("report: --csv goes with one run")
        with contextlib.ExitStack() as stack:
            first, second = (stack.enter_context(newest(path)) for path in paths)
            write_comparison((first, second), (paths[0], paths[1]), target)
        output.line(f"Report: {target}")
        return
    with newest(paths[0]) as run:
        views = write_run_page(run, paths[0], target)
    plots = sum(len(view.pictures) for view in views)
    output.line(f"Report of {counted(plots, 'plot')}: {target}")
    if csv is not None:
        written = write_numbers(views, csv)
        output.line(f"Numbers of {counted(len(written), 'plot')}: {csv}")


def page_path(out: Path | None, stem: str) -> Path:
    """Where a page goes: `out`, or `stem` as HTML here. Raises `ConfigError` for what is no name of
    a page, so that no run file is overwritten by a slip.
    """
    target = out or Path(f"{stem}.html")
    if target.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--out {target}: the name of a page ends in .html")
    if target.is_dir():
        raise ConfigError(f"--out {target}: a folder; give the name of a file")
    return target


def report_chips(
    folders: Sequence[Path], chip_id: str, bench: Path | None, out: Path | None, output: Output
) -> None:
    """Write the page of one chip's life, or of all chips in these folders, and say where it is.
    Raises `ConfigError` for a chip that has no run there, and a bench of another chip; `DataError`
    where no run of it can be read.
    """
    if bench is not None and not chip_id:
        raise ConfigError("report: --bench goes with --chip")
    catalog = Catalog(*folders)
    where = ", ".join(map(str, folders))
    if chip_id:
        chips = chips_of(catalog.search(chip=chip_id))
        if not chips:
            known = {entry.chip_id for entry in catalog if entry.chip_id}
            told = f"there are: {', '.join(sorted(known))}" if known else "there is no run"
            raise ConfigError(f"--chip {chip_id}: no run in {where}; {told}{near(chip_id, known)}")
        if not chips[0].runs:
            told = "; ".join(chips[0].unread)
            raise DataError(f"--chip {chip_id}: no run of it in {where} can be read: {told}")
        chip = replace(chips[0], wear=_wear(bench, chip_id))
        target = page_path(out, f"chip-{_plain(chip_id)}")
        write_chip_page(chip, target)
        output.line(f"Life of chip {chip_id}, {counted(len(chip.runs), 'run')}: {target}")
        return
    chips = chips_of(catalog)
    # Of a file so damaged that it names no chip.
    damaged = [f"{e.path.name}: {e.reason}" for e in catalog if e.reason and not e.chip_id]
    unread = (*damaged, *catalog.unreadable)
    shown = [chip for chip in chips if chip.runs]
    if not shown:
        told = "; ".join((*unread, *(text for chip in chips for text in chip.unread)))
        if told:
            raise DataError(f"report: no run in {where} can be read: {told}")
        raise ConfigError(f"report: there is no run in {where}")
    target = page_path(out, "chips")
    write_dies_page(chips, target, unread)
    output.line(f"{counted(len(shown), 'chip')}: {target}")
    lost = ", ".join(chip.chip_id for chip in chips if not chip.runs)
    if lost:
        output.line(f"No run can be read of: {lost}; the page says why.")


def _plain(name: str) -> str:
    """A chip's id as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)


def _wear(bench: Path | None, chip_id: str) -> Wear | None:
    if bench is None:
        return None
    file = load_bench_file(bench)
    if file.chip.id != chip_id:
        raise ConfigError(f"--bench {bench}: its chip is {file.chip.id!r}, not {chip_id!r}")
    held = read_ledger(found_ledger(file), chip_id, file.chip.geometry)
    return Wear(held.counts.reshape(file.chip.geometry.shape), file.limits.pulses_per_cell)
