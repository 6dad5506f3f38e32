"""Packages that a page of the documentation tells how to write: built, installed and tried as they
stand there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

from wheels import install_from_wheel

from rram_hil.terminal.starting_points import files_of_page

DOCS = Path(__file__).parents[2] / "docs"


class Lab:
    """A folder with a document's files, and the folder in which its package is installed from a
    wheel.
    """

    def __init__(self, document: str, folder: Path) -> None:
        self.work, self.site, source = (folder / name for name in ("work", "site", "source"))
        self.work.mkdir()
        source.mkdir()
        self.files = files_of_page((DOCS / document).read_text(encoding="utf-8"))
        project = tomllib.loads(self.files["pyproject.toml"])
        modules = {f"{module}.py" for module in project["tool"]["setuptools"]["py-modules"]}
        for name, text in self.files.items():
            place = source if name in {"pyproject.toml", *modules} else self.work
            place.joinpath(name).write_text(text, encoding="utf-8")
        install_from_wheel(source, self.site)

    def python(self, *arguments: str, fails: bool = False, installed: bool = True) -> str:
        """Run the interpreter in the folder of work, with the package or without it: what it
        prints.
        """
        done = self._ran(*arguments, installed=installed)
        assert bool(done.returncode) == fails, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stderr if fails else done.stdout

    def _ran(self, *arguments: str, installed: bool) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", *arguments],
            cwd=self.work,
            env=os.environ | ({"PYTHONPATH": str(self.site)} if installed else {}),
            capture_output=True,
            text=True,
            timeout=110,
        )

    def cli(self, command: str, *, fails: bool = False, installed: bool = True) -> str:
        """Run `rram-hil`."""
        return self.python("-m", "rram_hil.cli", *command.split(), fails=fails, installed=installed)

    def listed(self, name: str) -> list[tuple[str, ...]]:
        """What `rram-hil list` says of a name."""
        rows = json.loads(self.cli("list --json"))
        return [tuple(row.values()) for row in rows if row["name"] == name]

    def passes_its_tests(self, test: str, count: int, which: str = "") -> bool:
        """Whether the document's own tests pass, so many of them; only those that `-k` finds."""
        told = self.told_by_tests(test, which)
        assert "failed" not in told, told[-3000:]
        return f"{count} passed" in told

    def told_by_tests(self, test: str, which: str = "") -> str:
        """What pytest prints, whether the document's tests pass or fail."""
        command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", test, "-k", which)
        return self._ran(*command, installed=True).stdout
