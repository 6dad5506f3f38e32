"""Which bench a command of the terminal works on, said where it was not named there."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from rram_hil.bench.bench_file import BenchFile
from rram_hil.bench.project import VARIABLE, BenchChoice, choose_bench
from rram_hil.errors import ConfigError
from rram_hil.terminal.console import Output, make_console


def bench_file(given: Path | None) -> BenchFile:
    """The bench of a command that moves no voltage. Raises `ConfigError` where none is named."""
    return _told(choose_bench(given))


def armed_bench_file(given: Path | None, *, is_agreed: bool) -> BenchFile:
    """The bench of a command that moves voltages. A real one that the environment names is asked
    about, unless `is_agreed`; raises `ConfigError` where nobody is there to ask.
    """
    choice = choose_bench(given)
    file = _told(choice)
    if is_agreed or not choice.is_surprising:
        return file
    if not sys.stdin.isatty():
        raise ConfigError(
            f"{file.path}: a real bench that {VARIABLE} names: add --yes, or name it with --bench"
        )
    if not typer.confirm(f"It is a real bench, chip {file.chip.id}. Go on?", err=True):
        raise ConfigError("nothing was done")
    return file


def _told(choice: BenchChoice) -> BenchFile:
    if choice.source:
        # Standard output is the command's, and may be JSON.
        Output(make_console(stderr=True)).line(
            f"Bench {choice.file.path}, as {choice.source} says."
        )
    return choice.file
