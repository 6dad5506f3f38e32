"""Crash tooling: a preloaded shim kills a process exactly at a chosen write, and a scenario is
killed at each of them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Crash:
    """A scenario that died at call `number` on the matched files (or did not, past the last one),
    and what it left.
    """

    folder: Path
    number: int
    when: Literal["before", "half"]
    call: str
    died: bool


@dataclass(frozen=True)
class CrashShim:
    """The compiled shim."""

    library: Path

    def environment(
        self, match: str, at: int = 0, when: str = "before", log: Path | None = None
    ) -> dict[str, str]:
        """Environment that kills a child at call `at` (0: never) on files whose path contains
        `match`; see crash_shim.c.
        """
        settings = {"CRASH_MATCH": match, "CRASH_AT": str(at), "CRASH_WHEN": when}
        settings |= {"CRASH_LOG": str(log)} if log else {}
        return os.environ | settings | {"LD_PRELOAD": str(self.library)}

    def everywhere(
        self, scenario: str, match: str, folder: Path, writes: int = 1000
    ) -> list[Crash]:
        """Run a function of storage_scenarios.py once for every call on the matched files, killed
        there, each in its folder.

        Where it makes more than `writes` writes, that many of them, evenly spread, and every other
        call.
        """
        environment = os.environ | {"LD_PRELOAD": str(self.library)}
        command = [
            sys.executable,
            str(HERE / "crash_points.py"),
            scenario,
            match,
            str(folder),
            str(writes),
        ]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        return [Crash(Path(c.pop("folder")), **c) for c in json.loads(done.stdout)]


@pytest.fixture(scope="session")
def crash_shim(tmp_path_factory: pytest.TempPathFactory) -> CrashShim:
    """The shim, compiled; skips where there is no Linux or no C compiler."""
    if sys.platform != "linux" or sys.maxsize < 1 << 32:
        pytest.skip("the crash shim preloads into 64-bit Linux programs only")
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("the crash shim needs a C compiler (cc, gcc or clang)")
    library = tmp_path_factory.mktemp("crash_shim") / "crash_shim.so"
    flags = ["-O1", "-Wall", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, "-o", str(library), str(HERE / "crash_shim.c")], check=True)
    return CrashShim(library)
