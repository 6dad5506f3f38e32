"""Calibration of the simulated device: fit its model to measured files and to run files, check it
against files that the fit did not see.

On the command line `rram-hil calibrate device-model FILE... -o model.toml` and `rram-hil calibrate
check model.toml FILE...`; in Python `fit_files` and `check_files`. docs/device-model.md tells the
model, the files and what the figures mean.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from rram_hil.errors import ConfigError, DataError
from rram_hil.report.page import write_page
from rram_hil.simulation.model import DeviceModel
from rram_hil.storage.safe_files import replace
from rram_hil.terminal.console import Output

from .device_fit.fitting import fit
from .device_fit.key_figures import Compared
from .device_fit.measured_files import Measured, read_measured
from .device_fit.prediction import ENOUGH, Checked, check_file, passed
from .device_fit.report import device_report
from .device_fit.run_files import is_run_file, measured_of_run
from .device_fit.toml_text import to_toml

__all__ = ["Checked", "Compared", "check_files", "fit_files", "passed", "register"]


def fit_files(
    paths: list[Path],
    name: str = "fitted",
    tell: Callable[[str], None] = lambda text: None,
    rounds: int = 10,
) -> DeviceModel:
    """A device model fitted to measured files and run files, of one chip or of several alike;
    of write-verify files those by ISPP on fresh cells are used, the others left alone.

    `tell` is told what is going on, and at last which parts were determined and which kept;
    `rounds` is how often, at most, sweeps are matched better. Raises `DataError` for a file that
    cannot be read or fitted.
    """
    return fit(_measured(paths), name, tell, rounds)


def check_files(model: DeviceModel, paths: list[Path], seed: int = 71) -> list[Checked]:
    """The experiment of each file, those of a run file one by one, repeated on the model, and its
    figures compared. Write-verify files of the very same cells count as measured one after the
    other. Raises `DataError` for a file of no use.
    """
    files = _measured(paths)
    return [check_file(model, file, seed, files[:k]) for k, file in enumerate(files)]


def _measured(paths: list[Path]) -> list[Measured]:
    return [
        file
        for path in paths
        for file in (measured_of_run(path) if is_run_file(path) else read_measured(path))
    ]


FilesArgument = Annotated[
    list[Path],
    typer.Argument(metavar="FILE...", help="Measured files (CSV, plain or gzip) and run files."),
]


def register(app: typer.Typer) -> None:
    """Add the commands `device-model` and `check` to `rram-hil calibrate`."""

    @app.command("device-model", short_help="Fit the simulated device to measured files.")
    def device_model(
        files: FilesArgument,
        out: Annotated[
            Path, typer.Option("--out", "-o", metavar="FILE", help="Model file to write (TOML).")
        ],
        force: Annotated[
            bool, typer.Option("--force", help="Overwrite a file that exists.")
        ] = False,
    ) -> None:
        """Fit the simulated device to measured files. The model file can be named in a bench file
        (simulation.device).
        """
        if out.exists() and not force:
            raise ConfigError(f"{out} exists; add --force to overwrite it")
        if not out.parent.is_dir():
            raise ConfigError(f"--out {out}: there is no folder {out.parent}")
        output = Output()
        began = time.monotonic()
        model = fit_files(files, out.stem, output.line)
        _write(out, to_toml(model))
        output.line(
            f"Model {out}, fitted in {time.monotonic() - began:.0f} s; check it on files that it"
            " has not seen."
        )

    @app.command("check", short_help="Compare a device model with measured files.")
    def check(
        model: Annotated[
            str, typer.Argument(metavar="MODEL", help="Model file (TOML) or a preset's name.")
        ],
        files: FilesArgument,
        as_json: Annotated[
            bool, typer.Option("--json", help="Print one JSON document instead of tables.")
        ] = False,
        report: Annotated[
            Path | None,
            typer.Option(
                "--report", metavar="FILE", help="Also write a page (HTML) that draws them."
            ),
        ] = None,
        seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the model's cells.")] = 71,
    ) -> None:
        """Repeat each file's experiment on the model and compare, figure by figure. Exits with 0
        where 90 % pass, else 1.
        """
        if report is not None and not report.parent.is_dir():
            raise ConfigError(f"--report {report}: there is no folder {report.parent}")
        loaded = DeviceModel.load(model)
        found = check_files(loaded, files, seed)
        good, judged = passed(found)
        if judged == 0:
            raise DataError("no figure of these files can be judged")
        if report is not None:
            write_page(report, device_report(loaded, found))
        if as_json:
            print(json.dumps(_as_json(loaded, found), indent=1))
        else:
            _show(found, Output())
        raise typer.Exit(0 if good >= ENOUGH * judged else 1)


def _write(path: Path, text: str) -> None:
    try:
        partial = path.with_name(path.name + ".new")
        partial.write_text(text, encoding="utf-8")
        replace(partial, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error}") from None


def _show(files: list[Checked], output: Output) -> None:
    for file in files:
        good, judged = passed([file])
        output.heading(f"{file.name} ({file.kind})", f"{good} of {judged} figures pass")
        output.table(
            ("figure", ">measured", ">predicted", ">allowed", "verdict"),
            [
                (
                    one.figure,
                    f"{one.measured:.4g}",
                    f"{one.predicted:.4g}",
                    "" if math.isnan(one.allowed) else f"{one.allowed:.3g}",
                    one.verdict,
                )
                for one in file.figures
            ],
        )
    good, judged = passed(files)
    verdict = "pass" if good >= ENOUGH * judged else "fail"
    output.line(
        f"{good} of {judged} figures pass ({good / judged:.1%}; {ENOUGH:.0%} are wanted): {verdict}"
    )
    if verdict == "fail":
        kinds = dict.fromkeys(file.kind for file in files)
        counts = {kind: passed([file for file in files if file.kind == kind]) for kind in kinds}
        told = [f"{kind} {of - fine} of {of}" for kind, (fine, of) in counts.items() if fine < of]
        output.line(
            f"Misses by kind: {', '.join(told)}. What each asks for stands in docs/device-model.md,"
            ' "When a check fails".'
        )


def _as_json(model: DeviceModel, files: list[Checked]) -> dict[str, Any]:
    good, judged = passed(files)

    def number(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "model": {"name": model.name, "digest": model.digest},
        "passed": good,
        "judged": judged,
        "verdict": "pass" if good >= ENOUGH * judged else "fail",
        "files": [
            {
                "file": file.name,
                "kind": file.kind,
                "figures": [
                    {
                        "figure": one.figure,
                        "measured": number(one.measured),
                        "predicted": number(one.predicted),
                        "allowed": number(one.allowed),
                        "verdict": one.verdict,
                    }
                    for one in file.figures
                ],
            }
            for file in files
        ],
    }
