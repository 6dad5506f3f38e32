"""The real command line in a folder of its own, with a small simulated bench and a recipe."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from small_bench import bench_toml

from rram_hil.cli import main
from rram_hil.signals import stopping

SIMULATION = 'device = "hfo2"\nseed = 1\nstate = "c1.state"'
BENCH = bench_toml("c1", 16, 16, 100, simulation=SIMULATION)
RECIPE = """\
title = "try"

[[step]]
protocol = "forming"

[[step]]
protocol = "read-map"
"""


@dataclass(frozen=True)
class Said:
    """What a command left: exit status, standard output, standard error."""

    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Workplace:
    """A folder with bench.toml and recipe.toml, in which commands run."""

    folder: Path
    command: Callable[..., Said]

    def write(self, name: str, text: str) -> str:
        """Write a file; returns its name."""
        (self.folder / name).write_text(text, encoding="utf-8")
        return name

    def bench(self, old: str = "", new: str = "", name: str = "bench.toml") -> str:
        """Write the bench file with one change."""
        assert old in BENCH
        return self.write(name, BENCH.replace(old, new))

    def files(self) -> set[str]:
        """Names of everything in the folder."""
        return {str(p.relative_to(self.folder)) for p in self.folder.rglob("*")}

    def refused(self, *arguments: str) -> str:
        """Run a command that must be refused: status 2, one line, no traceback, no file left;
        returns the line.
        """
        before = self.files()
        said = self.command(*arguments)
        assert said.status == 2, said
        lines = [line for line in said.err.splitlines() if line.startswith("rram-hil: ")]
        assert len(lines) == 1, said.err
        assert said.err.rstrip().endswith(lines[0])
        assert "Traceback" not in said.err + said.out
        left = {f for f in self.files() - before if not f.startswith("c1.")}
        assert not left, left
        return lines[0]


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Workplace]:
    """A workplace with the plain bench and recipe."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    before = {number: signal.getsignal(number) for number in stopping()}

    def command(*arguments: str) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main(list(arguments))
        out, err = capsys.readouterr()
        return Said(int(left.value.code or 0), out, err)

    place = Workplace(tmp_path, command)
    place.bench()
    place.write("recipe.toml", RECIPE)
    yield place
    for number, handler in before.items():
        signal.signal(number, handler)
