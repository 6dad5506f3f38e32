"""Which bench a command works on: the one named to it, that of the environment variable
`RRAM_HIL_BENCH`, or that of the project file `rram-hil.toml` in this folder or one above it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from rram_hil.bench.bench_file import BenchFile, load_bench_file
from rram_hil.errors import ConfigError
from rram_hil.validation import StrictModel, read_toml, refused

VARIABLE = "RRAM_HIL_BENCH"
PROJECT_FILE = "rram-hil.toml"


class Project(StrictModel):
    """A project file."""

    bench: str = Field(description="bench file, relative to the project file")


@dataclass(frozen=True)
class BenchChoice:
    """A bench file and where its name came from: "" where it was given with the command."""

    file: BenchFile
    source: str = ""

    @property
    def is_surprising(self) -> bool:
        """A real bench that nothing in this folder and no word of the command names."""
        return self.source == VARIABLE and self.file.simulation is None


def choose_bench(given: str | Path | None, folder: Path | None = None) -> BenchChoice:
    """The bench `given`, else the environment's, else that of the project which `folder` (default:
    the working folder) lies in. Raises `ConfigError` where there is none, or its file is wrong.
    """
    if given is not None:
        return BenchChoice(load_bench_file(given))
    if named := os.environ.get(VARIABLE):
        return BenchChoice(_loaded(Path(named), VARIABLE), VARIABLE)
    here = Path.cwd() if folder is None else folder.resolve()
    for above in (here, *here.parents):
        path = above / PROJECT_FILE
        if path.is_file():
            return BenchChoice(_loaded(above / _project(path).bench, str(path)), str(path))
    raise ConfigError(
        f'no bench is named: give --bench FILE, set {VARIABLE}, or write bench = "FILE" in a'
        f" {PROJECT_FILE} here or above"
    )


def _project(path: Path) -> Project:
    tables, _ = read_toml(path, "a project file")
    try:
        return Project.model_validate(tables)
    except ValidationError as error:
        raise refused(error, str(path), Project) from None


def _loaded(path: Path, source: str) -> BenchFile:
    try:
        return load_bench_file(path)
    except ConfigError as error:
        raise ConfigError(f"{error} (named by {source})") from None
