"""`rram-hil calibrate NAME KEYS --bench BENCH -o FILE` for the calibrations that run on a bench."""

from __future__ import annotations

import inspect
import itertools
from pathlib import Path
from typing import Annotated

import typer

from rram_hil.bench.plugins import protocol_class
from rram_hil.bench.recipe import Head, Recipe, RecipeStep
from rram_hil.bench.recipe_runner import run_recipe
from rram_hil.corrections.calibration_file import Calibrated
from rram_hil.engine.calibration import Calibration
from rram_hil.errors import ConfigError
from rram_hil.plugins import working
from rram_hil.storage.run_state import journal_of
from rram_hil.terminal.benches import armed_bench_file
from rram_hil.terminal.console import Output, ProgressWatcher
from rram_hil.terminal.options import BenchOption, YesOption
from rram_hil.validation import read_toml


def register(app: typer.Typer) -> None:
    """Add one command for each installed calibration to `rram-hil calibrate`. One that cannot be
    imported is left out: `rram-hil list` says why.
    """
    for name, kind in working("rram_hil.calibration", protocol_class):
        if issubclass(kind, Calibration):
            told = (inspect.getdoc(kind) or name).partition("\n\n")[0]
            _add(app, name, kind, " ".join(told.split()))


def _free(run_file: Path) -> Path:
    """The name, or the first of it with a number: readings of an earlier calibration are kept."""
    numbered = (run_file.with_stem(f"{run_file.stem}-{k}") for k in itertools.count(2))
    names = itertools.chain([run_file], numbered)
    return next(n for n in names if not n.exists() and not journal_of(n).exists())


def _add(app: typer.Typer, name: str, kind: type[Calibration], told: str) -> None:
    @app.command(
        name,
        short_help=told,
        help=f"{told} Writes a calibration file, and a run file with all readings.",
    )
    def command(
        keys: Annotated[
            Path,
            typer.Argument(metavar="KEYS", help="TOML with the keys that a recipe's step has."),
        ],
        out: Annotated[
            Path,
            typer.Option("--out", "-o", metavar="FILE", help="Calibration file to write (TOML)."),
        ],
        bench: BenchOption = None,
        force: Annotated[
            bool, typer.Option("--force", help="Overwrite a calibration file that exists.")
        ] = False,
        yes: YesOption = False,
    ) -> None:
        run_file = _free(out.with_suffix(".h5"))
        if out.exists() and not force:
            raise ConfigError(f"{out} exists; add --force to overwrite it")
        if not out.parent.is_dir():
            raise ConfigError(f"--out {out}: there is no folder {out.parent}")
        recipe = recipe_of(name, kind, keys, out)
        file = armed_bench_file(bench, is_agreed=yes)
        with ProgressWatcher() as watcher:
            outcome = run_recipe(recipe, file, run_file, watcher=watcher, force=True)
        output = Output()
        _, found = outcome.steps[0]
        assert isinstance(found, Calibrated)
        for line in str(found).split("; "):
            output.line(line)
        output.line(
            f"Calibration {out}; all readings are in {run_file}. Name it in the bench file:"
            " [calibration] files"
        )


def recipe_of(name: str, kind: type[Calibration], keys: Path, out: Path) -> Recipe:
    """A recipe of this one step. Raises `ConfigError` naming the key that is wrong."""
    tables, text = read_toml(keys)
    tables.pop("file", None)
    try:
        protocol = kind(**tables | {"file": str(out.resolve())})
    except ConfigError as error:
        error.where = str(keys)
        raise
    head = Head(title=f"calibrate {name}", step=[{"protocol": name}])
    return Recipe(keys, text, head, (RecipeStep(name, name, protocol),))
