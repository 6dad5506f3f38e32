"""Packages built from their sources, and put where an interpreter finds them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


def install_from_wheel(source: Path, site: Path) -> None:
    """Build a wheel of the project in `source` and unpack it into `site`, which is all that an
    installer does with a package of Python files. Skips where setuptools is not there.

    pip does the same by itself, three times as slowly; `.ci/run` installs this package with it.
    """
    if find_spec("setuptools") is None:
        pytest.skip("building a wheel needs setuptools in this environment")
    wheels = source / "dist"
    wheels.mkdir()
    done = subprocess.run(
        [sys.executable, "-P", "-c", BUILD, str(wheels)],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(site)


def copy_of_sources(folder: Path) -> Path:
    """What this package is built from, copied into `folder`, for a build leaves files behind."""
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("rram_hil", "drivers", "protocols", "calibration", "examples", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder
