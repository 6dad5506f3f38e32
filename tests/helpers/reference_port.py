"""The reference port of `firmware/` in QEMU, its UART on a pseudo-terminal."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator

from firmware_builds import built

MACHINE = "lm3s6965evb"


@contextlib.contextmanager
def running() -> Iterator[str]:
    """The pseudo-terminal of a board that has just been switched on."""
    program = built("lm3s6965", "lm3s6965/board.elf")
    quiet = ["-nographic", "-monitor", "none", "-serial", "pty"]
    process = subprocess.Popen(
        ["qemu-system-arm", "-M", MACHINE, *quiet, "-kernel", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        told = process.stdout.readline()
        place = re.search(r"/dev/\S+", told)
        assert place, told
        yield place[0]
    finally:
        process.kill()
        process.wait()
