"""Options that several commands have. Light: nothing of the package is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_ELSE = "default: what RRAM_HIL_BENCH or a rram-hil.toml names."

BenchOption = Annotated[
    Path | None,
    typer.Option("--bench", "-b", metavar="FILE", help=f"Bench file (TOML); {_ELSE}"),
]
BenchArgument = Annotated[
    Path | None, typer.Argument(metavar="[BENCH]", help=f"Bench file (TOML); {_ELSE}")
]
YesOption = Annotated[
    bool,
    typer.Option("--yes", "-y", help="Do not ask about a real bench that RRAM_HIL_BENCH names."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
