"""The board of `firmware/` built for this machine, with sanitizers, once for each state of its
sources.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

FIRMWARE = Path(__file__).parents[2] / "firmware"
SANITIZE = "address,undefined"


def compiler() -> str | None:
    """A C compiler with `make` beside it; None where there is none."""
    found = [name for name in ("clang", "gcc") if shutil.which(name)]
    return found[0] if found and shutil.which("make") else None


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skips a test where one of these programs is not to be had."""
    missing = [name for name in programs if shutil.which(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)}: not installed")


@cache
def built(target: str, product: str) -> Path:
    """What `make TARGET` makes. Raises `AssertionError` with the compiler's words."""
    sources = sorted(p for p in FIRMWARE.rglob("*") if p.is_file() and "build" not in p.parts)
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in sources)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"rram-hil-firmware-{os.getuid()}-{digest}"
    if not (folder / product).exists():
        # Several workers may build at once: what is finished is moved into its place in one step.
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as own:
            settings = f"BUILD={own}", f"CC={compiler()}", f"SANITIZE={SANITIZE}"
            done = subprocess.run(
                ["make", "-C", FIRMWARE, target, *settings],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            (folder / product).parent.mkdir(parents=True, exist_ok=True)
            os.replace(Path(own) / product, folder / product)
    return folder / product


def host_board() -> Path:
    """The program that is the board; the test is skipped where no compiler is."""
    if compiler() is None:
        pytest.skip("no C compiler and make: the firmware is not built")
    return built("host", "host/board")
